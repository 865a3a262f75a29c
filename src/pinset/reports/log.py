"""
`LogReports`: reports in the log of the program. On by default.

The words are for people; the same facts stand in the record's attributes, so that Sentry, structlog, journald and JSON
formatters pick them up without code.
"""

from __future__ import annotations

import logging

from pinset._pins import Pin, PinKind
from pinset._verdict import Decision
from pinset.reports._aside import Aside
from pinset.reports._report import PinReport
from pinset.reports._sink import ReportSink


class LogReports(ReportSink):
    """
    Writes each report to a logger of ``logging``.

    Args:
        logger: Where to; ``pinset.reports`` by default.
        refused: The level of a connection that was refused.
        let_through: The level of a violation that was let through, and of pins that have expired.
        matched: The level of a match under a rule that only reports.
    """

    name = "log"

    def __init__(
        self,
        logger: logging.Logger | None = None,
        *,
        refused: int = logging.ERROR,
        let_through: int = logging.WARNING,
        matched: int = logging.INFO,
    ) -> None:
        self._logger = logger or logging.getLogger("pinset.reports")
        self._refused, self._let_through, self._matched = refused, let_through, matched
        self._aside = Aside("pinset-log")

    async def deliver(self, report: PinReport) -> None:
        """
        Write one record.
        """
        # Handlers may block: a pipe that nobody reads, a socket to a log server.
        await self._aside.run(lambda: self._log(report))

    def _log(self, report: PinReport) -> None:
        # The text of the message never changes, so that Sentry and the like put the same events into one group.
        verdict = report.verdict
        if verdict.decision is Decision.REFUSE:
            level, message = self._refused, "refused: %s"
        elif report.is_violation:
            level, message = self._let_through, "not enforced: %s"
        elif verdict.expired:
            level, message = self._let_through, "the pins have expired: %s"
        else:
            level, message = self._matched, "not enforced, and matched: %s"
        self._logger.log(level, message, verdict.explain(), extra=_extra(report))


def _extra(report: PinReport) -> dict[str, object]:
    """Flat, of plain types, and under a prefix: `logging` refuses names of its own, and Sentry cuts what is nested."""
    verdict = report.verdict
    return {
        "pinset_host": report.hostname,
        "pinset_port": report.port,
        "pinset_rule": report.rule.name,
        "pinset_mode": report.rule.mode.value,
        "pinset_outcome": verdict.outcome.value,
        "pinset_decision": verdict.decision.value,
        "pinset_expired": verdict.expired,
        "pinset_detail": verdict.detail,
        "pinset_known_pins": [str(pin) for pin in report.known_pins],
        "pinset_seen_pins": [str(Pin(PinKind.SPKI, certificate.spki_sha256)) for certificate in verdict.chain],
        "pinset_suppressed": report.suppressed,
    }
