"""
One connection: TCP, a proxy if there is one, the words before TLS if there are any, the handshake, and the chain.

Rules of this module:

1. CA path, expiry and host name are verified by the context that is given; a chain comes out only if OpenSSL verified it.
2. Nothing is sent after the handshake. The connection is dropped, not closed politely: a server that never answers a
   closing word must not cost time.
3. Whatever goes wrong is a `ProbeError` that says whether there was no connection or no verified chain.
"""

from __future__ import annotations

import asyncio
import base64
import ssl
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import unquote, urlsplit

from pinset._certificates import read_chain
from pinset._errors import CertificateError, InputError, PinsetError
from pinset._tls import verified_chain
from pinset.operate.record import Result

_MOST_LINES = 100
_HTTP_PROXY_PORT, _SOCKS_PORT = 80, 1080
_POSTGRES_SSL_REQUEST = struct.pack("!ii", 8, 80877103)  # the protocol's own number, as in its documentation


class StartTLS(StrEnum):
    """
    Protocols that speak in the clear before TLS.
    """

    SMTP = "smtp"
    IMAP = "imap"
    POSTGRES = "postgres"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """
    What to connect to.

    Attributes:
        host: Canonical; the name that the certificate is verified for unless *sni* says another.
        port: The TCP port.
        sni: Another name to ask and verify for.
        connect_to: Another address to connect to: a host and a port.
        proxy: ``http://`` or ``socks5://`` with host, port and, if need be, user and password.
        starttls: What to say before TLS.
    """

    host: str
    port: int = 443
    sni: str | None = None
    connect_to: tuple[str, int] | None = None
    proxy: str | None = None
    starttls: StartTLS | None = None

    @property
    def address(self) -> tuple[str, int]:
        """
        Where the connection goes.
        """
        return self.connect_to or (self.host, self.port)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class ProbeError(PinsetError):
    """
    A server whose chain could not be had.

    Attributes:
        result: `Result.UNREACHABLE` or `Result.UNVERIFIED`.
    """

    def __init__(self, message: str, *, result: Result) -> None:
        super().__init__(message)
        self.result = result


async def fetch_chain(target: Target, context: ssl.SSLContext, *, timeout: float) -> tuple[bytes, ...]:  # noqa: ASYNC109 - one deadline for all steps
    """
    The chain that OpenSSL verifies for *target*, leaf first, DER; every certificate of it can be read.

    Args:
        target: What to connect to.
        context: Verifies; a client context with ``CERT_REQUIRED`` and ``check_hostname``.
        timeout: Seconds for everything.

    Raises:
        ProbeError: There is no connection, no TLS, or no verified chain.
        InputError: The proxy is not one that can be used.
    """
    try:
        async with asyncio.timeout(timeout):
            reader, writer = await _open(target)
            try:
                if target.starttls is not None:
                    await _DIALOGUES[target.starttls](reader, writer)
                await writer.start_tls(context, server_hostname=target.sni or target.host)
                chain = tuple(verified_chain(writer.get_extra_info("ssl_object")))
                read_chain(chain)
            finally:
                writer.transport.abort()
    except ssl.SSLCertVerificationError as error:
        raise ProbeError(f"the chain does not verify: {error.verify_message}", result=Result.UNVERIFIED) from error
    except CertificateError as error:
        raise ProbeError(f"a certificate of the chain cannot be read: {error}", result=Result.UNVERIFIED) from error
    except TimeoutError as error:
        raise ProbeError(f"no answer in {timeout:g} s", result=Result.UNREACHABLE) from error
    except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        raise ProbeError(_reason(error), result=Result.UNREACHABLE) from error
    return chain


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {error.reason or error}"
    if isinstance(error, OSError):
        return f"no connection: {error.strerror or error}"
    return "the connection ended before TLS"


_Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _open(target: Target) -> _Stream:
    host, port = target.address
    if target.proxy is None:
        return await asyncio.open_connection(host, port)
    proxy = urlsplit(target.proxy)
    try:
        proxy_port = proxy.port or _HTTP_PROXY_PORT
    except ValueError:  # no number, or one that is no port
        proxy_port = 0
    if proxy.scheme not in {"http", "socks5"} or not proxy.hostname or not proxy_port:
        raise InputError(
            f"{target.proxy!r} is not a proxy that can be used; write http://HOST:PORT or socks5://HOST:PORT"
        )
    if proxy.scheme == "socks5":
        return await _through_socks(target.proxy, host, port)
    reader, writer = await asyncio.open_connection(proxy.hostname, proxy_port)
    try:
        await _ask_proxy(reader, writer, f"[{host}]:{port}" if ":" in host else f"{host}:{port}", target.proxy)
    except BaseException:
        writer.transport.abort()
        raise
    return reader, writer


async def _ask_proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, authority: str, proxy: str) -> None:
    parts = urlsplit(proxy)
    head = f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n"
    if parts.username is not None:
        user = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
        head += f"Proxy-Authorization: Basic {base64.b64encode(user).decode('ascii')}\r\n"
    writer.write(f"{head}\r\n".encode("ascii"))
    status = (await _line(reader)).split(" ", 2)
    if len(status) < 2 or status[1] != "200":  # noqa: PLR2004 - version and status
        raise ConnectionError(None, f"the proxy answered {' '.join(status)[:80]!r}")
    for _ in range(_MOST_LINES):
        if not await _line(reader):
            return
    raise ConnectionError(None, "the proxy's answer has no end")


async def _through_socks(proxy: str, host: str, port: int) -> _Stream:
    try:
        from python_socks import ProxyError  # noqa: PLC0415 - of the extra `socks`
        from python_socks.async_.asyncio import Proxy  # noqa: PLC0415 - likewise
    except ModuleNotFoundError as error:
        raise InputError("a SOCKS proxy needs an extra: pip install 'pinset[socks]'") from error
    try:
        connected = await Proxy.from_url(proxy, rdns=True).connect(dest_host=host, dest_port=port)
    except ProxyError as error:
        raise ConnectionError(None, f"the proxy refused: {error}") from error
    return await asyncio.open_connection(sock=connected)


async def _line(reader: asyncio.StreamReader) -> str:
    return (await reader.readuntil(b"\n")).decode("latin-1").rstrip("\r\n")


async def _smtp(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    # RFC 3207; a reply of several lines has a hyphen after its number on all but the last (RFC 5321 section 4.2.1).
    await _smtp_reply(reader, "220")
    writer.write(b"EHLO pinset.invalid\r\n")
    await _smtp_reply(reader, "250")
    writer.write(b"STARTTLS\r\n")
    await _smtp_reply(reader, "220")


async def _smtp_reply(reader: asyncio.StreamReader, number: str) -> None:
    for _ in range(_MOST_LINES):
        line = await _line(reader)
        if line[:3] != number:
            raise ConnectionError(None, f"the server answered {line[:80]!r} where {number} was expected")
        if line[3:4] != "-":
            return
    raise ConnectionError(None, "the server's answer has no end")


async def _imap(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    # RFC 9051 section 6.2.1.
    greeting = await _line(reader)
    if not greeting.upper().startswith("* OK"):
        raise ConnectionError(None, f"the server answered {greeting[:80]!r} where * OK was expected")
    writer.write(b"a STARTTLS\r\n")
    line = ""
    for _ in range(_MOST_LINES):
        line = await _line(reader)
        if not line.startswith("* "):
            break
    if not line.upper().startswith("A OK"):
        raise ConnectionError(None, f"the server answered {line[:80]!r} where a OK was expected")


async def _postgres(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(_POSTGRES_SSL_REQUEST)
    if (answer := await reader.readexactly(1)) != b"S":
        raise ConnectionError(None, f"the server answered {answer!r} where b'S' was expected: it has no TLS")


_DIALOGUES: dict[StartTLS, Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]] = {
    StartTLS.SMTP: _smtp,
    StartTLS.IMAP: _imap,
    StartTLS.POSTGRES: _postgres,
}
