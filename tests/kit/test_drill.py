"""
The drill tells what was promised from what was not.
"""

from __future__ import annotations

import json
from collections import Counter

import pytest
from cli.transcripts import pinset

from pinset.testing import HTTPSServer
from pinset.testing._drill import Step, Tally, _is_as_expected


async def _act():
    pass


def judged(step, before, *, during=None, after=None):
    """Whether tallies are as expected: keyword arguments of `Tally`."""
    return _is_as_expected(step, before, Tally(**(during or {})), Tally(**(after or {})))


MOVE = Step("rotation", "to B", _act, "B")
THEFT = Step("theft", "the thief has the place", _act, "", is_planned=False)
RETURN = Step("theft", "ours is back", _act, "B", is_planned=False)
SERVED_BY_B = {"served": Counter(B=5)}


@pytest.mark.parametrize(
    ("step", "before", "during", "after", "expected"),
    [
        (MOVE, "A", {"served": Counter(A=2, B=1)}, SERVED_BY_B, True),
        (MOVE, "A", {}, SERVED_BY_B, True),
        (MOVE, "A", {"failed": 1}, SERVED_BY_B, False),
        (MOVE, "A", {"refused": 1}, SERVED_BY_B, False),
        (MOVE, "A", {"served": Counter(C=1)}, SERVED_BY_B, False),
        (MOVE, "A", {}, SERVED_BY_B | {"failed": 1}, False),
        (MOVE, "A", {}, SERVED_BY_B | {"refused": 1}, False),
        (MOVE, "A", {}, {"served": Counter(A=1, B=4)}, False),
        (MOVE, "A", {}, {}, False),
        (THEFT, "B", {"served": Counter(B=1), "refused": 2, "failed": 1}, {"refused": 5}, True),
        (THEFT, "B", {"served": Counter(thief=1)}, {"refused": 5}, False),
        (THEFT, "B", {}, {"refused": 4, "served": Counter(B=1)}, False),
        (THEFT, "B", {}, {"refused": 4, "failed": 1}, False),
        (THEFT, "B", {}, {}, False),
        (RETURN, "", {"refused": 3, "served": Counter(B=1)}, SERVED_BY_B, True),
        (RETURN, "", {}, SERVED_BY_B | {"refused": 1}, False),
    ],
)
def test_judgement(step, before, during, after, expected):
    """Planned steps lose nothing, what must be refused is refused, and the right key serves."""
    assert judged(step, before, during=during, after=after) is expected


def test_without_nginx(monkeypatch):
    """It says what to install, and does nothing."""
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    said = pinset("drill")
    assert (said.status, said.out) == (2, "")
    assert "nginx is not installed; on Debian: apt-get install nginx-light" in said.err


class Small(HTTPSServer):
    """A server in this process in the place of nginx."""

    def __init__(self, first, _, *, http2):
        super().__init__(http2=http2)
        self.show(first)


class Stubborn(Small):
    """One that never changes its certificate."""

    def show(self, identity, *, hang_up=True):
        super().show(getattr(self, "_first", identity), hang_up=hang_up)
        self._first = getattr(self, "_first", identity)


@pytest.fixture
def drill(monkeypatch):
    """Run the drill against another server than nginx."""

    def run(server, *arguments):
        monkeypatch.setattr("pinset.cli._drill.find_nginx", lambda: "")
        monkeypatch.setattr("pinset.cli._drill.Nginx", server)
        return pinset("drill", "--rate", "60", "--hold", "0.05", *arguments)

    return run


def test_drill(drill):
    """Every step is taken; pins lose nothing that is planned, and refuse what they must."""
    said = drill(Small, "--json")
    steps = json.loads(said.out)["steps"]
    assert len(steps) == 16
    assert all(step["refused"] == 0 for step in steps if step["planned"])
    assert all(step["refused"] > 0 for step in steps if step["key"] is None)
    served = [key for step in steps for key in step["served"]]
    assert set(served) == {"A", "B", "B (new)", "C (new)"}
    assert served == sorted(served)  # a key that went out of service served no more
    assert " served, " in said.err


def test_broken_promise(drill):
    """A server that does not rotate is found out: 1, and the step that failed is marked."""
    said = drill(Stubborn)
    assert said.status == 1
    lines = said.out.splitlines()
    assert len(lines) == 17
    assert lines[3].endswith("NO")
    assert "something was not as promised" in said.err
