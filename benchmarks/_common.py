"""
What the benchmarks share: statistics, the description of the set-up, and the two forms of output.
"""

from __future__ import annotations

import json
import os
import platform
import random
import ssl
import statistics
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
_PACKAGES = ("pinset", "httpx", "httpcore", "h11", "anyio", "sniffio", "idna", "cryptography")


def progress(text: str) -> None:
    """
    Say on standard error how far we are.
    """
    print(text, file=sys.stderr, flush=True)


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
