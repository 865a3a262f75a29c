"""
The front door: what is exported, and that it is documented.
"""

from __future__ import annotations

import enum
import inspect
import pickle
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

import pinset
import pinset.httpx
import pinset.reports
import pinset.testing

DOCS = Path(__file__).parent.parent / "docs"


def test_all_is_sorted_and_complete() -> None:
    """``__all__`` names every public thing once, in order."""
    assert sorted(pinset.__all__, key=str.lower) == sorted(set(pinset.__all__), key=str.lower)
    public = {name for name, value in vars(pinset).items() if not name.startswith("_") and not inspect.ismodule(value)}
    assert (public | set(pinset._LATER)) - {"TYPE_CHECKING"} == set(pinset.__all__)
    assert set(pinset.__all__) <= set(dir(pinset))


@pytest.mark.parametrize("module", ["pinset", "pinset.httpx", "pinset.httpx2"])
def test_what_is_loaded_later(module: str) -> None:
    """A program that does not use the blocking side does not load it, and one that does finds it by every import."""
    if module == "pinset.httpx2":
        pytest.importorskip("httpx2")
    code = f"""if True:
        import importlib, sys
        front = importlib.import_module({module!r})
        assert not [name for name in sys.modules if "_sync" in name or name == "pinset._contexts"]
        from {module} import PinnedClient
        assert PinnedClient is front.PinnedClient is importlib.import_module({module!r}).PinnedClient
        try:
            front.Nonsense
        except AttributeError as error:
            assert str(error) == "module {module!r} has no attribute 'Nonsense'"
    """
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("name", pinset.__all__)
def test_is_documented(name: str) -> None:
    """Every public name has a docstring and a place in the reference."""
    thing = getattr(pinset, name)
    if name != "Observer":  # an alias of a callable type, described by Pinner
        assert inspect.getdoc(thing)
        reference = (DOCS / "reference" / "api.md").read_text() + (DOCS / "reference" / "errors.md").read_text()
        assert f"pinset.{name}\n" in reference


@pytest.mark.parametrize("module", [pinset, pinset.httpx, pinset.reports, pinset.testing])
def test_public_methods_are_documented(module) -> None:
    """Every public method has a docstring."""
    for name in module.__all__:
        thing = getattr(module, name)
        if inspect.isclass(thing) and not issubclass(thing, enum.Enum):
            for method, value in vars(thing).items():
                if not method.startswith("_") and (inspect.isfunction(value) or isinstance(value, property)):
                    assert inspect.getdoc(value), f"{name}.{method}"


@pytest.mark.parametrize(
    "name", ["PinMismatchError", "UnlistedHostError", "UnverifiedChainError", "CleartextError", "ServerNameError"]
)
def test_errors_of_the_httpx_boundary(name: str) -> None:
    """Each refusal has a twin that httpx users catch, and no twin is retried."""
    twin, core = getattr(pinset.httpx, name), getattr(pinset, name)
    assert issubclass(twin, core)
    assert issubclass(twin, httpx.TransportError)
    assert not issubclass(twin, (httpx.NetworkError, httpx.TimeoutException, OSError))
    error = twin("text", host="a.test")
    assert (str(error), error.host, error.verdict) == ("text", "a.test", None)
    assert pickle.loads(pickle.dumps(error)).host == "a.test"


def test_httpx_is_still_httpx() -> None:
    """``pinset.httpx`` is our module and leaves the name httpx alone."""
    assert pinset.httpx is not httpx
    assert pinset.httpx.__name__ == "pinset.httpx"


def test_version() -> None:
    """The version is that of the installed distribution."""
    from importlib.metadata import version

    assert pinset.__version__ == version("pinset")
