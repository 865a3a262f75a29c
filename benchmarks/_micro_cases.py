"""
The calls that `benchmarks.micro` measures; run as a program, the worker of callgrind.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from benchmarks import _callgrind
from pinset import Pin, Pinner, PinSet, Policy, evaluate, load_policy
from pinset._certificates import read_certificate, read_chain
from pinset._hosts import HostPattern, canonical_host
from pinset.testing import Authority

_HOST = "api.eu.bench.example"
_PIN_SET = """
[[host]]
name = "h{number:05d}.bench.example"
pins = [
    "sha256/7HIpactkIAq2Y49orFOOQKurWxmmSFZhBCoQYcRhJ3Y=",
    "sha256/fwza0LRMXouZHRC8Ei+4PyuldPDcf3UKgO/04cDM1oE=",
]
"""


def make(directory: Path) -> dict[str, Callable[[], object]]:
    """
    The cases by name.

    Args:
        directory: For the policy files.
    """
    authority = Authority()
    identity, backup = authority.issue(_HOST), authority.issue(_HOST)
    chain = (*identity.chain, authority.root)
    pins = (identity.pin, backup.pin)
    policy = Policy.from_mapping({_HOST: pins})
    pinner = Pinner(policy)
    stamp = pinner.check(_HOST, chain)
    now = datetime.now(UTC)
    dated = PinSet(name=_HOST, pins=pins, expires=now + timedelta(days=30), on_expiry="enforce")  # type: ignore[arg-type]
    expiring = Pinner(Policy((dated,)))
    expiring_stamp = expiring.check(_HOST, chain)
    tree, label = HostPattern.parse("**.bench.example"), HostPattern.parse("*.eu.bench.example")
    files = {hosts: _policy_file(directory, hosts) for hosts in (10, 1_000)}

    def first_sight() -> object:
        read_certificate.cache_clear()
        read_chain.cache_clear()
        return pinner.check(_HOST, chain)

    return {
        "check a chain seen before": lambda: pinner.check(_HOST, chain),
        "check a chain never seen": first_sight,
        "evaluate a chain seen before": lambda: evaluate(policy, _HOST, chain, now),
        "check a pooled connection again": lambda: pinner.renew(stamp),
        "the same, with an expiry": lambda: expiring.renew(expiring_stamp),
        # Without its cache: both digests of a certificate and the walk to its key.
        "digests of a certificate": lambda: read_certificate.__wrapped__(chain[0]),
        "match **.host": lambda: tree.matches(_HOST),
        "match *.host": lambda: label.matches(_HOST),
        "canonical host": lambda: canonical_host(_HOST),
        "parse a pin": lambda: Pin.parse(pins[0]),
        "load a policy of 10 hosts": lambda: load_policy(files[10]),
        "load a policy of 1,000 hosts": lambda: load_policy(files[1_000]),
        "an empty call": lambda: None,
    }


def _policy_file(directory: Path, hosts: int) -> Path:
    file = directory / f"{hosts}.toml"
    file.write_text('unlisted = "deny"\n' + "".join(_PIN_SET.format(number=number) for number in range(hosts)))
    return file


def calls(case: str, most: int) -> int:
    """
    How often to call *case* where most cases are called *most* times.
    """
    return max(1, most // 100) if case.startswith("load") else most


def _work(most: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        cases = make(Path(directory))

        def run(case: str, turn: int) -> None:
            function = cases[case]
            for _ in range(calls(case, most) * (2 if turn == _callgrind.TURNS - 1 else 1)):
                function()

        _callgrind.serve(run)


if __name__ == "__main__":
    _work(int(sys.argv[1]))
