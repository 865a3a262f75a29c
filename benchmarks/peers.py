"""
What pinning costs in other HTTP stacks, and what each of them verifies: one interleaved run against one nginx.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import os
import random
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import _nginx
from benchmarks._common import Bar, footer, markdown, percentile, save, setup, spread
from benchmarks._stacks import STACKS, UNPINNED, Stack, commands
from benchmarks._workers import Worker, start
from pinset.testing import Authority, Identity

YARDSTICK, FINGERPRINT = "httpx", "aiohttp, pinned"
COLD_BAR = 1.0
KINDS = ("cold", "warm", "warm, 50 at a time")
_ATTACKS = ("a wrong pin", "an unknown CA", "a wrong name")


@dataclass(frozen=True, slots=True)
class Variant:
    """
    A stack with or without its pinning.

    Attributes:
        name: In the tables.
        stack: Whose it is.
        pinned: Whether it pins.
    """

    name: str
    stack: Stack
    pinned: bool


def run(arguments: argparse.Namespace) -> None:
    """
    Measure, print the tables, and write the samples.
    """
    plan = {"rounds": 1, "cold": 3, "warm": 20, "crowd": 50} if arguments.quick else {
        "rounds": 12, "cold": 60, "warm": 300, "crowd": 600
    }  # fmt: skip
    document: dict[str, Any] = {"benchmark": "peers", **setup(), "plan": plan}
    nginx = _nginx.find()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        environments = dict(text.partition("=")[::2] for text in arguments.environment)
        found, versions, skipped = commands(directory, environments)
        document["versions"] |= {"nginx": _nginx.version(nginx), **versions}
        document["skipped"] = skipped
        configs = _serve(stack, nginx)
        workers = {
            variant: _start(stack, found[variant.stack.library], variant, configs["genuine"])
            for variant in _variants(found)
        }
        document["verifies"] = {variant.name: _verifies(worker, configs) for variant, worker in workers.items()}
        for variant in list(workers):
            if not document["verifies"][variant.name]["the genuine server"]["accepted"]:
                error = document["verifies"][variant.name]["the genuine server"]["error"]
                document["skipped"][variant.name] = f"does not get through to the genuine server: {error}"
                del workers[variant]
        samples = _interleave(workers, plan)
    document["pinning"] = {variant.name: variant.stack.pinning for variant in workers if variant.pinned}
    document["summary"] = {kind: _summary(samples, kind) for kind in KINDS}
    document["bars"] = _bars(document["summary"])
    for sample in samples:  # pooled in the summary; 50,000 of them are no help to anybody
        for taken in sample.values():
            del taken["own"]
    document["samples"] = samples
    print(_report(document))
    save(document, arguments.out)


def _variants(found: dict[str, list[str]]) -> list[Variant]:
    return [
        Variant(name, stack, pinned) for stack in STACKS if stack.library in found for name, pinned in stack.variants()
    ]


def _serve(stack: ExitStack, nginx: str) -> dict[str, dict[str, Any]]:
    """The genuine server, and one for each attack: the same key under an unknown CA, and under another name."""
    authority, stranger = Authority(), Authority("Stranger")
    genuine, backup = authority.issue(_nginx.HOST), authority.issue(_nginx.HOST)
    sites = {
        "genuine": genuine,
        "an unknown CA": stranger.issue(_nginx.HOST, key=genuine.key),
        "a wrong name": authority.issue("other.example", key=genuine.key),
    }
    ports = stack.enter_context(
        _nginx.serve(nginx, [_nginx.Site(f"site{n}", one, tells=True) for n, one in enumerate(sites.values())])
    )
    roots = stack.enter_context(authority.trust_file())
    pins = [genuine.pin, backup.pin]
    configs = {
        name: {
            "url": f"https://{_nginx.HOST}:{port}/",
            "roots": roots,
            "pins": pins,
            "fingerprint": _fingerprint(identity),
        }
        for (name, identity), port in zip(sites.items(), ports, strict=True)
    }
    wrong = ["sha256/" + base64.b64encode(os.urandom(32)).decode() for _ in range(2)]
    configs["a wrong pin"] = {**configs["genuine"], "pins": wrong, "fingerprint": os.urandom(32).hex()}
    return configs


def _fingerprint(identity: Identity) -> str:
    return hashlib.sha256(identity.chain[0]).hexdigest()


def _start(stack: ExitStack, command: list[str], variant: Variant, config: dict[str, Any]) -> Worker:
    told = {**config, "peer": variant.stack.peer, "pinned": variant.pinned}
    return stack.enter_context(start(command, told))


def _verifies(worker: Worker, configs: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What it accepts, asked of the very process that is measured; a stack that checks less does less work."""
    asked = {"the genuine server": configs["genuine"], **{name: configs[name] for name in _ATTACKS}}
    return {name: worker.ask({**config, "kind": "probe"}) for name, config in asked.items()}


