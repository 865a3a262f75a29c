"""
Requests over loopback: a pinned client against stock httpx and against httpx as pip installs it, interleaved.
"""

from __future__ import annotations

import argparse
import random
import resource
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import _nginx
from benchmarks._common import Bar, footer, markdown, percentile, save, setup, spread
from benchmarks._workers import Worker, start
from pinset.testing import Authority


@dataclass(frozen=True, slots=True)
class Scenario:
    """
    What a client is asked to do for one sample.

    Attributes:
        name: In the table.
        order: What the client process is told; see `benchmarks._client`.
        server: The kind of key and the version of TLS.
        variants: Who takes part, the yardstick first.
        bars: The most that a ratio may be, by yardstick.
        once: Whether it is measured in one round only, because stock httpx takes minutes for it.
    """

    name: str
    order: dict[str, Any]
    server: tuple[str, str] = ("EC", "TLSv1.3")
    variants: tuple[str, ...] = ("stock", "stock-again", "plain", "pinned")
    bars: tuple[tuple[str, float], ...] = ()
    once: bool = False

    @property
    def is_quick(self) -> bool:
        """Whether it is measured when there is little time."""
        return self.server[0] == "EC" and self.order.get("loop") != "uvloop" and self.order.get("concurrency") != 50

    def is_due(self, fleet: int, number: int) -> bool:
        """Whether it is measured in this round of a fleet; the first, which is not kept, has the number -1."""
        return not self.once or (fleet, number) == (0, 0)


_PAIR = ("stock", "stock-again", "pinned")  # where the plain environment lacks what is needed: h2, uvloop
_HTTP2 = ("EC", "TLSv1.3 and HTTP/2")
_CLIENT_BARS = (("stock", 0.05), ("plain", 0.05))


def _scenarios(*, quick: bool) -> list[Scenario]:
    """All of them, or those of which a sample takes little time."""
    cold, warm, crowd = (8, 30, 100) if quick else (50, 300, 1_000)
    found = [*_cold(cold), *_warm(warm, crowd)]
    if quick:
        found = [scenario for scenario in found if scenario.is_quick]
    found.append(
        Scenario("further client, default trust", {"kind": "client", "requests": 5 if quick else 20}, bars=_CLIENT_BARS)
    )
    return found if quick else [*found, *_crowded(), *_alone(warm)]


def _cold(requests: int) -> list[Scenario]:
    everybody = ("stock", "stock-again", "plain", "pinned", "pinned-full")
    combinations = [
        ("EC", "TLSv1.3", "asyncio"),
        ("EC", "TLSv1.2", "asyncio"),
        ("EC", "TLSv1.3", "uvloop"),
        ("RSA", "TLSv1.3", "asyncio"),
        ("RSA", "TLSv1.2", "asyncio"),
    ]
    found = [
        Scenario(
            f"cold, {key}, {protocol}, {loop}",
            {"kind": "cold", "requests": requests, "loop": loop},
            (key, protocol),
            everybody,
            ((("stock", 0.65), ("plain", 0.58)) if (key, protocol, loop) == ("EC", "TLSv1.3", "asyncio") else ()),
        )
        for key, protocol, loop in combinations
    ]
    return [*found, Scenario("cold, HTTP/2", {"kind": "cold", "requests": requests}, _HTTP2, _PAIR)]


def _warm(requests: int, crowd: int) -> list[Scenario]:
    def at_a_time(number: int, **more: Any) -> dict[str, Any]:
        return {"kind": "warm", "requests": crowd if number > 1 else requests, "concurrency": number, **more}

    return [
        Scenario("warm, one at a time, asyncio", at_a_time(1), bars=(("stock", 0.76), ("plain", 0.50))),
        Scenario("warm, one at a time, uvloop", at_a_time(1, loop="uvloop")),
        Scenario("warm, one at a time, HTTP/2", at_a_time(1), _HTTP2, _PAIR),
        Scenario("warm, 100 at a time", at_a_time(100), bars=(("stock", 0.25), ("plain", 0.22))),
        Scenario("warm, 100 at a time, uvloop", at_a_time(100, loop="uvloop")),
        Scenario("warm, 100 at a time, HTTP/2", at_a_time(100), _HTTP2, _PAIR),
        Scenario("warm, 50 at a time", at_a_time(50)),
    ]


def _crowded() -> list[Scenario]:
    """What takes stock httpx seconds for each sample."""
    return [
        Scenario(
            "warm, 1,000 at a time",
            {"kind": "warm", "requests": 200, "concurrency": 1_000},
            variants=("stock", "pinned"),
            once=True,
        ),
        Scenario(
            "warm, 100 at a time, limits of 1,000",
            {"kind": "warm", "requests": 200, "concurrency": 100, "limit": 1_000},
            bars=_CLIENT_BARS,
        ),
    ]


