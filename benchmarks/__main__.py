"""
``python -m benchmarks all | report | figures | micro | handshake | wire | peers | scale | lookup | reports``.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from benchmarks import everything, figures, handshake, lookup, micro, peers, report, reports, scale, wire


def main() -> None:
    """
    Run one benchmark.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Benchmarks of pinset; see README.md.")
    commands = parser.add_subparsers(dest="command", required=True)

    def add(name: str, text: str, run: Callable[[argparse.Namespace], None]) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("--quick", action="store_true", help="less of everything: well under a minute, more noise")
        command.add_argument("--out", type=Path, metavar="FILE", help="write all samples and the summary as JSON")
        command.set_defaults(run=run)
        return command

    requests = add("wire", "cold and warm requests of a pinned and a stock httpx client", wire.run)
    add("reports", "what a check pays for reports, and what becomes of them", reports.run)
    add("handshake", "handshakes in memory: plain, pinned and resumed, for each chain length", handshake.run)
    stacks = add("peers", "other HTTP stacks, with and without their pinning", peers.run)
    add("scale", "hosts, updates, connections and sessions that are held", scale.run)
    for command in (
        add("lookup", "Policy.find among 10 to 1,000,000 hosts", lookup.run),
        add("micro", "single calls and imports", micro.run),
    ):
        command.add_argument("--instructions", action="store_true", help="count instructions too (needs valgrind)")
    text = "all of them, a results file for each, and the report"
    every = commands.add_parser("all", help=text, description=text)
    every.add_argument("--quick", action="store_true", help="less of everything: under two minutes, more noise")
    every.set_defaults(run=everything.run)
    text = "the report of the results: Markdown, and one HTML page with plots"
    told = commands.add_parser("report", help=text, description=text)
    told.add_argument("--version", default=report.VERSION, help="the release, as the files are named")
    told.set_defaults(run=report.run)
    text = "write the figures of the results into the README"
    commands.add_parser("figures", help=text, description=text).set_defaults(run=figures.run)
    for command in (every, told):
        command.add_argument("--directory", type=Path, help="of the results")
    for command in (every, requests):
        command.add_argument("--plain", type=Path, metavar="PYTHON", help="of an environment with httpx and no more")
    requests.add_argument("--rounds", type=int, default=6, help="in each of two fleets of processes, without --quick")
    for command in (every, stacks):
        command.add_argument(
            "--environment",
            action="append",
            default=[],
            metavar="LIBRARY=PYTHON",
            help="the interpreter of an environment of its own, for niquests",
        )
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
