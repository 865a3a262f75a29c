"""
The HTTP stacks that take part in `benchmarks.peers`, and whether they are here.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks._common import ROOT

_FOREIGN = ROOT / "benchmarks" / "foreign"
_JARS = tuple(Path("/usr/share/java", name) for name in ("okhttp.jar", "okio.jar"))


@dataclass(frozen=True, slots=True)
class Stack:
    """
    An HTTP stack.

    Attributes:
        peer: What its process is told: the library, and after commas what is special.
        pinning: How it pins, in words; empty when it has no pinning of its own.
        plain: Whether it takes part without pins too.
        concurrent: Whether one process makes requests at a time.
        again: Whether a second process takes part without pins, as an A/A control.
    """

    peer: str
    pinning: str
    plain: bool = True
    concurrent: bool = False
    again: bool = False

    @property
    def library(self) -> str:
        """
        What has to be installed.
        """
        return self.peer.split(",")[0]

    def variants(self) -> list[tuple[str, bool]]:
        """
        Name and whether it is pinned.
        """
        found = [(self.peer, False)] if self.plain else []
        if self.again:
            found.append((f"{self.peer}, again", False))
        if self.pinning:
            found.append((self.pinned_name, True))
        return found

    @property
    def pinned_name(self) -> str:
        """
        The name of the pinned variant.
        """
        return f"pinset on {self.peer}" if self.pinning == _PINSET else f"{self.peer}, pinned"


_PINSET = "pinset: keys of the verified chain"
STACKS = (
    Stack("httpx", _PINSET, concurrent=True, again=True),
    Stack("httpx, no resumption", _PINSET, plain=False, concurrent=True),
    Stack("httpx, blocking", _PINSET),
    Stack("httpx2", _PINSET, concurrent=True),
    Stack("httpx2, blocking", _PINSET),
    Stack("aiohttp", "ssl=Fingerprint: the certificate", concurrent=True),
    Stack("urllib3", "assert_fingerprint: the certificate"),
    Stack("requests", "assert_fingerprint through an adapter: the certificate"),
    Stack("niquests", "verify='sha256_...': the certificate"),
    Stack("pycurl", "PINNEDPUBLICKEY: the leaf's key"),
    Stack("pycurl, no session cache", "PINNEDPUBLICKEY: the leaf's key"),
    Stack("go", "VerifyConnection: keys of the verified chain", concurrent=True),
    Stack("go, session cache", "VerifyConnection: keys of the verified chain", concurrent=True),
    Stack("node", "checkServerIdentity: the leaf's key; not called on resumed sessions", concurrent=True),
    Stack("node, no session cache", "checkServerIdentity: the leaf's key", concurrent=True),
    Stack("okhttp", "CertificatePinner: keys of the verified chain"),
    Stack("okhttp, TCP_NODELAY", "CertificatePinner: keys of the verified chain"),
)

UNPINNED = {stack.pinned_name: stack.peer.removesuffix(", no resumption") for stack in STACKS}
"""The variant that each pinned one is compared with."""


def commands(
    directory: Path, environments: Mapping[str, str]
) -> tuple[dict[str, list[str]], dict[str, str], dict[str, str]]:
    """
    How to start each library's process, after building what has to be built.

    Args:
        directory: For what is built.
        environments: The interpreter of an environment of its own, by library.

    Returns:
        Commands, versions, and the reasons why others are skipped, by library.
    """
    found: dict[str, list[str]] = {}
    versions: dict[str, str] = {}
    skipped: dict[str, str] = {}
    for library in dict.fromkeys(stack.library for stack in STACKS):
        try:
            found[library], versions[library] = _command(library, directory, environments)
        except _Absent as reason:
            skipped[library] = str(reason)
    return found, versions, skipped


class _Absent(Exception):  # noqa: N818 - no error: a stack that is not here is skipped
    pass


def _command(library: str, directory: Path, environments: Mapping[str, str]) -> tuple[list[str], str]:
    match library:
        case "go":
            return _go(directory)
        case "node":
            node = _program("node", "nodejs")
            return [node, str(_FOREIGN / "node_peer.js")], _run(node, "--version")
        case "okhttp":
            return _okhttp(directory)
    python = environments.get(library, sys.executable)
    script = f"import {library}; import importlib.metadata as m; print(m.version({library!r}))"
    done = subprocess.run([python, "-c", script], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        where = "dependency group bench-niquests, in an environment of its own" if library == "niquests" else "bench"
        raise _Absent(f"not installed ({where}): {(done.stderr.strip().splitlines() or ['no reason given'])[-1]}")
    # By path: an environment of its own has neither this package nor pinset.
    return [python, str(ROOT / "benchmarks" / "_python_peer.py")], done.stdout.strip()


def _go(directory: Path) -> tuple[list[str], str]:
    go = _program("go", "golang-go")
    out = directory / "go_peer"
    environment = {**os.environ, "GOFLAGS": "", "GO111MODULE": "off", "GOCACHE": str(directory / "go-cache")}
    _build([go, "build", "-o", str(out), str(_FOREIGN / "go_peer.go")], environment)
    return [str(out)], _run(go, "version").split()[2]


def _okhttp(directory: Path) -> tuple[list[str], str]:
    javac, java = _program("javac", "default-jdk-headless"), _program("java", "default-jre-headless")
    if missing := [jar.name for jar in _JARS if not jar.exists()]:
        raise _Absent(f"{', '.join(missing)} is not installed (Debian: apt-get install libokhttp-java)")
    classes = ":".join([str(directory), *map(str, _JARS)])
    _build([javac, "-nowarn", "-d", str(directory), "-cp", classes, str(_FOREIGN / "OkHttpPeer.java")], None)
    versions = sorted(jar.stem.removeprefix("okhttp-") for jar in _JARS[0].parent.glob("okhttp-[0-9]*.jar"))
    return [java, "-cp", classes, "OkHttpPeer"], (versions or ["unknown"])[-1]


def _program(name: str, package: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise _Absent(f"{name} is not installed (Debian: apt-get install {package})")
    return path


def _build(command: list[str], environment: dict[str, str] | None) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode != 0:
        raise _Absent(f"its program does not build: {done.stderr.strip()[:300]}")


def _run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
