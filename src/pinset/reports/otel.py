"""
`OpenTelemetryReports`: counters, a histogram and events, through the API of OpenTelemetry alone.

Names are ours, under ``pinset.``; of the semantic conventions only stable ones are used: ``server.address``,
``server.port``, ``error.type``. The attributes ``tls.*`` are not: ``tls.server.hash.sha256`` is the digest of a
certificate, and a pin is one of a key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pinset._errors import InputError
from pinset._pins import Pin, PinKind
from pinset._verdict import Decision, Verdict
from pinset.reports._aside import Aside
from pinset.reports._report import PinReport
from pinset.reports._sink import ReportSink

if TYPE_CHECKING:
    from opentelemetry._logs import LoggerProvider
    from opentelemetry.metrics import MeterProvider

_SCOPE = "pinset"
_NANOSECONDS = 1_000_000_000
# Seconds. A check takes microseconds; the default buckets begin at five.
_BUCKETS = (1e-6, 2.5e-6, 5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 1e-2)


class OpenTelemetryReports(ReportSink):
    """
    Counts every check and emits an event for each report.

    ``pinset.checks`` counts checks and ``pinset.check.duration`` measures them, by ``pinset.rule``, ``pinset.mode``,
    ``pinset.outcome`` and ``pinset.decision``; the event is ``pinset.violation``, or ``pinset.unenforced`` for a
    connection whose pins matched under a rule that is not enforced or has expired.

    Args:
        meter_provider: By default the global one.
        logger_provider: By default the global one.

    Raises:
        InputError: The OpenTelemetry API is not installed (extra ``otel``).
    """

    name = "opentelemetry"

    def __init__(
        self, *, meter_provider: MeterProvider | None = None, logger_provider: LoggerProvider | None = None
    ) -> None:
        try:
            from opentelemetry._logs import SeverityNumber, get_logger  # noqa: PLC0415 - an extra
            from opentelemetry.metrics import get_meter  # noqa: PLC0415
        except ImportError as error:
            raise InputError("OpenTelemetryReports needs the OpenTelemetry API: pip install 'pinset[otel]'") from error
        meter = get_meter(_SCOPE, meter_provider=meter_provider)
        self._checks = meter.create_counter("pinset.checks", unit="{check}", description="Pin checks by outcome.")
        self._duration = meter.create_histogram(
            "pinset.check.duration",
            unit="s",
            description="How long a pin check took.",
            explicit_bucket_boundaries_advisory=_BUCKETS,
        )
        self._logger = get_logger(_SCOPE, logger_provider=logger_provider)
        self._aside = Aside("pinset-opentelemetry")
        self._severities = {True: SeverityNumber.ERROR, False: SeverityNumber.WARN, None: SeverityNumber.INFO}

    def watch(self, verdict: Verdict, seconds: float) -> None:
        """
        Count a check. Its host is not among the attributes: a rule with stars would make one series for each.
        """
        rule = verdict.rule
        attributes = {
            "pinset.rule": rule.name if rule is not None else "",
            "pinset.mode": rule.mode.value if rule is not None else "",
            "pinset.outcome": verdict.outcome.value,
            "pinset.decision": verdict.decision.value,
        }
        self._checks.add(1, attributes)
        self._duration.record(seconds, attributes)

    async def deliver(self, report: PinReport) -> None:
        """
        Emit one event, in the context of the request that caused it.
        """
        # A processor may export at once, and block.
        await self._aside.run(lambda: self._emit(report))

    def _emit(self, report: PinReport) -> None:
        verdict = report.verdict
        attributes: dict[str, str | int | bool | list[str]] = {
            "server.address": report.hostname,
            "pinset.rule": report.rule.name,
            "pinset.mode": report.rule.mode.value,
            "pinset.outcome": verdict.outcome.value,
            "pinset.decision": verdict.decision.value,
            "pinset.expired": verdict.expired,
            "pinset.known_pins": [str(pin) for pin in report.known_pins],
            "pinset.seen_pins": [str(Pin(PinKind.SPKI, certificate.spki_sha256)) for certificate in verdict.chain],
            "pinset.suppressed": report.suppressed,
        }
        if report.port:
            attributes["server.port"] = report.port
        if report.is_violation:
            attributes["error.type"] = verdict.outcome.value
        severity = self._severities[verdict.decision is Decision.REFUSE if report.is_violation else None]
        self._logger.emit(
            timestamp=int(verdict.at.timestamp() * _NANOSECONDS),
            severity_number=severity,
            body=verdict.explain(),
            attributes=attributes,
            event_name="pinset.violation" if report.is_violation else "pinset.unenforced",
        )
