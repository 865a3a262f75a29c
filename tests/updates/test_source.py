"""
`TufPinSource` and the clients that are given one, against servers on the loopback interface.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
import threading
import time
from datetime import timedelta

import anyio
import httpx
import pytest
import trio
from publishing import Publisher, Site, now, pin

import pinset
import pinset.httpx2
from pinset import InputError, PinMismatchError, PinnedAsyncClient, PinnedAsyncTransport, PinSource, pinned_ssl_context
from pinset.testing import TLSServer
from pinset.updates import OnStale, Origin, TufPinSource, UpdateFault
from pinset.updates._engine import Engine

HOST = "localhost"


def pins_for(*texts):
    """A policy for the test's server."""
    return pinset.Policy.from_mapping({HOST: [*texts, pin(9)]})


@pytest.fixture
def renewed(genuine):
    """The identity that the server has after its key was changed."""
    return genuine.issue(HOST, "127.0.0.1")


@pytest.fixture
def publisher(tmp_path, leaf):
    return Publisher(tmp_path / "repository", first=pins_for(leaf.pin))


@pytest.fixture
def site(publisher, leaf):
    with Site(leaf, publisher) as running:
        yield running


@pytest.fixture
def server(leaf):
    with TLSServer(leaf.server_context()) as running:
        yield running


@pytest.fixture
def make(site, publisher, leaf, genuine, tmp_path):
    """Makes a source."""

    def make(**options):
        defaults = {
            "root": publisher.anchor,
            "fallback": pins_for(leaf.pin),
            "cache_dir": tmp_path / "cache",
            "cadata": genuine.root_pem,
        }
        return TufPinSource(options.pop("url", site.url), **defaults | options)

    return make


def change_key(server, publisher, leaf, renewed, *, publish=True):
    """Put another key in service, which the published policy names."""
    server.replace_context(renewed.server_context())
    if publish:
        publisher.publish(pins_for(leaf.pin, renewed.pin))


# The source.


@pytest.mark.parametrize(
    "options",
    [
        {"url": "http://localhost/"},
        {"url": "https:///"},
        {"url": "https://localhost/?a=1"},
        {"url": "https://localhost:port/"},
        {"root": b"{}"},
        {"name": "../policy.json"},
        {"name": "a//b"},
        {"name": "a?b"},
        {"on_stale": "unpin"},
        {"grace": timedelta.max},
        {"interval": timedelta(-1)},
    ],
)
def test_arguments_that_cannot_be_used(make, options):
    """They are refused when the source is made."""
    with pytest.raises(InputError):
        make(**options)


@pytest.mark.parametrize("options", [{"fallback": {}}, {"control_pins": {"a.test": ["sha256/x"]}}])
def test_pins_that_are_no_policy(make, options):
    """Likewise pins that make no policy; in the thread their error would come too late."""
    with pytest.raises(pinset.PolicyError):
        make(**options)


def test_it_is_a_source(make):
    """The interface of the low layer is that of the class."""
    source = make()
    assert isinstance(source, PinSource)
    assert not isinstance(source.pinner, PinSource)
    assert "fallback" in repr(source)


@pytest.mark.asyncio
async def test_before_the_first_update(make, site, publisher, leaf):
    """The fallback is in force at once; entering does not wait for the network."""
    site.gate.clear()
    source = make()
    assert source.status.origin is Origin.FALLBACK
    async with source:
        assert source.pinner.policy == pins_for(leaf.pin)
        site.gate.set()
        status = await source.refresh()
    assert (status.origin, status.error, status.failures) == (Origin.REPOSITORY, None, 0)
    assert status.checked is not None
    assert not status.is_stale
    assert "repository" in repr(source)


@pytest.mark.asyncio
async def test_what_is_kept_is_in_force_after_entering(make, site, publisher, renewed, leaf):
    """Without a request."""
    async with make() as source:
        await source.refresh()
    publisher.publish(pins_for(leaf.pin, renewed.pin))
    async with make() as source:
        await source.refresh()
    asked = len(site.asked)
    site.gate.clear()
    async with make() as source:
        assert source.pinner.policy == pins_for(leaf.pin, renewed.pin)
        assert source.status.origin is Origin.REPOSITORY
    assert len(site.asked) <= asked + 1


def test_without_an_event_loop(make):
    """``with`` does the same in a program without one."""
    with make() as source:
        assert source.refresh_blocking().error is None
    assert "pinset-updates" not in [thread.name for thread in threading.enumerate()]


def test_on_trio(make):
    """And ``async with`` on trio."""

    async def main():
        async with make() as source:
            status = await source.refresh()
            assert status.error is None
        with trio.move_on_after(0.05):
            async with source:
                await trio.sleep_forever()

    trio.run(main)


