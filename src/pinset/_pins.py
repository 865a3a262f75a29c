"""
`Pin`: parsed, printed, and computed from a certificate, a key or a signing request.

Rules of this module:

1. A pin is SHA-256, 32 bytes. SHA-1 and MD5 are refused by name; no value means "no pin": 32 zero bytes are a pin that
   never matches.
2. Base64 is canonical: it is decoded, encoded again and compared. Python's decoder lets unused bits vary, and two
   spellings of one pin would make one pin look like two.
3. A public-key pin prints as ``sha256/…``, a certificate pin as colon-hex, so no text can be read as the wrong kind.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass
from enum import StrEnum

from pinset._certificates import checked_spki, spki_of_certificate, spki_of_request
from pinset._errors import CertificateError, PinError

_DIGEST_SIZE = hashlib.sha256().digest_size
_ENCODED_SIZE = 4 * -(-_DIGEST_SIZE // 3)
_PEM = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----(.*?)-----END \1-----", re.DOTALL)
_HEX = re.compile(r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2})*")
_HPKP = re.compile(r'pin-sha256="([^"]*)"')
_LONGEST_QUOTE = 80
_EXAMPLE = "a pin is 'sha256/' and 44 characters of base64, such as sha256/7HIpactkIAq2Y49orFOOQKurWxmmSFZhBCoQYcRhJ3Y="


class PinKind(StrEnum):
    """
    What a pin is the digest of.
    """

    SPKI = "spki"
    CERTIFICATE = "certificate"


@dataclass(frozen=True, slots=True, order=True)
class Pin:
    """
    The SHA-256 digest of a public key (RFC 7469 section 2.4) or of a whole certificate.

    Attributes:
        kind: What it is the digest of.
        digest: 32 bytes.

    Raises:
        PinError: *kind* is no `PinKind`, nor the text of one, or *digest* is not 32 bytes.
    """

    kind: PinKind
    digest: bytes

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "kind", PinKind(self.kind))
        except ValueError:
            raise PinError(f"{self.kind!r} is no kind of pin: those are 'spki' and 'certificate'") from None
        if not isinstance(self.digest, bytes) or len(self.digest) != _DIGEST_SIZE:
            raise PinError(f"the digest of a pin is {_DIGEST_SIZE} bytes of SHA-256")

    def __str__(self) -> str:
        if self.kind is PinKind.CERTIFICATE:
            return self.digest.hex(":").upper()
        return "sha256/" + base64.b64encode(self.digest).decode("ascii")

    @classmethod
    def parse(cls, text: str, *, kind: PinKind | None = None) -> Pin:
        """
        Read a pin.

        Accepted are ``sha256/…``, curl's ``sha256//…``, HPKP's ``pin-sha256="…"`` and, for certificates, the
        colon-separated hexadecimal that ``openssl x509 -fingerprint -sha256`` prints.

        Args:
            text: The pin; space around it is ignored.
            kind: What the digest is of. By default a public key, and a certificate for the colon-separated form.

        Raises:
            PinError: *text* is not a pin, or not of *kind*.
        """
        stripped = text.strip()
        if ":" in stripped:
            if kind is PinKind.SPKI:
                raise PinError(
                    f"{_cut(stripped)} is the fingerprint of a certificate, not a public-key pin; put it into"
                    " certificate_pins, or pin the key",
                    text=text,
                )
            return cls(PinKind.CERTIFICATE, _from_colon_hex(stripped))
        return cls(kind or PinKind.SPKI, _from_base64(_encoded_digest(stripped), stripped))

    @classmethod
    def from_certificate(cls, data: bytes | str, *, kind: PinKind = PinKind.SPKI) -> Pin:
        """
        The pin of a certificate: of its key, or of all of it.

        Args:
            data: One certificate, PEM or DER. PEM with several is refused: which one is meant?
            kind: `PinKind.SPKI` for its public key, `PinKind.CERTIFICATE` for the whole certificate.

        Raises:
            PinError: *data* is not one strictly encoded certificate (RFC 5280 section 4.1).
        """
        der = _der(data, "CERTIFICATE")
        try:
            spki = spki_of_certificate(der)
        except CertificateError as error:
            raise PinError(f"no pin can be made: {error}") from error
        return cls(kind, hashlib.sha256(der if kind is PinKind.CERTIFICATE else spki).digest())

    @classmethod
    def from_public_key(cls, data: bytes | str) -> Pin:
        """
        The pin of a public key.

        Args:
            data: A ``SubjectPublicKeyInfo``, PEM (``BEGIN PUBLIC KEY``) or DER.

        Raises:
            PinError: *data* is not one (RFC 5280 section 4.1.2.7).
        """
        try:
            spki = checked_spki(_der(data, "PUBLIC KEY"))
        except CertificateError as error:
            raise PinError(f"no pin can be made: {error}") from error
        return cls(PinKind.SPKI, hashlib.sha256(spki).digest())

    @classmethod
    def from_csr(cls, data: bytes | str) -> Pin:
        """
        The pin of the key in a certificate signing request: a backup pin, before any certificate exists.

        Args:
            data: A PKCS #10 request, PEM or DER.

        Raises:
            PinError: *data* is not one (RFC 2986 section 4).
        """
        try:
            spki = spki_of_request(_der(data, "CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"))
        except CertificateError as error:
            raise PinError(f"no pin can be made: {error}") from error
        return cls(PinKind.SPKI, hashlib.sha256(spki).digest())


def _encoded_digest(text: str) -> str:
    """The base64 of one of the three public-key forms."""
    if match := _HPKP.fullmatch(text):
        return match[1]
    algorithm, slash, encoded = text.partition("/")
    if not slash:
        raise PinError(f"{_cut(text)} does not name its algorithm; {_EXAMPLE}", text=text)
    if algorithm in ("sha1", "md5"):
        raise PinError(f"{_cut(text)} uses {algorithm}, which can be forged; pin with sha256", text=text)
    if algorithm != "sha256":
        raise PinError(f"{_cut(text)} uses {_cut(algorithm)}, and only sha256 is known; {_EXAMPLE}", text=text)
    # One digest in 64 begins with a slash in base64; only the length tells it from curl's second slash.
    return encoded.removeprefix("/") if len(encoded) > _ENCODED_SIZE else encoded


def _from_base64(encoded: str, text: str) -> bytes:
    try:
        digest = base64.b64decode(encoded.encode("ascii"), validate=True)
    except (UnicodeEncodeError, binascii.Error):
        raise PinError(f"{_cut(text)} is not base64; {_EXAMPLE}", text=text) from None
    if len(digest) != _DIGEST_SIZE:
        raise PinError(f"{_cut(text)} is {len(digest)} bytes, and SHA-256 is {_DIGEST_SIZE}; {_EXAMPLE}", text=text)
    canonical = base64.b64encode(digest).decode("ascii")
    if canonical != encoded:
        raise PinError(
            f"{_cut(text)} is not canonical base64; if it is the right pin, write sha256/{canonical}", text=text
        )
    return digest


def _from_colon_hex(text: str) -> bytes:
    if not _HEX.fullmatch(text):
        raise PinError(f"{_cut(text)} is not a fingerprint: two hexadecimal digits a byte, joined by colons", text=text)
    digest = bytes.fromhex(text.replace(":", ""))
    if len(digest) != _DIGEST_SIZE:
        raise PinError(
            f"{_cut(text)} is {len(digest)} bytes, and SHA-256 is {_DIGEST_SIZE}; ask openssl for -sha256", text=text
        )
    return digest


def _der(data: bytes | str, *labels: str) -> bytes:
    """The one DER object in *data*, which is DER, or PEM with one of *labels*."""
    if isinstance(data, bytes):
        if b"-----BEGIN " not in data:
            return data
        data = data.decode("latin-1")
    blocks = _PEM.findall(data)
    wanted = [body for label, body in blocks if label in labels]
    if len(wanted) != 1:
        found = ", ".join(label for label, _ in blocks) or "no PEM block"
        remedy = (
            "; make it with: openssl pkey -in key.pem -pubout" if any("KEY" in label for label, _ in blocks) else ""
        )
        raise PinError(f"expected one PEM block '{labels[0]}', found {found}{remedy}")
    try:
        return base64.b64decode("".join(wanted[0].split()), validate=True)
    except (ValueError, binascii.Error):
        raise PinError(f"the PEM block '{labels[0]}' is not base64") from None


def _cut(text: str) -> str:
    return repr(text if len(text) <= _LONGEST_QUOTE else text[: _LONGEST_QUOTE - 1] + "…")
