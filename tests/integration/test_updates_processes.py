"""
The cache of updates among processes: shared, killed in the middle, and on a full disk.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import updates_child
from publishing import policy

import pinset
from pinset.updates import Origin, UpdateFault

pytestmark = pytest.mark.integration

KILLS = 25


@pytest.fixture
def child(plane, tmp_path):
    """Starts `updates_child`."""
    (tmp_path / "roots.pem").write_text(plane.cadata)
    here = Path(updates_child.__file__).parent
    paths = [str(Path(pinset.__file__).parent.parent), str(here)]

    def start(publisher, *, looks=0, largest=0):
        root = tmp_path / f"{publisher.directory.name}.json"
        root.write_bytes(publisher.anchor)
        arguments = [plane.url(publisher), root, tmp_path / "cache", tmp_path / "roots.pem", looks, largest]
        return subprocess.Popen(
            [sys.executable, updates_child.__file__, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        )

    return start


@contextmanager
def publishing(publisher, pause):
    """Publish again and again while the block lasts."""
    is_over = threading.Event()

    def work():
        number = 0
        while not is_over.wait(pause):
            number += 1
            publisher.publish(policy(1, *range(3, 5 + number % 50)))

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def read(plane, publisher, tmp_path):
    """What the next program finds in the cache, without a network."""
    source = plane.source(publisher, tmp_path / "cache", place="/down")
    with source:
        return source.status, source.pinner.policy


def test_two_processes_on_one_cache(plane, child, tmp_path):
    """Processes that share a cache, while pins are published all the time, never fail and never see an old version."""
    publisher = plane.publisher(first=policy(1, 3))
    with publishing(publisher, 0.03):
        children = [child(publisher, looks=40) for _ in range(2)]
        outputs = [running.communicate(timeout=60) for running in children]
    for out, err in outputs:
        looks = [line.split() for line in out.splitlines()]
        assert len(looks) == 40, err
        assert {fault for _, fault, _ in looks} == {"-"}
        versions = [int(version) for version, _, _ in looks]
        assert versions == sorted(versions)
        assert versions[-1] > versions[0]
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == [".lock", "good.json"]


def test_killed_while_writing(plane, child, tmp_path):
    """A program that is killed at any moment leaves a cache that verifies, and no older one than before."""
    publisher = plane.publisher(first=policy(1, 3))
    child(publisher, looks=1).communicate(timeout=60)
    newest = 0
    with publishing(publisher, 0.03), child(publisher, looks=-1) as breeder:
        for _ in range(KILLS):
            breeder.stdin.write("one\n")
            breeder.stdin.flush()
            said = _read_until(breeder, "born"), _read_until(breeder, "-")  # it is at work
            time.sleep(random.uniform(0, 0.05))
            os.kill(int(said[0][1]), signal.SIGKILL)
            _read_until(breeder, "dead")
            status, in_force = read(plane, publisher, tmp_path)
            assert status.origin is Origin.REPOSITORY
            assert in_force != policy(1, 2)
            assert status.versions["timestamp"] >= newest
            newest = status.versions["timestamp"]
        breeder.stdin.close()
    assert newest > KILLS
    # The next one that works tidies up.
    child(publisher, looks=1).communicate(timeout=60)
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == [".lock", "good.json"]


def _read_until(process, word):
    """The words of the next line that holds *word*."""
    while word not in (words := process.stdout.readline().split()):
        assert words, process.stderr.read()
    return words


def test_disk_full(plane, child, tmp_path):
    """Where the cache cannot be written, a verified policy is in force all the same, and the old cache stays whole."""
    publisher = plane.publisher(first=policy(1, 3))
    child(publisher, looks=1).communicate(timeout=60)
    before, _ = read(plane, publisher, tmp_path)
    publisher.publish(policy(1, 3, 4))
    out, err = child(publisher, looks=2, largest=1000).communicate(timeout=60)
    assert out.split() == ["3", "storage", "3"] * 2, err
    after, in_force = read(plane, publisher, tmp_path)
    assert (after.versions, in_force) == (before.versions, policy(1, 3))
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == [".lock", "good.json"]


def test_cache_that_was_damaged(plane, tmp_path):
    """A cache that somebody has cut, emptied or rewritten is no reason to be without pins, nor to fail."""
    publisher = plane.publisher(first=policy(1, 3))
    other = plane.publisher(first=policy(66, 67))
    caches = {}
    for each in (publisher, other):
        with plane.source(each, tmp_path / each.directory.name) as source:
            assert source.refresh_blocking().error is None
        caches[each] = (tmp_path / each.directory.name / "good.json").read_bytes()
    good = tmp_path / publisher.directory.name / "good.json"
    whole = caches[publisher]
    damaged = [
        whole[:100],
        b"",
        b"[]",
        b"{}",
        b"\xff\x00",
        whole.replace(b'"format": 1', b'"format": 2'),
        caches[other],
    ]
    damaged += [whole.replace(b'{\\"_type\\":\\"targets\\"', b'{\\"_type\\": \\"targets\\"')[:-3]]
    damaged += [whole.replace(b"+00:00", b"")]
    for data in damaged:
        assert data != whole
        good.write_bytes(data)
        with plane.source(publisher, good.parent, place="/down") as source:
            assert (source.status.origin, source.pinner.policy) == (Origin.FALLBACK, policy(1, 2))
        with plane.source(publisher, good.parent) as source:
            assert source.refresh_blocking().error is None
            assert source.pinner.policy == policy(1, 3)
    with plane.source(publisher, good.parent, place="/down") as source:
        assert source.refresh_blocking().error.fault is UpdateFault.NETWORK
        assert source.pinner.policy == policy(1, 3)
