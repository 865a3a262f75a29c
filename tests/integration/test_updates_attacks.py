"""
Attacks on updates, through a real web server. Each is shown to deceive a client without signatures first, where that
client stands a chance of being deceived.
"""

from __future__ import annotations

import asyncio
import json
import os
from datetime import timedelta

import httpx
import pytest
from control_plane import GIB, context
from cryptography.hazmat.primitives.asymmetric import ed25519
from publishing import NAME, Publisher, now, policy
from tuf.api.metadata import Metadata, Root, TargetFile, Targets

from pinset.formats import read_json, write_json
from pinset.updates import Origin, UpdateFault

pytestmark = [pytest.mark.integration, pytest.mark.asyncio]

OWN = policy(1, 2)
FIRST, SECOND, EVIL = policy(1, 3), policy(3, 4), policy(66, 67)


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


async def test_update(plane, cache):
    """What is published is in force after one look, and in the next run before it."""
    publisher = plane.publisher(first=FIRST)
    status, in_force = await plane.look(publisher, cache)
    assert (status.error, status.origin, in_force) == (None, Origin.REPOSITORY, FIRST)
    publisher.publish(SECOND)
    status, in_force = await plane.look(publisher, cache)
    assert (status.error, in_force, status.versions["targets"]) == (None, SECOND, 3)
    async with plane.source(publisher, cache, place="/down") as source:
        assert source.pinner.policy == SECOND


async def test_rollback(plane, cache, tmp_path):
    """An old repository, genuinely signed and not expired, is not accepted after a newer one, nor by the next run."""
    publisher = plane.publisher(first=FIRST)
    old = publisher.copy(tmp_path / "old")
    publisher.publish(SECOND)
    assert (await plane.look(publisher, cache))[1] == SECOND
    for path in ("metadata/timestamp.json", NAME):
        publisher.replace(path, (old / path).read_bytes())
    assert await plane.naive_policy(publisher) == FIRST
    for _ in range(2):
        status, in_force = await plane.look(publisher, cache)
        assert status.error.fault is UpdateFault.ROLLBACK
        assert in_force == SECOND


async def test_freeze(plane, cache):
    """A repository that is held still is noticed when its timestamp expires. The pins stay in force."""
    publisher = plane.publisher(first=FIRST, at=now() - timedelta(days=6))
    assert (await plane.look(publisher, cache))[1] == FIRST
    assert await plane.naive_policy(publisher) == FIRST
    status, in_force = await plane.look(publisher, cache, clock=lambda: now() + timedelta(days=2))
    assert (status.error.fault, status.is_stale, in_force) == (UpdateFault.EXPIRED, True, FIRST)
    assert status.error.fault.is_security_event


async def test_clock_set_back(plane, cache):
    """What was seen to have expired does not come back to life when the clock is set back, nor in the next run."""
    publisher = plane.publisher(first=FIRST, at=now() - timedelta(days=6))
    assert (await plane.look(publisher, cache))[0].error is None
    ahead, _ = await plane.look(publisher, cache, clock=lambda: now() + timedelta(days=2))
    back, in_force = await plane.look(publisher, cache)
    assert (ahead.error.fault, back.error.fault) == (UpdateFault.EXPIRED, UpdateFault.EXPIRED)
    assert in_force == FIRST
    # A clock that was wrong by years does no lasting harm.
    await plane.look(publisher, cache, clock=lambda: now() + timedelta(days=20_000))
    publisher.publish(SECOND)
    status, in_force = await plane.look(publisher, cache)
    assert (status.error, in_force) == (None, SECOND)


async def test_tampered_target(plane, cache):
    """A policy that is not the one that was signed is refused, whatever its length."""
    publisher = plane.publisher(first=FIRST)
    assert (await plane.look(publisher, cache))[1] == FIRST
    publisher.publish(SECOND)
    [path] = [p for p in (publisher.directory / "targets").iterdir() if read_json(p.read_text()) == SECOND]
    path.write_text(write_json(EVIL))
    publisher.replace(NAME, write_json(EVIL).encode())
    assert await plane.naive_policy(publisher) == EVIL
    status, in_force = await plane.look(publisher, cache)
    assert (status.error.fault, in_force) == (UpdateFault.SIGNATURE, FIRST)
    path.write_text(write_json(EVIL) + " ")
    status, in_force = await plane.look(publisher, cache)
    assert (status.error.fault, in_force) == (UpdateFault.TOO_LARGE, FIRST)


