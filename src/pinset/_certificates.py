"""
From DER bytes to the facts that pins are compared with.

Rules of this module:

1. The bytes of a ``SubjectPublicKeyInfo`` are hashed exactly as they stand in the certificate. Re-encoding a parsed
   key gives other bytes for compressed points, explicit curves, RSA without NULL parameters and RSA-PSS.
2. The walk is strict DER (X.690 section 10): definite, minimal lengths and nothing left over. What it cannot read is a
   `CertificateError`, and no other exception leaves it.
3. The walk proves nothing. Signatures, names and dates were verified by OpenSSL before; this module only finds bytes.
4. The cache is keyed by the whole certificate, holds digests and never verdicts, and is bounded: a peer can flush it,
   never confuse it.
"""

from __future__ import annotations

import functools
import hashlib
import warnings
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NoReturn

from pinset._errors import CertificateError

_INTEGER, _BIT_STRING, _SEQUENCE = 0x02, 0x03, 0x30
_UTC_TIME, _GENERALIZED_TIME = 0x17, 0x18
_VERSION, _CSR_ATTRIBUTES = 0xA0, 0xA0
_CACHED_CERTIFICATES = 1024
_CACHED_CHAINS = 512
_LONGEST_NAME = 200


@dataclass(frozen=True, slots=True)
class Certificate:
    """
    What pinning needs to know of a certificate.

    Attributes:
        der: The certificate as it was received.
        spki_sha256: SHA-256 of its ``SubjectPublicKeyInfo``, 32 bytes.
        certificate_sha256: SHA-256 of the whole certificate, 32 bytes.
        not_before: The first instant of its validity, in UTC.
        not_after: The last instant of its validity, in UTC.
    """

    der: bytes = field(repr=False)
    spki_sha256: bytes
    certificate_sha256: bytes
    not_before: datetime
    not_after: datetime

    @property
    def subject(self) -> str:
        """
        The subject for people to read (RFC 4514), cut to 200 characters and free of control characters.
        """
        return _subject(self.der)


@functools.lru_cache(maxsize=_CACHED_CERTIFICATES)
def read_certificate(der: bytes) -> Certificate:
    """
    Find the key and the dates of a certificate, and hash them.

    Args:
        der: One certificate, DER.

    Raises:
        CertificateError: *der* is not a strictly encoded certificate (RFC 5280 section 4.1).
    """
    spki, (not_before, not_after) = _walk_certificate(der)
    return Certificate(
        der=der,
        spki_sha256=hashlib.sha256(spki).digest(),
        certificate_sha256=hashlib.sha256(der).digest(),
        not_before=not_before,
        not_after=not_after,
    )


@functools.lru_cache(maxsize=_CACHED_CHAINS)
def read_chain(ders: tuple[bytes, ...]) -> tuple[Certificate, ...]:
    """
    Read every certificate of a chain, leaf first.

    Raises:
        CertificateError: One of them cannot be read; the message says which.
    """
    chain: list[Certificate] = []
    for index, der in enumerate(ders):
        try:
            chain.append(read_certificate(der))
        except CertificateError as error:
            raise CertificateError(f"certificate {index} of the chain: {error}", offset=error.offset) from error
    return tuple(chain)


def spki_of_certificate(der: bytes) -> bytes:
    """
    The ``SubjectPublicKeyInfo`` of a certificate, byte for byte.

    Raises:
        CertificateError: *der* is not a strictly encoded certificate (RFC 5280 section 4.1).
    """
    return _walk_certificate(der)[0]


def spki_of_request(der: bytes) -> bytes:
    """
    The ``SubjectPublicKeyInfo`` of a certification request, byte for byte.

    Raises:
        CertificateError: *der* is not a strictly encoded request (RFC 2986 section 4).
    """
    request = _Reader(der, "certification request").only(_SEQUENCE)
    info = request.enter(_SEQUENCE)
    request.skip(_SEQUENCE)  # signatureAlgorithm
    request.skip(_BIT_STRING)  # signature
    request.end()
    info.skip(_INTEGER)  # version
    info.skip(_SEQUENCE)  # subject
    spki = info.element(_SEQUENCE)
    info.skip(_CSR_ATTRIBUTES)
    info.end()
    return checked_spki(spki)


def checked_spki(der: bytes) -> bytes:
    """
    The same bytes, once they are known to have the shape of a ``SubjectPublicKeyInfo``.

    Raises:
        CertificateError: They have not (RFC 5280 section 4.1.2.7).
    """
    spki = _Reader(der, "public key").only(_SEQUENCE)
    spki.skip(_SEQUENCE)  # algorithm
    spki.skip(_BIT_STRING)  # subjectPublicKey
    spki.end()
    return der


