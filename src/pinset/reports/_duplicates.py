"""
`Duplicates`: the same report once in a while, and the others counted.

Time comes in as a number of seconds; there is no clock and no lock here.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass

_MOST_KINDS = 1024


@dataclass(slots=True)
class _Seen:
    until: float
    suppressed: int = 0


class Duplicates:
    """
    Remembers which kinds of reports were let through, and how many it held back since.

    Args:
        window: For how many seconds a kind is held back after one was let through.
        size: How many kinds are remembered; the one that was longest not seen is forgotten first.
    """

    def __init__(self, window: float, *, size: int = _MOST_KINDS) -> None:
        self._window = window
        self._size = size
        self._seen: OrderedDict[Hashable, _Seen] = OrderedDict()

    def admit(self, kind: Hashable, now: float) -> int | None:
        """
        Ask for one report.

        Returns:
            None for a duplicate; otherwise how many were held back since the last of its kind.
        """
        seen = self._seen.get(kind)
        if seen is None:
            self._seen[kind] = _Seen(now + self._window)
            if len(self._seen) > self._size:
                self._seen.popitem(last=False)
            return 0
        self._seen.move_to_end(kind)
        if now < seen.until:
            seen.suppressed += 1
            return None
        suppressed, seen.suppressed, seen.until = seen.suppressed, 0, now + self._window
        return suppressed

    def reopen(self, kind: Hashable, at: float, untold: int) -> None:
        """
        Let the next one through from *at* on: the last did not arrive.

        Args:
            kind: What was admitted.
            at: The instant from which another may try.
            untold: How many the one that was lost stood for, itself included; the next one tells of them.
        """
        if (seen := self._seen.get(kind)) is not None:
            seen.until = min(seen.until, at)
            seen.suppressed += untold
