"""
The sinks, each with the real thing at the other end: a receiver in a process of its own, Sentry's and OpenTelemetry's SDK.
"""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
import stat
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from opentelemetry import trace
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from receiver import Receiver, receiver

from pinset import InputError, Outcome, Pinner, PinSet, Policy, evaluate
from pinset.reports import (
    CallbackReports,
    HTTPReports,
    JSONLinesReports,
    LogReports,
    OpenTelemetryReports,
    PinReport,
    Reporter,
)
from pinset.reports.http import _seconds
from pinset.testing import Authority, TLSServer

OTHER = "sha256/7HIpactkIAq2Y49orFOOQKurWxmmSFZhBCoQYcRhJ3Y="
SPARE = "sha256/fwza0LRMXouZHRC8Ei+4PyuldPDcf3UKgO/04cDM1oE="
IDENTITY = Authority("Sinks").issue("a.test")
NOW = datetime(2026, 6, 1, tzinfo=UTC)


def found(host="a.test", now=NOW, **fields):
    return evaluate(
        Policy((PinSet(**{"name": "**.test", "pins": [OTHER, SPARE], **fields}),)), host, IDENTITY.chain, now
    )


def counts(reporter: Reporter):
    return next(iter(reporter.counts.values()))


class TestLog:
    """`LogReports`."""

    @pytest.mark.parametrize(
        ("fields", "level", "beginning"),
        [
            ({}, "ERROR", "refused: a.test does not hold a pinned key\n  rule      **.test (enforce)"),
            ({"mode": "report-only"}, "WARNING", "not enforced: a.test does not hold a pinned key"),
            ({"mode": "report-only", "pins": [IDENTITY.pin]}, "INFO", "not enforced, and matched: a.test holds"),
            (
                {"pins": [IDENTITY.pin, OTHER], "expires": NOW, "on_expiry": "unpin"},
                "WARNING",
                "the pins have expired: ",
            ),
            (
                {"pins": [IDENTITY.pin, OTHER], "expires": NOW, "on_expiry": "enforce"},
                "WARNING",
                "the pins have expired: ",
            ),
            ({"pins": [IDENTITY.pin, OTHER], "expires": NOW, "on_expiry": "block"}, "ERROR", "refused: the pin set of"),
        ],
    )
    def test_levels_and_words(self, fields, level, beginning, caplog):
        """Refused is an error, let through a warning, a match in report-only mode for information."""
        with caplog.at_level(logging.DEBUG, "pinset.reports"), Reporter(LogReports()) as reporter:
            reporter.observe(found(**fields))
        [record] = caplog.records
        assert record.levelname == level
        assert record.getMessage().startswith(beginning)
        assert record.msg.endswith(": %s")
        assert record.getMessage().endswith(found(**fields).explain())

    def test_attributes(self, caplog):
        """The facts stand in the record, flat and of plain types."""
        with Reporter(LogReports()) as reporter:
            reporter.observe(found(), port=443)
        [record] = caplog.records
        extra = {name: value for name, value in vars(record).items() if name.startswith("pinset_")}
        assert extra == {
            "pinset_host": "a.test",
            "pinset_port": 443,
            "pinset_rule": "**.test",
            "pinset_mode": "enforce",
            "pinset_outcome": "mismatched",
            "pinset_decision": "refuse",
            "pinset_expired": False,
            "pinset_detail": "",
            "pinset_known_pins": [OTHER, SPARE],
            "pinset_seen_pins": [IDENTITY.pin, extra["pinset_seen_pins"][1]],
            "pinset_suppressed": 0,
        }
        assert json.loads(json.dumps(extra)) == extra

    def test_logger_and_levels_of_ones_own(self, caplog):
        """They are taken as given."""
        sink = LogReports(logging.getLogger("mine"), refused=10, let_through=20, matched=30)
        with caplog.at_level(logging.DEBUG, "mine"), Reporter(sink) as reporter:
            for fields in ({}, {"mode": "report-only"}, {"mode": "report-only", "pins": [IDENTITY.pin]}):
                reporter.observe(found(**fields))
        assert [(record.name, record.levelno) for record in caplog.records] == [
            ("mine", 10),
            ("mine", 20),
            ("mine", 30),
        ]

    def test_a_handler_that_blocks_holds_up_no_other_sink(self):
        """A pipe that nobody reads ends in the time limit; the other sinks go on."""
        release, heard = threading.Event(), []

        class Blocking(logging.Handler):
            def emit(self, _record: logging.LogRecord) -> None:
                release.wait(30)

        logger = logging.getLogger("blocking")
        logger.propagate = False
        logger.addHandler(Blocking())
        sinks = [LogReports(logger), CallbackReports(heard.append)]
        with Reporter(*sinks, attempts=1, timeout=0.1) as reporter:
            for host in ("a.test", "b.test"):
                reporter.observe(found(host))
            assert reporter.flush(10)
            assert reporter.counts["log"].failed == {"timeout": 2}
            assert len(heard) == 2
            release.set()

    def test_sentry(self, tmp_path: Path):
        """With sentry-sdk and nothing else, a refusal becomes an event with all facts, a let-through a breadcrumb."""
        with receiver(tmp_path) as server:
            program = (
                "import sentry_sdk, sys, logging\n"
                "from datetime import datetime, UTC\n"
                "from pinset import Pinner, PinSet, Policy\n"
                "sentry_sdk.init(dsn=sys.argv[1], default_integrations=True, transport_queue_size=10)\n"
                "sets = [PinSet(name='**.test', pins=['sha256/' + 'A' * 43 + '='], allow_single_pin=True),\n"
                "        PinSet(name='b.test', pins=['sha256/' + 'A' * 43 + '='], mode='report-only')]\n"
                "pinner = Pinner(Policy(tuple(sets)))\n"
                "for host in ('b.test', 'a.test', 'a.test'):\n"
                "    pinner.check(host, [bytes.fromhex(sys.argv[2])], port=443)\n"
                "assert pinner.reporter.flush(10)\n"
                "sentry_sdk.flush(10)\n"
            )
            dsn = f"http://key@127.0.0.1:{server.port}/1"
            subprocess.run([sys.executable, "-c", program, dsn, IDENTITY.chain[0].hex()], check=True, timeout=60)
            envelopes = server.seen("/api/1/envelope/")
        events = [json.loads(line) for one in envelopes for line in one["body"].splitlines() if b'"logentry"' in line]
        [event] = events
        assert (event["level"], event["logger"]) == ("error", "pinset.reports")
        assert event["logentry"]["message"] == "refused: %s"
        assert event["extra"]["pinset_host"] == "a.test"
        assert event["extra"]["pinset_seen_pins"] == [IDENTITY.pin]
        crumbs = [crumb for crumb in event["breadcrumbs"]["values"] if crumb["category"] == "pinset.reports"]
        assert [(crumb["level"], crumb["data"]["pinset_host"]) for crumb in crumbs] == [("warning", "b.test")]


