"""
`Reporter`: from a check to the sinks that tell of it.

Rules of this module:

1. It hears of every check and counts it. What `is_reported` picks becomes a report for each sink, as a duplicate or in
   full; the key of a duplicate holds no instant.
2. `Reporter.observe` is called on the caller's thread, inside a handshake. It does no I/O and waits for nobody.
3. A violation met while a report is being delivered is counted and never reported: two hosts that report to each other
   would never come to rest (RFC 7469 section 3).
"""

from __future__ import annotations

import contextvars
import hashlib
import logging
import threading
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self, TypeVar

from pinset._certificates import Certificate
from pinset._errors import InputError
from pinset._policy import Mode, PinSet, Policy
from pinset._verdict import Decision, Outcome, Verdict
from pinset.reports._lane import Delivery, Lane, SinkCounts
from pinset.reports._report import PinReport, is_reported
from pinset.reports._sink import ReportSink
from pinset.reports._worker import worker

_DAY = 86400.0
_MOST_FINDINGS = 1024

T = TypeVar("T")
Served = Callable[[], Sequence[bytes]]

_is_delivering: contextvars.ContextVar[bool] = contextvars.ContextVar("pinset_is_delivering", default=False)
_logger = logging.getLogger("pinset.reports")


@dataclass(frozen=True, slots=True, eq=False)
class _Finding:
    """
    What is the same in all checks that found the same.

    Attributes:
        rule: Kept so that its address stays its own.
        chain: Likewise.
        tally: The number of checks by rule, outcome and decision, shared by all findings of these.
        kind: What makes reports the same.
        lanes: Of the sinks that are told; none where nothing is reported.
    """

    rule: PinSet | None
    chain: tuple[Certificate, ...]
    tally: list[int]
    kind: bytes
    lanes: tuple[Lane, ...]


