"""
Make the twins: blocking code from async code, and code for httpx2 from code for httpx.

Each rule of pinset is written once, for asyncio and httpx. The other three combinations differ from it in names only, and
this program replaces them, so that a mend of one is a mend of all. What differs in more than names is written by hand, as
small modules with the same names on both sides: ``_sync/_tasks.py``, ``_sync/_streams.py``, ``_sync/_network.py`` and
``_sync/_socks.py``.

``python tools/twins.py`` writes the twins; with ``--check`` it only says which are stale, and fails if any is. The tests
have no twins in the repository: ``--tests DIRECTORY`` writes them, for httpx2, to be run from there.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "pinset"

# What has a blocking twin.
BLOCKING = ("_http2", "_connect", "_books", "_standby", "_assignment", "_pool", "_transport", "_client")
# What knows httpx or httpcore, and so has a twin for httpx2.
FLAVOURED = (
    "_httpx_errors",
    "_httpx_rules",
    "_streams",
    "_asyncio_streams",
    "_anyio_streams",
    "_asyncio_connect",
    "_network",
    "_socks",
    *BLOCKING,
)
# What is written by hand in _sync and knows httpcore; the rest of it is made, but _tasks, which knows neither.
BY_HAND = ("__init__", "_streams", "_network", "_socks")
BLOCKING_RULES = (
    (r"\basync (def|with|for)\b", r"\1"),
    (r"\bawait ", ""),
    (r"\b(import .*), Awaitable\b", r"\1"),
    (r"\bAwaitable\[(\w+)\]", r"\1"),
    (r"\b(Pinned)?Async(?=[A-Z])", lambda match: match[1] or ""),
    (r"\bhandle_async_request\b", "handle_request"),
    (r"\b_?aclose\b", "close"),
    (r"\b_source\.renew\b", "_source.renew_blocking"),
    (r"\b__a(enter|exit|iter|next)__\b", r"__\1__"),
    (r"\baiter\(", "iter("),
    (rf"\bpinset\.(_tasks|_streams|_network|_socks|{'|'.join(BLOCKING)})\b", r"pinset._sync.\1"),
)
HTTPX2_RULES = (
    (r"\bhttpcore\._backends\.base\b", "httpcore"),
    (r"\b(httpx|httpcore)\b", r"\g<1>2"),
    (rf"\bpinset\.({'|'.join(FLAVOURED)}|_sync(?!\._tasks))\b", r"pinset._httpx2.\1"),
    (r"\bfrom pinset import (_anyio_streams|_asyncio_connect)\b", r"from pinset._httpx2 import \1"),
)
HTTPX2_ROOM = '''"""
`pinset.httpx2`, below its front: the modules of pinset that know httpx, for httpx2.
"""

try:
    import httpx2  # noqa: F401 - asked for here, so that one sentence names the extra
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("pinset.httpx2 needs an extra: pip install 'pinset[httpx2]'", name="httpx2") from error
'''


# The tests take the clients from the front door, which has those for httpx.
OTHER_FRONT_DOOR = """

import pinset
import pinset.httpx2

for name in ("PinnedAsyncClient", "PinnedAsyncTransport", "PinnedClient", "PinnedTransport"):
    setattr(pinset, name, getattr(pinset.httpx2, name))
"""


def twins() -> Iterator[tuple[Path, str]]:
    """Where each twin belongs, and what it says."""
    blocking = {}
    for name in BLOCKING:
        origin = SOURCE / f"{name}.py"
        blocking[name] = _replaced(origin.read_text(encoding="utf-8"), BLOCKING_RULES)
        yield SOURCE / "_sync" / origin.name, _note(origin) + blocking[name]
    room = SOURCE / "_httpx2"
    yield room / "__init__.py", HTTPX2_ROOM
    for name in FLAVOURED:
        yield room / f"{name}.py", _httpx2(SOURCE / f"{name}.py")
    for name, text in blocking.items():
        yield room / "_sync" / f"{name}.py", _note(SOURCE / f"{name}.py") + _replaced(text, HTTPX2_RULES)
    for name in BY_HAND:
        yield room / "_sync" / f"{name}.py", _httpx2(SOURCE / "_sync" / f"{name}.py")
    yield SOURCE / "httpx2.py", _httpx2(SOURCE / "httpx.py")


def stale() -> list[Path]:
    """The twins that do not say what they should, and files that are nobody's twin."""
    wanted = dict(twins())
    wrong = [path for path, text in wanted.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    return wrong + [path for path in (SOURCE / "_httpx2").rglob("*.py") if path not in wanted]


def write() -> None:
    """Write every twin."""
    shutil.rmtree(SOURCE / "_httpx2", ignore_errors=True)
    for path, text in list(twins()):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def write_tests(directory: Path) -> None:
    """Write the tests into *directory*, for httpx2, with the settings of pytest."""
    tests = directory / "tests"
    shutil.copytree(ROOT / "tests", tests, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    for path in tests.rglob("*.py"):
        path.write_text(_replaced(path.read_text(encoding="utf-8"), HTTPX2_RULES), encoding="utf-8")
    conftest = tests / "conftest.py"
    conftest.write_text(conftest.read_text(encoding="utf-8") + OTHER_FRONT_DOOR, encoding="utf-8")
    shutil.copy(ROOT / "pyproject.toml", directory)


def _httpx2(origin: Path) -> str:
    return _note(origin) + _replaced(origin.read_text(encoding="utf-8"), HTTPX2_RULES)


def _note(origin: Path) -> str:
    return f"# Made from {origin.relative_to(SOURCE.parent).as_posix()} by tools/twins.py; change that one.\n"


def _replaced(text: str, rules: object) -> str:
    for pattern, replacement in rules:  # type: ignore[attr-defined]
        text = re.sub(pattern, replacement, text)
    return text


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Make the twins of pinset's modules.")
    parser.add_argument("--check", action="store_true", help="say which twins are stale, and change nothing")
    parser.add_argument("--tests", type=Path, metavar="DIRECTORY", help="write the tests there, for httpx2")
    options = parser.parse_args()
    if options.tests:
        write_tests(options.tests)
    elif not options.check:
        write()
    elif wrong := stale():
        print("stale; run python tools/twins.py:", *(path.relative_to(ROOT) for path in wrong), sep="\n  ")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
