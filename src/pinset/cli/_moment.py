"""
``--at``: the day for which a policy is judged, so that what is due next month can be seen today.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

AtOption = Annotated[
    datetime | None, typer.Option("--at", formats=["%Y-%m-%d"], help="Judge as of this day, in UTC; today by default.")
]


def moment(at: datetime | None) -> datetime:
    """
    The instant that is meant, aware.
    """
    return datetime.now(UTC).replace(microsecond=0) if at is None else at.replace(tzinfo=UTC)
