"""
Threads that share a client over HTTP/2: with stock httpx they are given each other's responses.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import httpx
import httpx2
import pytest
from leftovers import counts, untidy

import pinset.httpx
import pinset.httpx2

pytestmark = pytest.mark.integration


@pytest.fixture
def server(lab, nginx, tmp_path):
    """An nginx that answers with the path."""
    chain, key = lab.origins["ec", "TLSv1.3", "genuine"].identity.write(tmp_path, "threads")
    with nginx(f"""
server {{
    listen PORT0 ssl http2;
    ssl_certificate {chain};
    ssl_certificate_key {key};
    location / {{ return 200 "$request_uri"; }}
}}""") as running:
        yield running


@pytest.fixture
def _frequent_switches():
    """Threads take turns as often as on a busy machine."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def wrong(client, server, total):
    """How many of *total* requests by ten threads fail, or get the response to another."""

    def get(number):
        try:
            return client.get(server.url(f"/{number}")).text != f"/{number}"
        except Exception:  # noqa: BLE001 - stock clients raise whatever h2 comes across
            return True

    with client, ThreadPoolExecutor(10) as pool:
        return sum(pool.map(get, range(total)))


@pytest.mark.usefixtures("_frequent_switches")
@pytest.mark.parametrize(
    ("library", "pinned"),
    [
        pytest.param(httpx, pinset.httpx.PinnedClient, id="httpx"),
        pytest.param(httpx2, pinset.httpx2.PinnedClient, id="httpx2"),
    ],
)
def test_every_thread_gets_its_own_response(lab, server, library, pinned):
    """Stock: many are wrong. Ours: none."""
    with untidy():
        assert wrong(library.Client(verify=lab.context(), http2=True, timeout=5), server, 300) > 0
    pins = lab.pins(lab.origins["ec", "TLSv1.3", "genuine"])
    client = pinned(pins, verify=lab.context(), http2=True, timeout=60)
    assert wrong(client, server, 1_000) == 0
    assert counts(client._transport) == (0, 0, 0, 0)
