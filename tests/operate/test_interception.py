"""
What connections to impostors say of a program.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from pinset import Pin, PinKind, PinSet, Policy
from pinset.operate.interception import (
    Contact,
    Meaning,
    Reaction,
    conclude,
    document_of,
    judge,
    worst,
    write_finding,
)

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
PINS = [Pin(PinKind.SPKI, bytes([number]) * 32) for number in (1, 2)]
READ = [Reaction.CLEARTEXT, Reaction.ACCEPTED]


def contact(host="api.example.com", reaction=Reaction.REFUSED, *, port=443, sent=0, is_control=False):
    """One connection."""
    return Contact(
        at=NOW,
        host=host,
        port=port,
        reaction=reaction,
        detail=f"it was {reaction}",
        sent=sent,
        shown=PINS[1],
        is_control=is_control,
    )


def policy(**fields):
    """A policy of one rule."""
    return Policy((PinSet(**({"name": "api.example.com", "pins": PINS} | fields)),))


def test_the_worst_decides():
    """However often a program refused, what it accepted counts; no proof counts less than a refusal."""
    assert worst([]) is None
    for number, reaction in enumerate(Reaction):
        assert worst([*list(Reaction)[number:], Reaction.UNFINISHED]) is reaction
        assert worst(reversed(list(Reaction)[number:])) is reaction


@pytest.mark.parametrize("reaction", Reaction)
def test_meaning_of_a_listed_host(reaction):
    """Refused is the only proof; read is the only failure."""
    [finding] = judge([contact(reaction=reaction)], policy(), NOW)
    expected = {Reaction.REFUSED: Meaning.HOLDS, **dict.fromkeys(READ, Meaning.FAILS)}
    assert finding.meaning is expected.get(reaction, Meaning.UNPROVEN)
    assert reaction.is_read is (reaction in READ)
    assert finding.rule.name == "api.example.com"


@pytest.mark.parametrize("reaction", Reaction)
def test_without_a_policy_every_host_is_listed(reaction):
    """Nobody said what should be pinned, so all should."""
    [finding] = judge([contact(reaction=reaction)], None, NOW)
    [listed] = judge([contact(reaction=reaction)], policy(), NOW)
    assert finding.meaning is listed.meaning
    assert finding.rule is None


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "other.example.com"},
        {"mode": "report-only"},
        {"expires": NOW, "on_expiry": "unpin"},
    ],
    ids=["unlisted", "report-only", "expired and unpinned"],
)
@pytest.mark.parametrize("reaction", Reaction)
def test_where_nothing_is_asked(fields, reaction):
    """A host that need not refuse is told of, and means nothing."""
    finding = judge([contact(reaction=reaction)], policy(**fields), NOW)[0]
    assert finding.meaning is Meaning.UNASKED
    assert finding.reaction is reaction


@pytest.mark.parametrize(
    "fields",
    [
        {"expires": NOW + timedelta(seconds=1), "on_expiry": "unpin"},
        {"expires": NOW, "on_expiry": "block"},
        {"expires": NOW, "on_expiry": "enforce"},
    ],
)
def test_expiry_that_still_enforces(fields):
    """Before its expiry, or where expiry does not unpin, a rule asks for refusal."""
    [finding] = judge([contact(reaction=Reaction.ACCEPTED)], policy(**fields), NOW)
    assert finding.meaning is Meaning.FAILS


def test_rules_that_were_not_tried():
    """What a program did not connect to is not proven; what need not refuse is not missed."""
    pin_sets = [
        PinSet(name="api.example.com", pins=PINS),
        PinSet(name="*.example.org", pins=PINS),
        PinSet(name="**.example.net", pins=PINS),
        PinSet(name="watched.example.com", pins=PINS, mode="report-only"),
    ]
    findings = judge([contact(), contact("www.example.org")], Policy(tuple(pin_sets)), NOW)
    assert [(f.host, f.port, f.meaning, f.reaction) for f in findings] == [
        ("api.example.com", 443, Meaning.HOLDS, Reaction.REFUSED),
        ("www.example.org", 443, Meaning.HOLDS, Reaction.REFUSED),
        ("**.example.net", 0, Meaning.UNPROVEN, None),
    ]


def test_hosts_and_ports_are_apart():
    """Each port of a host is a finding of its own, with its own connections."""
    contacts = [
        contact(sent=3, reaction=Reaction.ACCEPTED),
        contact(port=8443),
        contact(sent=4, reaction=Reaction.ACCEPTED),
        contact(),
    ]
    first, second = judge(contacts, policy(), NOW)
    assert (first.port, first.sent, len(first.contacts), first.meaning) == (443, 7, 3, Meaning.FAILS)
    assert first.detail == "it was accepted"
    assert (second.port, second.sent, second.meaning) == (8443, 0, Meaning.HOLDS)


def test_leaving_proves_nothing_by_itself():
    """Who leaves at the certificate may just not know the authority."""
    [finding] = judge([contact(reaction=Reaction.LEFT)], policy(), NOW)
    assert (finding.reaction, finding.meaning) == (Reaction.LEFT, Meaning.UNPROVEN)


def test_leaving_after_a_control():
    """The same host, without pins, accepted: so it was the pins."""
    control = contact(reaction=Reaction.ACCEPTED, is_control=True, sent=9)
    [finding] = judge([control, contact(reaction=Reaction.LEFT)], policy(), NOW)
    assert (finding.reaction, finding.meaning, finding.sent) == (Reaction.REFUSED, Meaning.HOLDS, 0)
    assert finding.detail == "it was left; a control has shown that it knows the authority"
    assert len(finding.contacts) == 1


@pytest.mark.parametrize(
    "control",
    [
        contact(reaction=Reaction.LEFT, is_control=True),
        contact(reaction=Reaction.REFUSED, is_control=True),
        contact(reaction=Reaction.CLEARTEXT, is_control=True),
        contact("other.example.com", Reaction.ACCEPTED, is_control=True),
    ],
    ids=["that left", "that refused", "without TLS", "of another host"],
)
def test_control_that_shows_nothing(control):
    """Only acceptance shows it, and only for the same host: another host may be another library's."""
    [finding] = judge([control, contact(reaction=Reaction.LEFT)], policy(), NOW)
    assert finding.meaning is Meaning.UNPROVEN


