"""
The rotation calendar: when a rule ends, and by when the next pins ship; as a calendar file and as a page.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser

import icalendar
import pytest

from pinset import Pin, PinKind, PinSet, Policy
from pinset.operate.calendar import write_calendar
from pinset.operate.page import write_page
from pinset.operate.plan import Event, EventKind, in_words, make_plan
from pinset.operate.record import Seen

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
LEAD = timedelta(60)
ONE, TWO, THREE = (Pin(PinKind.SPKI, bytes([n]) * 32) for n in (1, 2, 3))
PINS = [ONE, TWO]


def certificate(pin: Pin, days: int, subject: str = "CN=a.com") -> Seen:
    return Seen(pin, Pin(PinKind.CERTIFICATE, pin.digest), subject, NOW + timedelta(days))


def planned(*pin_sets, chains=(), lead=LEAD):
    return make_plan(Policy(pin_sets), chains, NOW, lead=lead)


def days(plan) -> list[tuple[str, int]]:
    """Kind and day of every event, in days from now."""
    return [(event.kind.value, (event.at - NOW).days) for event in plan.events]


def test_expiry():
    """A pin set that expires needs its successor *lead* before."""
    plan = planned(PinSet(name="a.com", pins=PINS, expires=NOW + timedelta(100), on_expiry="block", rotation="ops"))
    assert days(plan) == [("ship", 40), ("pin set", 100)]
    assert plan.rotations == {"a.com": "ops"}
    assert plan.undated == ()
    assert "every connection is refused" in plan.events[1].what


def test_expiry_that_only_warns_ends_nothing():
    """With on_expiry = enforce the rule goes on, so nothing has to ship."""
    plan = planned(PinSet(name="a.com", pins=PINS, expires=NOW + timedelta(100), on_expiry="enforce"))
    assert days(plan) == [("pin set", 100)]


def test_the_last_pinned_certificate_counts():
    """A list is served as long as one of its keys is; the leaf below a pinned CA is in the calendar, too."""
    chain = [certificate(THREE, 30, "CN=leaf"), certificate(ONE, 300, "CN=CA")]
    plan = planned(PinSet(name="a.com", pins=PINS), chains=[chain])
    assert days(plan) == [("certificate", 30), ("ship", 240), ("certificate", 300)]
    assert [event.what for event in plan.events][::2] == [
        "the certificate of CN=leaf ends",
        "the certificate of CN=CA ends, its key is pinned",
    ]
    both = planned(PinSet(name="a.com", pins=PINS), chains=[chain, [certificate(TWO, 400)]])
    assert ("ship", 340) in days(both)


def test_of_several_lists_the_first_that_ends_counts():
    """Where leaf and CA must both match, the earlier end is the end."""
    chain = [certificate(ONE, 90), certificate(THREE, 900)]
    plan = planned(PinSet(name="a.com", leaf_pins=PINS, ca_pins=[TWO, THREE]), chains=[chain])
    assert ("ship", 30) in days(plan)


def test_whole_certificates():
    """A certificate pin is found by the whole certificate."""
    whole = [Pin(PinKind.CERTIFICATE, ONE.digest), Pin(PinKind.CERTIFICATE, TWO.digest)]
    plan = planned(PinSet(name="a.com", certificate_pins=whole), chains=[[certificate(ONE, 90)]])
    assert days(plan) == [("ship", 30), ("certificate", 90)]


def test_no_backup_is_due_now():
    """A rule with one pin has nothing to move to."""
    plan = planned(PinSet(name="a.com", pins=[ONE], allow_single_pin=True), chains=[[certificate(ONE, 900)]])
    assert days(plan) == [("ship", 0), ("certificate", 900)]


def test_nothing_known():
    """Without a date there is no day, and it is said; an excluded host is not in the plan."""
    plan = planned(PinSet(name="**.a.com", pins=PINS), PinSet(name="x.a.com", mode="off"))
    assert (plan.events, plan.undated) == ((), ("**.a.com",))


def test_the_year_1():
    """A lead that reaches before the calendar begins does not break it."""
    plan = planned(PinSet(name="a.com", pins=PINS, expires=datetime(1, 1, 1, tzinfo=UTC), on_expiry="block"))
    assert len(plan.events) == 2


@pytest.mark.parametrize(
    ("at", "words"),
    [(0, "today"), (1, "in 1 day"), (2, "in 2 days"), (-1, "1 day ago"), (-9, "9 days ago")],
)
def test_words(at, words):
    """How far off a day is."""
    assert in_words(Event(NOW + timedelta(at), EventKind.SHIP, "a.com", ""), NOW) == words


NASTY = PinSet(
    name="a.com", pins=PINS, expires=NOW + timedelta(100), on_expiry="unpin", rotation="ops; <b>now</b>, \\ \n then"
)
HOSTILE = [certificate(ONE, 200, "CN=<script>alert(1)</script>,\r\nEND:VEVENT")]


def test_calendar():
    """Every event is a day with an alarm; what strangers wrote does not end a line."""
    plan = planned(NASTY, chains=[HOSTILE])
    text = write_calendar(plan)
    assert all(line.endswith("\r\n") and len(line.encode()) <= 77 for line in text.splitlines(keepends=True))
    read = icalendar.Calendar.from_ical(text)
    events = read.walk("VEVENT")
    assert [(e["summary"], e.decoded("dtstart").isoformat()) for e in events] == [
        ("Ship the next pins of a.com", "2026-12-11"),
        ("The pin set of a.com ends", "2027-02-09"),
        ("A certificate of a.com ends", "2027-05-20"),
    ]
    assert "rotation: ops; <b>now</b>, \\ \n then" in events[0]["description"]
    assert [len(e.walk("VALARM")) for e in events] == [1, 1, 1]


def test_calendar_that_is_read_again_moves_its_events():
    """An event keeps its identifier when its day changes, and no two share one."""
    first = icalendar.Calendar.from_ical(write_calendar(planned(NASTY, chains=[HOSTILE])))
    later = icalendar.Calendar.from_ical(write_calendar(planned(NASTY, chains=[HOSTILE], lead=timedelta(30))))
    identifiers = [[event["uid"] for event in calendar.walk("VEVENT")] for calendar in (first, later)]
    assert identifiers[0] == identifiers[1]
    assert len(set(identifiers[0])) == 3


class Reader(HTMLParser):
    """The elements and attributes of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_page_loads_and_runs_nothing():
    """One file: no script, no address, and what strangers wrote is text."""
    page = write_page(planned(NASTY, chains=[HOSTILE]), title="pins<>.toml")
    reader = Reader()
    reader.feed(page)
    assert reader.open == []
    assert not {"script", "link", "img", "iframe", "b"} & set(reader.tags)
    assert not any(name in ("src", "href", "onload") for name, _ in reader.attributes)
    assert "http://" not in page
    assert "https://" not in page
    assert "default-src 'none'" in page
    assert "&lt;script&gt;" in page
    assert "pins&lt;&gt;.toml" in page
    assert reader.tags.count("tr") == 4


def test_page_places_marks():
    """A mark stands where its day is between today and the last one; the past stands at the beginning."""
    gone = PinSet(name="b.com", pins=PINS, expires=NOW - timedelta(5), on_expiry="block")
    page = write_page(planned(NASTY, gone), title="x")
    assert page.count('style="left: 0.00%"') == 2
    assert 'style="left: 40.00%"' in page
    assert 'style="left: 100.00%"' in page
    assert page.count('class="when late"') == 2


def test_page_without_dates():
    """A policy of which nothing is known says what to do."""
    page = write_page(planned(PinSet(name="a.com", pins=PINS)), title="x")
    assert "No rule has a date" in page
    assert "Without a date" in page
