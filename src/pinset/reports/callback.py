"""
`CallbackReports`: reports for a function of the program.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable

from pinset.reports._aside import Aside
from pinset.reports._report import PinReport
from pinset.reports._sink import ReportSink


class CallbackReports(ReportSink):
    """
    Calls a function with each report.

    Args:
        function: Plain or ``async``. A plain one runs in a thread of its own and may block. An ``async`` one runs on
            pinset's event loop, not on yours: what belongs to your loop is reached by
            ``asyncio.run_coroutine_threadsafe``.
        name: Names it in counters and logs.
        wants_matches: Whether it is also called for connections whose pins matched, under a rule that is not enforced
            or has expired.
    """

    def __init__(
        self,
        function: Callable[[PinReport], Awaitable[object] | object],
        *,
        name: str = "callback",
        wants_matches: bool = True,
    ) -> None:
        self._function = function
        self.name = name
        self.wants_matches = wants_matches
        self._aside = Aside(f"pinset-{name}")
        self._is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
            getattr(function, "__call__", None)  # noqa: B004 - an object with an async __call__ is asked for, not callability
        )

    async def deliver(self, report: PinReport) -> None:
        """
        Call the function.
        """
        if self._is_async:
            result = self._function(report)
        else:
            result = await self._aside.run(lambda: self._function(report))
        if inspect.isawaitable(result):
            await result
