"""
The lines of docs/howto/from-fingerprints.md, before and after: what each accepts, and what it refuses.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
from pathlib import Path

import pytest
from recipes import need, refusal

from pinset import PinMismatchError, PinSet
from pinset.testing import HTTPSServer

need("aiohttp", "urllib3", "requests", "elasticsearch")

pytestmark = pytest.mark.integration

PAGE = Path(__file__).parents[3] / "docs" / "howto" / "from-fingerprints.md"
PYTHON = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
BODY = b'{"name": "a", "version": {"number": "9.0.0"}}'
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Elastic-Product: Elasticsearch\r\nContent-Length: %d\r\n\r\n"


def _by_requests(scope, url):
    with scope["session"] as session:
        return session.get(url, timeout=20).text


def _by_urllib3(manager, url):
    try:
        return manager.request("GET", url, timeout=20).data.decode()
    finally:
        manager.clear()


def _by_elasticsearch(client):
    with client:
        return str(client.options(max_retries=0).info())


BEFORE = {
    "aiohttp": lambda scope, url: asyncio.run(scope["fetch_by_fingerprint"](url)),
    "urllib3": lambda scope, url: _by_urllib3(scope["before"], url),
    "requests": _by_requests,
    "elasticsearch": lambda scope, url: _by_elasticsearch(scope["connect_by_fingerprint"](url)),
}
AFTER = {
    "aiohttp": lambda scope, url: asyncio.run(scope["fetch"](url)),
    "urllib3": lambda scope, url: _by_urllib3(scope["after"], url),
    "elasticsearch": lambda scope, url: _by_elasticsearch(scope["connect"](url)),
}
before = pytest.mark.parametrize("ask", BEFORE.values(), ids=BEFORE)
after = pytest.mark.parametrize("ask", AFTER.values(), ids=AFTER)


@pytest.fixture
def server(genuine, _trust, monkeypatch):
    """A server that answers what each of the libraries wants to hear."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", _trust)
    # In the place of certifi's, which elasticsearch adds to any context.
    monkeypatch.setattr("elastic_transport._node._http_urllib3.DEFAULT_CA_CERTS", _trust)
    Path("http_ca.crt").write_text(genuine.root_pem)
    with HTTPSServer("localhost", authority=genuine, respond=lambda _: HEAD % len(BODY) + BODY) as running:
        yield running


def lines(server):
    """What the page defines, with our server in the place of theirs."""
    code = "\n".join(PYTHON.findall(PAGE.read_text(encoding="utf-8")))
    [fingerprint] = set(re.findall(r'"([0-9a-f]{64})"', code))
    first, second = dict.fromkeys(re.findall(r"sha256/[^\"]{44}", code))
    replacements = {
        fingerprint: hashlib.sha256(server.in_service.chain[0]).hexdigest(),
        first: server.in_service.pin,
        second: server.backup.pin,
        "api.example.com": "localhost",
    }
    for old, new in replacements.items():
        code = code.replace(old, new)
    scope: dict[str, object] = {}
    exec(compile(code, PAGE.name, "exec"), scope)
    return scope


@pytest.mark.parametrize("ask", [*BEFORE.values(), *AFTER.values()], ids=[*BEFORE, *(f"{k}-after" for k in AFTER)])
def test_genuine_server(ask, server):
    """Everything gets on with the genuine server."""
    assert "9.0.0" in ask(lines(server), server.url())


@before
def test_fingerprint_refuses_an_impostor(ask, server, rogue):
    """That is what a fingerprint is good for."""
    scope = lines(server)
    server.show(rogue.issue("localhost"))
    with refused("fingerprint"):
        ask(scope, server.url())


@contextlib.contextmanager
def refused(why):
    """Whatever the library raises says *why*, somewhere."""
    with pytest.raises(Exception) as caught:
        yield caught
    assert why in told(caught.value).lower(), told(caught.value)


def told(error):
    """What an error says; elasticsearch has those of its node in a list."""
    return " ".join([repr(error), str(error), *map(told, getattr(error, "errors", ()))])


@after
def test_pins_refuse_an_impostor(ask, server, rogue):
    """So are pins, and no request is sent."""
    scope = lines(server)
    server.show(rogue.issue("localhost"))
    with refused("does not hold a pinned key") as caught:
        ask(scope, server.url())
    assert isinstance(found(caught.value), PinMismatchError)
    assert server.seen.requests == []


def found(error):
    """The refusal behind an error."""
    inner = (found(each) for each in getattr(error, "errors", ()))
    return refusal(error) or next(filter(None, inner), None)


def test_renewal(server, genuine):
    """A certificate that is renewed with the same key breaks every fingerprint, and no pin."""
    scope = lines(server)
    server.show(genuine.issue("localhost", key=server.in_service.key))
    for ask in BEFORE.values():
        with refused("fingerprint"):
            ask(scope, server.url())
    for ask in AFTER.values():
        assert "9.0.0" in ask(scope, server.url())


# The table of the page: what is verified beside the fingerprint.
IGNORES = {
    "aiohttp": {"expiry", "name", "authority"},
    "urllib3": {"name"},
    "requests": {"name"},
    "elasticsearch": {"expiry", "name", "authority"},
}


@pytest.mark.parametrize("library", BEFORE)
@pytest.mark.parametrize("what", ["expiry", "name", "authority"])
def test_what_fingerprints_do_not_verify(library, what, server, genuine):
    """With its fingerprint, a certificate that is expired, names another host or comes from nowhere."""
    from pinset.testing import Authority

    identities = {
        "expiry": lambda: genuine.issue("localhost", expired=True),
        "name": lambda: genuine.issue("other.test"),
        "authority": lambda: Authority("Unknown").issue("localhost"),
    }
    server.in_service = identities[what]()
    server.show(server.in_service)
    scope = lines(server)
    if what in IGNORES[library]:
        assert "9.0.0" in BEFORE[library](scope, server.url())
    else:
        with refused("certificate verify failed"):
            BEFORE[library](scope, server.url())
    for ask in AFTER.values():
        with refused("certificate verify failed"):
            ask(scope, server.url())
    assert len(server.seen.requests) == (what in IGNORES[library])


def test_bridge(server):
    """The bridge of the page is the fingerprint as a policy of certificates."""
    [rule] = lines(server)["bridge"].pin_sets
    assert isinstance(rule, PinSet)
    assert [pin.digest for pin in rule.certificate_pins] == [hashlib.sha256(server.in_service.chain[0]).digest()]
