"""
The rotation drill: a client that asks at a steady rate, and everything that may happen to a server's keys meanwhile.

Rules of this module:

1. What is planned loses no request, also not while nginx reloads.
2. What must be refused is refused, from the first request on.
3. A request counts where it began. The time in which a step is being taken is counted apart from the time after it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Protocol, Self

import httpx

from pinset._errors import PinMismatchError
from pinset._pinner import Pinner
from pinset._pins import Pin
from pinset._policy import OnExpiry, PinSet, Policy
from pinset.httpx import PinnedAsyncClient
from pinset.reports import Reporter
from pinset.testing._authority import Authority, Identity

_HOST = "localhost"


@dataclass(slots=True)
class Tally:
    """
    What became of requests.

    Attributes:
        served: How many were answered, by the label of the key that the server had.
        refused: How many failed because of the pins.
        failed: How many failed for another reason.
        reasons: The classes of those.
    """

    served: Counter[str] = field(default_factory=Counter)
    refused: int = 0
    failed: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    @property
    def lost(self) -> int:
        """
        How many were not served.
        """
        return self.refused + self.failed


@dataclass(frozen=True, slots=True)
class Step:
    """
    Something that happens.

    Attributes:
        part: What it is a part of.
        what: What happens.
        act: Makes it happen.
        key: The label of the key that serves afterwards; empty where everything is to be refused.
        is_planned: Whether no request may be lost, also not meanwhile.
    """

    part: str
    what: str
    act: Callable[[], Awaitable[None]]
    key: str
    is_planned: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """
    A step, and what became of the requests meanwhile and afterwards.

    Attributes:
        step: The step.
        begin: Seconds since the drill began.
        during: Requests that began while it was being taken.
        after: Requests that began afterwards, until the next.
        is_as_expected: Whether that is what pinning promises.
    """

    step: Step
    begin: float
    during: Tally
    after: Tally
    is_as_expected: bool

    @property
    def served(self) -> Counter[str]:
        """
        How many requests were answered, by the label of the key that the server had.
        """
        return self.during.served + self.after.served

    @property
    def refused(self) -> int:
        """
        How many failed because of the pins.
        """
        return self.during.refused + self.after.refused

    @property
    def failed(self) -> int:
        """
        How many failed for another reason.
        """
        return self.during.failed + self.after.failed


class Server(Protocol):
    """
    What serves while its ``with`` block lasts, and changes its certificate meanwhile: an nginx, or an `HTTPSServer`.
    """

    def __enter__(self) -> Self:
        """Begin to serve."""
        raise NotImplementedError

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End it."""

    def url(self) -> str:
        """Where it serves, under the name ``localhost``."""
        raise NotImplementedError

    def show(self, identity: Identity) -> None:
        """Change the certificate, for all connections from now on."""


class Stage:
    """
    The actors: a server, the keys and certificates that it may have, and a client's policy.

    Args:
        serve: Makes the server, from what it shows first.
        hold: Seconds between two steps.
        http2: Whether the client speaks HTTP/2.
    """

    def __init__(self, serve: Callable[[Identity], Server], *, hold: float, http2: bool) -> None:
        self._hold = hold
        self.http2 = http2
        self.old, self.new = Authority("Old"), Authority("New")
        keys = {label: self.old.issue(_HOST) for label in "ABCD"}
        moved = self.new.issue(_HOST, key=keys["B"].key)
        successor = self.new.issue(_HOST, key=keys["C"].key)
        self.identities = keys | {"B (new)": moved, "C (new)": successor}
        self.pinner = Pinner(self._keys("A", "B"), observers=[Reporter()])  # refusals are meant here: not for the log
        self.server = serve(keys["A"])

    def label(self, certificate: bytes) -> str:
        """
        What the drill calls the identity with this certificate.
        """
        return next((name for name, one in self.identities.items() if one.chain[0] == certificate), "a stranger")

    def steps(self) -> Iterator[Step]:
        """
        What happens, in this order.
        """
        old, new = (Pin.from_certificate(authority.root) for authority in (self.old, self.new))
        part = "planned rotation"
        yield Step(part, "key A is in service, B in reserve", self._nothing, "A")
        yield Step(part, "the next backup ships: A, B, C", self._pin(self._keys("A", "B", "C")), "A")
        yield Step(part, "the server moves to key B", self._show("B"), "B")
        yield Step(part, "A goes out of the policy: B, C", self._pin(self._keys("B", "C")), "B")
        part = "change of the authority"
        yield Step(part, "the policy pins both roots", self._pin(self._roots(old, new)), "B")
        moved = "B (new)"
        yield Step(part, "the server's certificate is the new authority's", self._show(moved), moved)
        spare = Pin.from_certificate(Authority("Spare").root)
        yield Step(part, "the old root goes out of the policy", self._pin(self._roots(new, spare)), moved)
        yield Step(part, "the policy pins keys again: B, C", self._pin(self._keys("B", "C")), moved)
        part, successor = "key B is stolen", "C (new)"
        yield Step(part, "the server moves to the backup, C", self._show(successor), successor)
        yield Step(part, "B goes out of the policy: C, D", self._pin(self._keys("C", "D")), successor)
        yield Step(part, "the thief's server has the place of ours", self._show(moved), "", is_planned=False)
        yield Step(part, "our server is back", self._show(successor), successor, is_planned=False)
        part = "expiry"
        yield Step(part, "the pin set ends soon, and blocks then", self._pin_until(6 * self._hold + 5), successor)
        yield Step(part, "it is renewed in time", self._pin_until(2 * self._hold + 1), successor)
        yield Step(part, "nobody renews it, and it has ended", self._wait_for_expiry, "", is_planned=False)
        yield Step(part, "it is renewed too late", self._pin(self._keys("C", "D")), successor, is_planned=False)

    def _keys(self, *labels: str, expires: datetime | None = None) -> Policy:
        pins = [self.identities[label].pin for label in labels]
        on_expiry = OnExpiry.BLOCK if expires else None
        return Policy((PinSet(name=_HOST, leaf_pins=pins, expires=expires, on_expiry=on_expiry),))

    def _roots(self, *pins: Pin) -> Policy:
        return Policy((PinSet(name=_HOST, ca_pins=pins),))

    async def _nothing(self) -> None:
        pass

    def _pin(self, policy: Policy) -> Callable[[], Awaitable[None]]:
        async def act() -> None:
            self.pinner.replace(policy)

        return act

    def _show(self, label: str) -> Callable[[], Awaitable[None]]:
        async def act() -> None:
            await asyncio.to_thread(self.server.show, self.identities[label])

        return act

    def _pin_until(self, seconds: float) -> Callable[[], Awaitable[None]]:
        async def act() -> None:
            expires = datetime.now(UTC) + timedelta(seconds=seconds)
            self.pinner.replace(self._keys("C", "D", expires=expires))

        return act

    async def _wait_for_expiry(self) -> None:
        expires = self.pinner.policy.pin_sets[0].expires
        assert expires is not None
        while (left := (expires - datetime.now(UTC)).total_seconds()) > 0:  # noqa: ASYNC110 - a wall clock rings no bell
            await asyncio.sleep(left)


