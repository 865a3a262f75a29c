"""
The drill tells what was promised from what was not.
"""

from __future__ import annotations

from collections import Counter

import pytest
from cli.transcripts import pinset

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
