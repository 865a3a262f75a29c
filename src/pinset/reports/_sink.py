"""
`ReportSink`: where reports go. One method to deliver, and errors that say whether to try again.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from pinset._verdict import Verdict
from pinset.reports._report import PinReport


class SinkError(Exception):
    """
    A report that was not delivered and never will be.

    Attributes:
        reason: One word for the counters.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class TryAgainError(SinkError):
    """
    A report that was not delivered this time.

    Attributes:
        after: How many seconds to wait at least, where the receiver said so.
    """

    def __init__(self, reason: str, message: str, *, after: float | None = None) -> None:
        super().__init__(reason, message)
        self.after = after


class ReportSink(ABC):
    """
    Where reports go. Given to a `Pinner` as an observer, or to a `Reporter`.

    Attributes:
        name: Names it in counters and logs.
        wants_matches: Whether it is also given reports of connections whose pins matched, under a rule that is not
            enforced or has expired.
    """

    name: str = "sink"
    wants_matches: bool = True

    @abstractmethod
    async def deliver(self, report: PinReport) -> None:
        """
        Deliver one report, on pinset's own event loop in a thread of its own. One at a time for each sink.

        It may be cancelled: the reporter sets a time limit. What blocks belongs into a thread.

        Args:
            report: What to deliver.

        Raises:
            TryAgainError: It was not delivered and may be tried again.
            Exception: It was not delivered; it is counted as failed.
        """

    def watch(self, verdict: Verdict, seconds: float) -> None:  # noqa: B027 - most sinks hear of reports alone
        """
        Hear of every check, also of those that are not reported. Called on the caller's thread: it must return at once.

        Args:
            verdict: What was found and decided.
            seconds: How long it took.
        """

    @property
    def host(self) -> str | None:
        """
        The host that reports are sent to, or None for one that sends nothing.
        """
        return None
