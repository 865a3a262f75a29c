"""
The handshake: what is judged, when, and what has left by then. In memory where no wire is needed.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
import io
import os
import pickle
import runpy
import socket
import ssl
import sys
import warnings
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
import truststore
import uvloop
from conftest import BACKUP, HOST

from pinset import (
    ContextError,
    Decision,
    Outcome,
    Pin,
    PinMismatchError,
    Pinner,
    PinSet,
    Policy,
    UnlistedHostError,
    UnverifiedChainError,
    _tls,
    pinned_ssl_context,
)
from pinset._contexts import _ssl_error, prepare_context
from pinset._enforcement import Enforcement
from pinset._tls import PinnedSSLObject
from pinset._tls_socket import PinnedSSLSocket
from pinset.reports import CallbackReports
from pinset.testing import Authority, Identity, TLSServer

PINNER = Pinner({HOST: [BACKUP, "sha256/BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBA="]})
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


class Pair:
    """
    A client and a server in memory; bytes move only when the test says so.
    """

    def __init__(self, client: ssl.SSLContext, server: ssl.SSLContext, host: str | None = HOST, session=None) -> None:
        self.to_client, self.to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.client = client.wrap_bio(self.to_client, self.to_server, server_hostname=host, session=session)
        self.server = server.wrap_bio(self.to_server, self.to_client, server_side=True)

    def shake(self) -> None:
        for _ in range(10):
            done = 0
            for side in (self.client, self.server):
                try:
                    side.do_handshake()
                    done += 1
                except ssl.SSLWantReadError:
                    pass
            if done == 2:
                return
        raise AssertionError("no handshake in ten rounds")


@pytest.fixture(scope="module")
def trust(genuine: Authority, rogue: Authority):
    with genuine.trust_file(rogue) as path:
        yield path


@contextlib.contextmanager
def descriptor_zero():
    """Descriptor 0 is free while the block begins, and what it was afterwards."""
    kept = os.dup(0)
    os.close(0)
    try:
        yield
    finally:
        os.dup2(kept, 0)
        os.close(kept)


def bare(pins, trust: str) -> ssl.SSLContext:
    return pinned_ssl_context(pins, cafile=trust)


@pytest.mark.parametrize("tls", VERSIONS)
class TestObject:
    """``SSLObject``: every event loop."""

    def test_right_pin_is_stamped(self, tls, pins, leaf: Identity, trust) -> None:
        """A connection to a pinned key carries the verdict that let it in."""
        pair = Pair(bare(pins, trust), leaf.server_context(tls=tls))
        pair.shake()
        stamp = pair.client.pinset_stamp
        assert stamp.generation == 1
        assert stamp.verdict.outcome is Outcome.MATCHED
        assert [str(pin) for pin in stamp.verdict.matched] == [leaf.pin]
        assert len(stamp.chain) == 3
        assert stamp.chain[0] == leaf.chain[0]
        pair.client.write(b"data")
        assert pair.server.read() == b"data"
        pair.server.write(b"b" * 2000)
        assert len(pair.client.read()) == 1024, "as without an argument in ssl"
        assert len(pair.client.read()) == 976
        pair.server.write(b"back")
        buffer = bytearray(4)
        assert pair.client.read(4, buffer) == 4
        assert buffer == b"back"

    def test_rogue_ca_is_refused_before_our_flight(self, tls, pins, leaf, impostor, genuine, rogue, trust) -> None:
        """A trusted CA's certificate for a wrong key passes OpenSSL, and is refused with nothing after the ClientHello."""
        stock = Pair(genuine.client_context(rogue), impostor.server_context(tls=tls))
        stock.shake()
        stock.client.write(b"secret")
        assert stock.server.read() == b"secret"

        pair = Pair(bare(pins, trust), impostor.server_context(tls=tls))
        with pytest.raises(PinMismatchError) as caught:
            pair.shake()
        error = caught.value
        assert isinstance(error, ssl.SSLCertVerificationError)
        assert error.host == HOST
        assert error.verdict.outcome is Outcome.MISMATCHED
        assert error.verdict.decision is Decision.REFUSE
        assert leaf.pin in str(error)
        assert impostor.pin in str(error)
        assert (error.library, error.reason, error.verify_code) == ("pinset", "PIN_CHECK_FAILED", 0)
        assert error.strerror == error.verify_message == str(error)
        assert error.errno == ssl.SSL_ERROR_SSL

    def test_refusal_is_final(self, tls, pins, impostor, trust) -> None:
        """After a refusal every door of the object says the same."""
        pair = Pair(bare(pins, trust), impostor.server_context(tls=tls))
        with pytest.raises(PinMismatchError) as caught:
            pair.shake()
        for act in (pair.client.do_handshake, pair.client.read, lambda: pair.client.write(b"secret")):
            with pytest.raises(PinMismatchError) as again:
                act()
            assert str(again.value) == str(caught.value)

    def test_a_refused_object_is_freed_at_once(self, tls, pins, impostor, trust) -> None:
        """It does not wait for the collector: nothing that it holds leads back to it."""
        pair = Pair(bare(pins, trust), impostor.server_context(tls=tls))
        gc.disable()
        try:
            with pytest.raises(PinMismatchError):
                pair.shake()
            client = weakref.ref(pair.client)
            del pair
            assert client() is None
        finally:
            gc.enable()

    def test_implicit_handshake_is_refused(self, tls, pins, leaf, genuine, trust) -> None:
        """OpenSSL shakes hands on a first write or read; ours refuses both, and sends nothing."""
        stock = Pair(genuine.client_context(), leaf.server_context(tls=tls))
        with pytest.raises(ssl.SSLWantReadError):
            stock.client.write(b"secret")
        assert stock.to_server.pending > 0

        for door in ("read", "write"):
            pair = Pair(bare(pins, trust), leaf.server_context(tls=tls))
            with pytest.raises(UnverifiedChainError, match="before the handshake was checked"):
                pair.client.write(b"secret") if door == "write" else pair.client.read()
            assert pair.to_server.pending == 0

    def test_appended_genuine_chain_does_not_help(self, tls, pins, leaf, impostor, rogue, genuine, trust) -> None:
        """Pinned certificates that the peer merely sends along are in no verified chain (CVE-2016-2402 in OkHttp)."""
        sent = Identity(impostor.key, (*impostor.chain, rogue.root, *leaf.chain, genuine.root))
        # The naive check, over what the peer sent, accepts.
        stock = Pair(genuine.client_context(rogue), sent.server_context(tls=tls))
        stock.shake()
        unverified = stock.client._sslobj.get_unverified_chain()
        presented = [c if isinstance(c, bytes) else c.public_bytes(1 << 1) for c in unverified]
        assert leaf.chain[0] in presented
        for pin in (leaf.pin, str(Pin.from_certificate(leaf.chain[1])), str(Pin.from_certificate(genuine.root))):
            with pytest.raises(PinMismatchError):
                Pair(bare({HOST: [pin, BACKUP]}, trust), sent.server_context(tls=tls)).shake()

    def test_every_certificate_of_the_verified_chain_can_be_pinned(self, tls, leaf, genuine, trust) -> None:
        """Leaf, intermediate and root match, the root also where the server does not send it."""
        for der in (*leaf.chain, genuine.root):
            pair = Pair(bare({HOST: [str(Pin.from_certificate(der)), BACKUP]}, trust), leaf.server_context(tls=tls))
            pair.shake()
            assert pair.client.pinset_stamp.verdict.outcome is Outcome.MATCHED

    def test_forged_leaf_under_cert_none(self, tls, leaf, rogue, genuine, trust) -> None:
        """Without verification OpenSSL's "verified" chain shows pinned keys that signed nothing; we look at none of it."""
        forged = rogue.impersonate_issuer(genuine, HOST)
        pin = str(Pin.from_certificate(genuine.root))
        naive = ssl.create_default_context(cafile=trust)
        naive.check_hostname, naive.verify_mode = False, ssl.CERT_NONE
        stock = Pair(naive, forged.server_context(tls=tls))
        stock.shake()
        chain = stock.client._sslobj.get_verified_chain()
        assert len(chain) == 3  # forged leaf, genuine intermediate, genuine root: any CA pin would match

        with pytest.raises(ContextError, match="verify_mode"):
            prepare_context(naive, PINNER)
        context = bare({HOST: [pin, BACKUP]}, trust)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with pytest.raises(UnverifiedChainError, match="verify_mode"):
            Pair(context, forged.server_context(tls=tls)).shake()
        with pytest.raises(ssl.SSLCertVerificationError):
            Pair(bare({HOST: [pin, BACKUP]}, trust), forged.server_context(tls=tls)).shake()

    def test_host_name_check_switched_off_later(self, tls, genuine, trust) -> None:
        """A certificate for another host from a pinned CA is refused, even if somebody clears check_hostname."""
        other = genuine.issue("evil.test")
        pin = str(Pin.from_certificate(genuine.root))
        context = bare({HOST: [pin, BACKUP]}, trust)
        with pytest.raises(ssl.SSLCertVerificationError, match="[Hh]ostname"):
            Pair(context, other.server_context(tls=tls)).shake()
        context.check_hostname = False
        with pytest.raises(UnverifiedChainError, match="check_hostname"):
            Pair(context, other.server_context(tls=tls)).shake()

    @pytest.mark.parametrize("mode", ["enforce", "report-only"])
    def test_pinning_adds_and_never_replaces(self, tls, genuine, trust, mode) -> None:
        """An expired or untrusted certificate with a pinned key is refused, in report-only mode too."""
        expired = genuine.issue(HOST, expired=True)
        stranger = Authority("Stranger").issue(HOST)
        for identity in (expired, stranger):
            policy = Policy((PinSet(name=HOST, pins=[identity.pin, BACKUP], mode=mode),))
            with pytest.raises(ssl.SSLCertVerificationError) as caught:
                Pair(bare(policy, trust), identity.server_context(tls=tls)).shake()
            assert not isinstance(caught.value, PinMismatchError)

    def test_resumed_session_without_evidence_is_refused(self, tls, pins, leaf, genuine, trust) -> None:
        """A resumed handshake verifies nothing and has no chain: a stock client accepts it, ours does not."""
        server = leaf.server_context(tls=tls)

        def resume(context: ssl.SSLContext) -> Pair:
            first = Pair(context, server)
            first.shake()
            first.server.write(b"x")
            first.client.read()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                session = first.client.session
            return Pair(context, server, session=session)

        stock = resume(genuine.client_context())
        stock.shake()
        assert stock.client.session_reused
        assert not stock.client._sslobj.get_verified_chain()
        pair = resume(bare(pins, trust))
        with pytest.raises(UnverifiedChainError, match="resumed"):
            pair.shake()

    def test_unlisted_host(self, tls, genuine, leaf, trust) -> None:
        """A host without a rule is refused by default, and let through with unlisted="allow", without a look at pins."""
        with pytest.raises(UnlistedHostError) as caught:
            Pair(bare({"other.test": [BACKUP, leaf.pin]}, trust), leaf.server_context(tls=tls)).shake()
        assert isinstance(caught.value, ssl.SSLError)
        policy = Policy((PinSet(name="other.test", pins=[BACKUP, leaf.pin]),), "allow")
        pair = Pair(bare(policy, trust), leaf.server_context(tls=tls))
        pair.shake()
        assert pair.client.pinset_stamp.verdict.outcome is Outcome.UNLISTED
        pair.client.write(b"x")

    def test_report_only_lets_a_mismatch_pass_and_tells(self, tls, impostor, leaf, trust, caplog) -> None:
        """A report-only rule lets a mismatch through, tells the observers and logs a warning."""
        told = []
        policy = Policy((PinSet(name=HOST, pins=[leaf.pin], mode="report-only"),))
        pinner = Pinner(policy, observers=[told.append])
        pair = Pair(bare(pinner, trust), impostor.server_context(tls=tls))
        pair.shake()
        pair.client.write(b"x")
        assert [verdict.decision for verdict in told] == [Decision.REPORT]
        assert pinner.reporter.flush(10)
        assert "not enforced" in caplog.text

    def test_policy_replaced_during_the_handshake(self, tls, leaf, impostor, trust) -> None:
        """The policy in force when the handshake ends decides, not the one when it began."""
        pinner = Pinner({HOST: [leaf.pin, BACKUP]})
        pair = Pair(bare(pinner, trust), leaf.server_context(tls=tls))
        with pytest.raises(ssl.SSLWantReadError):
            pair.client.do_handshake()
        with pytest.raises(ssl.SSLWantReadError):
            pair.server.do_handshake()
        if tls is ssl.TLSVersion.TLSv1_2:
            with pytest.raises(ssl.SSLWantReadError):
                pair.client.do_handshake()  # judged early, and accepted
            pair.server.do_handshake()
        pinner.replace({HOST: [impostor.pin, BACKUP]})
        with pytest.raises(PinMismatchError):
            pair.client.do_handshake()

    def test_observers_hear_of_one_handshake_once(self, tls, pins, leaf, trust) -> None:
        """One handshake is one verdict, although TLS 1.2 is looked at twice."""
        told = []
        pair = Pair(bare(Pinner(pins, observers=[told.append]), trust), leaf.server_context(tls=tls))
        pair.shake()
        assert [verdict.outcome for verdict in told] == [Outcome.MATCHED]

    def test_one_byte_at_a_time(self, tls, pins, leaf, impostor, trust) -> None:
        """However the server's flight is cut, the verdict is the same and nothing of ours leaves first."""
        for identity, error in ((leaf, None), (impostor, PinMismatchError)):
            pair = Pair(bare(pins, trust), identity.server_context(tls=tls))
            with pytest.raises(ssl.SSLWantReadError):
                pair.client.do_handshake()
            with pytest.raises(ssl.SSLWantReadError):
                pair.server.do_handshake()
            flight = pair.to_client.read()
            seen = None
            for index in range(len(flight)):
                pair.to_client.write(flight[index : index + 1])
                try:
                    pair.client.do_handshake()
                except ssl.SSLWantReadError:
                    assert identity is leaf or pair.to_server.pending == 0
                except PinMismatchError as caught:
                    seen = type(caught)
                    break
            assert (seen is None) == (error is None)


