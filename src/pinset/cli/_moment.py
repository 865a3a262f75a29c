"""
Days and spans on the command line: ``--at``, the day for which a policy is judged, and spans such as ``30d``.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

AtOption = Annotated[
    datetime | None, typer.Option("--at", formats=["%Y-%m-%d"], help="Judge as of this day, in UTC; today by default.")
]


def moment(at: datetime | None = None) -> datetime:
    """
    The instant that is meant, aware, in whole seconds; without a day, now.
    """
    return datetime.now(UTC).replace(microsecond=0) if at is None else at.replace(tzinfo=UTC)


def span(text: str | timedelta) -> timedelta:
    """
    A span of days, ``30d``, or of weeks, ``8w``.
    """
    if isinstance(text, timedelta):  # a default
        return text
    match = re.fullmatch("([0-9]{1,4})([dw])", text)
    if match is None:
        raise typer.BadParameter(f"{text!r} is not a span; write 30d or 8w")
    return timedelta(days=int(match[1]) * (7 if match[2] == "w" else 1))
