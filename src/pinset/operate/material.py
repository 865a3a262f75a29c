"""
Pins of what lies in files: certificates, signing requests and keys, PEM or DER, several to a file.

Certificates, requests and public keys are hashed as they are encoded. A private key holds no ``SubjectPublicKeyInfo``;
its pin is that of the usual encoding, which is what a request for it will contain.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from pinset._certificates import Certificate, read_certificate
from pinset._errors import CertificateError, PinError
from pinset._pins import Pin, PinKind
from pinset._policy import Role

_BLOCK = re.compile(r"-----BEGIN ([A-Z0-9 ]{1,40})-----(?:(?!-----).)*-----END \1-----", re.DOTALL)


class Kind(StrEnum):
    """
    What a pin was made of.
    """

    CERTIFICATE = "certificate"
    REQUEST = "request"
    PUBLIC_KEY = "public key"
    PRIVATE_KEY = "private key"


@dataclass(frozen=True, slots=True)
class Material:
    """
    One thing in a file that has a pin.

    Attributes:
        kind: What it is.
        pin: The pin of its key.
        source: The file, and the place in it from 1 where it holds several.
        certificate: The certificate, for those.
        is_authority: Whether a certificate says that it may sign others.
    """

    kind: Kind
    pin: Pin
    source: str
    certificate: Certificate | None = None
    is_authority: bool = False

    @property
    def certificate_pin(self) -> Pin | None:
        """
        The pin of the whole certificate, for certificates.
        """
        if self.certificate is None:
            return None
        return Pin(PinKind.CERTIFICATE, self.certificate.certificate_sha256)


def read_material(data: bytes, *, source: str, passphrase: bytes | None = None) -> list[Material]:
    """
    Everything in a file that has a pin.

    Args:
        data: The file, PEM or DER.
        source: Its name.
        passphrase: For encrypted private keys.

    Raises:
        PinError: There is nothing, or something in it cannot be read; what is not meant to have a pin is passed over.
    """
    if b"-----BEGIN " not in data:
        return [_read_der(data, source, passphrase)]
    text = data.decode("latin-1")
    found: list[Material] = []
    others: list[str] = []
    blocks = list(_BLOCK.finditer(text))
    for number, match in enumerate(blocks, 1):
        place = source if len(blocks) == 1 else f"{source}:{number}"
        read = _reader(match[1])
        if read is None:
            others.append(match[1])
            continue
        try:
            found.append(read(match[0], place, passphrase))
        except (PinError, CertificateError) as error:
            raise PinError(f"{place}: {error}", text=error.text if isinstance(error, PinError) else "") from error
    if not found:
        seen = ", ".join(others) or "no whole PEM block"
        raise PinError(f"{source}: holds no certificate, request or key, but {seen}")
    return found


def roles_of(files: Iterable[list[Material]]) -> Mapping[Pin, Role]:
    """
    Whether each key is that of a leaf or of a CA.

    The first certificate of a file is a leaf's and the others are of CAs, but for one that says itself that it signs
    others. A request or key is that of a leaf.

    Args:
        files: What `read_material` found in each.
    """
    roles: dict[Pin, Role] = {}
    for file in files:
        is_first = True
        for material in file:
            is_leaf = not material.is_authority and (is_first or material.certificate is None)
            roles[material.pin] = Role.LEAF if is_leaf else Role.CA
            is_first = is_first and material.certificate is None
    return roles


_Read = Callable[[bytes | str, str, bytes | None], Material]


def _reader(label: str) -> _Read | None:
    """What reads a PEM block with this label (RFC 7468), or None for what has no pin."""
    if label in ("CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"):
        return _request
    if label in ("CERTIFICATE", "X509 CERTIFICATE", "TRUSTED CERTIFICATE"):
        return _certificate
    if label == "PUBLIC KEY":
        return _public_key
    return _private_key if label.endswith("PRIVATE KEY") else None


def _read_der(data: bytes, source: str, passphrase: bytes | None) -> Material:
    for read in (_certificate, _request, _public_key, _private_key):
        try:
            return read(data, source, passphrase)
        except (PinError, CertificateError) as error:
            if "needs a passphrase" in str(error):
                raise PinError(f"{source}: {error}") from error
    raise PinError(f"{source}: is neither PEM nor the DER of a certificate, request or key")


def _certificate(data: bytes | str, source: str, _: bytes | None) -> Material:
    der = data if isinstance(data, bytes) else _der(data)
    certificate = read_certificate(der)
    return Material(
        Kind.CERTIFICATE, Pin(PinKind.SPKI, certificate.spki_sha256), source, certificate, _is_authority(der)
    )


def _der(pem: str) -> bytes:
    import base64  # noqa: PLC0415 - kept beside its one use
    import binascii  # noqa: PLC0415 - likewise

    try:
        return base64.b64decode("".join(pem.split("-----")[2].split()), validate=True)
    except (ValueError, binascii.Error):
        raise PinError("the PEM block is not base64") from None


def _is_authority(der: bytes) -> bool:
    import warnings  # noqa: PLC0415 - likewise

    from cryptography import x509  # noqa: PLC0415 - costs more than all of pinset

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            certificate = x509.load_der_x509_certificate(der)
            return bool(certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca)
        except Exception:  # noqa: BLE001 - cryptography documents no closed list, and without the extension it is a leaf
            return False


def _request(data: bytes | str, source: str, _: bytes | None) -> Material:
    return Material(Kind.REQUEST, Pin.from_csr(data), source)


def _public_key(data: bytes | str, source: str, _: bytes | None) -> Material:
    return Material(Kind.PUBLIC_KEY, Pin.from_public_key(data), source)


def _private_key(data: bytes | str, source: str, passphrase: bytes | None) -> Material:
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415 - costs more than all of pinset
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - likewise

    raw = data if isinstance(data, bytes) else data.encode("latin-1")
    load = serialization.load_der_private_key if isinstance(data, bytes) else serialization.load_pem_private_key
    try:
        try:
            key = load(raw, None)
        except TypeError:  # it is encrypted
            if passphrase is None:
                raise PinError("the private key needs a passphrase; give it with --passphrase-file") from None
            key = load(raw, passphrase)
    except (ValueError, UnsupportedAlgorithm) as error:
        if isinstance(error, PinError):
            raise
        raise PinError(f"the private key cannot be read, if the passphrase is right: {error}") from error
    spki = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return Material(Kind.PRIVATE_KEY, Pin.from_public_key(spki), source)