@pytest.mark.parametrize("has_cache", [True, False])
async def test_wrong_keys(plane, cache, has_cache):
    """A repository of somebody else in the same place is refused, by programs with and without a cache."""
    publisher = plane.publisher(first=FIRST)
    if has_cache:
        await plane.look(publisher, cache)
    root = publisher.anchor
    other = plane.publisher(first=EVIL)
    other.copy(publisher.directory)
    assert await plane.naive_policy(publisher) == EVIL
    status, in_force = await plane.look(publisher, cache, root=root)
    assert (status.error.fault, in_force) == (UpdateFault.SIGNATURE, FIRST if has_cache else OWN)


@pytest.mark.parametrize("stolen", [0, 1])
async def test_forged_root(plane, cache, stolen):
    """A next root that its own keys sign is refused, also with the help of one stolen key of two that are needed."""
    publisher = plane.publisher(first=FIRST)
    other = plane.publisher(first=EVIL)
    root = Metadata[Root].from_bytes(other.anchor).signed
    root.version = 2
    publisher.sign(root, *other.roots, *publisher.roots[:stolen], path="metadata/2.root.json")
    for path in ("timestamp", "3.snapshot", "2.snapshot", "2.targets", "1.targets"):
        if (other.directory / f"metadata/{path}.json").exists():
            publisher.replace(f"metadata/{path}.json", other.read(f"metadata/{path}.json"))
    status, in_force = await plane.look(publisher, cache)
    assert (status.error.fault, in_force) == (UpdateFault.SIGNATURE, OWN)
    assert f"signed by {stolen} of the 2 keys" in str(status.error)


async def test_genuine_new_root(plane, cache):
    """The same with two of the three keys is a rotation, and followed."""
    publisher = plane.publisher(first=FIRST)
    assert publisher.repository.refresh(publisher.roots[1:], now()) == ["root"]
    status, in_force = await plane.look(publisher, cache)
    assert (status.error, status.versions["root"], in_force) == (None, 2, FIRST)


async def test_stolen_online_key(plane, cache):
    """With the key of the machine that renews the repository nobody can publish pins."""
    publisher = plane.publisher(first=FIRST)
    await plane.look(publisher, cache)
    data = write_json(EVIL).encode()
    manifest = {"policy": data.decode(), "signature": publisher.online.sign(data).to_dict()}
    info = TargetFile.from_data(NAME, data, ["sha256"])
    publisher.replace("targets/" + info.get_prefixed_paths()[0], data)
    targets = Targets(version=3, expires=now() + timedelta(days=90), targets={NAME: info})
    publisher.sign(targets, publisher.online, path="metadata/3.targets.json")
    publisher.forge_snapshot(3, 3)
    publisher.forge_timestamp(3, 3)
    assert _read_manifest(manifest, publisher.online) == EVIL
    status, in_force = await plane.look(publisher, cache)
    assert (status.error.fault, in_force) == (UpdateFault.SIGNATURE, FIRST)
    assert "targets version 3 is signed by 0 of the 1 keys" in str(status.error)


def _read_manifest(manifest, signer):
    """What a scheme with one key believes: whatever the machine has signed that renews it every day."""
    key = ed25519.Ed25519PublicKey.from_public_bytes(bytes.fromhex(signer.public_key.keyval["public"]))
    data = manifest["policy"].encode()
    key.verify(bytes.fromhex(manifest["signature"]["sig"]), data)
    return read_json(manifest["policy"])


async def test_fast_forward_and_recovery(plane, cache):
    """Versions beyond all others, signed with the stolen online key, stop updates until that key is replaced."""
    publisher = plane.publisher(first=FIRST)
    await plane.look(publisher, cache)
    highest = 2**31
    before = publisher.read("metadata/timestamp.json")
    publisher.forge_snapshot(highest, 2)
    publisher.forge_timestamp(highest, highest)
    status, in_force = await plane.look(publisher, cache)
    assert (status.error, status.versions["timestamp"], in_force) == (None, highest, FIRST)
    publisher.replace("metadata/timestamp.json", before)
    publisher.publish(SECOND)
    status, in_force = await plane.look(publisher, cache)
    assert (status.error.fault, in_force) == (UpdateFault.ROLLBACK, FIRST)
    publisher.rotate_online()
    status, in_force = await plane.look(publisher, cache)
    assert (status.error, in_force) == (None, SECOND)


