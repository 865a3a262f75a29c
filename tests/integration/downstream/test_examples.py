"""
The service and the SDK among the examples, with a right key and a wrong one.
"""

from __future__ import annotations

import contextlib
import os
import sys

import httpx
import pytest
from conftest import BACKUP
from examples import EXAMPLES, answer, run, write_pins
from recipes import need

from pinset.testing import TLSServer

need("starlette", "uvicorn", "httpx2", "openai")

pytestmark = pytest.mark.integration


@pytest.fixture
def policy(tmp_path, leaf):
    return write_pins(tmp_path / "pins.toml", leaf.pin, BACKUP)


@pytest.fixture
def start(run_program, tmp_path, monkeypatch, policy):
    """Starts the service for an upstream; its URL and its log."""

    @contextlib.contextmanager
    def start(upstream):
        monkeypatch.setenv("UPSTREAM", upstream)
        monkeypatch.setenv("PINS", str(policy))
        uvicorn = [sys.executable, "-m", "uvicorn", "--app-dir", str(EXAMPLES), "service:app", "--port"]
        with run_program(tmp_path, 1, lambda ports: [*uvicorn, str(ports[0])]) as ((port,), log):
            yield f"http://127.0.0.1:{port}", log

    return start


def test_service(start, leaf):
    """What the upstream says is passed on, over one connection for all requests."""
    with TLSServer(leaf.server_context(), respond=answer) as upstream, start(upstream.url().rstrip("/")) as (url, _):
        answers = [httpx.get(f"{url}/users/ada") for _ in range(3)]
        assert [(each.status_code, each.json()) for each in answers] == [(200, {"name": "Ada"})] * 3
        assert httpx.get(f"{url}/users/nobody").status_code == 404
        assert httpx.get(f"{url}/checks").json() == [["localhost", "matched", "allow", 1]]
        assert upstream.seen.connections == 1


def test_service_with_an_impostor_as_upstream(start, impostor):
    """502 for each request, none of which reaches the impostor; why is in the log, once."""
    with TLSServer(impostor.server_context(), respond=answer) as upstream:
        with start(upstream.url().rstrip("/")) as (url, log):
            answers = [httpx.get(f"{url}/users/ada") for _ in range(2)]
            checked = httpx.get(f"{url}/checks").json()
        assert upstream.seen.application_data == b""
    error = {"error": "the upstream is not the one we know"}
    assert [(each.status_code, each.json()) for each in answers] == [(502, error)] * 2
    assert checked == [["localhost", "mismatched", "refuse", 2]]
    assert log.read_text().count("refused: localhost does not hold a pinned key") == 1


def test_service_without_an_upstream(start, leaf):
    """504 when nobody is there."""
    with TLSServer(leaf.server_context()) as upstream:
        gone = upstream.url().rstrip("/")
    with start(gone) as (url, _):
        answered = httpx.get(f"{url}/users/ada")
    assert (answered.status_code, answered.json()) == (504, {"error": "the upstream does not answer"})


def ask(base, policy):
    """The SDK, with a question."""
    return run("sdk.py", base, policy, "What is a pin?", trust=os.environ["SSL_CERT_FILE"], OPENAI_API_KEY="key")


def test_sdk(web, policy):
    """The answer to the question."""
    base = f"https://localhost:{web.ports[0]}/v1"
    done = ask(base, policy)
    assert (done.returncode, done.stdout, done.stderr) == (0, "hello\n", "")


def test_sdk_with_an_impostor(web, policy):
    """The error says who was met, and the impostor has heard no question."""
    before = web.log.size()
    base = f"https://localhost:{web.ports[1]}/v1"
    done = ask(base, policy)
    assert (done.returncode, done.stdout) == (3, "")
    assert "REFUSED localhost does not hold a pinned key\n" in done.stderr
    assert web.log.text(before) == ""
