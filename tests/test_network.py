"""
The network backend: Unix sockets, broken records, retries, and a policy that changes under way.
"""

from __future__ import annotations

import os
import socket
import ssl
import threading
from contextlib import contextmanager, suppress

import httpx
import pytest
from conftest import BACKUP, HOST

from pinset import ContextError, PinMismatchError, PinnedAsyncClient, PinnedAsyncTransport, Pinner
from pinset.testing import TLSServer

OTHER = "sha256/BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBA="


@pytest.fixture
def trust(genuine, rogue) -> ssl.SSLContext:
    """A client context that trusts both authorities."""
    return genuine.client_context(rogue)


@contextmanager
def unix_server(path: str, context: ssl.SSLContext):
    """An HTTPS server for one connection on a Unix socket; what it received."""
    received: list[bytes] = []

    def serve() -> None:
        with suppress(OSError):
            connection, _ = listener.accept()
            with connection, context.wrap_socket(connection, server_side=True) as tls:
                received.append(tls.recv(65536))
                tls.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                tls.recv(1)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        listener.settimeout(5)
        thread = threading.Thread(target=serve)
        thread.start()
        yield received
        thread.join(10)


@pytest.mark.asyncio
async def test_unix_socket(pins, leaf, impostor, trust, tmp_path) -> None:
    """TLS over a Unix socket is pinned like any other."""
    good, bad = str(tmp_path / "good"), str(tmp_path / "bad")
    with unix_server(good, leaf.server_context()) as received:
        async with httpx.AsyncClient(transport=PinnedAsyncTransport(pins, verify=trust, uds=good)) as client:
            assert (await client.get(f"https://{HOST}/")).status_code == 200
    assert received[0].startswith(b"GET / ")
    with unix_server(bad, impostor.server_context()) as received:
        async with httpx.AsyncClient(transport=PinnedAsyncTransport(pins, verify=trust, uds=bad)) as client:
            with pytest.raises(PinMismatchError):
                await client.get(f"https://{HOST}/")
    assert received == []


@pytest.mark.asyncio
async def test_retries_of_connecting_still_work(pins, trust) -> None:
    """``retries`` repeats what may be repeated: a connection that was never made."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    attempts: list[str] = []

    async def trace(name: str, info: object) -> None:
        attempts.append(name)

    async with httpx.AsyncClient(transport=PinnedAsyncTransport(pins, verify=trust, retries=1)) as client:
        with pytest.raises(httpx.ConnectError):
            await client.get(f"https://127.0.0.1:{port}/".replace("127.0.0.1", HOST), extensions={"trace": trace})
    assert attempts.count("connection.connect_tcp.started") == 2


@pytest.mark.asyncio
async def test_a_record_that_does_not_decrypt(pins, leaf, trust) -> None:
    """Bytes injected behind the handshake are a ReadError, not data."""

    class Injecting(TLSServer):
        def _receive_head(self, tls):
            if super()._receive_head(tls):
                os.write(tls.fileno(), b"\x17\x03\x03\x00\x20" + bytes(32))
                tls.recv(1)
            return b""

    with Injecting(leaf.server_context()) as server:
        async with PinnedAsyncClient(pins, verify=trust) as client:
            with pytest.raises(httpx.ReadError):
                await client.get(server.url())


@pytest.mark.asyncio
async def test_policy_replaced_while_a_request_is_written(pins, leaf, trust) -> None:
    """A request under way finishes; its connection takes no other."""
    pinner = Pinner(pins)

    async def body():
        yield b"first"
        pinner.replace({HOST: [BACKUP, OTHER]})
        yield b"second"

    with TLSServer(leaf.server_context()) as server:
        async with PinnedAsyncClient(pinner, verify=trust) as client:
            async with client.stream("POST", server.url(), content=body()) as response:
                assert response.status_code == 200
                stream = response.extensions["network_stream"]
                assert not stream.accepts()
                assert stream.get_extra_info("pinset").decision == "refuse"
    assert b"second" in server.seen.application_data


@pytest.mark.asyncio
async def test_stream_of_its_own(pins, leaf, trust) -> None:
    """The stream under a response offers what httpcore's does, and the verdict."""
    with TLSServer(leaf.server_context()) as server:
        async with PinnedAsyncClient(pins, verify=trust) as client:
            response = await client.get(server.url())
            stream = response.extensions["network_stream"]
            assert stream.get_extra_info("server_addr")[1] == server.port
            assert stream.get_extra_info("ssl_object").version() == "TLSv1.3"
            assert stream.get_extra_info("socket").fileno() > 0
            assert stream.get_extra_info("client_addr")[0] == "127.0.0.1"
            assert stream.get_extra_info("unheard-of") is None
            assert not stream.get_extra_info("is_readable")
            assert stream.get_extra_info("pinset") is response.extensions["pinset"]
            await stream.write(b"")


@pytest.mark.asyncio
async def test_wss_is_tls(pins, leaf, trust) -> None:
    """``wss://`` goes through the same handshake as ``https://``."""
    with TLSServer(leaf.server_context()) as server:
        async with httpx.AsyncClient(transport=PinnedAsyncTransport(pins, verify=trust)) as client:
            response = await client.get(f"wss://{HOST}:{server.port}/socket")
    assert response.extensions["pinset"].outcome == "matched"
    assert server.seen.requests[0].startswith(b"GET /socket ")


@pytest.mark.asyncio
async def test_context_that_loses_our_class_later(pins, impostor, trust) -> None:
    """A caller who takes our class off the context again gets an error, not a connection without pins."""
    with TLSServer(impostor.server_context()) as server:
        async with PinnedAsyncClient(pins, verify=trust) as client:
            trust.sslobject_class = ssl.SSLObject
            with pytest.raises(ContextError, match="no longer yields"):
                await client.get(server.url())
    assert server.seen.application_data == b""


def test_client_shows_its_pinner(pins) -> None:
    """The pinner of a client can be taken from it, to replace the policy."""
    pinner = Pinner(pins)
    assert PinnedAsyncClient(pinner).pinner is pinner
