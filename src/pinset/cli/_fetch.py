"""
``pinset fetch``: the verified chains of servers, and a policy with the pins in service.
"""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from pinset._certificates import read_chain
from pinset._errors import InputError
from pinset._files import refuse_existing
from pinset._pins import Pin, PinKind
from pinset.cli._network import (
    CAFileOption,
    ConnectToOption,
    JobsOption,
    ProxyOption,
    StartTLSOption,
    TimeoutOption,
    make_context,
    make_targets,
    split_address,
)
from pinset.cli._output import Exit, next_step, progress, put_record, refusing, say, write_output
from pinset.operate.proposal import Sighting, describe, propose
from pinset.probe import ProbeError, Target, fetch_targets


def fetch_command(
    hosts: Annotated[list[str], typer.Argument(help="HOST or HOST:PORT.")],
    *,
    out: Annotated[Path | None, typer.Option(help="Write the policy to this file, which must not exist.")] = None,
    sni: Annotated[str | None, typer.Option(help="Another name to ask and verify for.")] = None,
    proxy: ProxyOption = None,
    ca_file: CAFileOption = None,
    starttls: StartTLSOption = None,
    connect_to: ConnectToOption = None,
    timeout: TimeoutOption = 10.0,
    jobs: JobsOption = 50,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON record.")] = False,
) -> None:
    """
    Show the verified chains of servers, and propose a policy with the pins in service.

    The output is a policy file: the chains stand in it as comments. Ends with 1 when a chain could not be had.
    """
    with refusing():
        if out is not None:
            refuse_existing(out)
        named = [split_address(text, 443) for text in hosts]
        targets = make_targets(named, connect_to, proxy, starttls, sni=sni)
        context = make_context(ca_file)
        with progress("connecting", len(targets)) as advance:
            work = fetch_targets(targets, context, timeout=timeout, jobs=jobs, on_done=advance)
            chains = asyncio.run(work)
        failed = [
            (target, chain) for target, chain in zip(targets, chains, strict=True) if isinstance(chain, ProbeError)
        ]
        sightings = [
            Sighting(target.host, _shown(target), sni or target.host, read_chain(chain))
            for target, chain in zip(targets, chains, strict=True)
            if not isinstance(chain, ProbeError)
        ]
        if as_json:
            put_record(_record(sightings, failed))
        elif sightings:
            write_output(propose(_one_for_each_host(sightings), datetime.now(UTC)), out)
    for target, error in failed:
        say(f"{target}: {error}", style="red")
    _advise([sighting.host for sighting in sightings], out)
    if failed:
        raise typer.Exit(Exit.FOUND)


def _one_for_each_host(sightings: list[Sighting]) -> list[Sighting]:
    """
    A policy has one rule for a host, whatever the port.

    Raises:
        InputError: A host has several chains.
    """
    found: dict[str, Sighting] = {}
    for sighting in sightings:
        first = found.setdefault(sighting.host, sighting)
        if first.chain != sighting.chain:
            raise InputError(
                f"{first.address} and {sighting.address} have different chains, and a policy has one rule for"
                f" {first.host}: fetch them one after the other, and put the pins of both into it"
            )
    return list(found.values())


def _shown(target: Target) -> str:
    host, port = target.address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _advise(hosts: list[str], out: Path | None) -> None:
    if not hosts:
        next_step("check name, port and network; --ca-file for a private authority, --starttls for mail and databases")
        return
    say("Missing: a backup pin for each host. With one pin, the next key change cuts every installed app off.")
    if not sys.stdout.isatty() and out is None:
        say("The output is a policy file; the chains are its comments.")
    next_step(f"pinset backup {hosts[0]} --policy {out or 'pins.toml'}")


def _record(sightings: list[Sighting], failed: list[tuple[Target, ProbeError]]) -> dict[str, object]:
    return {
        "hosts": [
            {
                "host": sighting.host,
                "address": sighting.address,
                "chain": [
                    {
                        "subject": certificate.subject,
                        "issuer": describe(certificate).issuer,
                        "key": describe(certificate).key,
                        "not_before": certificate.not_before.isoformat(),
                        "not_after": certificate.not_after.isoformat(),
                        "pin": str(Pin(PinKind.SPKI, certificate.spki_sha256)),
                        "certificate_pin": str(Pin(PinKind.CERTIFICATE, certificate.certificate_sha256)),
                    }
                    for certificate in sighting.chain
                ],
            }
            for sighting in sightings
        ],
        "failed": [
            {"host": target.host, "port": target.port, "result": error.result.value, "reason": str(error)}
            for target, error in failed
        ],
    }
