"""
Two hundred requests a second through a client, while the server's key changes to one that only new pins name.
"""

from __future__ import annotations

import asyncio
import sys
import time
from datetime import timedelta

import httpx
import pytest
from conftest import HOST
from publishing import pin

import pinset
from pinset.updates import TufPinSource

pytestmark = [pytest.mark.integration, pytest.mark.asyncio]

RATE, SECONDS = 200, 2.0


class Service:
    """An nginx that shows one of two keys, and closes a connection after each answer."""

    def __init__(self, running, directory, identities) -> None:
        self._running, self._directory, self._identities = running, directory, identities
        self.old, self.new = (identity.pin for identity in identities)

    def policy(self, *pins):
        """A policy for it."""
        return pinset.Policy.from_mapping({HOST: [*pins, pin(9)]})

    def change_key(self):
        """Put the new key in service, as an operator does: replace the files and reload."""
        self._identities[1].write(self._directory, "service")
        self._running.reload()

    @property
    def url(self):
        """What is asked for."""
        return self._running.url("/")


@pytest.fixture
def service(nginx, genuine, tmp_path):
    identities = genuine.issue(HOST, "127.0.0.1"), genuine.issue(HOST, "127.0.0.1")
    chain, key = identities[0].write(tmp_path, "service")
    server = f"""
server {{
    listen PORT0 ssl backlog=1024;
    ssl_certificate {chain};
    ssl_certificate_key {key};
    keepalive_timeout 0;
    location / {{ return 200 "hello"; }}
}}
"""
    with nginx(server) as running:
        yield Service(running, tmp_path, identities)


class Load:
    """Requests at a steady rate, and what became of each."""

    def __init__(self, client, url) -> None:
        self._client, self._url = client, url
        self.done = []  # (begun, ended, what went wrong or None)
        self._tasks = set()

    async def _one(self):
        begun, error = time.monotonic(), None
        try:
            (await self._client.get(self._url)).raise_for_status()
        except httpx.HTTPError as failed:
            error = failed
        self.done.append((begun, time.monotonic(), error))

    async def run(self, seconds):
        """Begin RATE requests a second, however long each takes."""
        start = time.monotonic()
        for number in range(int(seconds * RATE)):
            await asyncio.sleep(max(0.0, start + number / RATE - time.monotonic()))
            task = asyncio.create_task(self._one())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def finish(self):
        """Wait for those under way."""
        await asyncio.gather(*self._tasks)

    @property
    def failures(self):
        """Those that failed."""
        return [error for _, _, error in self.done if error is not None]


def _source(plane, publisher, service, cache):
    return TufPinSource(
        plane.url(publisher),
        root=publisher.anchor,
        fallback=service.policy(service.old),
        cache_dir=cache,
        cadata=plane.cadata,
        min_interval=timedelta(seconds=0.2),
    )


async def test_published_before_the_key_changes(plane, service, genuine, tmp_path):
    """Programs that have not looked yet do so at the first refusal, and not one request fails."""
    publisher = plane.publisher(first=service.policy(service.old))
    source = _source(plane, publisher, service, tmp_path / "cache")
    async with (
        source,
        pinset.PinnedAsyncClient(source, verify=genuine.client_context(), timeout=20) as client,
    ):
        await source.refresh()
        load = Load(client, service.url)
        running = asyncio.create_task(load.run(SECONDS))
        await asyncio.sleep(SECONDS / 4)
        await asyncio.to_thread(publisher.publish, service.policy(service.old, service.new))
        assert source.pinner.policy == service.policy(service.old)  # nobody has told the program
        await asyncio.to_thread(service.change_key)
        await running
        await load.finish()
        assert source.pinner.policy == service.policy(service.old, service.new)
    assert load.failures == []
    assert len(load.done) == RATE * SECONDS


async def test_published_after_the_key_changed(plane, service, genuine, tmp_path, record_property):
    """Requests are refused until the pins are published, and succeed one look later."""
    publisher = plane.publisher(first=service.policy(service.old))
    source = _source(plane, publisher, service, tmp_path / "cache")
    async with (
        source,
        pinset.PinnedAsyncClient(source, verify=genuine.client_context(), timeout=20) as client,
    ):
        await source.refresh()
        load = Load(client, service.url)
        running = asyncio.create_task(load.run(SECONDS + 1))
        await asyncio.sleep(SECONDS / 4)
        await asyncio.to_thread(service.change_key)
        await asyncio.sleep(SECONDS / 4)
        await asyncio.to_thread(publisher.publish, service.policy(service.old, service.new))
        published = time.monotonic()
        checked = source.status.checked
        await running
        await load.finish()
    assert load.failures
    assert {type(error) for error in load.failures} == {pinset.httpx.PinMismatchError}
    # Whoever begins after the first success is served; and that came with the first look after publication.
    first_success = min(ended for _, ended, error in load.done if error is None and ended > published)
    assert [error for begun, _, error in load.done if begun > first_success and error is not None] == []
    assert checked is None or source.status.checked > checked
    enforced = first_success - published
    record_property("publication_to_enforcement_seconds", round(enforced, 3))
    sys.stdout.write(f"from publication to enforcement: {enforced * 1000:.0f} ms, with at most one look in 200 ms\n")
