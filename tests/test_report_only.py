"""
Report-only mode from end to end: a pinned client, a real server, and a receiver in a process of its own.
"""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from conftest import BACKUP, HOST
from receiver import Receiver, receiver

from pinset import Outcome, PinMismatchError, PinnedAsyncClient, Pinner, PinSet, Policy
from pinset.reports import CallbackReports, HTTPReports, Reporter
from pinset.testing import Authority, TLSServer

WRONG = "sha256/7HIpactkIAq2Y49orFOOQKurWxmmSFZhBCoQYcRhJ3Y="


@pytest.fixture
def remote(tmp_path: Path, genuine: Authority):
    """A receiver of reports."""
    with receiver(tmp_path, genuine.issue("localhost", "127.0.0.1"), genuine.root_pem) as running:
        yield running


def sent_to(remote: Receiver, path: str, **keywords) -> HTTPReports:
    return HTTPReports(remote.url(path, "127.0.0.1"), cafile=str(remote.cafile), trust_env=False, **keywords)


def policy(**fields) -> Policy:
    return Policy((PinSet(**{"name": HOST, "pins": [WRONG, BACKUP], **fields}),))


async def get(pinner: Pinner, server: TLSServer, context, times: int = 1) -> httpx.Response:
    async with PinnedAsyncClient(pinner, verify=context, timeout=10) as client:
        for _ in range(times):
            response = await client.get(server.url(HOST), headers={"Connection": "close"})
    return response


def test_a_mismatch_is_reported_and_let_through(remote: Receiver, leaf, genuine, caplog):
    """Three requests pass; one report arrives, one warning is logged, and the numbers tell of all three."""
    pinner = Pinner(policy(mode="report-only"), observers=[sent_to(remote, "/200/1")])
    with TLSServer(leaf.server_context()) as server:
        response = asyncio.run(get(pinner, server, genuine.client_context(), times=3))
    assert response.status_code == 200
    assert response.extensions["pinset"].outcome is Outcome.MISMATCHED
    assert pinner.reporter.flush(10)
    [report] = remote.reports("/200/1")
    assert (report["hostname"], report["enforce-pinning"], report["validation-result"]) == (HOST, False, 1)
    assert report["outcome"] == "mismatched"
    assert len(report["validated-certificate-chain"]) == 3
    assert [record.levelname for record in caplog.records if record.name == "pinset.reports"] == ["WARNING"]
    [((rule, outcome, decision), number)] = pinner.reporter.checks.items()
    assert (rule, outcome, decision, number) == (HOST, "mismatched", "report", 3)
    counts = pinner.reporter.counts["http"]
    assert (counts.submitted, counts.sent, counts.deduplicated) == (3, 1, 2)


def test_the_same_one_is_refused_once_the_rule_is_enforced(remote: Receiver, leaf, genuine):
    """Turning the mode is all it takes: the next connection is refused, and reported as enforced."""
    pinner = Pinner(policy(mode="report-only"), observers=[sent_to(remote, "/200/2")])
    with TLSServer(leaf.server_context()) as server:
        asyncio.run(get(pinner, server, genuine.client_context()))
        pinner.replace(policy())
        with pytest.raises(PinMismatchError):
            asyncio.run(get(pinner, server, genuine.client_context()))
    assert pinner.reporter.flush(10)
    assert [report["enforce-pinning"] for report in remote.reports("/200/2")] == [False, True]


@pytest.mark.parametrize("case", ["stranger", "expired", "other name"])
def test_verification_is_never_report_only(case, genuine, rogue):
    """CA path, expiry and host name are enforced in report-only mode too."""
    identity = {
        "stranger": lambda: rogue.issue(HOST),
        "expired": lambda: genuine.issue(HOST, expired=True),
        "other name": lambda: genuine.issue("other.test"),
    }[case]()
    pinner = Pinner(policy(mode="report-only"))
    with TLSServer(identity.server_context()) as server:
        with pytest.raises(httpx.ConnectError, match="certificate verify failed"):
            asyncio.run(get(pinner, server, genuine.client_context()))
        assert server.seen.application_data == b""


def test_an_expired_rule_is_not_silent(leaf, genuine, caplog):
    """Pins that have expired match and are no longer enforced: the log says so, for the first of many connections."""
    expired = policy(pins=[leaf.pin, BACKUP], expires=datetime.now(UTC) - timedelta(days=1), on_expiry="unpin")
    pinner = Pinner(expired)
    with TLSServer(leaf.server_context()) as server:
        asyncio.run(get(pinner, server, genuine.client_context(), times=2))
    assert pinner.reporter.flush(10)
    [record] = [record for record in caplog.records if record.name == "pinset.reports"]
    assert (record.levelno, record.pinset_expired, record.pinset_outcome) == (logging.WARNING, True, "matched")
    assert pinner.reporter.counts["log"].submitted == 2


