"""
The engine: what comes in is sent, a duplicate, dropped or failed, whoever hangs, closes, cancels, forks or exits.
"""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import gc
import logging
import os
import subprocess
import sys
import threading
import weakref
from datetime import UTC, datetime

import anyio
import pytest

from pinset import Decision, InputError, Outcome, Pinner, PinSet, Policy, evaluate
from pinset._evaluate import refuse
from pinset.reports import CallbackReports, PinReport, Reporter, ReportSink, SinkError, TryAgainError
from pinset.testing import Authority

OTHER = "sha256/7HIpactkIAq2Y49orFOOQKurWxmmSFZhBCoQYcRhJ3Y="
SPARE = "sha256/fwza0LRMXouZHRC8Ei+4PyuldPDcf3UKgO/04cDM1oE="
IDENTITY = Authority("Reporter").issue("a.test")
CHAIN = IDENTITY.chain
NOW = datetime(2026, 6, 1, tzinfo=UTC)
DAY = 86400


def policy(**fields) -> Policy:
    return Policy((PinSet(**{"name": "**.test", "pins": [OTHER, SPARE], **fields}),))


def violation(number: int = 0, at: datetime = NOW, **fields):
    return evaluate(policy(**fields), f"h{number}.test", CHAIN, at)


class Kept(ReportSink):
    """A sink that keeps what it is given, and first does what it is told."""

    def __init__(self, first=None, name="kept") -> None:
        self.name, self._first, self.reports, self.calls = name, first, [], 0

    async def deliver(self, report) -> None:
        self.calls += 1
        if self._first is not None:
            await self._first(self.calls)
        self.reports.append(report)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


async def hang(_number) -> None:
    await asyncio.Event().wait()


def adds_up(reporter: Reporter) -> bool:
    return all(
        counts.submitted
        == counts.sent
        + counts.deduplicated
        + sum(counts.dropped.values())
        + sum(counts.failed.values())
        + counts.pending
        for counts in reporter.counts.values()
    )


def test_a_report_arrives():
    """A violation reaches every sink, with what was known of it."""
    one, two = Kept(name="one"), Kept(name="two")
    with Reporter(one, two) as reporter:
        reporter.observe(violation(), port=443, served=lambda: [b"served"])
        assert reporter.flush(10)
        assert one.reports == two.reports
        [report] = one.reports
        assert (report.hostname, report.port, report.served_chain) == ("h0.test", 443, (b"served",))
        assert [counts.sent for counts in reporter.counts.values()] == [1, 1]
        assert repr(reporter) == "<Reporter sinks=one, two>"


def test_a_hundred_thousand_identical_ones():
    """One is sent, and all the others are counted."""
    sink = Kept()
    with Reporter(sink) as reporter:
        for _ in range(100_000):
            reporter(violation_once)
        assert reporter.flush(10)
        counts = reporter.counts["kept"]
        assert (counts.submitted, counts.sent, counts.deduplicated) == (100_000, 1, 99_999)
        assert (counts.dropped, counts.failed, counts.pending) == ({}, {}, 0)
        assert reporter.checks == {("**.test", Outcome.MISMATCHED, Decision.REFUSE): 100_000}


violation_once = violation()


def test_held_back_ones_are_told_of():
    """After a day the same report goes out again, and says how many were held back."""
    clock, sink = Clock(), Kept()
    with Reporter(sink, clock=clock) as reporter:
        for _ in range(5):
            reporter.observe(violation())
        clock.now += DAY - 1
        reporter.observe(violation())
        clock.now += 1
        reporter.observe(violation())
        assert reporter.flush(10)
        assert [report.suppressed for report in sink.reports] == [0, 5]


@pytest.mark.parametrize(
    "other",
    [
        violation(1),
        violation(mode="report-only"),
        violation(name="**.h0.test"),
        violation(pins=[OTHER, IDENTITY.pin.replace(IDENTITY.pin[7:9], "AA")]),
        violation(expires=NOW, on_expiry="enforce"),
        evaluate(policy(), "h0.test", CHAIN[:1], NOW),
        refuse(policy(), "h0.test", NOW, outcome=Outcome.UNVERIFIED, detail="self-signed"),
    ],
)
def test_what_makes_reports_differ(other):
    """Host, rule, pins, chain, finding and decision: another of these is another report."""
    sink = Kept()
    with Reporter(sink) as reporter:
        for found in (violation(), other, violation(), other):
            reporter.observe(found)
        assert reporter.flush(10)
        assert len(sink.reports) == 2