def _alone(requests: int) -> list[Scenario]:
    """Stock httpx does not finish these in a minute, so pinset is measured against itself."""
    limited = {"kind": "warm", "requests": 2_000, "limit": 1_000}
    idle = {"kind": "idle", "requests": requests}
    orders = {
        "warm, 10 at a time, limits of 1,000": {**limited, "concurrency": 10},
        "warm, 1,000 at a time, limits of 1,000": {**limited, "concurrency": 1_000},
        "one GET, 1 idle connection": {**idle, "limit": 1},
        "one GET, 1,000 idle connections": {**idle, "limit": 1_000},
    }
    return [Scenario(name, order, variants=("pinned",)) for name, order in orders.items()]


# Of pinset against itself: the scenario, the one it is compared with, and the most that the ratio may be.
_OWN_BARS = (
    ("warm, 1,000 at a time, limits of 1,000", "warm, 10 at a time, limits of 1,000", 1.4),
    ("one GET, 1,000 idle connections", "one GET, 1 idle connection", 1.2),
)
_FULL_BARS = (("stock", 0.80), ("plain", 0.72))  # cold, without resumption


def run(arguments: argparse.Namespace) -> None:
    """
    Measure, print the tables, and write the samples.
    """
    nginx = _nginx.find()
    _raise_file_limit()
    scenarios = _scenarios(quick=arguments.quick)
    plan = {"fleets": 1, "rounds": 1} if arguments.quick else {"fleets": 2, "rounds": arguments.rounds}
    document: dict[str, Any] = {"benchmark": "wire", **setup(), "plan": plan}
    document["plain"] = _plain_versions(arguments.plain)
    document["versions"]["nginx"] = _nginx.version(nginx)
    samples: list[dict[str, Any]] = []
    with _server(nginx) as configs, Bar("requests", plan["fleets"] * (plan["rounds"] + 1)) as bar:
        for fleet in range(plan["fleets"]):
            with ExitStack() as stack:
                clients = _Fleet(stack, configs, arguments.plain)
                for number in range(-1, plan["rounds"]):  # the first is not kept
                    taken = {
                        scenario.name: _sample(clients, scenario)
                        for scenario in random.sample(scenarios, len(scenarios))
                        if scenario.is_due(fleet, number)
                    }
                    if number >= 0:
                        samples.append({"fleet": fleet, "round": number, **taken})
                    bar.step()
    document["summary"] = _summary(samples, scenarios)
    for sample in samples:  # each request's own time is pooled in the summary
        for scenario in scenarios:
            for taken in sample.get(scenario.name, {}).values():
                taken.pop("own", None)
    document["samples"] = samples
    print(_report(document))
    save(document, arguments.out)


def _raise_file_limit() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 8192 if most == resource.RLIM_INFINITY else min(8192, most)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


def _plain_versions(python: Path | None) -> str:
    if python is None:
        return "skipped: no environment with httpx alone was given (--plain)"
    script = (
        "import importlib.metadata as m; print(', '.join(sorted(f'{d.name} {d.version}' for d in m.distributions())))"
    )
    return subprocess.run([python, "-c", script], capture_output=True, text=True, check=True).stdout.strip()


class _Fleet:
    """
    The client processes, one for each variant, server and event loop, started when first asked for.
    """

    def __init__(self, stack: ExitStack, configs: dict[tuple[str, str], dict[str, Any]], plain: Path | None) -> None:
        self._stack = stack
        self._configs = configs
        self._plain = plain
        self._clients: dict[tuple[str, tuple[str, str], str], Worker] = {}

    def takes_part(self, variant: str, loop: str) -> bool:
        """The plain environment is there only if it was given, and has no uvloop."""
        return variant != "plain" or (self._plain is not None and loop == "asyncio")

    def client(self, variant: str, server: tuple[str, str], loop: str) -> Worker:
        """The process for one of them."""
        key = variant, server, loop
        if key not in self._clients:
            python = self._plain if variant == "plain" else Path(sys.executable)
            config = {**self._configs[server], "variant": variant, "loop": loop}
            self._clients[key] = self._stack.enter_context(start([str(python), "-m", "benchmarks._client"], config))
        return self._clients[key]


@contextmanager
def _server(nginx: str) -> Iterator[dict[tuple[str, str], dict[str, Any]]]:
    """A port for each kind of key and version of TLS; the configuration of clients for each."""
    configs: dict[tuple[str, str], dict[str, Any]] = {}
    with ExitStack() as stack:
        sites = []
        for kind in ("EC", "RSA"):
            authority = Authority(kind, key="ec" if kind == "EC" else "rsa")
            identity, backup = authority.issue(_nginx.HOST), authority.issue(_nginx.HOST)
            roots = stack.enter_context(authority.trust_file())
            for protocol in ("TLSv1.2", "TLSv1.3", "TLSv1.3 and HTTP/2"):
                sites.append(_nginx.Site(kind, identity, protocol[:7], http2=protocol.endswith("HTTP/2")))
                configs[kind, protocol] = {
                    "http2": protocol.endswith("HTTP/2"),
                    "roots": roots,
                    "pins": {_nginx.HOST: [identity.pin, backup.pin]},
                }
        ports = stack.enter_context(_nginx.serve(nginx, sites))
        for config, port in zip(configs.values(), ports, strict=True):
            config["url"] = f"https://{_nginx.HOST}:{port}/"
        yield configs


