"""
Single calls by pyperf, their instructions by callgrind, and what an import costs.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import _callgrind, _micro_cases
from benchmarks._common import ROOT, Bar, footer, markdown, progress, save, setup, spread

IMPORT_BAR = 1.2
_IMPORTS = {"nothing": "pass", "httpx": "import httpx", "pinset": "import pinset"}


def run(arguments: argparse.Namespace) -> None:
    """
    Measure, print the tables, and write the samples.
    """
    quick = arguments.quick
    plan = {
        "pyperf": ["-p", "1", "-n", "2", "-w", "1", "--min-time", "0.01"] if quick else ["-p", "12", "-n", "3"],
        "imports": 3 if quick else 40,
        "calls": 100 if quick else 400,
    }
    document: dict[str, Any] = {"benchmark": "micro", **setup(), "plan": plan}
    samples: dict[str, Any] = {"imports": _imports(plan["imports"])}
    summary: dict[str, Any] = {"imports": _import_summary(samples["imports"])}
    if importlib.util.find_spec("pyperf") is None:
        summary["skipped"] = "pyperf is not installed (dependency group bench); no calls are timed"
        progress(summary["skipped"])
    else:
        samples["microseconds"] = _timed(plan["pyperf"])
        summary["microseconds"] = {name: spread(values, 4) for name, values in samples["microseconds"].items()}
    if arguments.instructions:
        summary["instructions"] = _instructions(plan["calls"])
    document["summary"] = summary
    document["samples"] = samples
    print(_report(document))
    save(document, arguments.out)


def _imports(rounds: int) -> dict[str, list[float]]:
    """Milliseconds of CPU of an interpreter that imports one thing, interleaved; the first round is not kept."""
    samples: dict[str, list[float]] = {name: [] for name in _IMPORTS}
    with Bar("import", rounds + 1) as bar:
        for number in range(-1, rounds):
            for name in random.sample(list(_IMPORTS), len(_IMPORTS)):
                pid = os.posix_spawn(sys.executable, [sys.executable, "-c", _IMPORTS[name]], os.environ)
                _, status, usage = os.wait4(pid, 0)
                if status != 0:
                    raise RuntimeError(f"{_IMPORTS[name]} has failed; its error is above")
                if number >= 0:
                    samples[name].append(round((usage.ru_utime + usage.ru_stime) * 1000, 3))
            bar.step()
    return samples


def _import_summary(samples: dict[str, list[float]]) -> dict[str, Any]:
    """The interpreter's own start is taken off both sides of the ratio."""
    rounds = list(zip(samples["pinset"], samples["httpx"], samples["nothing"], strict=True))
    ratio = spread([(ours - bare) / (theirs - bare) for ours, theirs, bare in rounds])
    return {
        "milliseconds": {name: spread(values, 2) for name, values in samples.items()},
        "pinset/httpx": ratio,
        "bar": IMPORT_BAR,
        "held": ratio["median"] <= IMPORT_BAR,
    }


def _timed(options: list[str]) -> dict[str, list[float]]:
    """Microseconds of every value that pyperf kept."""
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory, "pyperf.json")
        command = [sys.executable, "-m", "benchmarks._micro_pyperf", "-o", str(out), "--quiet", *options]
        command += ["--inherit-environ", "PYTHONPATH"]
        progress("pyperf: calls in processes of their own")
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        suite = json.loads(out.read_text(encoding="utf-8"))
    samples = {}
    for entry in suite["benchmarks"]:
        name = (entry.get("metadata") or suite["metadata"])["name"]
        values = [value for each in entry["runs"] for value in each.get("values", ())]
        samples[name] = [round(value * 1e6, 5) for value in values]
    return samples


def _instructions(most: int) -> dict[str, Any]:
    if (why := _callgrind.why_not()) is not None:
        progress(why)
        return {"skipped": why}
    progress("counting instructions of calls")
    with tempfile.TemporaryDirectory() as directory:
        names = list(_micro_cases.make(Path(directory)))
    cases = {name: _micro_cases.calls(name, most) for name in names}
    per_call = _callgrind.count(["-m", "benchmarks._micro_cases", str(most)], cases)
    progress("counting instructions of imports")
    imports = {name: _callgrind.count_program(["-c", code]) for name, code in _IMPORTS.items()}
    ratio = (imports["pinset"] - imports["nothing"]) / (imports["httpx"] - imports["nothing"])
    return {"per_call": per_call, "imports": imports, "import pinset/httpx": round(ratio, 4)}


def _report(document: dict[str, Any]) -> str:
    summary = document["summary"]
    times, counted = summary.get("microseconds", {}), summary.get("instructions", {})
    per_call = counted.get("per_call", {})
    rows: list[list[object]] = []
    for name in times or per_call:
        one = times.get(name)
        cells = [f"{one['median']:.3f}", f"{one['q1']:.3f} – {one['q3']:.3f}"] if one else ["", ""]
        rows.append([name, *cells, f"{per_call[name]:,.0f}" if name in per_call else ""])
    parts = [markdown(["call", "µs (median)", "quartiles", "instructions"], rows)] if rows else []
    imports = summary["imports"]
    lines: list[list[object]] = [
        [
            name,
            f"{one['median']:.1f}",
            f"{one['q1']:.1f} – {one['q3']:.1f}",
            f"{counted['imports'][name]:,}" if "imports" in counted else "",
        ]
        for name, one in imports["milliseconds"].items()
    ]
    lines.append(
        [
            "pinset to httpx, without the interpreter's start",
            f"{imports['pinset/httpx']['median']:.3f}",
            f"{imports['pinset/httpx']['q1']:.3f} – {imports['pinset/httpx']['q3']:.3f}",
            f"{counted['import pinset/httpx']:.3f}" if "imports" in counted else "",
        ]
    )
    parts.append(markdown(["import", "CPU ms (median)", "quartiles", "instructions"], lines))
    notes = [text for text in (summary.get("skipped"), counted.get("skipped")) if text]
    notes.append(f"{'held' if imports['held'] else 'NOT held'}: import at most {IMPORT_BAR} times that of httpx")
    return "\n\n".join([*parts, "\n".join(f"- {note}" for note in notes), footer(document)])