class TestCallback:
    """`CallbackReports`."""

    def test_plain_and_async(self):
        """Functions, coroutine functions, objects with an async call, and functions that return something to await."""
        heard = []

        async def coroutine(report: PinReport) -> None:
            await asyncio.sleep(0)
            heard.append(("coroutine", report.hostname))

        class Called:
            async def __call__(self, report: PinReport) -> None:
                heard.append(("object", report.hostname))

        sinks = [
            CallbackReports(lambda report: heard.append(("plain", report.hostname)), name="plain"),
            CallbackReports(coroutine, name="coroutine"),
            CallbackReports(Called(), name="object"),
            CallbackReports(lambda report: coroutine(report), name="late"),  # noqa: PLW0108 - not a coroutine function
        ]
        with Reporter(*sinks) as reporter:
            reporter.observe(found())
            assert reporter.flush(10)
            assert all(one.sent == 1 for one in reporter.counts.values())
        assert sorted(heard) == [("coroutine", "a.test")] * 2 + [("object", "a.test"), ("plain", "a.test")]

    def test_matches_can_be_left_out(self):
        """A program that wants violations alone says so."""
        heard = []
        with Reporter(CallbackReports(heard.append, wants_matches=False)) as reporter:
            reporter.observe(found(mode="report-only", pins=[IDENTITY.pin]))
            reporter.observe(found(mode="report-only"))
        assert [report.is_violation for report in heard] == [True]


