"""
``pinset repo``, as a publisher types it.
"""

from __future__ import annotations

import json
import os
import select
import stat
import subprocess
import sys
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
from cli.transcripts import pinset
from publishing import Publisher, Site, now, pin, policy

import pinset as package
from pinset.formats import write_json, write_toml
from pinset.testing import TLSServer


@pytest.fixture
def repo(tmp_path, monkeypatch):
    """Runs ``pinset repo`` in a directory with a passphrase and policies."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "passphrase").write_text("open sesame\n")
    for name, made in {"a": policy(1, 2), "b": policy(2, 3), "c": policy(8, 9)}.items():
        (tmp_path / f"{name}.toml").write_text(write_toml(made))

    def run(*arguments, passphrase="passphrase"):
        options = ["--passphrase-file", passphrase] if arguments[0] in SIGNING else []
        return pinset("repo", *arguments, *options)

    return run


SIGNING = {"init", "publish", "refresh", "rotate-key"}
TARGETS, ONLINE = ("--key", "keys/targets-1.key"), ("--key", "keys/online.key")


@pytest.fixture
def made(repo):
    """A repository with a policy."""
    assert repo("init", "pins", "--keys", "keys").status == 0
    assert repo("publish", "pins", "a.toml", *TARGETS, *ONLINE, "--yes").status == 0
    return repo


def test_init(repo, tmp_path):
    """Keys are encrypted, private and never replaced; the root is what is printed."""
    said = repo("init", "pins", "--keys", "keys")
    assert (said.status, said.out) == (0, "pins/metadata/1.root.json\n")
    files = sorted(path.name for path in (tmp_path / "keys").iterdir())
    assert files == ["online.key", "root-1.key", "root-2.key", "root-3.key", "targets-1.key"]
    for path in (tmp_path / "keys").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert "BEGIN ENCRYPTED PRIVATE KEY" in path.read_text()
    assert said.err.splitlines()[-1].startswith("next: pinset repo publish pins POLICY --key keys/targets-1.key")
    again = repo("init", "pins", "--keys", "others")
    assert (again.status, "holds a repository already" in again.err) == (2, True)
    again = repo("init", "more", "--keys", "keys")
    assert (again.status, "left as it is" in again.err) == (2, True)
    assert not (tmp_path / "more").exists()
    impossible = repo("init", "more", "--keys", "others", "--root-keys", "1")
    assert (impossible.status, "nobody could ever sign" in impossible.err) == (2, True)


def test_init_that_cannot_write(repo, tmp_path):
    """All keys or none: what is left of half of them would stand in the way of the next try."""
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "root-3.key").mkdir()
    said = repo("init", "pins", "--keys", "keys")
    assert said.status == 2
    assert [path.name for path in (tmp_path / "keys").iterdir()] == ["root-3.key"]
    assert not (tmp_path / "pins").exists()


def test_init_json(repo):
    """The record names each key with its file."""
    said = repo("init", "pins", "--keys", "keys", "--targets-keys", "2", "--targets-threshold", "2", "--json")
    record = json.loads(said.out)
    assert record["root"] == "pins/metadata/1.root.json"
    names = [key["name"] for key in record["keys"]]
    assert names == ["root-1", "root-2", "root-3", "targets-1", "targets-2", "online"]
    assert all(len(key["keyid"]) == 64 for key in record["keys"])
    few = repo("publish", "pins", "a.toml", *TARGETS, *ONLINE, "--yes")
    assert (few.status, "targets needs 2" in few.err) == (2, True)
    both = repo("publish", "pins", "a.toml", *TARGETS, "--key", "keys/targets-2.key", *ONLINE, "--yes")
    assert both.status == 0


def test_passphrases(made, tmp_path):
    """A wrong one is refused; without a terminal there has to be a file."""
    (tmp_path / "other").write_text("sesame open")
    said = made("refresh", "pins", *ONLINE, passphrase="other")
    assert (said.status, "keys/online.key cannot be read" in said.err) == (2, True)
    said = pinset("repo", "refresh", "pins", *ONLINE)
    assert (said.status, "give --passphrase-file" in said.err) == (2, True)
    said = pinset("repo", "init", "more", "--keys", "others")
    assert (said.status, "give --passphrase-file" in said.err) == (2, True)


def _type(answers, *arguments):
    """Run ``pinset`` on a terminal, and answer one question after the other. What it said, and its status."""
    code = "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); from pinset.cli import main; main()"
    master, slave = os.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(Path(package.__file__).parents[1])},
    ) as running:
        os.close(slave)
        said = b""
        with suppress(OSError):  # that is how the end of a terminal reads
            while select.select([master], [], [], 30)[0] and (data := os.read(master, 65536)):
                said += data
                # The space comes when the echo is off; what is typed before is thrown away.
                if answers and said.endswith(b": "):
                    said += b"\n"
                    os.write(master, answers.pop(0).encode() + b"\n")
        os.close(master)  # and whoever still waits for an answer gets none
        return said.decode(), running.wait()


def test_on_a_terminal(made):
    """Passphrases are asked for, once for a key that is there and twice for a new one, and not shown; so is agreement."""
    said, status = _type(["y", "open sesame"], "repo", "publish", "pins", "b.toml", *TARGETS)
    assert (status, "is not in service yet" in said) == (0, True), said
    assert ("passphrase of targets-1.key" in said, "open sesame" in said) == (True, False)
    answers = [f"long enough {number // 2}" for number in range(6)]
    said, status = _type(
        answers, "repo", "init", "more", "--keys", "others", "--root-keys", "1", "--root-threshold", "1"
    )
    assert (status, "new passphrase for root-1.key" in said) == (0, True), said


def test_publish_shows_what_changes(made):
    """Before anything is signed, and where nobody can agree nothing is."""
    said = made("publish", "pins", "b.toml", *TARGETS, *ONLINE)
    assert said.status == 2
    assert f"-   pins: {pin(1)}" in said.err
    assert f"+   pins: {pin(3)}" in said.err
    assert "give --yes" in said.err
    said = made("publish", "pins", "b.toml", *TARGETS, *ONLINE, "--yes")
    assert (said.status, said.err.splitlines()[-1]) == (
        0,
        "next: upload pins, metadata/timestamp.json last, then: pinset repo check URL",
    )
    again = made("publish", "pins", "b.toml", *TARGETS, *ONLINE, "--yes")
    assert "says what the published one says" in again.err


def test_objections(made):
    """Pins that have none in common with those before are published with --force only."""
    said = made("publish", "pins", "c.toml", *TARGETS, *ONLINE, "--yes")
    assert said.status == 1
    assert "objection: api.example.com: has no pin in common" in said.err
    assert said.err.splitlines()[-1] == "next: mend that, or say --force"
    said = made("publish", "pins", "c.toml", *TARGETS, *ONLINE, "--yes", "--force", "--json")
    assert said.status == 0
    record = json.loads(said.out)
    assert (len(record["objections"]), len(record["changes"]), record["in_service"]) == (1, 5, True)


def test_verify_live(made, leaf, renewed, genuine, tmp_path):
    """A host whose server does not match is an objection."""
    (tmp_path / "roots.pem").write_text(genuine.root_pem)
    live = {"good": [leaf.pin, pin(1)], "bad": [renewed.pin, pin(1)]}
    for name, pins in live.items():
        (tmp_path / f"{name}.json").write_text(write_json(_policy(pins)))
    with TLSServer(leaf.server_context()) as server:
        options = ["--verify-live", "--ca-file", "roots.pem", "--connect-to", f"127.0.0.1:{server.port}", "--yes"]
        for name, status in (("bad", 1), ("good", 0)):
            said = made("publish", "pins", f"{name}.json", *TARGETS, *ONLINE, *options)
            assert ("objection: localhost: its server is mismatched today" in said.err) == bool(status)
            # The rule of the other host goes away, and programs refuse nothing of that: unlisted hosts are denied.
            assert said.status == status, said.err


def _policy(pins):
    from pinset import Policy

    return Policy.from_mapping({"localhost": pins})


@pytest.fixture
def renewed(genuine):
    return genuine.issue("localhost", "127.0.0.1")


def test_two_machines(made):
    """One signs the policy, the other puts it in service."""
    said = made("publish", "pins", "b.toml", *TARGETS, "--yes")
    assert "is not in service yet" in said.err
    status = made("status", "pins")
    assert (status.status, "not in service" in status.err) == (3, True)
    said = made("refresh", "pins", *ONLINE)
    assert (said.status, said.err.splitlines()[0]) == (0, "signed: snapshot, timestamp")
    status = made("status", "pins")
    assert status.status == 0
    assert status.out.splitlines()[0].split() == ["ROLE", "VERSION", "EXPIRES", "LEFT", "KEYS"]
    assert status.out.splitlines()[2].split()[:2] == ["targets", "3"]


def test_refresh_json(made):
    """The record names the roles."""
    said = made("refresh", "pins", *ONLINE, "--json")
    assert json.loads(said.out) == {"signed": ["timestamp"]}


def test_rotate_key(made, tmp_path):
    """The old key is named by the beginning of its identifier; the new one gets a file of its own."""
    roots = ("--key", "keys/root-1.key", "--key", "keys/root-3.key")
    roles = json.loads(made("status", "pins", "--json").out)["roles"]
    keyid = {role["role"]: role["keyids"][0] for role in roles}
    said = made(
        "rotate-key", "pins", "online", "--old", keyid["timestamp"][:8], "--new-key", "keys/online-2.key", *roots
    )
    assert (said.status, "signed: root, snapshot, timestamp" in said.err) == (0, True)
    assert made("refresh", "pins", *ONLINE).status == 2
    assert made("refresh", "pins", "--key", "keys/online-2.key").status == 0
    said = made(
        "rotate-key", "pins", "targets", "--old", keyid["targets"], "--new-key", "keys/t2.key", *roots, "--json"
    )
    record = json.loads(said.out)
    assert (record["signed"], record["old"], record["key"]) == (["root", "targets"], keyid["targets"], "keys/t2.key")
    assert "upload nothing before" in said.err
    said = made("rotate-key", "pins", "root", "--old", keyid["root"], "--new-key", "keys/root-4.key", *roots)
    assert said.status == 0
    assert made("refresh", "pins", "--key", "keys/online-2.key").status == 0
    assert made("status", "pins").status == 0


def test_rotate_key_refused(made, tmp_path):
    """A role, an identifier or keys that do not fit; no file is left behind."""
    one = ("--new-key", "keys/new.key", "--key", "keys/root-1.key")
    for arguments, reason in (
        (("mirror", "--old", "ab", *one), "is no role"),
        (("targets", "--old", "", *one), "is not the beginning of one key"),
        (("targets", "--old", "xyz", *one), "is not the beginning of one key"),
    ):
        said = made("rotate-key", "pins", *arguments)
        assert (said.status, reason in said.err) == (2, True), said.err
    keyid = json.loads(made("status", "pins", "--json").out)["roles"][1]["keyids"][0]
    said = made("rotate-key", "pins", "targets", "--old", keyid, *one)
    assert (said.status, "root needs 2 of its keys" in said.err) == (2, True)
    assert not (tmp_path / "keys/new.key").exists()


def test_status(made, tmp_path):
    """What is due is 3, what clients refuse is 1."""
    assert made("status", "pins", "--fail-within", "100d").status == 3
    record = json.loads(made("status", "pins", "--fail-within", "100d", "--json").out)
    assert [role["role"] for role in record["roles"] if role["due"]] == ["targets"]
    assert (record["hosts"], record["waits"]) == (1, False)
    Publisher(tmp_path / "old", at=now() - timedelta(days=20), first=policy(1, 2))
    said = made("status", "old")
    assert (said.status, "expired: snapshot, timestamp" in said.err) == (1, True)
    (tmp_path / "pins/metadata/timestamp.json").write_text("{}")
    assert made("status", "pins").status == 1
    assert made("status", "nothing").status == 2


def test_check(made, leaf, genuine, tmp_path):
    """What a program sees that was just installed, and how it is served."""
    (tmp_path / "roots.pem").write_text(genuine.root_pem)
    publisher = Publisher(tmp_path / "served", first=policy(1, 2))
    (tmp_path / "root.json").write_bytes(publisher.anchor)
    with Site(leaf, publisher) as site:
        options = ("--root", "root.json", "--ca-file", "roots.pem")
        said = made("check", site.url, *options)
        assert (said.status, "has no Cache-Control" in said.err) == (1, True)
        assert said.out.splitlines()[1].split()[:2] == ["root", "1"]
        record = json.loads(made("check", site.url, *options, "--json").out)
        assert (record["hosts"], len(record["findings"]), len(record["roles"])) == (1, 1, 4)
        publisher.sign_nothing("metadata/timestamp.json")
        said = made("check", site.url, *options)
        assert (said.status, "programs cannot update: timestamp" in said.err) == (1, True)
        site.gate.clear()
        said = made("check", site.url, *options, "--timeout", "0.2")
        assert (said.status, "no answer in time" in said.err) == (1, True)
        site.gate.set()
    assert made("check", "http://localhost/", "--root", "root.json").status == 2
