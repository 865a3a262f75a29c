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
# The extras, each of which the wheel is tried with alone.
EXTRAS = ("cli", "httpx2", "otel", "socks", "testing", "updates")
DIST = Path("dist").absolute()
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
    directory = _twins_of_tests(session)
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


def _twins_of_tests(session: nox.Session) -> Path:
    """A directory with the tests for httpx2."""
    directory = Path(session.create_tmp(), "twins").absolute()
    shutil.rmtree(directory, ignore_errors=True)
    session.run("python", "tools/twins.py", "--tests", str(directory))
    return directory


@nox.session
def coverage(session: nox.Session) -> None:
    """Lines and branches, of the sessions that counted them."""
    session.install("coverage")
    session.run("coverage", "combine")
    session.run("coverage", "report", "--fail-under=97")


@nox.session(venv_backend="uv", reuse_venv=False)
def lowest(session: nox.Session) -> None:
    """The tests with the lowest versions that pyproject.toml allows: of the core and most extras, then of the others."""
    options = (*SHARED, "-m", "not integration", "-W", "default", "-q", "--hypothesis-profile", "mutation")
    # Not the tests of what stands on the standard library alone; and those with httpx2 are for later.
    alone = {"assignment", "benchmarks", "docs", "evaluate", "figures", "layers", "packaging", "pinner", "policy"}
    alone |= {"reference", "reporter", "reports"}
    both = {"pins_only", "twins", "weak_contexts"}
    paths = [path for path in Path("tests").glob("test_*.py") if path.stem.removeprefix("test_") not in alone | both]
    rooms = ["tests/cli", "tests/kit", "tests/probe", "--ignore=tests/cli/test_updates_repo.py"]
    _install_lowest(session, "core", "cli", "otel", "socks", "testing")
    session.run("pytest", *options, *map(str, sorted(paths)), *rooms, *session.posargs)
    # httpx2 and securesystemslib ask for newer versions of the core than pinset does.
    _install_lowest(session, "httpx2", "updates")
    others = [f"tests/test_{name}.py" for name in sorted(both)]
    session.run("pytest", *options, *others, "tests/updates", "tests/cli/test_updates_repo.py", *session.posargs)
    with session.chdir(_twins_of_tests(session)):
        session.run("pytest", *options, "tests/test_httpx.py", "tests/test_sync.py", *session.posargs)
    # And what builds the wheel.
    (backend,) = nox.project.load_toml("pyproject.toml")["build-system"]["requires"]
    session.install(backend.replace(">=", "=="))
    session.run("hatchling", "build", "--target", "wheel", "--directory", session.create_tmp())


def _install_lowest(session: nox.Session, *parts: str) -> None:
    """The core and extras among *parts* in just the versions that are their lower bounds; the tests' tools as they fit."""
    extras = [part for part in parts if part in EXTRAS]
    session.install("-e", f".[{','.join(extras)}]", *_group("tests"), *_floors(*parts))


def _floors(*parts: str) -> list[str]:
    """The lowest allowed version of each dependency of the core or of extras."""
    project = nox.project.load_toml("pyproject.toml")["project"]
    listed = {"core": project["dependencies"], **project["optional-dependencies"]}
    entries = [entry.split(",")[0].split(">=", 1) for part in parts for entry in listed[part]]
    return [f"{name.split('[')[0]}=={version}" for name, version in entries]


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
    """Build sdist and wheel, twice; use the wheel with its core alone and with each extra alone; write the SBOMs."""
    wheel = _build(session)
    for name in ("core", *EXTRAS):
        python = _installed(session, wheel, *(extra for extra in EXTRAS if extra == name))
        session.run(python, "-I", "tools/smoke.py", name, external=True)
    _write_sboms(session, wheel)


@nox.session
def sbom(session: nox.Session) -> None:
    """Sdist and wheel, and beside them what the wheel brings along: CycloneDX."""
    _write_sboms(session, _build(session))


def _build(session: nox.Session) -> Path:
    """The wheel of a release, with its sdist beside it."""
    session.install(*_group("release"))
    session.run("python", "tools/distributions.py", str(DIST))
    (sdist,), (wheel,) = DIST.glob("*.tar.gz"), DIST.glob("*.whl")
    session.run("twine", "check", "--strict", str(sdist), str(wheel))
    return wheel


def _write_sboms(session: nox.Session, wheel: Path) -> None:
    """Bills of materials beside the wheel, with its core alone and with all extras; without times and numbers of chance."""
    stem = "-".join(wheel.name.split("-")[:2])
    options = ("--pyproject=pyproject.toml", "--mc-type=library", "--sv=1.6", "--output-reproducible", "--validate")
    for name, extras in (("core", ()), ("all", EXTRAS)):
        python = _installed(session, wheel, *extras)
        session.run("cyclonedx-py", "environment", *options, "-o", str(DIST / f"{stem}-{name}.cdx.json"), python)


def _installed(session: nox.Session, wheel: Path, *extras: str) -> str:
    """The interpreter of a fresh environment that has the wheel, what it asks for, and no more."""
    package = f"{wheel}[{','.join(extras)}]" if extras else str(wheel)
    return _environment(session, "-".join(extras) or "core", package, fresh=True)


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


def _environment(session: nox.Session, name: str, *packages: str, fresh: bool = False) -> str:
    """The interpreter of an environment with these packages and no more; a fresh one has not even pip, where uv is here."""
    directory = Path(session.create_tmp(), name).absolute()
    python = str(directory / "bin" / "python")
    if fresh and session.venv_backend == "uv":
        shutil.rmtree(directory, ignore_errors=True)
        session.run("uv", "venv", "-q", "-p", str(Path(session.bin, "python")), str(directory))
        session.run("uv", "pip", "install", "-q", "-p", python, *packages)
        return python
    if fresh or not Path(python).exists():
        session.run("python", "-m", "venv", "--clear", str(directory), silent=True)
    session.run(python, "-m", "pip", "install", "-q", *packages, external=True)
    return python


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
