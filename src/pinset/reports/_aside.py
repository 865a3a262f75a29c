"""
`Aside`: blocking calls, one at a time, in a daemon thread.

The thread pool of ``asyncio`` is no place for them: its threads are waited for when the interpreter exits, so one call
that hangs would keep the process from ending.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import asyncio

T = TypeVar("T")


class Aside:
    """
    Runs blocking functions for coroutines of one event loop.

    Args:
        name: Of its threads.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._running: asyncio.Future[None] | None = None

    async def run(self, function: Callable[[], T]) -> T:
        """
        Call *function* in a thread, in the present context, once the call before has returned.

        Cancelling stops the waiting, not the thread.

        Raises:
            Exception: Whatever *function* raised.
        """
        import asyncio  # noqa: PLC0415 - httpx alone does not import it, and few programs ever report

        loop = asyncio.get_running_loop()
        while (before := self._running) is not None and not before.done() and before.get_loop() is loop:
            await asyncio.wait([before])
        self._running = ended = loop.create_future()
        results: list[T] = []
        errors: list[BaseException] = []
        context = contextvars.copy_context()

        def call() -> None:
            try:
                results.append(context.run(function))
            except BaseException as error:  # noqa: BLE001 - SystemExit of a callback would stop the loop
                errors.append(error)
            with suppress(RuntimeError):  # the loop is closed: the process is about to end
                loop.call_soon_threadsafe(ended.set_result, None)

        try:
            threading.Thread(target=call, name=self._name, daemon=True).start()
        except RuntimeError:
            call()  # Python 3.12.0 and 3.12.1 start no thread while they exit (gh-113964), and then nobody else waits
        await asyncio.wait([ended])
        for error in errors:
            raise error if isinstance(error, Exception) else RuntimeError(f"{type(error).__name__}: {error}") from error
        return results[0]