def _walk_certificate(der: bytes) -> tuple[bytes, tuple[datetime, datetime]]:
    # RFC 5280 section 4.1: Certificate ::= SEQUENCE { tbsCertificate, signatureAlgorithm, signatureValue }
    certificate = _Reader(der, "certificate").only(_SEQUENCE)
    tbs = certificate.enter(_SEQUENCE)
    certificate.skip(_SEQUENCE)
    certificate.skip(_BIT_STRING)
    certificate.end()
    # TBSCertificate ::= SEQUENCE { version, serialNumber, signature, issuer, validity, subject, subjectPublicKeyInfo …}
    if tbs.peek() == _VERSION:
        tbs.skip(_VERSION)
    tbs.skip(_INTEGER)
    tbs.skip(_SEQUENCE)
    tbs.skip(_SEQUENCE)
    validity = tbs.enter(_SEQUENCE)
    tbs.skip(_SEQUENCE)
    spki = checked_spki(tbs.element(_SEQUENCE))
    not_before, not_after = validity.time(), validity.time()
    validity.end()
    return spki, (not_before, not_after)


class _Reader:
    """
    A cursor over one level of DER elements.
    """

    __slots__ = ("_at", "_data", "_end", "_what")

    def __init__(self, data: bytes, what: str, at: int = 0, end: int | None = None) -> None:
        self._data, self._what = data, what
        self._at, self._end = at, len(data) if end is None else end

    def only(self, tag: int) -> _Reader:
        """Enter the one element that *data* consists of."""
        inner = self.enter(tag)
        self.end()
        return inner

    def peek(self) -> int | None:
        return self._data[self._at] if self._at < self._end else None

    def enter(self, tag: int) -> _Reader:
        start, end = self._next(tag)
        return _Reader(self._data, self._what, start, end)

    def element(self, tag: int) -> bytes:
        """The element as it stands: tag, length and content."""
        begin = self._at
        _, end = self._next(tag)
        return self._data[begin:end]

    def skip(self, tag: int) -> None:
        self._next(tag)

    def end(self) -> None:
        if self._at != self._end:
            self._fail("has bytes after its last field")

    def time(self) -> datetime:
        """A Validity time (RFC 5280 section 4.1.2.5): in Zulu, with seconds, without fractions."""
        tag = self.peek()
        if tag not in (_UTC_TIME, _GENERALIZED_TIME):
            self._fail("has a validity that is not a time")
        start, end = self._next(tag)
        try:
            text = self._data[start:end].decode("ascii")
            if tag == _UTC_TIME:
                # Two digits: 50 and later are of the last century (RFC 5280 section 4.1.2.5.1), unlike strptime's 69.
                text = ("19" if text[:2] >= "50" else "20") + text
            if len(text) != len("YYYYMMDDHHMMSSZ") or not text.endswith("Z"):  # strptime ignores case
                self._fail("has a validity in an unknown form")
            return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
        except ValueError:
            self._fail("has a validity in an unknown form")

    def _next(self, tag: int) -> tuple[int, int]:
        """Check the header at the cursor and step over the element; returns where its content starts and ends."""
        data, at = self._data, self._at
        if at + 2 > self._end or data[at] != tag:
            self._fail(f"lacks an expected field (tag {tag:#04x})")
        length, start = data[at + 1], at + 2
        if length >= 0x80:
            octets = length & 0x7F
            # 0x80 is the indefinite form of BER. OpenSSL accepts it; DER does not (X.690 section 10.1).
            if not 1 <= octets <= 4 or start + octets > self._end:
                self._fail("has a length that is not DER")
            length = int.from_bytes(data[start : start + octets], "big")
            if length < 0x80 or length >> (8 * (octets - 1)) == 0:
                self._fail("has a length that is not minimal")
            start += octets
        if start + length > self._end:
            self._fail("is cut short")
        self._at = start + length
        return start, self._at

    def _fail(self, reason: str) -> NoReturn:
        raise CertificateError(f"the {self._what} {reason}, at byte {self._at}", offset=self._at)


def _subject(der: bytes) -> str:
    # Only for people, only when something went wrong, and never a reason to fail: whatever cryptography raises for the
    # certificates that it refuses (it warns on some real roots) becomes a remark.
    from cryptography import x509  # noqa: PLC0415 - costs more than all of pinset, and only errors need it

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            name = x509.load_der_x509_certificate(der).subject.rfc4514_string()
        except Exception:  # noqa: BLE001 - cryptography documents no closed list
            return "(unreadable subject)"
    printable = "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in name) or "(empty subject)"
    return printable if len(printable) <= _LONGEST_NAME else printable[: _LONGEST_NAME - 1] + "…"