class TestJSONLines:
    """`JSONLinesReports`."""

    def test_one_document_a_line(self, tmp_path: Path):
        """Lines are appended, the file is for the owner alone, and a file that was moved away is made anew."""
        path = tmp_path / "pins.jsonl"
        with Reporter(JSONLinesReports(path)) as reporter:
            for host in ("a.test", "b.test"):
                reporter.observe(found(host), port=443)
            assert reporter.flush(10)
            path.rename(tmp_path / "old")
            reporter.observe(found("c.test"))
        lines = (tmp_path / "old").read_text().splitlines()
        assert [json.loads(line)["hostname"] for line in lines] == ["a.test", "b.test"]
        assert json.loads(lines[0]) == PinReport(verdict=found(), port=443).to_dict()
        assert json.loads(path.read_text())["hostname"] == "c.test"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600

    def test_processes_share_a_file(self, tmp_path: Path):
        """Lines of several processes do not mix."""
        program = (
            "import sys\n"
            "from pinset import Pinner, PinSet, Policy\n"
            "from pinset.reports import JSONLinesReports, Reporter\n"
            "policy = Policy((PinSet(name='**.test', pins=['sha256/' + 'A' * 43 + '='], mode='report-only'),))\n"
            "reporter = Reporter(JSONLinesReports(sys.argv[1]))\n"
            "pinner = Pinner(policy, observers=[reporter])\n"
            "for number in range(50):\n"
            "    pinner.check(f'{sys.argv[3]}{number}.test', [bytes.fromhex(sys.argv[2])])\n"
            "reporter.close(30)\n"
        )
        path = tmp_path / "pins.jsonl"
        command = [sys.executable, "-c", program, str(path), IDENTITY.chain[0].hex()]
        processes = [subprocess.Popen([*command, name]) for name in "xy"]
        assert [process.wait(60) for process in processes] == [0, 0]
        names = {json.loads(line)["hostname"] for line in path.read_text().splitlines()}
        assert names == {f"{name}{number}.test" for name in "xy" for number in range(50)}

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="a system without /dev/full")
    @pytest.mark.parametrize("path", ["/dev/full", "/nowhere/at/all"])
    def test_what_cannot_be_written(self, path):
        """A full disk and a missing directory are failures, counted."""
        with Reporter(JSONLinesReports(path)) as reporter:
            reporter.observe(found())
            assert reporter.flush(10)
            assert counts(reporter).failed == {"error": 1}

    def test_cut_short(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        """A line that was written in part is a failure, with its size."""
        import resource
        import signal

        path = tmp_path / "pins.jsonl"
        path.write_bytes(b"x" * 100)
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (150, limits[1]))
        try:
            with pytest.raises(OSError, match="only 50 of [0-9]+ bytes"):
                JSONLinesReports(path)._append(b"y" * 200)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, before)


@pytest.fixture(scope="module")
def reports_authority() -> Authority:
    """Vouches for the receiver, and for nothing else."""
    return Authority("Report receivers")


@pytest.fixture(scope="module")
def remote(reports_authority: Authority, tmp_path_factory: pytest.TempPathFactory):
    """A receiver behind TLS, in a process of its own."""
    identity = reports_authority.issue("localhost")
    with receiver(tmp_path_factory.mktemp("receiver"), identity, reports_authority.root_pem) as running:
        yield running


def http(remote: Receiver, path: str, **keywords) -> HTTPReports:
    keywords.setdefault("cafile", str(remote.cafile))
    return HTTPReports(remote.url(path), trust_env=False, **keywords)


