"""
``pinset intercept`` on programs that nobody here wrote: each is reported rightly, and mitmproxy says the same.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import subprocess

import httpx
import pytest
from cli.transcripts import pinset
from integration.programs import PROGRAMS
from kit.projects import run_pytest

from pinset import PinSet, Policy
from pinset.formats import write_toml
from pinset.testing import proxied_environment, trusting_environment

pytestmark = pytest.mark.integration


@pytest.fixture
def require_module():
    """Skips the test without a module, or fails where all are required."""

    def require(name):
        if importlib.util.find_spec(name) is None:
            if os.environ.get("PINSET_REQUIRE_INTEGRATION") == "1":
                pytest.fail(f"{name} is not installed, and PINSET_REQUIRE_INTEGRATION=1 requires it")
            pytest.skip(f"{name} is not installed")

    return require


@pytest.fixture
def origin(lab):
    return lab.origins["ec", "TLSv1.3", "genuine"]


@pytest.fixture
def command(request, tmp_path, require_program, require_module, origin, lab):
    """The command of a program for a path of its own, and the path."""
    program = request.param
    if program.module:
        require_module(program.module)
    path = lab.path(program.name)
    control = program.command(tmp_path, require_program, origin.url(lab.path("control")), origin.identity, pinned=False)
    return program.command(tmp_path, require_program, origin.url(path), origin.identity), path, control


@pytest.fixture
def roots(lab, tmp_path):
    path = tmp_path / "roots.pem"
    path.write_text(lab.cadata())
    return path


def _run(command, proxy, trust):
    """Run *command* behind *proxy*, with *trust*; all it printed."""
    environment = proxied_environment(proxy, trust)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    return done.stdout + done.stderr


def _was_reached(origin, lab, path):
    """Whether a request below *path* came to nginx before one that we send now."""
    mark = lab.path("mark")
    httpx.get(origin.url(mark), verify=lab.context(), trust_env=False)
    origin.request(mark)
    return path in origin.access.text()


@pytest.mark.parametrize("command", [pytest.param(p, id=p.name) for p in PROGRAMS], indirect=True)
def test_behind_our_interceptor(request, command, origin, lab, roots, tmp_path):
    """Without pins a program is found to accept, with pins to refuse; the server's log agrees."""
    program = next(p for p in PROGRAMS if p.name == request.node.callspec.id)
    arguments, path, control = command
    policy = tmp_path / "pins.toml"
    policy.write_text(write_toml(Policy((PinSet(name="localhost", pins=lab.pins(origin)["localhost"]),))))
    history = tmp_path / "history.jsonl"
    controlled = ["--control", shlex.join(map(str, control))] if program.is_pinned else []
    said = pinset(
        "intercept", *controlled, "--policy", policy, "--ca-file", roots, "--record", history, "--timeout", "30", "--json", "--",
        *arguments,
    )  # fmt: skip
    [host] = json.loads(said.out)["hosts"]
    expected = ("refused", "holds", 0) if program.is_pinned else ("accepted", "fails", 1)
    assert (host["result"], host["meaning"], said.status) == expected, said.out + said.err
    assert (host["host"], host["port"], host["rule"]) == ("localhost", origin.port, "localhost")
    assert (host["sent"] == 0) is program.is_pinned
    assert _was_reached(origin, lab, path) is not program.is_pinned
    assert json.loads(history.read_text()) == host


@pytest.mark.parametrize("command", [pytest.param(p, id=p.name) for p in PROGRAMS if not p.is_pinned], indirect=True)
def test_who_does_not_know_the_authority(command, roots):
    """A program that trusts the genuine authority alone has no pins, refuses, and is not praised for it."""
    arguments, _, _ = command
    trust = [f"{name}={roots}" for name in trusting_environment(roots)]
    said = pinset("intercept", "--ca-file", roots, "--timeout", "30", "--json", "--", "env", *trust, *arguments)
    [host] = json.loads(said.out)["hosts"]
    assert (said.status, host["meaning"], host["sent"]) == (3, "unproven", 0), said.out
    assert host["result"] in {"untrusted", "left"}


@pytest.mark.parametrize("command", [pytest.param(p, id=p.name) for p in PROGRAMS], indirect=True)
def test_behind_mitmproxy(request, command, origin, lab, mitmproxy, tmp_path):
    """The same programs, the same verdicts: what mitmproxy was let pass on is what ours was."""
    program = next(p for p in PROGRAMS if p.name == request.node.callspec.id)
    arguments, path, _ = command
    trust = tmp_path / "trust.pem"
    trust.write_text(mitmproxy["authority"].root_pem)
    printed = _run(arguments, mitmproxy["connect"], trust)
    assert _was_reached(origin, lab, path) is not program.is_pinned, printed


@pytest.mark.parametrize("command", [pytest.param(p, id=p.name) for p in PROGRAMS if p.is_pinned], indirect=True)
def test_behind_an_honest_proxy(command, origin, lab, tinyproxy, roots):
    """The pins are right: nobody impersonates the server, and every pinned program gets to it."""
    arguments, path, _ = command
    printed = _run(arguments, tinyproxy.url, roots)
    assert _was_reached(origin, lab, path), printed


def test_fixtures_in_a_project_with_requests_and_aiohttp(tmp_path, require_module):
    """Apps of other stacks, in one process with the fixtures: read without pins, and refusing with them."""
    require_module("requests")
    require_module("aiohttp")
    output = run_pytest(
        tmp_path,
        """
        import asyncio, aiohttp, requests
        from requests.adapters import HTTPAdapter

        class Pinned(HTTPAdapter):
            def __init__(self, pins):
                self._pins = pins
                super().__init__(max_retries=0)

            def proxy_manager_for(self, proxy, **options):
                context = pinned_ssl_context(self._pins)
                return super().proxy_manager_for(proxy, ssl_context=context, **options)

        @pytest.mark.parametrize("pinned", [False, True])
        def test_requests(pinset_server, pinset_intercepted, pinned):
            with requests.Session() as session:
                if pinned:
                    session.mount("https://", Pinned(pinset_server.pins))
                    with pytest.raises(requests.exceptions.SSLError):
                        session.get(pinset_server.url())
                    pinset_intercepted.assert_refused("localhost", knows_authority=True)
                else:
                    assert session.get(pinset_server.url()).status_code == 200
                    pinset_intercepted.assert_accepted("localhost")

        @pytest.mark.parametrize("pinned", [False, True])
        def test_aiohttp(pinset_server, pinset_intercepted, pinset_trust, pinned):
            trust = ssl.create_default_context(cafile=pinset_trust)
            context = pinned_ssl_context(pinset_server.pins, cafile=str(pinset_trust)) if pinned else trust

            async def get():
                async with aiohttp.ClientSession(trust_env=True) as session:
                    async with session.get(pinset_server.url(), ssl=context) as response:
                        return response.status

            if pinned:
                with pytest.raises(aiohttp.ClientError):
                    asyncio.run(get())
                pinset_intercepted.assert_refused("localhost", knows_authority=True)
            else:
                assert asyncio.run(get()) == 200
                pinset_intercepted.assert_accepted("localhost")
        """,
    )
    assert "4 passed" in output, output
