"""
The blocking modules and those for httpx2 are made from the others.
"""

from __future__ import annotations

import runpy
import subprocess
import sys
import tomllib
from pathlib import Path

import httpx
import httpx2
import pytest

import pinset.httpx
import pinset.httpx2

TOOL = Path(__file__).parents[1] / "tools" / "twins.py"
NAMES = ["PinnedAsyncClient", "PinnedAsyncTransport", "PinnedClient", "PinnedTransport"]


def test_twins_are_fresh() -> None:
    """Who mends one of a pair runs the tool."""
    done = subprocess.run([sys.executable, TOOL, "--check"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_is_made_is_named_once_more() -> None:
    """The linter and the count of coverage leave out what is made, and nothing that is written by hand."""
    made = runpy.run_path(str(TOOL))["BLOCKING"]
    settings = tomllib.loads((TOOL.parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    omitted = {path for path in settings["coverage"]["report"]["omit"] if "/_sync/" in path}
    assert omitted == {f"*/pinset/_sync/{name}.py" for name in made}
    [pattern] = (path for path in settings["ruff"]["extend-exclude"] if "/_sync/" in path)
    assert set(pattern.partition("{")[2].partition("}")[0].split(",")) == {name.removeprefix("_") for name in made}


@pytest.mark.parametrize("name", [*NAMES, *(name for name in pinset.httpx.__all__ if name.endswith("Error"))])
def test_flavours_do_not_mix(name) -> None:
    """Clients of SDKs look through the whole ancestry: a class of the other httpx there is refused."""
    for module, root, other in ((pinset.httpx, "httpx", "httpx2"), (pinset.httpx2, "httpx2", "httpx")):
        roots = {base.__module__.split(".")[0] for base in getattr(module, name).__mro__}
        assert root in roots
        assert other not in roots
        assert getattr(module, name).__module__ == module.__name__


@pytest.mark.parametrize("name", NAMES)
def test_real_subclasses(name) -> None:
    """What checks for httpx's own classes is content."""
    base = name.replace("Pinned", "").replace("Transport", "HTTPTransport")
    assert issubclass(getattr(pinset.httpx, name), getattr(httpx, base))
    assert issubclass(getattr(pinset.httpx2, name), getattr(httpx2, base))


def test_missing_extra() -> None:
    """Without httpx2 the error names the extra; and pinset itself does without."""
    code = "import sys; sys.modules['httpx2'] = None\nimport pinset\nimport pinset.httpx2"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "pip install 'pinset[httpx2]'" in done.stderr.splitlines()[-1]
