"""
Many connections at a time, and never more than are asked for.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Sequence
from datetime import datetime

from pinset._certificates import read_chain
from pinset._evaluate import evaluate
from pinset._policy import Policy
from pinset._verdict import Decision, Outcome, Verdict
from pinset.operate.record import Record, Result, seen
from pinset.probe._connect import ProbeError, Target, fetch_chain


async def fetch_targets(
    targets: Sequence[Target],
    context: ssl.SSLContext,
    *,
    timeout: float,  # noqa: ASYNC109 - handed down
    jobs: int,
    on_done: Callable[[], None] = lambda: None,
) -> list[tuple[bytes, ...] | ProbeError]:
    """
    The chain of every target, or why there is none, in the order of *targets*.

    Args:
        targets: What to connect to.
        context: Verifies; see `fetch_chain`.
        timeout: Seconds for each connection.
        jobs: How many at a time.
        on_done: Called after each.

    Raises:
        InputError: A proxy cannot be used.
    """
    gate = asyncio.Semaphore(jobs)

    async def one(target: Target) -> tuple[bytes, ...] | ProbeError:
        async with gate:
            try:
                return await fetch_chain(target, context, timeout=timeout)
            except ProbeError as error:
                return error
            finally:
                on_done()

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(target)) for target in targets]
    except BaseExceptionGroup as group_error:
        raise group_error.exceptions[0] from None  # each would say the same: what was given cannot be used
    return [task.result() for task in tasks]


async def check_targets(
    policy: Policy,
    targets: Sequence[Target],
    context: ssl.SSLContext,
    *,
    now: datetime,
    timeout: float,  # noqa: ASYNC109 - handed down
    jobs: int,
    on_done: Callable[[], None] = lambda: None,
) -> list[Record]:
    """
    What *policy* says of every target, in the order of *targets*.

    Args:
        policy: The policy; a rule covers the host of every target.
        targets: What to connect to.
        context: Verifies; see `fetch_chain`.
        now: The instant of the check, aware.
        timeout: Seconds for each connection.
        jobs: How many at a time.
        on_done: Called after each.

    Raises:
        InputError: A proxy cannot be used.
    """
    chains = await fetch_targets(targets, context, timeout=timeout, jobs=jobs, on_done=on_done)
    return [_record(policy, target, chain, now) for target, chain in zip(targets, chains, strict=True)]


def _record(policy: Policy, target: Target, chain: tuple[bytes, ...] | ProbeError, now: datetime) -> Record:
    rule = policy.find(target.host)
    assert rule is not None  # or the caller would not have made it a target
    if isinstance(chain, ProbeError):
        return Record(
            at=now, host=target.host, port=target.port, rule=rule.name, result=chain.result, detail=str(chain)
        )
    verdict = evaluate(policy, target.host, chain, now)
    certificates = verdict.chain or read_chain(chain)
    return Record(
        at=now,
        host=target.host,
        port=target.port,
        rule=rule.name,
        result=_result(verdict),
        matched=verdict.matched,
        chain=tuple(map(seen, certificates)),
        detail=verdict.detail,
    )


def _result(verdict: Verdict) -> Result:
    # Whatever the mode: a report-only rule that does not match is what somebody wants to know before enforcing it.
    if verdict.outcome is not Outcome.MATCHED:
        return Result.MISMATCHED
    return Result.EXPIRED if verdict.decision is Decision.REFUSE else Result.MATCHED
