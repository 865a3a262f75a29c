"""
A module imports only from layers below it; nothing inside imports the front door.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

import pinset

SOURCE = Path(pinset.__file__).parent
LAYERS = [
    ["_errors", "_files"],
    ["_hosts", "_certificates"],
    ["_pins"],
    ["_policy"],
    ["_verdict"],
    ["_evaluate", "_source", "formats"],
    ["operate"],
    ["_opened_sockets"],
    ["reports"],
    ["_pinner", "_sessions"],
    ["_enforcement"],
    ["_tls"],
    ["_tls_socket"],
    ["_contexts", "_tls_layer", "_tasks", "_socks_proxy"],
    ["_asyncio_protocol", "_streams"],
    ["_asyncio_streams", "_anyio_streams"],
    ["_asyncio_connect"],
    ["_network"],
    ["_http2", "_socks"],
    ["_connect"],
    ["_books"],
    ["_standby"],
    ["_assignment"],
    ["_pool"],
    ["_httpx_errors"],
    ["_httpx_rules"],
    ["_transport"],
    ["_client"],
    ["httpx", "httpx2", "probe"],
    ["testing", "updates"],
    ["__init__"],
    ["cli"],
]
LAYER = {name: number for number, names in enumerate(LAYERS) for name in names}
# Below the TLS layer there is no I/O, no clock and no event loop; the pinner reads a clock it is given, and one file.
PURE = [name for names in LAYERS[:7] for name in names if name != "_files"]
FORBIDDEN = {"asyncio", "anyio", "httpx", "httpcore", "socket", "ssl", "time", "threading", "os", "pathlib", "trio"}


def modules() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def room(path: Path) -> str:
    """The module or package directly below pinset that *path* belongs to."""
    return room_of(path.relative_to(SOURCE).with_suffix("").parts)


def room_of(parts: Sequence[str]) -> str:
    """The blocking modules and those for httpx2 stand where the modules of the same names do."""
    return next((part for part in parts if part not in ("_sync", "_httpx2", "pinset")), "__init__")


def run_time_imports(path: Path) -> list[str]:
    """The modules that *path* imports, without what only type checkers see."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        id(node)
        for guard in ast.walk(tree)
        if isinstance(guard, ast.If) and getattr(guard.test, "id", "") == "TYPE_CHECKING"
        for child in guard.body
        for node in ast.walk(child)
    }
    found: list[str] = []
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            assert node.module
            is_package = node.module in {"pinset", "pinset._sync", "pinset._httpx2"}
            found += [f"{node.module}.{alias.name}" if is_package else node.module for alias in node.names]
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_point_downwards(path: Path) -> None:
    """Each import of our own goes to a lower layer, or stays inside its package."""
    own = room(path)
    assert own in LAYER, f"put {own} into the table"
    for name in run_time_imports(path):
        parts = name.split(".")
        if parts[0] != "pinset":
            continue
        target = room_of(parts)
        target = target if target in LAYER else "__init__"
        if target != own:
            assert LAYER[target] < LAYER[own], f"{own} must not import {target}"


@pytest.mark.parametrize("path", [path for path in modules() if room(path) in PURE], ids=lambda path: path.name)
def test_rules_are_pure(path: Path) -> None:
    """The rules read no clock, open nothing and know no event loop."""
    assert not {name.split(".")[0] for name in run_time_imports(path)} & FORBIDDEN


def test_importing_pinset_loads_only_what_a_client_needs() -> None:
    """
    The rest waits for its first use.

    cryptography is for the names in error messages and for testing, and costs more than all of pinset; the readers are
    for policy files, the reports for who makes a pinner, difflib for misspelt words.
    """
    import os
    import subprocess

    # Where coverage measures subprocesses too, it loads modules of its own into them.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    late = ("cryptography", "httpcore", "pinset.formats", "pinset.reports", "tomllib", "difflib", "typer", "uvloop")
    code = f"import sys, pinset; print(*(m for m in {late} if m in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60, env=environment
    )
    assert done.stdout.strip() == ""
