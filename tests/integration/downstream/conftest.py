"""
What the libraries are pointed at: an nginx that plays every API, redis, PostgreSQL and a mail server.

Each exists twice, with the genuine certificate and with that of an impostor whose CA the client trusts as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pwd
import queue
import secrets
import shutil
import socket
import subprocess
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest

import pinset
from pinset.testing import Interceptor

HOST = "localhost"


@pytest.fixture(autouse=True)
def _trust(_no_proxies_around, genuine, rogue, monkeypatch, tmp_path):
    """The client trusts the genuine and the rogue authority; nothing is left in the working directory."""
    with genuine.trust_file(rogue) as path:
        monkeypatch.setenv("SSL_CERT_FILE", path)
        monkeypatch.chdir(tmp_path)
        yield path


@pytest.fixture
def wrong():
    """A policy of two keys that nobody holds."""
    return {HOST: [pinset.Pin(pinset.PinKind.SPKI, secrets.token_bytes(32)) for _ in range(2)]}


@pytest.fixture
def interceptor(genuine, rogue):
    """A proxy that impersonates every host, with a CA that the client trusts."""
    with Interceptor(rogue, upstream=genuine.client_context()) as running:
        yield running


@dataclass(frozen=True)
class Pair:
    """
    A server and its impostor.

    Attributes:
        port: Of the genuine one.
        rogue: Port of the impostor.
    """

    port: int
    rogue: int


_COMPLETION = {
    "id": "1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hello"}}],
}
_CHUNK = {
    "id": "1",
    "object": "chat.completion.chunk",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "delta": {"content": "hello"}}],
}
_MESSAGE = {
    "id": "1",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [{"type": "text", "text": "hello"}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 1, "output_tokens": 1},
}
# What nginx says by itself, in the voice of each API.
_ANSWERS = {
    "/rest/v1/items": [{"id": 1}],
    "/collections": {"result": {"collections": [{"name": "books"}]}, "status": "ok", "time": 0.1},
    "/v1/chat/completions": _COMPLETION,
    "/v1/messages": _MESSAGE,
    "/graphql": {"data": {"hello": "world"}},
    "/oauth/token": {"access_token": "token", "token_type": "Bearer", "expires_in": 3600},
}
_EVENTS = {
    "/events": "data: hello\n\n",
    "/stream/v1/chat/completions": f"data: {json.dumps(_CHUNK)}\n\ndata: [DONE]\n\n",
}


def _server(port, identity, *, feed, mcp, silent):
    chain, key = identity
    answers = "".join(f"location = {path} {{ return 200 '{json.dumps(said)}'; }}\n" for path, said in _ANSWERS.items())
    events = "".join(
        f"location = {path} {{ default_type text/event-stream; return 200 '{said}'; }}\n"
        for path, said in _EVENTS.items()
    )
    return f"""
