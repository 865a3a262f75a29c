"""
`evaluate`: outcome, decision, and what a verdict says of them.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from pinset import Decision, HostError, Mode, OnExpiry, Outcome, Pin, PinKind, PinSet, Policy, Unlisted, evaluate
from pinset._evaluate import refuse
from pinset.testing import Authority

AUTHORITY = Authority("Evaluate")
LEAF, INTERMEDIATE, ROOT = CHAIN = (*AUTHORITY.issue("example.com").chain, AUTHORITY.root)
KEYS = tuple(Pin.from_certificate(der) for der in CHAIN)
WHOLE = tuple(Pin.from_certificate(der, kind=PinKind.CERTIFICATE) for der in CHAIN)
OTHER, SPARE = (Pin(PinKind.SPKI, bytes([n]) * 32) for n in (1, 2))
NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
TICK = timedelta(microseconds=1)


def judge(chain=CHAIN, *, now=NOW, host="example.com", **fields):
    return evaluate(Policy((PinSet(name="example.com", allow_single_pin=True, **fields),)), host, chain, now)


@pytest.mark.parametrize("position", range(3))
def test_any_certificate_of_the_chain_may_match(position):
    """A key of leaf, intermediate or root is found, and the verdict is complete."""
    verdict = judge(pins=[OTHER, KEYS[position]], host="EXAMPLE.com.")
    assert verdict.host == "example.com"
    assert (verdict.outcome, verdict.decision) == (Outcome.MATCHED, Decision.ALLOW)
    assert verdict.matched == (KEYS[position],)
    assert [certificate.der for certificate in verdict.chain] == list(CHAIN)
    assert verdict.at == NOW
    assert verdict.rule.name == "example.com"
    assert (verdict.valid_until, verdict.expired, verdict.detail) == (None, False, "")
    assert verdict.enforced
    assert not verdict.blocked_by_expiry


def test_all_matches_are_reported_in_the_order_of_the_lists():
    """The comparison goes on after the first match."""
    verdict = judge(pins=[KEYS[2], OTHER, KEYS[0]], ca_pins=[KEYS[1], OTHER])
    assert verdict.matched == (KEYS[2], KEYS[0], KEYS[1])


def test_no_match():
    """Without a pinned key the connection is refused."""
    verdict = judge(pins=[OTHER, SPARE])
    assert (verdict.outcome, verdict.decision, verdict.matched) == (Outcome.MISMATCHED, Decision.REFUSE, ())
    assert len(verdict.chain) == 3


@pytest.mark.parametrize(
    ("fields", "outcome"),
    [
        ({"leaf_pins": [KEYS[0]]}, Outcome.MATCHED),
        ({"leaf_pins": [KEYS[1]]}, Outcome.MISMATCHED),
        ({"leaf_pins": [KEYS[2]]}, Outcome.MISMATCHED),
        ({"ca_pins": [KEYS[0]]}, Outcome.MISMATCHED),
        ({"ca_pins": [KEYS[1]]}, Outcome.MATCHED),
        ({"ca_pins": [KEYS[2]]}, Outcome.MATCHED),
        ({"certificate_pins": [WHOLE[0]]}, Outcome.MATCHED),
        ({"certificate_pins": [WHOLE[2]]}, Outcome.MATCHED),
        ({"certificate_pins": [Pin(PinKind.CERTIFICATE, KEYS[0].digest)]}, Outcome.MISMATCHED),
        ({"pins": [Pin(PinKind.SPKI, WHOLE[0].digest)]}, Outcome.MISMATCHED),
        ({"pins": [Pin(PinKind.SPKI, bytes(32))]}, Outcome.MISMATCHED),
        ({"leaf_pins": [KEYS[0]], "ca_pins": [KEYS[2]]}, Outcome.MATCHED),
        ({"leaf_pins": [KEYS[0]], "ca_pins": [OTHER]}, Outcome.MISMATCHED),
        ({"leaf_pins": [OTHER], "ca_pins": [KEYS[2]]}, Outcome.MISMATCHED),
        ({"pins": [KEYS[0]], "certificate_pins": [WHOLE[1]]}, Outcome.MATCHED),
        ({"pins": [KEYS[0]], "certificate_pins": [Pin(PinKind.CERTIFICATE, bytes(32))]}, Outcome.MISMATCHED),
    ],
)
def test_lists(fields, outcome):
    """One pin of each list must be found where the list says."""
    assert judge(**fields).outcome is outcome


def test_a_lone_certificate_has_nothing_above_it():
    """A chain of one certificate satisfies leaf pins, and no CA pins."""
    root = Pin.from_certificate(ROOT)
    assert judge([ROOT], leaf_pins=[root]).outcome is Outcome.MATCHED
    assert judge([ROOT], ca_pins=[root]).outcome is Outcome.MISMATCHED


@pytest.mark.parametrize(("unlisted", "decision"), [("deny", Decision.REFUSE), ("allow", Decision.ALLOW)])
def test_unlisted(unlisted, decision):
    """A host without rule is treated as the policy says, and its chain is not read."""
    policy = Policy((PinSet(name="example.com", pins=[OTHER, SPARE]),), Unlisted(unlisted))
    verdict = evaluate(policy, "WWW.example.com", [b"no certificate"], NOW)
    assert (verdict.host, verdict.outcome, verdict.decision) == ("www.example.com", Outcome.UNLISTED, decision)
    assert (verdict.rule, verdict.chain, verdict.matched, verdict.at) == (None, (), (), NOW)
    assert not verdict.enforced


def test_excluded():
    """A host that is switched off is let through, and its chain is not read."""
    off = PinSet(name="a.example.com", mode="off")
    policy = Policy((PinSet(name="**.example.com", pins=[OTHER, SPARE]), off))
    verdict = evaluate(policy, "A.example.com", [b"no certificate"], NOW)
    assert (verdict.host, verdict.outcome, verdict.decision) == ("a.example.com", Outcome.EXCLUDED, Decision.ALLOW)
    assert (verdict.rule, verdict.at, verdict.chain) == (off, NOW, ())
    assert not verdict.enforced


@pytest.mark.parametrize("mode", [Mode.ENFORCE, Mode.REPORT_ONLY])
def test_nothing_to_compare_is_refused_in_every_mode(mode):
    """An empty chain and an unreadable one are refused, even by a rule that only reports."""
    empty = judge([], pins=[KEYS[0]], mode=mode, host="EXAMPLE.com")
    assert (empty.outcome, empty.decision) == (Outcome.UNVERIFIED, Decision.REFUSE)
    assert (empty.host, empty.detail, empty.at) == ("example.com", "the verified chain is empty", NOW)
    assert empty.rule.mode is mode
    broken = judge([LEAF, b"\x30"], pins=[KEYS[0]], mode=mode)
    assert (broken.outcome, broken.decision) == (Outcome.UNREADABLE, Decision.REFUSE)
    assert broken.detail.startswith("certificate 1 of the chain: the certificate lacks an expected field")
    assert (broken.chain, broken.matched) == ((), ())


def test_refuse_without_a_rule():
    """A refusal is one even where no rule names the host."""
    policy = Policy((PinSet(name="example.com", pins=[OTHER, SPARE]),), Unlisted.ALLOW)
    verdict = refuse(policy, "A.org", NOW, outcome=Outcome.FAILED, detail="boom")
    assert (verdict.host, verdict.rule, verdict.decision) == ("a.org", None, Decision.REFUSE)
    assert (verdict.outcome, verdict.detail, verdict.at) == (Outcome.FAILED, "boom", NOW)
    with pytest.raises(TypeError, match="positional"):
        refuse(policy, "A.org", NOW, Outcome.FAILED, "boom")


def test_host_without_canonical_form():
    """A name that cannot be looked up is an error, not an unlisted host."""
    for call in (lambda: judge(pins=[OTHER], host="a..b"), lambda: judge([], pins=[OTHER], host="")):
        with pytest.raises(HostError):
            call()


TABLE = [
    (Mode.ENFORCE, None, True, "allow", True),
    (Mode.ENFORCE, None, False, "refuse", True),
    (Mode.ENFORCE, OnExpiry.UNPIN, True, "allow", False),
    (Mode.ENFORCE, OnExpiry.UNPIN, False, "report", False),
    (Mode.ENFORCE, OnExpiry.BLOCK, True, "refuse", True),
    (Mode.ENFORCE, OnExpiry.BLOCK, False, "refuse", True),
    (Mode.ENFORCE, OnExpiry.ENFORCE, True, "allow", True),
    (Mode.ENFORCE, OnExpiry.ENFORCE, False, "refuse", True),
    (Mode.REPORT_ONLY, None, True, "allow", False),
    (Mode.REPORT_ONLY, None, False, "report", False),
    (Mode.REPORT_ONLY, OnExpiry.UNPIN, True, "allow", False),
    (Mode.REPORT_ONLY, OnExpiry.UNPIN, False, "report", False),
    (Mode.REPORT_ONLY, OnExpiry.BLOCK, True, "allow", False),
    (Mode.REPORT_ONLY, OnExpiry.BLOCK, False, "report", False),
    (Mode.REPORT_ONLY, OnExpiry.ENFORCE, True, "allow", False),
    (Mode.REPORT_ONLY, OnExpiry.ENFORCE, False, "report", False),
]


@pytest.mark.parametrize(("mode", "on_expiry", "match", "decision", "enforced"), TABLE)
def test_decisions(mode, on_expiry, match, decision, enforced):
    """Mode and expiry change what is done, never what was found."""
    expires = NOW if on_expiry else None
    pins = [KEYS[0] if match else OTHER]
    verdict = judge(pins=pins, mode=mode, expires=expires, on_expiry=on_expiry)
    assert verdict.outcome is (Outcome.MATCHED if match else Outcome.MISMATCHED)
    assert verdict.decision == decision
    assert verdict.expired is (on_expiry is not None)
    assert verdict.enforced is enforced
    assert verdict.blocked_by_expiry is (match and decision == "refuse")
    assert verdict.matched == ((KEYS[0],) if match else ())


@pytest.mark.parametrize("on_expiry", list(OnExpiry))
@pytest.mark.parametrize("zone", [UTC, timezone(timedelta(hours=-7))])
def test_expiry_begins_at_its_instant(on_expiry, zone):
    """A microsecond before, the pins hold; at the instant, in any time zone, the set has expired."""
    fields = {"pins": [OTHER], "expires": NOW.astimezone(zone), "on_expiry": on_expiry}
    before, at = judge(now=NOW - TICK, **fields), judge(now=NOW, **fields)
    assert (before.expired, before.decision, before.valid_until) == (False, Decision.REFUSE, NOW)
    assert (at.expired, at.valid_until) == (True, None)
    assert at.decision is (Decision.REPORT if on_expiry is OnExpiry.UNPIN else Decision.REFUSE)
    assert before.enforced
    assert judge(now=NOW + TICK, **fields).expired


HOST_PIN = str(KEYS[0])


def test_explain_a_mismatch():
    """A mismatch says host, rule, what was expected where, what was seen, and what to do."""
    text = judge(leaf_pins=[OTHER], ca_pins=[SPARE], pins=[OTHER], certificate_pins=[WHOLE[0]]).explain()
    lines = text.splitlines()
    assert lines[0] == "example.com does not hold a pinned key"
    assert lines[1] == "  rule      example.com (enforce)"
    assert lines[2:4] == ["  expected  one of these keys in any certificate of the chain", f"              {OTHER}"]
    assert lines[4] == "  expected  one of these keys in the server's own certificate"
    assert lines[6:8] == [
        "  expected  one of these keys in a certificate above the server's own",
        f"              {SPARE}",
    ]
    assert lines[8:10] == ["  expected  one of these certificates in the chain", f"              {WHOLE[0]}"]
    assert lines[10] == "  seen      the chain that OpenSSL verified, leaf first"
    assert lines[11].startswith(f"            0 {HOST_PIN}  CN=example.com  20")
    assert lines[12] == f"              {WHOLE[0]}"
    assert lines[15].startswith(f"            2 {KEYS[2]}  CN=Evaluate Root  ")
    assert lines[17].startswith(
        "  next      If the server's key was changed on purpose, add its pin (line 0 above) and "
    )
    assert lines[18].endswith("do not add it.")
    assert len(lines) == 19


@pytest.mark.parametrize(
    ("lists", "advice"),
    [
        ({"pins": [OTHER]}, "add its pin (line 0 above) to"),
        ({"leaf_pins": [OTHER]}, "add its pin (line 0 above) to"),
        ({"ca_pins": [OTHER]}, "add the pin of a certificate that signed it (line 1 or later) as ca_pins to"),
        (
            {"certificate_pins": [WHOLE[0].parse("00:" * 31 + "01", kind=PinKind.CERTIFICATE)]},
            "add the fingerprint of its certificate (below line 0) as certificate_pins to",
        ),
        ({"leaf_pins": [KEYS[0]], "ca_pins": [OTHER]}, "add the pin of a certificate that signed it"),
        ({"leaf_pins": [KEYS[0]], "ca_pins": [KEYS[0]]}, "line 0 above) and the pin of a certificate that signed it"),
    ],
)
def test_explain_says_what_would_match(lists, advice):
    """A leaf's key among CA pins would never match, nor a key among certificates."""
    assert advice in judge(**lists).explain()