@pytest.mark.parametrize("path", ["metadata/timestamp.json", "metadata/2.snapshot.json", "metadata/2.targets.json"])
async def test_truncated_file(plane, cache, path):
    """Half a file is refused."""
    publisher = plane.publisher(first=FIRST)
    data = publisher.read(path)
    publisher.replace(path, data[: len(data) // 2])
    status, in_force = await plane.look(publisher, cache)
    assert (status.error.fault, in_force) == (UpdateFault.INVALID, OWN)


async def test_connection_cut(plane, cache):
    """A connection that ends in the middle of a file is a failure of the network."""
    publisher = plane.publisher(first=FIRST)
    status, in_force = await plane.look(publisher, cache, place="/cut")
    assert (status.error.fault, in_force) == (UpdateFault.NETWORK, OWN)


async def test_endless_body(plane, cache):
    """Of a file of a gigabyte next to nothing is read; a client without a limit would go on."""
    publisher = plane.publisher(first=FIRST)
    for path in ("metadata/timestamp.json", NAME):
        with (publisher.directory / path).open("wb") as file:
            os.truncate(file.fileno(), GIB)
    assert await _read_for_a_while(plane, f"{plane.url(publisher)}/{NAME}", at_least=GIB // 8)
    status, in_force = await plane.look(publisher, cache)
    assert (status.error.fault, in_force) == (UpdateFault.TOO_LARGE, OWN)
    # nginx logs an answer when it has given up sending it.
    path = f"{publisher.directory.name}/metadata/timestamp.json"
    while not (sent := plane.bytes_sent(path)):  # noqa: ASYNC110 - a file has no events
        await asyncio.sleep(0.01)
    assert max(sent) < GIB // 32


async def _read_for_a_while(plane, url, at_least):
    """Whether a client without a limit takes that much."""
    received = 0
    async with (
        httpx.AsyncClient(verify=context(plane.cadata), timeout=30) as client,
        client.stream("GET", url) as response,
    ):
        async for part in response.aiter_raw():
            received += len(part)
            if received >= at_least:
                return True
    return False


async def test_slow_loris(plane, cache):
    """A trickle that satisfies every timeout between two bytes does not satisfy the deadline of the whole."""
    publisher = plane.publisher(first=FIRST)
    publisher.replace(NAME, json.dumps({"host": []}).encode() + b" " * 30)
    naive = plane.naive_policy(publisher, place="/slow", timeout=1.2)
    status, in_force = await plane.look(publisher, cache, place="/slow", deadline=0.5)
    assert (status.error.fault, in_force) == (UpdateFault.SLOW, OWN)
    with pytest.raises(Exception, match="no host is listed"):  # it was read to its end
        await naive


async def test_hanging_server(plane, cache):
    """A server that accepts and never answers is given up at the deadline, and leaving does not wait for it."""
    publisher = plane.publisher(first=FIRST)
    status, in_force = await plane.look(publisher, cache, place="/hang", deadline=0.5)
    assert (status.error.fault, in_force) == (UpdateFault.SLOW, OWN)
    async with asyncio.timeout(4):
        async with plane.source(publisher, cache, place="/hang", deadline=60.0):
            await asyncio.sleep(0.1)


async def test_unavailable(plane, cache):
    """A server that answers 503 changes nothing."""
    publisher = plane.publisher(first=FIRST)
    await plane.look(publisher, cache)
    status, in_force = await plane.look(publisher, cache, place="/down")
    assert (status.error.fault, in_force) == (UpdateFault.NETWORK, FIRST)
    assert "503" in str(status.error)
    assert not status.error.fault.is_security_event


async def test_redirect(plane, cache):
    """A redirect is not followed, not even to a place on the same server."""
    publisher = plane.publisher(first=FIRST)
    evil = plane.www / "evil" / publisher.directory.name
    evil.mkdir(parents=True)
    (evil / NAME).write_text(write_json(EVIL))
    assert await plane.naive_policy(publisher, place="/moved") == EVIL
    status, in_force = await plane.look(publisher, cache, place="/moved")
    assert (status.error.fault, in_force) == (UpdateFault.NETWORK, OWN)
    assert "redirects are not followed" in str(status.error)


async def test_page_for_a_missing_root(plane, cache):
    """A server that answers everything with a page stops updates, and says so."""
    publisher = plane.publisher(first=FIRST)
    status, in_force = await plane.look(publisher, cache, place="/spa")
    assert (status.error.fault, in_force) == (UpdateFault.INVALID, OWN)
    assert "metadata/2.root.json is not TUF metadata" in str(status.error)


async def test_packed(plane, cache):
    """A server that packs what it is asked not to pack is refused only if it does."""
    publisher = plane.publisher(first=FIRST)
    status, in_force = await plane.look(publisher, cache, place="/packed")
    assert (status.error, in_force) == (None, FIRST)


async def test_untrusted_server(plane, cache, rogue):
    """The connection to the control plane is verified."""
    publisher = plane.publisher(first=FIRST)
    source = plane.source(publisher, cache)
    source._keeper._refresher._fetcher._trust = (None, rogue.root_pem)
    async with source:
        status = await source.refresh()
    assert status.error.fault is UpdateFault.NETWORK
    assert "CERTIFICATE_VERIFY_FAILED" in str(status.error)


async def test_pinned_control_plane(plane, cache, leaf):
    """The control plane's own server can be pinned."""
    publisher = plane.publisher(first=FIRST)
    good = {"localhost": [leaf.pin, policy(9, 10).pin_sets[0].pins[0]]}
    wrong = {"localhost": policy(9, 10).pin_sets[0].pins}
    status, in_force = await plane.look(publisher, cache, control_pins=wrong)
    assert (status.error.fault, in_force) == (UpdateFault.NETWORK, OWN)
    assert "PinMismatchError" in str(status.error)
    assert (await plane.look(publisher, cache, control_pins=good))[1] == FIRST


async def test_expired_roots(plane, cache):
    """An embedded root may have expired if there is a newer one; the newest may not."""
    publisher = plane.publisher(first=FIRST, at=now() - timedelta(days=400))
    status, in_force = await plane.look(publisher, cache)
    assert (status.error.fault, in_force) == (UpdateFault.EXPIRED, OWN)
    assert "root version 1 expired" in str(status.error)
    signers = [*publisher.roots, publisher.targets, publisher.online]
    publisher.repository.refresh(signers, now())
    status, in_force = await plane.look(publisher, cache)
    assert (status.error, status.versions["root"], in_force) == (None, 2, FIRST)


async def test_weaker_policy(plane, cache):
    """A policy that is signed and enforces less than the program's own is refused."""
    publisher = plane.publisher(
        first=read_json(
            '{"unlisted": "allow", "host": [{"name": "other.example.com", "mode": '
            '"report-only", "pins": ["sha256/7HIpactkIAq2Y49orFOOQKurWxmmSFZhBCoQYcRhJ3Y="]}]}'
        )
    )
    status, in_force = await plane.look(publisher, cache)
    assert (status.error.fault, in_force) == (UpdateFault.WEAKER, OWN)
    status, in_force = await plane.look(publisher, cache, allow_weaker=True)
    assert (status.error, in_force) != (None, OWN)


@pytest.mark.parametrize("data", [b"", b"{}", b'{"host": []}', b"\xff", b"[]"])
async def test_empty_policy(plane, cache, data):
    """What is signed and is no policy, or an empty one, is refused."""
    publisher = plane.publisher(first=FIRST)
    await plane.look(publisher, cache)
    info = TargetFile.from_data(NAME, data, ["sha256"])
    publisher.replace("targets/" + info.get_prefixed_paths()[0], data)
    targets = Targets(version=3, expires=now() + timedelta(days=90), targets={NAME: info})
    publisher.sign(targets, publisher.targets, path="metadata/3.targets.json")
    publisher.refresh()
    status, in_force = await plane.look(publisher, cache)
    assert (status.error.fault, in_force) == (UpdateFault.INVALID, FIRST)


async def test_no_policy_at_all(plane, cache):
    """A repository into which nothing was published yet leaves the program's own policy in force."""
    publisher = plane.publisher()
    status, in_force = await plane.look(publisher, cache)
    assert (status.error.fault, in_force) == (UpdateFault.INVALID, OWN)
    assert "names no policy.json" in str(status.error)
    assert isinstance(publisher, Publisher)
