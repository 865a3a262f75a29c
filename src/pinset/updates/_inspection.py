"""
How a repository is doing: in its directory, and as a web server shows it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from pinset._policy import Policy
from pinset.formats import read_json
from pinset.updates._fetch import Fetcher
from pinset.updates._refresh import drive
from pinset.updates._trust import TIMESTAMP, RoleState, Verified, follow

if TYPE_CHECKING:
    import httpx

_FRESH, _ABSENT_FRESH = 300, 60  # seconds
# Renewed by a machine every day; a person would be warned all the time.
_ONLINE_MOST = timedelta(days=3)


def is_due(state: RoleState, now: datetime, within: timedelta) -> bool:
    """
    Whether a role has to be renewed within a span, or should have been. What a machine renews is given 3 days at most.

    Args:
        state: The role.
        now: The present instant, aware.
        within: The span for what people renew.
    """
    online = state.role in {"snapshot", "timestamp"}
    return state.expires - now <= (min(within, _ONLINE_MOST) if online else within)


@dataclass(frozen=True, slots=True)
class Inspection:
    """
    What a client sees of a repository on a web server.

    Attributes:
        verified: What it ends with.
        policy: The policy.
        findings: What is wrong with how the files are served.
    """

    verified: Verified
    policy: Policy
    findings: tuple[str, ...]


async def inspect(fetcher: Fetcher, anchor: bytes, *, name: str, now: datetime) -> Inspection:
    """
    Look at a repository as a client without a cache, and at how it is served.

    Args:
        fetcher: Fetches files.
        anchor: The root that clients bring along.
        name: The path of the policy.
        now: The present instant, aware.

    Raises:
        UpdateError: Clients cannot update.
        PolicyError: What is signed is no policy.
    """
    async with fetcher.connected() as client:
        verified = await drive(fetcher, client, follow(anchor, {}, name=name, now=now))
        absent = await fetcher.ask(client, f"metadata/{verified.versions['root'] + 1}.root.json")
        timestamp = await fetcher.ask(client, TIMESTAMP)
    findings = tuple(_findings(absent, timestamp))
    return Inspection(verified, read_json(verified.target.decode("utf-8"), source=name), findings)


def _findings(absent: httpx.Response, timestamp: httpx.Response) -> Iterator[str]:
    age = _max_age(absent.headers)
    if age is not None and age > _ABSENT_FRESH:
        yield f"that a root does not exist may be cached for {age} s: a new root would be late; say {_ABSENT_FRESH} or less"
    age = _max_age(timestamp.headers)
    if age is None:
        yield f"timestamp.json has no Cache-Control: a cache may keep it for as long as it likes; say max-age={_FRESH}"
    elif age > _FRESH:
        yield f"timestamp.json may be cached for {age} s: pins would be late by as much; say max-age={_FRESH} or less"


def _max_age(headers: Mapping[str, str]) -> int | None:
    control = headers.get("Cache-Control", "")
    if "no-store" in control or "no-cache" in control:
        return 0
    match = re.search(r"max-age=(\d+)", control)
    return int(match[1]) if match else None