def test_what_does_not_make_them_differ():
    """Neither the instant, nor a policy that was loaded anew, nor the detail of a failed check."""
    sink = Kept()
    with Reporter(sink) as reporter:
        for second in range(5):
            reporter.observe(violation(at=datetime(2026, 6, 1, 0, 0, second, tzinfo=UTC)))
        for detail in "abc":
            reporter.observe(refuse(policy(), "h0.test", NOW, outcome=Outcome.FAILED, detail=f"at 0x{detail}"))
        assert reporter.flush(10)
        assert len(sink.reports) == 2


def test_port_makes_them_differ():
    """The same host on another port is another server."""
    sink = Kept()
    with Reporter(sink) as reporter:
        for port in (443, 8443, 443):
            reporter.observe(violation_once, port=port)
        assert reporter.flush(10)
        assert [report.port for report in sink.reports] == [443, 8443]


def test_findings_under_one_rule():
    """Under one and the same rule, findings differ by what OpenSSL said, and checks without a rule by what was decided."""
    sink, listed = Kept(), policy()
    with Reporter(sink) as reporter:
        for detail in ("expired", "self-signed", "expired"):
            reporter.observe(refuse(listed, "h0.test", NOW, outcome=Outcome.UNVERIFIED, detail=detail))
        for unlisted in ("deny", "allow"):
            reporter.observe(evaluate(Policy(listed.pin_sets, unlisted), "other.org", CHAIN, NOW))
        assert reporter.flush(10)
        assert [report.verdict.detail for report in sink.reports] == ["expired", "self-signed"]
        assert reporter.checks == {
            ("**.test", Outcome.UNVERIFIED, Decision.REFUSE): 3,
            ("", Outcome.UNLISTED, Decision.REFUSE): 1,
            ("", Outcome.UNLISTED, Decision.ALLOW): 1,
        }


def test_findings_are_bounded():
    """However many hosts there are, memory is bounded and duplicates are still known for the last thousand."""
    sink = Kept()
    with Reporter(sink, queue=5000) as reporter:
        for number in range(2000):
            reporter.observe(violation(number))
        reporter.observe(violation(1999))
        assert len(reporter._findings) <= 1024
        assert reporter.flush(30)
        assert reporter.counts["kept"].deduplicated == 1
        assert len(sink.reports) == 2000


def test_checks_are_counted_by_rule():
    """Matches are counted too, by rule, outcome and decision; hosts without a rule under no name."""
    with Reporter() as reporter:
        good = policy(pins=[IDENTITY.pin, SPARE])
        for host in ("a.test", "b.test", "c.other"):
            reporter.observe(evaluate(good, host, CHAIN, NOW))
        assert reporter.checks == {
            ("**.test", Outcome.MATCHED, Decision.ALLOW): 2,
            ("", Outcome.UNLISTED, Decision.REFUSE): 1,
        }


def test_matches_go_only_where_they_are_wanted():
    """A match under a rule that only reports goes to sinks that want it; for others it was never submitted."""
    wants, wants_not = Kept(name="wants"), Kept(name="wants-not")
    wants_not.wants_matches = False
    with Reporter(wants, wants_not) as reporter:
        reporter.observe(violation(mode="report-only", pins=[IDENTITY.pin]))
        assert reporter.flush(10)
        assert (len(wants.reports), len(wants_not.reports)) == (1, 0)
        assert reporter.counts["wants-not"].submitted == 0


def test_queue_full():
    """What comes when the queue is full is dropped and counted, and its kind is let through later."""
    release = threading.Event()

    async def wait(_number) -> None:
        await asyncio.to_thread(release.wait, 30)

    sink = Kept(wait)
    with Reporter(sink, queue=2) as reporter:
        for number in range(10):
            reporter.observe(violation(number))
        counts = reporter.counts["kept"]
        assert counts.dropped["queue-full"] >= 7
        assert counts.pending in {2, 3}
        release.set()
        assert reporter.flush(10)
        reporter.observe(violation(9))
        assert reporter.flush(10)
        assert sink.reports[-1].hostname == "h9.test"
        assert sink.reports[-1].suppressed == 1
        assert adds_up(reporter)


