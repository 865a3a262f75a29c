"""
A control plane for tests: nginx over TLS, with a place for each thing that a web server may do to its clients.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

import httpx
from publishing import NAME, Publisher, policy

from pinset.formats import read_json
from pinset.updates import TufPinSource

GIB = 1 << 30


@dataclass
class Plane:
    """
    The web server.

    Attributes:
        www: The directory it serves.
        base: Its URL, without a slash at the end.
        cadata: What clients trust.
        log: Its access log, in the "combined" format.
    """

    www: Path
    base: str
    cadata: str
    log: Path

    def publisher(self, **options) -> Publisher:
        """A repository of its own, which `url` leads to."""
        directory = Path(tempfile.mkdtemp(dir=self.www))
        directory.chmod(0o755)
        return Publisher(directory, **options)

    def url(self, publisher, place=""):
        """The URL of a repository, in one of the places."""
        return f"{self.base}{place}/{publisher.directory.name}"

    def source(self, publisher, cache, *, place="", fallback=None, **options):
        """A source for it."""
        options.setdefault("deadline", 5.0)
        return TufPinSource(
            self.url(publisher, place),
            root=options.pop("root", None) or publisher.anchor,
            fallback=fallback or policy(1, 2),
            cache_dir=cache,
            cadata=self.cadata,
            **options,
        )

    async def look(self, publisher, cache, **options):
        """One look by a program that starts: its status, and the policy in force afterwards."""
        source = self.source(publisher, cache, **options)
        async with source:
            status = await source.refresh()
        return status, source.pinner.policy

    async def naive_policy(self, publisher, place="", **options):
        """The policy of a client that believes what comes over TLS."""
        options = {"follow_redirects": True, **options}
        async with httpx.AsyncClient(verify=context(self.cadata), **options) as client:
            response = await client.get(f"{self.url(publisher, place)}/{NAME}")
        return read_json(response.text)

    def bytes_sent(self, path):
        """How much of each answer for *path* left nginx."""
        lines = [line for line in self.log.read_text().splitlines() if path in line]
        return [int(line.split('" ')[1].split()[1]) for line in lines]


def context(cadata):
    """A plain client context."""
    return ssl.create_default_context(cadata=cadata)


@contextlib.contextmanager
def upstream(answer):
    """A TCP server that reads a request and answers with bytes, or not at all (None), and hangs up."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.1)
    is_over = threading.Event()
    held = []

    def serve():
        while not is_over.is_set():
            with contextlib.suppress(TimeoutError):
                connection, _ = listener.accept()
                if answer is None:
                    held.append(connection)
                    continue
                with connection:
                    connection.settimeout(5)
                    connection.recv(65536)
                    connection.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        is_over.set()
        thread.join()
        listener.close()
        for connection in held:
            connection.close()


CUT = b"HTTP/1.1 200 OK\r\nContent-Length: 300\r\n\r\n" + b'{"signatures":['


@contextlib.contextmanager
def control_plane(nginx, authority, files):
    """The web server with its places: /slow, /down, /moved, /spa, /hang, /cut, /packed and the plain root."""
    with (
        tempfile.TemporaryDirectory(prefix="pinset-www-") as name,
        upstream(None) as hang,
        upstream(CUT) as cut,
    ):
        www = Path(name)
        www.chmod(0o755)  # nginx's workers are somebody else
        (www / "index.html").write_text("<html>the app</html>")
        chain, key = files
        log = www.parent / f"{www.name}.log"
        server = f"""
server {{
    listen PORT0 ssl;
    ssl_certificate {chain};
    ssl_certificate_key {key};
    access_log {log} combined;
    root {www};
    proxy_buffering off;
    location / {{ add_header Cache-Control "max-age=300"; }}
    location /bare/ {{ alias {www}/; }}
    location /slow/ {{ alias {www}/; limit_rate 150; }}
    location /down/ {{ return 503; }}
    location /moved/ {{ rewrite ^/moved/(.*)$ /evil/$1 redirect; }}
    location /spa/ {{ alias {www}/; error_page 404 =200 /index.html; }}
    location /packed/ {{ alias {www}/; gzip on; gzip_types *; gzip_min_length 1; }}
    location /hang/ {{ proxy_pass http://127.0.0.1:{hang}; }}
    location /cut/ {{ proxy_pass http://127.0.0.1:{cut}; }}
}}
"""
        try:
            with nginx(server) as running:
                yield Plane(www, running.url("").rstrip("/"), authority.root_pem, log)
        finally:
            log.unlink(missing_ok=True)