def test_an_excluded_host_is_not_reported(leaf, genuine):
    """``off`` excludes: no pins, no report."""
    excluded = Policy((PinSet(name=f"**.{HOST}", pins=[WRONG, BACKUP]), PinSet(name=HOST, mode="off")))
    heard = []
    pinner = Pinner(excluded, observers=[CallbackReports(heard.append)])
    with TLSServer(leaf.server_context()) as server:
        assert asyncio.run(get(pinner, server, genuine.client_context())).status_code == 200
    assert pinner.reporter.flush(10)
    assert heard == []


def test_a_receiver_that_hangs_holds_up_no_request(remote: Receiver, leaf, genuine):
    """Requests and the end of the program are done while the report still waits for an answer."""
    reporter = Reporter(sent_to(remote, "/hang"), timeout=60)
    pinner = Pinner(policy(mode="report-only"), observers=[reporter])
    with TLSServer(leaf.server_context()) as server:
        assert asyncio.run(get(pinner, server, genuine.client_context(), times=3)).status_code == 200
    assert reporter.counts["http"].pending == 1
    reporter.close(0.1)
    assert reporter.counts["http"].dropped == {"closed": 1}


def test_reports_about_each_other(remote: Receiver, leaf, genuine):
    """A callback that tells of a violation over a pinned client, and meets one there, does not go round in circles."""
    with TLSServer(leaf.server_context()) as server:

        async def tell(report) -> None:
            await get(pinner, server, genuine.client_context())

        pinner = Pinner(policy(mode="report-only"), observers=[Reporter(CallbackReports(tell))])
        asyncio.run(get(pinner, server, genuine.client_context()))
        assert pinner.reporter.flush(10)
        assert len(server.seen.requests) == 2
    counts = pinner.reporter.counts["callback"]
    assert (counts.sent, counts.dropped) == (1, {"recursion": 1})


def test_concurrent_clients_on_several_loops(remote: Receiver, leaf, genuine):
    """One pinner for clients on four event loops in four threads: one report, and every check counted."""
    import threading

    pinner = Pinner(policy(mode="report-only"), observers=[sent_to(remote, "/200/3")])
    with TLSServer(leaf.server_context()) as server:

        def client() -> None:
            asyncio.run(get(pinner, server, genuine.client_context(), times=5))

        threads = [threading.Thread(target=client) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert pinner.reporter.flush(10)
    assert sum(pinner.reporter.checks.values()) == 20
    assert len(remote.reports("/200/3")) == 1


def test_collector_that_knows_rfc_7469(remote: Receiver, leaf, genuine):
    """What arrives is read by the RFC's words alone: times, chains and pins mean what they say there."""
    import ssl

    pinner = Pinner(policy(mode="report-only"), observers=[sent_to(remote, "/200/4")])
    with TLSServer(leaf.server_context()) as server:
        asyncio.run(get(pinner, server, genuine.client_context()))
    assert pinner.reporter.flush(10)
    [request] = remote.seen("/200/4")
    document = json.loads(request["body"])
    at = datetime.strptime(document["date-time"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    assert abs(at.timestamp() - time.time()) < 3600
    assert ssl.PEM_cert_to_DER_cert(document["validated-certificate-chain"][0]) == leaf.chain[0]
    assert document["known-pins"] == [f'pin-sha256="{pin.removeprefix("sha256/")}"' for pin in (WRONG, BACKUP)]


def test_the_example():
    """The example of the documentation shows what it says."""
    example = Path(__file__).parent.parent / "docs" / "examples" / "roll_out.py"
    done = subprocess.run([sys.executable, str(example)], capture_output=True, text=True, timeout=60, check=True)
    lines = done.stdout.splitlines()
    assert done.stderr == ""
    assert "  checks   localhost: mismatched, report: 3" in lines
    assert "  received POST / HTTP/1.1" in lines
    assert lines[-5:] == [
        "  checks   localhost: matched, allow: 1",
        "  checks   localhost: mismatched, refuse: 1",
        "  reports  http: 1 sent, 0 the same, {} failed",
        "  reports  callback: 2 sent, 0 the same, {} failed",
        "  reports  log: 2 sent, 0 the same, {} failed",
    ]
