"""
The cache: one file, replaced whole, and turns among those who use it.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import logging
import os
import stat

import pytest
from publishing import now

from pinset._files import replace_file
from pinset.updates import UpdateError, UpdateFault
from pinset.updates._store import Kept, Store

KEPT = Kept({"metadata/timestamp.json": b'{"a": "\xc3\xa4"}', "targets/x": b"\n"}, checked=now(), seen=now())


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "below" / "cache"


def test_what_is_written_is_read(directory):
    """By this process and by another, from a directory that only its user may enter."""
    store = Store(directory)
    assert store.read() is None
    store.write(KEPT)
    assert store.read() == Store(directory).read() == KEPT
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert stat.S_IMODE((directory / "good.json").stat().st_mode) == 0o600


def test_memory(tmp_path, monkeypatch):
    """Without a directory nothing is written."""
    monkeypatch.chdir(tmp_path)
    store = Store(None)
    assert store.read() is None
    store.write(KEPT)
    assert store.read() == KEPT
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"[]", b"null", b"\xff", b'{"format": 2}', b"[" * 100_000, b'{"format": 1, "files": 3}']
)
def test_what_cannot_be_read(directory, data, caplog):
    """It is ignored with a warning, and replaced by the next write."""
    store = Store(directory)
    directory.mkdir(parents=True)
    (directory / "good.json").write_bytes(data)
    with caplog.at_level(logging.WARNING):
        assert store.read() is None
    assert "cannot be read and is ignored" in caplog.text
    store.write(KEPT)
    assert store.read() == KEPT


def test_instants_without_an_offset(directory, caplog):
    """Nobody knows what they mean."""
    store = Store(directory)
    store.write(KEPT)
    text = (directory / "good.json").read_text()
    (directory / "good.json").write_text(text.replace("+00:00", ""))
    assert store.read() is None
    assert "no offset" in caplog.text


def test_directory_that_cannot_be(tmp_path):
    """A file in the place of the directory: what was verified cannot be kept, and that is said."""
    (tmp_path / "cache").write_text("")
    store = Store(tmp_path / "cache")
    with pytest.raises(UpdateError, match="cannot be written") as caught:
        store.write(KEPT)
    assert caught.value.fault is UpdateFault.STORAGE

    async def turn():
        async with store.turn():  # nobody to wait for
            return True

    assert asyncio.run(turn())


def test_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    """And no temporary one."""
    path = tmp_path / "file"
    replace_file(path, b"old", mode=0o644)
    assert stat.S_IMODE(path.stat().st_mode) & 0o700 == 0o600

    def fail(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        replace_file(path, b"new")
    assert (path.read_bytes(), list(tmp_path.iterdir())) == (b"old", [path])


@pytest.mark.asyncio
async def test_turns(directory):
    """One at a time; and who comes next removes what a killed one has left."""
    order = []
    held = asyncio.Event()

    async def first():
        async with Store(directory).turn():
            held.set()
            await asyncio.sleep(0.1)
            (directory / ".good.json.dead.tmp").write_text("")
            order.append("first")

    async def second():
        await held.wait()
        async with Store(directory).turn():
            order.append("second")
            assert [path.name for path in directory.iterdir()] == [".lock"]

    await asyncio.gather(first(), second())
    assert order == ["first", "second"]


@pytest.mark.asyncio
async def test_file_system_without_locks(directory, monkeypatch):
    """There nobody waits."""

    def fail(descriptor, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", fail)
    async with Store(directory).turn(), Store(directory).turn():
        pass


@pytest.mark.asyncio
async def test_turn_that_never_comes(directory):
    """Who gives up waiting leaves nothing behind."""
    async with Store(directory).turn():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1), Store(directory).turn():
                pytest.fail("it was not our turn")
    async with Store(directory).turn():
        pass
