"""
The pin check alone, and its share of a TLS 1.3 handshake in memory.
"""

from __future__ import annotations

import argparse
import gc
import random
import ssl
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from benchmarks._common import footer, markdown, progress, save, setup, spread
from pinset import Pinner, PinSet, Policy, pinned_ssl_context
from pinset._certificates import read_certificate, read_chain
from pinset._tls import PinnedSSLObject, verified_chain
from pinset.testing import Authority

_HOST = "api.bench.example"


def run(arguments: argparse.Namespace) -> None:
    """
    Measure, print the table, and write the samples.
    """
    plan = (
        {"samples": 9, "calls": 4000, "handshakes": 20}
        if arguments.quick
        else {"samples": 41, "calls": 20000, "handshakes": 60}
    )
    document: dict[str, Any] = {"benchmark": "check", **setup(), "plan": plan}
    authority = Authority()
    server_identity, backup = authority.issue(_HOST), authority.issue(_HOST)
    server = server_identity.server_context(tls=ssl.TLSVersion.TLSv1_3)
    pins = (server_identity.pin, backup.pin)
    plain = authority.client_context()
    pinned = pinned_ssl_context({_HOST: pins}, cadata=authority.root_pem)
    tls, _ = _handshake(pinned, server)
    assert isinstance(tls, PinnedSSLObject)
    assert tls.pinset_stamp is not None
    chain = tls.pinset_stamp.chain
    document["chain"] = [len(der) for der in chain]

    pinner = Pinner({_HOST: pins})
    stamp = pinner.check(_HOST, chain)
    expires = datetime.now(UTC) + timedelta(days=30)
    expiring = Pinner(Policy((PinSet(name=_HOST, pins=pins, expires=expires, on_expiry="enforce"),)))  # type: ignore[arg-type]
    expiring_stamp = expiring.check(_HOST, chain)

    def first_sight() -> None:
        read_certificate.cache_clear()
        read_chain.cache_clear()
        pinner.check(_HOST, chain)

    calls: dict[str, Callable[[], object]] = {
        "Pinner.check, chain seen before": lambda: pinner.check(_HOST, chain),
        "Pinner.check, certificates never seen": first_sight,
        "Pinner.renew": lambda: pinner.renew(stamp),
        "Pinner.renew, with an expiry": lambda: expiring.renew(expiring_stamp),
        "asking OpenSSL for the verified chain": lambda: verified_chain(tls),
        "an empty call": lambda: None,
    }
    samples: dict[str, list[float]] = {name: [] for name in calls}
    shakes: dict[str, list[float]] = {
        f"{who}, {how}": [] for who in ("both sides", "client side") for how in ("plain", "pinned")
    }
    for number in range(-1, plan["samples"]):  # the first is not kept
        for name in random.sample(list(calls), len(calls)):
            taken = _calls(calls[name], plan["calls"] // (20 if "never" in name else 1))
            if number >= 0:
                samples[name].append(round(taken, 4))
        for how, context in random.sample([("plain", plain), ("pinned", pinned)], 2):
            both, client = _handshakes(context, server, plan["handshakes"])
            if number >= 0:
                shakes[f"both sides, {how}"].append(round(both, 2))
                shakes[f"client side, {how}"].append(round(client, 2))
    progress("done")

    summary: dict[str, Any] = {
        "microseconds": {name: spread(values) for name, values in samples.items()},
        "handshake_microseconds": {name: spread(values, 1) for name, values in shakes.items()},
        "handshake_ratio": {
            who: spread([p / q for p, q in zip(shakes[f"{who}, pinned"], shakes[f"{who}, plain"], strict=True)], 4)
            for who in ("both sides", "client side")
        },
    }
    check = summary["microseconds"]["Pinner.check, chain seen before"]["median"]
    summary["share_of_check"] = {
        who: round(check / summary["handshake_microseconds"][f"{who}, plain"]["median"], 5)
        for who in ("both sides", "client side")
    }
    document["summary"] = summary
    document["samples"] = {"calls": samples, "handshakes": shakes}
    print(_report(document))
    save(document, arguments.out)


def _calls(function: Callable[[], object], count: int) -> float:
    gc.collect()
    begin = time.perf_counter()
    for _ in range(count):
        function()
    return (time.perf_counter() - begin) / count * 1e6


def _handshakes(context: ssl.SSLContext, server: ssl.SSLContext, count: int) -> tuple[float, float]:
    gc.collect()
    clients = 0.0
    begin = time.perf_counter()
    for _ in range(count):
        clients += _handshake(context, server)[1]
    return (time.perf_counter() - begin) / count * 1e6, clients / count * 1e6


def _handshake(context: ssl.SSLContext, server_context: ssl.SSLContext) -> tuple[ssl.SSLObject, float]:
    """A full handshake without a socket; returns the client's object and the seconds spent on its side."""
    spent = time.perf_counter()
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(to_client, to_server, server_hostname=_HOST)
    _step(client)
    spent = time.perf_counter() - spent
    server = server_context.wrap_bio(to_server, to_client, server_side=True)
    _step(server)
    begin = time.perf_counter()
    assert _step(client)
    spent += time.perf_counter() - begin
    assert _step(server)
    return client, spent


def _step(side: ssl.SSLObject) -> bool:
    try:
        side.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True


def _report(document: dict[str, Any]) -> str:
    summary = document["summary"]
    rows: list[list[object]] = []
    for name, one in {**summary["microseconds"], **_named(summary["handshake_microseconds"])}.items():
        rows.append([name, f"{one['median']:.2f}", f"{one['q1']:.2f} – {one['q3']:.2f}"])
    for who, one in summary["handshake_ratio"].items():
        rows.append([f"ratio pinned/plain, {who}", f"{one['median']:.4f}", f"{one['q1']:.4f} – {one['q3']:.4f}"])
    for who, share in summary["share_of_check"].items():
        rows.append([f"Pinner.check (seen) as share of a handshake, {who}", f"{share:.2%}", ""])
    return f"{markdown(['what', 'µs (median)', 'quartiles'], rows)}\n\n{footer(document)}"


def _named(shakes: dict[str, Any]) -> dict[str, Any]:
    return {f"TLS 1.3 handshake in memory, {name}": one for name, one in shakes.items()}
