"""
The streams of each event loop: reading, writing, waiting, closing, and what can be asked of them.
"""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import ssl
import time
import weakref
from contextlib import contextmanager, suppress

import anyio
import anyio.lowlevel
import httpcore
import pytest
from conftest import BACKUP, HOST, wire
from httpcore._backends.anyio import AnyIOBackend
from peers import LOOPS, Hold, echo, is_open, origin_context, peer, read_exactly, reset, tls_peer

from pinset import PinMismatchError, Pinner
from pinset._network import PinnedBackend
from pinset._tls import PinnedSSLObject
from pinset._tls_layer import WRITE_SIZE

OTHER = "sha256/BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBA="
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
every_loop = pytest.mark.parametrize("loop", LOOPS)
own_loops = pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
PLAIN, TLS = "plain", "tls"
over_both = pytest.mark.parametrize("kind", [PLAIN, TLS])


@pytest.fixture
def trust(genuine, rogue) -> ssl.SSLContext:
    """A client context that trusts both authorities."""
    return genuine.client_context(rogue)


@pytest.fixture
def meet(leaf, pins, trust):
    """A server that talks as told, over TLS or not, and how to connect to it."""

    @contextmanager
    def meet(kind, talk, *, host="127.0.0.1"):
        serve = tls_peer(leaf.server_context(), talk, host) if kind == TLS else peer(talk, host)
        with serve as running:

            async def connect(backend=None, **options):
                stream = await (backend or PinnedBackend()).connect_tcp(host, running.port, **options)
                if kind == PLAIN:
                    return stream
                context = genuine_context() if backend else origin_context(Pinner(pins), trust)
                return await stream.start_tls(context, HOST)

            yield connect

    def genuine_context():
        return trust

    return meet


async def read_all(stream, **options) -> bytes:
    """Everything up to the end."""
    received = bytearray()
    while data := await stream.read(65536, **options):
        received += data
    return bytes(received)


async def read_size(stream, size, max_bytes=65536, **options) -> bytes:
    """*size* bytes."""
    received = bytearray()
    while len(received) < size:
        data = await stream.read(max_bytes, **options)
        assert data, "the connection has ended"
        assert len(data) <= max_bytes
        received += data
    return bytes(received)


async def write_until_it_fails(stream, item: bytes) -> None:
    """The first write after a break may still go into the void."""
    for _ in range(1000):
        await stream.write(item, timeout=10)
        await anyio.lowlevel.checkpoint()


async def eventually(condition) -> None:
    """Wait until *condition* comes true: other threads and the kernel need a moment."""
    for _ in range(1000):
        if condition():
            return
        await anyio.sleep(0.005)
    raise AssertionError("it did not come true")


