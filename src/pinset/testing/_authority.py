"""
A throw-away certificate authority: root, intermediate, leaves, and the odd chains that attacks are made of.

The certificates are strict enough for ``VERIFY_X509_STRICT`` (RFC 5280: key identifiers, key usage, basic constraints).
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import ssl
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from pinset._pins import Pin

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
KeyKind = Literal["ec", "rsa"]


def new_key(kind: KeyKind = "ec") -> PrivateKey:
    """
    A fresh private key: EC P-256, or RSA with 2048 bits.
    """
    return ec.generate_private_key(ec.SECP256R1()) if kind == "ec" else rsa.generate_private_key(65537, 2048)


@dataclass(frozen=True, slots=True)
class Identity:
    """
    A private key and the chain that vouches for it.

    Attributes:
        key: The private key of the first certificate.
        chain: What a server sends, leaf first, DER.
    """

    key: PrivateKey
    chain: tuple[bytes, ...]

    @property
    def pin(self) -> str:
        """
        The public-key pin of the leaf, as text for a policy.
        """
        return str(Pin.from_certificate(self.chain[0]))

    @property
    def key_pem(self) -> bytes:
        """
        The private key, PKCS #8, unencrypted.
        """
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    @property
    def chain_pem(self) -> bytes:
        """
        The chain, leaf first.
        """
        return b"".join(ssl.DER_cert_to_PEM_cert(der).encode() for der in self.chain)

    def write(self, directory: Path, name: str) -> tuple[Path, Path]:
        """
        Write ``name.pem`` (the chain) and ``name.key`` (mode 0600) to *directory*.

        Returns:
            The two files.
        """
        chain, key = directory / f"{name}.pem", directory / f"{name}.key"
        chain.write_bytes(self.chain_pem)
        key.touch(mode=0o600)
        key.write_bytes(self.key_pem)
        return chain, key

    def load_into(self, context: ssl.SSLContext) -> None:
        """
        Make this the certificate of *context*. The key is on disk only for that moment, in a private directory.
        """
        with tempfile.TemporaryDirectory() as directory:
            chain, key = self.write(Path(directory), "identity")
            context.load_cert_chain(chain, key)

    def server_context(
        self,
        *,
        tls: ssl.TLSVersion | None = None,
        alpn: Sequence[str] = ("http/1.1",),
        clients: Authority | None = None,
    ) -> ssl.SSLContext:
        """
        A context for a server with this identity.

        Args:
            tls: The one version to speak, by default whatever OpenSSL offers.
            alpn: Protocols to choose from, the preferred one first.
            clients: Require a client certificate of this authority.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        if tls is not None:
            context.minimum_version = context.maximum_version = tls
        context.set_alpn_protocols(list(alpn))
        if clients is not None:
            context.load_verify_locations(cadata=clients.root_pem)
            context.verify_mode = ssl.CERT_REQUIRED
        self.load_into(context)
        return context


