"""
``pinset plan``: the rotation calendar of a policy, as a table, a calendar file or a page.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from pinset._pinner import load_policy
from pinset.cli._moment import AtOption, moment, span
from pinset.cli._output import (
    Exit,
    fail,
    next_step,
    put_record,
    put_table,
    read_input,
    refusing,
    say,
    source_name,
    write_output,
)
from pinset.formats._document import utc_text
from pinset.operate.calendar import write_calendar
from pinset.operate.material import read_material
from pinset.operate.page import write_page
from pinset.operate.plan import EventKind, Plan, in_words, make_plan
from pinset.operate.record import Seen, latest, read_records, seen

_STYLES = {EventKind.SHIP: "bold", EventKind.PIN_SET: "", EventKind.CERTIFICATE: ""}


def plan_command(
    policy: Annotated[Path, typer.Argument(help="A policy file, .toml or .json.")],
    *,
    chain: Annotated[list[str] | None, typer.Option(help="Certificates in service, leaf first. Repeatable.")] = None,
    history: Annotated[Path | None, typer.Option(help="What pinset check --record has written.")] = None,
    lead: Annotated[timedelta, typer.Option(parser=span, help="How long pins need to reach every app.")] = timedelta(
        60
    ),
    at: AtOption = None,
    ics: Annotated[bool, typer.Option("--ics", help="As an iCalendar file.")] = False,
    html: Annotated[bool, typer.Option("--html", help="As one HTML page.")] = False,
    out: Annotated[Path | None, typer.Option(help="Write to this file instead of standard output.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON record.")] = False,
) -> None:
    """
    Show when certificates and pin sets end, and by when the next pins must have shipped.
    """
    if ics + html + as_json > 1:
        raise fail("--ics, --html and --json are three forms of one plan: choose one", status=Exit.REFUSED)
    with refusing():
        plan = make_plan(load_policy(policy), _chains(chain or [], history), moment(at), lead=lead)
        if ics:
            write_output(write_calendar(plan), out)
        elif html:
            write_output(write_page(plan, title=policy.name), out)
        elif as_json:
            put_record(_record(plan))
        elif plan.events:
            rows = [[str(e.at.date()), in_words(e, plan.now), e.kind.value, e.rule, e.what] for e in plan.events]
            put_table(["day", "when", "kind", "host", "what"], rows, styles=[_STYLES[e.kind] for e in plan.events])
    _advise(policy, plan)


def _chains(files: list[str], history: Path | None) -> list[list[Seen]]:
    chains = [
        [seen(material.certificate) for material in found if material.certificate is not None]
        for found in (read_material(read_input(path), source=source_name(path)) for path in files)
    ]
    if history is not None:
        records = read_records(history.read_text(encoding="utf-8"), source=str(history))
        chains += [list(record.chain) for record in latest(records).values()]
    return [chain for chain in chains if chain]


def _advise(policy: Path, plan: Plan) -> None:
    due = [event for event in plan.events if event.kind is EventKind.SHIP and event.at <= plan.now]
    for event in due:
        note = plan.rotations.get(event.rule)
        say(f"due: {event.rule}: {event.what}" + (f" ({note})" if note else ""), style="bold red")
    if plan.undated:
        shown = ", ".join(plan.undated[:5]) + (" …" if len(plan.undated) > 5 else "")  # noqa: PLR2004 - a line
        say(f"no date is known of {shown}")
        next_step(f"pinset check {policy} --record history.jsonl, then: pinset plan {policy} --history history.jsonl")
    elif due:
        next_step(f"pinset backup {due[0].rule.lstrip('*.')} --policy {policy}")
    else:
        next_step(f"pinset plan {policy} --ics --out rotations.ics, and open it in a calendar")


def _record(plan: Plan) -> dict[str, object]:
    return {
        "now": utc_text(plan.now),
        "lead_days": plan.lead.days,
        "events": [
            {"at": utc_text(event.at), "kind": event.kind.value, "host": event.rule, "what": event.what}
            for event in plan.events
        ],
        "undated": list(plan.undated),
        "rotations": plan.rotations,
    }
