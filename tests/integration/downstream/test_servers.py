"""
The bare context in redis, asyncpg, aiosmtplib and smtplib, against the servers they are made for.
"""

from __future__ import annotations

import asyncio
import smtplib
import ssl
from email.message import EmailMessage

import pytest
from peers import peer, read_exactly
from recipes import need, recipe, refusal

from pinset import Outcome, PinMismatchError, pinned_ssl_context

need("redis", "asyncpg", "aiosmtplib", "aiosmtpd", "uvloop")

import aiosmtplib
import asyncpg
import redis
import uvloop

pytestmark = pytest.mark.integration
loops = pytest.mark.parametrize("loop", [None, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
impostors = pytest.mark.parametrize("server", ["genuine", "rogue"])


def _on(loop, coroutine):
    with asyncio.Runner(loop_factory=loop) as runner:
        return runner.run(coroutine)


def _policy(server, pins, wrong):
    """Wrong pins for the genuine server, right ones for its impostor."""
    return wrong if server == "genuine" else pins


def _assert_refused(error):
    found = refusal(error)
    assert isinstance(found, PinMismatchError)
    assert found.verdict.outcome is Outcome.MISMATCHED


def _handshakes(wire, tls_records, before=b"", hellos=(1,)):
    """How many clients began a handshake with *hellos* ClientHellos, after what the protocol says *before*."""
    clients = wire.captured()
    for sent in clients:
        preface, found, tls = sent.partition(before) if before else (b"", b"", sent)
        assert found == before, preface
        kinds = [(kind, body[0]) for kind, body in tls_records(tls)]
        assert kinds[0] == (22, 1)
        assert kinds.count((22, 1)) in hellos
    return len(clients)


async def _set_and_get(context, port):
    replace = {'host="api.example.com", port=6379': f'host="localhost", port={port}'}
    scope = recipe("redis", replace, context=context)
    async with scope["client"] as client, scope["pool"]:
        await client.set("answer", 42)
        return await client.get("answer")


@loops
def test_redis(loop, redis_servers, pins):
    """A command and its answer."""
    assert _on(loop, _set_and_get(pinned_ssl_context(pins), redis_servers.port)) == b"42"


@loops
@impostors
def test_redis_refused(loop, server, redis_servers, pins, wrong, relay, tls_records):
    """A key that is not pinned is a ConnectionError of redis, after one handshake."""
    port = redis_servers.port if server == "genuine" else redis_servers.rogue
    with relay(port) as wire:
        with pytest.raises(redis.exceptions.ConnectionError) as caught:
            _on(loop, _set_and_get(pinned_ssl_context(_policy(server, pins, wrong)), wire.port))
        handshakes = _handshakes(wire, tls_records)
    _assert_refused(caught.value)
    assert handshakes == 1
    assert _on(loop, _set_and_get(ssl.create_default_context(), port)) == b"42"


def test_redis_that_makes_its_context_in_another_way(pins, monkeypatch):
    """Should redis no longer use the context it is handed, the lines of the page say so."""
    monkeypatch.setattr(redis.asyncio.connection.RedisSSLContext, "get", lambda self: ssl.create_default_context())
    scope = recipe("redis", {}, context=pinned_ssl_context(pins))
    with pytest.raises(TypeError, match="another way"):
        asyncio.run(scope["client"].ping())


def _query(context, port):
    replace = {"app@api.example.com/postgres": f"app@localhost:{port}/postgres"}
    return recipe("asyncpg", replace, context=context)["query"]()


@loops
def test_asyncpg(loop, postgres_servers, pins):
    """A query and its answer."""
    assert _on(loop, _query(pinned_ssl_context(pins), postgres_servers.port)) == 42


@loops
@impostors
def test_asyncpg_refused(loop, server, postgres_servers, pins, wrong, relay, tls_records):
    """A key that is not pinned: after PostgreSQL's SSLRequest the server hears a ClientHello, and no name of a user."""
    port = postgres_servers.port if server == "genuine" else postgres_servers.rogue
    with relay(port) as wire:
        with pytest.raises(PinMismatchError) as caught:
            _on(loop, _query(pinned_ssl_context(_policy(server, pins, wrong)), wire.port))
        # PostgreSQL 15 asks for another curve, so a second ClientHello belongs to the same handshake (RFC 8446 4.1.4).
        handshakes = _handshakes(wire, tls_records, bytes.fromhex("0000000804d2162f"), hellos=(1, 2))
    _assert_refused(caught.value)
    assert handshakes == 1
    assert _on(loop, _query(ssl.create_default_context(), port)) == 42


@loops
def test_asyncpg_pool(loop, postgres_servers, pins, wrong, relay):
    """``ssl=context`` of a pool: its connections are pinned."""

    async def query(policy, port):
        dsn = f"postgresql://app@localhost:{port}/postgres"
        async with asyncpg.create_pool(dsn, ssl=pinned_ssl_context(policy), min_size=1, max_size=2) as pool:
            return await pool.fetchval("SELECT 6 * 7")

    assert _on(loop, query(pins, postgres_servers.port)) == 42
    with relay(postgres_servers.port) as wire:
        with pytest.raises(PinMismatchError):
            _on(loop, query(wrong, wire.port))
        assert len(wire.captured()) == 1


@loops
def test_asyncpg_does_not_fall_back(loop, pins):
    """A server, or somebody on the road, that says it has no TLS hears nothing more."""
    heard = []

    def refuse(connection):
        heard.append(read_exactly(connection, 8))
        connection.sendall(b"N")
        heard.append(connection.recv(1))

    with peer(refuse) as server:
        with pytest.raises(ConnectionError, match="SSL"):
            _on(loop, _query(pinned_ssl_context(pins), server.port))
    assert heard == [bytes.fromhex("0000000804d2162f"), b""]


def _letter():
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "a@example.com", "b@example.com", "secret"
    message.set_content("hello")
    return message


_MAIL = {
    "send": ("implicit", "port=465"),
    "send_by_starttls": ("starttls", "port=587"),
    "send_blocking": ("implicit", '"api.example.com", 465'),
    "send_blocking_by_starttls": ("starttls", '"api.example.com", 587'),
}
ways = pytest.mark.parametrize("way", _MAIL)


def _post(way, context, port):
    said = _MAIL[way][1]
    ours = f'"localhost", {port}' if said.startswith('"') else f"port={port}"
    scope = recipe("SMTP", {said: ours, '"api.example.com"': '"localhost"'}, context=context)
    if way in ("send", "send_by_starttls"):
        asyncio.run(scope[way](_letter()))
    else:
        scope[way](_letter())


@pytest.mark.parametrize("way", ["send_by_starttls", "send_blocking_by_starttls"])
def test_mail_without_starttls(way, mail, pins):
    """A server that does not offer STARTTLS, or somebody who takes the offer away, gets no letter."""
    with pytest.raises((aiosmtplib.SMTPException, smtplib.SMTPException)):
        _post(way, pinned_ssl_context(pins), mail.ports["genuine", "none"])
    assert mail.box.bodies == []


def test_what_the_page_says_of_aiosmtplibs_default(mail, pins):
    """Without ``start_tls=True`` the letter goes out in the clear where STARTTLS is not offered."""
    address = {"hostname": "localhost", "port": mail.ports["genuine", "none"]}
    asyncio.run(aiosmtplib.send(_letter(), tls_context=pinned_ssl_context(pins), **address))
    assert "Subject: secret" in mail.box.bodies[0]


@ways
def test_mail(way, mail, pins):
    """A letter arrives."""
    _post(way, pinned_ssl_context(pins), mail.ports["genuine", _MAIL[way][0]])
    (body,) = mail.box.bodies
    assert "Subject: secret" in body


@ways
@impostors
def test_mail_refused(way, server, mail, pins, wrong, relay, tls_records):
    """A key that is not pinned: no letter, and no word after the ClientHello; without pins the letter is taken."""
    tls = _MAIL[way][0]
    port = mail.ports[server, tls]
    with relay(port) as wire:
        with pytest.raises((aiosmtplib.SMTPException, smtplib.SMTPException, ssl.SSLError)) as caught:
            _post(way, pinned_ssl_context(_policy(server, pins, wrong)), wire.port)
        handshakes = _handshakes(wire, tls_records, b"STARTTLS\r\n" if tls == "starttls" else b"")
    _assert_refused(caught.value)
    assert handshakes == 1
    assert mail.box.bodies == []
    _post(way, ssl.create_default_context(), port)
    assert "Subject: secret" in mail.box.bodies[0]
