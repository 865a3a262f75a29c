"""
See that what is installed is the lowest that pyproject.toml allows.

    python tools/floors.py core
    python tools/floors.py EXTRA…

A lower bound that no test has seen is a guess; and when another package asks for more, the tests see more and the guess
remains. So each bound has to be the very version that is installed here.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"


def floors(text: str, parts: Sequence[str]) -> Iterator[tuple[str, Version | None]]:
    """
    The dependencies of *parts*, and the lower bound of each.

    Args:
        text: A pyproject.toml.
        parts: ``core``, and names of extras.
    """
    project = tomllib.loads(text)["project"]
    listed = {"core": project["dependencies"], **project["optional-dependencies"]}
    for entry in (entry for part in parts for entry in listed[part]):
        requirement = Requirement(entry)
        bounds = [Version(each.version) for each in requirement.specifier if each.operator == ">="]
        yield requirement.name, bounds[0] if bounds else None


def main() -> None:
    """The command line."""
    wrong = []
    for name, floor in floors(PYPROJECT.read_text(encoding="utf-8"), sys.argv[1:]):
        installed = Version(version(name))
        print(f"{name} {installed}")
        if installed != floor:
            wrong.append(
                f"{name}: {installed} is installed, and pyproject.toml allows {floor}: raise it to what is tested"
            )
    if wrong:
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()
