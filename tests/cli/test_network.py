"""
``fetch``, ``backup``, ``check`` and ``history`` against servers on the loopback interface.
"""

from __future__ import annotations

import json
import stat
import subprocess

import pytest
from cli.transcripts import HERE, pinset

from pinset import Pin, PinKind, PinSet, Policy, load_policy
from pinset._policy import OnExpiry
from pinset.formats import write_toml
from pinset.operate.record import Result, read_records
from pinset.testing import TLSServer

OTHERS = [Pin(PinKind.SPKI, bytes([n]) * 32) for n in (1, 2)]


@pytest.fixture
def server(leaf):
    with TLSServer(leaf.server_context()) as running:
        yield running


@pytest.fixture
def trust(genuine, tmp_path):
    path = tmp_path / "roots.pem"
    path.write_text(genuine.root_pem)
    return path


@pytest.fixture
def passphrase(tmp_path):
    path = tmp_path / "passphrase"
    path.write_text("open sesame\n")
    return path


@pytest.fixture
def policy_file(tmp_path):
    """Writes a policy of rules to a file."""

    def write(*pin_sets):
        path = tmp_path / "pins.toml"
        path.write_text(write_toml(Policy(pin_sets)))
        return path

    return write


# fetch


def test_fetch_prints_a_policy(server, trust, leaf, tmp_path):
    """The output is a policy file with the chain in comments, and it loads."""
    said = pinset("fetch", f"localhost:{server.port}", "--ca-file", trust)
    assert said.status == 0, said.err
    path = tmp_path / "fetched.toml"
    path.write_text(said.out)
    [rule] = load_policy(path).pin_sets
    assert (rule.name, [str(pin) for pin in rule.pins], rule.allow_single_pin) == ("localhost", [leaf.pin], True)
    assert said.out.count("#   key pin ") == 3
    assert "Genuine Intermediate" in said.out
    assert "EC secp256r1" in said.out
    assert "Missing: a backup" in said.err
    assert said.err.splitlines()[-1] == "next: pinset backup localhost --policy pins.toml"


def test_fetch_agrees_with_openssl(server, trust):
    """The pipeline that is printed prints what stands below it."""
    said = pinset("fetch", f"localhost:{server.port}", "--ca-file", trust)
    lines = [line.removeprefix("#").strip() for line in said.out.splitlines()]
    at = next(index for index, line in enumerate(lines) if line.startswith("openssl s_client"))
    done = subprocess.run(lines[at], shell=True, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == lines[at + 1]


def test_fetch_to_a_file(server, trust, tmp_path):
    """A file is written once, and never over another."""
    out = tmp_path / "pins.toml"
    arguments = ("fetch", f"localhost:{server.port}", "--ca-file", trust, "--out", out)
    said = pinset(*arguments)
    assert (said.status, said.out) == (0, "")
    assert f"pinset backup localhost --policy {out}" in said.err
    before = out.read_text()
    again = pinset(*arguments)
    assert again.status == 2
    assert "the file exists and is left as it is" in again.err
    assert out.read_text() == before


def test_fetch_of_several_hosts(server, trust, leaf):
    """What could be had is printed; what could not is said, and the status is 1."""
    hosts = [f"localhost:{server.port}", f"127.0.0.1:{server.port}", "localhost:1"]
    said = pinset("fetch", *hosts, "--ca-file", trust, "--json")
    record = json.loads(said.out)
    assert said.status == 1
    assert [host["host"] for host in record["hosts"]] == ["localhost", "127.0.0.1"]
    assert record["hosts"][0]["chain"][0]["pin"] == leaf.pin
    assert [(f["host"], f["port"], f["result"]) for f in record["failed"]] == [("localhost", 1, "unreachable")]
    assert "localhost:1: no connection" in said.err


def test_fetch_of_two_ports(server, trust, genuine):
    """One rule holds the pins of a host: two chains are not put into it in silence, nor one of them left out."""
    hosts = [f"localhost:{server.port}"]
    with TLSServer(genuine.issue("localhost").server_context()) as other:
        hosts.append(f"localhost:{other.port}")
        said = pinset("fetch", *hosts, "--ca-file", trust)
        assert (said.status, said.out) == (2, "")
        assert f"{hosts[0]} and {hosts[1]} have different chains" in said.err
        record = json.loads(pinset("fetch", *hosts, "--ca-file", trust, "--json").out)
    assert [host["address"] for host in record["hosts"]] == hosts


def test_fetch_by_another_name(server, trust):
    """--connect-to and --sni are as in curl and openssl."""
    address = f"127.0.0.1:{server.port}"
    assert (
        'name = "api.example.com"'
        in pinset("fetch", "api.example.com", "--sni", "localhost", "--connect-to", address, "--ca-file", trust).out
    )
    refused = pinset("fetch", "api.example.com", "--connect-to", address, "--ca-file", trust)
    assert (refused.status, refused.out) == (1, "")
    assert "does not verify" in refused.err


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["a..b"], "is not a host name"),
        (["a.com:0"], "has no port that could be"),
        (["a.com:x"], "has no port that could be"),
        (["a.com", "--proxy", "ftp://x"], "is not a proxy that can be used"),
        (["a.com", "--proxy", "http://x:99999"], "is not a proxy that can be used"),
        (["a.com", "--ca-file", str(HERE / "files" / "pins.toml")], "holds no certificates in PEM"),
        (["a.com", "--ca-file", "nowhere.pem"], "cannot be read"),
    ],
)
def test_fetch_that_is_asked_wrongly(arguments, reason):
    """What was given wrongly is status 2."""
    said = pinset("fetch", *arguments)
    assert (said.status, said.out) == (2, "")
    assert reason in said.err


