"""
`Pinner`: the policy in force, shared by any number of clients.

Rules of this module:

1. Policy and generation change together, in one assignment, and by one thread at a time. A check sees one policy from
   beginning to end.
2. A check that fails is a refusal. Whatever goes wrong in it is logged and becomes `Outcome.FAILED`.
3. Observers are told and cannot answer: their errors are logged and dropped, and they run after the decision is made.
4. Enforcement is never lost in silence: what a rule does not enforce, or no longer, is reported, to the log at least.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from os import PathLike
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from pinset._errors import Fault, InputError, PolicyError
from pinset._evaluate import evaluate, refuse
from pinset._pins import Pin
from pinset._policy import Policy
from pinset._source import PinSource
from pinset._verdict import Decision, Outcome, Verdict

if TYPE_CHECKING:
    from pinset.reports._reporter import Reporter, Served
    from pinset.reports._sink import ReportSink

Observer = Callable[[Verdict], None]
Pins = Mapping[str, Sequence[Pin | str]]

_logger = logging.getLogger("pinset")


@dataclass(frozen=True, slots=True)
class Stamp:
    """
    What a connection carries, so that it can be judged again under another policy.

    Attributes:
        generation: The number of the policy that gave the verdict.
        verdict: What that policy said.
        chain: The verified chain of the connection, leaf first, DER.
        port: The port of the host; 0 where nobody said.
    """

    generation: int
    verdict: Verdict
    chain: tuple[bytes, ...]
    port: int = 0


class Pinner:
    """
    A live policy: it can be replaced while clients use it.

    Args:
        pins: A `Policy`, or pins by host pattern.
        observers: Functions that are called with the `Verdict` of every handshake, on the event loop: they must return
            at once. And sinks of `pinset.reports`, or one `pinset.reports.Reporter` with sinks and settings of its own.
            Without a `Reporter`, reports go to the log also when nobody asked for it.
        clock: Returns the present instant, aware.

    Raises:
        PolicyError: *pins* is a mapping that makes no policy.
        InputError: There is more than one `Reporter` among *observers*, or one and sinks beside it; or *clock* returns
            an instant without an offset.
    """

    def __init__(
        self,
        pins: Policy | Pins,
        *,
        observers: Iterable[Observer | ReportSink | Reporter] = (),
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._in_force = 1, as_policy(pins)  # generation and policy, so that one assignment replaces both
        self._reporter, self._observers = _sort_out(tuple(observers))
        self._clock = clock
        self._replacing = threading.Lock()
        if (now := clock()).tzinfo is None:
            raise InputError(f"the clock returned {now}, which has no offset; use datetime.now(UTC)")
        self._reporter.adopt(self.policy)

    def __repr__(self) -> str:
        generation, policy = self._in_force
        return f"<Pinner generation={generation} hosts={len(policy.pin_sets)}>"

    @property
    def policy(self) -> Policy:
        """
        The policy in force.
        """
        return self._in_force[1]

    @property
    def generation(self) -> int:
        """
        The number of the policy in force: 1 for the first, one more for each that replaced it.
        """
        return self._in_force[0]

    @property
    def reporter(self) -> Reporter:
        """
        What tells the sinks: to read its counters, to flush and to close it.
        """
        return self._reporter

    def replace(self, pins: Policy | Pins) -> None:
        """
        Put another policy in force, for the next request of every client.

        Args:
            pins: A `Policy`, or pins by host pattern.

        Raises:
            PolicyError: *pins* is a mapping that makes no policy; the present one stays in force.
        """
        policy = as_policy(pins)
        with self._replacing:  # or two policies could have one number, and connections of one pass under the other
            self._reporter.adopt(policy)
            self._in_force = self.generation + 1, policy

    def check(self, host: str, chain: Sequence[bytes], *, port: int = 0, served: Served | None = None) -> Stamp:
        """
        Judge the verified chain of a handshake, and tell the observers.

        Args:
            host: The host that was to be reached.
            chain: What OpenSSL verified for it, leaf first, DER.
            port: For reports; 0 where it is not known.
            served: For reports: returns what the peer sent, leaf first, DER, unverified. Called before this returns, and
                only when a report is made.

        Returns:
            The stamp for the connection. Its verdict may refuse; nothing is raised.
        """
        begin = perf_counter()
        stamp = self.judge(host, chain, port)
        self.tell(stamp.verdict, port, served, perf_counter() - begin)
        return stamp

    def refuse(
        self, host: str, *, outcome: Outcome, detail: str, port: int = 0, served: Served | None = None
    ) -> Verdict:
        """
        The verdict on a handshake that left nothing to compare; the observers are told.

        A handshake that OpenSSL refused, because of the CA path, an expiry or a name, is `Outcome.UNVERIFIED` too: that
        is how most interceptions end, and worth a report although nobody needs the verdict.

        Args:
            host: The host that was to be reached.
            outcome: What was found instead of a verified chain.
            detail: In words; the same for the same cause, because reports are told apart by it.
            port: As for `check`.
            served: As for `check`.
        """
        verdict = refuse(self.policy, host, self._clock(), outcome=outcome, detail=detail)
        self.tell(verdict, port, served)
        return verdict

    def renew(self, stamp: Stamp) -> Stamp:
        """
        The stamp under the policy in force now: *stamp* itself while that holds, which is the usual case.

        The observers are told only if the connection was enforced and goes on without being.

        Args:
            stamp: The stamp of a connection that was let in earlier.
        """
        verdict = stamp.verdict
        if stamp.generation == self._in_force[0] and (
            verdict.valid_until is None or self._clock() < verdict.valid_until
        ):
            return stamp
        renewed = self.judge(verdict.host, stamp.chain, stamp.port)
        if verdict.enforced and not renewed.verdict.enforced and renewed.verdict.decision is not Decision.REFUSE:
            self.tell(renewed.verdict, stamp.port)
        return renewed

    def judge(self, host: str, chain: Sequence[bytes], port: int = 0) -> Stamp:
        """
        As `check`, without telling anybody.
        """
        generation, policy = self._in_force
        chain = tuple(chain)
        try:
            verdict = evaluate(policy, host, chain, self._clock())
        except Exception as error:
            _logger.exception("the pin check of %s failed; the connection is refused", host)
            detail = f"{type(error).__name__}: {error}"
            verdict = refuse(policy, host, datetime.now(UTC), outcome=Outcome.FAILED, detail=detail)
        return Stamp(generation, verdict, chain, port)

    def tell(self, verdict: Verdict, port: int = 0, served: Served | None = None, seconds: float = 0.0) -> None:
        """
        Tell the reporter and the observers about a handshake; none of them can change the decision.

        Args:
            verdict: What was said about it.
            port: As for `check`.
            served: As for `check`.
            seconds: What the check took.
        """
        try:
            self._reporter.observe(verdict, port=port, served=served, seconds=seconds)
        except Exception:
            _logger.exception("a pinset report failed; the decision stands")
        for observer in self._observers:
            try:
                observer(verdict)
            except Exception:
                _logger.exception("a pinset observer failed; the decision stands")


def _sort_out(observers: Sequence[Observer | ReportSink | Reporter]) -> tuple[Reporter, tuple[Observer, ...]]:
    """The one reporter, made of the sinks if need be, and the observers that are plain functions."""
    # A quarter of what importing pinset would add to importing httpx, and whoever makes no pinner needs no reports.
    from pinset.reports._reporter import Reporter  # noqa: PLC0415
    from pinset.reports._sink import ReportSink  # noqa: PLC0415
    from pinset.reports.log import LogReports  # noqa: PLC0415

    reporters = [one for one in observers if isinstance(one, Reporter)]
    sinks = [one for one in observers if isinstance(one, ReportSink)]
    functions = tuple(one for one in observers if not isinstance(one, Reporter | ReportSink))
    if len(reporters) + bool(sinks) > 1:
        raise InputError("a Pinner has one Reporter; give it all the sinks")
    if reporters:
        return reporters[0], functions
    if not any(isinstance(sink, LogReports) for sink in sinks):
        sinks.append(LogReports())
    return Reporter(*sinks), functions


def as_pinner(pins: PinSource | Pinner | Policy | Pins) -> Pinner:
    """
    *pins* itself if it is a `Pinner`, the one that a source keeps up to date, else a new one for it.
    """
    if isinstance(pins, (Pinner, Policy, Mapping)):
        return pins if isinstance(pins, Pinner) else Pinner(pins)
    return pins.pinner if isinstance(pins, PinSource) else Pinner(pins)


def as_policy(pins: Policy | Pins) -> Policy:
    """
    *pins* itself if it is a `Policy`, else the policy that the mapping describes.

    Raises:
        PolicyError: It describes none.
    """
    if isinstance(pins, Policy):
        return pins
    if isinstance(pins, Mapping):
        return Policy.from_mapping(pins)
    kind = type(pins).__name__
    raise PolicyError([Fault("", f"pins are a Policy or a mapping of hosts to pins, not {kind}", "see load_policy")])


def load_policy(path: str | PathLike[str]) -> Policy:
    """
    Read a policy file.

    Args:
        path: A file that ends in ``.toml`` or ``.json``.

    Raises:
        PolicyError: It cannot be read, or is no valid policy; with every fault and its place.
    """
    # They and tomllib are for policy files alone; see `_sort_out`.
    from pinset.formats import read_json, read_toml  # noqa: PLC0415

    file = Path(path)
    readers = {".toml": read_toml, ".json": read_json}
    reader = readers.get(file.suffix.lower())
    if reader is None:
        raise PolicyError(
            [Fault("", f"the name of a policy file ends in .toml or .json, not {file.suffix!r}")], source=str(file)
        )
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PolicyError([Fault("", f"the file cannot be read: {error}")], source=str(file)) from error
    return reader(text, source=str(file))
