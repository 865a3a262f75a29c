"""
The command line, run as a user does.
"""

from __future__ import annotations

import subprocess
import sys

import pytest


def run(*arguments: str, code: str = "from pinset.cli import main; main()") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120, check=False
    )


def test_demo() -> None:
    """The demo shows the interception, the refusal and the rotation, and ends with 0."""
    done = run("demo")
    assert done.returncode == 0, done.stdout + done.stderr
    for words in ("the token among them", "PinMismatchError", "the interceptor read 0 bytes", "backup key"):
        assert all(word in done.stdout for word in words.split()), words
    assert "does not hold a pinned key" in done.stdout
    assert "\x1b[" not in done.stdout  # no colours where there is no terminal
    assert done.stdout.count(" yes ") == 4
    assert done.stderr == ""  # the refusal is shown, and not logged beside it


def test_help_names_the_commands() -> None:
    """Without arguments the program says what it can do."""
    done = run("--help")
    assert done.returncode == 0
    assert "demo" in done.stdout


@pytest.mark.parametrize("package", ["typer"])
def test_missing_extra(package: str) -> None:
    """Without the extra the program names it."""
    done = run(code=f"import sys; sys.modules[{package!r}] = None\nfrom pinset.cli import main; main()")
    assert done.returncode == 1
    assert "pip install 'pinset[cli]'" in done.stderr


def test_demo_fails_when_pins_do_not_hold() -> None:
    """If the pinned client were intercepted, the demo would say so and end with 1."""
    code = (
        "import pinset.cli._demo as demo, httpx\n"
        "demo.PinnedAsyncClient = lambda pins, **keywords: httpx.AsyncClient(**keywords)\n"
        "demo._matched = lambda response, expected: ('', True)\n"
        "from pinset.cli import main; main()"
    )
    done = run("demo", code=code)
    assert done.returncode == 1
    assert "did not go as promised" in done.stdout
