"""
The client class among the examples: the right key works, and each thing that can go wrong ends as the page says.

The others need what this suite may do without: `tests/updates/test_example.py` has the worker,
`tests/integration/downstream/test_examples.py` the service and the SDK.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from conftest import BACKUP
from examples import EXAMPLES, answer, run, write_pins

from pinset.testing import Authority, Identity, TLSServer

PAGE = EXAMPLES.parent / "tutorial" / "examples.md"


@pytest.fixture
def trust(genuine: Authority, rogue: Authority) -> Iterator[str]:
    with genuine.trust_file(rogue) as path:
        yield path


@pytest.fixture
def policy(tmp_path: Path, leaf: Identity) -> Path:
    return write_pins(tmp_path / "pins.toml", leaf.pin, BACKUP)


def ask(server: TLSServer, policy: Path, trust: str, name: str = "ada"):
    return run("api_client.py", server.url().rstrip("/"), policy, name, trust=trust)


def test_right_key(policy, leaf, trust) -> None:
    """The user is printed, and nothing else."""
    with TLSServer(leaf.server_context(), respond=answer) as server:
        done = ask(server, policy, trust)
    assert (done.returncode, done.stdout, done.stderr) == (0, "{'name': 'Ada'}\n", "")


def test_wrong_key(policy, impostor, genuine, rogue, trust) -> None:
    """A server with another key is refused with a status of its own, unasked; a client without pins gets its answer."""
    with TLSServer(impostor.server_context(), respond=answer) as server:
        done = ask(server, policy, trust)
        assert server.seen.application_data == b""
        assert httpx.get(server.url(path="/users/ada"), verify=genuine.client_context(rogue)).json() == {"name": "Ada"}
    assert (done.returncode, done.stdout) == (3, "")
    assert "REFUSED localhost does not hold a pinned key\n" in done.stderr
    assert f"0 {impostor.pin}" in done.stderr


def test_answer_of_an_error(policy, leaf, trust) -> None:
    """What the API does not know is no matter of pins."""
    with TLSServer(leaf.server_context(), respond=answer) as server:
        done = ask(server, policy, trust, name="nobody")
    assert (done.returncode, done.stderr) == (1, "the API answered 404\n")


def test_nobody_there(policy, trust) -> None:
    """A port without a server is worth another try later."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    done = run("api_client.py", f"https://localhost:{port}", policy, "ada", trust=trust)
    assert done.returncode == 1
    assert done.stderr.startswith("the API cannot be reached: ")


def test_host_without_a_rule(policy, trust) -> None:
    """A host that the policy does not list is a fault of the app, and says so."""
    done = run("api_client.py", "https://127.0.0.1:9", policy, "ada", trust=trust)
    assert done.returncode == 1
    assert "this app is not set up for the host: 127.0.0.1 is not listed in the policy" in done.stderr


def test_policy_that_cannot_be_used(tmp_path, trust) -> None:
    """One pin is not enough, and nothing is connected to."""
    file = tmp_path / "pins.toml"
    file.write_text(f'[[host]]\nname = "localhost"\npins = ["{BACKUP}"]\n')
    done = run("api_client.py", "https://localhost:9", file, "ada", trust=trust)
    assert done.returncode == 2
    assert 'host[0]."localhost".pins: only one distinct pin' in done.stderr


def test_every_example_is_on_its_page() -> None:
    """The page shows every program that there is."""
    page = PAGE.read_text(encoding="utf-8")
    names = {path.name for path in EXAMPLES.glob("*.py")}
    assert names
    assert all(f"```{{literalinclude}} ../examples/{name}\n" in page for name in names)
