"""
Resumed sessions: what a resumed handshake does not check by itself, and what ours asks in its place.
"""

from __future__ import annotations

import datetime as dt
import runpy
import ssl
import sys
from dataclasses import dataclass, field, replace

import pytest
from conftest import BACKUP, HOST

from pinset import Decision, Outcome, PinMismatchError, Pinner, PinSet, Policy, UnverifiedChainError, _sessions, _tls
from pinset._contexts import _ssl_error, prepare_context
from pinset._enforcement import Enforcement
from pinset._sessions import Session, SessionStore
from pinset.testing import Authority, Identity

OTHER = "sha256/BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBA="
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
NOON = dt.datetime.now(dt.UTC)


@dataclass
class Clock:
    """Both clocks of a test: the one that only grows, and the date."""

    seconds: float = 1_000.0
    date: dt.datetime = NOON

    def monotonic(self) -> float:
        return self.seconds

    def today(self) -> dt.datetime:
        return self.date


@dataclass
class World:
    """A client that keeps sessions, and the servers that it meets."""

    trust: ssl.SSLContext
    pins: object
    clock: Clock = field(default_factory=Clock)
    port: int = 443
    told: list = field(default_factory=list)
    peer: ssl.SSLObject | None = None

    def __post_init__(self) -> None:
        self.pinner = Pinner(self.pins, observers=[self.told.append], clock=self.clock.today)
        self.store = SessionStore(clock=self.clock.monotonic)
        prepare_context(self.trust, self.pinner)

    def connect(self, server: ssl.SSLContext, host: str = HOST, port: int | None = None, store=...):
        """Shake hands, exchange a request and a response, and return the client's object."""
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = self.trust.wrap_bio(incoming, outgoing, server_hostname=host)
        sessions = self.store if store is ... else store
        client.enforce(Enforcement(self.pinner, _ssl_error, sessions, port or self.port))
        self.peer = server.wrap_bio(outgoing, incoming, server_side=True)
        return talk(client, self.peer)


def shake(client: ssl.SSLObject, server: ssl.SSLObject) -> None:
    for _ in range(5):
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue


def talk(client: ssl.SSLObject, server: ssl.SSLObject) -> ssl.SSLObject:
    shake(client, server)
    client.write(b"request")
    assert server.read() == b"request"
    server.write(b"response")
    assert client.read() == b"response"
    return client


