"""
The lines that ``docs/howto/libraries.md`` gives for each library, to be run against servers of ours.
"""

from __future__ import annotations

import importlib.util
import os
import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parent.parent / "docs" / "howto" / "libraries.md"
_SECTION = re.compile(r"^#{2,3} (.*?)$\n(.*?)(?=^#{2,3} |\Z)", re.DOTALL | re.MULTILINE)
_PYTHON = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


def need(*modules: str) -> None:
    """Skip this module of tests without the libraries it is about; fail where they have to be there."""
    for name in modules:
        if importlib.util.find_spec(name) is None:
            reason = f"{name} is not installed; nox -s downstream has it"
            if os.environ.get("PINSET_REQUIRE_DOWNSTREAM") == "1":
                raise ModuleNotFoundError(reason, name=name)
            pytest.skip(reason, allow_module_level=True)


def lines(section: str) -> str:
    """The Python of *section* of the page; of its beginning, if *section* is empty."""
    text = PAGE.read_text(encoding="utf-8")
    body = dict(_SECTION.findall(text))[section] if section else text.split("\n## ", 1)[0]
    return "\n".join(_PYTHON.findall(body))


def recipe(section: str, replacements: dict[str, str], **given: object) -> dict[str, object]:
    """
    What the lines of *section* define, with our servers in the place of example.com.

    Each of the *replacements* has to be needed: the lines say where they go.
    """
    code = lines(section)
    for old, new in replacements.items():
        assert old in code, f"the lines of {section} do not say {old}"
        code = code.replace(old, new)
    scope: dict[str, object] = {"refusal": refusal, **given}
    exec(compile(code, f"{PAGE.name}, {section}", "exec"), scope)
    return scope


_beginning: dict[str, object] = {}
exec(compile(lines(""), PAGE.name, "exec"), _beginning)
refusal = _beginning["refusal"]
