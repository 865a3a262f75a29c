"""
The repository read by python-tuf's own client, which knows nothing of pinset.
"""

from __future__ import annotations

import asyncio
import re
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from publishing import NAME, now, policy
from tuf.api.exceptions import DownloadHTTPError, RepositoryError
from tuf.ngclient import Updater
from tuf.ngclient.fetcher import FetcherInterface

from pinset.formats import read_json
from pinset.updates._fetch import Fetcher
from pinset.updates._inspection import inspect

pytestmark = pytest.mark.integration


class TheirFetcher(FetcherInterface):
    """Files over a connection that trusts the test's authority."""

    def __init__(self, context) -> None:
        self._context = context

    def _fetch(self, url):
        response = httpx.get(url, verify=self._context)
        if response.status_code != 200:
            raise DownloadHTTPError(url, response.status_code)
        return iter([response.content])


@pytest.fixture
def read(plane, genuine, tmp_path):
    """The policy as python-tuf's client reads it, with a cache for each repository."""

    def read(publisher):
        directory = tmp_path / publisher.directory.name
        for name in ("metadata", "targets"):
            (directory / name).mkdir(parents=True, exist_ok=True)
        url = plane.url(publisher)
        updater = Updater(
            metadata_dir=str(directory / "metadata"),
            metadata_base_url=f"{url}/metadata",
            target_dir=str(directory / "targets"),
            target_base_url=f"{url}/targets",
            fetcher=TheirFetcher(genuine.client_context()),
            bootstrap=publisher.anchor,
        )
        updater.refresh()
        path = updater.download_target(updater.get_targetinfo(NAME))
        return read_json(Path(path).read_text(encoding="utf-8"))

    return read


def test_ngclient_reads_the_repository(plane, read):
    """Through publication, renewal, and the change of every kind of key."""
    publisher = plane.publisher(first=policy(1, 3))
    assert read(publisher) == policy(1, 3)
    publisher.publish(policy(3, 4))
    assert read(publisher) == policy(3, 4)
    publisher.refresh()
    assert read(publisher) == policy(3, 4)
    publisher.rotate_online()
    publisher.rotate_targets()
    publisher.rotate_root()
    assert read(publisher) == policy(3, 4)
    publisher.publish(policy(4, 5))
    assert read(publisher) == policy(4, 5)


@pytest.mark.asyncio
async def test_both_clients_agree(plane, read, tmp_path):
    """What python-tuf's client refuses we refuse, and the other way round."""
    publisher = plane.publisher(first=policy(1, 3))
    cache = tmp_path / "cache"
    other = plane.publisher(first=policy(66, 67))
    data = publisher.read("metadata/timestamp.json")
    attacks = {
        "nothing": lambda: None,
        "cut": lambda: publisher.replace("metadata/timestamp.json", data[:100]),
        "foreign": lambda: publisher.replace("metadata/timestamp.json", other.read("metadata/timestamp.json")),
        "too new": lambda: publisher.forge_timestamp(9, 9),
        "unsigned": lambda: publisher.sign_nothing("metadata/timestamp.json"),
        "expired": lambda: publisher.refresh(at=now() - timedelta(days=8)),
    }
    for name, attack in attacks.items():
        publisher.replace("metadata/timestamp.json", data)
        attack()
        try:
            theirs = read(publisher)
        except (RepositoryError, DownloadHTTPError):
            theirs = None
        status, ours = await plane.look(publisher, cache / name)
        assert (status.error is None) == (theirs is not None), name
        assert ours == (theirs or policy(1, 2)), name
        assert (theirs is None) == (name != "nothing")


def test_documented_nginx(plane, nginx, genuine, leaf, tmp_path):
    """The configuration of the documentation serves a repository without anything to object to."""
    page = (Path(__file__).parents[2] / "docs/howto/publish-pins.md").read_text(encoding="utf-8")
    [server] = re.findall(r"```nginx\n(.*?)```", page, re.DOTALL)
    chain, key = leaf.write(tmp_path, "documented")
    publisher = plane.publisher(first=policy(1, 3))
    for documented, ours in {
        "listen 443 ssl;": "listen PORT0 ssl;",
        "/etc/ssl/pins.pem": str(chain),
        "/etc/ssl/pins.key": str(key),
        "/srv/pins/pins": str(publisher.directory),
    }.items():
        assert documented in server
        server = server.replace(documented, ours)
    with nginx(server) as running:
        fetcher = Fetcher(running.url("/"), cadata=genuine.root_pem)
        seen = asyncio.run(inspect(fetcher, publisher.anchor, name=NAME, now=now()))
        assert (seen.findings, seen.policy) == ((), policy(1, 3))
        answers = {
            path: httpx.get(running.url(path), verify=genuine.client_context()).headers["Cache-Control"]
            for path in ("/metadata/timestamp.json", "/metadata/2.targets.json", "/metadata/2.root.json")
        }
    assert list(answers.values()) == [
        "public, max-age=300",
        "public, max-age=31536000, immutable",
        "public, max-age=60",
    ]
