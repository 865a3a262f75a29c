"""
A client class for one API: pins from a policy file, and the errors that an app has to tell apart.

    python docs/examples/api_client.py https://api.example.com pins.toml ada
"""

from __future__ import annotations

import asyncio
import sys
from types import TracebackType
from typing import Any, Self

import httpx

from pinset import PinMismatchError, PinnedAsyncClient, Pinner, PolicyError, RefusedError, load_policy


class APIError(Exception):
    """The API was not asked, or did not answer. Trying again later may help."""


class NotOurServerError(APIError):
    """Whoever is at the address is not the server that we know. Trying again gives him another chance."""


class UserAPI:
    """
    The users of the API.

    Args:
        base_url: Where it is.
        pinner: Its pins. Several clients may share it, and `Pinner.replace` changes the pins of them all.
    """

    def __init__(self, base_url: str, pinner: Pinner) -> None:
        self._client = PinnedAsyncClient(pinner, base_url=base_url, timeout=10)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def user(self, name: str) -> dict[str, Any]:
        """What is known of a user."""
        try:
            response = await self._client.get(f"/users/{name}")
            response.raise_for_status()
        except PinMismatchError as error:  # before httpx's own: it is one of them, too
            raise NotOurServerError(str(error)) from error
        except RefusedError as error:  # a host that the policy does not list, http://: ours to mend
            raise APIError(f"this app is not set up for the host: {error}") from error
        except httpx.HTTPStatusError as error:
            raise APIError(f"the API answered {error.response.status_code}") from error
        except httpx.TransportError as error:  # nobody there, too slow, cut off, a certificate that does not verify
            raise APIError(f"the API cannot be reached: {error}") from error
        user: dict[str, Any] = response.json()
        return user


async def main() -> int:
    """Ask for one user; the exit status says what went wrong."""
    base_url, file, name = sys.argv[1:]
    try:
        pinner = Pinner(load_policy(file))
    except PolicyError as error:  # with every fault and its place; without a policy there is nothing to do
        print(error, file=sys.stderr)
        return 2
    async with UserAPI(base_url, pinner) as api:
        try:
            print(await api.user(name))
        except NotOurServerError as error:
            print(f"REFUSED {error}", file=sys.stderr)
            return 3
        except APIError as error:
            print(error, file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