class Traffic:
    """
    Requests at a steady rate, however long each takes.

    Args:
        client: Sends them.
        url: Where to.
        rate: How many a second.
        label: Names the server's certificate.

    Attributes:
        tally: Where requests are counted that begin now.
    """

    def __init__(self, client: httpx.AsyncClient, url: str, rate: float, label: Callable[[bytes], str]) -> None:
        self._client = client
        self._url = url
        self._rate = rate
        self._label = label
        self._requests: set[asyncio.Task[None]] = set()
        self.tally = Tally()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """
        Send while the block lasts, and wait for the answers.
        """
        clock = asyncio.create_task(self._tick())
        try:
            yield
        finally:
            clock.cancel()
            await asyncio.gather(clock, *self._requests, return_exceptions=True)

    async def settle(self) -> None:
        """
        Wait for the answers to what was sent until now.
        """
        await asyncio.gather(*self._requests)

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            task = loop.create_task(self._send(self.tally))
            self._requests.add(task)
            task.add_done_callback(self._requests.discard)
            due = max(due + 1 / self._rate, loop.time())  # what a stall of the machine has missed is not made up for
            await asyncio.sleep(due - loop.time())

    async def _send(self, tally: Tally) -> None:
        try:
            response = await self._client.get(self._url)
            response.raise_for_status()
        except PinMismatchError:
            tally.refused += 1
        except httpx.HTTPError as error:
            tally.failed += 1
            tally.reasons[type(error).__name__] += 1
        else:
            tally.served[self._label(response.extensions["pinset"].chain[0].der)] += 1


async def run_drill(
    stage: Stage, *, rate: float, hold: float, on_stretch: Callable[[Stretch], None] = lambda _: None
) -> list[Stretch]:
    """
    Take every step of *stage* under steady traffic.

    Args:
        stage: The actors.
        rate: Requests a second.
        hold: Seconds between two steps.
        on_stretch: Is told each step when it is over.

    Returns:
        The timeline.
    """
    loop = asyncio.get_running_loop()
    trust = stage.old.client_context(stage.new)
    timeline: list[Stretch] = []
    with stage.server:
        async with PinnedAsyncClient(stage.pinner, verify=trust, trust_env=False, http2=stage.http2) as client:
            traffic = Traffic(client, stage.server.url(), rate, stage.label)
            async with traffic.running():
                start, key, during = loop.time(), "A", traffic.tally
                for step in stage.steps():
                    begin = loop.time() - start
                    await step.act()
                    traffic.tally = after = Tally()
                    await asyncio.sleep(hold)
                    # What begins while the last answers are awaited may live to see the next step: it counts there.
                    traffic.tally = coming = Tally()
                    await traffic.settle()
                    as_expected = _is_as_expected(step, key, during, after)
                    stretch = Stretch(step=step, begin=begin, during=during, after=after, is_as_expected=as_expected)
                    timeline.append(stretch)
                    on_stretch(stretch)
                    key, during = step.key, coming
    return timeline


def _is_as_expected(step: Step, before: str, during: Tally, after: Tally) -> bool:
    if not set(during.served) <= {before, step.key}:
        return False
    if step.is_planned and during.lost:
        return False
    if not step.key:
        return after.refused > 0 and not after.served and not after.failed
    return set(after.served) == {step.key} and not after.lost