@pytest.mark.parametrize("other", [[], [b"\xff"]])
def test_chain_that_changed_since_the_early_look(other, pins, leaf, trust) -> None:
    """Should the chain at the end not be the one that was judged before our flight, it is judged itself."""
    pair = Pair(bare(pins, trust), leaf.server_context(tls=ssl.TLSVersion.TLSv1_2))
    for side in (pair.client, pair.server, pair.client):
        with pytest.raises(ssl.SSLWantReadError):
            side.do_handshake()
    chain, stamp = pair.client._early
    assert stamp.chain == tuple(chain)
    pair.client._early = other, dataclasses.replace(stamp, chain=tuple(other))
    pair.shake()
    assert pair.client.pinset_stamp.chain == tuple(chain)


def test_tls12_flight_is_in_the_bio_when_we_refuse(pins, impostor, trust, genuine) -> None:
    """In TLS 1.2 the refusal comes from the step that wrote client certificate and Finished: the pump must not send them."""
    context = bare(pins, trust)
    genuine.issue("client", client=True).load_into(context)
    server = impostor.server_context(tls=ssl.TLSVersion.TLSv1_2)
    server.verify_mode = ssl.CERT_REQUIRED
    server.load_verify_locations(cadata=genuine.root_pem)
    pair = Pair(context, server)
    with pytest.raises(ssl.SSLWantReadError):
        pair.client.do_handshake()
    with pytest.raises(ssl.SSLWantReadError):
        pair.server.do_handshake()
    assert pair.to_server.pending == 0
    with pytest.raises(PinMismatchError):
        pair.client.do_handshake()
    assert not pair.server.session_reused
    with pytest.raises(ValueError, match="handshake not done"):
        pair.server.getpeercert(binary_form=True)


