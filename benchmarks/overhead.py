"""
What pinning adds to a request: a pinned and a stock httpx client against nginx, interleaved.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, build_opener

from benchmarks._common import ROOT, footer, markdown, progress, save, setup, spread
from pinset.testing import Authority

VARIANTS = ("stock", "stock-again", "pinned")
KINDS = ("cold", "warm")
MEASURES = ("cpu", "wall")
COLD_BAR = 1.03
_HOST = "127.0.0.1"
_CONFIGURATION = """
daemon off;
master_process off;
worker_processes 1;
pid {directory}/nginx.pid;
error_log {directory}/error.log warn;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    default_type text/plain;
    keepalive_requests 100000000;
    keepalive_timeout 3600s;
    server {{
        listen {host}:{port} ssl;
        ssl_certificate {chain};
        ssl_certificate_key {key};
        ssl_protocols TLSv1.3;
        location / {{ return 200 "{body}"; }}
    }}
    server {{
        listen {host}:{status_port};
        location / {{ stub_status; }}
    }}
}}
"""


def run(arguments: argparse.Namespace) -> None:
    """
    Measure, print the table, and write the samples.
    """
    plan = (
        {"fleets": 2, "rounds": 8, "cold": 30, "warm": 150}
        if arguments.quick
        else {"fleets": 6, "rounds": 15, "cold": 50, "warm": 300}
    )
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if nginx is None:
        sys.exit("this benchmark needs nginx")
    document: dict[str, Any] = {"benchmark": "overhead", **setup(), "plan": plan}
    said = subprocess.run([nginx, "-v"], capture_output=True, text=True, check=True).stderr
    document["versions"]["nginx"] = said.strip().rpartition("/")[2]
    samples: list[dict[str, Any]] = []
    connections = dict.fromkeys(KINDS, True)
    authority = Authority()
    with _server(nginx, authority) as (config, opened):
        for fleet in range(plan["fleets"]):
            with ExitStack() as stack:
                # The order of starting is random too: it decides about memory layout, and that about speed.
                clients: dict[str, _Client] = {}
                for variant in random.sample(VARIANTS, len(VARIANTS)):
                    clients[variant] = stack.enter_context(_client(variant, config))
                document["connection"] = {name: client.facts for name, client in clients.items()}
                for number in range(-1, plan["rounds"]):  # the first is not kept
                    taken = _round(clients, plan, opened, connections)
                    if number >= 0:
                        samples.append({"fleet": fleet, "round": number, **taken})
            progress(f"fleet {fleet + 1} of {plan['fleets']} done")
    document["connections_as_expected"] = connections
    document["summary"] = _summary(samples)
    document["samples"] = samples
    print(_report(document))
    save(document, arguments.out)


class _Client:
    """
    A client process and the pipes to it.
    """

    def __init__(self, process: subprocess.Popen[str], config: dict[str, Any]) -> None:
        self._process = process
        self.facts = self.ask(config)

    def ask(self, order: dict[str, Any]) -> dict[str, Any]:
        """One line there, one line back."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("a client process has ended; its error is above")
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextmanager
def _client(variant: str, config: dict[str, Any]) -> Iterator[_Client]:
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks._client"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        _bind(process.pid, 1)
        yield _Client(process, {**config, "variant": variant})
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(10)


def _bind(pid: int, which: int) -> None:
    """Clients on one processor, nginx on another, where there are two and the system lets us choose."""
    if hasattr(os, "sched_setaffinity"):
        cpus = sorted(os.sched_getaffinity(0))
        if len(cpus) > 1:
            os.sched_setaffinity(pid, {cpus[which]})


