"""
Reports of pin checks: a team turns pinning on in report-only mode, watches, then enforces.

Give sinks to a `pinset.Pinner` as observers::

    from pinset.reports import HTTPReports, LogReports

    pinner = Pinner(load_policy("pins.toml"), observers=[LogReports(), HTTPReports("https://reports.example.net/pins")])

Logging is on without being asked for. Reports are delivered by one thread in the background: a sink that hangs costs a
request nothing, the same report is sent once a day, and what became of each is counted. One sink a file.
"""

from pinset.reports._lane import SinkCounts
from pinset.reports._report import PinReport
from pinset.reports._reporter import Reporter
from pinset.reports._sink import ReportSink, SinkError, TryAgainError
from pinset.reports.callback import CallbackReports
from pinset.reports.http import HTTPReports
from pinset.reports.jsonlines import JSONLinesReports
from pinset.reports.log import LogReports
from pinset.reports.otel import OpenTelemetryReports

# The public interface is:
__all__ = [
    "CallbackReports",
    "HTTPReports",
    "JSONLinesReports",
    "LogReports",
    "OpenTelemetryReports",
    "PinReport",
    "ReportSink",
    "Reporter",
    "SinkCounts",
    "SinkError",
    "TryAgainError",
]
