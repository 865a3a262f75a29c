"""
Every example of the documentation runs.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import re
from pathlib import Path

import pytest

from pinset import Policy
from pinset.formats import read_toml

ROOT = Path(__file__).parent.parent
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def blocks(page: Path, language: str) -> list[str]:
    return [code for kind, code in BLOCK.findall(page.read_text(encoding="utf-8")) if kind == language]


def absent_modules(page: Path) -> list[str]:
    """What the Python of a page imports and is not here; where everything has to be here, the import itself shall fail."""
    if os.environ.get("PINSET_REQUIRE_DOWNSTREAM") == "1":
        return []
    imports = [
        name
        for code in blocks(page, "python")
        for node in ast.walk(ast.parse(code))
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in ([each.name for each in node.names] if isinstance(node, ast.Import) else [node.module or ""])
    ]
    return sorted({top for name in imports if importlib.util.find_spec(top := name.split(".")[0]) is None})


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "python")], ids=lambda page: page.name)
def test_python_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Python of a page runs from top to bottom; what talks to a host that is not ours is compiled and its pins read."""
    if absent := absent_modules(page):
        pytest.skip(f"{', '.join(absent)}: not installed; nox -s downstream has them")
    monkeypatch.chdir(tmp_path)
    if "pinset.updates" in page.read_text(encoding="utf-8"):
        pytest.importorskip("tuf")
    scope: dict[str, object] = {}
    for code in blocks(page, "python"):
        compiled = compile(code, str(page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        if "async with" in code and "def " not in code:
            tree = ast.parse(code, mode="exec")
            pins = next(node for node in tree.body if isinstance(node, ast.Assign))
            Policy.from_mapping(ast.literal_eval(pins.value))
        else:
            exec(compiled, scope)


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "toml")], ids=lambda page: page.name)
def test_toml_blocks_are_policies(page: Path) -> None:
    """The TOML of a page is a valid policy."""
    for text in blocks(page, "toml"):
        read_toml(text, source=str(page))


def test_relative_links_lead_somewhere() -> None:
    """No page links to a file that is not there."""
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists() or (page.parent / f"{target}.md").exists(), f"{page.name}: {target}"
