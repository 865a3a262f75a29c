"""
What users can name has a place in the reference.
"""

from __future__ import annotations

from pathlib import Path

import pytest

import pinset.cli
import pinset.reports
import pinset.testing
from pinset.formats.conversion import FormatName

DOCS = Path(__file__).parent.parent / "docs"


def reference(name: str) -> str:
    return (DOCS / "reference" / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", pinset.reports.__all__)
def test_reports(name):
    """Every sink, and what else there is of reports."""
    assert f"pinset.reports.{name}\n" in reference("reports.md")


@pytest.mark.parametrize("name", FormatName)
def test_formats(name):
    """Every format in the table, and in the page on converting."""
    assert f"`{name}`" in reference("formats.md")
    assert f"`{name}`" in (DOCS / "howto" / "convert.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "path", sorted((Path(pinset.cli.__file__).parents[1] / "formats").glob("[a-z]*.py")), ids=lambda path: path.stem
)
def test_readers_and_writers(path):
    """Every function of a format that reads or writes; TOML and JSON have a page of their own."""
    if path.stem not in ("toml", "json"):
        functions = [
            line[4:].split("(")[0] for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("def ")
        ]
        public = [f"pinset.formats.{path.stem}.{name}\n" for name in functions if name.startswith(("read_", "write_"))]
        assert [name for name in public if name not in reference("formats.md")] == []


COMMANDS = [
    *pinset.cli._COMMANDS,
    *(f"{group} {name}" for group, (_, names) in pinset.cli._GROUPS.items() for name in names),
]


@pytest.mark.parametrize("command", COMMANDS)
def test_commands(command):
    """Every command has its row."""
    assert f"\n| `pinset {command}" in reference("cli.md")