class Authority:
    """
    A root, and by default an intermediate below it that signs.

    Args:
        name: Appears in the subjects.
        key: ``"ec"`` or ``"rsa"``: the kind of key for everything this authority makes.
        intermediate: Whether leaves are signed by an intermediate.
        days: How long its certificates are valid.
    """

    def __init__(
        self, name: str = "Throw-away", *, key: KeyKind = "ec", intermediate: bool = True, days: int = 365
    ) -> None:
        self.kind: KeyKind = key
        self._root_key = new_key(key)
        root_name = _name(f"{name} Root")
        validity = _now() - dt.timedelta(days=1), _now() + dt.timedelta(days=days)
        self._root = _certificate(
            root_name,
            self._root_key.public_key(),
            root_name,
            self._root_key,
            path_length=2,
            authority=None,
            validity=validity,
        )
        self._signer_key, self._signer = self._root_key, self._root
        self._above: tuple[bytes, ...] = ()
        if intermediate:
            self._signer_key = new_key(key)
            self._signer = _certificate(
                _name(f"{name} Intermediate"),
                self._signer_key.public_key(),
                root_name,
                self._root_key,
                path_length=0,
                authority=self._root,
                validity=validity,
            )
            self._above = (_der(self._signer),)

    @property
    def root(self) -> bytes:
        """
        The root certificate, DER.
        """
        return _der(self._root)

    @property
    def root_pem(self) -> str:
        """
        The root certificate, PEM: what ``cafile`` takes.
        """
        return ssl.DER_cert_to_PEM_cert(self.root)

    @property
    def above(self) -> tuple[bytes, ...]:
        """
        The certificates between leaf and root, DER.
        """
        return self._above

    def issue(
        self,
        *hosts: str,
        key: PrivateKey | None = None,
        days: int = 30,
        expired: bool = False,
        client: bool = False,
    ) -> Identity:
        """
        A leaf certificate.

        Args:
            hosts: Host names and IP addresses that it names.
            key: Its private key; a fresh one by default. Give the old one to renew, a backup key to rotate.
            days: The length of its validity.
            expired: Whether it ended a day ago.
            client: For a client instead of a server.
        """
        private = key or new_key(self.kind)
        end = min(_now() + dt.timedelta(days=-1 if expired else days), self._signer.not_valid_after_utc)
        leaf = _certificate(
            _name(hosts[0]),
            private.public_key(),
            self._signer.subject,
            self._signer_key,
            hosts=hosts,
            authority=self._signer,
            validity=(end - dt.timedelta(days=days + 2), end),
            client=client,
        )
        return Identity(private, (_der(leaf), *self._above))

    def cross_sign(self, other: Authority) -> bytes:
        """
        The root of *other*, signed by this root: the second road up from the leaves of *other*. DER.
        """
        return _der(
            _certificate(
                other._root.subject,
                other._root_key.public_key(),
                self._root.subject,
                self._root_key,
                path_length=1,
                authority=self._root,
            )
        )

    def impersonate_issuer(self, genuine: Authority, *hosts: str) -> Identity:
        """
        A leaf that *names* the issuer of *genuine* but is signed by this authority, with the genuine chain behind it.

        OpenSSL refuses it under ``CERT_REQUIRED``; under ``CERT_NONE`` its "verified" chain shows the genuine keys.
        """
        private = new_key(self.kind)
        leaf = _certificate(
            _name(hosts[0]),
            private.public_key(),
            genuine._signer.subject,
            self._signer_key,
            hosts=hosts,
            authority=genuine._signer,
        )
        return Identity(private, (_der(leaf), *genuine.above, genuine.root))

    def client_context(self, *others: Authority) -> ssl.SSLContext:
        """
        A plain client context that trusts this root and those of *others*.
        """
        context = ssl.create_default_context(cadata=self.root_pem)
        for other in others:
            context.load_verify_locations(cadata=other.root_pem)
        return context

    @contextmanager
    def trust_file(self, *others: Authority) -> Iterator[str]:
        """
        The path of a file with this root and those of *others*, for ``cafile`` and ``SSL_CERT_FILE``.
        """
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory, "roots.pem")
            path.write_text("".join(authority.root_pem for authority in (self, *others)))
            yield str(path)


def _certificate(
    subject: x509.Name,
    public_key: object,
    issuer: x509.Name,
    issuer_key: PrivateKey,
    *,
    authority: x509.Certificate | None,
    hosts: Sequence[str] = (),
    path_length: int | None = None,
    validity: tuple[dt.datetime, dt.datetime] | None = None,
    client: bool = False,
) -> x509.Certificate:
    is_ca = path_length is not None
    begin, end = validity or (_now() - dt.timedelta(days=1), _now() + dt.timedelta(days=365))
    own_id = x509.SubjectKeyIdentifier.from_public_key(public_key)  # type: ignore[arg-type]
    issuer_id = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value if authority else own_id
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)  # type: ignore[arg-type]
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=path_length), critical=True)
        .add_extension(_key_usage(is_ca=is_ca), critical=True)
        .add_extension(own_id, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer_id), critical=False)
    )
    if not is_ca:
        usage = ExtendedKeyUsageOID.CLIENT_AUTH if client else ExtendedKeyUsageOID.SERVER_AUTH
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        builder = builder.add_extension(x509.SubjectAlternativeName([_general_name(h) for h in hosts]), critical=False)
    algorithm = None if isinstance(issuer_key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(issuer_key, algorithm)


def _key_usage(*, is_ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_ca,
        crl_sign=is_ca,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:64])])  # RFC 5280 A.1: ub-common-name


def _der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.DER)


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC).replace(microsecond=0)
