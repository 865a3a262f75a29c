"""
Canonical host names and the pattern grammar.

Rules of this module:

1. Both sides of a comparison go through `canonical_host`. What has no canonical form is an error, never "no match": a
   name that slips past its rule is a connection without pins.
2. The grammar is OkHttp's. ``host`` is that host; ``*.host`` is exactly one more label and not the host itself;
   ``**.host`` is the host and any depth below it. A star stands nowhere else, and never before an IP address.
3. A suffix is compared from a dot on, so ``notexample.com`` is never below ``example.com``.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from dataclasses import dataclass
from enum import Enum

import idna

from pinset._errors import HostError

# RFC 1035 section 2.3.4 in bytes of the A-label form. The underscore is not in the host name grammar of RFC 952, but it
# resolves, and OpenSSL verifies certificates for it.
_LABEL = re.compile(r"[a-z0-9_-]{1,63}")
_MAX_NAME = 253
# What almost every name is: already canonical, and by the first letter of its last label no number. Nothing is given
# back (``+`` after a count): no label holds a dot, so there is no second way to read a name.
_PLAIN = re.compile(r"(?:[a-z0-9_-]{1,63}+\.)*+[a-z_-][a-z0-9_-]{0,62}+")
# What inet_aton would take for an IPv4 address: 127.1, 2130706433, 0x7f.1 (WHATWG URL section 3.5, "ends in a number").
_NUMERIC_LABEL = re.compile(r"[0-9]+|0x[0-9a-f]*")


def canonical_host(text: str) -> str:
    """
    The one spelling under which a host is listed and looked up.

    A-labels (IDNA 2008), lower case, no trailing dot, IP addresses as `ipaddress` prints them and without brackets.

    Args:
        text: A host name or IP address; no port, no scheme.

    Returns:
        The canonical name.

    Raises:
        HostError: *text* has no canonical form.
    """
    # Not remembered: to look a plain name up costs less than to push another one out.
    if len(text) <= _MAX_NAME and _PLAIN.fullmatch(text):
        return text
    return _canonical(text)


@functools.lru_cache(maxsize=4096)
def _canonical(text: str) -> str:
    """`canonical_host` the long way, for any text."""
    if (address := _address(text)) is not None:
        return address
    name = text.lower() if text.isascii() else _to_a_labels(text)
    name = name.removesuffix(".")
    labels = name.split(".")
    if len(name) > _MAX_NAME or not all(_LABEL.fullmatch(label) for label in labels):
        raise HostError(f"{_cut(text)} is not a host name{_hint(text)}", text=text)
    if _NUMERIC_LABEL.fullmatch(labels[-1]):
        raise HostError(
            f"{text!r} looks like an IP address but is not written as one; write four decimal numbers", text=text
        )
    return name


def _address(text: str) -> str | None:
    literal = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        address = ipaddress.ip_address(literal)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.scope_id is not None:
        raise HostError(f"{text!r} carries a zone, which no certificate can name; leave it out", text=text)
    return str(address)


def _to_a_labels(text: str) -> str:
    # U+212A KELVIN SIGN lowers to an ASCII k, and OpenSSL or a resolver would take the result for another, plain name
    # (CVE-2021-0341 in OkHttp). A letter that turns into ASCII only by folding is refused.
    if any(not char.isascii() and char.lower().isascii() for char in text):
        raise HostError(f"{text!r} has a letter that only looks like ASCII", text=text)
    try:
        return idna.encode(text.lower()).decode("ascii")
    except UnicodeError as error:
        raise HostError(f"{text!r} is not a valid international host name: {error}", text=text) from error


def _cut(text: str) -> str:
    return repr(text if len(text) <= _MAX_NAME else text[:_MAX_NAME] + "…")


def _hint(text: str) -> str:
    if "://" in text:
        return "; write the host alone, without the scheme"
    if "/" in text or "@" in text or ":" in text:
        return "; write the host alone, without port, path or user"
    if text.startswith(".") or ".." in text:
        return "; it has an empty label"
    if "*" in text:
        return "; a star may stand only at the front of a pattern, as '*.' or '**.'"
    return "; labels are 1 to 63 letters, digits, '-' or '_', joined by dots"


class Scope(Enum):
    """
    How much below its base a pattern covers.
    """

    HOST = ""
    LABEL = "*."
    TREE = "**."


@dataclass(frozen=True, slots=True)
class HostPattern:
    """
    A host pattern in canonical form.

    Attributes:
        base: The canonical host after the stars.
        scope: What the stars say: the host itself, one label below it, or it and everything below.
    """

    base: str
    scope: Scope

    def __str__(self) -> str:
        return self.scope.value + self.base

    @classmethod
    def parse(cls, text: str) -> HostPattern:
        """
        Read ``host``, ``*.host`` or ``**.host``.

        Args:
            text: The pattern; space around it is ignored.

        Raises:
            HostError: *text* is none of the three.
        """
        pattern = text.strip()
        for scope in (Scope.TREE, Scope.LABEL, Scope.HOST):
            if pattern.startswith(scope.value):
                try:
                    base = canonical_host(pattern[len(scope.value) :])
                except HostError as error:
                    raise HostError(str(error), text=text) from error
                if scope is not Scope.HOST and is_address(base):
                    raise HostError(f"{text!r} puts a star before an IP address, which has no subdomains", text=text)
                return cls(base, scope)
        raise AssertionError(text)  # pragma: no cover - every text starts with the empty prefix of Scope.HOST

    def matches(self, host: str) -> bool:
        """
        Whether this pattern covers the canonical *host*.
        """
        # No base is an address where stars are involved (`parse`), so the tail of an address can match none.
        match self.scope:
            case Scope.HOST:
                return host == self.base
            case Scope.LABEL:
                return parent(host) == self.base
        return host == self.base or host.endswith("." + self.base)  # Scope.TREE


def parent(host: str) -> str:
    """
    The canonical *host* without its first label; empty at the top.
    """
    return host.partition(".")[2]


def is_address(host: str) -> bool:
    """
    Whether the canonical *host* is an IP address.

    `canonical_host` leaves no name that ends in a number, so an address is what ends in one or holds a colon.
    """
    return ":" in host or (host[-1:].isdigit() and host.rpartition(".")[2].isdigit())
