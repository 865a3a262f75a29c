"""
``pinset intercept``: what it says of programs, how it ends, and what it leaves behind.
"""

from __future__ import annotations

import json
import os
import select
import shlex
import signal
import ssl
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import httpx
import pytest
from cli.transcripts import pinset

from pinset import Pin, PinKind, PinSet, Policy
from pinset.formats import write_toml
from pinset.testing import Authority, HTTPSServer

PINS = [Pin(PinKind.SPKI, bytes([number]) * 32) for number in (1, 2)]
FETCH = "import sys, urllib.request; urllib.request.urlopen(sys.argv[1], timeout=10).read()"
LEAVE = """
import os, socket, ssl, sys, urllib.parse
proxy = urllib.parse.urlsplit(os.environ["HTTPS_PROXY"])
for host in sys.argv[1:]:
    with socket.create_connection((proxy.hostname, proxy.port)) as plain:
        plain.sendall(f"CONNECT {host}:443 HTTP/1.1\\r\\n\\r\\n".encode())
        plain.recv(4096)
        ssl.create_default_context().wrap_socket(plain, server_hostname=host).close()
"""


@pytest.fixture
def server(genuine):
    with HTTPSServer(authority=genuine) as running:
        yield running


@pytest.fixture
def roots(genuine, tmp_path):
    path = tmp_path / "roots.pem"
    path.write_text(genuine.root_pem)
    return path


@pytest.fixture
def policy(tmp_path):
    """A policy file for hosts, each with its mode."""

    def write(**modes):
        path = tmp_path / "pins.toml"
        names = {name.replace("_", "."): mode for name, mode in modes.items()}
        path.write_text(write_toml(Policy(tuple(PinSet(name=n, pins=PINS, mode=m) for n, m in names.items()))))
        return path

    return write


def python(code, *arguments):
    """A program that runs *code*."""
    return ["--", sys.executable, "-c", code, *arguments]


def control(*hosts):
    """A program without pins for *hosts*, as an option has it."""
    return shlex.join(python(LEAVE.replace(".close()", ".sendall(b'hello')"), *hosts)[1:])


def test_accepted(server, roots, policy, tmp_path, capfd):
    """A program without pins is found out: 1, the size of what it sent, and no word of it."""
    history = tmp_path / "history.jsonl"
    said = pinset(
        "intercept",
        *("--policy", policy(localhost="enforce"), "--ca-file", roots, "--record", history),
        *python(FETCH + "; print('the app says so')", server.url(path="/?token=s3cret")),
    )
    assert said.status == 1
    assert "localhost:" in said.out.splitlines()[1]
    assert "ACCEPTED IT" in said.out
    assert f"{sys.executable} ended with status 0" in said.err
    assert "1 hosts: 0 refused the impostor, 1 accepted it, 0 not proven, 0 not asked for" in said.err
    assert said.err.splitlines()[-1].startswith("next: pin localhost: pinset fetch localhost")
    [record] = map(json.loads, history.read_text().splitlines())
    assert record["pins"] == [str(pin) for pin in PINS]
    assert record["sent"] == len(server.seen.application_data)
    assert "s3cret" not in said.out + said.err + history.read_text()
    captured = capfd.readouterr()
    assert "the app says so" in captured.err  # standard output is for results
    assert "the app says so" not in captured.out


def test_refused(policy):
    """Every listed host was tried and refused: 0."""
    rules = policy(a_test="enforce", b_test="enforce")
    hosts = ("a.test", "b.test")
    said = pinset("intercept", "--policy", rules, "--control", control(*hosts), *python(LEAVE, *hosts))
    assert said.status == 0, said.out + said.err
    assert said.out.count("refused the impostor  0 B   1 ") == 2


def test_listed_host_that_was_not_tried(policy):
    """What was not tried is not proven."""
    rules = policy(a_test="enforce", b_test="enforce")
    said = pinset("intercept", "--knows-authority", "--policy", rules, *python(LEAVE, "a.test"))
    assert said.status == 3
    assert said.out.splitlines()[2].split()[:3] == ["b.test", "not", "tried"]
    assert said.err.splitlines()[-1] == "next: let the program connect to every listed host, and run this again"