@every_loop
@over_both
def test_there_and_back(loop, kind, meet) -> None:
    """What is written arrives, in order, and what is read is never more than was asked for."""
    sizes = [1, 16_384, 16_385, 300_000, 2_000_000]

    async def run() -> None:
        with meet(kind, echo) as connect:
            stream = await connect()
            for size in sizes:
                message = bytes(range(256)) * (size // 256) + b"!" * (size % 256)
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(stream.write, message, 10)
                    assert await read_size(stream, size, 10_000, timeout=10) == message
            await stream.write(b"")
            await stream.aclose()

    LOOPS[loop](run)


@every_loop
def test_a_large_write_is_encrypted_in_pieces(loop, meet, monkeypatch) -> None:
    """A body of a gigabyte would lie in memory twice otherwise."""
    sizes = []

    def write(tls, data, write=PinnedSSLObject.write):
        sizes.append(len(data))
        return write(tls, data)

    async def run():
        with meet(TLS, echo) as connect:
            stream = await connect()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(stream.write, bytes(3_000_000), 10)
                await read_size(stream, 3_000_000, timeout=10)
            await stream.aclose()

    monkeypatch.setattr(PinnedSSLObject, "write", write)
    LOOPS[loop](run)
    assert sum(sizes) == 3_000_000
    assert max(sizes) == WRITE_SIZE


@every_loop
@over_both
def test_timeouts(loop, kind, meet) -> None:
    """A timeout is httpcore's, and after one of reading the connection still works."""
    hold, end = Hold(), Hold()

    def talk(connection) -> None:
        hold.wait()
        connection.sendall(b"late")
        end.wait()

    async def run() -> None:
        with meet(kind, talk) as connect:
            stream = await connect()
            for timeout in (0.01, 0):
                with pytest.raises(httpcore.ReadTimeout):
                    await stream.read(100, timeout=timeout)
            hold.let_go()
            assert await read_size(stream, 4, timeout=10) == b"late"
            with pytest.raises(httpcore.WriteTimeout):
                await stream.write(bytes(64_000_000), timeout=0.05)
            await stream.aclose()
            end.let_go()

    LOOPS[loop](run)


async def _cancel_by_scope(read) -> None:
    with anyio.move_on_after(0.02) as scope:
        await read()
    assert scope.cancelled_caught


async def _cancel_by_timeout(read) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await read()


async def _cancel_by_task(read) -> None:
    task = asyncio.ensure_future(read())
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize(
    ("loop", "cancel"),
    [(loop, _cancel_by_scope) for loop in LOOPS]
    + [(loop, cancel) for loop in ("asyncio", "uvloop") for cancel in (_cancel_by_timeout, _cancel_by_task)],
)
@over_both
def test_a_cancelled_read_loses_nothing(loop, cancel, kind, meet) -> None:
    """Whoever reads after a cancelled read gets every byte."""

    async def run() -> None:
        with meet(kind, echo) as connect:
            stream = await connect()
            await stream.write(b"a")
            assert await stream.read(1) == b"a"
            await cancel(lambda: stream.read(100, timeout=10))
            await stream.write(b"after")
            assert await read_size(stream, 5, timeout=10) == b"after"
            await stream.aclose()

    LOOPS[loop](run)


@own_loops
def test_cancelled_in_the_moment_of_arrival(loop, meet) -> None:
    """A read that is cancelled when its data has already arrived leaves it to the next one."""
    hold = Hold()

    def talk(tls) -> None:
        tls.recv(1)
        tls.sendall(b"zero")
        hold.wait()
        tls.sendall(b"one")

    async def run() -> None:
        with meet(TLS, talk) as connect:
            stream = await connect()
            await stream.write(b"?")
            assert await read_size(stream, 4, timeout=10) == b"zero"
            task = asyncio.ensure_future(stream.read(100))
            await asyncio.sleep(0)
            hold.let_go()
            while not stream.get_extra_info("is_readable"):
                time.sleep(0.001)  # noqa: ASYNC251 - on purpose: the loop gets no turn
            running = asyncio.get_running_loop()
            running.call_soon(lambda: running.call_soon(task.cancel))  # between the arrival and the reader's turn
            try:
                received = await task
            except asyncio.CancelledError:
                received = await stream.read(100, timeout=10)
            assert received == b"one"
            await stream.aclose()

    LOOPS[loop](run)


@every_loop
@over_both
def test_closing_wakes_who_waits(loop, kind, meet) -> None:
    """Reader and writer get httpcore's errors; the descriptor is closed when aclose() returns; twice is fine."""
    hold = Hold()

    async def run() -> None:
        woken: list[str] = []

        async def expect(error, method, *args) -> None:
            with pytest.raises(error):
                await method(*args)
            woken.append(method.__name__)

        with meet(kind, lambda _: hold.wait()) as connect:
            stream = await connect()
            descriptor = stream.get_extra_info("socket").fileno()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(expect, httpcore.ReadError, stream.read, 100)
                tasks.start_soon(expect, httpcore.WriteError, stream.write, bytes(64_000_000))
                await anyio.sleep(0.05)
                assert not woken
                await stream.aclose()
                assert not is_open(descriptor)
            assert sorted(woken) == ["read", "write"]
            await stream.aclose()
            for timeout in (None, 1):
                with pytest.raises(httpcore.ReadError):
                    await stream.read(100, timeout=timeout)
                with pytest.raises(httpcore.WriteError):
                    await stream.write(b"more", timeout=timeout)
            assert stream.get_extra_info("is_readable")
            assert stream.get_extra_info("is_ended")
            hold.let_go()

    LOOPS[loop](run)


@every_loop
@over_both
def test_the_end(loop, kind, meet) -> None:
    """After the last byte comes nothing, as often as it is asked for."""

    async def run() -> None:
        with meet(kind, lambda connection: connection.sendall(b"last words")) as connect:
            stream = await connect()
            assert await read_all(stream, timeout=10) == b"last words"
            assert await stream.read(100, timeout=10) == b""
            assert stream.get_extra_info("is_readable")
            assert stream.get_extra_info("is_ended")
            await stream.aclose()

    LOOPS[loop](run)


@every_loop
@over_both
def test_a_reset(loop, kind, meet) -> None:
    """A RST is a ReadError, after what came before it; writing fails too."""
    hold = Hold()

    def talk(connection) -> None:
        connection.sendall(b"before")
        hold.wait()
        reset(connection)

    async def run() -> None:
        with meet(kind, talk) as connect:
            stream = await connect()
            assert await read_size(stream, 6, timeout=10) == b"before"
            hold.let_go()
            with pytest.raises(httpcore.ReadError):
                await stream.read(100, timeout=10)
            with pytest.raises(httpcore.WriteError):
                await write_until_it_fails(stream, b"more")
            await stream.aclose()

    LOOPS[loop](run)


@every_loop
@over_both
def test_a_slow_reader_slows_the_peer_down(loop, kind, meet) -> None:
    """What nobody reads stays with the peer, not in our memory; it all comes when it is read."""
    size = 64_000_000
    sent = 0

    def talk(connection) -> None:
        nonlocal sent
        piece = bytes(64_000)
        while sent < size:
            connection.sendall(piece)
            sent += len(piece)

    async def run() -> None:
        with meet(kind, talk) as connect:
            stream = await connect()
            assert await stream.read(1) == b"\0"
            await eventually(lambda: sent > 100_000)
            before = -1
            while before < sent:  # until it stands still
                before = sent
                await anyio.sleep(0.1)
            assert sent < size / 2
            if loop != "trio":
                assert stream.connection.incoming.pending < 1_000_000
            assert len(await read_all(stream, timeout=10)) == size - 1
            await stream.aclose()

    LOOPS[loop](run)


@every_loop
@over_both
def test_a_slow_peer_slows_the_writer_down(loop, kind, meet) -> None:
    """write() returns when the kernel has it all; what two tasks write is not mixed up."""
    hold = Hold()
    size = 20_000_000
    received = b""

    def talk(connection) -> None:
        nonlocal received
        hold.wait()
        received = read_exactly(connection, 2 * size + 1)
        connection.sendall(b"k")

    async def run() -> None:
        done: list[int] = []

        async def write(stream, item: bytes) -> None:
            await stream.write(item, timeout=30)
            done.append(len(item))

        with meet(kind, talk) as connect:
            stream = await connect()
            items = [b"a" * size, b"b" * size, b"c"]
            if loop == "trio" and kind == PLAIN:  # httpcore never has two writers there, and anyio allows one
                items = [b"".join(items)]
            async with anyio.create_task_group() as tasks:
                for item in items:
                    tasks.start_soon(write, stream, item)
                await anyio.sleep(0.1)
                assert size not in done  # trio may begin with the last one, which the kernel takes at once
                hold.let_go()
            assert await stream.read(1, timeout=10) == b"k"
            await stream.aclose()

    LOOPS[loop](run)
    assert len(received) == 2 * size + 1
    runs = []
    while received:
        runs.append(received[:1])
        received = received.lstrip(received[:1])
    assert sorted(runs) == [b"a", b"b", b"c"]


@own_loops
@pytest.mark.parametrize("cancel", [_cancel_by_scope, _cancel_by_timeout, _cancel_by_task])
def test_a_cancelled_write_leaves_whole_records(loop, cancel, meet) -> None:
    """Wherever a write is cancelled, what the peer got still decrypts, and so does what is written after it."""
    hold = Hold()
    received = b""

    def talk(tls) -> None:
        nonlocal received
        hold.wait()
        while not received.endswith(b"after"):
            received += tls.recv(65536)
        tls.sendall(b"k")

    async def run() -> None:
        with meet(TLS, talk) as connect:
            stream = await connect()
            await cancel(lambda: stream.write(b"x" * 64_000_000, timeout=10))
            hold.let_go()
            await stream.write(b"after", timeout=10)
            assert await stream.read(1, timeout=10) == b"k"
            await stream.aclose()

    LOOPS[loop](run)
    assert 0 < received.count(b"x") < 64_000_000
    assert received.lstrip(b"x") == b"after"


@own_loops
def test_two_readers(loop, meet) -> None:
    """Two tasks that read from one connection would share it out by chance; the second is told so."""

    async def run() -> None:
        with meet(PLAIN, echo) as connect:
            stream = await connect()
            task = asyncio.ensure_future(stream.read(100))
            await asyncio.sleep(0)
            with pytest.raises(RuntimeError, match="another task"):
                await stream.read(100)
            await stream.write(b"for the first")
            assert await task == b"for the first"
            await stream.aclose()

    LOOPS[loop](run)


@own_loops
@over_both
def test_an_answer_before_the_server_hangs_up(loop, kind, meet) -> None:
    """A server that answers and closes while a body is still being sent is heard; httpcore looks for that answer."""
    answer = b"413 " * 50

    def talk(connection) -> None:
        connection.recv(1000)
        connection.sendall(answer)

    async def run() -> None:
        for _ in range(20):
            with meet(kind, talk) as connect:
                stream = await connect()
                with pytest.raises(httpcore.WriteError):
                    await write_until_it_fails(stream, bytes(1_000_000))
                assert await read_size(stream, len(answer), timeout=10) == answer
                await stream.aclose()

    LOOPS[loop](run)


@every_loop
def test_is_readable_and_is_ended(loop, meet) -> None:
    """Both are right at once, without a turn of the event loop."""
    steps = {name: Hold() for name in ("data", "end", "done")}

    def talk(connection) -> None:
        steps["data"].wait()
        connection.sendall(b"data")
        steps["end"].wait()
        connection.shutdown(socket.SHUT_WR)
        steps["done"].wait()

    async def run() -> None:
        with meet(PLAIN, talk) as connect:
            stream = await connect()

            def ask() -> tuple[bool, bool]:
                time.sleep(0.05)  # the loop gets no turn
                return stream.get_extra_info("is_readable"), stream.get_extra_info("is_ended")

            assert ask() == (False, False)
            steps["data"].let_go()
            assert ask() == (True, False)
            await anyio.sleep(0.05)
            assert ask() == (True, False)
            steps["end"].let_go()
            assert ask() == (True, True)
            await anyio.sleep(0.05)
            assert ask() == (True, True)
            assert await read_all(stream, timeout=10) == b"data"
            assert ask() == (True, True)
            steps["done"].let_go()
            await stream.aclose()

    LOOPS[loop](run)


@every_loop
def test_is_readable_inside_tls(loop, leaf, pins, trust) -> None:
    """Decrypted data that was not asked for counts, also in TLS in TLS."""
    hold = Hold()

    def talk(tls) -> None:
        tls.recv(1)
        tls.sendall(b"data")
        hold.wait()

    async def run() -> None:
        with tls_peer(leaf.server_context(), talk) as server:
            stream = await PinnedBackend().connect_tcp("127.0.0.1", server.port)
            stream = await stream.start_tls(origin_context(Pinner(pins), trust), HOST)
            await stream.write(b"?")
            assert await stream.read(1, timeout=10) == b"d"
            assert stream.get_extra_info("is_readable")
            assert not stream.get_extra_info("is_ended")
            assert await read_size(stream, 3, timeout=10) == b"ata"
            assert not stream.get_extra_info("is_readable")
            hold.let_go()
            await eventually(lambda: stream.get_extra_info("is_ended"))
            assert stream.get_extra_info("is_readable")
            await stream.aclose()

    LOOPS[loop](run)


@own_loops
def test_session_tickets_are_no_data(loop, leaf, pins, trust) -> None:
    """Tickets that arrive on an idle connection do not make it readable, which would end it."""
    hold = Hold()

    def talk(tls) -> None:
        tls.recv(1)
        hold.wait()
        tls.sendall(b"x")

    async def run() -> None:
        with tls_peer(leaf.server_context(tls=ssl.TLSVersion.TLSv1_3), talk) as server:
            stream = await PinnedBackend().connect_tcp("127.0.0.1", server.port)
            stream = await stream.start_tls(origin_context(Pinner(pins), trust), HOST)
            await stream.write(b"?")
            await eventually(lambda: stream.connection.incoming.pending)
            assert not stream.get_extra_info("is_readable")
            hold.let_go()
            assert await stream.read(100, timeout=10) == b"x"
            await stream.aclose()

    LOOPS[loop](run)


@every_loop
def test_a_certificate_asked_for_after_the_handshake(loop, genuine, leaf, pins, trust) -> None:
    """A server may ask for it while we wait for the answer (RFC 8446 section 4.6.2); it gets it at once."""
    context = leaf.server_context(tls=ssl.TLSVersion.TLSv1_3)
    context.load_verify_locations(cadata=genuine.root_pem)
    context.verify_mode = ssl.CERT_REQUIRED
    context.post_handshake_auth = trust.post_handshake_auth = True
    genuine.issue("client.test", client=True).load_into(trust)

    def talk(tls) -> None:
        tls.recv(1)
        assert tls.getpeercert() is None
        tls.verify_client_post_handshake()
        tls.do_handshake()
        tls.setblocking(False)
        for _ in range(1000):
            with suppress(ssl.SSLWantReadError):
                tls.recv(1)
            if tls.getpeercert():
                break
            time.sleep(0.005)
        tls.setblocking(True)
        tls.sendall(b"welcome" if tls.getpeercert() else b"nobody")

    async def run() -> None:
        with tls_peer(context, talk) as server:
            stream = await PinnedBackend().connect_tcp("127.0.0.1", server.port)
            stream = await stream.start_tls(origin_context(Pinner(pins), trust), HOST)
            await stream.write(b"?")
            assert await stream.read(100, timeout=10) == b"welcome"
            await stream.aclose()

    LOOPS[loop](run)


ADDRESSES = ["127.0.0.1", "::1", "unix"]


@every_loop
@pytest.mark.parametrize("host", ADDRESSES)
@over_both
def test_extra_info_is_that_of_httpcore(loop, host, kind, leaf, pins, trust, tmp_path) -> None:
    """Every key of httpcore's own stream has an answer of the same form."""
    address = str(tmp_path / "socket") if host == "unix" else host

    async def connect(backend, server, context):
        if host == "unix":
            stream = await backend.connect_unix_socket(address)
        else:
            stream = await backend.connect_tcp(address, server.port)
        return stream if kind == PLAIN else await stream.start_tls(context, HOST)

    async def run() -> None:
        with tls_peer(leaf.server_context(), echo, address) if kind == TLS else peer(echo, address) as server:
            ours = await connect(PinnedBackend(), server, origin_context(Pinner(pins), trust))
            stock = await connect(AnyIOBackend(), server, trust)
            for stream in (ours, stock):
                await stream.write(b"x")
                assert await stream.read(1, timeout=10) == b"x"
            assert ours.get_extra_info("server_addr") == stock.get_extra_info("server_addr")
            if host == "unix":
                assert ours.get_extra_info("client_addr") == stock.get_extra_info("client_addr")
            else:
                assert ours.get_extra_info("client_addr")[0] == stock.get_extra_info("client_addr")[0] == host
                assert len(ours.get_extra_info("client_addr")) == len(stock.get_extra_info("client_addr")) == 2
            for name in ("is_readable", "unheard-of"):
                assert ours.get_extra_info(name) == stock.get_extra_info(name)
            mine, theirs = (stream.get_extra_info("socket") for stream in (ours, stock))
            assert (mine.family, mine.type) == (theirs.family, theirs.type)
            assert mine.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) == socket.SOCK_STREAM
            mine, theirs = (stream.get_extra_info("ssl_object") for stream in (ours, stock))
            if kind == PLAIN:
                assert mine is theirs is None
                assert ours.get_extra_info("pinset") is None
            else:
                assert mine.version() == theirs.version() == "TLSv1.3"
                assert mine.selected_alpn_protocol() == theirs.selected_alpn_protocol()
                assert ours.get_extra_info("pinset").outcome == "matched"
            before = [ours.get_extra_info(name) for name in ("client_addr", "server_addr")]
            for stream in (ours, stock):
                await stream.aclose()
            if loop != "trio":  # what a log line wants afterwards is still known, or is no error
                after = [ours.get_extra_info(name) for name in ("client_addr", "server_addr")]
                assert after in (before, [None, None])

    LOOPS[loop](run)


