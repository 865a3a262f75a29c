"""
The pytest plugin, in projects of their own: its fixtures do what a user wants, and it disturbs nobody.
"""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import pytest
from kit.projects import run_pytest

import pytest_pinset

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def project(tmp_path):
    """Run pytest on the text of a test module, in a project that knows nothing of ours."""
    return lambda text, *options: run_pytest(tmp_path, text, *options)


def test_fixtures(project):
    """An app that is intercepted is seen to fail, and its pinned version to hold, in process and as a subprocess."""
    output = project("""
        import asyncio

        def fetch(url, pins=None):
            async def get():
                client = PinnedAsyncClient(pins) if pins else httpx.AsyncClient()
                async with client:
                    return (await client.get(url)).status_code
            return asyncio.run(get())

        def test_unpinned_is_read(pinset_server, pinset_intercepted):
            assert fetch(pinset_server.url()) == 200
            pinset_intercepted.assert_accepted("localhost")

        def test_pinned_refuses(pinset_server, pinset_intercepted):
            with pytest.raises(PinMismatchError):
                fetch(pinset_server.url(), pinset_server.pins)
            pinset_intercepted.assert_refused("localhost", knows_authority=True)
            assert pinset_server.seen.requests == []

        def test_subprocess(pinset_server, pinset_environment, pinset_interceptor):
            code = "import sys, urllib.request; urllib.request.urlopen(sys.argv[1])"
            subprocess.run([sys.executable, "-c", code, pinset_server.url()], env=pinset_environment, check=True)
            pinset_interceptor.assert_accepted("localhost")

        def test_make(pinset_make_server, pinset_trust, pinset_observer, pinset_clock):
            first = pinset_make_server(http2=True)
            second = pinset_make_server("127.0.0.1", key="rsa", tls="1.2")
            assert first.authority is not second.authority
            pinner = Pinner(first.pins, observers=[pinset_observer], clock=pinset_clock)
            async def get():
                trust = ssl.create_default_context(cafile=pinset_trust)
                async with PinnedAsyncClient(pinner, verify=trust, trust_env=False, http2=True) as client:
                    return await client.get(first.url())
            assert asyncio.run(get()).http_version == "HTTP/2"
            assert pinset_observer.outcomes("localhost") == ["matched"]
    """)
    assert "4 passed" in output, output


def test_how_to(project, tmp_path):
    """The tests of the how-to are tests, and pass."""
    page = (ROOT / "docs" / "howto" / "test-your-app.md").read_text()
    app = tmp_path / "my-app"
    app.write_text(
        f"#!{sys.executable}\n"
        + textwrap.dedent("""
        import asyncio, sys, httpx, pinset
        pins = {"localhost": [f"sha256/{letter * 42}A=" for letter in "AB"]}
        async def main():
            stock = "--no-pins" in sys.argv
            async with httpx.AsyncClient() if stock else pinset.PinnedAsyncClient(pins) as client:
                await client.get(sys.argv[-1])
        asyncio.run(main())
    """)
    )
    app.chmod(0o755)
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    backend = "@pytest.fixture\ndef anyio_backend():\n    return 'asyncio'\n"
    output = project("".join([*blocks, backend]), "-p", "anyio.pytest_plugin")
    assert "10 passed" in output, output


def test_a_test_that_proves_nothing_fails(project):
    """An app that never came, or does not know the authority, is no app that refused."""
    output = project("""
        def test_did_not_come(pinset_intercepted):
            pinset_intercepted.assert_refused("localhost")

        def test_does_not_know_the_authority(pinset_server, pinset_interceptor):
            with pytest.raises(httpx.ConnectError):
                httpx.get(pinset_server.url(), proxy=pinset_interceptor.url, trust_env=False)
            pinset_interceptor.assert_refused("localhost")
    """)
    assert "2 failed" in output, output
    assert "saw nobody come" in output
    assert "saw untrusted" in output


def test_who_only_has_it_installed(project):
    """Nothing of pinset is imported, no option and no marker is added."""
    output = project("""
        import importlib

        def test_nothing_happened(pytestconfig, request):
            plugin = pytestconfig.pluginmanager.get_plugin("pytest_pinset")
            public = {name for name in vars(plugin) if name.startswith("pytest_")}
            assert public == set()
            assert not any(line.startswith("pinset") for line in pytestconfig.getini("markers"))
    """)
    assert "1 passed" in output, output
    code = "import pytest_pinset, sys; sys.exit(any(name.split('.')[0] == 'pinset' for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


def test_every_fixture_says_what_it_is(project):
    """``pytest --fixtures`` explains each, and each bears our name."""
    output = project("", "--fixtures")
    names = {line.split()[0] for line in output.splitlines() if line.startswith("pinset_")}
    assert names == {name for name in vars(pytest_pinset) if name.startswith("pinset_")}
    assert len(names) == 12
    assert "no docstring available" not in output.partition("defined from pytest_pinset")[2]


def test_entry_point():
    """pytest finds the plugin under the name of its module, so that ``-p pytest_pinset`` is the same one."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {"pytest_pinset": "pytest_pinset"}