def plain(context: ssl.SSLContext, server: ssl.SSLContext, session=None, host: str = HOST) -> ssl.SSLObject:
    """The naive way: offer whatever session there is."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname=host, session=session)
    return talk(client, server.wrap_bio(outgoing, incoming, server_side=True))


def shared_tickets(first: ssl.SSLContext, identity: Identity) -> ssl.SSLContext:
    """Change the certificate of a server that keeps its ticket keys."""
    identity.load_into(first)
    return first


@pytest.fixture(params=[True, False], ids=["leaks", "reads freely"])
def world(request, monkeypatch, pins, genuine: Authority, rogue: Authority) -> World:
    """A client on an interpreter that loses memory with each session that is read, and on one that does not."""
    monkeypatch.setattr(_tls, "SESSIONS_LEAK", request.param)
    monkeypatch.setattr(_sessions, "SESSIONS_LEAK", request.param)
    return World(genuine.client_context(rogue), pins)


@pytest.mark.parametrize("tls", VERSIONS)
class TestResumption:
    """A session is used again, with the chain that earned it."""

    def test_second_handshake_is_resumed(self, tls, world, leaf) -> None:
        """The second connection is resumed, and carries the verdict on the chain of the first."""
        server = leaf.server_context(tls=tls)
        first = world.connect(server)
        second = world.connect(server)
        assert (first.session_reused, second.session_reused) == (False, True)
        assert first.pinset_stamp.port == second.pinset_stamp.port == world.port  # later reports name it
        assert second.pinset_stamp.chain == first.pinset_stamp.chain
        assert second.pinset_stamp.verdict.outcome is Outcome.MATCHED
        assert [str(pin) for pin in second.pinset_stamp.verdict.matched] == [leaf.pin]
        assert len(world.told) == 2, "observers hear of every handshake, once"

    def test_goes_on(self, tls, world, leaf) -> None:
        """Each resumed connection leaves a session for the next one."""
        server = leaf.server_context(tls=tls)
        assert [world.connect(server).session_reused for _ in range(5)] == [False, True, True, True, True]

    def test_without_a_store_nothing_is_resumed(self, tls, world, leaf) -> None:
        """``session_resumption=False``."""
        server = leaf.server_context(tls=tls)
        assert not any(world.connect(server, store=None).session_reused for _ in range(3))
        assert len(world.store) == 0

    def test_policy_changed_after_the_ticket(self, tls, world, leaf) -> None:
        """The naive way goes on with the old key; ours shakes hands in full, and is refused by the policy of now."""
        server = leaf.server_context(tls=tls)
        naive = plain(world.trust, server)
        assert plain(world.trust, server, naive.session).session_reused

        world.connect(server)
        world.pinner.replace({HOST: [BACKUP, OTHER]})
        with pytest.raises(PinMismatchError) as caught:
            world.connect(server)
        assert caught.value.verdict.chain, "it was a full handshake"
        assert len(world.store) == 0
        world.pinner.replace({HOST: [leaf.pin, OTHER]})
        assert not world.connect(server).session_reused

    def test_policy_changed_that_still_matches(self, tls, world, leaf) -> None:
        """A new policy that accepts the chain keeps the session, and its verdict is the new policy's."""
        server = leaf.server_context(tls=tls)
        world.connect(server)
        world.pinner.replace({HOST: [leaf.pin, OTHER]})
        second = world.connect(server)
        assert second.session_reused
        assert second.pinset_stamp.generation == 2

    def test_policy_changed_to_report_only(self, tls, world, leaf) -> None:
        """What would only be reported is resumed, and reported."""
        server = leaf.server_context(tls=tls)
        world.connect(server)
        world.pinner.replace(Policy([PinSet(name=HOST, pins=[OTHER, BACKUP], mode="report-only")]))
        second = world.connect(server)
        assert second.session_reused
        assert second.pinset_stamp.verdict.decision is Decision.REPORT
        assert world.told[-1] is second.pinset_stamp.verdict

    def test_policy_changed_between_offer_and_answer(self, tls, world, leaf) -> None:
        """What was offered under the old policy is refused under the new one."""
        server_context = leaf.server_context(tls=tls)
        world.connect(server_context)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = world.trust.wrap_bio(incoming, outgoing, server_hostname=HOST)
        client.enforce(Enforcement(world.pinner, _ssl_error, world.store, 443))
        server = server_context.wrap_bio(outgoing, incoming, server_side=True)
        with pytest.raises(ssl.SSLWantReadError):
            client.do_handshake()
        world.pinner.replace({HOST: [BACKUP, OTHER]})
        with pytest.raises(PinMismatchError):
            talk(client, server)
        assert client.session_reused

    def test_ticket_of_another_host(self, tls, world, genuine, leaf, pins) -> None:
        """One server, two names: the naive way resumes for a name it has not shown a certificate for."""
        server = leaf.server_context(tls=tls)
        naive = plain(world.trust, server)
        assert plain(world.trust, server, naive.session, "other.test").session_reused

        world.pinner.replace({HOST: pins[HOST], "other.test": pins[HOST]})
        world.connect(server)
        with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
            world.connect(server, "other.test")

    def test_ticket_of_another_port(self, tls, world, leaf) -> None:
        """Another port is another server."""
        server = leaf.server_context(tls=tls)
        world.connect(server, port=443)
        assert not world.connect(server, port=8443).session_reused

    def test_session_from_a_context_that_did_not_verify(self, tls, world, impostor, leaf, genuine) -> None:
        """A session earned without verification is resumed by the naive way, and refused by ours."""
        context = genuine.client_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        server = impostor.server_context(tls=tls)
        session = plain(context, server).session
        context.verify_mode = ssl.CERT_REQUIRED
        context.check_hostname = True
        naive = plain(context, server, session)
        assert naive.session_reused, "an impostor's session, and no certificate was looked at"

        own = World(context, world.pins)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = own.trust.wrap_bio(incoming, outgoing, server_hostname=HOST, session=session)
        client.enforce(Enforcement(own.pinner, _ssl_error, own.store, 443))
        with pytest.raises(UnverifiedChainError, match="the chain that earned it is not known"):
            talk(client, server.wrap_bio(outgoing, incoming, server_side=True))

    def test_another_session_than_the_one_offered(self, tls, world, impostor, genuine) -> None:
        """Should a session get mixed up on the way, the leaf tells, on whichever side of the other it sorts."""
        server = impostor.server_context(tls=tls)
        session = plain(world.trust, server).session
        short, long = genuine.issue(HOST), genuine.issue(HOST, *(f"{number}.test" for number in range(20)))
        assert short.chain[0] < impostor.chain[0] < long.chain[0]
        for other in (short, long):
            world.pinner.replace({HOST: [other.pin, BACKUP]})
            wrong = Session(session, other.chain, world.clock.seconds, NOON + dt.timedelta(days=1))
            world.store.keep((world.trust, HOST, 443), wrong)
            with pytest.raises(UnverifiedChainError, match="the chain that earned it is not known"):
                world.connect(server)

    def test_weakened_context(self, tls, world, leaf) -> None:
        """A context that no longer verifies is refused on a resumed handshake too."""
        server = leaf.server_context(tls=tls)
        world.connect(server)
        world.trust.check_hostname = False
        with pytest.raises(UnverifiedChainError, match="check_hostname"):
            world.connect(server)

    def test_certificate_swapped_under_kept_ticket_keys(self, tls, world, leaf, impostor) -> None:
        """A resumed handshake proves no key: accepted while the session is young, recognised afterwards."""
        server = leaf.server_context(tls=tls)
        world.connect(server)
        shared_tickets(server, impostor)
        world.clock.seconds += 3_599
        assert world.connect(server).session_reused, "the cap has not been reached"
        world.clock.seconds += 1
        with pytest.raises(PinMismatchError):
            world.connect(server)

    def test_resuming_does_not_prolong(self, tls, world, leaf, impostor) -> None:
        """The hour counts from the full handshake, however often the session was renewed since."""
        server = leaf.server_context(tls=tls)
        world.connect(server)
        shared_tickets(server, impostor)
        for _ in range(3):
            world.clock.seconds += 1_100
            assert world.connect(server).session_reused
        world.clock.seconds += 1_100
        with pytest.raises(PinMismatchError):
            world.connect(server)

    def test_expired_leaf(self, tls, world, leaf) -> None:
        """No session outlives a certificate of its chain; OpenSSL would not look."""
        server = leaf.server_context(tls=tls)
        first = world.connect(server)
        not_after = min(certificate.not_after for certificate in first.pinset_stamp.verdict.chain)
        world.clock.date = not_after - dt.timedelta(seconds=1)
        assert world.connect(server).session_reused
        for late in (dt.timedelta(0), dt.timedelta(seconds=1)):
            world.clock.date = not_after + late
            assert not world.connect(server).session_reused

    def test_only_a_passed_check_earns_a_session(self, tls, world, leaf, impostor) -> None:
        """A connection that was only reported leaves no session."""
        world.pinner.replace(Policy([PinSet(name=HOST, pins=[leaf.pin, BACKUP], mode="report-only")]))
        server = impostor.server_context(tls=tls)
        first = world.connect(server)
        assert first.pinset_stamp.verdict.decision is Decision.REPORT
        assert len(world.store) == 0
        assert not world.connect(server).session_reused

    def test_unknown_ticket(self, tls, world, leaf) -> None:
        """A server that does not know the session shakes hands in full, and everything is checked."""
        world.connect(leaf.server_context(tls=tls))
        second = world.connect(leaf.server_context(tls=tls))
        assert not second.session_reused
        assert second.pinset_stamp.verdict.outcome is Outcome.MATCHED