def test_an_address_with_a_scope() -> None:
    """A link-local address is given with its interface, as anyio gives it."""
    from pinset._asyncio_streams import with_scope

    assert with_scope(("fe80::1", 443, 0, 2)) == ("fe80::1%2", 443)
    assert with_scope(("::1", 443, 7, 0)) == ("::1", 443)
    assert with_scope(("127.0.0.1", 443)) == ("127.0.0.1", 443)
    assert with_scope("/run/socket") == "/run/socket"


@every_loop
def test_accepts(loop, leaf, pins, trust, genuine) -> None:
    """A connection says whether the policy in force lets it carry another request."""

    async def run() -> None:
        with tls_peer(leaf.server_context(), echo) as server:
            pinner = Pinner(pins)
            raw = await PinnedBackend().connect_tcp("127.0.0.1", server.port)
            assert raw.accepts()
            stream = await raw.start_tls(origin_context(pinner, trust), HOST)
            first = stream.get_extra_info("pinset")
            assert stream.accepts()
            assert stream.get_extra_info("pinset") is first
            pinner.replace({HOST: [BACKUP, OTHER]})
            assert not stream.accepts()
            assert stream.get_extra_info("pinset").decision == "refuse"
            await stream.write(b"what is under way is finished")
            assert await stream.read(4, timeout=10) == b"what"
            pinner.replace({HOST: [BACKUP, leaf.pin]})
            assert stream.accepts()
            await stream.aclose()
            assert not stream.accepts() or loop == "trio"

            plain = await PinnedBackend().connect_tcp("127.0.0.1", server.port)
            plain = await plain.start_tls(genuine.client_context(), HOST)
            assert plain.accepts()
            assert plain.get_extra_info("pinset") is None
            await plain.aclose()

    LOOPS[loop](run)


