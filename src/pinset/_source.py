"""
`PinSource`: where a policy comes from that changes while the program runs.

A client that is given a source asks it once when the pins of a host are refused: the key may have changed for good, and
the news may be on its way. `pinset.updates.TufPinSource` is one; a program may bring its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from pinset._errors import RefusedError
    from pinset._pinner import Pinner


@runtime_checkable
class PinSource(Protocol):
    """
    Keeps a `Pinner` up to date.
    """

    @property
    def pinner(self) -> Pinner:
        """
        Whose policy the source replaces.
        """
        raise NotImplementedError

    async def renew(self, refused: RefusedError) -> bool:
        """
        Look for a newer policy, because the one in force refused a connection.

        It is called for every request that was refused, and has to see to it that they share one look, and that a server
        that is refused for hours does not cause one after the other.

        Args:
            refused: The refusal.

        Returns:
            Whether another rule is in force for the host than the one that refused, so that one more handshake may end
            otherwise. Whatever goes wrong is no error but False.
        """
        raise NotImplementedError

    def renew_blocking(self, refused: RefusedError) -> bool:
        """
        The same for threads without an event loop.
        """
        raise NotImplementedError