@pytest.mark.parametrize("tls", VERSIONS)
def test_chain_confusion_and_cross_signing(tls) -> None:
    """The verdict follows the chain that OpenSSL built, whatever order and extra certificates the server sends."""
    a, b = Authority("A"), Authority("B")
    leaf = a.issue(HOST)
    cross = b.cross_sign(a)
    pin_a, pin_b = (str(Pin.from_certificate(authority.root)) for authority in (a, b))
    cases = [
        (leaf.chain, [a], {pin_a}),
        ((*leaf.chain, cross), [a], {pin_a}),
        ((*leaf.chain, cross), [b], {pin_a, pin_b}),  # the cross-signed root holds A's key
        ((*leaf.chain, a.root, b.root), [a], {pin_a}),
    ]
    for sent, trusted, accepted in cases:
        for pin in (pin_a, pin_b):
            context = pinned_ssl_context({HOST: [pin, BACKUP]}, cadata="".join(ca.root_pem for ca in trusted))
            pair = Pair(context, Identity(leaf.key, tuple(sent)).server_context(tls=tls))
            if pin in accepted:
                pair.shake()
            else:
                with pytest.raises(PinMismatchError):
                    pair.shake()


def test_partial_chain_ends_at_the_first_trusted_certificate(genuine: Authority, leaf: Identity) -> None:
    """A trusted intermediate shortens the chain where OpenSSL may stop there (the default from 3.13): a root pin then fails."""
    trust = genuine.root_pem + ssl.DER_cert_to_PEM_cert(genuine.above[0])
    context = pinned_ssl_context({HOST: [str(Pin.from_certificate(genuine.root)), BACKUP]}, cadata=trust)
    pair = Pair(context, leaf.server_context())
    if context.verify_flags & ssl.VERIFY_X509_PARTIAL_CHAIN:
        assert sys.version_info >= (3, 13)
        with pytest.raises(PinMismatchError):
            pair.shake()
    else:
        pair.shake()