# backup


def test_backup(server, trust, leaf, tmp_path, passphrase):
    """From fetch to a policy with a backup that lint has nothing against, as the messages say."""
    policy = tmp_path / "pins.toml"
    assert pinset("fetch", f"localhost:{server.port}", "--ca-file", trust, "--out", policy).status == 0
    arguments = ("backup", "localhost", "--policy", policy, "--dir", tmp_path, "--passphrase-file", passphrase)
    policy.chmod(0o640)
    said = pinset(*arguments)
    assert said.status == 0, said.err
    key, request = tmp_path / "localhost.backup.key", tmp_path / "localhost.backup.csr"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE(policy.stat().st_mode) == 0o640
    [rule] = load_policy(policy).pin_sets
    assert [str(pin) for pin in rule.pins] == [leaf.pin, said.out.strip()]
    assert not rule.allow_single_pin
    assert "# in service until" in policy.read_text()
    assert pinset("pin", request).out.splitlines()[1].startswith(said.out.strip())
    assert pinset("lint", policy).status == 0
    before = key.read_bytes(), request.read_bytes(), policy.read_text()
    again = pinset(*arguments)
    assert (again.status, again.out) == (2, "")
    assert "the file exists and is left as it is" in again.err
    assert (key.read_bytes(), request.read_bytes(), policy.read_text()) == before


def test_backup_alone(tmp_path, passphrase):
    """Without a policy there are key, request and pin."""
    arguments = ("backup", "::1", "--dir", tmp_path, "--passphrase-file", passphrase, "--key-type", "rsa", "--json")
    said = pinset(*arguments)
    record = json.loads(said.out)
    assert set(record) == {"host", "pin", "key", "request"}
    assert record["key"].endswith("__1.backup.key")
    assert "next: add the pin to the rule of ::1" in said.err


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["a..b"], "is not a host name"),
        (["a.com"], "give --passphrase-file"),
        (["a.com", "--policy", "x.json"], "is not TOML"),
        (
            ["a.com", "--policy", str(HERE / "files" / "pins.toml"), "--passphrase-file", "PASS"],
            "no rule of the policy",
        ),
        (["a.com", "--passphrase-file", "nowhere"], "cannot be read"),
    ],
)
def test_backup_that_leaves_nothing(arguments, reason, tmp_path, passphrase):
    """What is refused leaves no file behind."""
    directory = tmp_path / "keys"
    directory.mkdir()
    given = [str(passphrase) if argument == "PASS" else argument for argument in arguments]
    said = pinset("backup", *given, "--dir", directory)
    assert (said.status, said.out, list(directory.iterdir())) == (2, "", [])
    assert reason in said.err


# check and history


def check(policy, server, trust, *more):
    return pinset("check", policy, "--port", server.port, "--ca-file", trust, *more)


def test_check_that_finds_nothing(server, trust, leaf, policy_file):
    """Matched, with a backup, and nothing due: status 0, and the pin that matched."""
    policy = policy_file(PinSet(name="localhost", pins=[leaf.pin, OTHERS[0]]))
    said = check(policy, server, trust, "--within", "7d")
    assert said.status == 0, said.err
    heading, row = said.out.splitlines()
    assert heading.split() == ["HOST", "RESULT", "MATCHED", "LEAF", "PIN", "SET", "BACKUP"]
    assert row.split() == [f"localhost:{server.port}", "matched", leaf.pin, "29", "d", "-", "yes"]
    assert f"localhost: in no chain: {OTHERS[0]}" in said.err


def test_check_that_finds_something_due(server, trust, leaf, policy_file):
    """A certificate that ends soon, and a rule whose pins are all in the chain."""
    above = Pin.from_certificate(leaf.chain[1])
    policy = policy_file(PinSet(name="localhost", pins=[leaf.pin, above], rotation="ask ops"))
    said = check(policy, server, trust, "--within", "5w")
    assert said.status == 3
    assert "localhost: due: the certificate ends on" in said.err
    assert "there is no backup: every pin is in the live chain (ask ops)" in said.err
    assert said.err.splitlines()[-1] == f"next: pinset plan {policy}"


def test_check_that_finds_a_mismatch(server, trust, policy_file):
    """A mismatch is status 1, whatever else there is; the message names the key that was seen."""
    policy = policy_file(PinSet(name="localhost", pins=OTHERS), PinSet(name="*.example.org", pins=OTHERS))
    said = check(policy, server, trust)
    assert said.status == 1
    assert (
        "localhost: mismatched (rule localhost, enforce): the verified chain has no pinned key; the leaf has sha256/"
        in said.err
    )
    assert "*.example.org: not checked: it names no host; give one with --host" in said.err