server {{
    listen {port} ssl http2;
    ssl_certificate {chain};
    ssl_certificate_key {key};
    ssl_protocols TLSv1.2 TLSv1.3;
    absolute_redirect off;
    default_type application/json;
    {answers}{events}
    location / {{ default_type text/plain; return 200 "hello"; }}
    location = /bearer {{ default_type text/plain; return 200 "$http_authorization"; }}
    location = /cached {{ default_type text/plain; add_header Cache-Control "max-age=60"; return 200 "kept"; }}
    location ~ ^/moved(?<rest>/.*)$ {{ return 307 $rest$is_args$args; }}
    location ~ ^/away(?<rest>/.*)$ {{ return 307 https://PORT1$rest; }}
    location /silent/ {{ proxy_pass http://127.0.0.1:{silent}; }}
    location = /feed {{
        proxy_pass http://127.0.0.1:{feed};
        proxy_http_version 1.1;
        proxy_set_header Upgrade $http_upgrade;
        proxy_set_header Connection "upgrade";
    }}
    location = /mcp {{ proxy_pass http://127.0.0.1:{mcp}; proxy_buffering off; }}
}}
"""


@pytest.fixture(scope="session")
def web(own_nginx, tmp_path_factory, leaf, impostor):
    """nginx: the genuine server on its first port, the impostor on the second."""
    directory = tmp_path_factory.mktemp("pinset-downstream")
    identities = [identity.write(directory, f"server{number}") for number, identity in enumerate((leaf, impostor))]
    with _feed() as feed, _mcp() as mcp, socket.create_server(("127.0.0.1", 0)) as silent:
        ports = {"feed": feed, "mcp": mcp, "silent": silent.getsockname()[1]}
        servers = [_server(f"PORT{number}", files, **ports) for number, files in enumerate(identities)]
        with own_nginx(directory, servers) as running:
            yield running


@contextlib.contextmanager
def _mcp():
    """A server of mcp's own, without TLS; its port."""
    import uvicorn
    from mcp.server.mcpserver import MCPServer

    made = MCPServer("calculator")

    @made.tool()
    def add(a: int, b: int) -> int:
        """Add."""
        return a + b

    server = uvicorn.Server(uvicorn.Config(made.streamable_http_app(), log_level="error"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(20)


@contextlib.contextmanager
def _feed():
    """A WebSocket server that says back what it hears, without TLS; its port."""
    from websockets.sync.server import serve

    def echo(connection):
        for message in connection:
            connection.send(message)

    with serve(echo, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.socket.getsockname()[1]
        finally:
            server.shutdown()
            thread.join(10)


def _unprivileged(directory):
    """A prefix that runs a command as somebody else where we are root, and gives them *directory*."""
    if os.geteuid() != 0:
        return []
    nobody = pwd.getpwnam("nobody")
    for path in (directory, *directory.rglob("*")):
        os.chown(path, nobody.pw_uid, nobody.pw_gid)
    return ["setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups", "--"]


@pytest.fixture(scope="session")
def redis_servers(require_program, run_program, tmp_path_factory, leaf, impostor):
    """redis-server with TLS and without anything else, twice."""
    program = require_program("redis-server")
    with contextlib.ExitStack() as stack:
        ports = []
        for name, identity in (("genuine", leaf), ("rogue", impostor)):
            directory = tmp_path_factory.mktemp(f"pinset-redis-{name}")
            chain, key = identity.write(directory, "server")

            def configure(free, chain=chain, key=key):
                options = {
                    "bind": "127.0.0.1",
                    "port": 0,
                    "tls-port": free[0],
                    "tls-cert-file": chain,
                    "tls-key-file": key,
                    "tls-ca-cert-file": chain,
                    "tls-auth-clients": "no",
                    "save": "",
                    "appendonly": "no",
                }
                return [program, *(word for option, value in options.items() for word in (f"--{option}", str(value)))]

            (port,), _ = stack.enter_context(run_program(directory, 1, configure))
            ports.append(port)
        yield Pair(*ports)


@pytest.fixture(scope="session")
def postgres_servers(require_program, run_program, leaf, impostor):
    """PostgreSQL with TLS, twice. It refuses to run as root, and nobody may enter the directories that pytest makes."""
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    initdb = require_program("initdb", given=str(installed[-1] / "initdb") if installed else None)
    program = str(Path(initdb).resolve().parent / "postgres")
    with tempfile.TemporaryDirectory(prefix="pinset-postgres-") as name, contextlib.ExitStack() as stack:
        base = Path(name)
        base.chmod(0o755)
        first = base / "genuine"
        first.mkdir()
        command = [initdb, "-D", "data", "-U", "app", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync", "-N"]
        subprocess.run([*_unprivileged(first), *command], cwd=first, check=True, capture_output=True, timeout=120)
        shutil.copytree(first, base / "rogue")
        ports = []
        for side, identity in (("genuine", leaf), ("rogue", impostor)):
            directory = base / side
            identity.write(directory, "server")
            settings = {
                "listen_addresses": "127.0.0.1",
                "unix_socket_directories": "",
                "ssl": "on",
                "ssl_cert_file": directory / "server.pem",
                "ssl_key_file": directory / "server.key",
                "fsync": "off",
                "shared_buffers": "1MB",
                "max_connections": "10",
                "logging_collector": "off",
            }
            options = [word for setting, value in settings.items() for word in ("-c", f"{setting}={value}")]
            start = [*_unprivileged(directory), program, "-D", str(directory / "data"), *options]
            (port,), _ = stack.enter_context(
                run_program(directory, 1, lambda free, start=start: [*start, "-p", str(free[0])])
            )
            ports.append(port)
        yield Pair(*ports)


class Mailbox:
    """
    What a mail server took: a handler for aiosmtpd.
    """

    def __init__(self):
        self.bodies = []

    async def handle_DATA(self, server, session, envelope):  # noqa: N802 - aiosmtpd's name
        self.bodies.append(envelope.content.decode())
        return "250 taken"


@dataclass(frozen=True)
class Mail:
    """
    Mail servers by (identity, TLS): "genuine" or "rogue"; "implicit", "starttls" or "none". And what came to all of them.
    """

    ports: dict
    box: Mailbox


@pytest.fixture
def mail(leaf, impostor):
    """aiosmtpd with each identity in three ways, on an event loop of its own."""
    from aiosmtpd.smtp import SMTP

    box, ports = Mailbox(), {}

    async def serve():
        async with contextlib.AsyncExitStack() as stack:
            for side, identity in (("genuine", leaf), ("rogue", impostor)):
                context = identity.server_context(alpn=())
                for tls, outer, inner in (
                    ("implicit", context, None),
                    ("starttls", None, context),
                    ("none", None, None),
                ):

                    def session(inner=inner):
                        return SMTP(box, hostname=HOST, tls_context=inner, loop=asyncio.get_running_loop())

                    server = await asyncio.get_running_loop().create_server(session, "127.0.0.1", 0, ssl=outer)
                    await stack.enter_async_context(server)
                    ports[side, tls] = server.sockets[0].getsockname()[1]
            stopped = asyncio.Event()
            started.put((asyncio.get_running_loop(), stopped))
            await stopped.wait()

    started = queue.SimpleQueue()
    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    loop, stopped = started.get(timeout=20)
    yield Mail(ports, box)
    loop.call_soon_threadsafe(stopped.set)
    thread.join(20)