def test_static_rsa_key_exchange_is_refused(rogue) -> None:
    """Static RSA proves the server's key after our flight: refused at construction, and at the handshake."""
    authority = Authority("RSA", key="rsa", intermediate=False)
    identity = authority.issue(HOST)
    server = identity.server_context(tls=ssl.TLSVersion.TLSv1_2)
    server.set_ciphers("kRSA")
    plain = authority.client_context()
    plain.set_ciphers("kRSA")
    stock = Pair(plain, server)
    try:
        stock.shake()
    except ssl.SSLError:
        # The key usage of our certificates has no key encipherment; OpenSSL minds it on the client side.
        pytest.skip("this OpenSSL refuses the certificate for static RSA by itself")
    with pytest.raises(ContextError, match="static RSA"):
        prepare_context(plain, PINNER)
    context = pinned_ssl_context({HOST: [identity.pin, BACKUP]}, cadata=authority.root_pem)
    context.set_ciphers("kRSA")
    with pytest.raises(UnverifiedChainError, match="key exchange"):
        Pair(context, server).shake()


class TestContext:
    """What is refused at construction."""

    def test_weak_contexts(self) -> None:
        """Pins add to verification: a context without it is refused."""
        context = ssl.create_default_context()
        context.check_hostname = False
        with pytest.raises(ContextError, match="host names"):
            prepare_context(context, PINNER)
        context.verify_mode = ssl.CERT_OPTIONAL
        with pytest.raises(ContextError, match="verify_mode"):
            prepare_context(context, PINNER)
        with pytest.raises(ContextError, match="verify_mode"):
            prepare_context(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), PINNER)
        with pytest.raises(ContextError, match=r"ssl\.SSLContext, got bool"):
            prepare_context(False, PINNER)

    def test_refusal_leaves_the_context_as_it_was(self) -> None:
        """A context that is refused for its ciphers still makes plain objects."""
        context = ssl.create_default_context()
        context.set_ciphers("kRSA")
        with pytest.raises(ContextError, match="static RSA"):
            prepare_context(context, PINNER)
        assert context.sslobject_class is ssl.SSLObject
        assert context.sslsocket_class is ssl.SSLSocket

    def test_truststore_takes_the_class_and_ignores_it(self) -> None:
        """A truststore context would never be pinned; only a look at what it makes can tell."""
        context = truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        assert isinstance(context, ssl.SSLContext)
        with pytest.raises(ContextError):
            prepare_context(context, PINNER)

    def test_a_subclass_that_ignores_our_class(self) -> None:
        """A subclass with a wrap_bio of its own is refused, one that leaves it alone is not."""

        class Ignores(ssl.SSLContext):
            def wrap_bio(self, incoming, outgoing, server_side=False, server_hostname=None, session=None):
                return ssl.SSLObject._create(
                    incoming, outgoing, server_hostname=self._encode_hostname(server_hostname), context=self
                )

        class Harmless(ssl.SSLContext):
            pass

        with pytest.raises(ContextError, match="Ignores ignores"):
            prepare_context(Ignores(ssl.PROTOCOL_TLS_CLIENT), PINNER)
        prepare_context(Harmless(ssl.PROTOCOL_TLS_CLIENT), PINNER)

    def test_a_wrap_socket_that_ignores_our_class(self) -> None:
        """The sync door is proven as well."""

        class Ignores(ssl.SSLContext):
            def wrap_socket(self, sock, *args, **kwargs):
                return ssl.SSLSocket._create(sock, context=self, server_hostname=kwargs["server_hostname"])

        with pytest.raises(ContextError, match="Ignores ignores"):
            prepare_context(Ignores(ssl.PROTOCOL_TLS_CLIENT), PINNER)

    @pytest.mark.parametrize("attribute", ["sslobject_class", "sslsocket_class"])
    def test_another_class_is_not_replaced(self, attribute) -> None:
        """A context that somebody else made special is refused, not overwritten."""
        context = ssl.create_default_context()
        theirs = type("Theirs", (getattr(context, attribute),), {})
        setattr(context, attribute, theirs)
        with pytest.raises(ContextError, match=f"{attribute} of its own, Theirs"):
            prepare_context(context, PINNER)
        assert getattr(context, attribute) is theirs

    def test_preparing_twice_is_once(self) -> None:
        """A context can be prepared for a second client."""
        context = ssl.create_default_context()
        prepare_context(context, PINNER)
        prepare_context(context, PINNER)
        assert context.sslobject_class is PinnedSSLObject
        assert context.sslsocket_class is PinnedSSLSocket
        assert context.options & ssl.OP_NO_RENEGOTIATION

    def test_prepared_context_stays_plain_elsewhere(self, genuine, leaf) -> None:
        """Objects without an enforcement are plain TLS objects, for the other users of a caller's context."""
        context = genuine.client_context()
        prepare_context(context, PINNER)
        pair = Pair(context, leaf.server_context())
        pair.shake()
        assert pair.client.pinset_stamp is None
        pair.client.write(b"x")
        assert pair.server.read() == b"x"

    def test_renegotiation_switched_on_later_is_refused(self, pins, leaf, trust) -> None:
        """Clearing OP_NO_RENEGOTIATION later would let a peer change its certificate after the check."""
        context = bare(pins, trust)
        context.options &= ~ssl.OP_NO_RENEGOTIATION
        with pytest.raises(UnverifiedChainError, match="OP_NO_RENEGOTIATION"):
            Pair(context, leaf.server_context(tls=ssl.TLSVersion.TLSv1_2)).shake()

    def test_an_object_belongs_to_one_pinner(self, pins, trust) -> None:
        """A bare context carries its policy; another client cannot lay its own over it."""
        pinner = Pinner(pins)
        made = bare(pinner, trust).wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname=HOST)
        made.enforce(Enforcement(pinner, _ssl_error))
        with pytest.raises(ContextError, match="policy of its own"):
            made.enforce(Enforcement(Pinner(pins), _ssl_error))

    def test_no_server_name(self, pins, leaf, trust) -> None:
        """Without a name there is no host to look up: refused, although OpenSSL itself would object first."""
        context = bare(pins, trust)
        context.check_hostname = False
        pair = Pair(context, leaf.server_context(), host=None)
        with pytest.raises(UnverifiedChainError):
            pair.shake()

    def test_context_and_policy_are_collected(self, pins, trust) -> None:
        """A bare context is not kept alive by the table of pinners."""
        gc.collect()
        before = len(_tls.bare_contexts)
        context = bare(pins, trust)
        assert len(_tls.bare_contexts) == before + 1
        del context
        gc.collect()
        assert len(_tls.bare_contexts) == before