def _interleave(workers: dict[Variant, Worker], plan: dict[str, int]) -> list[dict[str, Any]]:
    """In each round every variant gives one sample of each kind, in random order; the first round is not kept."""
    samples: list[dict[str, Any]] = []
    tasks = [(variant, kind) for variant in workers for kind in KINDS if kind != KINDS[2] or variant.stack.concurrent]
    with Bar("peers", (plan["rounds"] + 1) * len(tasks)) as bar:
        for number in range(-1, plan["rounds"]):
            taken = {}
            for variant, kind in random.sample(tasks, len(tasks)):
                taken[f"{kind}: {variant.name}"] = workers[variant].ask(_order(kind, plan, variant, first=number < 0))
                bar.step(variant.name)
            if number >= 0:
                samples.append(taken)
    return samples


def _order(kind: str, plan: dict[str, int], variant: Variant, *, first: bool) -> dict[str, Any]:
    if kind == "cold":
        return {"kind": "cold", "requests": plan["cold"]}
    order: dict[str, Any] = {"kind": "warm", "requests": plan["warm"]}
    if kind != "warm":
        order |= {"requests": plan["crowd"], "concurrency": 50}
    if first and variant.stack.library == "okhttp":
        order["first"] = 20 * plan["warm"]  # until the virtual machine has compiled the path
    return order


def _summary(samples: Sequence[dict[str, Any]], kind: str) -> dict[str, Any]:
    """Ratios are formed inside a round, so that slow drift cancels."""
    names = [key.removeprefix(f"{kind}: ") for key in samples[0] if key.startswith(f"{kind}: ")]
    summary: dict[str, Any] = {}
    for name in sorted(names):
        taken = [sample[f"{kind}: {name}"] for sample in samples]
        own = [value for one in taken for value in one["own"]]
        entry: dict[str, Any] = {
            "cpu": spread([one["cpu"] for one in taken], 1),
            "wall": spread([one["wall"] for one in taken], 1),
            "requests/s": spread([1e6 / one["wall"] for one in taken], 1),
            "p50": percentile(own, 50),
            "p99": percentile(own, 99),
            "resumed": round(sum(one["resumed"] for one in taken) / len(taken), 3),
        }
        others = {"stock": YARDSTICK, "fingerprint": FINGERPRINT, "own unpinned": UNPINNED.get(name, name)}
        for word, other in others.items():
            if other in names and other != name:
                for measure in ("cpu", "wall"):
                    ratios = [s[f"{kind}: {name}"][measure] / s[f"{kind}: {other}"][measure] for s in samples]
                    entry[f"{measure}/{word}"] = spread(ratios)
        summary[name] = entry
    return summary


def _bars(summary: dict[str, Any]) -> list[dict[str, Any]]:
    ratio = summary["cold"].get("pinset on httpx", {}).get("cpu/fingerprint")
    if ratio is None:
        return []
    reached = ratio["median"]
    what = "cold: pinset with default settings to aiohttp with Fingerprint"
    return [{"what": what, "reached": reached, "bar": COLD_BAR, "held": reached <= COLD_BAR}]


def _report(document: dict[str, Any]) -> str:
    parts = []
    for kind, entries in document["summary"].items():
        head = [f"{kind}: stack", "CPU µs (quartiles)", "to stock httpx", "to itself unpinned", "wall µs", "requests/s"]
        rows: list[list[object]] = [
            [
                name,
                f"{one['cpu']['median']:.0f} ({one['cpu']['q1']:.0f} – {one['cpu']['q3']:.0f})",
                _ratio(one, "cpu/stock"),
                _ratio(one, "cpu/own unpinned"),
                f"{one['wall']['median']:.0f}",
                f"{one['requests/s']['median']:.0f}",
                f"{one['p50']:.0f}",
                f"{one['p99']:.0f}",
                f"{one['resumed']:.0%}",
            ]
            for name, one in sorted(entries.items(), key=lambda item: item[1]["cpu"]["median"])
        ]
        parts.append(markdown([*head, "p50 µs", "p99 µs", "resumed"], rows))
    parts.append(verification(document))
    if document["skipped"]:
        parts.append("\n".join(f"- skipped: {name}: {why}" for name, why in document["skipped"].items()))
    parts += [
        f"- {'held' if bar['held'] else 'NOT held'}: {bar['what']}: {bar['reached']:.3f} (≤ {bar['bar']})"
        for bar in document["bars"]
    ]
    versions = {stack.library for stack in STACKS} & set(document["versions"])
    parts.append(", ".join(f"{name} {document['versions'][name]}" for name in sorted(versions)))
    return "\n\n".join([*parts, footer(document)])


def verification(document: dict[str, Any]) -> str:
    """
    A table of what each variant refuses: tried, not copied from documentation.
    """
    rows: list[list[object]] = []
    for name, found in document["verifies"].items():
        cells = ["refused" if not found[attack]["accepted"] else "**accepted**" for attack in _ATTACKS]
        if name not in document["pinning"]:
            cells[0] = ""
        rows.append([name, document["pinning"].get(name, ""), *cells])
    return markdown(["stack", "pins", *_ATTACKS], rows)


def _ratio(figures: dict[str, Any], name: str) -> str:
    ratio = figures.get(name)
    return f"{ratio['median']:.3f} ({ratio['q1']:.3f} – {ratio['q3']:.3f})" if ratio else ""
