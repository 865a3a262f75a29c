"""
Instructions per call, counted by callgrind: the same on a busy machine as on a quiet one.

A worker under valgrind runs a case when it is told its name and turn. The first turn makes valgrind translate the code and
the interpreter specialise it. The others make N and 2N calls, so that the difference is that of N calls alone.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TextIO

from benchmarks._common import ROOT

TURNS = 3
"""The first of N calls is not counted; the second has N calls and the third 2N."""


def why_not() -> str | None:
    """
    What is missing to count instructions, or None.
    """
    if shutil.which("valgrind") is None or shutil.which("callgrind_control") is None:
        return "valgrind is not installed (Debian: apt-get install valgrind); no instructions are counted"
    return None


def count(worker: Sequence[str], cases: Mapping[str, int]) -> dict[str, float]:
    """
    Instructions per call of every case.

    Args:
        worker: Arguments of the interpreter: a module that ends in `serve`.
        cases: Names that the worker knows, with the N of each.
    """
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as directory:
        process = subprocess.Popen(
            ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={directory}/out", "-q"]
            + [sys.executable, *worker],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": "0"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None

        def control(*order: str) -> None:
            subprocess.run(["callgrind_control", *order, str(process.pid)], check=True, capture_output=True, timeout=60)

        try:
            if process.stdout.readline() != "ready\n":
                raise RuntimeError("the worker under valgrind has failed; its error is above")
            control("-i", "on")
            dumps = 0
            for case, calls in cases.items():
                totals = []
                for turn in range(TURNS):
                    control("-z")
                    process.stdin.write(f"{case}/{turn}\n")
                    process.stdin.flush()
                    process.stdout.readline()
                    control("-d")
                    dumps += 1
                    totals.append(total(Path(f"{directory}/out.{dumps}")))
                found[case] = round((totals[2] - totals[1]) / calls, 1)
        finally:
            process.stdin.close()
            process.wait(60)
    return found


def count_program(arguments: Sequence[str]) -> int:
    """
    Instructions of a whole run of the interpreter with *arguments*.
    """
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory, "out")
        subprocess.run(
            ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", "-q", sys.executable, *arguments],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": "0"},
            check=True,
        )
        return total(out)


def total(dump: Path) -> int:
    """
    The instructions that a dump of callgrind tells of.
    """
    match = re.search(r"^(?:totals|summary): (\d+)", dump.read_text(), re.MULTILINE)
    if match is None:
        raise RuntimeError("the dump of callgrind has no total")
    return int(match[1])


def serve(run: Callable[[str, int], None], orders: TextIO = sys.stdin, answers: TextIO = sys.stdout) -> None:
    """
    In the worker: run cases as `count` asks for them, until there are no more orders.

    Args:
        run: Called with a case and its turn.
        orders: A line ``case/turn`` each.
        answers: A line for each, and one before the first.
    """
    print("ready", file=answers, flush=True)
    for line in orders:
        case, _, turn = line.rstrip("\n").rpartition("/")
        run(case, int(turn))
        print("done", file=answers, flush=True)
