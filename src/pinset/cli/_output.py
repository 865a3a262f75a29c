"""
How the command line speaks: data on standard output, words on standard error.

Rules of this module:

1. What a program may want to read goes to standard output: lines without decoration, or with ``--json`` one record as
   docs/reference/cli.md describes it. Everything else goes to standard error.
2. Colours and bars only on a terminal, and none where ``NO_COLOR`` says so. What is piped is never cut to a width.
3. An error says what was seen and what was expected; the last line of a message is the next thing to type.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import IntEnum
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TextIO

import typer

from pinset._errors import PinsetError, PolicyError

if TYPE_CHECKING:
    from rich.console import Console

STDIN = "-"
_MOST_FAULTS = 50


class Exit(IntEnum):
    """
    The exit statuses of every command.
    """

    DONE = 0
    FOUND = 1
    """Something is wrong with what was looked at: a mismatch, a risk, a chain that does not verify."""
    REFUSED = 2
    """What was given cannot be used: an option, a file, a policy. Nothing was done."""
    ATTENTION = 3
    """Done, or ready to be done, and a person has to decide: something is due, or a conversion would weaken."""


def say(text: str, *, style: str = "") -> None:
    """
    Words, to standard error.
    """
    _write([(text, style)], stderr=True)


def next_step(text: str) -> None:
    """
    The last line of a message: what to type now.
    """
    say(f"next: {text}", style="bold")


def put(text: str) -> None:
    """
    Data, to standard output, as it is.
    """
    sys.stdout.write(text if text.endswith("\n") else text + "\n")


def put_record(record: Mapping[str, object]) -> None:
    """
    The record that ``--json`` promises.
    """
    put(json.dumps(record, indent=2, ensure_ascii=False))


def put_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, styles: Sequence[str] = ()) -> None:
    """
    Rows in columns: a heading in capitals, two spaces between, nothing cut.
    """
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    heading = [column.upper() for column in columns]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (heading, *rows)
    ]
    _write(list(zip_longest(lines, ["bold", *styles], fillvalue="")), stderr=False)


def fail(text: str, *, status: Exit, step: str = "") -> typer.Exit:
    """
    Say what is wrong, and the error to raise for it.
    """
    say(text, style="red")
    if step:
        next_step(step)
    return typer.Exit(status)


@contextmanager
def refusing() -> Iterator[None]:
    """
    Turn the errors of pinset, and files that cannot be read, into words and status 2.
    """
    try:
        yield
    except PolicyError as error:
        raise fail(_shortened(error), status=Exit.REFUSED, step="correct that, and run the command again") from error
    except PinsetError as error:
        raise fail(str(error), status=Exit.REFUSED) from error
    except (OSError, UnicodeDecodeError) as error:
        raise fail(f"cannot be read or written: {_said(error)}", status=Exit.REFUSED) from error


def _said(error: OSError | UnicodeDecodeError) -> str:
    """What a person can use of it: the file and the reason, without the number."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def _shortened(error: PolicyError) -> str:
    """Nobody reads 200,000 faults, and no terminal should have to show them."""
    head, *faults = str(error).split("\n  ")
    more = len(faults) - _MOST_FAULTS
    return "\n  ".join([head, *faults[:_MOST_FAULTS], *([f"and {more} more"] if more > 0 else [])])


class Advance(Protocol):
    """
    One step of a bar is done.
    """

    def __call__(self) -> None:
        """Draw it."""


@contextmanager
def progress(title: str, total: int) -> Iterator[Advance]:
    """
    A bar on standard error of *total* steps, where that is a terminal; yields what to call after each step.
    """
    if not _is_terminal(sys.stderr):
        yield lambda: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=_console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=total)
        yield lambda: bar.advance(task)


def read_input(path: str) -> bytes:
    """
    The bytes of a file, or of standard input for ``-``.

    Raises:
        OSError: It cannot be read.
    """
    return sys.stdin.buffer.read() if path == STDIN else Path(path).read_bytes()


def source_name(path: str) -> str:
    """
    What an error calls the input.
    """
    return "standard input" if path == STDIN else path


def write_output(text: str, out: Path | None) -> None:
    """
    Data to a file that is asked for, or to standard output.

    Raises:
        OSError: It cannot be written.
    """
    if out is None:
        put(text)
    else:
        out.write_text(text, encoding="utf-8")
        say(f"wrote {out}")


def _write(lines: Sequence[tuple[str, str]], *, stderr: bool) -> None:
    """Lines with their styles. Rich is for terminals only: it costs more than most commands."""
    stream = sys.stderr if stderr else sys.stdout
    if not _is_terminal(stream):
        stream.write("".join(f"{text}\n" for text, _ in lines))
        return
    console = _console(stderr=stderr)
    for text, style in lines:
        console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def _is_terminal(stream: TextIO) -> bool:
    return stream.isatty()


def _console(*, stderr: bool) -> Console:
    from rich.console import Console

    # Fingerprints hold ":AB:" and ":CL:", which Rich would print as pictures.
    return Console(stderr=stderr, emoji=False)
