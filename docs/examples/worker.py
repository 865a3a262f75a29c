"""
A worker that runs for months: pins from a control plane, and reports to a collector and into a file.

    export JOBS=https://api.example.com/jobs
    export CONTROL_PLANE=https://pins.example.com/ COLLECTOR=https://reports.example.net/pins
    python docs/examples/worker.py /var/lib/worker

The directory has ``1.root.json`` and ``pins.toml``, as they were shipped; a cache and ``reports.jsonl`` come to them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from pathlib import Path

import httpx

from pinset import PinMismatchError, PinnedAsyncClient, load_policy
from pinset.reports import HTTPReports, JSONLinesReports
from pinset.updates import SourceStatus, TufPinSource

PAUSE = float(os.environ.get("PAUSE", "5"))  # seconds between jobs
logger = logging.getLogger("worker")


def open_source(directory: Path) -> TufPinSource:
    """Where the pins come from; what was shipped is in force until there is better, and nothing may fall below it."""
    return TufPinSource(
        os.environ["CONTROL_PLANE"],
        root=(directory / "1.root.json").read_bytes(),
        fallback=load_policy(directory / "pins.toml"),
        cache_dir=directory / "cache",
        cafile=os.environ.get("CONTROL_PLANE_CA"),  # for a private authority; the environment is not asked otherwise
        observers=[HTTPReports(os.environ["COLLECTOR"]), JSONLinesReports(directory / "reports.jsonl")],
        on_change=tell,
    )


def tell(status: SourceStatus) -> None:
    """Called after every look, in a thread of the source. A security event is worth an alarm, a dead network is not."""
    if status.error is not None and status.error.fault.is_security_event:
        logger.critical("the control plane sends what it must not: %s", status.error)


async def work(client: httpx.AsyncClient, stopped: asyncio.Event) -> None:
    """One job after the other. What fails is left for the next turn: a job is taken again when nobody has done it."""
    while not stopped.is_set():
        try:
            response = await client.get(os.environ["JOBS"])
            print("job:", response.raise_for_status().text, flush=True)
        except PinMismatchError as error:  # the control plane was asked, and knows nothing better
            print("refused:", error.host, flush=True)
        except httpx.HTTPError as error:
            logger.warning("no job: %s", error)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stopped.wait(), PAUSE)


async def main() -> None:
    """Work until SIGTERM."""
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    source = open_source(Path(sys.argv[1]))
    async with source, PinnedAsyncClient(source, timeout=10) as client:
        await work(client, stopped)
    await source.pinner.reporter.aclose()  # what is still on its way has two seconds


if __name__ == "__main__":
    logging.basicConfig()
    asyncio.run(main())