class TestHTTP:
    """`HTTPReports`."""

    def test_sends_the_document(self, remote: Receiver):
        """One POST of JSON, with the headers asked for and no cookie, however often the receiver sets one."""
        with Reporter(http(remote, "/200", headers={"Authorization": "Bearer token"})) as reporter:
            reporter.observe(found(), port=443, served=lambda: IDENTITY.chain)
            reporter.observe(found("b.test"))
            reporter.close(10)
        assert counts(reporter).sent == 2
        first, second = remote.seen("/200")
        assert json.loads(first["body"]) == PinReport(verdict=found(), port=443, served_chain=IDENTITY.chain).to_dict()
        assert (first["method"], first["headers"]["content-type"]) == ("POST", "application/json")
        assert (first["headers"]["authorization"], first["headers"]["user-agent"]) == ("Bearer token", "pinset")
        assert "cookie" not in second["headers"]

    def test_matches_stay_at_home(self, remote: Receiver):
        """Violations alone are sent, unless all is asked for."""
        match = found(mode="report-only", pins=[IDENTITY.pin])
        sinks = [http(remote, "/200/1"), http(remote, "/200/2", wants_matches=True, name="all")]
        with Reporter(*sinks) as reporter:
            reporter.observe(match)
            reporter.close(10)
        assert [remote.reports(path) for path in ("/200/1", "/200/2")] == [[], [PinReport(verdict=match).to_dict()]]

    @pytest.mark.parametrize(
        ("path", "attempts", "failed"),
        [
            ("/503,200", 2, {}),
            ("/500,502,504,200", 4, {}),
            ("/429,200", 2, {}),
            ("/503", 4, {"server": 1}),
            ("/404", 1, {"rejected": 1}),
            ("/400", 1, {"rejected": 1}),
            ("/redirect", 1, {"rejected": 1}),
        ],
    )
    def test_answers(self, remote: Receiver, path, attempts, failed):
        """429 and 5xx are tried again; other answers are final, and no redirect is followed."""
        landed = len(remote.seen("/200"))
        with Reporter(http(remote, path), backoff=0) as reporter:
            reporter.observe(found())
            assert reporter.flush(20)
            assert counts(reporter).failed == failed
            assert counts(reporter).sent == (0 if failed else 1)
        assert len(remote.seen(path)) == attempts
        assert len(remote.seen("/200")) == landed

    def test_retry_after(self, remote: Receiver):
        """The receiver's patience is respected."""
        with Reporter(http(remote, "/429;1,200"), backoff=0) as reporter:
            reporter.observe(found())
            assert reporter.flush(20)
            assert counts(reporter).sent == 1
        first, second = remote.seen("/429;1,200")
        assert second["at"] - first["at"] >= 0.9

    @pytest.mark.parametrize(
        ("text", "seconds"),
        [("120", 120.0), ("0", 0.0), ("", None), ("soon", None), ("-5", None), ("1.5", None), ("²", None)],
    )
    def test_retry_after_in_seconds(self, text, seconds):
        """A whole number of seconds; anything else that is no date says nothing."""
        assert _seconds(text) == seconds

    def test_retry_after_as_a_date(self):
        """An instant in any of the spellings; one that has passed means now."""
        later = datetime.now(UTC) + timedelta(seconds=90)
        for text in (format_datetime(later, usegmt=True), format_datetime(later.replace(tzinfo=None))):
            assert 80 < _seconds(text) <= 90
        assert _seconds("Sun, 06 Nov 1994 08:49:37 GMT") == 0.0

    def test_an_endless_answer(self, remote: Receiver):
        """Only the status is waited for."""
        with Reporter(http(remote, "/endless"), attempts=1) as reporter:
            reporter.observe(found())
            assert reporter.flush(10)
            assert counts(reporter).sent == 1

    def test_no_answer(self, remote: Receiver):
        """A receiver that hangs ends in the time limit."""
        with Reporter(http(remote, "/hang"), attempts=1, timeout=0.3) as reporter:
            reporter.observe(found())
            assert reporter.flush(10)
            assert counts(reporter).failed == {"timeout": 1}
        assert len(remote.seen("/hang")) == 1

    def test_cancelled_handshake_leaks_nothing(self, remote: Receiver):
        """A receiver that never answers the ClientHello costs the time limit, and no socket stays open."""
        import socket

        with socket.create_server(("127.0.0.1", 0)) as silent:
            sink = HTTPReports(
                f"https://localhost:{silent.getsockname()[1]}/", cafile=str(remote.cafile), trust_env=False
            )
            with Reporter(sink, attempts=1, timeout=0.3) as reporter:
                reporter.observe(found())
                assert reporter.flush(10)
                assert counts(reporter).failed == {"timeout": 1}
            connection, _ = silent.accept()
            connection.settimeout(10)
            with connection:
                while connection.recv(65536):
                    pass  # the ClientHello; then the end, without which this would time out

    def test_nobody_there(self, remote: Receiver):
        """A port that nobody listens on is tried again, then counted."""
        import socket

        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
        sink = HTTPReports(f"https://localhost:{port}/", cafile=str(remote.cafile), trust_env=False)
        with Reporter(sink, attempts=3, backoff=0) as reporter:
            reporter.observe(found())
            assert reporter.flush(10)
            assert counts(reporter).failed == {"transport": 1}

    @pytest.mark.parametrize("case", ["intercepted", "expired", "other name"])
    def test_only_verified(self, case, tmp_path: Path):
        """A receiver that does not prove who it is gets nothing: no byte, no second attempt, no fallback."""
        trusted, stranger = Authority("Trusted"), Authority("Stranger")
        (tmp_path / "root.pem").write_text(trusted.root_pem)
        issuer = stranger if case == "intercepted" else trusted
        identity = issuer.issue("other.test" if case == "other name" else "localhost", expired=case == "expired")
        with TLSServer(identity.server_context()) as server:
            sink = HTTPReports(server.url(), cafile=str(tmp_path / "root.pem"), trust_env=False)
            with Reporter(sink, backoff=0) as reporter:
                reporter.observe(found())
                assert reporter.flush(10)
                assert counts(reporter).failed == {"tls": 1}
            assert server.seen.connections == 1
            assert server.seen.application_data == b""

    def test_not_pinned(self, remote: Receiver):
        """Reports reach a receiver whose own key is pinned wrongly: the report client has no pins."""
        policy = Policy((PinSet(name="localhost", pins=[OTHER, SPARE]),))
        pinner = Pinner(policy, observers=[http(remote, "/200/3")])
        assert pinner.check("localhost", IDENTITY.chain).verdict.outcome is Outcome.MISMATCHED
        assert pinner.reporter.flush(10)
        assert [report["hostname"] for report in remote.reports("/200/3")] == ["localhost"]

    def test_default_trust(self, remote: Receiver, monkeypatch: pytest.MonkeyPatch):
        """Without CA files of its own it trusts what httpx trusts, the environment included."""
        monkeypatch.setenv("SSL_CERT_FILE", str(remote.cafile))
        with Reporter(HTTPReports(remote.url("/200/4"))) as reporter:
            reporter.observe(found())
            reporter.close(20)
            assert counts(reporter).sent == 1
        monkeypatch.delenv("SSL_CERT_FILE")
        with Reporter(HTTPReports(remote.url("/200/4"))) as reporter:
            reporter.observe(found())
            assert reporter.flush(20)
            assert counts(reporter).failed == {"tls": 1}

    def test_through_a_proxy(self, remote: Receiver):
        """The receiver can be reached through a proxy; what it cannot read it cannot swallow unnoticed."""
        from pinset.testing import Interceptor

        stranger = Authority("Proxy")
        upstream = ssl.create_default_context(cafile=str(remote.cafile))
        with Interceptor(stranger, upstream=upstream) as proxy:
            with Reporter(http(remote, "/200/5", proxy=proxy.url), backoff=0) as reporter:
                reporter.observe(found())
                assert reporter.flush(10)
                assert counts(reporter).failed == {"tls": 1}
        assert proxy.refused == {"localhost": 1}

    @pytest.mark.parametrize(
        ("url", "message"),
        [
            ("http://reports.example.net/", "never sent in the clear"),
            ("reports.example.net", "is not an https URL"),
            ("https:///path", "reports cannot be sent to"),
            ("https://127.1/", "reports cannot be sent to"),
        ],
    )
    def test_urls_that_are_refused(self, url, message):
        """Only https, and a host that has a name."""
        with pytest.raises(InputError, match=message):
            HTTPReports(url)

    def test_host_is_canonical(self):
        """The host is compared with the rules in its canonical form."""
        assert (
            HTTPReports("https://Reports.Example.NET:8443/x", cadata=Authority("x").root_pem).host
            == "reports.example.net"
        )


