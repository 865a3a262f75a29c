"""
The exception tree. Every error carries values, never only a message.

::

    PinsetError
    ├── InputError (ValueError)     what was given cannot be used; nothing was done
    │   ├── HostError               a host name or pattern            .text
    │   ├── PinError                a pin, or what a pin is made of   .text
    │   ├── CertificateError        DER that does not parse strictly  .offset
    │   ├── PolicyError             a policy, with all its faults     .faults
    │   └── ContextError            an SSL context or option that cannot be pinned
    └── RefusedError                a request or connection was stopped   .host .verdict
        ├── CleartextError          http:// or ws:// to a listed host
        ├── ServerNameError         a server name that is not the host of the URL
        ├── UnlistedHostError       no rule names the host, and the policy denies unlisted hosts
        ├── UnverifiedChainError    nothing verified to compare pins with
        └── PinMismatchError        the verified chain holds no pinned key

A `RefusedError` is raised in the dress of the library at the boundary: under httpx it is also an
``httpx.TransportError``, from a bare context also an ``ssl.SSLCertVerificationError``. Catching the classes of this
module catches both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pinset._verdict import Verdict


class PinsetError(Exception):
    """
    The base of every error that pinset raises.
    """


class InputError(PinsetError, ValueError):
    """
    What was given cannot be used. Nothing was changed, nothing was sent.
    """


class HostError(InputError):
    """
    A host name or host pattern that has no canonical form.

    Attributes:
        text: The name as it was given.
    """

    def __init__(self, message: str, *, text: str = "") -> None:
        super().__init__(message)
        self.text = text


class PinError(InputError):
    """
    A pin text, key, certificate or signing request from which no pin can be made.

    Attributes:
        text: The beginning of what was given, cut to 80 characters.
    """

    def __init__(self, message: str, *, text: str = "") -> None:
        super().__init__(message)
        self.text = text[:80]


class CertificateError(InputError):
    """
    A certificate that is not strict DER (RFC 5280 section 4.1).

    Attributes:
        offset: The byte at which reading stopped.
    """

    def __init__(self, message: str, *, offset: int = 0) -> None:
        super().__init__(message)
        self.offset = offset


class ContextError(InputError):
    """
    An SSL context, transport or option with which pins could not be enforced.
    """


@dataclass(frozen=True, slots=True)
class Fault:
    """
    One thing that is wrong with a policy.

    Attributes:
        path: Where, such as ``host[2]."api.example.com".pins[0]``.
        reason: What is wrong.
        suggestion: What to do about it; may be empty.
    """

    path: str
    reason: str
    suggestion: str = ""

    def __str__(self) -> str:
        place = f"{self.path}: " if self.path else ""
        remedy = f" ({self.suggestion})" if self.suggestion else ""
        return f"{place}{self.reason}{remedy}"


class PolicyError(InputError):
    """
    A policy that is refused, with everything that is wrong with it.

    Attributes:
        faults: Every fault that was found, in the order of the document.
        source: The file or whatever else the policy came from; empty if nobody said.
    """

    def __init__(self, faults: Sequence[Fault], *, source: str = "") -> None:
        self.faults = tuple(faults)
        self.source = source
        count = "1 fault" if len(self.faults) == 1 else f"{len(self.faults)} faults"
        where = f" in {source}" if source else ""
        lines = "".join(f"\n  {fault}" for fault in self.faults)
        super().__init__(f"the policy was refused: {count}{where}, nothing was applied{lines}")

    def __reduce__(self) -> tuple[object, ...]:
        return (_policy_error, (self.faults, self.source))


def _policy_error(faults: tuple[Fault, ...], source: str) -> PolicyError:
    return PolicyError(faults, source=source)


class RefusedError(PinsetError):
    """
    A request or a connection that was stopped.

    Attributes:
        host: The canonical host that was to be reached.
        verdict: What was found and decided, or None where no handshake took place.
    """

    def __init__(self, message: str, *, host: str = "", verdict: Verdict | None = None) -> None:
        super().__init__(message)
        self.host = host
        self.verdict = verdict


class CleartextError(RefusedError):
    """
    ``http://`` or ``ws://`` to a listed host: without TLS there is no key to pin.
    """


class ServerNameError(RefusedError):
    """
    The request asks for the certificate of another host than that of its URL.
    """


class UnlistedHostError(RefusedError):
    """
    No rule of the policy names the host, and the policy denies unlisted hosts.
    """


class UnverifiedChainError(RefusedError):
    """
    There is no chain that OpenSSL verified for this host, so no pin can be compared.
    """


class PinMismatchError(RefusedError):
    """
    The chain that OpenSSL verified does not satisfy the pins of the host.
    """