def test_a_connection_of_another_event_loop(pins, leaf, trust) -> None:
    """A pool that outlives its event loop does not use its connections in the next one, and can close them."""
    with tls_peer(leaf.server_context(), echo) as server:

        async def connect():
            stream = await PinnedBackend().connect_tcp("127.0.0.1", server.port)
            return await stream.start_tls(origin_context(Pinner(pins), trust), HOST)

        async def close(stream):
            assert not stream.accepts()
            await stream.aclose()

        first = asyncio.new_event_loop()
        stream = first.run_until_complete(connect())
        descriptor = stream.get_extra_info("socket").fileno()
        with asyncio.Runner() as second:
            second.run(close(stream))
            first.run_until_complete(asyncio.sleep(0))
            assert not is_open(descriptor)
        stream = first.run_until_complete(connect())
        descriptor = stream.get_extra_info("socket").fileno()
        first.close()
        with asyncio.Runner() as second:
            second.run(close(stream))
        assert not is_open(descriptor)
        del stream
        with pytest.warns(ResourceWarning):  # asyncio's own, about its transport
            gc.collect()


@every_loop
@pytest.mark.parametrize("tls", VERSIONS)
def test_nothing_leaves_before_the_check(loop, tls, pins, impostor, trust) -> None:
    """An impostor sees one record, then the end; the socket is closed."""

    async def run() -> None:
        with tls_peer(impostor.server_context(tls=tls), echo) as server, wire(server.port) as relay:
            raw = await PinnedBackend().connect_tcp("127.0.0.1", relay.port)
            descriptor = raw.get_extra_info("socket").fileno()
            with pytest.raises(PinMismatchError):
                await raw.start_tls(origin_context(Pinner(pins), trust), HOST, timeout=10)
            assert not is_open(descriptor)
            with pytest.raises(httpcore.WriteError):
                await raw.write(b"secret")
        assert relay.records() == [22]

    LOOPS[loop](run)


