"""
``pinset lint``: faults and risks of a policy, without a network.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from pinset._certificates import Certificate
from pinset._pinner import load_policy
from pinset.cli._moment import AtOption, moment
from pinset.cli._output import Exit, next_step, put, put_record, read_input, refusing, say, source_name
from pinset.operate.lint import Finding, Surroundings, Weight, lint
from pinset.operate.material import read_material


def lint_command(
    policy: Annotated[Path, typer.Argument(help="A policy file, .toml or .json.")],
    *,
    chain: Annotated[list[str] | None, typer.Option(help="Certificates of the hosts, PEM or DER. Repeatable.")] = None,
    at: AtOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON record.")] = False,
) -> None:
    """
    Find faults and risks in a policy, each with its reason and its fix.

    Ends with 1 when a risk was found, with 2 when the policy cannot be read.
    """
    with refusing():
        loaded = load_policy(policy)
        certificates = tuple(_certificates(chain or []))
        around = Surroundings(now=moment(at), certificates=certificates, is_public_suffix=_public_suffixes())
        findings = lint(loaded, around)
    risks = sum(finding.weight is Weight.RISK for finding in findings)
    if as_json:
        put_record({"policy": str(policy), "findings": [_record(finding) for finding in findings]})
    for finding in () if as_json else findings:
        put(f"{finding.weight} {finding.rule}: {finding.place}: {finding.reason}\n  fix: {finding.fix}")
    hosts = len(loaded.pin_sets)
    counted = f"{hosts} rule{'s' * (hosts != 1)}, {risks} risk{'s' * (risks != 1)}, {len(findings) - risks} notes"
    say(f"{policy}: {counted}", style="yellow" if risks else "green")
    next_step("fix the risks, and lint again" if risks else f"pinset check {policy}")
    if risks:
        raise typer.Exit(Exit.FOUND)


def _certificates(paths: list[str]) -> list[Certificate]:
    return [
        material.certificate
        for path in paths
        for material in read_material(read_input(path), source=source_name(path))
        if material.certificate is not None
    ]


def _public_suffixes() -> Callable[[str], bool]:
    from publicsuffixlist import PublicSuffixList

    suffixes = PublicSuffixList(accept_unknown=False)  # a name of an internal network is nobody's to register
    return lambda name: bool(suffixes.is_public(name))


def _record(finding: Finding) -> dict[str, str]:
    return {
        "rule": finding.rule,
        "weight": finding.weight.value,
        "place": finding.place,
        "reason": finding.reason,
        "fix": finding.fix,
    }
