"""
The example programs of the documentation, run as their users run them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from conftest import HOST

from pinset import Policy
from pinset.formats import write_toml

EXAMPLES = Path(__file__).parent.parent / "docs" / "examples"


def write_pins(file: Path, *pins: str) -> Path:
    """A policy file for the tests' server."""
    file.write_text(write_toml(Policy.from_mapping({HOST: pins})))
    return file


def surroundings(trust: str, **more: str) -> dict[str, str]:
    """An environment in which programs trust the authorities of a file, and know no proxy."""
    around = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    return {**around, "SSL_CERT_FILE": trust, **more}


def command(name: str, *arguments: object) -> list[str]:
    """What runs an example."""
    return [sys.executable, str(EXAMPLES / name), *map(str, arguments)]


def run(name: str, *arguments: object, trust: str, **more: str) -> subprocess.CompletedProcess[str]:
    """An example from beginning to end."""
    environment = surroundings(trust, **more)
    return subprocess.run(
        command(name, *arguments), env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def answer(head: bytes) -> bytes:
    """What the API of the examples says: there is one user."""
    is_known = head.startswith(b"GET /users/ada ")
    status, body = (b"200 OK", b'{"name": "Ada"}') if is_known else (b"404 Not Found", b"{}")
    header = b"Content-Type: application/json\r\nContent-Length: %d" % len(body)
    return b"HTTP/1.1 %b\r\n%b\r\n\r\n%b" % (status, header, body)