def test_errors_survive_pickling(pins, impostor, trust) -> None:
    """A refusal crosses process boundaries with host and verdict."""
    with pytest.raises(PinMismatchError) as caught:
        Pair(bare(pins, trust), impostor.server_context()).shake()
    copy = pickle.loads(pickle.dumps(caught.value))
    assert type(copy) is type(caught.value)
    assert str(copy) == str(caught.value)
    assert copy.host == HOST
    assert copy.verdict == caught.value.verdict


def test_renegotiated_certificate_swap_is_blocked(leaf, impostor, genuine, rogue, trust, pins) -> None:
    """A TLS 1.2 peer that renegotiates with another certificate fools a stock client; ours refuses to renegotiate."""
    from cryptography import x509
    from OpenSSL import SSL

    def server_context(identity: Identity) -> SSL.Context:
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.set_max_proto_version(SSL.TLS1_2_VERSION)
        # A renegotiation that resumes the session would exchange no certificate.
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        context.set_options(SSL.OP_NO_TICKET)
        load(context, identity)
        return context

    def load(target, identity: Identity) -> None:
        certificates = [x509.load_der_x509_certificate(der) for der in identity.chain]
        target.use_certificate(certificates[0])
        target.use_privatekey(identity.key)
        for extra in certificates[1:]:
            target.add_extra_chain_cert(extra)

    def run(context: ssl.SSLContext) -> bytes:
        """Shake hands, renegotiate with the impostor's certificate, and return the leaf the client then sees."""
        to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = context.wrap_bio(to_client, to_server, server_hostname=HOST)
        server = SSL.Connection(server_context(leaf), None)
        server.set_accept_state()

        def move() -> None:
            if data := to_server.read():
                server.bio_write(data)
            try:
                while True:
                    to_client.write(server.bio_read(65536))
            except SSL.WantReadError:
                pass

        def step(act) -> bool:
            try:
                act()
            except (ssl.SSLWantReadError, SSL.WantReadError):
                return False
            finally:
                move()
            return True

        done = False
        for _ in range(10):
            done = step(client.do_handshake) & step(server.do_handshake)
            if done:
                break
        assert done
        server.set_context(server_context(impostor))
        server.renegotiate()
        for _ in range(10):
            step(server.do_handshake)
            step(lambda: server.recv(1))
            step(lambda: client.read(1))
        return client.getpeercert(binary_form=True)

    plain = ssl.create_default_context(cafile=trust)
    plain.options &= ~ssl.OP_NO_RENEGOTIATION
    assert run(plain) == impostor.chain[0]
    try:
        after = run(bare(pins, trust))
    except (ssl.SSLError, SSL.Error):
        return
    assert after == leaf.chain[0]