def test_a_hung_sink_holds_up_no_other():
    """Each sink has its own queue and its own time limit."""
    stuck, well = Kept(hang, name="stuck"), Kept(name="well")
    with Reporter(stuck, well, timeout=0.05, attempts=1) as reporter:
        for number in range(3):
            reporter.observe(violation(number))
        assert reporter.flush(10)
        assert len(well.reports) == 3
        assert reporter.counts["stuck"].failed == {"timeout": 3}


def test_a_blocking_callback_holds_up_no_other():
    """A plain function that never returns has a thread to itself; the time limit holds for it too."""
    release = threading.Event()
    well = Kept(name="well")
    with Reporter(
        CallbackReports(lambda _report: release.wait(30)), well, timeout=0.05, attempts=2, backoff=0
    ) as reporter:
        for number in range(3):
            reporter.observe(violation(number))
        assert reporter.flush(10)
        assert len(well.reports) == 3
        assert reporter.counts["callback"].failed == {"timeout": 3}
        assert sum(thread.name == "pinset-callback" for thread in threading.enumerate()) == 1
        release.set()


@pytest.mark.parametrize(
    ("error", "calls", "reason"),
    [
        (TryAgainError("server", "503"), 4, "server"),
        (SinkError("rejected", "404"), 1, "rejected"),
        (ValueError("bad"), 1, "error"),
        (asyncio.CancelledError(), 1, "error"),
    ],
)
def test_what_is_tried_again(error, calls, reason, caplog):
    """Only what may be; a report that is lost is counted by reason and said in the log."""

    async def fail(_number) -> None:
        raise error

    sink = Kept(fail)
    with Reporter(sink, backoff=0) as reporter:
        reporter.observe(violation())
        assert reporter.flush(10)
        assert sink.calls == calls
        assert reporter.counts["kept"].failed == {reason: 1}
    [record] = caplog.records
    assert record.getMessage().startswith(f"a report to kept was lost ({reason}): ")
    assert (record.name, record.levelname) == ("pinset.reports", "WARNING")


def wait_for(condition) -> None:
    """Poll *condition*, ten seconds at most."""
    patience = threading.Event()
    for _ in range(1000):
        if condition():
            return
        patience.wait(0.01)
    pytest.fail("it never came to pass")


def test_succeeds_in_the_end():
    """A report that is taken at the third attempt is sent once."""

    async def fail_twice(number) -> None:
        if number <= 2:
            raise TryAgainError("server", "503", after=0.01)

    sink = Kept(fail_twice)
    with Reporter(sink, backoff=0) as reporter:
        reporter.observe(violation())
        assert reporter.flush(10)
        assert (sink.calls, len(sink.reports), reporter.counts["kept"].sent) == (3, 1, 1)


def test_patience_that_is_asked_for():
    """``after`` is waited for when it is longer than the back-off, and the back-off when that is longer."""
    instants = []

    async def fail(number) -> None:
        instants.append(asyncio.get_running_loop().time())
        if number == 1:
            raise TryAgainError("server", "429", after=0.3)
        if number == 2:
            raise TryAgainError("server", "429", after=0.0)

    with Reporter(Kept(fail), backoff=0.2) as reporter:
        reporter.observe(violation())
        assert reporter.flush(10)
    assert instants[1] - instants[0] >= 0.29
    assert instants[2] - instants[1] >= 0.19


def test_a_lost_report_does_not_silence_its_kind():
    """Five minutes after a loss the next is tried, and tells of the lost one and of those held back."""
    clock, broken = Clock(), [True]

    async def maybe(_number) -> None:
        if broken[0]:
            raise SinkError("tls", "intercepted")

    sink = Kept(maybe)
    with Reporter(sink, clock=clock) as reporter:
        reporter.observe(violation())
        assert reporter.flush(10)
        broken[0] = False
        reporter.observe(violation())
        clock.now += 299
        reporter.observe(violation())
        assert reporter.flush(10)
        assert sink.reports == []
        clock.now += 1
        reporter.observe(violation())
        assert reporter.flush(10)
        assert [report.suppressed for report in sink.reports] == [3]
        assert adds_up(reporter)


def test_sink_that_would_end_the_process(caplog):
    """SystemExit in a sink is a failure like another; the other sinks go on."""

    async def leave(_number) -> None:
        raise SystemExit(3)

    def leave_at_once(_report) -> None:
        raise SystemExit(4)

    well = Kept(name="well")
    with Reporter(Kept(leave), CallbackReports(leave_at_once), well) as reporter:
        reporter.observe(violation())
        assert reporter.flush(10)
        reporter.observe(violation(1))
        assert reporter.flush(10)
        assert len(well.reports) == 2
        assert reporter.counts["kept"].failed == reporter.counts["callback"].failed == {"error": 2}


