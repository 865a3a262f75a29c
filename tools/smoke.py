"""
Use an installed pinset as its users do: with its core alone, or with one extra.

    python -I tools/smoke.py core
    python -I tools/smoke.py EXTRA

``nox -s package`` runs it in an environment of its own for each, which has the wheel and what the wheel asks for and nothing
else: no test library, no checkout. Rules of this program:

1. What it imports at the top is the standard library and the core.
2. Right pins pass and wrong pins are refused, by real handshakes with a real server; of a refused request no byte arrives.
3. What an extra brings is absent without it, and the error then names the extra.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.metadata
import importlib.util
import logging
import os
import socket
import ssl
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import NoReturn

import pinset
import pinset.httpx
from pinset import Outcome, Pin, PinnedAsyncClient, Pinner, Policy, Verdict
from pinset.formats import write_toml
from pinset.reports import OpenTelemetryReports
from pinset.testing import HTTPSServer, Interceptor

HOST = "localhost"
STRANGER = [
    "sha256/AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=",
    "sha256/AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=",
]
PATIENCE = 120

Pins = Mapping[str, list[str]]


def use_core() -> None:
    """httpx's clients, blocking and with asyncio, and a bare context."""
    with HTTPSServer(HOST) as server:
        _see_pins_hold(pinset.httpx, server.url(), server.pins, server.client_context)
        _see_pins_hold_on_a_socket(server)
    _expect(len(server.seen.requests) == 3, "a request for each of the right pins", server.seen.requests)
    _expect(b"GET /secret" not in server.seen.application_data, "nothing of a refused request", server.seen)


def use_cli() -> None:
    """The script, and a command for each library that it brings."""
    with tempfile.TemporaryDirectory() as directory:
        policy, passphrase = Path(directory, "pins.toml"), Path(directory, "passphrase")
        pins = {"api.example.com": STRANGER}
        policy.write_text(write_toml(Policy.from_mapping(pins)), encoding="utf-8")
        passphrase.write_text("correct horse battery staple\n", encoding="utf-8")
        _expect(_pinset("--version").strip() == pinset.__version__, "the version")
        _expect("does not hold a pinned key" in _pinset("demo"), "a refusal in the demo")
        _pinset("lint", str(policy))
        _expect("BEGIN:VCALENDAR" in _pinset("plan", str(policy), "--ics"), "a calendar")
        options = ("--dir", directory, "--passphrase-file", str(passphrase))
        made = _pinset("backup", "api.example.com", "--policy", str(policy), *options).strip()
        _expect(made in policy.read_text(encoding="utf-8"), f"the backup pin {made} in the policy")


def use_httpx2() -> None:
    """The same as with httpx."""
    import pinset.httpx2

    with HTTPSServer(HOST) as server:
        _see_pins_hold(pinset.httpx2, server.url(), server.pins, server.client_context)
    _expect(len(server.seen.requests) == 2, "a request for each of the right pins", server.seen.requests)


def use_otel() -> None:
    """A report that arrives, through the API alone."""
    with HTTPSServer(HOST) as server:
        pinner = Pinner(Policy.from_mapping({HOST: STRANGER}), observers=[OpenTelemetryReports()])
        checked = pinner.check(HOST, server.in_service.chain)
    _expect(checked.verdict.outcome is Outcome.MISMATCHED, "a mismatch", checked.verdict)
    _expect(pinner.reporter.flush(PATIENCE), "a report in time")
    _expect(pinner.reporter.counts["opentelemetry"].sent == 1, "one report", pinner.reporter.counts)


def use_socks() -> None:
    """A SOCKS5 proxy that intercepts: pinned itself it passes, and is refused where the origin is pinned."""
    with HTTPSServer(HOST) as server, Interceptor(upstream=server.client_context()) as proxy:
        inspected = {HOST: [str(Pin.from_certificate(proxy.authority.root)), STRANGER[0]]}
        _see_pins_hold(pinset.httpx, server.url(), inspected, proxy.authority.client_context, proxy=proxy.socks_url)
    _expect(len(server.seen.requests) == 2, "a request for each of the right pins", server.seen.requests)


