"""
The cases of `benchmarks.micro` under pyperf, which starts this module in processes of their own.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import pyperf

from benchmarks import _micro_cases


def main() -> None:
    """
    Measure every case; the options are those of pyperf.
    """
    runner = pyperf.Runner(program_args=("-m", "benchmarks._micro_pyperf"))
    with tempfile.TemporaryDirectory() as directory:
        for name, function in _micro_cases.make(Path(directory)).items():
            runner.bench_func(name, function)


if __name__ == "__main__":
    main()