@pytest.mark.asyncio
async def test_looks_are_single(make, site):
    """A hundred that ask at once share a look."""
    async with make() as source:
        await source.refresh()
        before = len(site.asked)
        await asyncio.gather(*(source.refresh() for _ in range(100)))
    assert len(site.asked) - before in {2, 4}  # one look, or one more that was under way when the first asked


@pytest.mark.asyncio
async def test_waiting_can_be_cancelled(make, site):
    """It harms nobody: the look goes on for the others."""
    site.gate.clear()
    async with make() as source:
        impatient, patient = (asyncio.create_task(source.refresh()) for _ in range(2))
        await asyncio.sleep(0.05)
        impatient.cancel()
        with pytest.raises(asyncio.CancelledError):
            await impatient
        site.gate.set()
        assert (await patient).error is None


def test_waiting_in_a_loop_that_ends(make, site, caplog):
    """A loop that is closed while a look is under way is not woken any more."""
    site.gate.clear()
    source = make()
    with source:

        async def give_up():
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await source.refresh()

        asyncio.run(give_up())
        site.gate.set()
        assert source.refresh_blocking().error is None
    assert "exception" not in caplog.text


def test_leaving_in_the_middle_of_a_look(make, site):
    """Nobody waits for a server that hangs, neither who leaves nor who waits for the look."""
    site.gate.clear()
    source = make(deadline=60.0)
    done = []
    with source:
        waiter = threading.Thread(target=lambda: done.append(source.refresh_blocking()))
        waiter.start()
        while not site.asked:
            time.sleep(0.01)
    waiter.join(10)
    assert [status.checked for status in done] == [None]
    with source:  # it can be entered again
        site.gate.set()
        assert source.refresh_blocking().error is None


@pytest.mark.asyncio
async def test_entering_is_cancelled(make):
    """Then no thread goes on looking."""
    source = make()
    source._engine._begin = lambda: time.sleep(0.3)  # a slow disk
    entering = asyncio.create_task(source.__aenter__())
    await asyncio.sleep(0.05)
    entering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await entering
    thread = source._engine._thread
    if thread is not None:
        await asyncio.to_thread(thread.join, 10)
    assert source._engine._thread is None


@pytest.mark.asyncio
async def test_on_change(make, publisher, caplog):
    """The program is told of every look, in what state it left the source; its own errors change nothing."""
    told = []

    def tell(status):
        told.append(status)
        raise RuntimeError("a bug of the program")

    async with make(on_change=tell) as source:
        await source.refresh()
        publisher.replace("metadata/timestamp.json", b"{}")
        await source.refresh()
    assert told[0].origin is Origin.FALLBACK
    assert told[-1].error.fault is UpdateFault.INVALID
    assert told[-1].error.__traceback__ is None
    assert told[-1].failures == 1
    assert "on_change failed" in caplog.text


@pytest.mark.asyncio
async def test_log(make, publisher, caplog):
    """A forged file is an error in the log, a server that cannot be reached a warning."""
    caplog.set_level(logging.INFO, logger="pinset.updates")
    async with make() as source:
        await source.refresh()
        publisher.sign_nothing("metadata/timestamp.json")
        await source.refresh()
        (publisher.directory / "metadata/timestamp.json").unlink()
        await source.refresh()
    levels = {record.levelname: record.getMessage() for record in caplog.records if record.name == "pinset.updates"}
    assert "targets version 2" in levels["INFO"]
    assert "(signature)" in levels["ERROR"]
    assert "(network)" in levels["WARNING"]


@pytest.mark.parametrize("on_stale", OnStale)
@pytest.mark.asyncio
async def test_stale(make, publisher, server, leaf, renewed, genuine, on_stale):
    """When nothing new comes, the last policy stays, the fallback returns, or everything is refused."""
    change_key(server, publisher, leaf, renewed)
    context = genuine.client_context
    async with make() as source:
        await source.refresh()

    def later(days):
        return lambda: now() + timedelta(days=days)

    (publisher.directory / "metadata/timestamp.json").unlink()
    for days, is_stale in ((8, False), (10, True)):
        source = make(clock=later(days), on_stale=on_stale, grace=timedelta(days=2), min_interval=timedelta(hours=1))
        async with source, PinnedAsyncClient(source, verify=context()) as client:
            assert source.status.is_stale is is_stale
            if not is_stale or on_stale is OnStale.KEEP:
                assert (await client.get(server.url())).status_code == 200
                assert source.status.origin is Origin.REPOSITORY
                continue
            with pytest.raises(PinMismatchError) as caught:
                await client.get(server.url())
            assert caught.value.verdict.blocked_by_expiry is (on_stale is OnStale.BLOCK)
            expected = Origin.FALLBACK if on_stale is OnStale.FALLBACK else Origin.REPOSITORY
            assert source.status.origin is expected


