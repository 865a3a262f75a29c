"""
`JSONLinesReports`: reports appended to a file, one JSON document a line.
"""

from __future__ import annotations

import os
from os import PathLike
from pathlib import Path

from pinset.reports._aside import Aside
from pinset.reports._report import PinReport
from pinset.reports._sink import ReportSink


class JSONLinesReports(ReportSink):
    """
    Appends each report to a file.

    The file is opened for each report, so it can be moved away while the program runs. Several processes may share it.

    Args:
        path: Made with mode 0600 if it is not there; its directory has to be.
        name: Names the sink in counters and logs.
    """

    def __init__(self, path: str | PathLike[str], *, name: str = "file") -> None:
        self._path = Path(path)
        self.name = name
        self._aside = Aside(f"pinset-{name}")

    async def deliver(self, report: PinReport) -> None:
        """
        Append one line.

        Raises:
            OSError: It could not be written.
        """
        await self._aside.run(lambda: self._append(report.to_json().encode() + b"\n"))

    def _append(self, line: bytes) -> None:
        file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
        try:
            # One write, so that lines of several processes do not mix (POSIX write with O_APPEND).
            written = os.write(file, line)
        finally:
            os.close(file)
        if written != len(line):
            raise OSError(f"only {written} of {len(line)} bytes of a report were written to {self._path}")
