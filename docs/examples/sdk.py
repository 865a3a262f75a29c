"""
The openai SDK over pinned connections: a client of ours in the place of its own.

    OPENAI_API_KEY=… python docs/examples/sdk.py https://api.example.com/v1 pins.toml "What is a pin?"
"""

from __future__ import annotations

import asyncio
import os
import sys

import httpx2
import openai

from pinset import Policy, RefusedError, load_policy
from pinset.httpx2 import PinnedAsyncClient


def open_sdk(base_url: str, policy: Policy) -> openai.AsyncOpenAI:
    """The SDK; it asks nobody but the holder of a pinned key."""
    # Our client replaces the SDK's with all its defaults, so those that matter are said again. Its timeout of 600
    # seconds stays, as long as we name none.
    limits = httpx2.Limits(max_connections=1000, max_keepalive_connections=100)
    http_client = PinnedAsyncClient(policy, follow_redirects=True, limits=limits)
    return openai.AsyncOpenAI(base_url=base_url, http_client=http_client)


def refusal(error: BaseException | None) -> RefusedError | None:
    """The refusal behind an error of the SDK, or None."""
    while error is not None and not isinstance(error, RefusedError):
        error = error.__cause__ or error.__context__
    return error


async def main() -> int:
    """Ask one question."""
    base_url, file, question = sys.argv[1:]
    async with open_sdk(base_url, load_policy(file)) as client:
        try:
            answer = await client.chat.completions.create(
                model=os.environ.get("MODEL", "gpt-5-mini"), messages=[{"role": "user", "content": question}]
            )
        except openai.APIConnectionError as error:
            # The SDK has tried three times by now, whatever was wrong: three handshakes, no byte of the question.
            refused = refusal(error)
            print(error if refused is None else f"REFUSED {refused}", file=sys.stderr)
            return 1 if refused is None else 3
    print(answer.choices[0].message.content)
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
