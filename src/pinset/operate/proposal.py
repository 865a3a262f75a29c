"""
A policy file from the chains that servers were seen with: the pins in service, and in comments all that a person needs
to compare them and to see what is missing.

What ``pinset fetch`` prints is such a file, so that the words cannot be lost from the pins.
"""

from __future__ import annotations

import base64
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from pinset._certificates import Certificate
from pinset._pins import Pin, PinKind

_PIPELINE = (
    "openssl s_client -connect {address} -servername {name} </dev/null 2>/dev/null |"
    " openssl x509 -pubkey -noout | openssl pkey -pubin -outform der | openssl dgst -sha256 -binary | openssl base64"
)


@dataclass(frozen=True, slots=True)
class Description:
    """
    A certificate for people.

    Attributes:
        subject: RFC 4514.
        issuer: RFC 4514.
        key: The kind of key, such as ``EC secp256r1`` or ``RSA 2048``.
    """

    subject: str
    issuer: str
    key: str


def describe(certificate: Certificate) -> Description:
    """
    What `cryptography` makes of a certificate; a remark in place of what it cannot read.
    """
    from cryptography import x509  # noqa: PLC0415 - costs more than all of pinset

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            read = x509.load_der_x509_certificate(certificate.der)
            issuer, key = read.issuer.rfc4514_string(), _kind(read.public_key())
        except Exception:  # noqa: BLE001 - cryptography documents no closed list, and pins do not depend on it
            issuer, key = "(unreadable issuer)", "(unknown key)"
    printable = "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in issuer)
    return Description(certificate.subject, printable or "(empty issuer)", key)


def _kind(key: object) -> str:
    from cryptography.hazmat.primitives.asymmetric import ec, rsa  # noqa: PLC0415 - likewise

    if isinstance(key, ec.EllipticCurvePublicKey):
        return f"EC {key.curve.name}"
    if isinstance(key, rsa.RSAPublicKey):
        return f"RSA {key.key_size}"
    return type(key).__name__.removesuffix("PublicKey").removeprefix("_")


@dataclass(frozen=True, slots=True)
class Sighting:
    """
    A server that was seen.

    Attributes:
        host: Canonical.
        address: The host and port of the connection, as ``openssl`` takes them.
        name: The name that was asked and verified for.
        chain: What was verified, leaf first.
    """

    host: str
    address: str
    name: str
    chain: tuple[Certificate, ...]


def propose(sightings: Sequence[Sighting], now: datetime) -> str:
    """
    A policy file, TOML, with one pin a host: that of the leaf.

    Args:
        sightings: Servers, each host once.
        now: The instant at which they were seen, aware.
    """
    lines = [
        f"# Seen by pinset fetch on {now:%Y-%m-%d}. Compare the keys over another network before you rely on them."
    ]
    for sighting in sightings:
        lines += ["", *_comments(sighting, now), *_host(sighting)]
    return "\n".join([*lines, ""])


def _comments(sighting: Sighting, now: datetime) -> Iterator[str]:
    yield f"# {sighting.address}, the chain that was verified for {sighting.name}, leaf first"
    for number, certificate in enumerate(sighting.chain):
        about = describe(certificate)
        left = (certificate.not_after - now).days
        yield f"# {number} {about.subject}"
        yield f"#   issuer       {about.issuer}"
        yield f"#   valid        {certificate.not_before:%Y-%m-%d} to {certificate.not_after:%Y-%m-%d}, {left} days left"
        yield f"#   key          {about.key}"
        yield f"#   key pin      {Pin(PinKind.SPKI, certificate.spki_sha256)}"
        yield f"#   certificate  {Pin(PinKind.CERTIFICATE, certificate.certificate_sha256)}"
    yield "# The same pin of the leaf by OpenSSL, to compare:"
    yield f"#   {_PIPELINE.format(address=sighting.address, name=sighting.name)}"
    yield f"#   {base64.b64encode(sighting.chain[0].spki_sha256).decode('ascii')}"


def _host(sighting: Sighting) -> Iterator[str]:
    leaf = sighting.chain[0]
    yield "[[host]]"
    yield f'name = "{sighting.host}"'
    yield "pins = ["
    yield f'    "{Pin(PinKind.SPKI, leaf.spki_sha256)}", # in service until {leaf.not_after:%Y-%m-%d}'
    yield "]"
    yield f"allow_single_pin = true # until there is a backup: pinset backup {sighting.host} --policy FILE takes this line away"
