"""
Whatever a request was doing when it was given up: no socket, no task and no place in the pool is lost.
"""

from __future__ import annotations

import pytest
from stages import ONE, STAGES, WAYS, assert_clean_at

import pinset

ways = pytest.mark.parametrize("way", WAYS)
protocols = pytest.mark.parametrize("http2", [False, True], ids=["h1", "h2"])


@pytest.fixture(scope="session")
def secure(leaf):
    """The TLS of the servers, by whether they speak HTTP/2."""
    return {False: leaf.server_context(), True: leaf.server_context(alpn=("h2",))}


@pytest.fixture
def transport(pins, genuine):
    """A pinned transport with one place, when it is called."""
    return lambda **options: pinset.PinnedAsyncTransport(pins, verify=genuine.client_context(), limits=ONE, **options)


@protocols
@pytest.mark.parametrize("stage", STAGES)
@ways
def test_given_up(secure, transport, way, stage, http2):
    """On the direct road."""
    assert_clean_at(
        way,
        lambda peer: STAGES[stage](peer, secure[http2], http2),
        lambda _: transport(http2=http2),
        secure[http2],
        upload=stage == "upload",
        http2=http2,
    )


def _silent_proxy(peer):
    peer.stall()


def _proxy_that_hears(peer):
    peer.receive()
    peer.stall()


def _proxy_that_half_answers(peer):
    peer.head()
    peer.send(b"HTTP/1.1 200 Connection est")
    peer.stall()


def _socks_that_greets(peer):
    peer.receive()
    peer.send(b"\x05\x00")
    peer.stall()


def _socks_that_half_greets(peer):
    peer.receive()
    peer.send(b"\x05")
    peer.stall()


def _socks_that_half_answers(peer):
    peer.receive()
    peer.send(b"\x05\x00")
    peer.receive()
    peer.send(b"\x05\x00\x00\x01\x7f")
    peer.stall()


PROXIES = {
    "connect-silent": ("http", _silent_proxy),
    "connect-heard": ("http", _proxy_that_hears),
    "connect-half": ("http", _proxy_that_half_answers),
    "https-silent": ("https", _silent_proxy),
    "https-heard": ("https", _proxy_that_hears),
    "socks-silent": ("socks5", _silent_proxy),
    "socks-heard": ("socks5", _proxy_that_hears),
    "socks-half-greeting": ("socks5", _socks_that_half_greets),
    "socks-greeting": ("socks5", _socks_that_greets),
    "socks-half": ("socks5", _socks_that_half_answers),
}


@pytest.mark.parametrize("proxy", PROXIES)
@ways
def test_given_up_at_a_proxy(secure, transport, way, proxy):
    """The proxy itself is what stalls."""
    scheme, script = PROXIES[proxy]
    assert_clean_at(
        way,
        script,
        lambda stalled: transport(proxy=f"{scheme}://127.0.0.1:{stalled.port}"),
        secure[False],
        url=lambda _: "https://localhost:9/",
    )
