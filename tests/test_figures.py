"""
The figures of the README are those of the checked-in results.
"""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_readme_quotes_the_results() -> None:
    """Each ratio in the README's table is the median in the results file."""
    results = (ROOT / "benchmarks" / "results" / "overhead-0.1.0.md").read_text(encoding="utf-8")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for kind in ("cold", "warm"):
        measured = [
            re.search(rf"^\| {kind} \| client CPU \| {client} \| [^|]+\| ([0-9.]+) ", results, re.MULTILINE)[1]
            for client in ("pinned", "stock-again")
        ]
        quoted = re.search(rf"^\| {kind}: [^|]+\| ([0-9.]+) \| ([0-9.]+) \|$", readme, re.MULTILINE)
        assert list(quoted.groups()) == measured
