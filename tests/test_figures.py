"""
The figures of the README are those of the checked-in results.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from benchmarks.figures import ROWS, VERSION

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("label", ROWS)
def test_readme_quotes_the_results(label: str) -> None:
    """Each ratio in the README's table is the median in the results file."""
    results = json.loads((ROOT / "benchmarks" / "results" / f"wire-{VERSION}.json").read_text(encoding="utf-8"))
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    scenario, variant = ROWS[label]
    measured = results["summary"][scenario][variant]
    expected = [f"{measured[f'cpu/{yardstick}']['median']:.2f}" for yardstick in ("stock", "plain")]
    quoted = re.search(rf"^\| {re.escape(label)} \| ([0-9.]+) \| ([0-9.]+) \|$", readme, re.MULTILINE)
    assert quoted is not None, f"the README has no row {label!r}"
    assert list(quoted.groups()) == expected