@pytest.mark.parametrize("tls", VERSIONS)
def test_server_that_keeps_refusing(tls, world, leaf) -> None:
    """Where reading a session leaks, no further one is read and the last one is forgotten."""
    for _ in range(4):
        assert not world.connect(leaf.server_context(tls=tls)).session_reused
    assert len(world.store) == (not _tls.SESSIONS_LEAK)


def test_ticket_is_offered_once(world, leaf) -> None:
    """Two connections at once do not share a TLS 1.3 ticket (RFC 8446 appendix C.4), where reading sessions is free."""
    world.connect(leaf.server_context(tls=ssl.TLSVersion.TLSv1_3))
    key = (world.trust, HOST, 443)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = world.trust.wrap_bio(incoming, outgoing, server_hostname=HOST)
    client.enforce(Enforcement(world.pinner, _ssl_error, world.store, 443))
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    assert (world.store.take(key) is None) is not _tls.SESSIONS_LEAK


@pytest.mark.parametrize("tls", VERSIONS)
def test_what_is_for_once(tls, world, leaf) -> None:
    """A TLS 1.3 ticket is, where reading its successor is free; a session of TLS 1.2 is not."""
    server = leaf.server_context(tls=tls)
    key = (world.trust, HOST, 443)
    for _ in range(2):
        world.connect(server)
        assert world.store.take(key).once is (tls is ssl.TLSVersion.TLSv1_3 and not _tls.SESSIONS_LEAK)


