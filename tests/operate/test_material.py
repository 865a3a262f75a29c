"""
Pins of what lies in files.
"""

from __future__ import annotations

import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from pinset import Pin, PinError
from pinset._policy import Role
from pinset.operate.material import Kind, read_material, roles_of
from pinset.testing import Authority, Identity

PEM, DER = serialization.Encoding.PEM, serialization.Encoding.DER
PKCS8 = serialization.PrivateFormat.PKCS8


@pytest.fixture(scope="module")
def key():
    return ec.generate_private_key(ec.SECP256R1())


@pytest.fixture(scope="module")
def identity(key) -> Identity:
    return Authority("Files").issue("a.com", key=key)


def request(key, encoding) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a.com")])
    return x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256()).public_bytes(encoding)


def private(key, encoding, password: bytes | None = None, form=PKCS8) -> bytes:
    algorithm = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return key.private_bytes(encoding, form, algorithm)


def forms(key, identity) -> list[tuple[Kind, bytes]]:
    """One key in every form a file may have."""
    public = key.public_key()
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    traditional = serialization.PrivateFormat.TraditionalOpenSSL
    return [
        (Kind.CERTIFICATE, identity.chain[0]),
        (Kind.CERTIFICATE, ssl.DER_cert_to_PEM_cert(identity.chain[0]).encode()),
        *((Kind.REQUEST, request(key, encoding)) for encoding in (PEM, DER)),
        *((Kind.PUBLIC_KEY, public.public_bytes(encoding, spki)) for encoding in (PEM, DER)),
        *((Kind.PRIVATE_KEY, private(key, encoding)) for encoding in (PEM, DER)),
        *((Kind.PRIVATE_KEY, private(key, PEM, b"secret", form)) for form in (PKCS8, traditional)),
        (Kind.PRIVATE_KEY, private(key, PEM, form=traditional)),
        (Kind.PRIVATE_KEY, private(key, DER, b"secret")),
    ]


@pytest.mark.parametrize("form", range(12))
def test_every_form_of_one_key_has_one_pin(key, identity, form):
    """PEM or DER, certificate, request or key: the pin is the same."""
    kind, data = forms(key, identity)[form]
    [material] = read_material(data, source="file", passphrase=b"secret")
    assert (material.kind, str(material.pin), material.source) == (kind, identity.pin, "file")
    assert (material.certificate_pin is not None) == (kind is Kind.CERTIFICATE)


def test_several_in_one_file(key, identity):
    """A chain, its key, and what has no pin: each with its place."""
    parameters = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
    data = parameters.encode() + private(key, PEM) + identity.chain_pem
    found = read_material(data, source="all.pem")
    assert [(m.kind, m.source) for m in found] == [
        (Kind.PRIVATE_KEY, "all.pem:2"),
        (Kind.CERTIFICATE, "all.pem:3"),
        (Kind.CERTIFICATE, "all.pem:4"),
    ]
    assert [m.is_authority for m in found] == [False, False, True]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "f: is neither PEM nor the DER of a certificate, request or key"),
        (b"hello", "f: is neither PEM nor the DER"),
        (b"-----BEGIN X-----\n-----END X-----\n", "f: holds no certificate, request or key, but X"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA", "f: holds no certificate, request or key, but no whole PEM block"),
        (b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----", "f: the PEM block is not base64"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----", "f: the certificate lacks an expected field"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----", "f: the private key cannot be read"),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", "f: no pin can be made"),
    ],
)
def test_what_has_no_pin(data, reason):
    """What cannot be read is named with its file."""
    with pytest.raises(PinError) as caught:
        read_material(data, source="f")
    assert str(caught.value).startswith(reason)


@pytest.mark.parametrize("encoding", [PEM, DER])
@pytest.mark.parametrize(("given", "reason"), [(None, "needs a passphrase"), (b"wrong", "cannot be read")])
def test_passphrase(key, encoding, given, reason):
    """An encrypted key asks for its passphrase."""
    data = private(key, encoding, b"secret")
    if encoding is DER and given:
        reason = "neither PEM nor the DER"
    with pytest.raises(PinError, match=reason):
        read_material(data, source="f", passphrase=given)


def test_roles(key, identity):
    """First in its file and no CA by itself: a leaf. A request or key is that of a leaf."""
    leaf, issuer = (Pin.from_certificate(der) for der in identity.chain)
    chain = read_material(identity.chain_pem, source="chain")
    issuer_alone = read_material(identity.chain[1], source="issuer")
    other = ec.generate_private_key(ec.SECP256R1())
    backup = read_material(request(other, PEM), source="csr")
    assert roles_of([chain, backup]) == {leaf: Role.LEAF, issuer: Role.CA, backup[0].pin: Role.LEAF}
    assert roles_of([issuer_alone]) == {issuer: Role.CA}
