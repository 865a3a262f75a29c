"""
Fixtures to see an app refuse an interceptor; see docs/howto/test-your-app.md.

pytest loads this module in every project that has pinset installed. So it stands outside the package, imports nothing of
it before a fixture is used, and adds fixtures whose names begin with ``pinset_``, and nothing else: no option, no marker,
no hook.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pinset.testing import Authority, FrozenClock, HTTPSServer, Interceptor, RecordingObserver

HOSTILE_CHAINS = (
    "impostor",
    "appended",
    "cross-signed",
    "forged",
    "expired",
    "wrong-host",
    "unknown-authority",
)
"""The names of `pinset.testing.hostile_chains`."""


@pytest.fixture(scope="session")
def pinset_authority() -> Authority:
    """
    The authority of the genuine servers.
    """
    from pinset.testing import Authority

    return Authority("Genuine")


@pytest.fixture(scope="session")
def pinset_rogue() -> Authority:
    """
    The authority of the impostors, which the client trusts as well.
    """
    from pinset.testing import Authority

    return Authority("Rogue")


@pytest.fixture(scope="session")
def pinset_trust(
    pinset_authority: Authority, pinset_rogue: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """
    A file with both roots, PEM: for ``cafile``, ``verify=`` and ``SSL_CERT_FILE``.
    """
    path = tmp_path_factory.mktemp("pinset") / "roots.pem"
    path.write_text(pinset_authority.root_pem + pinset_rogue.root_pem, encoding="ascii")
    return path


@pytest.fixture
def pinset_trusted(pinset_trust: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """
    The same file, trusted by this very process: for apps that read trust from the environment.
    """
    from pinset.testing import trusting_environment

    for name, value in trusting_environment(pinset_trust).items():
        monkeypatch.setenv(name, value)
    return pinset_trust


@pytest.fixture
def pinset_make_server(pinset_authority: Authority) -> Iterator[Callable[..., HTTPSServer]]:
    """
    Make running servers with the arguments of `pinset.testing.HTTPSServer`; they end with the test.
    """
    from pinset.testing import HTTPSServer

    with ExitStack() as running:

        def make(*hosts: str, **options: object) -> HTTPSServer:
            if "key" not in options:  # another kind of key takes another authority
                options.setdefault("authority", pinset_authority)
            return running.enter_context(HTTPSServer(*hosts, **options))  # type: ignore[arg-type]

        yield make


@pytest.fixture
def pinset_server(pinset_make_server: Callable[..., HTTPSServer]) -> HTTPSServer:
    """
    A genuine server for ``localhost``, a `pinset.testing.HTTPSServer`.
    """
    return pinset_make_server()


@pytest.fixture
def pinset_interceptor(pinset_authority: Authority, pinset_rogue: Authority) -> Iterator[Interceptor]:
    """
    A `pinset.testing.Interceptor` with the rogue authority, that passes on to genuine servers.
    """
    from pinset.testing import Interceptor

    with Interceptor(pinset_rogue, upstream=pinset_authority.client_context(), patience=5.0) as running:
        yield running


@pytest.fixture
def pinset_environment(pinset_interceptor: Interceptor, pinset_trust: Path) -> dict[str, str]:
    """
    The environment for a subprocess behind the interceptor.
    """
    from pinset.testing import proxied_environment

    return proxied_environment(pinset_interceptor.url, pinset_trust)


@pytest.fixture
def pinset_intercepted(
    pinset_interceptor: Interceptor, pinset_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> Interceptor:
    """
    The interceptor, with this very process behind it: for apps that read proxy and trust from the environment.
    """
    for name in ("NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name, value in pinset_environment.items():
        monkeypatch.setenv(name, value)
    return pinset_interceptor


@pytest.fixture(params=HOSTILE_CHAINS)
def pinset_hostile_server(
    request: pytest.FixtureRequest,
    pinset_server: HTTPSServer,
    pinset_authority: Authority,
    pinset_rogue: Authority,
) -> HTTPSServer:
    """
    A server that shows a hostile chain; the test runs once for each. Its `pins` are those of the genuine key.
    """
    from pinset.testing import hostile_chains

    chains = hostile_chains(pinset_authority, pinset_rogue, pinset_server.in_service, pinset_server.hosts)
    pinset_server.show(next(chain for chain in chains if chain.name == request.param).identity)
    return pinset_server


@pytest.fixture
def pinset_observer() -> RecordingObserver:
    """
    An observer for a `pinset.Pinner` that keeps the verdicts.
    """
    from pinset.testing import RecordingObserver

    return RecordingObserver()


@pytest.fixture
def pinset_clock() -> FrozenClock:
    """
    A clock for a `pinset.Pinner` that stands still.
    """
    from pinset.testing import FrozenClock

    return FrozenClock()
