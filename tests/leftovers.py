"""
What a client leaves behind: sockets, tasks, places in its pool, warnings of the garbage collector.

The collector is off while a test acts, so that it cannot tidy up what our code forgot.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import logging
import os
import re
import socket
import warnings
from contextlib import contextmanager
from pathlib import Path

import anyio
import trio
import uvloop
from scripted import wait_for

LOOPS = {
    "asyncio": functools.partial(anyio.run, backend="asyncio"),
    "uvloop": functools.partial(anyio.run, backend="asyncio", backend_options={"loop_factory": uvloop.new_event_loop}),
    "trio": functools.partial(anyio.run, backend="trio"),
}


def client_sockets(*servers):
    """The inodes of this process's internet sockets, without those of servers in it that listen on the ports *servers*."""
    found = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            inode = str(descriptor.readlink())
            if not inode.startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(int(descriptor.name))) as double:
                if double.family in (socket.AF_INET, socket.AF_INET6) and double.getsockname()[1] not in servers:
                    found.add(inode)
        except OSError:  # it was closed meanwhile
            continue
    return found


def tasks():
    """How many tasks the present event loop has."""
    try:
        return len(asyncio.all_tasks())
    except RuntimeError:
        return trio.lowlevel.current_statistics().tasks_living


def counts(transport):
    """What the pool of *transport* says of itself: queued, active, idle, connecting."""
    return tuple(map(int, re.findall(r"\d+", repr(transport._pool))))


class _Complaints(logging.Handler):
    def __init__(self):
        super().__init__(logging.WARNING)
        self.messages = []

    def emit(self, record):
        self.messages.append(record.getMessage())


@contextmanager
def collector_off():
    """Fails if the collector finds an open resource afterwards, or asyncio has logged an error."""
    complaints, logger = _Complaints(), logging.getLogger("asyncio")
    gc.collect()
    gc.disable()
    logger.addHandler(complaints)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
            gc.collect()
    finally:
        logger.removeHandler(complaints)
        gc.enable()
    unclosed = [str(each.message) for each in caught if issubclass(each.category, ResourceWarning)]
    # trio's word on an upload that was given up, with the stock client too. The generator of a bytes body holds nothing.
    unclosed = [message for message in unclosed if "'httpx._content.ByteStream" not in message]
    assert not unclosed, f"left to the collector: {unclosed}"
    assert not complaints.messages, f"logged by asyncio: {complaints.messages}"


@contextmanager
def untidy():
    """For the stock client: what it leaves is collected here, and nothing is said about it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield
        gc.collect()


class Watch:
    """
    Sockets and tasks, now and later.

    Args:
        servers: Ports that servers in this process listen on.
    """

    def __init__(self, *servers):
        self._servers = servers
        self._sockets = client_sockets(*servers)
        self._tasks = tasks()

    def leaked(self):
        """How many sockets have come and stayed."""
        return len(client_sockets(*self._servers) - self._sockets)

    async def assert_nothing_left(self):
        """All that came has gone. An event loop closes a transport one turn later."""
        await wait_for(lambda: self.leaked() == 0, "sockets to be closed")
        await wait_for(lambda: tasks() <= self._tasks, "tasks to end")
