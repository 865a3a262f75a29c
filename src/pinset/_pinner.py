"""
`Pinner`: the policy in force, shared by any number of clients.

Rules of this module:

1. Policy and generation change together, in one assignment. A check sees one policy from beginning to end.
2. A check that fails is a refusal. Whatever goes wrong in it is logged and becomes `Outcome.FAILED`.
3. Observers are told and cannot answer: their errors are logged and dropped, and they run after the decision is made.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from os import PathLike
from pathlib import Path

from pinset._errors import Fault, PolicyError
from pinset._evaluate import evaluate, refuse
from pinset._pins import Pin
from pinset._policy import Policy
from pinset._verdict import Decision, Outcome, Verdict

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
    """

    generation: int
    verdict: Verdict
    chain: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class _InForce:
    generation: int
    policy: Policy


class Pinner:
    """
    A live policy: it can be replaced while clients use it.

    Args:
        pins: A `Policy`, or pins by host pattern.
        observers: Called with the `Verdict` of every handshake, on the event loop: they must return at once.
        clock: Returns the present instant, aware.

    Raises:
        PolicyError: *pins* is a mapping that makes no policy.
    """

    def __init__(
        self,
        pins: Policy | Pins,
        *,
        observers: Iterable[Observer] = (),
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._in_force = _InForce(1, as_policy(pins))
        self._observers = tuple(observers)
        self._clock = clock

    def __repr__(self) -> str:
        force = self._in_force
        return f"<Pinner generation={force.generation} hosts={len(force.policy.pin_sets)}>"

    @property
    def policy(self) -> Policy:
        """
        The policy in force.
        """
        return self._in_force.policy

    @property
    def generation(self) -> int:
        """
        The number of the policy in force: 1 for the first, one more for each that replaced it.
        """
        return self._in_force.generation

    def replace(self, pins: Policy | Pins) -> None:
        """
        Put another policy in force, for the next request of every client.

        Args:
            pins: A `Policy`, or pins by host pattern.

        Raises:
            PolicyError: *pins* is a mapping that makes no policy; the present one stays in force.
        """
        policy = as_policy(pins)
        self._in_force = _InForce(self._in_force.generation + 1, policy)

    def check(self, host: str, chain: Sequence[bytes]) -> Stamp:
        """
        Judge the verified chain of a handshake, and tell the observers.

        Args:
            host: The host that was to be reached.
            chain: What OpenSSL verified for it, leaf first, DER.

        Returns:
            The stamp for the connection. Its verdict may refuse; nothing is raised.
        """
        stamp = self.judge(host, chain)
        self.tell(stamp.verdict)
        return stamp

    def refuse(self, host: str, *, outcome: Outcome, detail: str) -> Verdict:
        """
        The verdict on a handshake that left nothing to compare; the observers are told.
        """
        verdict = refuse(self._in_force.policy, host, self._clock(), outcome=outcome, detail=detail)
        self.tell(verdict)
        return verdict

    def renew(self, stamp: Stamp) -> Stamp:
        """
        The stamp under the policy in force now: *stamp* itself while that holds, which is the usual case.

        Args:
            stamp: The stamp of a connection that was let in earlier.
        """
        verdict = stamp.verdict
        if stamp.generation == self._in_force.generation and (
            verdict.valid_until is None or self._clock() < verdict.valid_until
        ):
            return stamp
        return self.judge(verdict.host, stamp.chain)

    def judge(self, host: str, chain: Sequence[bytes]) -> Stamp:
        """
        As `check`, without telling anybody.
        """
        force, chain = self._in_force, tuple(chain)
        now = self._clock()
        try:
            verdict = evaluate(force.policy, host, chain, now)
        except Exception as error:
            _logger.exception("the pin check of %s failed; the connection is refused", host)
            verdict = refuse(force.policy, host, now, outcome=Outcome.FAILED, detail=f"{type(error).__name__}: {error}")
        return Stamp(force.generation, verdict, chain)

    def tell(self, verdict: Verdict) -> None:
        """
        Tell the observers, and the log what is let through against the pins.
        """
        if verdict.decision is Decision.REPORT:
            # Enforcement is never lost in silence.
            _logger.warning("not enforced: %s", verdict.explain())
        for observer in self._observers:
            try:
                observer(verdict)
            except Exception:
                _logger.exception("a pinset observer failed; the decision stands")


def as_pinner(pins: Pinner | Policy | Pins) -> Pinner:
    """
    *pins* itself if it is a `Pinner`, else a new one for it.
    """
    return pins if isinstance(pins, Pinner) else Pinner(pins)


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
    # They and tomllib are a fifth of what importing pinset adds to importing httpx, and a policy in code needs neither.
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
