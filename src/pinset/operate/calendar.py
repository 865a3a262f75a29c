"""
A plan as an iCalendar file (RFC 5545), by the ``icalendar`` library: one event a day, with an alarm a week before.
"""

from __future__ import annotations

import hashlib
from datetime import timedelta

from pinset.operate.plan import Event, EventKind, Plan

_ALARM = timedelta(days=-7)
_TITLES = {
    EventKind.SHIP: "Ship the next pins of {rule}",
    EventKind.PIN_SET: "The pin set of {rule} ends",
    EventKind.CERTIFICATE: "A certificate of {rule} ends",
}


def write_calendar(plan: Plan) -> str:
    """
    The plan as text with the line ends of RFC 5545.

    The identifier of an event does not depend on its day, so that a calendar that reads the file again moves it.
    """
    import icalendar  # noqa: PLC0415 - of the extra `cli`

    calendar = icalendar.Calendar()
    calendar.add("prodid", "-//pinset//rotation plan//EN")
    calendar.add("version", "2.0")
    calendar.add("x-wr-calname", "pinset rotations")
    numbers: dict[tuple[str, EventKind], int] = {}
    for event in plan.events:
        number = numbers[event.rule, event.kind] = numbers.get((event.rule, event.kind), 0) + 1
        entry = icalendar.Event()
        entry.add("uid", _identifier(event, number))
        entry.add("dtstamp", plan.now)
        entry.add("dtstart", event.at.date())
        entry.add("summary", _TITLES[event.kind].format(rule=event.rule))
        entry.add("description", _description(event, plan))
        entry.add("transp", "TRANSPARENT")
        alarm = icalendar.Alarm()
        alarm.add("action", "DISPLAY")
        alarm.add("description", _TITLES[event.kind].format(rule=event.rule))
        alarm.add("trigger", _ALARM)
        entry.add_component(alarm)
        calendar.add_component(entry)
    return str(calendar.to_ical(), "utf-8")


def _description(event: Event, plan: Plan) -> str:
    note = plan.rotations.get(event.rule)
    return f"{event.what}\nrotation: {note}" if note else event.what


def _identifier(event: Event, number: int) -> str:
    name = f"{event.rule}/{event.kind}/{number}".encode()
    return f"{hashlib.sha256(name).hexdigest()[:32]}@pinset"