def use_testing() -> None:
    """The fixtures, in a project that does not configure them."""
    project = (
        "import pytest\n"
        "from pinset import PinMismatchError, PinnedClient\n"
        "def test_impostor(pinset_server, pinset_intercepted):\n"
        "    with PinnedClient(pinset_server.pins) as client, pytest.raises(PinMismatchError):\n"
        "        client.get(pinset_server.url())\n"
        "    pinset_intercepted.assert_refused('localhost', knows_authority=True)\n"
    )
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, "pytest.ini").write_text("[pytest]\n", encoding="utf-8")  # it may lie in a checkout of ours
        Path(directory, "test_app.py").write_text(project, encoding="utf-8")
        said = _run(sys.executable, "-m", "pytest", "-q", directory)
    _expect("1 passed" in said, "that the test passes", said)


def use_updates() -> None:
    """A program whose pins are of yesterday, and a signed repository with those of today."""
    from securesystemslib.signer import CryptoSigner

    from pinset.updates import Keys, Origin, Repository, TufPinSource

    signer = CryptoSigner.generate_ed25519()
    keys = Keys(root=[signer.public_key], root_threshold=1, targets=[signer.public_key], online=signer.public_key)
    now = datetime.now(UTC).replace(microsecond=0)
    with tempfile.TemporaryDirectory() as directory, HTTPSServer(HOST) as server:
        repository = Repository(Path(directory))
        repository.init(keys, [signer], now)
        repository.publish(Policy.from_mapping(server.pins), [signer], now)
        with HTTPSServer(HOST, respond=lambda head: _file(Path(directory), head)) as site:
            source = TufPinSource(
                site.url(path="/"),
                root=Path(directory, "metadata", "1.root.json").read_bytes(),
                fallback=Policy.from_mapping({HOST: STRANGER}),
                cadata=site.authority.root_pem,
                cache_dir=None,
            )
            with source, pinset.PinnedClient(source, verify=server.client_context(), trust_env=False) as client:
                _matched(client.get(server.url()).extensions["pinset"])
            _expect(source.status.origin is Origin.REPOSITORY, "the signed policy in force", source.status)


def _file(directory: Path, head: bytes) -> bytes:
    path = directory / head.split(b" ")[1].decode("ascii").lstrip("/")
    status, body = (b"200 OK", path.read_bytes()) if path.is_file() else (b"404 Not Found", b"")
    return b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)


def _run_script() -> NoReturn:
    raise SystemExit(_run(_script(), status=1))


USES: Mapping[str, Callable[[], None]] = {
    "core": use_core,
    "cli": use_cli,
    "httpx2": use_httpx2,
    "otel": use_otel,
    "socks": use_socks,
    "testing": use_testing,
    "updates": use_updates,
}
BRINGS = {
    "cli": ("typer", "rich", "tomlkit", "publicsuffixlist", "icalendar"),
    "httpx2": ("httpx2", "httpcore2"),
    "otel": ("opentelemetry",),
    "socks": ("python_socks",),
    "testing": ("pytest",),
    "updates": ("tuf", "securesystemslib"),
}
"""What can be imported with an extra, and not without it."""
WITHOUT: Mapping[str, Callable[[], object]] = {
    "cli": _run_script,
    "httpx2": lambda: importlib.import_module("pinset.httpx2"),
    "otel": OpenTelemetryReports,
    "socks": lambda: PinnedAsyncClient({HOST: STRANGER}, proxy="socks5h://127.0.0.1:1"),
    "updates": lambda: importlib.import_module("pinset.updates"),
}
"""What needs the extra. ``testing`` is not here: pytest alone loads what needs pytest."""


