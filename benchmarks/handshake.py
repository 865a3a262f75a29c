"""
Handshakes in memory, without a socket: what pins add to one, and what resuming a session takes off.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import random
import ssl
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks._common import Bar, footer, markdown, save, setup, spread
from pinset import Pin, Pinner
from pinset._contexts import _ssl_error, prepare_context
from pinset._enforcement import Enforcement
from pinset._sessions import SessionStore
from pinset._tls import PinnedSSLObject, verified_chain

if TYPE_CHECKING:
    import trustme

HOST = "api.bench.example"
KEYS = ("EC", "RSA")
PROTOCOLS = ("TLSv1.3", "TLSv1.2")
LENGTHS = (1, 2, 3, 4)
WAYS = ("plain", "plain-again", "plain, resumed", "pinned", "pinned, resumed")


@dataclass(frozen=True, slots=True)
class Side:
    """
    What one client side spent.

    Attributes:
        seconds: CPU of the thread in the client's steps: making the object, the handshake, one byte there and one back.
        reused: Whether the session was resumed.
        chain: How many certificates OpenSSL verified, the root among them; none when the session was resumed.
        check: For a plain full handshake, CPU of asking for the verified chain and checking it right afterwards.
    """

    seconds: float
    reused: bool
    chain: int
    check: float | None = None


class Setting:
    """
    A server with a chain, and the clients of one combination of key, protocol and chain length.

    Args:
        key: ``"EC"`` or ``"RSA"``.
        protocol: ``"TLSv1.2"`` or ``"TLSv1.3"``.
        length: How many certificates the server sends; the root, which it does not send, is one more.
    """

    def __init__(self, key: str, protocol: str, length: int) -> None:
        root, leaf = _chain(key, length)
        version = ssl.TLSVersion.TLSv1_3 if protocol == "TLSv1.3" else ssl.TLSVersion.TLSv1_2
        self._server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._server.minimum_version = self._server.maximum_version = version
        leaf.configure_cert(self._server)
        pin = Pin.from_certificate(leaf.cert_chain_pems[0].bytes())
        self.pinner = Pinner({HOST: [str(pin), str(Pin(pin.kind, b"b" * 32))]})
        cadata = root.cert_pem.bytes().decode()
        self._plain = ssl.create_default_context(cadata=cadata)
        self._pinned = ssl.create_default_context(cadata=cadata)
        prepare_context(self._pinned, self.pinner)
        self._store = SessionStore()
        self._session: ssl.SSLSession | None = None
        for way in WAYS:  # the first of those that resume shakes hands in full and earns the session
            self.shake(way)

    def shake(self, way: str) -> Side:
        """
        One handshake, one byte there and one back: only then there is a TLS 1.3 session to resume.
        """
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        server = self._server.wrap_bio(outgoing, incoming, server_side=True)
        begin = time.thread_time()
        tls = self._client(way, incoming, outgoing)
        _step(tls)
        spent = time.thread_time() - begin
        _step(server)
        begin = time.thread_time()
        done = _step(tls)
        spent += time.thread_time() - begin
        if not done:  # TLS 1.2 in full takes one more
            _step(server)
            begin = time.thread_time()
            assert _step(tls)
            spent += time.thread_time() - begin
        begin = time.thread_time()
        tls.write(b"?")
        spent += time.thread_time() - begin
        assert _step(server)
        server.read(1)
        server.write(b"!")
        begin = time.thread_time()
        tls.read(1)
        spent += time.thread_time() - begin
        if way == "plain, resumed" and self._session is None:
            self._session = tls.session
        check = None
        if way == "plain":
            begin = time.thread_time()
            self.pinner.check(HOST, verified_chain(tls))
            check = time.thread_time() - begin
        return Side(spent, bool(tls.session_reused), len(verified_chain(tls)), check)

    def _client(self, way: str, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO) -> ssl.SSLObject:
        if way.startswith("plain"):
            session = self._session if way == "plain, resumed" else None
            return self._plain.wrap_bio(incoming, outgoing, server_hostname=HOST, session=session)
        tls = self._pinned.wrap_bio(incoming, outgoing, server_hostname=HOST)
        assert isinstance(tls, PinnedSSLObject)
        store = self._store if way == "pinned, resumed" else None
        tls.enforce(Enforcement(self.pinner, _ssl_error, sessions=store, port=443))
        return tls


def _chain(key: str, length: int) -> tuple[trustme.CA, trustme.LeafCert]:
    import trustme

    kind = trustme.KeyType.ECDSA if key == "EC" else trustme.KeyType.RSA
    root = signer = trustme.CA(key_type=kind)
    for _ in range(length - 1):
        signer = signer.create_child_ca(key_type=kind)
    return root, signer.issue_cert(HOST, key_type=kind)


def _step(side: ssl.SSLObject) -> bool:
    try:
        side.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True


def run(arguments: argparse.Namespace) -> None:
    """
    Measure, print the tables, and write the samples.
    """
    if importlib.util.find_spec("trustme") is None:
        sys.exit("this benchmark needs trustme, for chains of every length (dependency group bench)")
    plan = {"rounds": 3, "handshakes": 4} if arguments.quick else {"rounds": 25, "handshakes": 20}
    document: dict[str, Any] = {"benchmark": "handshake", **setup(), "plan": plan}
    settings = {
        f"{key}, {protocol}, {length}": Setting(key, protocol, length)
        for key in KEYS
        for protocol in PROTOCOLS
        for length in LENGTHS
    }
    samples: dict[str, dict[str, list[float]]] = {
        name: {way: [] for way in (*WAYS, "check in place")} for name in settings
    }
    resumed = {name: dict.fromkeys(WAYS, 0) for name in settings}
    with Bar("handshakes", plan["rounds"] + 1) as bar:
        for number in range(-1, plan["rounds"]):  # the first is not kept
            for name in random.sample(list(settings), len(settings)):
                taken = _sample(settings[name], plan["handshakes"])
                if number >= 0:
                    for what, value in taken["microseconds"].items():
                        samples[name][what].append(value)
                    for way, count in taken["resumed"].items():
                        resumed[name][way] += count
            bar.step()
    total = plan["rounds"] * plan["handshakes"]
    document["summary"] = {name: _summary(taken, resumed[name], total) for name, taken in samples.items()}
    document["samples"] = samples
    print(_report(document))
    save(document, arguments.out)


def _sample(setting: Setting, handshakes: int) -> dict[str, Any]:
    """Mean microseconds of some handshakes of each way, one of each at a time and in random order."""
    spent = dict.fromkeys((*WAYS, "check in place"), 0.0)
    resumed = dict.fromkeys(WAYS, 0)
    gc.collect()
    for _ in range(handshakes):
        for way in random.sample(WAYS, len(WAYS)):
            side = setting.shake(way)
            spent[way] += side.seconds
            resumed[way] += side.reused
            if side.check is not None:
                spent["check in place"] += side.check
    return {
        "microseconds": {what: round(seconds / handshakes * 1e6, 2) for what, seconds in spent.items()},
        "resumed": resumed,
    }


def _summary(taken: dict[str, list[float]], resumed: dict[str, int], total: int) -> dict[str, Any]:
    def ratio(one: str, other: str) -> dict[str, float]:
        return spread([a / b for a, b in zip(taken[one], taken[other], strict=True)], 4)

    return {
        "microseconds": {what: spread(values, 2) for what, values in taken.items()},
        "to plain": {way: ratio(way, "plain") for way in WAYS if way != "plain"},
        "share of the check in place": ratio("check in place", "plain"),
        "resumed": {way: round(count / total, 3) for way, count in resumed.items()},
    }


def _report(document: dict[str, Any]) -> str:
    rows: list[list[object]] = []
    for name, one in document["summary"].items():
        times = one["microseconds"]
        rows.append(
            [
                name,
                *(f"{times[way]['median']:.0f}" for way in WAYS),
                *(_ratio(one["to plain"][way]) for way in ("plain-again", "pinned", "pinned, resumed")),
                f"{times['check in place']['median']:.1f}",
                f"{one['share of the check in place']['median']:.2%}",
                f"{one['resumed']['pinned, resumed']:.0%}",
            ]
        )
    head = ["key, protocol, certificates sent", *(f"{way}, µs" for way in WAYS)]
    head += ["plain-again to plain", "pinned to plain", "pinned, resumed to plain", "check in place, µs", "its share"]
    return f"{markdown([*head, 'resumed'], rows)}\n\n{footer(document)}"


def _ratio(one: dict[str, float]) -> str:
    return f"{one['median']:.3f} ({one['q1']:.3f} – {one['q3']:.3f})"
