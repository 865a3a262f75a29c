"""
``pinset intercept``: does a program refuse an impostor of the hosts that it should have pinned?
"""

from __future__ import annotations

import shlex
import signal
import threading
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TextIO

import typer

from pinset._errors import InputError
from pinset._pinner import load_policy
from pinset._policy import Mode
from pinset.cli._moment import moment
from pinset.cli._network import CAFileOption, ConnectToOption, make_context, split_address
from pinset.cli._output import Exit, next_step, put_record, put_table, refusing, say
from pinset.operate.interception import (
    Contact,
    Finding,
    Meaning,
    Reaction,
    conclude,
    document_of,
    judge,
    write_finding,
)
from pinset.testing import Authority, Interceptor
from pinset.testing._interceptor import CA_PATH
from pinset.testing._program import run_behind

_COLUMNS = ("host", "result", "sent", "connections", "rule", "seen")
_STYLES = {Meaning.FAILS: "bold red", Meaning.UNPROVEN: "yellow", Meaning.HOLDS: "green", Meaning.UNASKED: ""}
_STATUS = {Meaning.FAILS: Exit.FOUND, Meaning.UNPROVEN: Exit.ATTENTION, Meaning.HOLDS: Exit.DONE}
_SAYS = {
    Reaction.REFUSED: "refused the impostor",
    Reaction.ACCEPTED: "ACCEPTED IT",
    Reaction.CLEARTEXT: "SENT CLEARTEXT",
    Reaction.LEFT: "left, unproven why",
    Reaction.UNTRUSTED: "does not know the test authority",
    Reaction.UNFINISHED: "no handshake",
    None: "not tried",
}
_ADVICE = {
    Reaction.LEFT: "show that it leaves because of its pins: give the same program without them as --control, and see it accept",
    Reaction.UNTRUSTED: "make the program trust the certificate of --ca-out by an option of its own, and run this again",
    Reaction.UNFINISHED: "let the program finish, and run this again",
    Reaction.REFUSED: "let the program connect to every listed host, and run this again",
    Reaction.ACCEPTED: "let the program connect to a host whose rule enforces, and run this again",
}
_NOTHING_CAME = "nothing came through: give the program the proxy of --listen 127.0.0.1:8080 by an option of its own"
_DAYS = 2  # a phone keeps an authority that somebody forgot to take off again