def test_leaving_needs_a_control(policy):
    """Who leaves at the certificate is not proven to have pins, until the same without pins has accepted."""
    rules = policy(a_test="enforce")
    said = pinset("intercept", "--policy", rules, *python(LEAVE, "a.test"))
    assert said.status == 3
    assert said.out.splitlines()[1].split()[:4] == ["a.test", "left,", "unproven", "why"]
    assert "give the same program without them as --control" in said.err.splitlines()[-1]

    said = pinset("intercept", "--policy", rules, "--control", control("a.test"), *python(LEAVE, "a.test"))
    assert said.status == 0, said.out + said.err
    assert "a control has shown that it knows the authority" in said.out
    assert "refused the impostor  0 B   1 " in said.out
    assert said.err.splitlines()[-1] == "next: the same with every release, with --record for the evidence"

    said = pinset("intercept", "--policy", rules, "--knows-authority", *python(LEAVE, "a.test"))
    assert said.status == 0
    assert "it is said to know the authority" in said.out


def test_control_that_does_not_accept(policy):
    """A control that refuses, or does not come, shows nothing, and that is said."""
    for code, seen in ((LEAVE, "a.test: it hung up after the handshake"), ("pass", "nothing came through")):
        useless = shlex.join(python(code, "a.test")[1:])
        said = pinset("intercept", "--policy", policy(a_test="enforce"), "--control", useless, *python(LEAVE, "a.test"))
        assert said.status == 3
        assert f"the control did not accept an impostor: {seen}" in said.err


def test_unlisted_and_report_only(policy):
    """Hosts that need not be refused are shown, and fail nothing; without a single proof nothing is proven."""
    rules = policy(a_test="enforce", b_test="report-only")
    accept = LEAVE.replace(".close()", ".sendall(b'hello')")
    said = pinset("intercept", "--policy", rules, *python(accept, "b.test", "c.test"))
    assert said.status == 3
    assert [line.split()[:3] for line in said.out.splitlines()[1:]] == [
        ["b.test", "ACCEPTED", "IT"],
        ["c.test", "ACCEPTED", "IT"],
        ["a.test", "not", "tried"],
    ]
    assert "b.test (report-only)" in said.out
    assert "1 not proven, 2 not asked for" in said.err


def test_who_does_not_know_the_authority(policy):
    """That is no refusal by pins, and the last line says how to get further."""
    code = LEAVE.replace("create_default_context()", "create_default_context(cadata=sys.argv.pop())")
    said = pinset("intercept", *python(code.replace("sys.argv[1:]", "['a.test']"), Authority().root_pem))
    assert said.status == 3
    assert "does not know the test authority" in said.out
    assert "next: make the program trust the certificate of --ca-out" in said.err


def test_nothing_came_through():
    """A program that heeds no proxy is told of, not praised."""
    said = pinset("intercept", *python("raise SystemExit(7)"))
    assert (said.status, said.out) == (3, "")
    assert "ended with status 7" in said.err
    assert "next: nothing came through" in said.err


def test_as_a_record(policy):
    """The record has what the lines have."""
    said = pinset(
        "intercept", "--knows-authority", "--json", "--policy", policy(a_test="enforce"), *python(LEAVE, "a.test")
    )
    record = json.loads(said.out)
    assert (record["conclusion"], record["status"], record["command"][0]) == ("holds", 0, sys.executable)
    assert [host["result"] for host in record["hosts"]] == ["refused"]
    assert set(record) == {"command", "status", "conclusion", "hosts"}