@pytest.mark.parametrize("tls", VERSIONS)
class TestSocket:
    """``SSLSocket``: blocking code."""

    def test_right_pin(self, tls, pins, leaf, trust) -> None:
        """A blocking client with the right pin is served, through every method that carries data."""
        context = bare(pins, trust)
        with (
            TLSServer(leaf.server_context(tls=tls)) as server,
            socket.create_connection(("127.0.0.1", server.port)) as plain,
            context.wrap_socket(plain, server_hostname=HOST) as tls_socket,
        ):
            assert tls_socket.pinset_stamp.verdict.outcome is Outcome.MATCHED
            tls_socket.sendall(b"GET / HTTP/1.1\r\n")
            assert tls_socket.send(b"A: b\r\n") == 6
            assert tls_socket.write(b"\r\n") == 2
            assert tls_socket.recv(4) == b"HTTP"
            assert tls_socket.read(4) == b"/1.1"
            buffer = bytearray(4)
            assert tls_socket.recv_into(buffer) == 4
            assert buffer == b" 200"
            assert tls_socket.sendfile(io.BytesIO(b"more")) == 4
            with pytest.raises(ValueError, match="sendto not allowed"):
                tls_socket.sendto(b"x", ("127.0.0.1", 1))

    def test_wrong_pin(self, tls, pins, impostor, genuine, rogue, trust) -> None:
        """A stock client sends its request to the impostor, ours sends no application byte and closes."""
        with TLSServer(impostor.server_context(tls=tls)) as server:
            plain = socket.create_connection(("127.0.0.1", server.port))
            with genuine.client_context(rogue).wrap_socket(plain, server_hostname=HOST) as stock:
                stock.sendall(b"GET / HTTP/1.1\r\n\r\n")
                assert stock.recv(4) == b"HTTP"
            seen = len(server.seen.application_data)
            plain = socket.create_connection(("127.0.0.1", server.port))
            with pytest.raises(PinMismatchError) as caught:
                bare(pins, trust).wrap_socket(plain, server_hostname=HOST)
            assert isinstance(caught.value, ssl.SSLCertVerificationError)
            assert plain.fileno() == -1
        assert len(server.seen.application_data) == seen

    def test_doors_before_the_handshake(self, tls, pins, leaf, trust, tmp_path) -> None:
        """With do_handshake_on_connect=False every door is shut until do_handshake."""
        file = tmp_path / "secret"
        file.write_bytes(b"secret")
        with TLSServer(leaf.server_context(tls=tls)) as server:
            plain = socket.create_connection(("127.0.0.1", server.port))
            context = bare(pins, trust)
            with context.wrap_socket(plain, server_hostname=HOST, do_handshake_on_connect=False) as tls_socket:
                doors = [
                    lambda: tls_socket.send(b"secret"),
                    lambda: tls_socket.sendall(b"secret"),
                    lambda: tls_socket.write(b"secret"),
                    lambda: tls_socket.sendto(b"secret", ("127.0.0.1", 1)),
                    lambda: tls_socket.recv(1),
                    lambda: tls_socket.recv_into(bytearray(1)),
                    lambda: tls_socket.read(1),
                ]
                for door in doors:
                    with pytest.raises(UnverifiedChainError):
                        door()
                with file.open("rb") as opened, pytest.raises(UnverifiedChainError):
                    tls_socket.sendfile(opened)
        assert server.seen.application_data == b""

    def test_no_cleartext_after_tls_has_ended(self, tls, pins, leaf, trust) -> None:
        """A stock socket sends in the clear after shutdown(); a pinned one refuses."""
        pinner = Pinner(pins)
        with TLSServer(leaf.server_context(tls=tls)) as server:
            plain = socket.create_connection(("127.0.0.1", server.port))
            with bare(pinner, trust).wrap_socket(plain, server_hostname=HOST) as tls_socket:
                tls_socket.do_handshake()  # once more: judged and reported once
                tls_socket.shutdown(socket.SHUT_RD)
                with pytest.raises(ssl.SSLError, match="TLS has ended"):
                    tls_socket.send(b"secret")
        assert pinner.reporter.checks == {(HOST, Outcome.MATCHED, Decision.ALLOW): 1}  # no interception
        tls_socket.close()
        with pytest.raises(OSError, match=r"[Bb]ad file descriptor"):
            tls_socket.send(b"x")

    def test_connect_afterwards(self, tls, pins, leaf, trust) -> None:
        """A socket that is wrapped first and connected later is judged in connect(); before, the system's error shows."""
        with TLSServer(leaf.server_context(tls=tls)) as server:
            with bare(pins, trust).wrap_socket(socket.socket(), server_hostname=HOST) as tls_socket:
                with pytest.raises(OSError, match="not connected"):
                    tls_socket.recv(1)
                tls_socket.connect(("127.0.0.1", server.port))
                assert tls_socket.pinset_stamp is not None

    def test_non_blocking(self, tls, pins, leaf, trust) -> None:
        """A handshake on a non-blocking socket does not block, as with ssl."""
        near, far = socket.socketpair()
        near.setblocking(False)
        with far, bare(pins, trust).wrap_socket(near, server_hostname=HOST, do_handshake_on_connect=False) as client:
            with pytest.raises(ssl.SSLWantReadError):
                client.do_handshake()
            assert client.pinset_stamp is None
            with ThreadPoolExecutor(1) as server:
                answer = server.submit(leaf.server_context(tls=tls).wrap_socket, far, server_side=True)
                client.do_handshake(block=True)
                answer.result(10).close()
            assert client.pinset_stamp is not None

    def test_how_much_is_read(self, tls, pins, leaf, trust) -> None:
        """A kilobyte, unless something else is asked for, as in ssl."""
        near, far = socket.socketpair()
        with near, far, ThreadPoolExecutor(1) as server:
            answer = server.submit(leaf.server_context(tls=tls).wrap_socket, far, server_side=True)
            with bare(pins, trust).wrap_socket(near, server_hostname=HOST) as client, answer.result(10) as peer:
                peer.sendall(b"b" * 4000)
                assert len(client.recv()) == 1024
                assert len(client.read()) == 1024
                assert len(client.recv(10)) == 10

    @pytest.mark.parametrize("at_zero", [False, True])
    def test_failed_handshake_leaves_no_open_door(self, tls, at_zero, pins, leaf, trust) -> None:
        """
        After connect() failed on the certificate a stock socket would send in the clear; ours refuses.

        Also at descriptor 0, which a program's first socket gets that has closed its standard input.
        """
        stranger = Authority("Stranger").issue(HOST)
        with descriptor_zero() if at_zero else contextlib.nullcontext(), socket.socket() as plain:
            assert (plain.fileno() == 0) is at_zero
            with (
                TLSServer(stranger.server_context(tls=tls)) as server,
                bare(pins, trust).wrap_socket(plain, server_hostname=HOST) as tls_socket,
            ):
                with pytest.raises(ssl.SSLCertVerificationError):
                    tls_socket.connect(("127.0.0.1", server.port))
                with pytest.raises(UnverifiedChainError):
                    tls_socket.send(b"secret")

    def test_plain_prepared_context(self, tls, genuine, leaf) -> None:
        """Without an enforcement a socket is a plain TLS socket."""
        context = genuine.client_context()
        prepare_context(context, PINNER)
        with TLSServer(leaf.server_context(tls=tls)) as server:
            plain = socket.create_connection(("127.0.0.1", server.port))
            with context.wrap_socket(plain, server_hostname=HOST) as tls_socket:
                tls_socket.sendall(b"GET / HTTP/1.1\r\n\r\n")
                assert tls_socket.recv(4) == b"HTTP"
                assert tls_socket.pinset_stamp is None


