"""
What grows: hosts in the policy, replaced policies, connections and sessions that are held.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from typing import Any

from benchmarks import _nginx
from benchmarks._common import ROOT, Bar, footer, markdown, save, setup, spread
from pinset._sessions import SESSIONS_LEAK
from pinset.testing import Authority


def run(arguments: argparse.Namespace) -> None:
    """
    Measure, print the tables, and write the samples. Every figure comes from a process of its own.
    """
    quick = arguments.quick
    hosts = (10, 1_000, 10_000) if quick else (10, 1_000, 100_000, 1_000_000)
    connections = (1, 100) if quick else (1, 100, 500, 1_000)
    plan = {
        "hosts": hosts,
        "connections": connections,
        "sessions": 100 if quick else 1_000,
        "updates": 20 if quick else 200,
        "rounds": 1 if quick else 5,
    }
    document: dict[str, Any] = {"benchmark": "scale", **setup(), "plan": plan}
    nginx = _nginx.find()
    document["versions"]["nginx"] = _nginx.version(nginx)
    authority = Authority()
    identity, backup = authority.issue(_nginx.HOST), authority.issue(_nginx.HOST)
    orders: dict[str, dict[str, Any]] = {f"policy, {n:,} hosts": {"measure": "policy", "hosts": n} for n in hosts}
    for client in ("stock", "pinned"):
        for held in connections[1:]:
            orders[f"connections, {held:,}, {client}"] = {"measure": "connections", "client": client, "held": held}
    for held in connections:
        orders[f"updates, {held:,} connections"] = {"measure": "updates", "held": held, "updates": plan["updates"]}
    orders["sessions"] = {"measure": "sessions", "sessions": plan["sessions"]}
    samples: dict[str, list[dict[str, float]]] = {name: [] for name in orders}
    with _nginx.serve(nginx, [_nginx.Site("EC", identity)]) as (port,), authority.trust_file() as roots:
        common = {"url": f"https://{_nginx.HOST}:{port}/", "roots": roots, "pins": [identity.pin, backup.pin]}
        with Bar("scale", plan["rounds"] * len(orders)) as bar:
            for _ in range(plan["rounds"]):
                for name, order in orders.items():
                    samples[name].append(_ask({**common, "host": _nginx.HOST, **order}))
                    bar.step(name)
    document["summary"] = {
        name: {what: spread([one[what] for one in taken]) for what in taken[0]} for name, taken in samples.items()
    }
    document["sessions_leak"] = SESSIONS_LEAK
    document["samples"] = samples
    print(_report(document))
    save(document, arguments.out)


def _ask(order: dict[str, Any]) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks._scale"],
        cwd=ROOT,
        input=json.dumps(order),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    answer: dict[str, float] = json.loads(done.stdout)
    return answer


def _report(document: dict[str, Any]) -> str:
    rows: list[list[object]] = []
    for name, entry in document["summary"].items():
        for what, one in entry.items():
            rows.append([name, what, f"{one['median']:,.1f}", f"{one['q1']:,.1f} – {one['q3']:,.1f}"])
    leak = (
        "Reading a session leaks 6.5 kB on this interpreter (gh-116810), and that is among the bytes per session.\n\n"
    )
    table = markdown(["what", "figure", "median", "quartiles"], rows)
    return f"{table}\n\n{leak if document['sessions_leak'] else ''}{footer(document)}"