def intercept_command(
    command: Annotated[list[str] | None, typer.Argument(help="A program and its arguments, after --.")] = None,
    *,
    control: Annotated[
        str | None, typer.Option(help="The same program without its pins, run first: it must accept the impostor.")
    ] = None,
    knows_authority: Annotated[
        bool, typer.Option("--knows-authority", help="The program is known to trust --ca-out or the usual variables.")
    ] = False,
    policy: Annotated[Path | None, typer.Option(help="The hosts that should be pinned; without it, all.")] = None,
    record: Annotated[Path | None, typer.Option(help="Append what was found, one JSON line a host.")] = None,
    listen: Annotated[
        str | None, typer.Option(help="ADDRESS[:PORT]; without a program, a proxy for a phone or a browser.")
    ] = None,
    allow_remote: Annotated[bool, typer.Option("--allow-remote", help="Other machines may use the proxy.")] = False,
    ca_out: Annotated[Path | None, typer.Option(help="Write the certificate of the test authority, PEM.")] = None,
    ca_file: CAFileOption = None,
    connect_to: ConnectToOption = None,
    timeout: Annotated[float | None, typer.Option(help="End the program after this many seconds.", min=0.1)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON record.")] = False,
) -> None:
    """
    Run a program behind an impostor of every host, and see whether it refuses.

    Ends with 1 when a listed host was accepted, with 3 when one was not proven, with 0 when all refused.
    """
    with refusing(), ExitStack() as stack:
        programs = _programs(command, control, listen)
        loaded = load_policy(policy) if policy else None
        file = stack.enter_context(record.open("a", encoding="utf-8")) if record else None
        interceptor = _interceptor(listen, ca_file, connect_to, allow_remote=allow_remote, live=not command)
        if ca_out:
            ca_out.write_text(interceptor.authority.root_pem, encoding="ascii")
        _start(stack, interceptor)
        status = _run(interceptor, programs, timeout)
        now = moment()
        findings = judge(interceptor.contacts, loaded, now, knows_authority=knows_authority)
        if file is not None:
            file.writelines(write_finding(finding, now) for finding in findings)
    if as_json:
        hosts = [document_of(finding, now) for finding in findings]
        put_record({"command": command, "status": status, "conclusion": conclude(findings).value, "hosts": hosts})
    elif findings:
        styles = [_STYLES[finding.meaning] for finding in findings]
        put_table(_COLUMNS, [_row(finding) for finding in findings], styles=styles)
    controls = [contact for contact in interceptor.contacts if contact.is_control] if control else None
    _Report(command, status, findings, controls, file).say()
    raise typer.Exit(_STATUS[conclude(findings)])


@dataclass(frozen=True, slots=True)
class _Programs:
    """What is run, word by word; nothing where there is only a proxy."""

    control: list[str]
    command: list[str]


def _programs(command: list[str] | None, control: str | None, listen: str | None) -> _Programs:
    if not command and listen is None:
        raise InputError("nothing to intercept: pinset intercept -- PROGRAM…, or --listen 127.0.0.1:8080")
    try:
        words = shlex.split(control or "")
    except ValueError as error:
        raise InputError(f"--control {control!r} cannot be read: {error}; quote it as for a shell") from error
    if words and not command:
        raise InputError("--control is run before a program, and there is none; put one after --")
    return _Programs(words, command or [])


def _run(interceptor: Interceptor, programs: _Programs, timeout: float | None) -> int | None:
    """Whatever there is to run, the control first; the exit status of the program."""
    if programs.control:
        with interceptor.control():
            run_behind(interceptor, programs.control, timeout=timeout)
    if programs.command:
        return run_behind(interceptor, programs.command, timeout=timeout)
    _wait_for_interrupt(interceptor)
    return None


def _interceptor(
    listen: str | None, ca_file: Path | None, connect_to: str | None, *, allow_remote: bool, live: bool
) -> Interceptor:
    host, port = split_address(listen, 0) if listen else ("127.0.0.1", 0)
    return Interceptor(
        Authority("pinset intercept", days=_DAYS),
        upstream=make_context(ca_file),
        connect_to=split_address(connect_to, 443) if connect_to else None,
        keep=False,
        address=(host, port),
        allow_remote=allow_remote,
        on_contact=_tell if live else lambda _: None,
    )


def _start(stack: ExitStack, interceptor: Interceptor) -> None:
    try:
        stack.enter_context(interceptor)
    except OSError as error:
        raise InputError(
            f"cannot listen there: {error.strerror or error}; --listen takes another ADDRESS:PORT"
        ) from error


def _tell(contact: Contact) -> None:
    style = "bold red" if contact.reaction.is_read else ""
    say(f"{contact.host}:{contact.port}: {_SAYS[contact.reaction]}: {contact.detail}", style=style)


def _wait_for_interrupt(interceptor: Interceptor) -> None:
    say(f"proxy: {interceptor.url}, HTTP CONNECT and SOCKS5")
    say(f"its authority: {interceptor.url}{CA_PATH} (valid {_DAYS} days; take it off the device afterwards)")
    next_step("set the proxy and trust the authority on the device, use the app, then press Ctrl-C here")
    over = threading.Event()
    previous = signal.signal(signal.SIGTERM, lambda *_: over.set())
    try:
        over.wait()
    except KeyboardInterrupt:
        pass
    finally:
        signal.signal(signal.SIGTERM, previous)
    interceptor.settle(within=1.0)


def _row(finding: Finding) -> list[str]:
    return [
        finding.host if finding.port in {0, 443} else f"{finding.host}:{finding.port}",
        _SAYS[finding.reaction],
        f"{finding.sent} B",
        str(len(finding.contacts)),
        _rule(finding),
        finding.detail or "-",
    ]


def _rule(finding: Finding) -> str:
    if finding.rule is None:
        return "-"
    return finding.rule.name if finding.rule.mode is Mode.ENFORCE else f"{finding.rule.name} ({finding.rule.mode})"


@dataclass(frozen=True, slots=True)
class _Report:
    """The words after the table."""

    command: list[str] | None
    status: int | None
    findings: list[Finding]
    controls: list[Contact] | None
    file: TextIO | None

    def say(self) -> None:
        """All of them; the last is the next thing to type."""
        if self.command:
            ended = "was ended" if self.status is None else f"ended with status {self.status}"
            say(f"{self.command[0]} {ended}")
        if self.controls is not None and not any(each.reaction is Reaction.ACCEPTED for each in self.controls):
            seen = ", ".join(f"{each.host}: {each.detail}" for each in self.controls) or "nothing came through"
            say(f"the control did not accept an impostor: {seen}", style="yellow")
        if self.file is not None:
            say(f"{len(self.findings)} records appended to {self.file.name}")
        number = {meaning: sum(each.meaning is meaning for each in self.findings) for meaning in Meaning}
        say(
            f"{len(self.findings)} hosts: {number[Meaning.HOLDS]} refused the impostor, {number[Meaning.FAILS]} accepted it, "
            f"{number[Meaning.UNPROVEN]} not proven, {number[Meaning.UNASKED]} not asked for"
        )
        next_step(self._next())

    def _next(self) -> str:
        reactions = {finding.reaction for finding in self.findings}
        failed = next((finding.host for finding in self.findings if finding.meaning is Meaning.FAILS), "")
        if failed:
            return f"pin {failed}: pinset fetch {failed}, give the pins to the program, and run this again"
        if conclude(self.findings) is Meaning.HOLDS:
            return "the same with every release, with --record for the evidence"
        return next((advice for reaction, advice in _ADVICE.items() if reaction in reactions), _NOTHING_CAME)