def test_check_of_a_host_that_is_excluded(server, trust, policy_file):
    """There is nothing to compare, and that is no mismatch."""
    policy = policy_file(PinSet(name="**.example.org", pins=OTHERS), PinSet(name="a.example.org", mode="off"))
    said = check(policy, server, trust, "--host", "a.example.org")
    assert (said.status, said.out) == (2, "")
    assert 'the rule of a.example.org says mode = "off"' in said.err


def test_check_of_hosts_that_are_named(server, trust, leaf, policy_file):
    """--host checks hosts that stars cover, at the address that is given, and refuses strangers."""
    policy = policy_file(PinSet(name="**.localhost", pins=[leaf.pin, OTHERS[0]]), PinSet(name="b.com", pins=OTHERS))
    address = f"127.0.0.1:{server.port}"
    said = pinset(
        "check", policy, "--host", "localhost:1", "--connect-to", address, "--ca-file", trust, "--within", "1d"
    )
    assert said.status == 0, said.err
    stranger = pinset("check", policy, "--host", "c.com")
    assert (stranger.status, stranger.out) == (2, "")
    assert "no rule of the policy covers c.com; pinset fetch c.com makes one" in stranger.err


def test_check_records_and_history_shows(server, trust, leaf, impostor, genuine, policy_file, tmp_path):
    """Each check appends a line a host; history shows when what was seen changed."""
    policy = policy_file(PinSet(name="localhost", pins=[leaf.pin, OTHERS[0]]))
    history = tmp_path / "history.jsonl"
    for _ in range(2):
        check(policy, server, trust, "--record", history)
    renewed = genuine.issue("localhost")
    server.replace_context(renewed.server_context())
    said = check(policy, server, trust, "--record", history)
    assert said.status == 1
    assert f"1 records appended to {history}" in said.err
    server.replace_context(impostor.server_context())
    assert check(policy, server, trust, "--record", history).status == 1
    records = read_records(history.read_text(), source="x")
    assert [record.result for record in records] == [
        Result.MATCHED,
        Result.MATCHED,
        Result.MISMATCHED,
        Result.UNVERIFIED,
    ]
    shown = pinset("history", history)
    assert shown.status == 0
    rows = [line.split() for line in shown.out.splitlines()[1:]]
    assert [row[5:7] for row in rows] == [["2", "matched"], ["1", "mismatched"], ["1", "unverified"]]
    assert rows[1][-1] == renewed.pin
    stretches = json.loads(pinset("history", history, "--host", "localhost", "--json").out)["history"]
    assert [stretch["count"] for stretch in stretches] == [2, 1, 1]
    assert pinset("history", history, "--host", "other.com").out == ""
    planned = json.loads(pinset("plan", policy, "--history", history, "--json").out)
    assert [event["kind"] for event in planned["events"]] == []  # the last look saw no chain


def test_plan_from_the_history(server, trust, leaf, policy_file, tmp_path):
    """What check has seen gives the plan its dates."""
    policy = policy_file(PinSet(name="localhost", pins=[leaf.pin, OTHERS[0]], rotation="ask ops"))
    history = tmp_path / "history.jsonl"
    check(policy, server, trust, "--record", history)
    said = pinset("plan", policy, "--history", history)
    assert [line.split()[4] for line in said.out.splitlines()[1:]] == [
        "ship",
        "certificate",
    ]
    assert "due: localhost: the next pins must have shipped" in said.err
    assert "(ask ops)" in said.err
    assert said.err.splitlines()[-1] == f"next: pinset backup localhost --policy {policy}"


def test_check_as_a_record(server, trust, leaf, policy_file):
    """The record has what a dashboard needs."""
    from datetime import UTC, datetime, timedelta

    expires = datetime.now(UTC) + timedelta(10, 60)
    policy = policy_file(
        PinSet(name="localhost", pins=[leaf.pin, OTHERS[0]], expires=expires, on_expiry=OnExpiry.BLOCK)
    )
    record = json.loads(check(policy, server, trust, "--json").out)
    [host] = record["hosts"]
    assert set(host) == {
        *("at", "host", "port", "rule", "result", "matched", "chain", "detail"),
        *("mode", "unmatched", "has_backup", "leaf_days", "expiry_days", "due"),
    }
    assert (host["result"], host["matched"], host["expiry_days"]) == ("matched", [leaf.pin], 10)
    assert record["not_checked"] == []


def test_history_that_is_none(tmp_path):
    """A file that check has not written is refused with its line."""
    path = tmp_path / "history.jsonl"
    path.write_text("{}\n")
    said = pinset("history", path)
    assert (said.status, said.out) == (2, "")
    assert "line 1: not a record of pinset check: 'at' is missing" in said.err


def test_check_of_a_policy_that_cannot_be_read():
    """A policy error is status 2, before any connection."""
    said = pinset("check", HERE / "files" / "bad.toml")
    assert (said.status, said.out) == (2, "")
