"""
The benchmarks count what they say that they count. No test here looks at a time.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from benchmarks import _callgrind, _micro_cases, _plots, figures, handshake, peers, report
from benchmarks._common import percentile, spread
from benchmarks._python_peer import sample
from benchmarks._stacks import _Absent, _command
from benchmarks._workers import start

from pinset._certificates import read_certificate

QUOTED = "wire > summary > cold, EC, TLSv1.3, asyncio > pinned > cpu/stock > median | "


class Counting:
    """A stack that is asked for nothing else than to be counted: every third response came over a resumed session."""

    def __init__(self, body: bytes = b"x" * 100) -> None:
        self.body, self.asked, self.under_way, self.most = body, 0, 0, 0

    async def get(self) -> tuple[str, int, bytes]:
        self.asked += 1
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        resumed = "r" if self.asked % 3 == 0 else "."
        await asyncio.sleep(0)
        self.under_way -= 1
        return resumed, 200, self.body

    async def close(self) -> None:
        """There is nothing to close."""


def test_percentile_is_a_value_that_was_measured() -> None:
    """The nearest rank: at least so many percent are no greater, and it is one of the values."""
    values = list(range(1, 201))
    assert [percentile(values, p) for p in (50, 99, 100)] == [100, 198, 200]
    assert percentile([7.0], 99) == 7.0


@pytest.mark.parametrize("concurrency", [1, 5])
def test_a_sample_counts_the_requests_it_was_told(concurrency: int) -> None:
    """So many requests are counted, after those that warm up, and no more are under way at a time than ordered."""
    peer = Counting()
    taken = asyncio.run(sample(peer, {"requests": 30, "concurrency": concurrency}))
    assert peer.asked == 30 + 2 * concurrency
    assert peer.most == concurrency
    assert len(taken["own"]) == 30
    assert taken["resumed"] == pytest.approx(1 / 3, abs=0.001)


def test_a_sample_of_wrong_answers_is_none() -> None:
    """A stack that is fast because it gets something else is found out."""
    with pytest.raises(RuntimeError, match="200 and 5 bytes, not 200 and 100"):
        asyncio.run(sample(Counting(b"error"), {"requests": 3}))


def test_callgrind_workers_make_n_n_and_2n_calls() -> None:
    """The worker runs each case and turn that it is told, and answers each line once."""
    ran: Counter[tuple[str, int]] = Counter()
    answers = io.StringIO()

    def run(case: str, turn: int) -> None:
        ran[case, turn] += 1

    _callgrind.serve(run, io.StringIO("seen hit/0\nseen hit/1\na/b/2\n"), answers)
    assert ran == {("seen hit", 0): 1, ("seen hit", 1): 1, ("a/b", 2): 1}
    assert answers.getvalue() == "ready\ndone\ndone\ndone\n"


def test_callgrind_total_is_that_of_the_dump(tmp_path: Path) -> None:
    """The total is read from a dump of either form; a dump without one is an error."""
    dump = tmp_path / "out.1"
    dump.write_text("events: Ir\nfn=(1) f\n12 30\ntotals: 4711\n")
    assert _callgrind.total(dump) == 4711
    dump.write_text("summary: 42\nfn=(1) f\n")
    assert _callgrind.total(dump) == 42
    dump.write_text("fn=(1) f\n12 30\n")
    with pytest.raises(RuntimeError, match="no total"):
        _callgrind.total(dump)


def test_micro_cases_do_what_their_names_say(tmp_path: Path) -> None:
    """The verdicts are matches, and the digest is computed and not remembered."""
    cases = _micro_cases.make(tmp_path)
    for name in ("check a chain seen before", "check a pooled connection again", "the same, with an expiry"):
        assert cases[name]().verdict.outcome == "matched"  # type: ignore[attr-defined]
    assert cases["evaluate a chain seen before"]().outcome == "matched"  # type: ignore[attr-defined]
    assert cases["check a chain never seen"]().verdict.outcome == "matched"  # type: ignore[attr-defined]
    before = read_certificate.cache_info()
    assert before.hits == 0  # it was never seen indeed
    cases["digests of a certificate"]()
    assert read_certificate.cache_info() == before
    assert [cases["match **.host"](), cases["match *.host"]()] == [True, True]
    assert len(cases["load a policy of 1,000 hosts"]().pin_sets) == 1000  # type: ignore[attr-defined]


@pytest.mark.parametrize("protocol", handshake.PROTOCOLS)
@pytest.mark.parametrize("length", [1, 3])
def test_handshakes_are_of_the_kind_they_are_counted_as(protocol: str, length: int) -> None:
    """Only those named so are resumed, each time; the server sent so many certificates; the check in place is of plain ones only."""
    setting = handshake.Setting("EC", protocol, length)
    for _ in range(3):
        sides = {way: setting.shake(way) for way in handshake.WAYS}
        assert {way for way, side in sides.items() if side.reused} == {"plain, resumed", "pinned, resumed"}
        assert [way for way, side in sides.items() if side.check is not None] == ["plain"]
        assert {side.chain for way, side in sides.items() if not way.endswith("resumed")} == {length + 1}


def test_ratios_are_formed_inside_a_round() -> None:
    """A round in which everything was slow counts for no more than another."""

    def one(cpu: float) -> dict[str, object]:
        return {"cpu": cpu, "wall": cpu, "resumed": 1.0, "own": [cpu]}

    rounds = [(100, 50), (1000, 500), (120, 90)]
    samples = [
        {"cold: httpx": one(stock), "cold: pinset on httpx": one(pinned), "warm: httpx": one(1)}
        for stock, pinned in rounds
    ]
    summary = peers._summary(samples, "cold")
    assert list(summary) == ["httpx", "pinset on httpx"]
    assert summary["pinset on httpx"]["cpu/stock"]["median"] == 0.5  # that of the medians is 0.75
    assert summary["pinset on httpx"]["cpu/own unpinned"] == summary["pinset on httpx"]["cpu/stock"]
    assert (summary["httpx"]["p50"], summary["httpx"]["p99"]) == (120, 1000)


@pytest.mark.parametrize("name", ["go", "node", "okhttp"])
def test_an_absent_stack_is_named_with_the_package(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be measured says what to install."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(_Absent, match="is not installed .*apt-get install"):
        _command(name, tmp_path, {})


def test_a_python_peer_that_is_not_there_is_named(tmp_path: Path) -> None:
    """The interpreter that was given for it is asked, and its error is the reason."""
    empty = tmp_path / "python"
    empty.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n')
    empty.chmod(0o755)
    with pytest.raises(_Absent, match="environment of its own.*No module named 'niquests'"):
        _command("niquests", tmp_path, {"niquests": str(empty)})


def test_a_client_process_that_ends_is_an_error() -> None:
    """Nobody waits for ever for a client that has failed, and no sample is made up."""
    with pytest.raises(RuntimeError, match="a client process has ended"), start([sys.executable, "-c", ""], {}):
        pass  # pragma: no cover - the first line is not answered


def test_a_figure_is_quoted_as_it_is_in_the_file() -> None:
    """The number of the file, in the form that is asked for."""
    file = figures.file_of(QUOTED)
    measured = json.loads(file.read_text(encoding="utf-8"))["summary"]["cold, EC, TLSv1.3, asyncio"]["pinned"]
    assert figures.quote(f"{QUOTED}.2f") == f"{measured['cpu/stock']['median']:.2f}"
    assert figures.quote(f"{QUOTED}.0%") == f"{measured['cpu/stock']['median']:.0%}"


@pytest.mark.parametrize(
    ("quotation", "why"),
    [
        ("nothing > summary | .2f", "no results file nothing-"),
        ("wire > summary > lukewarm | .2f", "no 'lukewarm' there, but cold, EC"),
        ("wire > summary > bars | .2f", "names list, not a figure"),
        ("wire > plan > rounds > more | d", "no 'more' there, but a value"),
    ],
)
def test_a_figure_that_is_not_there_is_an_error(quotation: str, why: str) -> None:
    """Prose does not keep a figure that nobody measured."""
    with pytest.raises(LookupError, match=re.escape(why)):
        figures.quote(quotation)


def test_the_readme_holds_the_figures_of_the_results() -> None:
    """The command would change nothing; it mends a figure that was typed, and refuses a README without the row."""
    text = figures.README.read_text(encoding="utf-8")
    assert figures.readme(text) == text
    label = next(iter(figures.ROWS))
    typed = re.sub(rf"^\| {re.escape(label)} \| .*$", f"| {label} | 0.01 | 0.01 |", text, flags=re.MULTILINE)
    assert typed != text
    assert figures.readme(typed) == text
    with pytest.raises(LookupError, match="0 rows 'cold: new connection, full handshake'"):
        figures.readme(text.replace(f"| {label} |", "| another |"))


@pytest.mark.parametrize("kind", ["markdown", "html"])
def test_the_report_is_that_of_the_results(kind: str) -> None:
    """What is checked in is what ``python -m benchmarks report`` makes of the results, and the page loads nothing."""
    file = report.RESULTS / f"report-{report.VERSION}.{'md' if kind == 'markdown' else 'html'}"
    text = file.read_text(encoding="utf-8")
    assert text == getattr(report, kind)(report.RESULTS, report.VERSION)
    assert not re.search(r"<script|<link|<img|src=|href=|url\(", text)


def test_plots_show_what_they_are_given() -> None:
    """One dot for each row, further right where the value is greater, and a label that cannot break the page."""
    rows = [("a <b> & c", 1.0, 2.0, 3.0, False), ("d", 3.0, 4.0, 5.0, True)]
    tree = ET.fromstring(_plots.dots("title", rows, "µs", 1.0))
    dots = tree.findall("{*}circle")
    assert [float(dot.get("cx", "")) for dot in dots] == sorted(float(dot.get("cx", "")) for dot in dots)
    assert len({dot.get("cx") for dot in dots}) == 2
    assert "a <b> & c" in [text.text for text in tree.findall("{*}text")]
    series = {"one": [(10.0, 1.0, 2.0, 3.0), (1000.0, 2.0, 3.0, 4.0)]}
    tree = ET.fromstring(_plots.lines("title", series, ("hosts", "µs"), logarithmic=True))
    assert len(tree.findall("{*}circle")) == 2


def test_spread_holds_its_median() -> None:
    """The quartiles and the interval are around the median."""
    one = spread([5.0, 1.0, 4.0, 2.0, 3.0])
    assert (one["q1"], one["median"], one["q3"], one["n"]) == (2.0, 3.0, 4.0, 5)
    assert one["low"] <= one["median"] <= one["high"]


def test_the_command_line_has_every_benchmark() -> None:
    """``python -m benchmarks --help`` names each that the report shows."""
    root = Path(__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--help"],
        cwd=root,
        env={**os.environ, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=True,
    )
    commands = re.search(r"\{(.*?)\}", done.stdout)
    assert commands is not None
    assert {*report.NAMES, "all", "report", "figures"} == set(commands[1].split(","))