def test_violation_while_reporting_is_never_reported():
    """What a sink meets while it delivers is counted as dropped, in whatever task or thread it works."""
    pinner = Pinner(policy())

    async def connect(_number) -> None:
        pinner.check("reports.test", CHAIN)
        await asyncio.create_task(asyncio.to_thread(pinner.check, "reports.test", CHAIN))

    kept = Kept(connect)
    blocking = CallbackReports(lambda _report: pinner.check("reports.test", CHAIN))
    pinner = Pinner(policy(), observers=[Reporter(kept, blocking)])
    pinner.check("a.test", CHAIN)
    assert pinner.reporter.flush(10)
    assert [report.hostname for report in kept.reports] == ["a.test"]
    for counts in pinner.reporter.counts.values():
        assert (counts.submitted, counts.sent, counts.dropped) == (4, 1, {"recursion": 3})
    assert adds_up(pinner.reporter)


def test_context_of_the_caller():
    """A sink runs in the context of the request, for logs and traces."""
    request = contextvars.ContextVar("request", default="none")
    heard = []
    with Reporter(CallbackReports(lambda _report: heard.append(request.get()))) as reporter:
        request.set("one")
        reporter.observe(violation())
        request.set("two")
        assert reporter.flush(10)
        assert heard == ["one"]


class TestClose:
    """Closing takes its budget at most, and everything is accounted for."""

    def test_flushes(self):
        """What is pending is delivered, and nothing is taken any more."""

        async def slow(_number) -> None:
            await asyncio.sleep(0.01)

        sink = Kept(slow)
        reporter = Reporter(sink)
        for number in range(20):
            reporter.observe(violation(number))
        reporter.close(10)
        assert len(sink.reports) == 20
        reporter.observe(violation(99))
        counts = reporter.counts["kept"]
        assert (counts.submitted, counts.sent, counts.dropped, counts.pending) == (21, 20, {"closed": 1}, 0)
        reporter.close()

    def test_gives_up(self):
        """What hangs is dropped when the budget is spent, and the attempt under way is ended."""
        ended = threading.Event()

        async def stuck(_number) -> None:
            try:
                await hang(_number)
            finally:
                ended.set()

        reporter = Reporter(Kept(stuck), timeout=60)
        for number in range(5):
            reporter.observe(violation(number))
        reporter.close(0.05)
        counts = reporter.counts["kept"]
        assert (counts.submitted, counts.dropped, counts.pending) == (5, {"closed": 5}, 0)
        assert ended.wait(10)

    def test_late_arrival_is_not_counted_twice(self):
        """A sink that ignores its cancellation and succeeds after the end changes no counter."""
        release, done = threading.Event(), threading.Event()

        async def stubborn(_number) -> None:
            while not release.is_set():
                try:
                    await asyncio.sleep(0.01)
                except asyncio.CancelledError:
                    continue
            done.set()

        reporter = Reporter(Kept(stubborn), timeout=60)
        reporter.observe(violation())
        reporter.close(0.05)
        release.set()
        assert done.wait(10)
        wait_for(lambda: reporter._lanes[0]._task is None)
        assert reporter.counts["kept"].dropped == {"closed": 1}
        assert adds_up(reporter)

    def test_between_admission_and_queue(self):
        """A report that was admitted when the end came is counted as closed."""
        reporter = Reporter(Kept())
        [lane] = reporter._lanes
        assert lane.admit(b"kind") == 0
        assert not reporter.flush(0)
        reporter.close(0)
        assert reporter.counts["kept"].pending == 1
        lane.enqueue(b"kind", PinReport(verdict=violation()), contextvars.copy_context())
        assert reporter.counts["kept"].dropped == {"closed": 1}
        assert reporter.flush(0)

    def test_before_anything_was_reported(self):
        """There is nothing to wait for."""
        reporter = Reporter(Kept())
        assert reporter.flush(0)
        reporter.close(0)

    @pytest.mark.parametrize("backend", ["asyncio", "trio"])
    def test_leaves_the_loop_free(self, backend):
        """`aclose` and `aflush` wait in a thread, on every event loop."""
        reporter = Reporter(Kept(hang), timeout=60)
        ticks = []

        async def tick() -> None:
            while True:
                ticks.append(1)
                await anyio.sleep(0.005)

        async def main() -> None:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(tick)
                async with reporter:
                    reporter.observe(violation())
                    assert not await reporter.aflush(0.1)
                    assert ticks
                    await reporter.aclose(0.1)
                tasks.cancel_scope.cancel()

        anyio.run(main, backend=backend)
        assert reporter.counts["kept"].dropped == {"closed": 1}

    @pytest.mark.parametrize("backend", ["asyncio", "trio"])
    def test_cancelled(self, backend):
        """Closing can be cancelled at once; the sums hold then and later."""
        reporter = Reporter(Kept(hang), timeout=60)
        reporter.observe(violation())

        async def main() -> None:
            with anyio.move_on_after(0.05) as scope:
                await reporter.aclose(60)
            assert scope.cancelled_caught

        anyio.run(main, backend=backend)
        assert adds_up(reporter)
        reporter.close(0)
        assert reporter.counts["kept"].pending == 0
        assert adds_up(reporter)