def test_program_that_does_not_end(monkeypatch):
    """After --timeout it is ended, and told so; also if it does not want to hear of it."""
    monkeypatch.setattr("pinset.testing._program._GRACE", 0.3)
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    said = pinset("intercept", "--timeout", "0.5", *python(code))
    assert said.status == 3
    assert "was ended" in said.err


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ([], "nothing to intercept"),
        (["--listen", "0.0.0.0:8080"], "allow_remote"),
        (["--listen", "example.com"], "no IP address"),
        (["--policy", "missing.toml", "--", "true"], "missing.toml"),
        (["--record", "missing/file", "--", "true"], "missing/file"),
        (["--connect-to", "x:y", "--", "true"], "no port"),
        (["--", "./no-such-program"], "no-such-program cannot be started"),
        (["--control", "./no-such-control", "--", "true"], "no-such-control cannot be started"),
        (["--control", "it's", "--", "true"], "No closing quotation"),
        (["--control", "true", "--listen", "127.0.0.1"], "put one after --"),
    ],
)
def test_refusals(arguments, word, tmp_path, monkeypatch):
    """What cannot be done is said before anything is run."""
    monkeypatch.chdir(tmp_path)
    said = pinset("intercept", *arguments)
    assert (said.status, said.out) == (2, "")
    assert word in said.err


def test_address_in_use(server):
    """Another listener is a reason to take another port."""
    said = pinset("intercept", "--listen", f"127.0.0.1:{server.port}", "--", "true")
    assert said.status == 2
    assert "cannot listen there" in said.err


def test_no_key_on_the_disk(tmp_path, monkeypatch):
    """What the program is given is certificates alone, in a directory that nobody else may enter and that is gone afterwards."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    code = """
        import os, pathlib, stat
        trust = pathlib.Path(os.environ["SSL_CERT_FILE"])
        assert "PRIVATE" not in trust.read_text()
        assert stat.S_IMODE(trust.parent.stat().st_mode) == 0o700
        found = [path for path in pathlib.Path(os.environ["TMPDIR"]).rglob("*") if path.is_file()]
        assert found == [trust], found
        pathlib.Path("seen").write_text(str(trust))
    """
    monkeypatch.chdir(tmp_path)
    said = pinset("intercept", "--ca-out", "../ca.pem", *python(textwrap.dedent(code)))
    assert "ended with status 0" in said.err
    trust = Path(Path("seen").read_text())
    assert trust.name == "roots.pem"
    assert not trust.parent.exists()
    assert (tmp_path.parent / "ca.pem").read_text().startswith("-----BEGIN CERTIFICATE-----")
    assert not stat.S_IMODE((tmp_path.parent / "ca.pem").stat().st_mode) & 0o111


def listening(*arguments):
    """``pinset intercept --listen`` as a process, and the URL of its proxy."""
    code = "from pinset.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "intercept", "--listen", "127.0.0.1", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    assert select.select([process.stderr], [], [], 30)[0]
    return process, process.stderr.readline().split()[1].rstrip(",")


def test_interrupt():
    """Ctrl-C goes to the program as well; when it has ended, there is still a summary."""
    code = "from pinset.cli import main; main()"
    waits = "import sys, time; print('ready', flush=True); time.sleep(60)"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "intercept", *python(waits)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # as a terminal has it: both are in one group
    )
    with process:
        while process.stderr.readline() != "ready\n":
            assert process.poll() is None
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 3
    assert f"{sys.executable} ended with status {-signal.SIGINT}" in err
    assert "0 hosts: " in err


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_as_a_proxy(server, roots, end):
    """For a phone: it serves its authority, tells of each contact at once, and sums up when it is stopped."""
    process, proxy = listening("--ca-file", roots)
    with process:
        try:
            authority = httpx.get(f"{proxy}/ca.pem", trust_env=False).text
            trust = ssl.create_default_context(cadata=authority)
            assert httpx.get(server.url(), verify=trust, proxy=proxy, trust_env=False).status_code == 200
            socks = proxy.replace("http", "socks5")
            assert httpx.get(server.url(), verify=trust, proxy=socks, trust_env=False).status_code == 200
            lines = [process.stderr.readline() for _ in range(4)]
            assert lines[0] == f"its authority: {proxy}/ca.pem (valid 2 days; take it off the device afterwards)\n"
            assert "then press Ctrl-C here" in lines[1]
            assert lines[2] == lines[3] == f"localhost:{server.port}: ACCEPTED IT: it sent data\n"
        finally:
            process.send_signal(end)
            out, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "ACCEPTED IT" in out
    assert "1 accepted it" in err
