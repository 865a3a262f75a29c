"""
What the benchmarks share: statistics, the description of the set-up, and the two forms of output.
"""

from __future__ import annotations

import json
import math
import os
import platform
import random
import ssl
import statistics
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).resolve().parent.parent
_PACKAGES = ("pinset", "httpx", "httpcore", "h11", "anyio", "sniffio", "idna", "cryptography")


def progress(text: str) -> None:
    """
    Say on standard error how far we are.
    """
    print(text, file=sys.stderr, flush=True)


class Bar:
    """
    A bar on standard error while a benchmark runs: by rich where it is installed, and plain lines otherwise.

    Args:
        what: What is being done.
        steps: How many calls of `step` it takes.
    """

    def __init__(self, what: str, steps: int) -> None:
        self._what, self._steps, self._done = what, steps, 0
        self._rich: Any = None
        if sys.stderr.isatty():
            with suppress(ImportError):
                from rich.console import Console
                from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

                columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
                # Drawn on each step and by no thread of its own, which would run during samples.
                self._rich = Progress(*columns, console=Console(stderr=True), auto_refresh=False)
                self._task = self._rich.add_task(what, total=steps)

    def __enter__(self) -> Self:
        if self._rich is not None:
            self._rich.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._rich is not None:
            self._rich.stop()

    def step(self, note: str = "") -> None:
        """One more is done."""
        self._done += 1
        if self._rich is not None:
            self._rich.update(self._task, advance=1, description=f"{self._what} {note}".strip(), refresh=True)
        else:
            progress(f"{self._what}: {self._done} of {self._steps}{f', {note}' if note else ''}")


def setup() -> dict[str, Any]:
    """
    Versions, machine and commit. Nothing in it names the machine, its user or a path.
    """
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": _commit(),
        "versions": {
            "python": platform.python_version(),
            "implementation": platform.python_implementation(),
            "openssl": ssl.OPENSSL_VERSION,
            **{name: _version(name) for name in _PACKAGES},
        },
        "machine": {
            "cpus": os.cpu_count(),
            "model": _cpu_model(),
            "architecture": platform.machine(),
            "system": platform.system(),
            "load_at_start": [round(load, 2) for load in os.getloadavg()],
        },
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def _commit() -> dict[str, Any]:
    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        return {"revision": git("rev-parse", "HEAD"), "src_modified": bool(git("status", "--porcelain", "--", "src"))}
    except (OSError, subprocess.CalledProcessError):
        return {"revision": None, "src_modified": None}


def spread(values: Sequence[float], digits: int = 3) -> dict[str, float]:
    """
    The median of *values*, their quartiles, and the interval of the median.

    The interval is a percentile bootstrap (95 %, 2000 resamples, a fixed seed). It treats *values* as independent.
    """
    ordered = sorted(values)
    if len(ordered) < 2:
        only = round(ordered[0], digits)
        return {"median": only, "q1": only, "q3": only, "low": only, "high": only, "n": 1}
    q1, median, q3 = statistics.quantiles(ordered, n=4, method="inclusive")
    chance = random.Random(1)
    resampled = sorted(statistics.median(chance.choices(ordered, k=len(ordered))) for _ in range(2000))
    found = {"median": median, "q1": q1, "q3": q3, "low": resampled[50], "high": resampled[-51]}
    return {**{name: round(value, digits) for name, value in found.items()}, "n": len(ordered)}


def percentile(values: Sequence[float], percent: float) -> float:
    """
    The smallest of *values* that *percent* of them do not exceed (nearest rank): a time that some request really took.
    """
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def markdown(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """
    A Markdown table.
    """
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def footer(document: dict[str, Any]) -> str:
    """
    One line on versions, machine and commit, for below a table.
    """
    versions, machine, commit = document["versions"], document["machine"], document["commit"]
    revision = (commit["revision"] or "unknown")[:12] + (" with changes in src" if commit["src_modified"] else "")
    return (
        f"pinset {versions['pinset']} ({revision}), Python {versions['python']}, {versions['openssl']},"
        f" httpx {versions['httpx']}, httpcore {versions['httpcore']}, anyio {versions['anyio']};"
        f" {machine['cpus']} × {machine['model']}, {machine['system']}; {document['date']}"
    )


def save(document: dict[str, Any], out: Path | None) -> None:
    """
    Write *document* to *out* as JSON, one line for each entry of the first level.
    """
    if out is None:
        return
    lines = [f"{json.dumps(key)}: {json.dumps(value, separators=(',', ':'))}" for key, value in document.items()]
    out.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