@pytest.mark.asyncio
async def test_stale_while_running(make, leaf, renewed, publisher, server):
    """The end comes while the program runs, and is noticed without a look; a renewed repository ends it."""
    publisher.publish(pins_for(leaf.pin, renewed.pin))
    days = 0.0
    source = make(clock=lambda: now() + timedelta(days=days), on_stale="fallback")
    async with source:
        await source.refresh()
        assert source.status.origin is Origin.REPOSITORY
        days = 8.0
        source._keeper.wait()
        assert (source.status.is_stale, source.status.origin) == (True, Origin.FALLBACK)
        assert source.pinner.policy == pins_for(leaf.pin)
        publisher.refresh(at=now() + timedelta(days=7))
        status = await source.refresh()
        assert (status.is_stale, status.origin) == (False, Origin.REPOSITORY)


def test_after_a_fork(make, tmp_path, site):
    """A child looks for itself, and does not disturb its parent's thread."""
    with make() as source:
        assert source.refresh_blocking().error is None
        pid = os.fork()
        if pid == 0:
            os._exit(0 if source.refresh_blocking().error is None else 1)
        assert os.waitpid(pid, 0)[1] == 0
        assert source.refresh_blocking().error is None


@pytest.mark.asyncio
async def test_environment_has_no_say(make, monkeypatch, tmp_path):
    """Neither its proxies nor its CAs."""
    for name in ("HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    async with make() as source:
        assert (await source.refresh()).error is None


# Clients.


@pytest.mark.asyncio
async def test_client_follows_a_key_change(make, publisher, server, site, leaf, renewed, genuine):
    """One request that is refused brings the new pins and succeeds; the next ones need neither."""
    source = make()
    async with source, PinnedAsyncClient(source, verify=genuine.client_context()) as client:
        assert client.pinner is source.pinner
        await source.refresh()
        change_key(server, publisher, leaf, renewed)
        assert (await client.get(server.url())).status_code == 200
        asked = len(site.asked)
        assert (await client.get(server.url())).status_code == 200
        assert len(site.asked) == asked
        assert server.seen.connections == 2  # the refused one and its successor


@pytest.mark.asyncio
async def test_transport_follows_a_key_change(make, publisher, server, leaf, renewed, genuine):
    """Likewise a transport of its own."""
    source = make()
    transport = PinnedAsyncTransport(source, verify=genuine.client_context())
    async with source, httpx.AsyncClient(transport=transport) as client:
        await source.refresh()
        change_key(server, publisher, leaf, renewed)
        assert (await client.get(server.url())).status_code == 200


@pytest.mark.parametrize("flavour", [pinset.httpx, pinset.httpx2])
def test_blocking_client_follows_a_key_change(make, publisher, server, leaf, renewed, genuine, flavour):
    """Likewise the blocking client, for httpx and for httpx2."""
    source = make()
    with source, flavour.PinnedClient(source, verify=genuine.client_context()) as client:
        source.refresh_blocking()
        change_key(server, publisher, leaf, renewed)
        assert client.get(server.url()).status_code == 200
        assert server.seen.connections == 2


@pytest.mark.asyncio
async def test_blocking_client_in_a_coroutine(make, publisher, server, leaf, renewed, genuine):
    """It blocks the loop that runs, and not itself: the look needs no loop of the program."""
    source = make()
    async with source:
        await source.refresh()
        change_key(server, publisher, leaf, renewed)
        with pinset.PinnedClient(source, verify=genuine.client_context()) as client:
            assert client.get(server.url()).status_code == 200


def test_client_on_trio(make, publisher, server, leaf, renewed, genuine):
    """Likewise on trio."""

    async def main():
        source = make()
        async with source, PinnedAsyncClient(source, verify=genuine.client_context()) as client:
            await source.refresh()
            await anyio.to_thread.run_sync(change_key, server, publisher, leaf, renewed)
            assert (await client.get(server.url())).status_code == 200

    trio.run(main)


@pytest.mark.asyncio
async def test_body_is_sent_once(make, publisher, server, leaf, renewed, genuine):
    """A body that can be read once arrives whole after the second handshake: the first one has not touched it."""
    source = make()
    async with source, PinnedAsyncClient(source, verify=genuine.client_context()) as client:
        await source.refresh()
        change_key(server, publisher, leaf, renewed)

        async def body():
            for part in (b"once ", b"upon"):
                yield part

        response = await client.post(server.url(), content=body())
    assert response.status_code == 200
    assert server.seen.application_data.count(b"once ") == 1
    assert b"upon" in server.seen.application_data


@pytest.mark.asyncio
async def test_nothing_new(make, publisher, server, site, leaf, renewed, genuine):
    """Without a newer policy the refusal stands, and refusals do not cause one look after the other."""
    source = make()
    async with source, PinnedAsyncClient(source, verify=genuine.client_context()) as client:
        await source.refresh()
        change_key(server, publisher, leaf, renewed, publish=False)
        before = len(site.asked)
        for _ in range(3):
            with pytest.raises(PinMismatchError):
                await client.get(server.url())
        assert len(site.asked) - before == 2  # one look
        assert server.seen.connections == 3  # and no second handshake


@pytest.mark.asyncio
async def test_new_policy_that_does_not_help(make, publisher, server, leaf, renewed, genuine):
    """A request is tried once more and not again."""
    source = make(min_interval=timedelta(0))
    async with source, PinnedAsyncClient(source, verify=genuine.client_context()) as client:
        await source.refresh()
        server.replace_context(renewed.server_context())
        publisher.publish(pins_for(leaf.pin, str(pin(8))))
        with pytest.raises(PinMismatchError):
            await client.get(server.url())
    assert server.seen.connections == 2


@pytest.mark.asyncio
async def test_after_leaving(make, publisher, server, site, leaf, renewed, genuine):
    """A source that was left looks no more, and its last policy stays in force."""
    source = make()
    async with source:
        await source.refresh()
    change_key(server, publisher, leaf, renewed)
    asked = len(site.asked)
    async with PinnedAsyncClient(source, verify=genuine.client_context()) as client:
        with pytest.raises(PinMismatchError):
            await client.get(server.url())
    assert len(site.asked) == asked
    with pytest.raises(RuntimeError, match="enter it again"):
        await source.refresh()
    with pytest.raises(RuntimeError, match="enter it again"):
        source.refresh_blocking()
    async with source:
        assert (await source.refresh()).error is None


@pytest.mark.asyncio
async def test_pooled_connections_are_retired(make, publisher, server, leaf, renewed, genuine):
    """A connection whose key the new policy does not name any more carries no further request."""
    source = make(fallback=pins_for(leaf.pin, renewed.pin))
    async with source, PinnedAsyncClient(source, verify=genuine.client_context()) as client:
        await source.refresh()
        await client.get(server.url())
        server.replace_context(renewed.server_context())
        await client.get(server.url())
        assert server.seen.connections == 1
        publisher.publish(pins_for(renewed.pin))
        await source.refresh()
        await client.get(server.url())
        assert server.seen.connections == 2


def test_blocking_renewal(make, publisher, leaf, renewed, genuine):
    """What the client without an event loop asks: one look, and whether it may change the verdict."""
    with make() as source:
        source.refresh_blocking()
        verdict = source.pinner.judge(HOST, [*renewed.chain, genuine.root]).verdict
        refused = PinMismatchError("refused", host=HOST, verdict=verdict)
        publisher.publish(pins_for(leaf.pin, renewed.pin))
        assert source.renew_blocking(refused)
        assert source.renew_blocking(refused)  # that news stays news
        later = PinMismatchError("refused", host=HOST, verdict=source.pinner.judge(HOST, leaf.chain).verdict)
        assert not source.renew_blocking(later)


def test_bare_context(make, publisher, server, leaf, renewed, genuine, tmp_path):
    """A context of another library cannot wait: its refusal brings the look, and the next handshake the success."""
    roots = tmp_path / "roots.pem"
    roots.write_text(genuine.root_pem)
    with make() as source:
        source.refresh_blocking()
        context = pinned_ssl_context(source, cafile=str(roots))

        def shake_hands():
            with (
                socket.create_connection(("127.0.0.1", server.port), timeout=10) as raw,
                context.wrap_socket(raw, server_hostname=HOST) as tls,
            ):
                return tls.version()

        assert shake_hands()
        change_key(server, publisher, leaf, renewed)
        with pytest.raises(ssl.SSLCertVerificationError):
            shake_hands()
        source._engine.ask().result(10)
        assert shake_hands()


# The engine.


def test_engine_outlives_a_look_that_fails(caplog):
    """A thread that ends with an error says so, releases who waits, and starts again when it is asked."""
    calls = []

    async def look():
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("a bug")

    engine = Engine(lambda: None, look, lambda: 60.0)
    engine.ask().result(10)
    assert "has ended" in caplog.text
    engine.ask().result(10)
    assert len(calls) == 2
    thread = engine.stop()
    thread.join(10)
    assert engine.stop() is None


def test_engine_that_is_stopped_at_once():
    """Before its thread has begun."""
    for _ in range(20):
        engine = Engine(lambda: None, lambda: asyncio.sleep(60), lambda: 0.0)
        begun = engine.start()
        engine.stop().join(10)
        assert begun.result(10) is None


def test_engine_looks_when_it_is_time():
    """Without being asked."""
    looks, waits = [], iter([0.01, 0.0])
    done = threading.Event()

    async def look():
        looks.append(1)
        done.set()

    engine = Engine(lambda: None, look, lambda: next(waits, 60.0))
    engine.start()
    assert done.wait(10)
    engine.stop().join(10)
    assert looks == [1]