def test_explain_leaves_certificate_digests_out_where_none_is_pinned():
    """Digests of certificates are shown only to those who pin them."""
    assert str(WHOLE[0]) not in judge(pins=[OTHER]).explain()


def test_explain_dates():
    """The dates of a certificate are days."""
    certificate = judge(pins=[KEYS[0]]).chain[0]
    line = f"CN=example.com  {certificate.not_before:%Y-%m-%d} to {certificate.not_after:%Y-%m-%d}"
    assert line in judge(pins=[KEYS[0]]).explain()


@pytest.mark.parametrize(("count", "more"), [(20, None), (21, "and 1 more"), (25, "and 5 more")])
def test_explain_shows_twenty_pins(count, more):
    """Long lists are cut, and say how much is missing."""
    pins = [Pin(PinKind.SPKI, bytes([n]) * 32) for n in range(count)]
    text = judge(pins=pins).explain()
    assert [str(pin) in text for pin in pins] == [True] * 20 + [False] * (count - 20)
    assert (f"              {more}" in text.splitlines()) if more else ("more" not in text)


@pytest.mark.parametrize("count", [10, 11])
def test_explain_shows_ten_certificates(count):
    """Long chains are cut."""
    text = judge([LEAF] * count, pins=[OTHER]).explain()
    assert text.count("CN=example.com") == 10


