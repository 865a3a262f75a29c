"""
``Policy.find`` among 10 to 1,000,000 hosts: microseconds, and instructions under valgrind.
"""

from __future__ import annotations

import argparse
import gc
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks._common import ROOT, footer, markdown, progress, save, setup, spread
from pinset import Pin, PinKind, PinSet, Policy
from pinset._hosts import canonical_host

CASES = ("seen hit", "seen miss", "fresh hit", "fresh miss")
RATIO_BAR, MICROSECONDS_BAR = 1.1, 3.0
_STARS = ("", "*.", "**.")
_PINS = (Pin(PinKind.SPKI, b"a" * 32), Pin(PinKind.SPKI, b"b" * 32))
_SEEN = 1000  # fewer than the 4096 names that canonical_host remembers
_FRESH = 20000  # so many more that none is still remembered when it comes round again


def run(arguments: argparse.Namespace) -> None:
    """
    Measure, print the table, and write the samples.
    """
    largest = 100_000 if arguments.quick else 1_000_000
    plan = {"largest": largest, "samples": 7 if arguments.quick else 15, "lookups": _FRESH}
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


def _names(size: int, case: str, chance: random.Random) -> list[bytes]:
    """Random names: of hosts that the policy covers, or of their likes that it does not."""
    count = _SEEN if case.startswith("seen") else _FRESH
    names: dict[bytes, None] = {}
    while len(names) < count:
        index = chance.randrange(size)
        if case.endswith("miss"):
            index += 5_000_000
        # A small policy has few hosts; only below its patterns are there enough names. Hence as many names below a
        # pattern in every size: one in three is of a plain host, unless that is used up.
        below = f"s{chance.randrange(100_000):05d}." if index % 3 or case.startswith("fresh") and size < 10 * count else ""
        if below and index % 3 == 0 and case.endswith("hit"):
            continue
        if not below and size < 10 * count:
            below = ""
        names[f"{below}h{index:07d}.zone.example".encode()] = None
    return list(names)


def _sample(policy: Policy, size: int, case: str) -> float:
    lookups = _FRESH
    raw = _names(size, case, random.Random())
    if case.startswith("seen"):
        for name in raw:
            canonical_host(name.decode())
        raw = random.choices(raw, k=lookups)
    # Decoded anew, as httpx does: a text that was never hashed.
    names = [name.decode() for name in raw]
    gc.collect(0)
    begin = time.perf_counter()
    for name in names:
        policy.find(name)
    return (time.perf_counter() - begin) / len(names) * 1e6
