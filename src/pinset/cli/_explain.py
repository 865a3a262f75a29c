"""
``pinset explain``: which rule applies to a host, why, and what would happen.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pinset._pinner import load_policy
from pinset.cli._moment import AtOption, moment
from pinset.cli._output import next_step, put, put_record, refusing
from pinset.operate.explain import Explanation, explain


def explain_command(
    policy: Annotated[Path, typer.Argument(help="A policy file, .toml or .json.")],
    host: Annotated[str, typer.Argument(help="A host name or address.")],
    *,
    at: AtOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON record.")] = False,
) -> None:
    """
    Say which rule applies to a host, why, and what would happen.
    """
    with refusing():
        explanation = explain(load_policy(policy), host, moment(at))
    if as_json:
        put_record(_record(explanation))
        return
    rule = explanation.rule
    put(f"{explanation.host}: {'no rule' if rule is None else f'{rule.name} ({rule.mode})'}")
    put(f"  because {explanation.why}")
    for pattern in explanation.passed_over:
        put(f"  not     {pattern}")
    for requirement in rule.requirements if rule else ():
        put(f"  {requirement.role.value}")
        for pin in requirement.pins:
            put(f"    {pin}")
    if rule is not None and rule.rotation:
        put(f"  rotation: {rule.rotation}")
    width = max(len(condition) for condition, _ in explanation.consequences)
    for condition, consequence in explanation.consequences:
        put(f"  {condition.ljust(width)}  {consequence}")
    next_step(f"pinset check {policy} --host {explanation.host}" if rule else f"pinset fetch {explanation.host}")


def _record(explanation: Explanation) -> dict[str, object]:
    rule = explanation.rule
    return {
        "host": explanation.host,
        "rule": None if rule is None else rule.name,
        "mode": None if rule is None else rule.mode.value,
        "pattern": None if explanation.pattern is None else str(explanation.pattern),
        "why": explanation.why,
        "passed_over": [str(pattern) for pattern in explanation.passed_over],
        "pins": {requirement.role.value: list(map(str, requirement.pins)) for requirement in rule.requirements}
        if rule
        else {},
        "rotation": rule.rotation if rule else "",
        "consequences": [{"when": when, "then": then} for when, then in explanation.consequences],
    }