@every_loop
@pytest.mark.parametrize("first", [b"", b"x", b"x" * 40_000])
@pytest.mark.parametrize("asks", [False, True], ids=["reads", "asks first"])
def test_a_record_that_does_not_decrypt(loop, first, asks, meet) -> None:
    """What came before it is delivered whole, then reading fails, as often as it is tried; asking does not hide it."""
    hold = Hold()

    def talk(tls) -> None:
        tls.recv(1)
        if first:
            tls.sendall(first)
        os.write(tls.fileno(), b"\x17\x03\x03\x00\x20" + bytes(32))
        hold.wait()

    async def run() -> None:
        with meet(TLS, talk) as connect:
            stream = await connect()
            await stream.write(b"?")
            await anyio.sleep(0.05)
            if first:
                assert await read_size(stream, len(first), timeout=10) == first
            if asks:
                await eventually(lambda: stream.get_extra_info("is_readable"))
            for _ in range(2):
                with pytest.raises(httpcore.ReadError, match="(?i)mac|decrypt"):
                    await stream.read(100, timeout=10)
            assert stream.get_extra_info("is_readable")
            hold.let_go()
            await stream.aclose()

    LOOPS[loop](run)


@every_loop
def test_finished_leaves_with_the_first_write(loop, pins, leaf, trust) -> None:
    """One segment with Finished and request is cheaper than two; a reader does not wait for ever without it."""

    def talk(tls) -> None:
        tls.sendall(b"the server speaks first")
        tls.recv(100)

    async def run() -> None:
        with tls_peer(leaf.server_context(), talk) as server, wire(server.port) as relay:
            raw = await PinnedBackend().connect_tcp("127.0.0.1", relay.port)
            stream = await raw.start_tls(origin_context(Pinner(pins), trust), HOST)
            assert relay.records() == [22]
            assert (await stream.read(100, timeout=10)).startswith(b"the server")
            await stream.aclose()

    LOOPS[loop](run)


