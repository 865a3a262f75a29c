"""
The measured server: one nginx process with a port for each kind of key, version of TLS and protocol.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pinset.testing import Identity

HOST = "127.0.0.1"
_CONFIGURATION = """
daemon off;
master_process off;
worker_processes 1;
worker_rlimit_nofile 8192;
pid {directory}/nginx.pid;
error_log {directory}/error.log crit;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    default_type text/plain;
    keepalive_requests 100000000;
    keepalive_timeout 3600s;
    ssl_session_cache shared:S:1m;
    {servers}
}}
"""
# The stack that asks does not always know whether its session was resumed; nginx does.
_SERVER = """
    server {{
        listen {host}:{port} ssl{http2};
        ssl_certificate {chain};
        ssl_certificate_key {key};
        ssl_protocols {protocol};
        location / {{ {header} return 200 "{body}"; }}
    }}
"""
_TELLS = "add_header X-Resumed $ssl_session_reused;"


@dataclass(frozen=True, slots=True)
class Site:
    """
    A port of nginx.

    Attributes:
        name: Of its files.
        identity: Its key and chain.
        protocol: ``"TLSv1.2"`` or ``"TLSv1.3"``.
        http2: Whether it offers HTTP/2 too.
        tells: Whether each response says in ``X-Resumed`` whether the TLS session was resumed (``r``) or not (``.``).
    """

    name: str
    identity: Identity
    protocol: str = "TLSv1.3"
    http2: bool = False
    tells: bool = False


def find() -> str:
    """
    The path of nginx; the program ends when there is none.
    """
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if nginx is None:
        sys.exit("this benchmark needs nginx (Debian: apt-get install nginx-light)")
    return nginx


def version(nginx: str) -> str:
    """
    Of the program at *nginx*.
    """
    said = subprocess.run([nginx, "-v"], capture_output=True, text=True, check=True).stderr
    return said.strip().rpartition("/")[2]


@contextmanager
def serve(nginx: str, sites: Sequence[Site]) -> Iterator[list[int]]:
    """
    Serve *sites* on loopback while the block runs; a body of 100 bytes for every path.

    Returns:
        The port of each site.
    """
    ports = [_free_port() for _ in sites]
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        servers = []
        for site, port in zip(sites, ports, strict=True):
            chain, key = site.identity.write(directory, site.name)
            servers.append(
                _SERVER.format(
                    host=HOST,
                    port=port,
                    http2=" http2" if site.http2 else "",
                    chain=chain,
                    key=key,
                    protocol=site.protocol,
                    header=_TELLS if site.tells else "",
                    body="x" * 100,
                )
            )
        configuration = directory / "nginx.conf"
        configuration.write_text(_CONFIGURATION.format(directory=directory, servers="".join(servers)))
        process = subprocess.Popen([nginx, "-p", name, "-c", str(configuration)], stderr=subprocess.DEVNULL)
        try:
            bind(process.pid, 0)
            for port in ports:
                _wait_for(port, process)
            yield ports
        finally:
            process.terminate()
            process.wait(10)


def bind(pid: int, which: int) -> None:
    """
    Clients (1) on one processor, nginx (0) on another, where there are two and the system lets us choose.
    """
    if hasattr(os, "sched_setaffinity"):
        cpus = sorted(os.sched_getaffinity(0))
        if len(cpus) > 1:
            os.sched_setaffinity(pid, {cpus[which]})


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(100):
        if process.poll() is not None:
            raise RuntimeError("nginx has ended at once")
        try:
            socket.create_connection((HOST, port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError("nginx does not answer")