def _sample(clients: _Fleet, scenario: Scenario) -> dict[str, dict[str, float]]:
    """One sample of every variant, in random order."""
    loop = scenario.order.get("loop", "asyncio")
    variants = [variant for variant in scenario.variants if clients.takes_part(variant, loop)]
    order = {name: value for name, value in scenario.order.items() if name != "loop"}
    return {
        variant: clients.client(variant, scenario.server, loop).ask(order)
        for variant in random.sample(variants, len(variants))
    }


def _summary(samples: Sequence[dict[str, Any]], scenarios: Sequence[Scenario]) -> dict[str, Any]:
    summary: dict[str, Any] = {}
    for scenario in scenarios:
        taken = [sample[scenario.name] for sample in samples if scenario.name in sample]
        entry: dict[str, Any] = {}
        for variant in (name for name in scenario.variants if name in taken[0]):
            entry[variant] = {
                "cpu": spread([one[variant]["cpu"] for one in taken], 1),
                "wall": spread([one[variant]["wall"] for one in taken], 1),
                "resumed": round(sum(one[variant]["resumed"] for one in taken) / len(taken), 3),
            }
            own = [value for one in taken for value in one[variant].get("own", ())]
            if own:
                entry[variant] |= {"p50": percentile(own, 50), "p99": percentile(own, 99)}
            entry[variant]["requests/s"] = round(1e6 / entry[variant]["wall"]["median"], 1)
            for yardstick in ("stock", "plain"):
                if yardstick in taken[0] and variant != yardstick:
                    for measure in ("cpu", "wall"):
                        ratios = [one[variant][measure] / one[yardstick][measure] for one in taken]
                        entry[variant][f"{measure}/{yardstick}"] = spread(ratios)
        summary[scenario.name] = entry
    summary["bars"] = list(_bars(summary, scenarios, samples))
    return summary


def _bars(
    summary: dict[str, Any], scenarios: Sequence[Scenario], samples: Sequence[dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """The figures to reach, and what was reached."""

    def bar(what: str, reached: float, most: float) -> dict[str, Any]:
        return {"what": what, "reached": round(reached, 3), "bar": most, "held": reached <= most}

    for scenario in scenarios:
        wanted = [("pinned", *each) for each in scenario.bars]
        if scenario.bars and "pinned-full" in scenario.variants:
            wanted += [("pinned-full", *each) for each in _FULL_BARS]
        for variant, yardstick, most in wanted:
            ratio = summary[scenario.name][variant].get(f"cpu/{yardstick}")
            if ratio is not None:
                yield bar(f"{scenario.name}: {variant} to {yardstick}", ratio["median"], most)
    for name, other, most in _OWN_BARS:
        if name not in samples[0]:
            continue
        ratios = [sample[name]["pinned"]["cpu"] / sample[other]["pinned"]["cpu"] for sample in samples]
        yield bar(f"{name}, to: {other}", spread(ratios)["median"], most)


def _report(document: dict[str, Any]) -> str:
    summary = document["summary"]
    rows = []
    for name, entry in summary.items():
        if name == "bars":
            continue
        for variant, figures in entry.items():
            rows.append(
                [
                    name,
                    variant,
                    f"{figures['cpu']['median']:.0f} ({figures['cpu']['q1']:.0f} – {figures['cpu']['q3']:.0f})",
                    _ratio(figures, "cpu/stock"),
                    _ratio(figures, "cpu/plain"),
                    f"{figures['wall']['median']:.0f}",
                    _ratio(figures, "wall/stock"),
                    f"{figures['requests/s']:.0f}",
                    *(f"{figures[name]:.0f}" if name in figures else "" for name in ("p50", "p99")),
                    f"{figures['resumed']:.0%}" if name.startswith("cold") else "",
                ]
            )
    head = [
        "request",
        "client",
        "CPU µs: median (quartiles)",
        "to stock",
        "to plain",
        "wall µs",
        "wall to stock",
        "per second",
        "p50 µs",
        "p99 µs",
        "resumed",
    ]
    bars = [
        [bar["what"], f"{bar['reached']:.3f}", f"{bar['bar']:.2f}", "held" if bar["held"] else "NOT held"]
        for bar in summary["bars"]
    ]
    plan = document["plan"]
    return (
        f"{markdown(head, rows)}\n\n{markdown(['figure to reach', 'reached', 'bar', ''], bars)}\n\n"
        f"{plan['fleets']} × {plan['rounds']} interleaved rounds. Plain environment: {document['plain']}.\n\n{footer(document)}"
    )


def _ratio(figures: dict[str, Any], name: str) -> str:
    ratio = figures.get(name)
    return f"{ratio['median']:.3f} ({ratio['q1']:.3f} – {ratio['q3']:.3f})" if ratio else ""
