"""
Which rule applies, and why: the words agree with the look-up and with the verdict.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pinset import HostError, Pin, PinKind, PinSet, Policy, Unlisted
from pinset.operate.explain import explain

NOW = datetime(2026, 11, 1, tzinfo=UTC)
PINS = [Pin(PinKind.SPKI, bytes([n]) * 32) for n in (1, 2)]
LADDER = Policy(
    (
        PinSet(name="**.c.com", pins=PINS),
        PinSet(name="*.b.c.com", pins=PINS),
        PinSet(name="**.a.b.c.com", pins=PINS),
        PinSet(name="a.b.c.com", pins=PINS),
        PinSet(name="off.c.com", mode="off"),
    )
)


def then(policy: Policy, host: str = "a.com") -> dict[str, str]:
    return dict(explain(policy, host, NOW).consequences)


def one(**fields) -> Policy:
    return Policy((PinSet(name="a.com", **{"pins": PINS, **fields}),))


@pytest.mark.parametrize(
    ("host", "pattern", "passed_over", "why"),
    [
        ("A.B.C.com.", "a.b.c.com", ["**.a.b.c.com", "*.b.c.com", "**.c.com"], "the most specific of 4"),
        ("x.a.b.c.com", "**.a.b.c.com", ["**.c.com"], "the host is a.b.c.com or below it, and it is"),
        ("x.b.c.com", "*.b.c.com", ["**.c.com"], "the host is b.c.com with one label more, and it is"),
        ("c.com", "**.c.com", [], "the host is c.com or below it"),
        ("d.com", None, [], "no pattern covers the host"),
    ],
)
def test_specificity(host, pattern, passed_over, why):
    """The pattern that applies stands first, and the others are named."""
    explanation = explain(LADDER, host, NOW)
    assert (None if pattern is None else str(explanation.pattern)) == pattern
    assert [str(each) for each in explanation.passed_over] == passed_over
    assert why in explanation.why
    assert explanation.rule is LADDER.find(host)


LABELS = st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map(".".join)


@given(st.sets(st.tuples(st.sampled_from(["", "*.", "**."]), LABELS), min_size=1, max_size=8), LABELS)
def test_agrees_with_the_look_up(patterns, host):
    """For any set of patterns the first that is named belongs to the rule that applies."""
    policy = Policy(tuple(PinSet(name=stars + base, pins=PINS) for stars, base in sorted(patterns)))
    explanation = explain(policy, host, NOW)
    if explanation.rule is None:
        assert explanation.pattern is None
    else:
        assert explanation.pattern in explanation.rule.patterns


def test_consequences_of_a_pinned_host():
    """What is let through, and what is refused and when."""
    assert then(one()) == {
        "http:// or ws://": "refused: without TLS there is no key",
        "a chain that does not verify": "refused",
        "a verified chain with one of 2 keys in any certificate": "let through",
        "any other verified chain": "refused before a byte of the request has left",
    }
    both = then(one(leaf_pins=PINS, ca_pins=PINS, pins=()))
    assert "a verified chain with one of 2 keys in the leaf and one of 2 keys in a CA" in both


def test_modes():
    """Report-only reports, off asks nothing, and unlisted hosts are what the policy says."""
    assert then(one(mode="report-only"))["any other verified chain"].startswith("reported and let through")
    assert then(LADDER, "off.c.com")["any verified chain"] == 'let through without pins: mode = "off"'
    assert then(LADDER, "d.com") == {"any request": 'refused: unlisted = "deny"'}
    opened = Policy(LADDER.pin_sets, Unlisted.ALLOW)
    assert then(opened, "d.com") == {"any request": 'let through without pins: unlisted = "allow"'}


@pytest.mark.parametrize(
    ("on_expiry", "match", "mismatch"),
    [
        ("unpin", "let through", "reported and let through: the pin set has expired"),
        ("block", "refused: the pin set has expired and blocks", "refused before a byte of the request has left"),
        ("enforce", "let through", "refused before a byte of the request has left"),
    ],
)
def test_expiry(on_expiry, match, mismatch):
    """After its expiry a pin set does what it says; before, it announces that."""
    expired = then(one(expires=NOW, on_expiry=on_expiry))
    assert expired["a verified chain with one of 2 keys in any certificate"] == match
    assert expired["any other verified chain"] == mismatch
    assert "since 2026-11-01 00:00 UTC on" in expired
    later = then(one(expires=NOW + timedelta(1), on_expiry=on_expiry))
    assert later["any other verified chain"] == "refused before a byte of the request has left"
    assert "from 2026-11-02 00:00 UTC on" in later


def test_host_without_a_canonical_form():
    """What is no host has no rule."""
    with pytest.raises(HostError):
        explain(LADDER, "a..b", NOW)