class Inner:
    """A TLS server inside TLS: what an HTTPS proxy and the origin behind it are together."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context

    def __call__(self, outer: ssl.SSLSocket) -> None:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = self._context.wrap_bio(incoming, outgoing, server_side=True)
        self._drive(outer, lambda: tls.do_handshake() or b"done", incoming, outgoing)
        while data := self._drive(outer, lambda: tls.read(65536), incoming, outgoing):
            self._drive(outer, lambda data=data: tls.write(data), incoming, outgoing)

    @staticmethod
    def _drive(outer, step, incoming, outgoing):
        while True:
            try:
                result = step()
            except ssl.SSLWantReadError:
                result = None
            except ssl.SSLError:
                return b""
            if data := outgoing.read():
                outer.sendall(data)
            if result is not None:
                return result
            if data := outer.recv(65536):
                incoming.write(data)
            else:
                incoming.write_eof()


@every_loop
def test_tls_in_tls(loop, pins, leaf, impostor, genuine, rogue, trust) -> None:
    """The proxy's own leg is verified and not pinned; the origin inside it is pinned."""
    proxy = rogue.issue("127.0.0.1", "proxy.test")

    async def shake_hands(server, backend=None):
        raw = await PinnedBackend().connect_tcp("127.0.0.1", server.port)
        outer = await raw.start_tls(rogue.client_context(), "proxy.test", timeout=10)
        return await outer.start_tls(origin_context(Pinner(pins), trust), HOST, timeout=10)

    async def run() -> None:
        with tls_peer(proxy.server_context(), Inner(leaf.server_context())) as server:
            stream = await shake_hands(server)
            assert stream.accepts()
            message = bytes(range(256)) * 2000
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(stream.write, message, 10)
                assert await read_size(stream, len(message), timeout=10) == message
            assert not stream.get_extra_info("is_readable")
            await stream.write(b"xyz")
            assert await stream.read(1, timeout=10) == b"x"
            assert stream.get_extra_info("is_readable")
            assert await read_size(stream, 2, timeout=10) == b"yz"
            assert stream.get_extra_info("ssl_object").server_hostname == HOST
            assert stream.get_extra_info("pinset").outcome == "matched"
            await stream.aclose()
            with pytest.raises(httpcore.ReadError):
                await stream.read(1)
            assert stream.get_extra_info("is_readable")
            assert stream.get_extra_info("is_ended")
        with tls_peer(proxy.server_context(), Inner(impostor.server_context())) as server:
            with pytest.raises(PinMismatchError):
                await shake_hands(server)
        with tls_peer(proxy.server_context(), lambda outer: outer.recv(100)) as server:
            with pytest.raises(httpcore.ConnectError):
                await shake_hands(server)
        with tls_peer(proxy.server_context(), lambda outer: (outer.recv(100), reset(outer))) as server:
            with pytest.raises(httpcore.ConnectError):
                await shake_hands(server)

    LOOPS[loop](run)


@own_loops
def test_nothing_is_kept_by_what_failed(loop, pins, impostor, genuine) -> None:
    """A connection that failed is freed at once: no cycle waits for the garbage collector."""

    async def run() -> None:
        context = origin_context(Pinner(pins), genuine.client_context())
        with tls_peer(impostor.server_context(), echo) as server:
            raw = await PinnedBackend().connect_tcp("127.0.0.1", server.port)
            kept = weakref.ref(raw.connection)
            with suppress(httpcore.ConnectError):  # pytest.raises would keep the error, and with it all frames
                await raw.start_tls(context, HOST, timeout=10)
            with suppress(httpcore.ReadError):
                await raw.read(1)
            del raw
            await asyncio.sleep(0)
            assert kept() is None

    gc.disable()
    try:
        LOOPS[loop](run)
    finally:
        gc.enable()
