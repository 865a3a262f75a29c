"""
What commands that connect share: hosts, addresses and trust as they are given on the command line.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from pinset._errors import InputError
from pinset._hosts import canonical_host
from pinset.probe import StartTLS, Target

ProxyOption = Annotated[str | None, typer.Option("--proxy", help="http://HOST:PORT or socks5://HOST:PORT.")]
CAFileOption = Annotated[
    Path | None, typer.Option("--ca-file", help="Trust these authorities, PEM, instead of the system's.")
]
StartTLSOption = Annotated[StartTLS | None, typer.Option("--starttls", help="What to speak before TLS.")]
ConnectToOption = Annotated[
    str | None, typer.Option("--connect-to", help="Connect to this HOST:PORT for every host, as curl does.")
]
TimeoutOption = Annotated[float, typer.Option("--timeout", help="Seconds for each connection.", min=0.1)]
JobsOption = Annotated[int, typer.Option("--jobs", help="How many connections at a time.", min=1, max=1000)]


def split_address(text: str, default_port: int) -> tuple[str, int]:
    """
    The canonical host and the port of ``HOST``, ``HOST:PORT`` or ``[ADDRESS]:PORT``.

    Raises:
        InputError: It is none of them.
    """
    host, colon, port = text.rpartition(":")
    if not colon or "]" in port or (":" in host and not host.endswith("]")):
        return canonical_host(text), default_port
    if not port.isascii() or not port.isdigit() or not 0 < int(port) < 1 << 16:
        raise InputError(f"{text!r} has no port that could be; write HOST:443")
    return canonical_host(host), int(port)


def make_targets(
    named: Iterable[tuple[str, int]],
    connect_to: str | None,
    proxy: str | None,
    starttls: StartTLS | None,
    *,
    sni: str | None = None,
) -> list[Target]:
    """
    What to connect to, each once.

    Args:
        named: Hosts and ports.
        connect_to: ``HOST:PORT`` to connect to for every host, or None.
        proxy: The proxy to go through, or None.
        starttls: What to speak before TLS, or None.
        sni: The server name to ask for, or None for the host.

    Raises:
        InputError: *connect_to* is no address, or a target is not possible.
    """
    elsewhere = None if connect_to is None else split_address(connect_to, 443)
    return [
        Target(host=host, port=port, sni=sni, connect_to=elsewhere, proxy=proxy, starttls=starttls)
        for host, port in dict.fromkeys(named)
    ]


def make_context(ca_file: Path | None) -> ssl.SSLContext:
    """
    A context that verifies by the system's authorities, or those of a file.

    Raises:
        InputError: The file holds none.
        OSError: It cannot be read.
    """
    try:
        return ssl.create_default_context(cafile=ca_file)
    except ssl.SSLError as error:
        raise InputError(f"{ca_file} holds no certificates in PEM") from error
