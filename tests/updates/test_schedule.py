"""
When a source looks: with a clock that stands where the test puts it.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from publishing import Publisher, Site, now, pin, policy
from tuf.api.metadata import TargetFile, Targets

from pinset import Pinner, PinSet, Policy
from pinset.updates import OnStale, Origin, UpdateFault
from pinset.updates._fetch import Fetcher
from pinset.updates._keeper import Keeper, Timing
from pinset.updates._refresh import Refresher
from pinset.updates._store import Kept, Store

HOUR = 3600.0
OWN, PUBLISHED = policy(1, 2), policy(3, 4)


class World:
    """
    A repository on a server, a cache, and a clock.
    """

    def __init__(self, publisher, site, cadata) -> None:
        self.publisher = publisher
        self.time = now()
        self.store = Store(None)
        self.site, self._cadata = site, cadata

    def keeper(self, *, own=OWN, deadline=10.0):
        """What a program that starts would have."""
        self.refresher = Refresher(
            self.publisher.anchor,
            fetcher=Fetcher(self.site.url, cadata=self._cadata),
            store=self.store,
            name="policy.json",
            floor=own,
            clock=lambda: self.time,
            deadline=deadline,
        )
        timing = Timing(interval=timedelta(hours=6), grace=timedelta(0), on_stale=OnStale.KEEP)
        return Keeper(Pinner(own), self.refresher, timing, None)


@pytest.fixture
def world(tmp_path, leaf, genuine):
    publisher = Publisher(tmp_path / "schedule", first=PUBLISHED)
    with Site(leaf, publisher) as site:
        yield World(publisher, site, genuine.root_pem)


@pytest.fixture
def keeper(world):
    return world.keeper()


def look(keeper):
    """One look."""
    asyncio.run(keeper.look())


def test_first_look(keeper):
    """Without anything kept, at once."""
    keeper.load()
    assert keeper.wait() <= 0


def test_looks_that_go_well(keeper, world):
    """Six hours apart, give or take a fifth, and never twice the same."""
    waits = set()
    for _ in range(15):
        look(keeper)
        waits.add(keeper.wait())
    assert all(4.8 * HOUR <= wait <= 7.2 * HOUR for wait in waits)
    assert len(waits) > 10
    world.time += timedelta(hours=8)
    assert keeper.wait() <= 0


def test_start_with_a_cache(keeper, world):
    """A cache that is fresh is not looked after; with an old one programs that start together look within a minute."""
    look(keeper)
    checked = keeper.status.checked
    world.time = checked + timedelta(hours=1)
    again = world.keeper()
    again.load()
    assert again.status.checked == checked
    assert 3.8 * HOUR <= again.wait() <= 6.2 * HOUR
    world.time = checked + timedelta(days=1)
    waits = []
    for _ in range(20):
        again = world.keeper()
        again.load()
        waits.append(again.wait())
    assert all(0 <= wait <= 60 for wait in waits)
    assert max(waits) - min(waits) > 1


def test_cache_that_is_refused(keeper, world):
    """A program whose own policy has become stricter does not use its old cache, says so, and looks at once."""
    world.publisher.publish(policy(5, 6, host="other.example.com"))
    lax = world.keeper(own=policy(5, 6, host="other.example.com"))
    look(lax)
    strict = world.keeper(own=_with_unlisted_hosts())
    strict.load()
    assert strict.status.error is None  # the floor is not touched by what it does not list
    world.publisher.publish(_with_unlisted_hosts(mode="report-only"))
    look(world.keeper(own=_with_unlisted_hosts(mode="report-only")))
    strict = world.keeper(own=_with_unlisted_hosts())
    strict.load()
    assert strict.status.error.fault is UpdateFault.WEAKER
    assert strict.wait() <= 0


def _with_unlisted_hosts(mode="enforce"):
    rule = PinSet(name="api.example.com", pins=[pin(1), pin(2)], mode=mode)
    return Policy((rule,), "allow")


def test_failures(keeper, world):
    """After a minute, two, four … up to the interval; one success ends that."""
    path = world.publisher.directory / "metadata/timestamp.json"
    data = path.read_bytes()
    path.unlink()
    waits = []
    for _ in range(12):
        look(keeper)
        waits.append(keeper.wait())
    expected = [min(60.0 * 2**number, 6 * HOUR) for number in range(12)]
    assert all(0.8 * due <= wait <= 1.2 * due for wait, due in zip(waits, expected, strict=True))
    assert keeper.status.failures == 12
    path.write_bytes(data)
    look(keeper)
    assert (keeper.status.failures, keeper.status.error) == (0, None)
    assert keeper.wait() >= 4.8 * HOUR


def test_error_that_nobody_foresaw(keeper, world, caplog):
    """It is logged whole, told as a failure, and the next look comes."""
    world.refresher._fetcher = None
    look(keeper)
    assert (keeper.status.error.fault, keeper.status.failures) == (UpdateFault.INVALID, 1)
    assert "AttributeError" in caplog.text
    assert keeper.wait() > 0


def test_closer_to_the_end(keeper, world):
    """A quarter of what is left, but no less than a minute, however the looks go."""
    look(keeper)
    expires = keeper.status.expires
    for left, most in ((12, 3.6), (1, 0.3), (0.01, 1 / 50)):
        world.time = expires - timedelta(hours=left)
        look(keeper)
        assert keeper.status.error is None
        assert 0.66 * most * HOUR <= keeper.wait() <= most * HOUR


def test_clock_that_was_set_back(keeper, world):
    """It does not put the next look off, and what was checked in the future is checked again."""
    look(keeper)
    world.time -= timedelta(days=100)
    assert keeper.wait() <= 7.2 * HOUR
    world.publisher.publish(policy(4, 5))
    look(keeper)
    assert keeper.status.versions["targets"] == 3


def test_what_expired_stays_expired(keeper, world):
    """Also when the clock goes back, and for the next run; and a clock that was wrong by years does no lasting harm."""
    look(keeper)
    begin = world.time
    for days in (8, 20_000):
        world.time = begin + timedelta(days=days)
        look(keeper)
        assert keeper.status.error.fault is UpdateFault.EXPIRED
        world.time = begin
        for again in (keeper, world.keeper()):
            look(again)
            assert again.status.error.fault is UpdateFault.EXPIRED
    world.publisher.refresh(at=begin + timedelta(hours=1))
    look(keeper)
    assert keeper.status.error is None


def test_expiry_of_a_root_is_not_remembered(keeper, world):
    """A clock that ran ahead of it once does not make a good root useless: a new timestamp is enough to go on."""
    look(keeper)
    begin = world.time
    world.time = begin + timedelta(days=400)
    look(keeper)
    assert "root version 1 expired" in str(keeper.status.error)
    world.time = begin + timedelta(seconds=1)
    world.publisher.refresh(at=begin + timedelta(seconds=1))
    look(keeper)
    assert keeper.status.error is None


def test_cache_of_another_repository(keeper, world, caplog, tmp_path):
    """It is ignored, and told of."""
    other = Publisher(tmp_path / "other", first=policy(66, 67))
    files = {str(path.relative_to(other.directory)): path.read_bytes() for path in other.directory.rglob("*.json")}
    world.store.write(Kept(files, checked=world.time, seen=world.time))
    keeper.load()
    assert keeper.status.origin is Origin.FALLBACK
    assert "does not verify and is ignored" in caplog.text
    look(keeper)
    assert keeper.status.origin is Origin.REPOSITORY


def test_older_cache(keeper, world):
    """What is in the cache counts only if it is newer than what this process knows: no way back leads through the disk."""
    look(keeper)
    old, timestamp = world.store.read(), world.publisher.read("metadata/timestamp.json")
    world.publisher.publish(policy(4, 5))
    look(keeper)
    world.store.write(old)
    world.publisher.replace("metadata/timestamp.json", timestamp)
    look(keeper)
    assert keeper.status.error.fault is UpdateFault.ROLLBACK
    assert keeper.status.versions["targets"] == 3


def test_policy_that_is_none(keeper, world):
    """Signed or not."""
    data = b"\xff"
    info = TargetFile.from_data("policy.json", data, ["sha256"])
    world.publisher.replace("targets/" + info.get_prefixed_paths()[0], data)
    targets = Targets(version=3, expires=now() + timedelta(days=90), targets={"policy.json": info})
    world.publisher.sign(targets, world.publisher.targets, path="metadata/3.targets.json")
    world.publisher.refresh()
    look(keeper)
    assert "is signed, and no policy" in str(keeper.status.error)


def test_cache_that_cannot_be_written(world, tmp_path):
    """The policy is in force all the same, this counts as no failure, and it is said."""
    (tmp_path / "file").write_text("")
    world.store = Store(tmp_path / "file")
    keeper = world.keeper()
    look(keeper)
    assert (keeper.status.error.fault, keeper.status.failures) == (UpdateFault.STORAGE, 0)
    assert keeper.status.origin is Origin.REPOSITORY
    look(keeper)
    assert keeper.wait() >= 4.8 * HOUR


def test_deadline(world):
    """It is one for the whole look."""
    keeper = world.keeper(deadline=0.2)
    world.site.gate.clear()
    look(keeper)
    assert (keeper.status.error.fault, "within 0.2 seconds" in str(keeper.status.error)) == (UpdateFault.SLOW, True)


def test_many_weaknesses(world):
    """The first few are named."""
    rules = tuple(PinSet(name=f"h{number}.example.com", pins=[pin(1), pin(2)]) for number in range(8))
    world.publisher.publish(Policy(tuple(replace(rule, mode="report-only") for rule in rules)))
    keeper = world.keeper(own=Policy(rules))
    look(keeper)
    assert keeper.status.error.fault is UpdateFault.WEAKER
    assert "; and 3 more. Where that is meant, say allow_weaker=True" in str(keeper.status.error)


def test_security_events():
    """What an attack looks like is told from what a bad network looks like."""
    alarming = {fault for fault in UpdateFault if fault.is_security_event}
    assert alarming == {UpdateFault.SIGNATURE, UpdateFault.ROLLBACK, UpdateFault.EXPIRED, UpdateFault.WEAKER}
