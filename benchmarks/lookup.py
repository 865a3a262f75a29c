"""
``Policy.find`` among 10 to 1,000,000 hosts: microseconds, and instructions under valgrind.
"""

from __future__ import annotations

import argparse
import gc
import random
import sys
import time
from collections.abc import Sequence
from typing import Any

from benchmarks import _callgrind
from benchmarks._common import footer, markdown, progress, save, setup, spread
from pinset import Pin, PinKind, PinSet, Policy

CASES = ("seen hit", "seen miss", "fresh hit", "fresh miss")
RATIO_BAR, MICROSECONDS_BAR = 1.1, 3.0
_STARS = ("", "*.", "**.")
_PINS = (Pin(PinKind.SPKI, b"a" * 32), Pin(PinKind.SPKI, b"b" * 32))
_SEEN = 1000  # so few that what they touch of the tables stays in the processor's caches
_FRESH = 20000  # so many that hardly any of it does


def run(arguments: argparse.Namespace) -> None:
    """
    Measure, print the table, and write the samples.
    """
    largest = 10_000 if arguments.quick else 1_000_000
    plan = {"largest": largest, "samples": 3 if arguments.quick else 15, "lookups": _FRESH}
    document: dict[str, Any] = {"benchmark": "lookup", **setup(), "plan": plan}
    sizes = [10**exponent for exponent in range(1, len(str(largest)))]
    policies: dict[int, Policy] = {}
    for size in sizes:
        policies[size] = Policy(tuple(PinSet(name=_pattern(index), pins=_PINS) for index in range(size)))
        progress(f"policy with {size:,} hosts made")
    gc.collect()
    gc.freeze()
    samples: dict[str, dict[str, list[float]]] = {str(size): {case: [] for case in CASES} for size in sizes}
    for number in range(-1, plan["samples"]):  # the first is not kept
        for size in random.sample(sizes, len(sizes)):
            for case in random.sample(CASES, len(CASES)):
                taken = _sample(policies[size], size, case)
                if number >= 0:
                    samples[str(size)][case].append(round(taken, 4))
    summary: dict[str, Any] = {
        "microseconds": {size: {case: spread(v) for case, v in cases.items()} for size, cases in samples.items()}
    }
    if arguments.instructions:
        summary["instructions"] = _instructions(largest, 200 if arguments.quick else 1000)
    summary["bars"] = _bars(summary, largest)
    document["summary"] = summary
    document["samples"] = samples
    print(_report(document))
    save(document, arguments.out)


def _pattern(index: int) -> str:
    return f"{_STARS[index % 3]}h{index:07d}.zone.example"


def _names(size: int, case: str, count: int, chance: random.Random) -> list[bytes]:
    """Distinct random names, of four labels in every case: one below a pattern of the policy, or below no host of it."""
    names: dict[bytes, None] = {}
    while len(names) < (_SEEN if case.startswith("seen") else count):
        index = chance.randrange(size) // 3 * 3 + chance.choice((1, 2))  # "*." and "**."
        if index < size:
            base = index + (5_000_000 if case.endswith("miss") else 0)
            names[f"s{chance.randrange(100_000):05d}.h{base:07d}.zone.example".encode()] = None
    return list(names)


def _texts(size: int, case: str, count: int, chance: random.Random) -> list[str]:
    raw = _names(size, case, count, chance)
    if case.startswith("seen"):
        raw = chance.choices(raw, k=count)
    # Decoded anew, as httpx does: a text that was never hashed.
    return [name.decode() for name in raw]


def _sample(policy: Policy, size: int, case: str) -> float:
    names = _texts(size, case, _FRESH, random.Random())
    gc.collect(0)
    begin = time.perf_counter()
    _find_all(policy, names)
    return (time.perf_counter() - begin) / len(names) * 1e6


def _find_all(policy: Policy, names: Sequence[str]) -> None:
    for name in names:
        policy.find(name)


def _instructions(largest: int, lookups: int) -> dict[str, Any]:
    """
    Instructions per look-up: (those of 2N look-ups - those of N) / N, so that what is around the loop cancels.
    """
    if (why := _callgrind.why_not()) is not None:
        progress(why)
        return {"skipped": why}
    counted = {}
    for size in (10, largest):
        progress(f"counting instructions with {size:,} hosts")
        counted[size] = _callgrind.count(
            ["-m", "benchmarks.lookup", str(size), str(lookups)], dict.fromkeys(CASES, lookups)
        )
    return {
        "lookups": lookups,
        "per_lookup": {str(size): cases for size, cases in counted.items()},
        "ratio": {case: round(counted[largest][case] / counted[10][case], 4) for case in CASES},
    }


def _work(size: int, lookups: int) -> None:
    """
    Under valgrind: look up when told.

    Under valgrind a million `PinSet` take minutes, so the tables of a real policy are filled with more bases for the
    same pin sets. A look-up reads the tables and nothing of the pin set.
    """
    policy = Policy(tuple(PinSet(name=_pattern(index), pins=_PINS) for index in range(10)))
    for index in range(10, size):
        rules: list[PinSet | None] = [None, None, None]
        rules[index % 3] = policy.pin_sets[index % 3]
        policy._rules[_pattern(index).lstrip("*.")] = (rules[0], rules[1], rules[2])
    fresh = random.Random(1)
    names = {
        # A seed of its own gives every turn the same pool.
        f"{case}/{turn}": _texts(size, case, count, random.Random(2) if case.startswith("seen") else fresh)
        for case in CASES
        for turn, count in enumerate((lookups, lookups, 2 * lookups))
    }
    gc.collect()
    gc.freeze()
    _callgrind.serve(lambda case, turn: _find_all(policy, names[f"{case}/{turn}"]))


def _bars(summary: dict[str, Any], largest: int) -> dict[str, bool]:
    times = summary["microseconds"][str(largest)]
    bars = {f"{case}, {largest:,} hosts: at most 3 µs": times[case]["median"] <= MICROSECONDS_BAR for case in CASES}
    for case, ratio in summary.get("instructions", {}).get("ratio", {}).items():
        bars[f"{case}: at most 1.1 times the instructions"] = ratio <= RATIO_BAR
    return bars


def _report(document: dict[str, Any]) -> str:
    summary = document["summary"]
    rows: list[list[object]] = []
    for size, cases in summary["microseconds"].items():
        rows.append([f"{int(size):,}", *(f"{c['median']:.2f} ({c['q1']:.2f} – {c['q3']:.2f})" for c in cases.values())])
    parts = [markdown(["hosts", *(f"{case}, µs (quartiles)" for case in CASES)], rows)]
    counted = summary.get("instructions", {})
    if "ratio" in counted:
        lines: list[list[object]] = [
            [f"{int(size):,}", *(f"{cases[case]:,.0f}" for case in CASES)]
            for size, cases in counted["per_lookup"].items()
        ]
        lines.append(["ratio", *(f"{counted['ratio'][case]:.3f}" for case in CASES)])
        parts.append(markdown(["hosts", *(f"{case}, instructions" for case in CASES)], lines))
    parts.append("\n".join(f"- {'held' if held else 'NOT held'}: {text}" for text, held in summary["bars"].items()))
    return "\n\n".join([*parts, footer(document)])


if __name__ == "__main__":
    _work(int(sys.argv[1]), int(sys.argv[2]))
