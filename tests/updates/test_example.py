"""
The worker among the examples: it follows a change of the key, refuses a stranger, and reports both.
"""

from __future__ import annotations

import contextlib
import json
import signal
import ssl
import subprocess
import time

import pytest
from conftest import BACKUP, HOST
from examples import command, surroundings, write_pins
from publishing import Publisher, Site

from pinset import Policy
from pinset.testing import TLSServer

PATIENCE = 30.0


def pins_for(*pins):
    """A policy for the tests' server."""
    return Policy.from_mapping({HOST: [*pins, BACKUP]})


class Worker:
    """
    The running program.

    Attributes:
        lines: What it has said.
    """

    def __init__(self, process) -> None:
        self._process = process
        self.lines = []

    def says(self, condition):
        """Read until it says what satisfies *condition*."""
        end = time.monotonic() + PATIENCE
        for line in self._process.stdout:
            self.lines.append(line)
            if condition(line):
                return
            if time.monotonic() > end:
                break
        raise AssertionError(self.lines[-20:])

    def stop(self):
        """Ask it to end; its status."""
        self._process.send_signal(signal.SIGTERM)
        for _ in self._process.stdout:
            pass
        return self._process.wait(PATIENCE)


@pytest.fixture
def start(tmp_path, publisher, leaf, genuine, rogue):
    """Starts the worker in a directory as it would be shipped."""
    (tmp_path / "1.root.json").write_bytes(publisher.anchor)
    write_pins(tmp_path / "pins.toml", leaf.pin, BACKUP)
    with contextlib.ExitStack() as stack:
        trust = stack.enter_context(genuine.trust_file(rogue))

        def start(**environment):
            log = stack.enter_context((tmp_path / "worker.log").open("wb"))
            process = subprocess.Popen(
                command("worker.py", tmp_path),
                env=surroundings(trust, CONTROL_PLANE_CA=trust, PAUSE="0.05", **environment),
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            return Worker(process)

        yield start


@pytest.fixture
def publisher(tmp_path, leaf):
    return Publisher(tmp_path / "repository", first=pins_for(leaf.pin))


def test_worker(start, publisher, tmp_path, leaf, impostor, genuine):
    """A published change of the key costs no job; a stranger gets none; file and collector tell of both refusals."""
    renewed = genuine.issue(HOST, "127.0.0.1")
    receiver = genuine.issue("127.0.0.1")
    with (
        Site(leaf, publisher) as site,
        TLSServer(receiver.server_context()) as collector,
        TLSServer(leaf.server_context()) as server,
    ):
        worker = start(
            JOBS=server.url(path="/jobs"), CONTROL_PLANE=site.url, COLLECTOR=collector.url("127.0.0.1", "/pins")
        )
        worker.says(lambda line: line == "job: hello from GET /jobs HTTP/1.1\n")
        # The look that it begins with is over, or it would find the new key and nothing would ever be refused.
        worker.says(lambda _: any(path.startswith("targets/") for path in site.asked))

        publisher.publish(pins_for(leaf.pin, renewed.pin))
        shaken = server.seen.handshakes
        server.replace_context(renewed.server_context())
        server.hang_up()
        worker.says(lambda line: line.startswith("job: ") and server.seen.handshakes > shaken)
        assert not any(line.startswith("refused") for line in worker.lines)

        server.replace_context(impostor.server_context())
        shaken = server.seen.handshakes
        server.hang_up()
        worker.says(lambda line: line == "refused: localhost\n")
        assert server.seen.handshakes == shaken

        assert worker.stop() == 0
    written = [json.loads(line) for line in (tmp_path / "reports.jsonl").read_text().splitlines()]
    sent = [json.loads(body) for body in collector.seen.bodies]
    for reports in (written, sent):
        leaves = [ssl.PEM_cert_to_DER_cert(report["validated-certificate-chain"][0]) for report in reports]
        assert leaves == [renewed.chain[0], impostor.chain[0]]
        assert {(report["outcome"], report["decision"]) for report in reports} == {("mismatched", "refuse")}
