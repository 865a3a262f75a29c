"""
A context on which pins could not be enforced: refused with the reason when it is given, and again at the handshake.

For every client, and for the bare context in asyncio and on a blocking socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl

import pytest
import truststore
from conftest import HOST

import pinset.httpx
import pinset.httpx2
from pinset import ContextError, UnverifiedChainError, pinned_ssl_context
from pinset.testing import TLSServer

CLIENTS = {
    "httpx": pinset.httpx.PinnedAsyncClient,
    "httpx-blocking": pinset.httpx.PinnedClient,
    "httpx2": pinset.httpx2.PinnedAsyncClient,
    "httpx2-blocking": pinset.httpx2.PinnedClient,
}
TRANSPORTS = {
    "httpx-transport": pinset.httpx.PinnedAsyncTransport,
    "httpx-blocking-transport": pinset.httpx.PinnedTransport,
    "httpx2-transport": pinset.httpx2.PinnedAsyncTransport,
    "httpx2-blocking-transport": pinset.httpx2.PinnedTransport,
}


class IgnoresObjects(ssl.SSLContext):
    """It makes TLS objects of its own."""

    def wrap_bio(self, incoming, outgoing, server_side=False, server_hostname=None, session=None):
        return ssl.SSLObject._create(
            incoming, outgoing, server_hostname=self._encode_hostname(server_hostname), context=self
        )


class IgnoresSockets(ssl.SSLContext):
    """It makes TLS sockets of its own."""

    def wrap_socket(self, sock, *args, **kwargs):
        return ssl.SSLSocket._create(sock, context=self, server_hostname=kwargs["server_hostname"])


def _without_names() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    return context


def _unverified(mode: ssl.VerifyMode) -> ssl.SSLContext:
    context = _without_names()
    context.verify_mode = mode
    return context


UNFIT = {
    "truststore": (
        lambda: truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
        r"SSLContext ignores the class of TLS objects",
    ),
    "subclass-objects": (lambda: IgnoresObjects(ssl.PROTOCOL_TLS_CLIENT), "IgnoresObjects ignores the class"),
    "subclass-sockets": (lambda: IgnoresSockets(ssl.PROTOCOL_TLS_CLIENT), "IgnoresSockets ignores the class"),
    "names": (_without_names, "does not verify host names"),
    "optional": (lambda: _unverified(ssl.CERT_OPTIONAL), "does not verify certificates"),
    "none": (lambda: _unverified(ssl.CERT_NONE), "does not verify certificates"),
}


@pytest.mark.parametrize("make", [*CLIENTS.values(), *TRANSPORTS.values()], ids=[*CLIENTS, *TRANSPORTS])
@pytest.mark.parametrize(("context", "reason"), UNFIT.values(), ids=UNFIT)
def test_refused_when_given(make, context, reason, pins) -> None:
    """Nothing is made of a context that could not enforce, and the error says why."""
    with pytest.raises(ContextError, match=reason):
        make(pins, verify=context())


@pytest.mark.parametrize(
    "make", [pinned_ssl_context, *CLIENTS.values(), *TRANSPORTS.values()], ids=["bare", *CLIENTS, *TRANSPORTS]
)
def test_refused_after_truststore_was_injected(make, pins, monkeypatch, genuine) -> None:
    """With ``truststore.inject_into_ssl`` every default context is one of truststore's, and the error says so."""
    with genuine.trust_file() as path:
        monkeypatch.setenv("SSL_CERT_FILE", path)  # so that no context of an earlier test is at hand
        truststore.inject_into_ssl()
        try:
            with pytest.raises(ContextError, match="ignores the class of TLS objects"):
                make(pins)
        finally:
            truststore.extract_from_ssl()


def _lower_names(context) -> None:
    context.check_hostname = False


def _lower_verification(context) -> None:
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE


LOWERED = pytest.mark.parametrize(
    ("lower", "reason"),
    [
        pytest.param(_lower_names, "check_hostname of the context was switched off", id="names"),
        pytest.param(_lower_verification, "verify_mode of the context was lowered", id="verification"),
    ],
)


async def _get(client, url) -> int:
    """One request of any client, which is closed after it."""
    async with contextlib.AsyncExitStack() as stack:
        if hasattr(client, "aclose"):
            return (await (await stack.enter_async_context(client)).get(url)).status_code
        return (await asyncio.to_thread(stack.enter_context(client).get, url)).status_code


@pytest.mark.asyncio
@LOWERED
@pytest.mark.parametrize("make", CLIENTS.values(), ids=CLIENTS)
async def test_client_refuses_at_the_handshake(make, lower, reason, pins, leaf, genuine) -> None:
    """A context that was weakened after the client was made: refused, also on a server that holds the pinned key."""
    context = genuine.client_context()
    with TLSServer(leaf.server_context()) as server:
        assert await _get(make(pins, verify=context), server.url()) == 200
        client = make(pins, verify=context)
        lower(context)
        seen = server.seen.application_data
        with pytest.raises(UnverifiedChainError, match=reason):
            await _get(client, server.url())
    assert server.seen.application_data == seen


@pytest.mark.asyncio
@pytest.mark.parametrize("make", CLIENTS.values(), ids=CLIENTS)
async def test_client_refuses_objects_of_another_class(make, pins, impostor, genuine, rogue) -> None:
    """A context whose class of TLS objects was set back after the client was made would not be pinned: refused."""
    context = genuine.client_context(rogue)
    client = make(pins, verify=context)
    context.sslobject_class, context.sslsocket_class = ssl.SSLObject, ssl.SSLSocket
    with TLSServer(impostor.server_context()) as server:
        with pytest.raises(ContextError, match="changed after the client was made"):
            await _get(client, server.url())
    assert server.seen.application_data == b""


async def _by_streams(context, port) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=HOST)
    writer.write(b"GET / HTTP/1.1\r\n\r\n")
    try:
        return await reader.read(15)
    finally:
        writer.close()


async def _by_socket(context, port) -> bytes:
    def talk() -> bytes:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
            context.wrap_socket(plain, server_hostname=HOST) as tls,
        ):
            tls.sendall(b"GET / HTTP/1.1\r\n\r\n")
            return tls.recv(15)

    return await asyncio.to_thread(talk)


@pytest.mark.asyncio
@LOWERED
@pytest.mark.parametrize("talk", [_by_streams, _by_socket], ids=["asyncio", "blocking"])
async def test_bare_context_refuses_at_the_handshake(talk, lower, reason, pins, leaf, genuine) -> None:
    """A bare context that was weakened after it was made: refused, also on a server that holds the pinned key."""
    context = pinned_ssl_context(pins, cadata=genuine.root_pem)
    with TLSServer(leaf.server_context()) as server:
        assert await talk(context, server.port) == b"HTTP/1.1 200 OK"
        lower(context)
        seen = server.seen.application_data
        with pytest.raises(ssl.SSLCertVerificationError, match=reason) as caught:
            await talk(context, server.port)
    assert isinstance(caught.value, UnverifiedChainError)
    assert server.seen.application_data == seen
