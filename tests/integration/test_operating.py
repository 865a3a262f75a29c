"""
Operating pins against nginx: a fleet of hosts, curl with converted pins, and the rotation runbook, step by step.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys

import pytest
from cli.transcripts import pinset
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from integration.conftest import running

from pinset import Pin, PinKind, PinMismatchError, PinnedAsyncClient, PinSet, Policy, load_policy
from pinset.formats import write_toml
from pinset.testing import Authority

pytestmark = pytest.mark.integration

HOST = "api.fleet.test"
WRONG = ("h007.fleet.test", "h250.fleet.test", "h499.fleet.test")
BACKUP = Pin(PinKind.SPKI, bytes(range(32)))


@contextlib.contextmanager
def nginx(program, directory, identities):
    """The port of an nginx that shows each name its identity; the first of *identities* is for all other names."""
    directory.mkdir(exist_ok=True)

    def configure(ports):
        servers = []
        for number, (name, identity) in enumerate(identities.items()):
            chain, key = identity.write(directory, f"identity{number}")
            servers.append(
                f"server {{ listen 127.0.0.1:{ports[0]} ssl; server_name {name}; ssl_certificate {chain};"
                f' ssl_certificate_key {key}; location / {{ return 200 "hello"; }} }}'
            )
        paths = " ".join(
            f"{kind}_temp_path {directory}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        (directory / "nginx.conf").write_text(
            f"daemon off; master_process off; pid {directory}/nginx.pid; error_log stderr;"
            f"events {{ worker_connections 256; }} http {{ access_log off; {paths} {' '.join(servers)} }}"
        )
        return [program, "-p", str(directory), "-e", "stderr", "-c", str(directory / "nginx.conf")]

    with running(directory, 1, configure) as (ports, _):
        yield ports[0]


@pytest.fixture(scope="module")
def program(require_program):
    return require_program("nginx")


@pytest.fixture
def authority():
    return Authority("Fleet")


@pytest.fixture
def trust(authority, tmp_path):
    path = tmp_path / "roots.pem"
    path.write_text(authority.root_pem)
    return path


@pytest.fixture
def passphrase(tmp_path):
    path = tmp_path / "passphrase"
    path.write_text("open sesame")
    return path


def test_five_hundred_hosts(program, authority, trust, tmp_path):
    """The three of 500 hosts that show another key are found, and only those."""
    fleet = authority.issue("*.fleet.test")
    wrong = {name: authority.issue(name) for name in WRONG}
    hosts = [f"h{number:03}.fleet.test" for number in range(500)]
    policy = tmp_path / "pins.toml"
    policy.write_text(write_toml(Policy(tuple(PinSet(name=host, pins=[fleet.pin, BACKUP]) for host in hosts))))
    with nginx(program, tmp_path / "nginx", {"*.fleet.test": fleet, **wrong}) as port:
        code = "from pinset.cli import main; main()"
        command = [sys.executable, "-c", code, "check", policy, "--connect-to", f"127.0.0.1:{port}", "--ca-file", trust]
        done = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1, done.stderr
    results = {host["host"]: host["result"] for host in json.loads(done.stdout)["hosts"]}
    assert len(results) == 500
    assert {host for host, result in results.items() if result != "matched"} == set(WRONG)
    assert all(results[host] == "mismatched" for host in WRONG)
    assert "500 hosts: 497 match, 3 do not" in done.stderr


def test_curl_takes_converted_pins(program, require_program, authority, trust, tmp_path):
    """What convert prints is an argument that curl accepts from nginx, and with which it refuses another key."""
    curl = require_program("curl")
    genuine, other = authority.issue(HOST), authority.issue(HOST)
    chain = tmp_path / "chain.pem"
    chain.write_bytes(genuine.chain_pem)
    policy = tmp_path / "pins.toml"
    policy.write_text(write_toml(Policy((PinSet(name=HOST, pins=[genuine.pin, BACKUP]),))))
    pinned = "from pinset.cli import main; main()"
    for identity, status in ((genuine, 0), (other, 90)):
        with nginx(program, tmp_path / f"nginx{status}", {HOST: identity}) as port:
            convert = f"'{sys.executable}' -c '{pinned}' convert {policy} --to curl --chain {chain}"
            script = (
                f'{curl} -q -sS --noproxy "*" --max-time 20 --cacert {trust} --resolve {HOST}:{port}:127.0.0.1'
                f' --pinnedpubkey "$({convert})" https://{HOST}:{port}/'
            )
            done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == status, done.stderr
        assert ("hello" in done.stdout) is (status == 0)


class Runbook:
    """The commands of docs/howto/rotation.md, and the apps that were shipped on the way."""

    def __init__(self, tmp_path, trust, passphrase) -> None:
        self.policy, self.history = tmp_path / "pins.toml", tmp_path / "history.jsonl"
        self._trust, self._passphrase, self._keys = trust, passphrase, tmp_path / "keys"
        self._keys.mkdir()

    def fetch(self, port) -> None:
        assert pinset("fetch", f"localhost:{port}", "--ca-file", self._trust, "--out", self.policy).status == 0

    def check(self, port) -> int:
        arguments = ("--port", port, "--ca-file", self._trust, "--record", self.history, "--within", "7d")
        return pinset("check", self.policy, *arguments).status

    def backup(self):
        """Make a backup, put its pin into the policy, and return the key."""
        arguments = ("--policy", self.policy, "--dir", self._keys, "--passphrase-file", self._passphrase)
        said = pinset("backup", "localhost", *arguments)
        assert said.status == 0, said.err
        file = self._keys / "localhost.backup.key"
        key = load_pem_private_key(file.read_bytes(), self._passphrase.read_bytes())
        for each in list(self._keys.glob("localhost.backup.*")):
            each.rename(each.with_name(f"{said.out.strip()[7:15].replace('/', '_')}{each.suffix}"))
        return key

    def drop(self, pin: str) -> None:
        """Take the line of a pin out of the policy, as a person does."""
        lines = self.policy.read_text().splitlines(keepends=True)
        kept = [line for line in lines if f'"{pin}"' not in line]
        assert len(kept) == len(lines) - 1
        self.policy.write_text("".join(kept))

    def ship(self, authority):
        """An app with the policy as it is now: says whether a server at a port is talked to."""
        assert pinset("lint", self.policy).status == 0
        policy = load_policy(self.policy)

        async def get(port):
            trust = authority.client_context()
            async with PinnedAsyncClient(policy, verify=trust, trust_env=False) as client:
                return await client.get(f"https://localhost:{port}/")

        def is_served(port) -> bool:
            try:
                return asyncio.run(get(port)).text == "hello"
            except PinMismatchError:
                return False

        return is_served


@pytest.fixture
def runbook(tmp_path, trust, passphrase):
    return Runbook(tmp_path, trust, passphrase)


def test_planned_key_change(program, authority, runbook, tmp_path):
    """The server moves to its backup key, and neither the app before nor the app after notices."""
    first = authority.issue("localhost")
    with nginx(program, tmp_path / "1", {"localhost": first}) as port:
        runbook.fetch(port)
        second_key = runbook.backup()
        assert runbook.check(port) == 0
        old_app = runbook.ship(authority)
        assert old_app(port)
        # Before the change: the next backup ships, so that the app after the change has one as well.
        third_key = runbook.backup()
        new_app = runbook.ship(authority)
    second = authority.issue("localhost", key=second_key)
    with nginx(program, tmp_path / "2", {"localhost": second}) as port:
        assert (runbook.check(port), old_app(port), new_app(port)) == (0, True, True)
        runbook.drop(first.pin)
        last_app = runbook.ship(authority)
        assert (runbook.check(port), last_app(port)) == (0, True)
    with nginx(program, tmp_path / "3", {"localhost": authority.issue("localhost", key=third_key)}) as port:
        # Who never updated knows two keys, and this is the third.
        assert (old_app(port), new_app(port), last_app(port)) == (False, True, True)
    shown = json.loads(pinset("history", runbook.history, "--json").out)["history"]
    assert [stretch["record"]["matched"] for stretch in shown] == [[first.pin], [second.pin]]


def test_lost_key(program, authority, runbook, tmp_path):
    """The key in service is lost overnight: the backup goes into service, and the lost pin out of the policy."""
    lost = authority.issue("localhost")
    with nginx(program, tmp_path / "1", {"localhost": lost}) as port:
        runbook.fetch(port)
        backup_key = runbook.backup()
        app = runbook.ship(authority)
    with nginx(program, tmp_path / "2", {"localhost": authority.issue("localhost", key=backup_key)}) as port:
        assert app(port)
        runbook.backup()
        runbook.drop(lost.pin)
        repaired = runbook.ship(authority)
        assert (runbook.check(port), repaired(port)) == (0, True)
    with nginx(program, tmp_path / "3", {"localhost": lost}) as port:
        # The thief's server: the old app still believes it, the repaired one does not.
        assert (app(port), repaired(port)) == (True, False)


def test_change_of_authority(program, runbook, tmp_path, trust):
    """A policy that pins CAs has both for the time of the change; the leaf's keys do not matter."""
    old, new = Authority("Old"), Authority("New")
    trust.write_text(old.root_pem + new.root_pem)
    roots = [Pin.from_certificate(authority.root) for authority in (old, new)]
    runbook.policy.write_text(
        f'[[host]]\nname = "localhost"\nca_pins = [\n    "{roots[0]}", # old\n    "{roots[1]}", # new\n]\n'
    )
    both = Authority("Both")
    both.client_context = lambda: old.client_context(new)  # what the app trusts
    app = runbook.ship(both)
    stranger = Authority("Stranger")
    with nginx(program, tmp_path / "1", {"localhost": old.issue("localhost")}) as port:
        assert (runbook.check(port), app(port)) == (0, True)
    with nginx(program, tmp_path / "2", {"localhost": new.issue("localhost")}) as port:
        assert (runbook.check(port), app(port)) == (0, True)
    trust.write_text(trust.read_text() + stranger.root_pem)
    with nginx(program, tmp_path / "3", {"localhost": stranger.issue("localhost")}) as port:
        assert runbook.check(port) == 1
