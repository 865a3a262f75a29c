"""
``pinset drill``: a rotation, a change of authority, a theft and an expiry, on a real nginx, under steady traffic.
"""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from pinset.cli._output import Exit, next_step, progress, put_record, put_table, refusing, say
from pinset.testing._drill import Stage, Stretch, run_drill
from pinset.testing._nginx import Nginx, find_nginx

_COLUMNS = ("time", "part", "what happens", "served by", "refused", "failed", "as promised")


def drill_command(
    *,
    rate: Annotated[float, typer.Option(help="Requests a second.", min=1, max=1000)] = 20.0,
    hold: Annotated[float, typer.Option(help="Seconds between two steps.", min=0.05, max=3600)] = 1.0,
    http1: Annotated[bool, typer.Option("--http1", help="HTTP/1.1 instead of HTTP/2.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON record.")] = False,
) -> None:
    """
    Rotate keys under traffic, and count the requests that are lost: none, for what is planned.

    Needs nginx; everything is on the loopback interface and thrown away. Ends with 1 when something was not as promised.
    """
    with refusing():
        program = find_nginx()
        stage = Stage(lambda first: Nginx(first, program, http2=not http1), hold=hold, http2=not http1)
        with progress("drilling", sum(1 for _ in stage.steps())) as advance:
            timeline = asyncio.run(run_drill(stage, rate=rate, hold=hold, on_stretch=lambda _: advance()))
    lost = sum(stretch.during.lost + stretch.after.lost for stretch in timeline if stretch.step.is_planned)
    if as_json:
        put_record({"lost_in_planned_steps": lost, "steps": [_document(stretch) for stretch in timeline]})
    else:
        styles = ["" if stretch.is_as_expected else "bold red" for stretch in timeline]
        put_table(_COLUMNS, [_row(stretch) for stretch in timeline], styles=styles)
    say(f"{lost} requests lost in planned steps; {_sum_up(timeline)}")
    if not all(stretch.is_as_expected for stretch in timeline):
        next_step("something was not as promised: run it again with --json, and report it")
        raise typer.Exit(Exit.FOUND)
    next_step("the same with your own servers, step by step: docs/howto/rotation.md")


def _row(stretch: Stretch) -> list[str]:
    return [
        f"{stretch.begin:.1f} s",
        stretch.step.part,
        stretch.step.what,
        ", ".join(f"{number} by {key}" for key, number in stretch.served.items()) or "-",
        str(stretch.refused),
        str(stretch.failed),
        "yes" if stretch.is_as_expected else "NO",
    ]


def _sum_up(timeline: list[Stretch]) -> str:
    served = sum(sum(stretch.served.values()) for stretch in timeline)
    refused, failed = sum(stretch.refused for stretch in timeline), sum(stretch.failed for stretch in timeline)
    return f"{served} served, {refused} refused by the pins, {failed} failed otherwise"


def _document(stretch: Stretch) -> dict[str, object]:
    return {
        "at": round(stretch.begin, 3),
        "part": stretch.step.part,
        "what": stretch.step.what,
        "planned": stretch.step.is_planned,
        "key": stretch.step.key or None,
        "served": dict(stretch.served),
        "refused": stretch.refused,
        "failed": stretch.failed,
        "reasons": dict(stretch.during.reasons + stretch.after.reasons),
        "as_promised": stretch.is_as_expected,
    }
