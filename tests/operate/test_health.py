"""
What the records of a check say: what is due, what is missing, and since when.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from pinset import Pin, PinKind, PinSet, Policy
from pinset.operate.health import assess, hosts_to_check, stretches
from pinset.operate.record import Record, Result, Seen

NOW = datetime(2026, 11, 1, tzinfo=UTC)
MONTH = timedelta(30)
ONE, TWO, THREE = (Pin(PinKind.SPKI, bytes([n]) * 32) for n in (1, 2, 3))


def record(pin: Pin | None = ONE, *, days=300, **fields) -> Record:
    chain = () if pin is None else (Seen(pin, Pin(PinKind.CERTIFICATE, pin.digest), "CN=a", NOW + timedelta(days)),)
    base = {"at": NOW, "host": "a.com", "port": 443, "rule": "a.com", "result": Result.MATCHED, "matched": (ONE,)}
    return Record(**{**base, "chain": chain, **fields})


def health(*records, within=MONTH, **fields):
    policy = Policy((PinSet(**{"name": "a.com", "subdomains": "all", "pins": [ONE, TWO], **fields}),))
    return assess(policy, records or [record()], NOW, within=within)[0]


def test_all_is_well():
    """A pin matches, a backup waits, and nothing ends soon."""
    state = health(expires=NOW + timedelta(31), on_expiry="block")
    assert (state.due, state.has_backup, state.leaf_days, state.expiry_days) == ((), True, 300, 31)
    assert state.unmatched == (TWO,)


def test_what_is_due():
    """What ends within the span, and a rule without a backup."""
    state = health(record(days=30), pins=[ONE], allow_single_pin=True, expires=NOW + MONTH, on_expiry="block")
    assert state.due == (
        "the certificate ends on 2026-12-01",
        "the pin set expires on 2026-12-01",
        "there is no backup: every pin is in the live chain",
    )
    assert health(record(days=30), within=timedelta(29)).due == ()


def test_host_without_a_chain():
    """Of a host that was not reached nothing is known, so nothing is said of its backup."""
    state = health(record(None, result=Result.UNREACHABLE, matched=()))
    assert (state.due, state.leaf_days) == ((), None)


def test_a_pin_that_matches_elsewhere_is_not_forgotten():
    """Pins are counted over all hosts of a rule."""
    first, second = record(), record(TWO, host="x.a.com")
    assert health(first, second).unmatched == ()


def test_hosts_to_check():
    """A host is named by its rule, or is the base of a tree; stars name none, and exclusions are not checked."""
    policy = Policy(
        (
            PinSet(name="a.com", pins=[ONE, TWO], subdomains="one"),
            PinSet(name="**.b.com", pins=[ONE, TWO]),
            PinSet(name="b.com", pins=[TWO, THREE]),
            PinSet(name="*.c.com", pins=[ONE, TWO]),
            PinSet(name="off.b.com", mode="off"),
        )
    )
    assert hosts_to_check(policy) == (["a.com", "b.com"], ["*.c.com"])


def test_stretches():
    """Equal sights are one stretch; a new leaf, result or reason begins another, host by host."""
    days = [
        record(),
        record(at=NOW + timedelta(1)),
        record(TWO, at=NOW + timedelta(2), matched=(TWO,)),
        record(None, at=NOW + timedelta(3), result=Result.UNREACHABLE, matched=(), detail="no"),
        record(host="b.com", at=NOW + timedelta(1)),
    ]
    for records in (days, days[::-1]):
        assert [(s.last.host, s.first.at.day, s.last.at.day, s.count) for s in stretches(records)] == [
            ("a.com", 1, 2, 2),
            ("a.com", 3, 3, 1),
            ("a.com", 4, 4, 1),
            ("b.com", 2, 2, 1),
        ]
