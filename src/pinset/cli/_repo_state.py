"""
``pinset repo status`` and ``pinset repo check``: a repository in its directory, and as a web server shows it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pinset.cli._moment import span
from pinset.cli._network import CAFileOption
from pinset.cli._output import Exit, fail, next_step, put_record, put_table, refusing, say
from pinset.cli._repo import DirectoryArgument, JSONOption, need_updates
from pinset.formats._document import utc_text

if TYPE_CHECKING:
    from pinset.updates._inspection import Inspection
    from pinset.updates._trust import RoleState, Verified

WithinOption = Annotated[
    timedelta, typer.Option("--fail-within", parser=span, help="What people have to renew earlier is due.")
]


def status_command(
    directory: DirectoryArgument, *, fail_within: WithinOption = timedelta(30), as_json: JSONOption = False
) -> None:
    """
    Show versions, expiries and keys of a repository.

    Ends with 1 when clients would refuse it, else with 3 when something is due. What a machine renews every day is due
    3 days before its end.
    """
    with refusing():
        need_updates()
        from pinset.updates import Repository, UpdateError

        repository = Repository(directory)
        newest = repository.root
        try:
            verified = repository.verified()
        except UpdateError as error:
            raise fail(f"clients would refuse it: {error}", status=Exit.FOUND, step="pinset repo refresh") from error
        policy = repository.policy()
        assert policy is not None  # it was verified
    now = datetime.now(UTC)
    keys = {role: list(newest.roles[role].keyids) for role in newest.roles}
    waits = repository.waits
    if as_json:
        put_record(
            {
                "roles": [
                    _document(state, now, fail_within) | {"keyids": keys[state.role]} for state in verified.roles
                ],
                "hosts": len(policy.pin_sets),
                "waits": waits,
            }
        )
    else:
        _put_roles(verified, now, fail_within)
        for role in ("root", "targets", "timestamp"):
            for keyid in keys[role]:
                say(f"{'online' if role == 'timestamp' else role} key {keyid}")
    if waits:
        say("a policy was signed and is not in service: pinset repo refresh", style="yellow")
    _conclude(verified, now, fail_within, waits=waits)


def check_command(
    url: Annotated[str, typer.Argument(help="The https URL below which metadata and targets lie.")],
    *,
    root: Annotated[Path, typer.Option(help="The root that programs bring along.")],
    name: Annotated[str, typer.Option(help="The path of the policy.")] = "policy.json",
    fail_within: WithinOption = timedelta(30),
    ca_file: CAFileOption = None,
    proxy: Annotated[str | None, typer.Option(help="http://HOST:PORT.")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds for everything.", min=0.1)] = 30.0,
    as_json: JSONOption = False,
) -> None:
    """
    Look at a repository as a program does that has just been installed, and at how it is served.

    Ends with 1 when programs cannot update or the server answers wrongly, else with 3 when something is due.
    """
    now = datetime.now(UTC)
    with refusing():
        need_updates()
        from pinset.updates import UpdateError
        from pinset.updates._fetch import Fetcher
        from pinset.updates._inspection import inspect

        fetcher = Fetcher(url, cafile=None if ca_file is None else str(ca_file), proxy=proxy)

        async def look() -> Inspection:
            async with asyncio.timeout(timeout):
                return await inspect(fetcher, root.read_bytes(), name=name, now=now)

        try:
            seen = asyncio.run(look())
        except (UpdateError, TimeoutError) as error:
            raise fail(f"programs cannot update: {str(error) or 'no answer in time'}", status=Exit.FOUND) from error
    if as_json:
        roles = [_document(state, now, fail_within) for state in seen.verified.roles]
        findings = list(seen.findings)
        put_record({"url": url, "roles": roles, "hosts": len(seen.policy.pin_sets), "findings": findings})
    else:
        _put_roles(seen.verified, now, fail_within)
    for finding in seen.findings:
        say(finding, style="red")
    say(f"a policy with {len(seen.policy.pin_sets)} rules is in service")
    if seen.findings:
        raise typer.Exit(Exit.FOUND)
    _conclude(seen.verified, now, fail_within)


def _put_roles(verified: Verified, now: datetime, within: timedelta) -> None:
    rows = [
        [
            state.role,
            str(state.version),
            f"{state.expires:%Y-%m-%d}",
            f"{(state.expires - now).days} d",
            f"{state.threshold} of {state.keys}",
        ]
        for state in verified.roles
    ]
    due = [state.role for state in _due(verified, now, within)]
    styles = ["bold red" if state.role in due else "" for state in verified.roles]
    put_table(("role", "version", "expires", "left", "keys"), rows, styles=styles)


def _due(verified: Verified, now: datetime, within: timedelta) -> Sequence[RoleState]:
    from pinset.updates._inspection import is_due

    return [state for state in verified.roles if is_due(state, now, within)]


def _document(state: RoleState, now: datetime, within: timedelta) -> dict[str, object]:
    from pinset.updates._inspection import is_due

    return {
        "role": state.role,
        "version": state.version,
        "expires": utc_text(state.expires),
        "days": (state.expires - now).days,
        "threshold": state.threshold,
        "keys": state.keys,
        "due": is_due(state, now, within),
    }


def _conclude(verified: Verified, now: datetime, within: timedelta, *, waits: bool = False) -> None:
    expired = [state.role for state in verified.roles if state.expires <= now]
    due = [state.role for state in _due(verified, now, within)]
    if expired:
        raise fail(
            f"expired: {', '.join(expired)}; programs refuse updates", status=Exit.FOUND, step="pinset repo refresh"
        )
    if due:
        say(f"due: {', '.join(due)}", style="yellow")
        next_step("pinset repo refresh, with the keys of those roles")
    if due or waits:
        raise typer.Exit(Exit.ATTENTION)
    next_step("the same tomorrow, by cron")
