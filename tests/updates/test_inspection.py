"""
A repository as a web server shows it, and the public face of the package.
"""

from __future__ import annotations

import asyncio
import inspect as introspection
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from publishing import Publisher, Site, now, policy

import pinset.updates
from pinset.updates import UpdateError, UpdateFault
from pinset.updates._fetch import Fetcher
from pinset.updates._inspection import _findings, inspect, is_due
from pinset.updates._trust import Want


def response(status=200, **headers):
    """An answer with headers."""
    return httpx.Response(status, headers={name.replace("_", "-"): value for name, value in headers.items()})


@pytest.mark.parametrize(
    ("absent", "timestamp", "words"),
    [
        ({}, {"cache_control": "max-age=300"}, []),
        ({"cache_control": "max-age=60"}, {"cache_control": "no-cache"}, []),
        ({}, {"cache_control": "no-store"}, []),
        ({}, {}, ["has no Cache-Control"]),
        ({}, {"cache_control": "public"}, ["has no Cache-Control"]),
        ({}, {"cache_control": "public, max-age=301"}, ["may be cached for 301 s"]),
        (
            {"cache_control": "max-age=3600"},
            {"cache_control": "max-age=1"},
            ["does not exist may be cached for 3600 s"],
        ),
    ],
)
def test_findings(absent, timestamp, words):
    """What a server should not say about its files."""
    found = list(_findings(response(404, **absent), response(**timestamp)))
    assert len(found) == len(words)
    assert all(word in text for word, text in zip(words, found, strict=True))


def test_inspect(tmp_path, leaf, genuine):
    """A look without a cache, with all that a client verifies."""
    publisher = Publisher(tmp_path / "repository", first=policy(1, 2))
    with Site(leaf, publisher) as site:
        fetcher = Fetcher(site.url, cadata=genuine.root_pem)
        seen = asyncio.run(inspect(fetcher, publisher.anchor, name="policy.json", now=now()))
        assert (seen.policy, len(seen.findings)) == (policy(1, 2), 1)
        states = {state.role: state for state in seen.verified.roles}
        assert not is_due(states["timestamp"], now(), timedelta(30))
        assert is_due(states["timestamp"], now() + timedelta(4.5), timedelta(30))
        assert not is_due(states["timestamp"], now() + timedelta(4.5), timedelta(1))
        assert not is_due(states["root"], now(), timedelta(30))
        assert is_due(states["root"], now(), timedelta(365))
        publisher.sign_nothing("metadata/timestamp.json")
        with pytest.raises(UpdateError, match="signed by 0"):
            asyncio.run(inspect(fetcher, publisher.anchor, name="policy.json", now=now()))


def test_server_that_is_not_there(tmp_path):
    """And CAs that cannot be read."""
    fetcher = Fetcher("https://localhost:1/", cafile=str(tmp_path / "none.pem"))

    async def ask(fetcher):
        async with fetcher.connected() as client:
            await fetcher.ask(client, "x")

    with pytest.raises(UpdateError, match="CAs of the control plane") as caught:
        asyncio.run(ask(fetcher))
    assert caught.value.fault is UpdateFault.NETWORK
    with pytest.raises(UpdateError, match="x cannot be fetched: ConnectError"):
        asyncio.run(ask(Fetcher("https://localhost:1/")))


def test_answers_that_are_refused(tmp_path, leaf, genuine):
    """What is packed, too long, late, or not there."""
    publisher = Publisher(tmp_path / "repository", first=policy(1, 2))

    def fetch(fetcher):
        async def run():
            async with fetcher.connected() as client:
                return await fetcher.fetch(client, want)

        with pytest.raises(UpdateError) as caught:
            asyncio.run(run())
        return caught.value.fault, str(caught.value)

    want = Want("metadata/timestamp.json", 4096)
    with Site(leaf, publisher) as site:
        fetcher = Fetcher(site.url, cadata=genuine.root_pem, read_timeout=0.2)
        site.header = b"Content-Encoding: gzip\r\n"
        fault, text = fetch(fetcher)
        assert (fault, "Content-Encoding 'gzip'" in text) == (UpdateFault.NETWORK, True)
        site.header = b""
        publisher.replace(want.path, b"x" * 4097)
        assert fetch(fetcher)[0] is UpdateFault.TOO_LARGE
        (publisher.directory / want.path).unlink()
        fault, text = fetch(fetcher)
        assert (fault, "answered 404" in text) == (UpdateFault.NETWORK, True)
        site.gate.clear()
        fault, text = fetch(fetcher)
        assert (fault, "ReadTimeout" in text) == (UpdateFault.SLOW, True)
    assert fetch(fetcher)[0] is UpdateFault.NETWORK


@pytest.mark.parametrize("name", pinset.updates.__all__)
def test_is_documented(name):
    """Every public name has a docstring, its methods too, and a place in the reference."""
    thing = getattr(pinset.updates, name)
    assert introspection.getdoc(thing)
    reference = (Path(__file__).parents[2] / "docs/reference/updates.md").read_text()
    assert f"pinset.updates.{name}\n" in reference
    for method, value in vars(thing).items():
        if not method.startswith("_") and (introspection.isfunction(value) or isinstance(value, property)):
            assert introspection.getdoc(value), f"{name}.{method}"


def test_all_is_sorted():
    """And nothing is twice there."""
    assert pinset.updates.__all__ == sorted(set(pinset.updates.__all__))


@pytest.mark.parametrize("code", ["import pinset.updates", "from pinset.cli._repo import need_updates; need_updates()"])
def test_missing_extra(code):
    """Without tuf the error names the extra; and pinset itself does without."""
    code = f"import sys; sys.modules['tuf'] = None\nimport pinset\n{code}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "pip install 'pinset[updates]'" in done.stderr.splitlines()[-1]


def test_command_line_without_the_extra():
    """The other commands do without it, and those that need it say so."""
    code = (
        "import sys; sys.modules['tuf'] = None; sys.argv = ['pinset', 'repo', 'status', 'x']\n"
        "from pinset.cli import main, make_app; make_app(); main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (2, "signed updates need an extra: pip install 'pinset[updates]'\n")


def test_importing_pinset_does_not_load_tuf():
    """Only who uses updates pays for them."""
    code = "import sys, pinset; print(*(m for m in ('tuf', 'securesystemslib', 'pinset.updates') if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == ""
