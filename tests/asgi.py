"""
ASGI applications of the tests, each in a hypercorn of its own.
"""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def serving(app: str, directory: Path, identity=None) -> Iterator[int]:
    """
    The port of a hypercorn with *app*, ``module:name`` beside this file, with the certificate of *identity* or without TLS.
    """
    name = app.partition(":")[0]
    listener = socket.create_server(("127.0.0.1", 0))
    # Without grace: it would wait for requests that hang.
    command = [sys.executable, "-m", "hypercorn", "--bind", f"fd://{listener.fileno()}", "--graceful-timeout", "0", app]
    if identity is not None:
        chain, key = identity.write(directory, name)
        command += ["--certfile", str(chain), "--keyfile", str(key)]
    with (directory / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=Path(__file__).parent, pass_fds=[listener.fileno()], stdout=log, stderr=log
        )
        try:
            yield listener.getsockname()[1]
        finally:
            listener.close()
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(5)