class Reporter:
    """
    Tells sinks what pin checks found. It may be shared by several `Pinner`.

    A `Pinner` makes its own from the sinks it is given, so only other settings than the defaults call for one.

    Args:
        sinks: Where reports go.
        window: Seconds in which the same report goes to a sink once: same host, port, rule, pins, chain and finding.
        queue: How many reports may wait for one sink; what comes when it is full is dropped and counted.
        timeout: Seconds for one attempt to deliver one report.
        attempts: How often a report is tried while the sink says that it may be tried again.
        backoff: Seconds before the second attempt; each further one waits twice as long, and as long as the receiver
            asks for.
        clock: Returns seconds that never go back.

    Raises:
        InputError: Two sinks have the same name, or a number makes no sense.
    """

    def __init__(
        self,
        *sinks: ReportSink,
        window: float = _DAY,
        queue: int = 256,
        timeout: float = 5.0,
        attempts: int = 4,
        backoff: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if min(window, timeout, backoff) < 0 or min(queue, attempts) < 1:
            raise InputError("window, timeout and backoff are not negative; queue and attempts are at least 1")
        names = [sink.name for sink in sinks]
        if len(set(names)) != len(names):
            raise InputError(f"the sinks are named {', '.join(names)}; give each a name of its own, for its counters")
        delivery = Delivery(window=window, queue=queue, timeout=timeout, attempts=attempts, backoff=backoff)
        self._lanes = tuple(Lane(sink, delivery, clock) for sink in sinks)
        self._watchers = tuple(sink.watch for sink in sinks if type(sink).watch is not ReportSink.watch)
        self._findings: dict[Hashable, _Finding] = {}
        self._checks: dict[tuple[str, Outcome, Decision], list[int]] = {}
        self.forget()
        worker.enlist(self)

    def __repr__(self) -> str:
        return f"<Reporter sinks={', '.join(lane.sink.name for lane in self._lanes) or 'none'}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    @property
    def sinks(self) -> tuple[ReportSink, ...]:
        """
        Where reports go.
        """
        return tuple(lane.sink for lane in self._lanes)

    @property
    def counts(self) -> Mapping[str, SinkCounts]:
        """
        What became of the reports, by the name of the sink.
        """
        return {lane.sink.name: lane.counts() for lane in self._lanes}

    @property
    def checks(self) -> Mapping[tuple[str, Outcome, Decision], int]:
        """
        How many checks there were, by the name of the rule (empty where none applies), outcome and decision.
        """
        with self._lock:
            return {key: tally[0] for key, tally in self._checks.items()}

    def observe(self, verdict: Verdict, *, port: int = 0, served: Served | None = None, seconds: float = 0.0) -> None:
        """
        Hear of a check.

        Args:
            verdict: What was found and decided.
            port: The port of the host; 0 where nobody said.
            served: Returns the certificates as the peer sent them, DER; nothing in them is verified. Called at most
                once, before this returns, and only when a report is made.
            seconds: How long the check took.
        """
        # One look-up for a finding that was seen before. Rule and chain are found by their address, which is theirs
        # while the finding refers to them; hashing their contents would take longer than all the rest.
        key = (
            verdict.host,
            port,
            id(verdict.rule or verdict.decision),  # without a rule, the policy decides alone
            id(verdict.chain),
            id(verdict.outcome),
            verdict.expired,
            verdict.detail,
        )
        finding = self._findings.get(key) or self._remember(key, verdict, port)
        with self._lock:
            finding.tally[0] += 1
        if finding.lanes:
            self._submit(finding, verdict, port, served)
        for watch in self._watchers:
            watch(verdict, seconds)

    __call__ = observe  # a reporter is an observer like any other

    def _submit(self, finding: _Finding, verdict: Verdict, port: int, served: Served | None) -> None:
        if _is_delivering.get():
            for lane in finding.lanes:
                lane.drop("recursion")
            return
        report: PinReport | None = None
        for lane in finding.lanes:
            suppressed = lane.admit(finding.kind)
            if suppressed is None:
                continue
            if report is None:
                report = PinReport(verdict=verdict, port=port, served_chain=_read(served, verdict.host))
            lane.enqueue(finding.kind, replace(report, suppressed=suppressed), _context())

    def _remember(self, key: Hashable, verdict: Verdict, port: int) -> _Finding:
        rule = verdict.rule
        name, kind = "", b""
        lanes: tuple[Lane, ...] = ()
        if rule is not None:
            name = rule.name
            if is_reported(verdict):
                kind = _kind(verdict, port, rule)
                is_match = verdict.outcome is Outcome.MATCHED and verdict.decision is not Decision.REFUSE
                lanes = tuple(lane for lane in self._lanes if lane.sink.wants_matches or not is_match)
        with self._lock:
            tally = self._checks.setdefault((name, verdict.outcome, verdict.decision), [0])
            if len(self._findings) >= _MOST_FINDINGS:
                self._findings.clear()
            finding = self._findings[key] = _Finding(rule, verdict.chain, tally, kind, lanes)
        return finding

    def adopt(self, policy: Policy) -> None:
        """
        Hear of a policy that is about to be in force, and warn where reports could not arrive.

        Args:
            policy: Its rules are what is reported on.
        """
        for lane in self._lanes:
            host = lane.sink.host
            rule = policy.find(host) if host is not None else None
            if rule is not None and rule.mode is not Mode.OFF:
                _logger.warning(
                    "reports on %s go to %s, which that rule covers: whoever intercepts the one intercepts the other,"
                    " and a server that lost its key cannot be told of; report to a host of its own",
                    rule.name,
                    host,
                )

    def flush(self, budget: float = 2.0) -> bool:
        """
        Wait until every report was delivered or given up.

        Args:
            budget: For how many seconds at most.

        Returns:
            Whether nothing is pending.
        """
        deadline = time.monotonic() + budget
        return all(lane.flush(max(0.0, deadline - time.monotonic())) for lane in self._lanes)

    def close(self, budget: float = 2.0) -> None:
        """
        Take no more reports, wait for those that are pending, and drop what is left. May be called again.

        Args:
            budget: For how many seconds at most. A report that is dropped is counted as ``closed``.
        """
        for lane in self._lanes:
            lane.refuse()
        self.flush(budget)
        for lane in self._lanes:
            lane.give_up()

    async def aflush(self, budget: float = 2.0) -> bool:
        """
        `flush` that leaves the event loop free.
        """
        return await _aside(lambda: self.flush(budget))

    async def aclose(self, budget: float = 2.0) -> None:
        """
        `close` that leaves the event loop free. Cancelled, it takes no more reports and drops nothing that is pending.
        """
        await _aside(lambda: self.close(budget))

    def forget(self) -> None:
        """
        Begin with a lock of its own, also in the child of a fork.
        """
        self._lock = threading.Lock()


async def _aside(function: Callable[[], T]) -> T:
    import anyio.to_thread  # noqa: PLC0415 - httpx alone does not import it, and few programs ever report

    # A limiter of our own: forty slow file operations of the program must not hold up its end.
    return await anyio.to_thread.run_sync(function, abandon_on_cancel=True, limiter=anyio.CapacityLimiter(1))


def _kind(verdict: Verdict, port: int, rule: PinSet) -> bytes:
    """
    What makes two reports the same: TrustKit's key, and what is done about it. No instant is part of it, and no address:
    a policy that is loaded anew holds equal rules.
    """
    detail = "" if verdict.outcome is Outcome.FAILED else verdict.detail  # that of an exception may differ each time
    found = (verdict.host, port, verdict.outcome.value, verdict.decision.value, verdict.expired, detail)
    by = (rule.name, rule.subdomains.value, rule.mode.value, rule.expires, rule.on_expiry)
    pins = [(requirement.role.value, sorted(map(str, requirement.pins))) for requirement in rule.requirements]
    chain = [certificate.certificate_sha256 for certificate in verdict.chain]
    return hashlib.sha256(repr((found, by, pins, chain)).encode()).digest()


def _context() -> contextvars.Context:
    """That of the caller, in which a violation is not reported again."""
    context = contextvars.copy_context()
    context.run(_is_delivering.set, True)
    return context


def _read(served: Served | None, host: str) -> tuple[bytes, ...]:
    if served is None:
        return ()
    try:
        return tuple(served())
    except Exception:  # the report is worth more than what was served
        _logger.exception("the chain that %s served cannot be read", host)
        return ()