@pytest.mark.parametrize("runner", [asyncio.run, uvloop.run])
@pytest.mark.parametrize("tls", VERSIONS)
def test_asyncio_streams(runner, tls, pins, leaf, impostor, trust, caplog) -> None:
    """The loops' own TLS: right pin served, wrong pin refused without an error log and without application bytes."""

    async def talk(port: int) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=bare(pins, trust), server_hostname=HOST)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        answer = await reader.read(4)
        writer.close()
        with contextlib.suppress(OSError, ssl.SSLError):
            await writer.wait_closed()
        return answer

    with TLSServer(leaf.server_context(tls=tls)) as server:
        assert runner(talk(server.port)) == b"HTTP"
    with TLSServer(impostor.server_context(tls=tls)) as server:
        with pytest.raises(PinMismatchError):
            runner(talk(server.port))
    assert server.seen.application_data == b""
    assert server.seen.handshakes == 0
    assert not [record for record in caplog.records if record.name == "asyncio" and record.levelname == "ERROR"]


@pytest.mark.parametrize(("version", "private"), [((3, 12, 9), True), ((3, 13, 0), False), ((4, 0, 0), False)])
def test_private_getters_only_where_there_are_no_public_ones(version, private, pins, leaf, genuine, trust) -> None:
    """The chains have public getters since Python 3.13 (python/cpython gh-109109); both give the same."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "version_info", (*version, "final", 0))
        module = runpy.run_path(_tls.__file__)
    pair = Pair(bare(pins, trust), leaf.server_context())
    pair.shake()
    for name, chain in (("verified_chain", [*leaf.chain, genuine.root]), ("unverified_chain", [*leaf.chain])):
        assert ("_sslobj" in module[name].__code__.co_names) is private
        if private or sys.version_info >= (3, 13):
            assert module[name](pair.client) == chain


@pytest.mark.parametrize("tls", VERSIONS)
class TestReports:
    """What the handshake hands to reports."""

    def test_port_and_served_chain(self, tls, pins, impostor, trust) -> None:
        """A refusal is reported with the port, and with what the peer sent."""
        reports = []
        pinner = Pinner(pins, observers=[CallbackReports(reports.append)])
        context = ssl.create_default_context(cafile=trust)
        prepare_context(context, pinner)
        pair = Pair(context, impostor.server_context(tls=tls))
        pair.client.enforce(Enforcement(pinner, _ssl_error, port=8443))
        with pytest.raises(PinMismatchError):
            pair.shake()
        pinner.reporter.close()
        (report,) = reports
        assert report.port == 8443
        assert len(report.served_chain) == len(impostor.chain)

    def test_bare_context(self, tls, pins, impostor, trust) -> None:
        """A bare context does not know the port."""
        reports = []
        pinner = Pinner(pins, observers=[CallbackReports(reports.append)])
        with pytest.raises(PinMismatchError):
            Pair(bare(pinner, trust), impostor.server_context(tls=tls)).shake()
        pinner.reporter.close()
        assert [report.port for report in reports] == [0]

    def test_context_that_is_plain(self, tls, genuine, impostor) -> None:
        """Without an enforcement nothing is reported, and the error is OpenSSL's."""
        context = genuine.client_context()
        prepare_context(context, PINNER)
        with pytest.raises(ssl.SSLCertVerificationError, match="verify failed"):
            Pair(context, impostor.server_context(tls=tls)).shake()

    def test_chain_that_openssl_refuses(self, tls, pins, genuine, impostor) -> None:
        """An impostor without a trusted CA is reported too, although no pin was looked at; unlisted hosts are not."""
        reports = []
        pinner = Pinner(pins, observers=[CallbackReports(reports.append)])
        context = genuine.client_context()
        prepare_context(context, pinner)
        for host in (HOST, "other.test"):
            pair = Pair(context, impostor.server_context(tls=tls), host)
            pair.client.enforce(Enforcement(pinner, _ssl_error, port=443))
            with pytest.raises(ssl.SSLCertVerificationError, match="verify failed"):
                pair.shake()
        pinner.reporter.close()
        (report,) = reports
        assert report.verdict.host == HOST
        assert len(report.served_chain) == len(impostor.chain)
