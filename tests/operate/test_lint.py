"""
What ``lint`` finds, rule by rule, and what it leaves alone.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from pinset import Pin, PinKind, PinSet, Policy, Unlisted
from pinset._certificates import read_certificate
from pinset.operate.lint import Surroundings, Weight, lint
from pinset.testing import Authority

NOW = datetime(2026, 11, 1, tzinfo=UTC)
ONE, TWO, THREE, FOUR = (Pin(PinKind.SPKI, bytes([n]) * 32) for n in (1, 2, 3, 4))
GOOD = PinSet(name="a.com", pins=[ONE, TWO])


def found(*pin_sets, unlisted=Unlisted.DENY, **around) -> list[tuple[str, str, str]]:
    """The rule, weight and place of every finding."""
    findings = lint(Policy(pin_sets, unlisted), Surroundings(now=NOW, **around))
    assert all(finding.reason and finding.fix for finding in findings)
    return [(finding.rule, finding.weight.value, finding.place) for finding in findings]


def test_nothing_to_find():
    """A rule with two pins of its own host is as it should be."""
    assert found(GOOD, PinSet(name="b.com", pins=[THREE, FOUR])) == []


@pytest.mark.parametrize(
    ("pin_set", "rule", "weight"),
    [
        (PinSet(name="a.com", pins=[ONE], allow_single_pin=True), "single-pin", "risk"),
        (PinSet(name="a.com", pins=[ONE, Pin(PinKind.SPKI, bytes(32))]), "example-pin", "risk"),
        (
            PinSet(name="a.com", pins=[ONE, "sha256/7HIpactkIAq2Y49orFOOQKurWxmmSFZhBCoQYcRhJ3Y="]),
            "example-pin",
            "risk",
        ),
        (
            PinSet(name="a.com", certificate_pins=[Pin(PinKind.CERTIFICATE, bytes([n]) * 32) for n in (1, 2)]),
            "certificate-pins",
            "risk",
        ),
        (PinSet(name="a.com", leaf_pins=[ONE, TWO]), "leaf-only", "note"),
        (PinSet(name="a.com", pins=[ONE, TWO], mode="report-only"), "report-only", "note"),
    ],
)
def test_one_finding(pin_set, rule, weight):
    """Each of these has one fault."""
    assert found(pin_set) == [(rule, weight, "a.com")]


@pytest.mark.parametrize(
    ("days", "on_expiry", "rules"),
    [
        (-1, "unpin", ["expired", "fails-open"]),
        (0, "block", ["expired"]),
        (30, "block", ["expires-soon"]),
        (31, "enforce", []),
    ],
)
def test_expiry(days, on_expiry, rules):
    """An expiry that has come, comes soon, or opens the door."""
    expires = NOW + timedelta(days=days)
    pin_set = PinSet(name="a.com", pins=[ONE, TWO], expires=expires, on_expiry=on_expiry, rotation="in May")
    assert [rule for rule, _, _ in found(pin_set)] == rules


def test_expiry_needs_a_note():
    """Pins that end need somebody who ships the next ones."""
    pin_set = PinSet(name="a.com", pins=[ONE, TWO], expires=NOW + timedelta(99), on_expiry="block")
    assert found(pin_set) == [("no-rotation-note", "risk", "a.com")]


def test_unlisted_and_excluded():
    """Doors that were left open on purpose are noted."""
    policy = (PinSet(name="**.a.com", pins=[ONE, TWO]), PinSet(name="x.a.com", mode="off"))
    assert found(*policy, unlisted=Unlisted.ALLOW) == [
        ("unlisted", "note", "unlisted"),
        ("off", "note", "x.a.com"),
    ]


def test_shared_pins():
    """A key of unrelated hosts is one key to lose; within a family it is not remarkable."""
    others = [PinSet(name=f"b{n}.com", pins=[ONE, Pin(PinKind.SPKI, bytes([n]) * 32)]) for n in range(10, 18)]
    assert found(GOOD, *others) == [("shared-pin", "note", "a.com")]
    [finding] = lint(Policy((GOOD, *others)), Surroundings(now=NOW))
    assert "b10.com, b11.com, b12.com, b13.com, b14.com and 3 more" in finding.reason
    assert found(GOOD, PinSet(name="x.a.com", pins=[ONE, THREE])) == []


def test_public_suffix():
    """A tree of a public suffix covers strangers; a host that is one does not."""
    suffixes = {"com", "s3.example"}.__contains__
    assert found(PinSet(name="**.com", pins=[ONE, TWO]), is_public_suffix=suffixes) == [
        ("public-suffix", "risk", "**.com")
    ]
    assert found(PinSet(name="s3.example", pins=[ONE, TWO]), is_public_suffix=suffixes) == []
    assert found(PinSet(name="s3.example", pins=[ONE, TWO], subdomains="one"), is_public_suffix=suffixes) == [
        ("public-suffix", "risk", "s3.example")
    ]


def test_redundant():
    """A rule that says what a broader one says is one more place to change."""
    tree = PinSet(name="**.a.com", pins=[ONE, TWO])
    assert found(tree, PinSet(name="x.a.com", pins=[ONE, TWO])) == [("redundant", "note", "x.a.com")]
    assert found(tree, PinSet(name="x.a.com", pins=[ONE, THREE])) == []
    assert found(tree, PinSet(name="x.a.com", pins=[ONE, TWO], subdomains="all")) == []
    assert found(PinSet(name="192.0.2.1", pins=[ONE, TWO])) == []
    assert found(PinSet(name="localhost", pins=[ONE, TWO])) == []


@pytest.mark.parametrize(("days", "rules"), [(89, ["leaf-only"]), (300, [])])
def test_short_lives(days, rules):
    """Only the key of a certificate that lives three months is pinned: a risk, unless a longer one is pinned as well."""
    authority = Authority(intermediate=False)
    leaf = read_certificate(authority.issue("a.com", days=days).chain[0])
    root = read_certificate(authority.root)
    leaf_pin, root_pin = (Pin(PinKind.SPKI, certificate.spki_sha256) for certificate in (leaf, root))
    for pin_set in (PinSet(name="a.com", pins=[leaf_pin, TWO]), PinSet(name="a.com", leaf_pins=[leaf_pin, TWO])):
        findings = lint(Policy((pin_set,)), Surroundings(now=NOW, certificates=[leaf, root]))
        assert [finding.rule for finding in findings] == rules
        assert all(finding.weight is Weight.RISK and "live 91 days" in finding.reason for finding in findings)
    assert found(PinSet(name="a.com", pins=[leaf_pin, root_pin]), certificates=[leaf, root]) == []


def test_large_policies_cost_little():
    """Ten thousand hosts are linted in one pass over each rule."""
    pins = [
        (Pin(PinKind.SPKI, n.to_bytes(32, "big")), Pin(PinKind.SPKI, (n + 1).to_bytes(32, "big")))
        for n in range(1, 10_000)
    ]
    policy = Policy(tuple(PinSet(name=f"h{n}.example", pins=both) for n, both in enumerate(pins)))
    assert {finding.rule for finding in lint(policy, Surroundings(now=NOW))} == {"shared-pin"}
