"""
Figures in prose are quoted from the results files: by the build of the documentation, and in the README by a command.

A quotation names a file without its version, the keys down to the number, and how it is written::

    wire > summary > cold, EC, TLSv1.3, asyncio > pinned > cpu/stock > median | .2f
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

from benchmarks._common import ROOT
from benchmarks.report import RESULTS, VERSION

README = ROOT / "README.md"
ROWS = {
    "cold: new connection, full handshake": ("cold, EC, TLSv1.3, asyncio", "pinned-full"),
    "cold: new connection, resumed session": ("cold, EC, TLSv1.3, asyncio", "pinned"),
    "warm: one at a time": ("warm, one at a time, asyncio", "pinned"),
    "warm: 100 at a time": ("warm, 100 at a time", "pinned"),
    "warm: 100 at a time, limits of 1,000": ("warm, 100 at a time, limits of 1,000", "pinned"),
}
"""The rows of the README's table, and the scenario and client that each is of."""


def quote(quotation: str, results: Path = RESULTS, version: str = VERSION) -> str:
    """
    The figure that *quotation* names, as text.

    Args:
        quotation: As above.
        results: The directory of the results.
        version: The release.

    Raises:
        LookupError: There is no such file, key or number; with what there is instead.
    """
    path, _, form = quotation.rpartition(" | ")
    name, *keys = (part.strip() for part in path.split(" > "))
    file = file_of(quotation, results, version)
    if not file.exists():
        raise LookupError(f"{quotation!r}: there is no results file {file.name}")
    found: Any = json.loads(file.read_text(encoding="utf-8"))
    for key in keys:
        if not isinstance(found, dict) or key not in found:
            there = ", ".join(found) if isinstance(found, dict) else "a value"
            raise LookupError(f"{quotation!r}: {name} has no {key!r} there, but {there}")
        found = found[key]
    if isinstance(found, dict | list):
        raise LookupError(  # noqa: TRY004 - of the quotation, not of an argument's type
            f"{quotation!r} names {type(found).__name__}, not a figure"
        )
    return format(found, form.strip())


def file_of(quotation: str, results: Path = RESULTS, version: str = VERSION) -> Path:
    """
    The results file that *quotation* names.
    """
    return results / f"{quotation.split('>', maxsplit=1)[0].split('|', maxsplit=1)[0].strip()}-{version}.json"


def readme(text: str, results: Path = RESULTS, version: str = VERSION) -> str:
    """
    The README with the figures of the results in its table.

    Args:
        text: The README as it is.
        results: The directory of the results.
        version: The release.

    Raises:
        LookupError: A row or a figure is missing.
    """
    for label, (scenario, client) in ROWS.items():
        cells = [
            quote(f"wire > summary > {scenario} > {client} > cpu/{yardstick} > median | .2f", results, version)
            for yardstick in ("stock", "plain")
        ]
        row = f"| {label} | {cells[0]} | {cells[1]} |"
        text, changed = re.subn(rf"^\| {re.escape(label)} \| [^|]* \| [^|]* \|$", row, text, flags=re.MULTILINE)
        if changed != 1:
            raise LookupError(f"the README has {changed} rows {label!r}, not one")
    return text


def run(arguments: argparse.Namespace) -> None:
    """
    Write the figures of the results into the README.
    """
    README.write_text(readme(README.read_text(encoding="utf-8")), encoding="utf-8")
