"""
The report: what the results files say, as Markdown and as one HTML page with plots. Made from the files alone, so that
the same files give the same report.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

from benchmarks import _plots
from benchmarks._common import ROOT, footer

VERSION = "0.1.0"
"""The release whose results are checked in."""

NAMES = ("wire", "peers", "handshake", "micro", "lookup", "scale", "reports")
_TITLES = {
    "wire": "Requests: pinset against stock httpx",
    "peers": "Other stacks, with and without their pinning",
    "handshake": "Handshakes in memory",
    "micro": "Single calls and imports",
    "lookup": "Finding the rule of a host",
    "scale": "What grows",
    "reports": "Reports",
}
_STYLE = (
    "body{font:15px/1.5 sans-serif;max-width:75em;margin:2em auto;padding:0 1em}"
    "table{border-collapse:collapse;font-size:13px;display:block;overflow-x:auto}"
    "td,th{border:1px solid #ccc;padding:2px 8px;text-align:left}svg{max-width:100%;height:auto}"
)


def run(arguments: argparse.Namespace) -> None:
    """
    Write the report into the directory of the results.
    """
    write(arguments.directory or RESULTS, arguments.version)


def write(directory: Path, version: str) -> None:
    """
    Write ``report-VERSION.md`` and ``report-VERSION.html``.

    Args:
        directory: Holds ``NAME-VERSION.json`` and, beside each, the table that the benchmark printed as ``.md``.
        version: The release.
    """
    (directory / f"report-{version}.md").write_text(markdown(directory, version), encoding="utf-8")
    (directory / f"report-{version}.html").write_text(html(directory, version), encoding="utf-8")


def markdown(directory: Path, version: str) -> str:
    """
    The report as Markdown: bars, and every table.
    """
    parts = [f"# Benchmarks of pinset {version}", "Made by `python -m benchmarks report`; what is measured and how is"]
    parts[1] += " told in the documentation, under *How the benchmarks measure*."
    for name in NAMES:
        parts.append(f"## {_TITLES[name]}")
        parts.append(_table(directory, name, version) or f"Not measured for {version}.")
    return "\n\n".join(parts) + "\n"


def html(directory: Path, version: str) -> str:
    """
    The report as one HTML page that loads nothing.
    """
    body = [f"<h1>Benchmarks of pinset {escape(version)}</h1>"]
    for name in NAMES:
        body.append(f"<h2>{_TITLES[name]}</h2>")
        document = _read(directory, name, version)
        table = _table(directory, name, version)
        if document is None or table is None:
            body.append(f"<p>Not measured for {escape(version)}.</p>")
            continue
        body += _PLOTS.get(name, lambda document: iter(()))(document)
        body.append(f"<details><summary>All figures</summary>{_as_html(table)}</details>")
        body.append(f"<p>{escape(footer(document))}</p>")
    title = f"Benchmarks of pinset {escape(version)}"
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
        + "\n".join(body)
        + "</html>\n"
    )


def _read(directory: Path, name: str, version: str) -> dict[str, Any] | None:
    file = directory / f"{name}-{version}.json"
    if not file.exists():
        return None
    document: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return document


def _table(directory: Path, name: str, version: str) -> str | None:
    file = directory / f"{name}-{version}.md"
    return file.read_text(encoding="utf-8").strip() if file.exists() else None


def _wire(document: dict[str, Any]) -> Iterator[str]:
    for yardstick in ("stock", "plain"):
        rows = [
            (scenario, *_quartiles(entry["pinned"][f"cpu/{yardstick}"]), False)
            for scenario, entry in document["summary"].items()
            if scenario != "bars" and f"cpu/{yardstick}" in entry.get("pinned", {})
        ]
        if rows:
            title = {"stock": "httpx in the same environment", "plain": "httpx as pip installs it"}[yardstick]
            yield _plots.dots(f"CPU of a pinned request over that of {title}", rows, "ratio; quartiles of rounds", 1.0)


def _peers(document: dict[str, Any]) -> Iterator[str]:
    for kind, entries in document["summary"].items():
        ordered = sorted(entries.items(), key=lambda item: item[1]["cpu"]["median"])
        rows = [(name, *_quartiles(entry["cpu"]), name in document["pinning"]) for name, entry in ordered]
        yield _plots.dots(
            f"A {kind} request, by stack", rows, "client CPU, µs; quartiles of rounds; second colour: pinned"
        )
    rows = [
        (name, *_quartiles(entry["cpu/own unpinned"]), True)
        for name, entry in sorted(document["summary"]["cold"].items())
        if "cpu/own unpinned" in entry and not name.endswith(", again")
    ]
    yield _plots.dots("What pinning costs: a cold request over that of the same stack without", rows, "ratio", 1.0)


def _handshake(document: dict[str, Any]) -> Iterator[str]:
    for key in ("EC", "RSA"):
        for protocol in ("TLSv1.3", "TLSv1.2"):
            series: dict[str, list[tuple[float, float, float, float]]] = {}
            for length in (1, 2, 3, 4):
                times = document["summary"][f"{key}, {protocol}, {length}"]["microseconds"]
                for way in ("plain", "pinned", "pinned, resumed", "check in place"):
                    series.setdefault(way, []).append((length, *_quartiles(times[way])))
            yield _plots.lines(
                f"Handshake in memory, {key}, {protocol}, client side",
                series,
                ("certificates that the server sends", "µs"),
            )


def _lookup(document: dict[str, Any]) -> Iterator[str]:
    series: dict[str, list[tuple[float, float, float, float]]] = {}
    for size, cases in document["summary"]["microseconds"].items():
        for case, one in cases.items():
            series.setdefault(case, []).append((float(size), *_quartiles(one)))
    yield _plots.lines("Finding the rule of a host", series, ("hosts in the policy", "µs"), logarithmic=True)


def _scale(document: dict[str, Any]) -> Iterator[str]:
    points = [
        (float(name.split()[1].replace(",", "")), *_quartiles(entry["making it, CPU ms"]))
        for name, entry in document["summary"].items()
        if name.startswith("policy")
    ]
    yield _plots.lines("Making a policy", {"CPU": points}, ("hosts in the policy", "ms"), logarithmic=True)


_PLOTS = {"wire": _wire, "peers": _peers, "handshake": _handshake, "lookup": _lookup, "scale": _scale}


def _quartiles(one: dict[str, float]) -> tuple[float, float, float]:
    return one["q1"], one["median"], one["q3"]


def _as_html(text: str) -> str:
    """The little Markdown that the benchmarks print: tables, lists and paragraphs."""
    found = []
    for block in text.split("\n\n"):
        rows = block.splitlines()
        if rows[0].startswith("| "):
            cells = [
                [_inline(cell.strip()) for cell in row.strip("|").split("|")] for row in rows if "| --- |" not in row
            ]
            head, *others = cells
            found.append(
                "<table><tr>" + "".join(f"<th>{cell}</th>" for cell in head) + "</tr>"
                + "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in others)
                + "</table>"
            )  # fmt: skip
        elif rows[0].startswith("- "):
            found.append("<ul>" + "".join(f"<li>{_inline(row[2:])}</li>" for row in rows) + "</ul>")
        else:
            found.append(f"<p>{_inline(block)}</p>")
    return "\n".join(found)


def _inline(text: str) -> str:
    return re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", escape(text))


RESULTS = ROOT / "benchmarks" / "results"
"""The results that are checked in."""
