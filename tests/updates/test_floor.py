"""
What an update may not take away, and the end that is put to a policy.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from publishing import pin

from pinset import Decision, Mode, OnExpiry, Outcome, PinSet, Policy, PolicyError, Unlisted, evaluate
from pinset.updates._floor import bounded, weaknesses

NOW = datetime(2026, 11, 21, tzinfo=UTC)
PINS = [pin(1), pin(2)]


def rule(name, **options):
    """An enforced rule, or what *options* say."""
    return PinSet(**{"name": name, "pins": PINS, **options})


def reasons(policy, floor):
    """The weaknesses as text."""
    return [str(fault) for fault in weaknesses(policy, floor)]


@pytest.mark.parametrize(
    ("floor", "update", "unlisted", "reason"),
    [
        (["a.test"], [rule("a.test")], "deny", ""),
        (["a.test"], [rule("b.test")], "deny", ""),
        (["a.test"], [rule("b.test")], "allow", "would not be listed"),
        (["a.test"], [rule("a.test", mode="report-only")], "deny", 'mode = "report-only"'),
        (["a.test"], [rule("**.test"), PinSet(name="a.test", mode="off")], "deny", 'mode = "off"'),
        (["**.a.test"], [rule("**.a.test"), rule("x.a.test", mode="report-only")], "deny", "for instance x.a.test"),
        (["**.a.test"], [rule("*.a.test"), rule("a.test")], "deny", ""),
        (
            ["**.a.test"],
            [rule("*.a.test"), rule("a.test"), rule("**.test", mode="report-only")],
            "deny",
            "x0.x0.a.test",
        ),
        (["*.a.test"], [rule("x0.a.test"), rule("**.a.test", mode="report-only")], "deny", "x1.a.test"),
        (["a.test"], [rule("a.test", expires=NOW, on_expiry="unpin")], "deny", "unpinned after an expiry"),
        (["a.test"], [rule("a.test", expires=NOW, on_expiry="block")], "deny", ""),
        (
            [rule("a.test", expires=NOW + timedelta(days=1), on_expiry="unpin")],
            [rule("a.test", expires=NOW, on_expiry="unpin")],
            "deny",
            "unpinned earlier",
        ),
        (
            [rule("a.test", expires=NOW, on_expiry="unpin")],
            [rule("a.test", expires=NOW, on_expiry="unpin")],
            "deny",
            "",
        ),
        (["192.0.2.1"], [rule("192.0.2.1", mode="report-only")], "deny", 'mode = "report-only"'),
    ],
)
def test_weaknesses(floor, update, unlisted, reason):
    """Each way to let a connection through that the program would have compared with pins."""
    own = Policy(tuple(rule(one) if isinstance(one, str) else one for one in floor), Unlisted(unlisted))
    found = reasons(Policy(tuple(update), Unlisted(unlisted)), own)
    assert len(found) == bool(reason)
    assert all(reason in text for text in found)


def test_unlisted_hosts():
    """To reach hosts that were refused is a weakness of its own."""
    floor, update = Policy((rule("a.test"),)), Policy((rule("a.test"),), Unlisted.ALLOW)
    assert reasons(update, floor) == ["unlisted: hosts that no rule names would be reached without pins"]
    assert reasons(floor, update) == []


def test_what_the_program_does_not_enforce():
    """A rule that the program does not enforce itself may be anything, and one that ends may end."""
    floor = Policy((rule("a.test", mode="report-only"), rule("b.test", expires=NOW, on_expiry="unpin")))
    update = Policy((rule("a.test", mode="report-only"), rule("b.test", expires=NOW, on_expiry="unpin")))
    assert reasons(update, floor) == []


def test_names_that_are_as_long_as_can_be():
    """Below a name without room for a label there is no example, and no error."""
    longest = ".".join(["a" * 63] * 3 + ["b" * 61])
    floor = Policy((rule(f"**.{longest}"),))
    assert reasons(floor, floor) == []


BASES = ["test", "a.test", "b.test", "x.a.test", "y.x.a.test"]
HOSTS = [*BASES, "q.test", "q.a.test", "q.q.a.test", "q.x.a.test", "q.y.x.a.test", "q.q.q.q.test"]


@st.composite
def policies(draw):
    """Small policies whose rules overlap in all ways."""
    names = draw(st.lists(st.sampled_from([s + b for b in BASES for s in ("", "*.", "**.")]), min_size=1, unique=True))
    modes = st.sampled_from([Mode.ENFORCE, Mode.ENFORCE, Mode.REPORT_ONLY, Mode.OFF])
    rules = [PinSet(name=name, mode=draw(modes), pins=PINS) for name in names]
    try:
        return Policy(tuple(rules), draw(st.sampled_from(Unlisted)))
    except PolicyError:  # an exclusion under no rule
        return Policy(tuple(PinSet(name=name, pins=PINS) for name in names))


@settings(max_examples=200)
@given(policies(), policies())
def test_no_weakness_means_none(update, floor):
    """If none is found, no host that the program enforces is let through with a foreign chain, whatever the patterns."""
    if not weaknesses(update, floor):
        for host in HOSTS:
            own = floor.find(host)
            if own is not None and own.mode is Mode.ENFORCE:
                found = update.find(host)
                assert update.unlisted is Unlisted.DENY if found is None else found.mode is Mode.ENFORCE


def test_bounded(leaf, genuine):
    """A policy with an end refuses what it enforces from then on, and nothing before."""
    pins = [leaf.pin, pin(1)]
    policy = Policy(
        (
            PinSet(name="localhost", pins=pins),
            PinSet(name="ends.test", pins=pins, expires=NOW, on_expiry=OnExpiry.UNPIN),
            PinSet(name="report.test", pins=pins, mode=Mode.REPORT_ONLY),
        )
    )
    until = NOW + timedelta(days=1)
    ending = bounded(policy, until)
    chain = [*leaf.chain, genuine.root]
    decisions = {
        (host, at): evaluate(ending, host, chain, at).decision
        for host in ("localhost", "ends.test", "report.test")
        for at in (until - timedelta(seconds=1), until)
    }
    assert decisions.pop(("localhost", until)) is Decision.REFUSE
    assert set(decisions.values()) == {Decision.ALLOW}
    verdict = evaluate(ending, "localhost", chain, until)
    assert (verdict.outcome, verdict.blocked_by_expiry) == (Outcome.MATCHED, True)