def _see_pins_hold(
    front: ModuleType, url: str, right: Pins, trust: Callable[[], ssl.SSLContext], **options: str
) -> None:
    """Right pins lead to the server, wrong ones to a refusal; blocking and with asyncio."""
    for fetch in (_fetch, lambda *arguments, **options: asyncio.run(_fetch_async(*arguments, **options))):
        _matched(fetch(front, right, url, verify=trust(), trust_env=False, **options))
        try:
            fetch(front, {HOST: STRANGER}, f"{url}secret", verify=trust(), trust_env=False, **options)
        except front.PinMismatchError as error:
            _expect(STRANGER[0] in str(error), "what was expected, in the error", error)
        else:
            _expect(False, "a refusal")


def _fetch(front: ModuleType, pins: Pins, url: str, **options: object) -> Verdict:
    with front.PinnedClient(pins, **options) as client:
        return client.get(url).raise_for_status().extensions["pinset"]


async def _fetch_async(front: ModuleType, pins: Pins, url: str, **options: object) -> Verdict:
    async with front.PinnedAsyncClient(pins, **options) as client:
        return (await client.get(url)).raise_for_status().extensions["pinset"]


def _see_pins_hold_on_a_socket(server: HTTPSServer) -> None:
    """The same without httpx, as any library with an ``ssl.SSLContext`` has it."""
    request = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
    for pins, passes in ((server.pins, True), ({HOST: STRANGER}, False)):
        context = pinset.pinned_ssl_context(pins, cadata=server.authority.root_pem)
        with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as connection:
            try:
                with context.wrap_socket(connection, server_hostname=HOST) as tls:
                    tls.sendall(request if passes else request.replace(b"/ ", b"/secret ", 1))
                    answer = tls.recv(65536)
            except pinset.PinMismatchError:
                answer = b""
        _expect(answer.startswith(b"HTTP/1.1 200") is passes, f"{'an answer' if passes else 'none'}", answer)


def _see_errors_name_extras(present: str) -> None:
    """Everything that belongs to other extras is absent, and says how to get it."""
    for extra, modules in BRINGS.items():
        found = [name for name in modules if importlib.util.find_spec(name) is not None]
        _expect(found == (list(modules) if extra == present else []), f"of {extra} all or nothing", found)
    for extra, needing in WITHOUT.items():
        if extra == present:
            continue
        try:
            needing()
        except (ImportError, pinset.PinsetError, SystemExit) as error:
            _expect(f"pip install 'pinset[{extra}]'" in str(error), f"the extra {extra} in the error", error)
        else:
            _expect(False, f"an error without the extra {extra}")


def _matched(verdict: Verdict) -> None:
    _expect(verdict.outcome is Outcome.MATCHED, "a match", verdict)


def _pinset(*arguments: str) -> str:
    return _run(_script(), *arguments)


def _script() -> str:
    return str(Path(sysconfig.get_path("scripts"), "pinset"))


def _run(*command: str, status: int = 0) -> str:
    # -I is for this process alone: what is set for Python in the environment is not for those that it starts either.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PYTEST"))}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=PATIENCE, check=False, env=environment, cwd=sys.prefix
    )
    _expect(done.returncode == status, f"status {status} of {' '.join(command)}", done.stdout + done.stderr)
    return done.stdout if status == 0 else done.stderr


def _expect(condition: bool, what: str, seen: object = "") -> None:
    if not condition:
        sys.exit(f"expected {what}; seen: {seen}")


def main() -> None:
    """The command line."""
    if len(sys.argv) != 2 or sys.argv[1] not in USES:
        sys.exit(f"usage: python -I tools/smoke.py {'|'.join(USES)}")
    name = sys.argv[1]
    logging.getLogger("pinset.reports").addHandler(logging.NullHandler())  # refusals are what is wanted here
    _expect(Path(pinset.__file__).is_relative_to(sys.prefix), "the installed pinset", pinset.__file__)
    _see_errors_name_extras(name)
    use_core()
    if name != "core":
        USES[name]()
    packages = sum(1 for _ in importlib.metadata.distributions())
    print(f"pinset {pinset.__version__}, {name}, {packages} packages: right pins pass, wrong ones are refused")


if __name__ == "__main__":
    main()
