"""
The project's tasks. ``nox`` runs those that CI runs; ``nox -s NAME`` one of them, ``nox --list`` names them.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import nox

nox.needs_version = ">=2024.10.9"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_existing_virtualenvs = True
nox.options.error_on_missing_interpreters = False
nox.options.sessions = [
    "lint",
    "typing",
    "tests",
    "twins",
    "coverage",
    "lowest",
    "mitmproxy",
    "integration",
    "downstream",
    "docs",
    "package",
    "demo",
]

PYTHONS = ["3.11", "3.12", "3.13"]
# All processors; and a machine that others use too may stall for seconds: what fails three times in a row has failed.
SHARED = ("-n", "auto", "--maxprocesses", "4", "--reruns", "2")
# Counting lines and branches doubles the time of a test, so one Python does it, the newest that is here.
COUNTING = next((version for version in reversed(PYTHONS) if shutil.which(f"python{version}")), PYTHONS[0])
# mitmproxy pins its own cryptography, so it lives in an environment of its own, beside the sessions'.
MITMPROXY = Path(".nox", "mitmproxy-env").absolute()


@nox.session
def lint(session: nox.Session) -> None:
    """Style and formatting."""
    session.install(*_group("lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def typing(session: nox.Session) -> None:
    """mypy strict, and pyright on the public interface."""
    session.install("-e", ".[cli,httpx2,otel,socks,testing,updates]", *_group("typing"), "nox")
    session.run("mypy")
    session.run("pyright")


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """The unit tests, on every Python that is here."""
    session.install("-e", ".[cli,httpx2,otel,socks,testing,updates]", *_group("tests"))
    pytest = ("coverage", "run", "-m", "pytest") if session.python == COUNTING else ("pytest",)
    session.run(*pytest, *SHARED, "-m", "not integration", *session.posargs)


@nox.session
def twins(session: nox.Session) -> None:
    """The tests of the clients once more, for httpx2."""
    session.install("-e", ".[cli,httpx2,otel,socks,testing]", *_group("tests"))
    directory = Path(session.create_tmp()) / "twins"
    shutil.rmtree(directory, ignore_errors=True)
    session.run("python", "tools/twins.py", "--tests", str(directory))
    names = (
        "httpx",
        "sync",
        "pins_only",
        "waiting",
        "cleanup",
        "generations",
        "goaway",
        "network*",
        "http2",
        "contexts",
    )
    session.chdir(directory)
    found = sorted(str(path) for name in names for path in Path("tests").glob(f"test_{name}.py"))
    session.run("pytest", *SHARED, "-m", "not integration", *found, *session.posargs)


@nox.session
def coverage(session: nox.Session) -> None:
    """Lines and branches, of the sessions that counted them."""
    session.install("coverage")
    session.run("coverage", "combine")
    session.run("coverage", "report", "--fail-under=97")


@nox.session
def lowest(session: nox.Session) -> None:
    """The tests of the core with the lowest versions that pyproject.toml allows for it."""
    session.install("--resolution=lowest-direct", "-e", ".[cli,httpx2,otel,socks]")
    session.install("-e", ".[testing]", *_group("tests"))
    session.install(*(f"{name}=={version}" for name, version in _floors().items()))
    core = sorted(
        map(str, Path("tests").glob("test_*.py"))
    )  # what extras need may be newer, as cryptography for updates
    session.run("pytest", *SHARED, "-m", "not integration", "-W", "default", "-q", *core, *session.posargs)


@nox.session
def mitmproxy(session: nox.Session) -> None:
    """An environment with mitmproxy, for the integration tests."""
    if not (MITMPROXY / "bin" / "mitmdump").exists():
        session.run("python", "-m", "venv", "--clear", str(MITMPROXY), silent=True)
        session.run(str(MITMPROXY / "bin" / "pip"), "install", "-q", "mitmproxy>=10", external=True)


@nox.session
def integration(session: nox.Session) -> None:
    """Real servers and proxies; they have to be installed (see .ci/run)."""
    session.install("-e", ".[cli,httpx2,otel,socks,testing,updates]", *_group("tests"), *_group("kit"))
    session.env["PINSET_REQUIRE_INTEGRATION"] = "1"
    session.env.setdefault("PINSET_MITMDUMP", str(MITMPROXY / "bin" / "mitmdump"))
    # The session downstream runs the others, with what they need.
    session.run("pytest", *SHARED, "-m", "integration", "--ignore=tests/integration/downstream", *session.posargs)


@nox.session(python="3.13")
def downstream(session: nox.Session) -> None:
    """The libraries and SDKs of docs/howto/libraries.md, and the lines that it gives for each."""
    session.install("-e", ".[cli,httpx2,otel,socks,testing]", *_group("downstream"))
    session.env["PINSET_REQUIRE_INTEGRATION"] = "1"
    session.env["PINSET_REQUIRE_DOWNSTREAM"] = "1"
    paths = ("tests/integration/downstream", "tests/test_docs.py")
    session.run("pytest", *SHARED, "--dist", "loadfile", *paths, *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation, with every warning an error."""
    session.install("-e", ".[cli,httpx2,otel,socks,testing,updates]", *_group("docs"))
    session.run("sphinx-build", "-n", "-W", "--keep-going", "-q", "-b", "html", "docs", "docs/_build/html")