def test_server_without_tickets(world, leaf) -> None:
    """TLS 1.3 resumes by tickets alone; TLS 1.2 also by a session that the server remembers."""
    server = leaf.server_context(tls=ssl.TLSVersion.TLSv1_3)
    server.num_tickets = 0
    assert not any(world.connect(server).session_reused for _ in range(2))
    assert len(world.store) == 0
    server = leaf.server_context(tls=ssl.TLSVersion.TLSv1_2)
    server.options |= ssl.OP_NO_TICKET
    assert not world.connect(server).session_reused
    with pytest.raises(ssl.SSLWantReadError):
        world.peer.unwrap()  # OpenSSL forgets the session of a connection that was not closed
    assert world.connect(server).session_reused


@pytest.mark.parametrize("tls", VERSIONS)
def test_when_a_session_is_kept(tls, world, leaf) -> None:
    """In TLS 1.2 after the handshake, in TLS 1.3 after the first data (RFC 8446 section 4.6.1)."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = world.trust.wrap_bio(incoming, outgoing, server_hostname=HOST)
    client.enforce(Enforcement(world.pinner, _ssl_error, world.store, 443))
    server = leaf.server_context(tls=tls).wrap_bio(outgoing, incoming, server_side=True)
    shake(client, server)
    assert len(world.store) == (tls is ssl.TLSVersion.TLSv1_2)
    server.write(b"response")
    client.read()
    assert len(world.store) == 1


def test_ticket_without_a_successor_stays(world, leaf) -> None:
    """A server that sends no new ticket does not end resumption."""
    server = leaf.server_context(tls=ssl.TLSVersion.TLSv1_3)
    world.connect(server)
    server.num_tickets = 0
    assert [world.connect(server).session_reused for _ in range(3)] == [True, True, True]


class TestStore:
    """`SessionStore` by itself."""

    @pytest.fixture
    def session(self, world, leaf) -> Session:
        client = plain(world.trust, leaf.server_context())
        return Session(client.session, (b"chain",), 0.0, NOON)

    def test_flood_is_bounded(self, session) -> None:
        """A thousand hosts leave no more than the store holds, those used last."""
        store = SessionStore(clock=lambda: 0.0)
        for number in range(1_000):
            store.keep((None, f"{number}.test", 443), session)
            store.refused((None, f"r{number}.test", 443), session)
        assert len(store) == 256
        assert store.take((None, "743.test", 443)) is None
        assert store.take((None, "744.test", 443)) is session
        assert list(store._refusals) == [(None, f"r{number}.test", 443) for number in range(744, 1_000)]

    def test_use_keeps(self, session) -> None:
        """What is used stays; what is used least recently goes."""
        store = SessionStore(max_sessions=2, clock=lambda: 0.0)
        store.keep((None, "a.test", 443), session)
        store.keep((None, "b.test", 443), session)
        store.take((None, "a.test", 443))
        store.keep((None, "c.test", 443), session)
        assert store.take((None, "b.test", 443)) is None
        assert store.take((None, "a.test", 443)) is session

    def test_servers_own_limit_counts(self, session) -> None:
        """A session that the server limits to less than the cap is not offered past that."""
        now = [0.0]
        store = SessionStore(max_age=1e9, clock=lambda: now[0])
        key = (None, "a.test", 443)
        store.keep(key, session)
        now[0] = session.tls.timeout - 0.5
        assert store.take(key) is session
        now[0] += 0.5
        assert store.take(key) is None
        assert len(store) == 0

    def test_taken_once(self, session) -> None:
        """Of two threads that take a session for once at the same time, one gets it."""
        store, key = SessionStore(clock=lambda: 0.0), (None, "a.test", 443)
        store.keep(key, replace(session, once=True))
        assert store.take(key) is not None
        assert store.take(key) is None

    def test_drop_only_what_is_meant(self, session) -> None:
        """A session that took the place of another is not dropped with it."""
        store = SessionStore(clock=lambda: 0.0)
        key = (None, "a.test", 443)
        newer = Session(session.tls, session.chain, 1.0, NOON)
        store.keep(key, session)
        store.keep(key, newer)
        store.drop(key, session)
        assert store.take(key) is newer
        store.drop(key, newer)
        assert store.take(key) is None

    def test_leaks_are_bounded(self, session, monkeypatch) -> None:
        """Where reading a session leaks, a server that keeps refusing is given up, and so is reading at all."""
        store = SessionStore(clock=lambda: 0.0)
        key = (None, "a.test", 443)
        monkeypatch.setattr(_sessions, "SESSIONS_LEAK", True)
        for _ in range(3):
            assert store.wants(key)
            store.keep(key, session)
            store.refused(key, session)
        assert not store.wants(key)
        store.refused(key, session)  # one that was under way
        assert not store.wants(key)
        store.resumed(key)
        assert store.wants(key)
        for number in range(1_997):
            assert store.wants(key)
            store.keep((None, f"{number}.test", 443), session)
        assert not store.wants(key)
        store.keep(key, session)  # one that was under way
        assert not store.wants(key)
        monkeypatch.setattr(_sessions, "SESSIONS_LEAK", False)
        assert store.wants(key)

    def test_use_is_not_limited_unless_said(self, session) -> None:
        """Only a ticket is for once."""
        assert session.once is False

    def test_arguments_are_named(self) -> None:
        """Seconds and numbers are not told apart by their place."""
        with pytest.raises(TypeError, match="positional"):
            SessionStore(3600.0, 256)


@pytest.mark.parametrize(
    ("version", "leaks"),
    [
        ((3, 11, 99), True),
        ((3, 12, 7), True),
        ((3, 12, 8), False),
        ((3, 12, 9), False),
        ((3, 13, 0), True),
        ((3, 13, 1), False),
        ((3, 13, 2), False),
        ((3, 14, 0), False),
    ],
)
def test_interpreters_that_leak(version, leaks, monkeypatch) -> None:
    """Which releases lose memory with each session that is read (python/cpython gh-116810)."""
    monkeypatch.setattr(sys, "version_info", (*version, "final", 0))
    assert runpy.run_path(_sessions.__file__)["SESSIONS_LEAK"] is leaks
