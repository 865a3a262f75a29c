"""
``pinset check`` and ``pinset history``: what servers show today against a policy, and what they showed before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from pinset._errors import InputError
from pinset._pinner import load_policy
from pinset._policy import Mode, Policy
from pinset.cli._moment import moment, span
from pinset.cli._network import (
    CAFileOption,
    ConnectToOption,
    JobsOption,
    ProxyOption,
    StartTLSOption,
    TimeoutOption,
    make_context,
    make_targets,
    split_address,
)
from pinset.cli._output import Exit, next_step, progress, put_record, put_table, refusing, say
from pinset.formats._document import utc_text
from pinset.operate.health import Health, Stretch, assess, hosts_to_check, stretches
from pinset.operate.record import Record, Result, document_of, read_records, write_record
from pinset.probe import StartTLS, Target, check_targets

_MOST_LINES = 10
_COLUMNS = ("host", "result", "matched", "leaf", "pin set", "backup")


def check_command(
    policy: Annotated[Path, typer.Argument(help="A policy file, .toml or .json.")],
    *,
    host: Annotated[
        list[str] | None, typer.Option(help="Check these hosts only, HOST or HOST:PORT. Repeatable.")
    ] = None,
    port: Annotated[int, typer.Option(help="The port of hosts without one.", min=1, max=65535)] = 443,
    within: Annotated[timedelta, typer.Option(parser=span, help="What ends earlier is due.")] = timedelta(30),
    record: Annotated[Path | None, typer.Option(help="Append what was seen, one JSON line a host.")] = None,
    proxy: ProxyOption = None,
    ca_file: CAFileOption = None,
    starttls: StartTLSOption = None,
    connect_to: ConnectToOption = None,
    timeout: TimeoutOption = 10.0,
    jobs: JobsOption = 50,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON record.")] = False,
) -> None:
    """
    Connect to every host of a policy and compare the pins.

    Ends with 1 when a host does not match, does not verify or cannot be reached; with 2 when the policy cannot be read; else
    with 3 when something is due.
    """
    with refusing():
        loaded = load_policy(policy)
        named, nameless = ([split_address(each, port) for each in host], []) if host else _hosts(loaded, port)
        targets = _targets(loaded, named, connect_to, proxy, starttls)
        context = make_context(ca_file)
        now = moment()
        with progress("checking", len(targets)) as advance:
            work = check_targets(loaded, targets, context, now=now, timeout=timeout, jobs=jobs, on_done=advance)
            records = asyncio.run(work)
        if record is not None:
            with record.open("a", encoding="utf-8") as file:
                file.writelines(map(write_record, records))
    healths = assess(loaded, records, now, within=within)
    if as_json:
        put_record({"policy": str(policy), "hosts": [_document(health) for health in healths], "not_checked": nameless})
    else:
        put_table(_COLUMNS, [_row(health) for health in healths], styles=[_style(health) for health in healths])
    _report(policy, healths, nameless, record)


def _hosts(policy: Policy, port: int) -> tuple[list[tuple[str, int]], list[str]]:
    hosts, nameless = hosts_to_check(policy)
    return [(name, port) for name in hosts], nameless


def _targets(
    policy: Policy, named: list[tuple[str, int]], connect_to: str | None, proxy: str | None, starttls: StartTLS | None
) -> list[Target]:
    for name, _ in named:
        rule = policy.find(name)
        if rule is None:
            raise InputError(f"no rule of the policy covers {name}; pinset fetch {name} makes one")
        if rule.mode is Mode.OFF:
            raise InputError(f'the rule of {name} says mode = "off": there are no pins to check')
    return make_targets(named, connect_to, proxy, starttls)


def _row(health: Health) -> list[str]:
    record = health.record
    return [
        record.host if record.port == 443 else f"{record.host}:{record.port}",  # noqa: PLR2004 - the port of HTTPS
        record.result.value,
        " ".join(str(pin) for pin in record.matched) or "-",
        _days(health.leaf_days),
        _days(health.expiry_days),
        ("yes" if health.has_backup else "no") if record.chain else "-",
    ]


def _days(days: int | None) -> str:
    return "-" if days is None else f"{days} d"


def _style(health: Health) -> str:
    if not health.record.result.is_good:
        return "bold red"
    return "yellow" if health.due else ""


def _report(policy: Path, healths: Sequence[Health], nameless: Sequence[str], record: Path | None) -> None:
    wrong = [health for health in healths if not health.record.result.is_good]
    due = [health for health in healths if health.due]
    for health in wrong:
        seen = f" (rule {health.rule.name}, {health.rule.mode})"
        leaf = f"; the leaf has {health.record.chain[0].pin}" if health.record.chain else ""
        say(
            f"{health.record.host}: {health.record.result}{seen}: {health.record.detail or _SAYS[health.record.result]}{leaf}",
            style="red",
        )
    for health in due:
        note = f" ({health.rule.rotation})" if health.rule.rotation else ""
        say(f"{health.record.host}: due: {'; '.join(health.due)}{note}", style="yellow")
    idle = _never_matched(healths)
    for name, pins in list(idle.items())[:_MOST_LINES]:
        say(f"{name}: in no chain: {', '.join(pins)}")
    if len(idle) > _MOST_LINES:
        say(f"and pins of {len(idle) - _MOST_LINES} more rules are in no chain; --json has them")
    for name in nameless:
        say(f"{name}: not checked: it names no host; give one with --host")
    if record is not None:
        say(f"{len(healths)} records appended to {record}")
    say(f"{len(healths)} hosts: {len(healths) - len(wrong)} match, {len(wrong)} do not, {len(due)} have something due")
    if wrong:
        next_step(
            f"pinset explain {policy} {wrong[0].record.host}, and pinset fetch {wrong[0].record.host} over another network"
        )
        raise typer.Exit(Exit.FOUND)
    if due:
        next_step(f"pinset plan {policy}{f' --history {record}' if record else ''}")
        raise typer.Exit(Exit.ATTENTION)
    next_step(f"the same tomorrow, by cron: pinset check {policy} --record history.jsonl")


def _never_matched(healths: Sequence[Health]) -> dict[str, list[str]]:
    """Pins by rule; one that is a backup is expected here, and one that is neither is forgotten."""
    return {
        health.rule.name: [str(pin) for pin in health.unmatched]
        for health in healths
        if health.unmatched and health.record.chain
    }


_SAYS = {
    Result.MISMATCHED: "the verified chain has no pinned key",
    Result.EXPIRED: "the pin set has expired and blocks",
}


def _document(health: Health) -> dict[str, object]:
    return document_of(health.record) | {
        "mode": health.rule.mode.value,
        "unmatched": [str(pin) for pin in health.unmatched],
        "has_backup": health.has_backup,
        "leaf_days": health.leaf_days,
        "expiry_days": health.expiry_days,
        "due": list(health.due),
    }


def history_command(
    file: Annotated[Path, typer.Argument(help="What pinset check --record has written.")],
    *,
    host: Annotated[list[str] | None, typer.Option(help="Show these hosts only. Repeatable.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON record.")] = False,
) -> None:
    """
    Show when the checks of each host began to see what they saw.
    """
    with refusing():
        wanted = {split_address(each, 443)[0] for each in host or ()}
        records = read_records(file.read_text(encoding="utf-8"), source=str(file))
        shown = stretches([record for record in records if not wanted or record.host in wanted])
    if as_json:
        put_record({"history": [_stretch(stretch) for stretch in shown]})
    elif shown:
        styles = ["" if stretch.last.result.is_good else "red" for stretch in shown]
        put_table(
            ("host", "from", "to", "checks", "result", "matched", "leaf"), [_cells(s) for s in shown], styles=styles
        )
    hosts = {(stretch.last.host, stretch.last.port) for stretch in shown}
    say(f"{len(records)} records, {len(hosts)} hosts shown")
    next_step(f"pinset plan POLICY --history {file}")


def _cells(stretch: Stretch) -> list[str]:
    last: Record = stretch.last
    return [
        last.host if last.port == 443 else f"{last.host}:{last.port}",  # noqa: PLR2004 - the port of HTTPS
        f"{stretch.first.at:%Y-%m-%d %H:%M}",
        f"{last.at:%Y-%m-%d %H:%M}",
        str(stretch.count),
        last.result.value,
        " ".join(map(str, last.matched)) or "-",
        str(last.chain[0].pin) if last.chain else last.detail,
    ]


def _stretch(stretch: Stretch) -> dict[str, object]:
    return {
        "first": utc_text(stretch.first.at),
        "last": utc_text(stretch.last.at),
        "count": stretch.count,
        "record": document_of(stretch.last),
    }