@contextmanager
def _server(nginx: str, authority: Authority) -> Iterator[tuple[dict[str, Any], Any]]:
    identity, backup = authority.issue(_HOST), authority.issue(_HOST)
    port, status_port = _free_port(), _free_port()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        chain, key = identity.write(directory, "server")
        configuration = directory / "nginx.conf"
        configuration.write_text(
            _CONFIGURATION.format(
                directory=directory,
                host=_HOST,
                port=port,
                status_port=status_port,
                chain=chain,
                key=key,
                body="x" * 100,
            )
        )
        process = subprocess.Popen([nginx, "-p", name, "-c", str(configuration)], stderr=subprocess.DEVNULL)
        opener = build_opener(ProxyHandler({}))

        def opened() -> int:
            """How many connections nginx has accepted, without those that ask."""
            nonlocal asked
            asked += 1
            with opener.open(f"http://{_HOST}:{status_port}/", timeout=5) as response:
                return int(response.read().split()[7]) - asked

        asked = 0
        try:
            _bind(process.pid, 0)
            _wait_for(port, process)
            config = {
                "url": f"https://{_HOST}:{port}/",
                "root": authority.root_pem,
                "pins": {_HOST: [identity.pin, backup.pin]},
            }
            yield config, opened
        finally:
            process.terminate()
            process.wait(10)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(100):
        if process.poll() is not None:
            raise RuntimeError("nginx has ended at once")
        try:
            socket.create_connection((_HOST, port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError("nginx does not answer")


def _round(
    clients: dict[str, _Client], plan: dict[str, int], opened: Any, as_expected: dict[str, bool]
) -> dict[str, dict[str, dict[str, float]]]:
    """One sample of everything, each kind in a random order."""
    taken: dict[str, dict[str, dict[str, float]]] = {}
    for kind in random.sample(KINDS, len(KINDS)):
        taken[kind] = {}
        for variant in random.sample(VARIANTS, len(VARIANTS)):
            before = opened()
            answer = clients[variant].ask({"kind": kind, "requests": plan[kind]})
            new = opened() - before
            # The request before the measured ones opens a connection as well, or may (warm, the first time).
            as_expected[kind] &= new == plan[kind] + 1 if kind == "cold" else new <= 1
            taken[kind][variant] = {measure: round(answer[measure], 2) for measure in MEASURES}
    return taken


def _summary(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    summary: dict[str, Any] = {}
    for kind in KINDS:
        for measure in MEASURES:
            taken = [sample[kind] for sample in samples]
            entry: dict[str, Any] = {
                "microseconds": {v: spread([one[v][measure] for one in taken], 1) for v in VARIANTS},
            }
            for variant in ("stock-again", "pinned"):
                ratios = [one[variant][measure] / one["stock"][measure] for one in taken]
                by_fleet: dict[int, list[float]] = {}
                for sample, ratio in zip(samples, ratios, strict=True):
                    by_fleet.setdefault(sample["fleet"], []).append(ratio)
                entry[f"{variant}/stock"] = {
                    **spread(ratios, 4),
                    "by_fleet": [round(statistics.median(fleet), 4) for fleet in by_fleet.values()],
                }
            summary[f"{kind} {measure}"] = entry
    cold, warm = summary["cold cpu"], summary["warm cpu"]
    summary["bars"] = {
        "cold: the median CPU ratio is at most 1.03": cold["pinned/stock"]["median"] <= COLD_BAR,
        "warm: the median CPU ratio is no higher than the third quartile of the control": (
            warm["pinned/stock"]["median"] <= warm["stock-again/stock"]["q3"]
        ),
    }
    return summary


def _report(document: dict[str, Any]) -> str:
    rows = []
    for kind in KINDS:
        for measure in MEASURES:
            entry = document["summary"][f"{kind} {measure}"]
            for variant in VARIANTS:
                time_ = entry["microseconds"][variant]
                ratio = entry.get(f"{variant}/stock")
                rows.append(
                    [
                        kind,
                        "client CPU" if measure == "cpu" else "wall",
                        variant,
                        f"{time_['median']:.0f} ({time_['q1']:.0f} – {time_['q3']:.0f})",
                        f"{ratio['median']:.3f} ({ratio['q1']:.3f} – {ratio['q3']:.3f})" if ratio else "1",
                        f"{ratio['low']:.3f} – {ratio['high']:.3f}" if ratio else "",
                        f"{min(ratio['by_fleet']):.3f} – {max(ratio['by_fleet']):.3f}" if ratio else "",
                    ]
                )
    head = ["request", "measure", "client", "µs: median (quartiles)", "ratio to stock", "95 % of the median", "fleets"]
    plan = document["plan"]
    bars = "\n".join(
        f"- {'held' if held else 'NOT held'}: {text}" for text, held in document["summary"]["bars"].items()
    )
    return (
        f"{markdown(head, rows)}\n\n{bars}\n\n{plan['fleets']} fleets × {plan['rounds']} rounds,"
        f" {plan['cold']} cold and {plan['warm']} warm requests per sample;"
        f" connections as nginx counted them: {'as expected' if all(document['connections_as_expected'].values()) else 'NOT as expected'}."
        f"\n\n{footer(document)}"
    )
