"""
A real nginx on the loopback interface, in a directory that is thrown away, whose certificate changes while it serves.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from pinset._errors import InputError
from pinset.testing._authority import Identity

_PATIENCE = 10.0
_WORKER_ENDED = "exited with code 0"
_TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


def find_nginx() -> str:
    """
    The path of nginx.

    Raises:
        InputError: It is not installed.
    """
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])
    found = shutil.which("nginx", path=path)
    if found is None:
        raise InputError("nginx is not installed; on Debian: apt-get install nginx-light")
    return found


class Nginx:
    """
    An nginx that answers every request on a free port of 127.0.0.1, while its ``with`` block lasts.

    Args:
        identity: What it shows first.
        program: The path of nginx.
        http2: Whether it speaks HTTP/2, too.
    """

    def __init__(self, identity: Identity, program: str, *, http2: bool = False) -> None:
        self._program = program
        self._identity = identity
        self._http2 = http2

    def __enter__(self) -> Self:
        self._made = tempfile.TemporaryDirectory(prefix="pinset-nginx-", ignore_cleanup_errors=True)
        self._directory = Path(self._made.name)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = int(free.getsockname()[1])
        self._identity.write(self._directory, "server")
        (self._directory / "nginx.conf").write_text(self._config(), encoding="utf-8")
        command = [self._program, "-p", str(self._directory), "-e", "stderr", "-c", str(self._directory / "nginx.conf")]
        with (self._directory / "output.log").open("wb") as output:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)  # noqa: S603
        try:
            self._wait_for(self._identity)
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop()

    def url(self) -> str:
        """
        Its URL, under the name ``localhost``.
        """
        return f"https://localhost:{self._port}/"

    def show(self, identity: Identity) -> None:
        """
        Install another certificate, with its key, and reload; returns when nobody serves with the old one any more.

        Raises:
            TimeoutError: nginx did not take it.
        """
        before = self._log().count(_WORKER_ENDED)
        identity.write(self._directory, "server")
        self._process.send_signal(signal.SIGHUP)
        self._wait_for(identity)
        # The workers with the old certificate finish what they have begun, on connections that are open.
        self._wait_until(lambda: self._log().count(_WORKER_ENDED) > before)

    def _wait_for(self, identity: Identity) -> None:
        digest = hashlib.sha256(identity.chain[0]).digest()
        self._wait_until(lambda: self._shown() == digest)

    def _wait_until(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + _PATIENCE
        while not condition():
            if self._process.poll() is not None or time.monotonic() > end:
                raise TimeoutError(f"nginx does not do what it was told: {self._log()[-1000:] or 'it says nothing'}")
            time.sleep(0.02)

    def _log(self) -> str:
        return (self._directory / "output.log").read_text(encoding="utf-8", errors="replace")

    def _shown(self) -> bytes:
        """The digest of the certificate that a new connection sees. Whose it is does not matter here."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        try:
            plain = socket.create_connection(("127.0.0.1", self._port), timeout=1)
            with plain, context.wrap_socket(plain) as tls:
                return hashlib.sha256(tls.getpeercert(binary_form=True) or b"").digest()
        except OSError:
            return b""

    def _stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(_PATIENCE)
        self._made.cleanup()

    def _config(self) -> str:
        here = self._directory
        temporary = "".join(f"    {kind}_temp_path {here}/{kind};\n" for kind in _TEMPORARY)
        return f"""
daemon off;
worker_processes 1;
pid {here}/nginx.pid;
error_log stderr info;
events {{ worker_connections 512; }}
http {{
    access_log off;
{temporary}
    server {{
        listen 127.0.0.1:{self._port} ssl{" http2" if self._http2 else ""};
        server_name localhost;
        ssl_certificate {here}/server.pem;
        ssl_certificate_key {here}/server.key;
        location / {{ return 200 "hello\\n"; }}
    }}
}}
"""
