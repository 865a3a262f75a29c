"""
All benchmarks one after the other, a results file for each, and the report of them.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

from benchmarks import report
from benchmarks._common import ROOT, progress

NAMES = ("micro", "lookup", "handshake", "scale", "reports", "wire", "peers")


def run(arguments: argparse.Namespace) -> None:
    """
    Run each in a process of its own. One that fails is named at the end, and the others have run.
    """
    # A quick run does not take the place of what is checked in.
    directory = arguments.directory or (ROOT / "build" / "benchmarks" if arguments.quick else report.RESULTS)
    directory.mkdir(parents=True, exist_ok=True)
    own = {
        "wire": ["--plain", str(arguments.plain)] if arguments.plain else [],
        "peers": [word for each in arguments.environment for word in ("--environment", each)],
        # Under valgrind a million hosts take minutes.
        **{name: [] if arguments.quick else ["--instructions"] for name in ("micro", "lookup")},
    }
    failed = []
    for number, name in enumerate(NAMES, 1):
        begin = time.monotonic()
        stem = directory / f"{name}-{report.VERSION}"
        command = [sys.executable, "-m", "benchmarks", name, "--out", f"{stem}.json", *own.get(name, ())]
        with stem.with_name(stem.name + ".md").open("w", encoding="utf-8") as table:
            done = subprocess.run(
                [*command, *(["--quick"] if arguments.quick else [])], cwd=ROOT, stdout=table, check=False
            )
        if done.returncode != 0:
            failed.append(name)
        progress(f"{number} of {len(NAMES)}: {name}, {time.monotonic() - begin:.0f} s")
    report.write(directory, report.VERSION)
    progress(f"the report is report-{report.VERSION}.html, and .md, in {directory}")
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")
