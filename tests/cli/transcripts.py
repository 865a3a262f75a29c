"""
Transcripts of the command line: what is typed, and the exit status, standard output and standard error that come of it.

A file of ``tests/cli/*.txt`` holds blocks. ``$ pinset …`` begins one; the lines after it are standard output, those that
begin with ``! `` standard error, in their own order, and ``[1]`` is an exit status other than 0. A dot stands for a line
without text. ``…`` stands for anything in its line.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from typer.testing import CliRunner

from pinset.cli import make_app

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Said:
    """What a command answered."""

    status: int
    out: str
    err: str


def pinset(*arguments: str, stdin: str | bytes | None = None) -> Said:
    """Run a command in this process."""
    done = CliRunner().invoke(make_app(), [str(argument) for argument in arguments], input=stdin, prog_name="pinset")
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return Said(done.exit_code, done.stdout, done.stderr)


@dataclass(frozen=True)
class Block:
    """One command of a transcript, and what is expected of it."""

    command: str
    expected: list[str]

    def replay(self) -> None:
        """Run the command and compare."""
        said = pinset(*shlex.split(self.command)[1:])
        lines = [line or "." for line in said.out.splitlines()]
        lines += [f"! {line}" for line in said.err.splitlines()]
        lines += [f"[{said.status}]"] if said.status else []
        matches = len(lines) == len(self.expected) and all(map(_is_like, self.expected, lines))
        assert matches, f"$ {self.command}\n" + "\n".join(lines)


def _is_like(expected: str, line: str) -> bool:
    return re.fullmatch(".*".join(map(re.escape, expected.split("…"))), line) is not None


def blocks(path: Path) -> list[Block]:
    """The commands of a transcript."""
    found: list[Block] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("$ "):
            found.append(Block(line[2:], []))
        elif line and not line.startswith("#"):
            found[-1].expected.append(line)
    return found