def test_explain_a_match_says_nothing_to_do():
    """A match has a headline, a rule and a chain, and no next step."""
    text = judge(pins=[KEYS[0]]).explain()
    assert text.startswith("example.com holds a pinned key\n  rule      example.com (enforce)\n  seen")
    assert "expected" not in text
    assert "next" not in text


def test_explain_expiry():
    """Expiry is shown with its instant and consequence, and as the reason where it is one."""
    fields = {"pins": [KEYS[0]], "expires": NOW, "on_expiry": "block"}
    held = judge(now=NOW - TICK, **fields).explain()
    assert "  rule      example.com (enforce, expires 2026-06-01T12:00:00+0000 then block)" in held
    assert "it has expired" not in held
    text = judge(**fields).explain()
    assert text.startswith("the pin set of example.com has expired, and the policy blocks it\n")
    assert "            it has expired" in text.splitlines()
    assert text.splitlines()[-1].startswith("  next      Ship a policy with fresh pins and a later expires.")
    assert text.count("next") == 1
    assert "does not hold" in judge(**(fields | {"pins": [OTHER]})).explain()


@pytest.mark.parametrize(
    ("outcome", "headline", "advice"),
    [
        (
            Outcome.UNVERIFIED,
            "example.com has no verified chain to compare pins with: why",
            "Leave certificate and host",
        ),
        (
            Outcome.UNREADABLE,
            "example.com sent a certificate that cannot be read: why",
            "Have the server's certificate",
        ),
        (Outcome.FAILED, "example.com could not be checked: why", "This is a fault in pinset or in the clock"),
    ],
)
def test_explain_a_refusal(outcome, headline, advice):
    """Where nothing was compared, the detail says why."""
    policy = Policy((PinSet(name="example.com", pins=[OTHER, SPARE]),))
    lines = refuse(policy, "example.com", NOW, outcome=outcome, detail="why").explain().splitlines()
    assert lines[0] == headline
    assert lines[1] == "  rule      example.com (enforce)"
    assert lines[2].startswith(f"  next      {advice}")
    assert len(lines) == 3


def test_explain_unlisted_and_excluded():
    """An unlisted host has no rule to show; an excluded one has, and no next step."""
    off = PinSet(name="a.example.com", mode="off")
    policy = Policy((PinSet(name="**.example.com", pins=[OTHER, SPARE]), off))
    unlisted = evaluate(policy, "a.org", CHAIN, NOW).explain().splitlines()
    assert unlisted[0] == "a.org is not listed in the policy"
    assert unlisted[1].startswith("  next      Add the host and its pins to the policy, or say unlisted")
    assert len(unlisted) == 2
    excluded = evaluate(policy, "a.example.com", CHAIN, NOW).explain().splitlines()
    assert excluded == ["a.example.com is excluded from pinning", "  rule      a.example.com (off)"]
