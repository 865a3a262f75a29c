"""
A SOCKS5 proxy (RFC 1928) and who we are to it (RFC 1929), as python-socks wants to know it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pinset._errors import ContextError

if TYPE_CHECKING:
    from python_socks import ProxyType

_LONGEST_CREDENTIAL = 255  # RFC 1929 section 2 gives the length one byte


@dataclass(frozen=True, slots=True)
class SocksProxy:
    """
    A SOCKS5 proxy. Made by `of`.

    Attributes:
        host: A name or an address.
        port: Its port.
        username: Or None.
        password: Or None.
    """

    host: str
    port: int
    username: str | None = None
    password: str | None = field(default=None, repr=False)

    @classmethod
    def of(cls, host: str, port: int, auth: tuple[bytes, bytes] | None) -> SocksProxy:
        """
        The proxy at *host*, if it can be used.

        Raises:
            ContextError: The extra ``socks`` is not installed, or the protocol cannot carry *auth*.
        """
        try:
            import python_socks  # noqa: F401, PLC0415 - an extra
        except ImportError as error:
            raise ContextError("SOCKS proxies need an extra: pip install 'pinset[socks]'") from error
        return cls(host, port, *(() if auth is None else _credentials(auth)))

    def __str__(self) -> str:
        return f"the SOCKS proxy {self.host}:{self.port}"

    def description(self) -> tuple[ProxyType, str, int, str | None, str | None, bool]:
        """
        What ``python_socks``' proxies are made from. The proxy resolves names.
        """
        from python_socks import ProxyType  # noqa: PLC0415 - an extra

        return ProxyType.SOCKS5, self.host, self.port, self.username, self.password, True


def _credentials(auth: tuple[bytes, bytes]) -> tuple[str, str]:
    for name, value in zip(("user name", "password"), auth, strict=True):
        if not value.isascii() or not 0 < len(value) <= _LONGEST_CREDENTIAL:
            raise ContextError(
                f"the {name} for the SOCKS proxy has {len(value)} bytes{'' if value.isascii() else ', not all ASCII'};"
                f" it has to be ASCII of 1 to {_LONGEST_CREDENTIAL} bytes (RFC 1929), or leave both away"
            )
    return auth[0].decode("ascii"), auth[1].decode("ascii")
