"""
Projects of users, with tests of their own that use our fixtures.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest_pinset

HEAD = """
import os, ssl, subprocess, sys, urllib.request
import httpx, pytest
from pinset import PinMismatchError, PinnedAsyncClient, Pinner, pinned_ssl_context
"""


def run_pytest(directory, text, *options):
    """What pytest prints for a project whose one test module is *text*, and in which warnings are errors."""
    (directory / "test_app.py").write_text(HEAD + textwrap.dedent(text))
    (directory / "pyproject.toml").write_text('[tool.pytest.ini_options]\nfilterwarnings = ["error"]\n')
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "pytest_pinset", *options, "."]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # whatever else is installed here
    environment["PYTHONPATH"] = str(Path(pytest_pinset.__file__).parent.parent)
    done = subprocess.run(
        command, cwd=directory, capture_output=True, text=True, check=False, timeout=120, env=environment
    )
    return done.stdout + done.stderr