def test_numbers_add_up_under_load():
    """Threads, event loops that are cancelled, failures, a full queue and an early end: nothing is lost from the count."""

    async def moody(number) -> None:
        match number % 5:
            case 0:
                raise TryAgainError("server", "503")
            case 1:
                raise ValueError
            case 2:
                await asyncio.sleep(0.002)
            case 3:
                await hang(number)

    moods, well = Kept(moody, name="moods"), Kept(name="well")
    reporter = Reporter(moods, well, queue=8, timeout=0.01, attempts=2, backoff=0)
    pinner = Pinner(policy(), observers=[reporter])
    each, wrong, over = 400, [], threading.Event()

    def work(first: int) -> None:
        for number in range(each):
            pinner.check(f"h{first + number % 50}.test", CHAIN)

    def work_on_a_loop(first: int) -> None:
        async def one(number: int) -> None:
            await asyncio.sleep(0)
            pinner.check(f"h{first + number % 50}.test", CHAIN)
            await asyncio.sleep(1)

        async def main() -> None:
            tasks = [asyncio.create_task(one(number)) for number in range(each)]
            await asyncio.sleep(0.05)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.run(main())

    def watch() -> None:
        while not over.is_set():
            if not adds_up(reporter):
                wrong.append(reporter.counts)

    threads = [threading.Thread(target=work, args=(number * 25,)) for number in range(3)]
    threads += [threading.Thread(target=work_on_a_loop, args=(1000 + number * 25,)) for number in range(2)]
    watcher = threading.Thread(target=watch)
    watcher.start()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    reporter.close(0.2)
    pinner.check("late.test", CHAIN)
    over.set()
    watcher.join()
    assert wrong == []
    checks = sum(reporter.checks.values())
    for counts in reporter.counts.values():
        assert (counts.submitted, counts.pending) == (checks, 0)
        assert counts.deduplicated > 0
        assert counts.dropped["closed"] >= 1
    assert reporter.counts["moods"].failed
    assert adds_up(reporter)


@pytest.mark.parametrize(
    ("sinks", "fields", "message"),
    [
        ([Kept(), Kept()], {}, "the sinks are named kept, kept"),
        ([], {"window": -1}, "not negative"),
        ([], {"timeout": -1}, "not negative"),
        ([], {"queue": 0}, "at least 1"),
        ([], {"attempts": 0}, "at least 1"),
    ],
)
def test_settings_that_make_no_sense(sinks, fields, message):
    """They are refused at construction."""
    with pytest.raises(InputError, match=message):
        Reporter(*sinks, **fields)


def test_warns_of_a_report_host_under_the_rules(caplog):
    """A report host that a rule covers is warned of, when the pinner is made and when its policy is replaced."""

    class Remote(Kept):
        host = "reports.test"

    other = Policy((PinSet(name="api.example.com", pins=[OTHER, SPARE]),))
    excluded = Policy((*policy().pin_sets, PinSet(name="reports.test", mode="off")))
    with caplog.at_level(logging.WARNING, "pinset.reports"):
        pinner = Pinner(other, observers=[Remote()])
        pinner.replace(excluded)
        assert caplog.records == []
        pinner.replace(policy())
        Pinner(policy(), observers=[Remote()])
    assert len(caplog.records) == 2
    assert caplog.records[0].getMessage().startswith("reports on **.test go to reports.test, which that rule covers: ")


