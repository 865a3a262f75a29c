"""
A backup key: a new private key, its signing request and its pin, and the policy with that pin in it.

The key is made in memory and leaves it encrypted. The policy keeps its comments and its order (`tomlkit`), and is read
again before it is given back: what is written is a policy.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from pinset._errors import Fault, InputError, PolicyError
from pinset._hosts import canonical_host, is_address
from pinset._pins import Pin
from pinset._policy import Mode, PinSet, Role
from pinset.formats.toml import read_toml

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

_RSA_BITS = 3072
_LEAST_PASSPHRASE = 8


class KeyType(StrEnum):
    """
    The kind of a new key: EC on P-256, or RSA with 3072 bits.
    """

    EC = "ec"
    RSA = "rsa"


@dataclass(frozen=True, slots=True)
class Backup:
    """
    A key that is not in service.

    Attributes:
        key_pem: The private key, PKCS #8, encrypted.
        request_pem: A signing request for it (PKCS #10), with the host as its name.
        pin: The pin of the key.
    """

    key_pem: bytes
    request_pem: bytes
    pin: Pin


def make_backup(host: str, *, kind: KeyType, passphrase: bytes) -> Backup:
    """
    Make a key for *host*.

    Args:
        host: The host name or address that the certificate will be for.
        kind: The kind of key.
        passphrase: Encrypts the private key; at least 8 bytes.

    Raises:
        HostError: *host* has no canonical form.
        InputError: The passphrase is too short to protect anything.
    """
    from cryptography import x509  # noqa: PLC0415 - costs more than all of pinset
    from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415 - likewise
    from cryptography.x509.oid import NameOID  # noqa: PLC0415 - likewise

    name = canonical_host(host)
    check_passphrase(passphrase)
    key = _new_key(kind)
    # A common name holds 64 characters (X.520); the name that counts is the alternative one.
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)] if len(name) <= 64 else [])  # noqa: PLR2004
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(subject)
        .add_extension(x509.SubjectAlternativeName([_general_name(name)]), critical=False)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )
    encrypted = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(passphrase),
    )
    return Backup(encrypted, request, Pin.from_csr(request))


def _new_key(kind: KeyType) -> ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey:
    from cryptography.hazmat.primitives.asymmetric import ec, rsa  # noqa: PLC0415 - costs more than all of pinset

    if kind is KeyType.EC:
        return ec.generate_private_key(ec.SECP256R1())
    return rsa.generate_private_key(65537, _RSA_BITS)


def _general_name(host: str) -> x509.GeneralName:
    import ipaddress  # noqa: PLC0415 - kept beside its one use

    from cryptography import x509  # noqa: PLC0415 - costs more than all of pinset

    return x509.IPAddress(ipaddress.ip_address(host)) if is_address(host) else x509.DNSName(host)


def check_passphrase(passphrase: bytes) -> None:
    """
    Refuse a passphrase for a private key that is too short to protect anything.

    Raises:
        InputError: It has less than 8 bytes.
    """
    if len(passphrase) < _LEAST_PASSPHRASE:
        raise InputError(f"the passphrase has {len(passphrase)} bytes; give at least {_LEAST_PASSPHRASE}")


def add_backup(text: str, host: str, pin: Pin, *, comment: str, source: str = "") -> str:
    """
    The policy *text* with *pin* in the rule of *host*; comments and order stay.

    The pin goes to ``leaf_pins`` where the rule has them, else to ``pins``. ``allow_single_pin`` is taken away where it is
    not needed any more.

    Args:
        text: A policy, TOML.
        host: A host that a rule covers.
        pin: The pin of a backup key.
        comment: Stands beside the pin, on its line.
        source: The name of the policy, for the error.

    Raises:
        PolicyError: *text* is no policy, no rule pins the host, or the rule has no list for a key of a server.
    """
    import tomlkit  # noqa: PLC0415 - of the extra `cli`

    policy = read_toml(text, source=source)
    rule = policy.find(host)
    if rule is None or rule.mode is Mode.OFF:
        fault = Fault(host, "no rule of the policy pins this host", f"pinset fetch {host} makes one")
        raise PolicyError([fault], source=source)
    role = _list_for(rule, source)
    if pin in rule.all_pins:
        raise PolicyError([Fault(host, f"{pin} is a pin of the rule already")], source=source)
    document = tomlkit.parse(text)
    tables = zip(document.unwrap()["host"], policy.pin_sets, strict=True)
    index = next(index for index, (_, each) in enumerate(tables) if each is rule)
    table = document["host"][index]
    pins = table[role.value]
    pins.add_line(str(pin), comment=comment, indent="    ")
    if not pins.as_string().rstrip().endswith("\n]"):
        pins.add_line(indent="")
    if all(
        len({*requirement.pins, pin} if requirement.role is role else requirement.pins) > 1
        for requirement in rule.requirements
    ):
        table.pop("allow_single_pin", None)
    amended = tomlkit.dumps(document)
    read_toml(amended, source=source)
    return amended


def _list_for(rule: PinSet, source: str) -> Role:
    roles = [requirement.role for requirement in rule.requirements]
    for role in (Role.LEAF, Role.ANY):
        if role in roles:
            return role
    fault = Fault(
        rule.name,
        "pins CAs or whole certificates only, and a new key is that of a leaf",
        "add a list leaf_pins or pins",
    )
    raise PolicyError([fault], source=source)
