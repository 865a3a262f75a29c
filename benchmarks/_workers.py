"""
Client processes that live as long as a benchmark and take orders by a pipe: one line of JSON there, one line back.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from benchmarks._common import ROOT
from benchmarks._nginx import bind


class Worker:
    """
    A client process and the pipes to it.

    Args:
        process: That has just started.
        config: The first line that it is told.

    Attributes:
        facts: What it answered to that.
    """

    def __init__(self, process: subprocess.Popen[str], config: dict[str, Any]) -> None:
        self._process = process
        self.facts = self.ask(config)

    def ask(self, order: dict[str, Any]) -> dict[str, Any]:
        """
        One line there, one line back.

        Raises:
            RuntimeError: The process has ended.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("a client process has ended; its error is above")
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextmanager
def start(
    command: Sequence[str], config: dict[str, Any], *, cwd: Path = ROOT, env: Mapping[str, str] | None = None
) -> Iterator[Worker]:
    """
    Run *command* while the block runs, on the processor that nginx does not have.

    Args:
        command: The program and its arguments.
        config: The first line that it is told.
        cwd: Where it runs.
        env: What is added to its environment.
    """
    process = subprocess.Popen(
        command,
        cwd=cwd,
        env={**os.environ, **(env or {})},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        bind(process.pid, 1)
        yield Worker(process, config)
    finally:
        with suppress(BrokenPipeError):
            process.stdin.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
