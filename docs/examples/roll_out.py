"""
From report-only to enforce, on this machine alone: a server, a receiver of reports, a wrong pin, and the right one.

    python docs/examples/roll_out.py
"""

from __future__ import annotations

import asyncio
import logging

from pinset import Mode, Pin, PinKind, PinMismatchError, PinnedAsyncClient, Pinner, PinSet, Policy
from pinset.reports import CallbackReports, HTTPReports, PinReport
from pinset.testing import Authority, TLSServer

authority = Authority()
in_service, backup = authority.issue("localhost"), authority.issue("localhost")


def policy(pins: list[str], mode: Mode) -> Policy:
    """The policy for the server, with the given pins."""
    return Policy((PinSet(name="localhost", pins=pins, mode=mode),))


def show(title: str, pinner: Pinner) -> None:
    """The numbers to watch."""
    pinner.reporter.flush()
    print(title)
    for (rule, outcome, decision), number in pinner.reporter.checks.items():
        print(f"  checks   {rule}: {outcome}, {decision}: {number}")
    for sink, counts in pinner.reporter.counts.items():
        print(f"  reports  {sink}: {counts.sent} sent, {counts.deduplicated} the same, {dict(counts.failed)} failed")


async def main() -> None:
    """The four steps."""
    logging.basicConfig(level=logging.CRITICAL)  # the reports in the log are for another page
    told: list[PinReport] = []
    receiver_identity = authority.issue("127.0.0.1")
    with (
        TLSServer(in_service.server_context()) as server,
        TLSServer(receiver_identity.server_context()) as receiver,
    ):
        sinks = [HTTPReports(receiver.url("127.0.0.1"), cadata=authority.root_pem), CallbackReports(told.append)]

        # 1. The pins are wrong, and nobody notices but the receiver.
        wrong = [backup.pin, authority.issue("localhost").pin]
        pinner = Pinner(policy(wrong, Mode.REPORT_ONLY), observers=sinks)
        async with PinnedAsyncClient(pinner, verify=authority.client_context()) as client:
            for _ in range(3):
                await client.get(server.url(), headers={"Connection": "close"})
        show("report-only, wrong pins:", pinner)
        print(f"  received {receiver.seen.requests[0].splitlines()[0].decode()}")
        print(f"  report   {told[0].to_json()[:120]}…")

        # 2. The report says what the server holds: compared over another network, that is the pin.
        pins = [str(Pin(PinKind.SPKI, told[0].verdict.chain[0].spki_sha256)), backup.pin]
        assert pins[0] == in_service.pin

        # 3. The right pins, still report-only: matches and nothing else, for as long as it takes to be sure.
        pinner = Pinner(policy(pins, Mode.REPORT_ONLY), observers=sinks)
        async with PinnedAsyncClient(pinner, verify=authority.client_context()) as client:
            await client.get(server.url())
            show("report-only, right pins:", pinner)

            # 4. Enforce. The same client goes on; a server with another key is refused.
            pinner.replace(policy(pins, Mode.ENFORCE))
            await client.get(server.url())
            server.replace_context(authority.issue("localhost").server_context())
            try:
                await client.get(server.url(), headers={"Connection": "close"})
                await client.get(server.url())
            except PinMismatchError:
                show("enforced, and a stranger came:", pinner)


if __name__ == "__main__":
    asyncio.run(main())
