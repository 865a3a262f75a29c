"""
Reports: what a check pays for them, and what becomes of them when sinks hang, endpoints are dead and tasks are cancelled.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import random
import socket
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from benchmarks._common import footer, markdown, progress, save, setup, spread
from pinset import Pinner, PinSet, Policy, evaluate
from pinset.reports import CallbackReports, HTTPReports, PinReport, Reporter, ReportSink, TryAgainError
from pinset.testing import Authority

SUBMIT_BAR, STALL_BAR, IDENTICAL = 2.0, 1.0, 100_000
_HOST = "api.bench.example"
_OTHER = "sha256/7HIpactkIAq2Y49orFOOQKurWxmmSFZhBCoQYcRhJ3Y="
_BUDGET = 0.5
_MOMENT = 0.002


class _Nowhere(ReportSink):
    """Takes everything and does nothing."""

    name = "nowhere"

    async def deliver(self, report: PinReport) -> None:
        """Nothing."""


class _Hung(ReportSink):
    """Never done."""

    name = "hung"

    async def deliver(self, report: PinReport) -> None:
        """Wait for ever."""
        await asyncio.Event().wait()


class _Moody(ReportSink):
    """Takes one, hangs, or fails in two ways, by turns."""

    name = "moody"

    def __init__(self) -> None:
        self._calls = 0

    async def deliver(self, report: PinReport) -> None:
        """By turns."""
        self._calls += 1
        match self._calls % 5:
            case 0:
                raise TryAgainError("server", "503")
            case 1:
                raise ValueError("mood")
            case 2:
                await asyncio.Event().wait()


def run(arguments: argparse.Namespace) -> None:
    """
    Measure, print the table, and write the samples.
    """
    plan = (
        {"samples": 3, "calls": 3000, "rounds": 2, "load": 100}
        if arguments.quick
        else {"samples": 31, "calls": 20000, "rounds": 15, "load": 2000}
    )
    document: dict[str, Any] = {"benchmark": "reports", **setup(), "plan": plan}
    authority = Authority()
    chain = (*authority.issue(_HOST).chain, authority.root)
    samples: dict[str, Any] = {"submit": _submit(chain, plan)}
    progress("submit done")
    samples["identical"] = _identical(chain)
    samples["stall"] = _stall(chain, plan["rounds"])
    progress("stall done")
    samples["close"] = _close(chain, plan["rounds"])
    progress("close done")
    samples["load"] = _load(chain, plan["load"])
    document["summary"] = {
        "submit_microseconds": {name: spread(values) for name, values in samples["submit"].items()},
        "identical": samples["identical"],
        "stall_milliseconds": {name: spread(values) for name, values in samples["stall"].items()},
        "close_seconds": {name: spread(values) for name, values in samples["close"].items()},
        "load": samples["load"],
    }
    document["samples"] = samples
    print(_report(document))
    save(document, arguments.out)


def _policy(mode: str = "enforce") -> Policy:
    fields: dict[str, Any] = {"name": "**.bench.example", "pins": [_OTHER], "mode": mode, "allow_single_pin": True}
    return Policy((PinSet(**fields),))


def _violation(chain: tuple[bytes, ...], number: int) -> Any:
    return evaluate(_policy(), f"h{number}.bench.example", chain, datetime.now(UTC))


def _submit(chain: tuple[bytes, ...], plan: dict[str, int]) -> dict[str, list[float]]:
    """Microseconds of the calling thread for one call, in a tight loop: other processes are not counted."""
    one, two = Reporter(_Nowhere()), Reporter(_Nowhere(), CallbackReports(lambda report: None))
    again = _violation(chain, 0)
    refusing, heedless = Pinner(_policy(), observers=[one]), Pinner(_policy(), observers=[Reporter()])
    match = Pinner({_HOST: [str(pin) for pin in _pins(chain)]}, observers=[one]).check(_HOST, chain).verdict
    calls: dict[str, Callable[[], object]] = {
        "observe, a duplicate, one sink": lambda: one.observe(again, port=443),
        "observe, a duplicate, two sinks": lambda: two.observe(again, port=443),
        "observe, a match that is enforced": lambda: one.observe(match, port=443),
        "Pinner.check of a mismatch, one sink": lambda: refusing.check(_HOST, chain, port=443),
        "Pinner.check of a mismatch, no sink": lambda: heedless.check(_HOST, chain, port=443),
        "an empty call": lambda: None,
    }
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(-1, plan["samples"]):  # the first is not kept
        for name in random.sample(list(calls), len(calls)):
            gc.collect()
            begin = time.thread_time()
            for _ in range(plan["calls"]):
                calls[name]()
            taken = (time.thread_time() - begin) / plan["calls"] * 1e6
            if number >= 0:
                samples[name].append(round(taken, 4))
    for reporter in (one, two):
        reporter.close(10)
    return samples


def _pins(chain: tuple[bytes, ...]) -> list[Any]:
    from pinset import Pin

    return [Pin.from_certificate(der) for der in chain]


def _identical(chain: tuple[bytes, ...]) -> dict[str, int]:
    reporter = Reporter(_Nowhere())
    again = _violation(chain, 0)
    for _ in range(IDENTICAL):
        reporter.observe(again)
    reporter.close(10)
    counts = reporter.counts["nowhere"]
    return {"submitted": counts.submitted, "sent": counts.sent, "deduplicated": counts.deduplicated}


def _stall(chain: tuple[bytes, ...], rounds: int) -> dict[str, list[float]]:
    """
    While 200 timers of an event loop meet a violation each: how many milliseconds of its thread the busiest call took, by
    how many the latest timer was late, and what sinks add to that in the same round.
    """
    forever = threading.Event()
    sinks: dict[str, Callable[[], list[ReportSink]]] = {
        "no sink": list,
        "a sink that works": lambda: [_Nowhere()],
        "a sink that hangs": lambda: [_Hung()],
        "a sink that blocks its thread": lambda: [CallbackReports(lambda report: forever.wait())],
    }
    samples: dict[str, list[float]] = {}
    violations = [_violation(chain, number) for number in range(200)]
    for _ in range(rounds):
        late: dict[str, float] = {}
        for name in random.sample(list(sinks), len(sinks)):
            reporter = Reporter(*sinks[name](), timeout=60)
            busy, late[name] = asyncio.run(_one_round(reporter, violations))
            reporter.close(0)
            samples.setdefault(f"busiest call, {name}", []).append(round(busy * 1000, 4))
        for name in sinks:
            samples.setdefault(f"latest timer, {name}", []).append(round(late[name] * 1000, 4))
        for name in list(sinks)[1:]:
            samples.setdefault(f"added by {name}", []).append(round((late[name] - late["no sink"]) * 1000, 4))
    forever.set()
    return samples


async def _one_round(reporter: Reporter, violations: list[Any]) -> tuple[float, float]:
    busiest = latest = 0.0
    gc.collect()
    gc.disable()
    for verdict in violations:
        due = time.perf_counter() + _MOMENT
        begin = time.thread_time()
        reporter.observe(verdict, port=443)
        busiest = max(busiest, time.thread_time() - begin)
        await asyncio.sleep(due - time.perf_counter())
        latest = max(latest, time.perf_counter() - due)
    gc.enable()
    return busiest, latest


def _close(chain: tuple[bytes, ...], rounds: int) -> dict[str, list[float]]:
    """Seconds of `Reporter.close` with a budget of half a second, and twenty reports under way."""
    root = Authority().root_pem
    samples: dict[str, list[float]] = {}
    with socket.create_server(("127.0.0.1", 0)) as silent, socket.create_server(("127.0.0.1", 0)) as gone:
        ports = {"never answers": silent.getsockname()[1], "is not there": gone.getsockname()[1]}
        gone.close()
        for _ in range(rounds):
            for name, port in ports.items():
                sink = HTTPReports(f"https://127.0.0.1:{port}/", cadata=root, trust_env=False)
                reporter = Reporter(sink)
                for number in range(20):
                    reporter.observe(_violation(chain, number))
                begin = time.perf_counter()
                reporter.close(_BUDGET)
                samples.setdefault(f"an endpoint that {name}", []).append(round(time.perf_counter() - begin, 4))
                assert reporter.counts["http"].pending == 0
    return samples


def _load(chain: tuple[bytes, ...], each: int) -> dict[str, Any]:
    """Threads and cancelled tasks against a sink of every mood: what came in, and what became of it."""
    reporter = Reporter(_Moody(), queue=64, timeout=0.01, attempts=2, backoff=0)
    pinner = Pinner(_policy(), observers=[reporter])

    def work(first: int) -> None:
        for number in range(each):
            pinner.check(f"h{first + number % 500}.bench.example", chain)

    def work_on_a_loop(first: int) -> None:
        async def one(number: int) -> None:
            await asyncio.sleep(0)
            pinner.check(f"h{first + number % 500}.bench.example", chain)
            await asyncio.sleep(60)

        async def main() -> None:
            tasks = [asyncio.create_task(one(number)) for number in range(each)]
            await asyncio.sleep(0.05)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.run(main())

    threads = [threading.Thread(target=work, args=(number * 250,)) for number in range(3)]
    threads += [threading.Thread(target=work_on_a_loop, args=(number * 250,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    reporter.close(_BUDGET)
    counts = reporter.counts["moody"]
    settled = counts.sent + counts.deduplicated + sum(counts.dropped.values()) + sum(counts.failed.values())
    return {
        "checks": sum(reporter.checks.values()),
        "submitted": counts.submitted,
        "sent": counts.sent,
        "deduplicated": counts.deduplicated,
        "dropped": dict(counts.dropped),
        "failed": dict(counts.failed),
        "pending": counts.pending,
        "adds_up": settled == counts.submitted == sum(reporter.checks.values()),
    }


def _report(document: dict[str, Any]) -> str:
    summary = document["summary"]
    rows: list[list[object]] = []
    bars = {
        "observe, a duplicate, one sink": f"≤ {SUBMIT_BAR:g} µs",
        "busiest call, a sink that hangs": f"≤ {STALL_BAR:g} ms",
    }
    bars["busiest call, a sink that blocks its thread"] = f"≤ {STALL_BAR:g} ms"
    for unit, group in (
        ("µs", "submit_microseconds"),
        ("ms", "stall_milliseconds"),
        ("s", "close_seconds"),
    ):
        for name, one in summary[group].items():
            bar = bars.get(name, f"about {_BUDGET:g} s" if unit == "s" else "")
            rows.append([name, f"{one['median']:.2f} {unit}", f"{one['q1']:.2f} – {one['q3']:.2f}", bar])
    identical, load = summary["identical"], summary["load"]
    words = (
        f"{identical['submitted']:,} identical violations: {identical['sent']} sent, {identical['deduplicated']:,}"
        f" counted as duplicates.\n\nUnder load: {load['submitted']:,} submitted = {load['sent']:,} sent +"
        f" {load['deduplicated']:,} duplicates + dropped {load['dropped']} + failed {load['failed']};"
        f" {'it adds up' if load['adds_up'] else 'IT DOES NOT ADD UP'}."
    )
    return f"{markdown(['what', 'median', 'quartiles', 'bar'], rows)}\n\n{words}\n\n{footer(document)}"
