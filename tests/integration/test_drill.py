"""
``pinset drill`` on a real nginx: nothing is lost that was planned, and nothing is served that must be refused.
"""

from __future__ import annotations

import json
import re
import stat
from pathlib import Path

import pytest
from cli.transcripts import pinset

from pinset.testing import Authority
from pinset.testing._nginx import Nginx

pytestmark = pytest.mark.integration


@pytest.fixture(autouse=True)
def _needs_nginx(require_program):
    require_program("nginx")


REFUSING = ["the thief's server has the place of ours", "nobody renews it, and it has ended"]
PARTS = {"planned rotation", "change of the authority", "key B is stolen", "expiry"}
AROUND = {*REFUSING, "our server is back", "it is renewed too late"}


def test_drill():
    """Every part of it, under 40 requests a second: nothing planned is lost, and only what must be is refused."""
    said = pinset("drill", "--rate", "40", "--hold", "0.3", "--json")
    record = json.loads(said.out)
    assert said.status == 0, json.dumps(record, indent=1)
    assert record["lost_in_planned_steps"] == 0
    steps = record["steps"]
    assert {step["part"] for step in steps} == PARTS
    assert all(step["as_promised"] and step["failed"] == 0 for step in steps)
    assert [step["what"] for step in steps if step["key"] is None] == REFUSING
    assert all((step["refused"] > 0) is not step["planned"] for step in steps if step["key"] is None)
    assert "0 requests lost in planned steps" in said.err


def test_drill_over_http1():
    """The pins lose nothing there, either. As a table, for people."""
    said = pinset("drill", "--rate", "40", "--hold", "0.2", "--http1")
    heading, *rows = (re.split(r"\s{2,}", line) for line in said.out.splitlines())
    assert heading == ["TIME", "PART", "WHAT HAPPENS", "SERVED BY", "REFUSED", "FAILED", "AS PROMISED"]
    assert {part for _, part, *_ in rows} == PARTS
    lost = {what: (int(refused), int(failed)) for _, _, what, _, refused, failed, _ in rows}
    assert all(lost[what][0] > 0 for what in REFUSING)
    assert all(refused == 0 for what, (refused, _) in lost.items() if what not in AROUND)
    # HTTP/1.1 has no GOAWAY: what is written while the server closes an idle connection is lost (RFC 9112 section 9.3.1).
    assert all(failed <= 1 for what, (_, failed) in lost.items() if what not in AROUND)


def test_nginx_that_cannot_start(require_program):
    """What nginx says is in the error, and nothing is left of it."""
    broken = Nginx(Authority().issue("localhost"), require_program("nginx"))
    broken._config = lambda: "nonsense;"
    with pytest.raises(TimeoutError, match="unknown directive"), broken:
        pass
    assert broken._process.poll() is not None
    assert not broken._directory.exists()


def test_key_of_the_drill(require_program):
    """The keys that nginx needs are in files that nobody else reads."""
    with Nginx(Authority().issue("localhost"), require_program("nginx")) as running:
        key = Path(running._directory, "server.key")
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
        assert stat.S_IMODE(key.parent.stat().st_mode) == 0o700