def test_leaving_of_who_is_said_to_know():
    """A person may know."""
    [finding] = judge([contact(reaction=Reaction.LEFT)], policy(), NOW, knows_authority=True)
    assert (finding.reaction, finding.meaning) == (Reaction.REFUSED, Meaning.HOLDS)
    assert finding.detail == "it was left; it is said to know the authority"


@pytest.mark.parametrize("reaction", [Reaction.ACCEPTED, Reaction.UNTRUSTED, Reaction.UNFINISHED])
def test_a_control_changes_nothing_else(reaction):
    """It explains why somebody left, and nothing besides."""
    control = contact(reaction=Reaction.ACCEPTED, is_control=True)
    [finding] = judge([control, contact(reaction=reaction)], policy(), NOW, knows_authority=True)
    assert finding.reaction is reaction


def test_a_control_alone():
    """It is no finding."""
    assert [f.host for f in judge([contact(is_control=True)], None, NOW)] == []


def test_together():
    """One failure fails all; without a refusal, or with a host unproven, nothing is proven."""
    accepted, refused = contact("a.test", Reaction.ACCEPTED), contact("b.test")
    unproven = contact("c.test", Reaction.UNTRUSTED)
    assert conclude(judge([refused, accepted, unproven], None, NOW)) is Meaning.FAILS
    assert conclude(judge([refused, unproven], None, NOW)) is Meaning.UNPROVEN
    assert conclude(judge([refused], None, NOW)) is Meaning.HOLDS
    assert conclude([]) is Meaning.UNPROVEN
    assert conclude(judge([accepted], policy(mode="report-only"), NOW)) is Meaning.UNPROVEN


def test_record():
    """A line that proves: these pins, this host, this day, this result."""
    [finding] = judge([contact()], policy(), NOW)
    line = write_finding(finding, NOW)
    assert line.count("\n") == 1
    assert (
        json.loads(line)
        == document_of(finding, NOW)
        == {
            "at": "2026-11-21T12:00:00Z",
            "host": "api.example.com",
            "port": 443,
            "rule": "api.example.com",
            "pins": [str(pin) for pin in PINS],
            "result": "refused",
            "meaning": "holds",
            "detail": "it was refused",
            "shown": str(PINS[1]),
            "connections": 1,
            "sent": 0,
        }
    )


def test_record_of_what_was_not_tried():
    """There is nothing to show."""
    [finding] = judge([], policy(), NOW)
    record = document_of(finding, NOW)
    assert (record["result"], record["meaning"], record["shown"], record["detail"]) == ("untried", "unproven", None, "")
    [finding] = judge([contact("elsewhere.test")], None, NOW)
    assert document_of(finding, NOW)["rule"] is None
    assert document_of(finding, NOW)["pins"] == []