class TestOpenTelemetry:
    """`OpenTelemetryReports`."""

    @staticmethod
    def points(reader: InMemoryMetricReader, name: str) -> list:
        [resource] = reader.get_metrics_data().resource_metrics
        [scope] = resource.scope_metrics
        assert scope.scope.name == "pinset"
        return [point for metric in scope.metrics if metric.name == name for point in metric.data.data_points]

    def test_metrics(self):
        """Every check is counted and timed, by rule, mode, outcome and decision."""
        reader = InMemoryMetricReader()
        provider = MeterProvider([reader])
        pinner = Pinner(
            Policy((PinSet(name="**.test", pins=[IDENTITY.pin, OTHER]), PinSet(name="b.test", pins=[OTHER, SPARE]))),
            observers=[OpenTelemetryReports(meter_provider=provider)],
        )
        for host in ("a.test", "c.test", "b.test", "unlisted.org"):
            pinner.check(host, IDENTITY.chain)
        attributes = {
            ("**.test", "enforce", "matched", "allow"): 2,
            ("b.test", "enforce", "mismatched", "refuse"): 1,
            ("", "", "unlisted", "refuse"): 1,
        }
        keys = ("pinset.rule", "pinset.mode", "pinset.outcome", "pinset.decision")
        counted = {tuple(p.attributes[key] for key in keys): p.value for p in self.points(reader, "pinset.checks")}
        assert counted == attributes
        timed = {tuple(p.attributes[key] for key in keys): p for p in self.points(reader, "pinset.check.duration")}
        assert {key: point.count for key, point in timed.items()} == attributes
        assert all(0 < point.sum < 10 and point.explicit_bounds[0] == 1e-6 for point in timed.values())
        provider.shutdown()

    def test_event(self):
        """A report is an event in the trace of the request, without attributes of ``tls.*``."""
        exporter = InMemoryLogRecordExporter()
        logs = LoggerProvider()
        logs.add_log_record_processor(SimpleLogRecordProcessor(exporter))
        tracer = TracerProvider().get_tracer("test")
        sink = OpenTelemetryReports(logger_provider=logs)
        with Reporter(sink) as reporter, tracer.start_as_current_span("request") as span:
            reporter.observe(found(), port=443)
            reporter.observe(found("b.test", mode="report-only"))
            reporter.observe(found("c.test", mode="report-only", pins=[IDENTITY.pin]))
            assert reporter.flush(10)
        records = [one.log_record for one in exporter.get_finished_logs()]
        assert [record.event_name for record in records] == ["pinset.violation"] * 2 + ["pinset.unenforced"]
        assert [record.severity_number.name for record in records] == ["ERROR", "WARN", "INFO"]
        assert {record.trace_id for record in records} == {span.get_span_context().trace_id}
        attributes = dict(records[0].attributes)
        assert attributes == {
            "server.address": "a.test",
            "server.port": 443,
            "error.type": "mismatched",
            "pinset.rule": "**.test",
            "pinset.mode": "enforce",
            "pinset.outcome": "mismatched",
            "pinset.decision": "refuse",
            "pinset.expired": False,
            "pinset.known_pins": (OTHER, SPARE),
            "pinset.seen_pins": attributes["pinset.seen_pins"],
            "pinset.suppressed": 0,
        }
        assert attributes["pinset.seen_pins"][0] == IDENTITY.pin
        assert records[0].timestamp == int(NOW.timestamp()) * 10**9
        assert records[0].body == found().explain()
        assert "error.type" not in records[2].attributes
        assert not [name for record in records for name in record.attributes if name.startswith("tls.")]
        logs.shutdown()

    def test_without_an_sdk(self):
        """With the API alone it does nothing, and costs next to nothing."""
        assert not isinstance(trace.get_tracer_provider(), TracerProvider)
        with Reporter(OpenTelemetryReports()) as reporter:
            reporter.observe(found())
            assert reporter.flush(10)
            assert counts(reporter).sent == 1

    def test_without_the_api(self):
        """The error names the extra."""
        program = (
            "import sys\n"
            "sys.modules['opentelemetry'] = None\n"
            "from pinset import InputError\n"
            "from pinset.reports import OpenTelemetryReports\n"
            "try:\n"
            "    OpenTelemetryReports()\n"
            "except InputError as error:\n"
            "    print(error)\n"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
        assert done.stdout == "OpenTelemetryReports needs the OpenTelemetry API: pip install 'pinset[otel]'\n"


def test_extras_are_loaded_when_used():
    """Importing pinset.reports loads neither OpenTelemetry nor asyncio."""
    code = "import sys, pinset.reports; print(*(m for m in ('opentelemetry', 'asyncio', 'anyio') if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == ""