def test_a_reporter_that_is_let_go_still_delivers():
    """A client that was closed after a refusal is gone before its report is written."""
    release = threading.Event()

    async def wait(_number) -> None:
        await asyncio.to_thread(release.wait, 30)

    sink = Kept(wait)
    reporter = Reporter(sink)
    reporter.observe(violation())
    gone = weakref.ref(reporter)
    del reporter
    gc.collect()
    assert gone() is None
    release.set()
    wait_for(lambda: sink.reports)


def test_counts_are_values():
    """They do not change after they were read."""
    with Reporter(Kept()) as reporter:
        counts = reporter.counts["kept"]
        reporter.observe(violation())
        assert reporter.flush(10)
        assert counts.submitted == 0
        with pytest.raises(dataclasses.FrozenInstanceError):
            counts.sent = 3


PROGRAM = """
import asyncio, logging, os, sys, threading, time
from datetime import UTC, datetime
from pinset import Pinner, PinSet, Policy
from pinset.reports import CallbackReports, PinReport, Reporter, ReportSink

class Sink(ReportSink):
    name = "sink"
    async def deliver(self, report):
        # Name resolution needs a thread pool, which the interpreter shuts early at exit. 3.12.0 and 3.12.1 start no
        # thread at all by then (gh-113964).
        if not (3, 12) <= sys.version_info < (3, 12, 2):
            await asyncio.get_running_loop().getaddrinfo("localhost", 1)
        await asyncio.sleep(0.1)
        print(os.getpid() == parent, report.hostname, flush=True)

logging.getLogger("asyncio").setLevel("ERROR")  # how long a step takes is the business of the machine
parent = os.getpid()
policy = Policy((PinSet(name="**.test", pins=["sha256/" + "A" * 43 + "="], mode="report-only"),))
pinner = Pinner(policy, observers=[Reporter(Sink())])
chain = [bytes.fromhex(sys.argv[1])]
"""


def run(code: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-W", "error", "-X", "dev", "-c", PROGRAM + code, CHAIN[0].hex()],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )


class TestProcess:
    """What becomes of reports when the process ends or forks."""

    def test_exit_waits_for_what_is_pending(self):
        """A program that ends at once after a violation still tells of it, and without a warning."""
        done = run("pinner.check('a.test', chain)")
        assert (done.stdout, done.stderr) == ("True a.test\n", "")

    def test_exit_does_not_wait_for_ever(self):
        """A blocking callback that never returns does not keep the program from ending."""
        done = run(
            "forever = CallbackReports(lambda report: threading.Event().wait())\n"
            "Pinner(policy, observers=[Reporter(forever, timeout=3600)]).check('a.test', chain)\n"
            "print('end')"
        )
        assert (done.stdout, done.stderr) == ("end\n", "")

    def test_after_the_end(self):
        """What comes after the last moment is counted as dropped, and nothing fails."""
        done = run(
            "import atexit\n"
            "def late():\n"
            "    pinner.check('b.test', chain)\n"
            "    print(pinner.reporter.counts['sink'].dropped, threading.active_count())\n"
            "atexit.register(late)\n"
            "pinner.check('a.test', chain)\n"
        )
        assert (done.stdout, done.stderr) == ("True a.test\n{'no-worker': 1} 1\n", "")

    def test_nothing_starts_without_a_report(self):
        """A program without violations has no thread more, and asyncio is not imported for it."""
        done = run("print(threading.active_count(), 'pinset.reports' in sys.modules)")
        assert (done.stdout, done.stderr) == ("1 True\n", "")

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="a system without fork")
    def test_fork(self):
        """The child begins anew: it counts what was pending as the parent's, and delivers its own."""
        done = run(
            "import warnings\n"
            "warnings.simplefilter('ignore', DeprecationWarning)  # of forking with threads\n"
            "pinner.check('a.test', chain)\n"
            "time.sleep(0.02)\n"
            "if (child := os.fork()) == 0:\n"
            "    pinner.check('b.test', chain)\n"
            "    assert pinner.reporter.flush(10)\n"
            "    counts = pinner.reporter.counts['sink']\n"
            "    assert (counts.submitted, counts.sent, counts.dropped) == (2, 1, {'forked': 1}), counts\n"
            "    os._exit(7)\n"
            "assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7\n"
            "assert pinner.reporter.flush(10)\n"
        )
        assert sorted(done.stdout.splitlines()) == ["False b.test", "True a.test"]
        assert done.stderr == ""
