"""
Contexts that clients share: loaded once, frozen, and without a policy of their own.
"""

from __future__ import annotations

import socket
import ssl

import pytest
from conftest import BACKUP, HOST

from pinset import (
    ContextError,
    PinMismatchError,
    PinnedAsyncClient,
    PinnedAsyncTransport,
    _contexts,
    pinned_ssl_context,
)
from pinset._contexts import set_alpn, shared_context
from pinset.testing import Authority, HTTPSServer, TLSServer

OTHER = "sha256/BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBA="


@pytest.fixture(autouse=True)
def nothing_shared(monkeypatch):
    monkeypatch.setattr(_contexts, "_shared", {})


@pytest.fixture
def trusted(genuine: Authority, rogue: Authority, monkeypatch):
    """The environment's trust store."""
    with genuine.trust_file(rogue) as path:
        monkeypatch.setenv("SSL_CERT_FILE", path)
        yield path


def context_of(transport) -> ssl.SSLContext:
    return transport._pool._connector.context_for(HOST, 443).context


def test_default_trust_is_loaded_once(pins, trusted, monkeypatch) -> None:
    """Clients with the same trust and protocols share one context, whatever their policies."""
    made = []
    create = ssl.create_default_context
    monkeypatch.setattr(
        ssl, "create_default_context", lambda *args, **kwargs: made.append(1) or create(*args, **kwargs)
    )
    one, two = PinnedAsyncTransport(pins), PinnedAsyncTransport({HOST: [BACKUP, OTHER]})
    assert context_of(one) is context_of(two)
    PinnedAsyncClient(pins)
    assert len(made) == 1
    modern = PinnedAsyncTransport(pins, http2=True)
    assert context_of(modern) is not context_of(one)
    assert context_of(PinnedAsyncTransport(pins, trust_env=False)) is not context_of(one)


@pytest.mark.asyncio
async def test_each_client_has_its_own_policy(pins, trusted, leaf) -> None:
    """Two clients on one context: one is let in, the other is refused, in turn and twice."""
    with TLSServer(leaf.server_context()) as server:
        async with PinnedAsyncClient(pins) as right, PinnedAsyncClient({HOST: [BACKUP, OTHER]}) as wrong:
            assert context_of(right._transport) is context_of(wrong._transport)
            for _ in range(2):
                assert (await right.get(server.url())).status_code == 200
                with pytest.raises(PinMismatchError):
                    await wrong.get(server.url())


def test_client_certificate_is_not_shared(pins, trusted, leaf, tmp_path) -> None:
    """A context that holds a client certificate belongs to its client."""
    chain, key = leaf.write(tmp_path, "client")
    one = PinnedAsyncTransport(pins, cert=(str(chain), str(key)))
    two = PinnedAsyncTransport(pins, cert=(str(chain), str(key)))
    assert len({id(context_of(each)) for each in (one, two, PinnedAsyncTransport(pins))}) == 3


@pytest.mark.parametrize("tls", ["1.2", "1.3"])
def test_client_certificate_on_a_blocking_socket(tls) -> None:
    """On a socket OpenSSL sends our flight itself: who is refused has seen the certificate, and nothing after it."""
    with HTTPSServer(tls=tls, client_certificates=True) as server:
        context = pinned_ssl_context({HOST: [BACKUP, OTHER]}, cadata=server.authority.root_pem)
        server.client.load_into(context)
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as plain:
            with pytest.raises(PinMismatchError):
                context.wrap_socket(plain, server_hostname=HOST)
    assert server.seen.client_certificates == [server.client.chain[0]]
    assert server.seen.application_data == b""


def test_new_trust_store_is_noticed(pins, genuine, monkeypatch, tmp_path) -> None:
    """A CA file that was replaced, and another one, make another context."""
    file = tmp_path / "roots.pem"
    file.write_text(genuine.root_pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    first = context_of(PinnedAsyncTransport(pins))
    assert context_of(PinnedAsyncTransport(pins)) is first
    file.write_text(genuine.root_pem * 2)
    second = context_of(PinnedAsyncTransport(pins))
    assert second is not first
    monkeypatch.delenv("SSL_CERT_FILE")
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    assert context_of(PinnedAsyncTransport(pins)) not in (first, second)


def test_missing_trust_store(pins, monkeypatch, tmp_path) -> None:
    """A CA file that is not there is the error of whoever names it, each time."""
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "missing.pem"))
    for _ in range(2):
        with pytest.raises(FileNotFoundError):
            PinnedAsyncTransport(pins)


def test_number_of_shared_contexts_is_bounded() -> None:
    """A program that makes one trust store after another keeps eight."""
    makers = [lambda *, trust_env: ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) for _ in range(20)]
    first = shared_context(makers[0], ("http/1.1",), trust_env=False)
    assert shared_context(makers[0], ("http/1.1",), trust_env=False) is first
    for make in makers[1:]:
        shared_context(make, ("http/1.1",), trust_env=False)
    assert len(_contexts._shared) == 8
    assert shared_context(makers[0], ("http/1.1",), trust_env=False) is not first


def test_protocols_are_set_for_good() -> None:
    """One list of protocols for each context."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    set_alpn(context, ("http/1.1",))
    set_alpn(context, ("http/1.1",))
    with pytest.raises(ContextError, match="make a context for each"):
        set_alpn(context, ("http/1.1", "h2"))


def test_further_client_is_cheap(pins, trusted) -> None:
    """The second client loads no CAs: no file of them is opened."""
    PinnedAsyncClient(pins)
    opened = []
    import sys

    def audit(event: str, arguments: tuple) -> None:
        if event == "open" and opened is not None and arguments[0] == trusted:
            opened.append(arguments[0])

    sys.addaudithook(audit)
    PinnedAsyncClient(pins)
    assert opened == []
