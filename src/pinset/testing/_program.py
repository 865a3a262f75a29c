"""
Any program behind the interceptor: started with the proxy and the trust that common stacks read, and waited for.
"""

from __future__ import annotations

import signal
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from pinset._errors import InputError
from pinset.testing._environment import proxied_environment, write_trust
from pinset.testing._interceptor import Interceptor

_STDERR = 2
_GRACE = 5.0


def run_behind(interceptor: Interceptor, command: Sequence[str], *, timeout: float | None = None) -> int | None:
    """
    Run a program behind *interceptor*, and wait until it has decided what each of the program's connections was.

    What the program prints goes to standard error, so that standard output is for results.

    Args:
        interceptor: Running.
        command: The program and its arguments.
        timeout: Seconds; then it is ended.

    Returns:
        Its exit status, as `subprocess` has it; None when it was ended.

    Raises:
        InputError: It cannot be started.
    """
    with tempfile.TemporaryDirectory(prefix="pinset-") as directory:
        trust = Path(directory, "roots.pem")
        write_trust(trust, interceptor.authority.root_pem)
        environment = proxied_environment(interceptor.url, trust)
        try:
            process = subprocess.Popen(command, stdout=_STDERR, env=environment)  # noqa: S603 - that is what was asked for
        except OSError as error:
            raise InputError(f"{command[0]} cannot be started: {error.strerror or error}") from error
        try:
            status = _wait(process, timeout)
        finally:
            _end(process)
        interceptor.settle(until_closed=True, within=_GRACE)
        return status


def _wait(process: subprocess.Popen[bytes], timeout: float | None) -> int | None:
    """The terminal sends its interrupt to the program, too, which may have something to do about it."""
    with suppress(subprocess.TimeoutExpired):
        try:
            return process.wait(timeout)
        except KeyboardInterrupt:
            return process.wait(_GRACE)
    return None


def _end(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is None:
            process.send_signal(number)
            with suppress(subprocess.TimeoutExpired):
                process.wait(_GRACE)