@nox.session
def package(session: nox.Session) -> None:
    """Build sdist and wheel, and use the wheel in a clean environment with core dependencies only."""
    dist = Path(session.create_tmp()) / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    session.install("build")
    session.run("python", "-m", "build", "--outdir", str(dist), silent=True)
    (wheel,) = dist.glob("*.whl")
    session.install("--force-reinstall", str(wheel))
    session.run(
        "python", "-P", "-c", "import pinset; print('pinset', pinset.__version__, 'imports with its core alone')"
    )


@nox.session
def demo(session: nox.Session) -> None:
    """``pinset demo``."""
    session.install(".[cli]")
    session.run("pinset", "demo")


@nox.session
def bench(session: nox.Session) -> None:
    """The benchmarks, all of them; ``nox -s bench -- --quick``, or ``nox -s bench -- wire --help`` for one."""
    session.install("-e", ".[cli,httpx2]", *_group("bench"))
    plain = _environment(session, "plain", "httpx>=0.28,<0.29")
    niquests = _environment(session, "niquests", *_group("bench-niquests"))
    given = ["--plain", plain, "--environment", f"niquests={niquests}"]
    if not session.posargs or session.posargs[0].startswith("-"):
        session.run("python", "-m", "benchmarks", "all", *given, *session.posargs)
        return
    wanted = {"wire": given[:2], "peers": given[2:], "all": given}
    command, *others = session.posargs
    session.run("python", "-m", "benchmarks", command, *wanted.get(command, ()), *others)


def _environment(session: nox.Session, name: str, *packages: str) -> str:
    """The interpreter of an environment with these packages and no more."""
    directory = Path(session.create_tmp()) / name
    python = (directory / "bin" / "python").absolute()
    if not python.exists():
        session.run("python", "-m", "venv", str(directory), silent=True)
    session.run(str(python), "-m", "pip", "install", "-q", *packages, external=True)
    return str(python)


@nox.session
def mutation(session: nox.Session) -> None:
    """Mutate the rules and see the tests fail; ``nox -s mutation -- _evaluate``."""
    session.install("-e", ".[cli,httpx2,otel,socks,testing,updates]", *_group("tests"), *_group("mutation"))
    session.run("python", "tests/mutation.py", *session.posargs, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"})


def _group(name: str) -> list[str]:
    """What a dependency group of pyproject.toml holds, without the project itself."""
    groups = nox.project.load_toml("pyproject.toml")["dependency-groups"]
    return [
        entry for entry in nox.project.dependency_groups({"dependency-groups": groups}, name) if "pinset" not in entry
    ]


def _floors() -> dict[str, str]:
    """The lowest allowed version of each core dependency."""
    listed = nox.project.load_toml("pyproject.toml")["project"]["dependencies"]
    floors = (tuple(entry.split(",")[0].split(">=", 1)) for entry in listed)
    return dict(floors)
