"""
The reference lists what there is: commands and options, keys of reports, versions.
"""

from __future__ import annotations

import itertools
import json
import re
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import typer

from pinset import Decision, Outcome, Pin, PinKind, PinSet, Verdict
from pinset.cli import make_app
from pinset.reports import PinReport

ROOT = Path(__file__).parent.parent
REFERENCE = ROOT / "docs" / "reference"


def a_report() -> PinReport:
    """One with every key."""
    pins = {"pins": [Pin(PinKind.SPKI, bytes(32))], "certificate_pins": [Pin(PinKind.CERTIFICATE, bytes(32))]}
    rule = PinSet(name="a.com", **pins, allow_single_pin=True)
    now = datetime.now(UTC)
    return PinReport(
        verdict=Verdict(host="a.com", outcome=Outcome.MISMATCHED, decision=Decision.REFUSE, at=now, rule=rule)
    )


def described_options() -> dict[str, set[str]]:
    """What the reference lists for each command."""
    section = (REFERENCE / "cli.md").read_text(encoding="utf-8").split("## Options\n")[1].split("\n## ")[0]
    entries = re.findall(r"^`pinset ([a-z -]+)`\n: (.*?)(?=\n\n|\n\Z)", section, re.DOTALL | re.MULTILINE)
    return {name: set(re.findall(r"--[a-z0-9-]+", text)) for name, text in entries}


def options(command, name: str = "") -> Iterator[tuple[str, set[str]]]:
    """Every command with its options."""
    for each, member in getattr(command, "commands", {}).items():
        yield from options(member, f"{name} {each}".strip())
    if not hasattr(command, "commands"):
        yield name, {option for parameter in command.params for option in parameter.opts if option.startswith("--")}


def test_reference_names_every_command_and_option() -> None:
    """The page has what the command line has, and nothing else; each command has its line in the table."""
    assert described_options() == dict(options(typer.main.get_command(make_app())))
    page = (REFERENCE / "cli.md").read_text(encoding="utf-8")
    assert [name for name in described_options() if not re.search(rf"^\| `pinset {name}[ `]", page, re.MULTILINE)] == []


def test_reference_names_every_key_of_a_report() -> None:
    """The table of reports has the keys of reports, in their order."""
    section = (REFERENCE / "reports.md").read_text(encoding="utf-8").split("## The JSON document")[1].split("\n## ")[0]
    keys = list(a_report().to_dict())
    assert re.findall(r"^\| `([a-z-]+)` \|", section, re.MULTILINE) == keys
    [example] = re.findall(r"^```json\n(.*?)^```", section, re.DOTALL | re.MULTILINE)
    assert list(json.loads(example)) == keys[:-1]  # the last is there only for rules of certificates


def test_reference_names_every_version() -> None:
    """What is supported is what the package asks for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    page = (REFERENCE / "supported-versions.md").read_text(encoding="utf-8")
    named = set(re.findall(r"([a-z0-9-]+)(?: \|)? `([<>=0-9.,]+)`", page))
    asked = {re.fullmatch(r"([a-z0-9-]+)(?:\[\w+\])?(.*)", text).groups() for text in _requirements(project)}
    assert named == asked
    pythons = [text.rpartition(" ")[2] for text in project["classifiers"] if "Python :: 3." in text]
    assert f"| CPython | {', '.join(pythons)} |" in page


def _requirements(project: dict) -> list[str]:
    core = [text for text in project["dependencies"] if text.startswith(("httpx", "httpcore", "anyio"))]
    return [*core, *itertools.chain.from_iterable(project["optional-dependencies"].values())]
