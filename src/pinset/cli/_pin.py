"""
``pinset pin``: the pins of certificates, requests and keys in files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pinset.cli._output import next_step, put_record, put_table, read_input, refusing, source_name
from pinset.operate.material import Material, read_material


def pin_command(
    files: Annotated[list[str], typer.Argument(help="PEM or DER files; - for standard input.")],
    *,
    passphrase_file: Annotated[Path | None, typer.Option(help="The passphrase of encrypted private keys.")] = None,
    certificates: Annotated[
        bool, typer.Option("--certificates", help="The pins of whole certificates, for certificate_pins.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON record.")] = False,
) -> None:
    """
    Print the pins of certificates, signing requests and keys.
    """
    with refusing():
        passphrase = None if passphrase_file is None else passphrase_file.read_bytes().rstrip(b"\r\n")
        found = [
            material
            for path in files
            for material in read_material(read_input(path), source=source_name(path), passphrase=passphrase)
        ]
    if as_json:
        put_record({"pins": [_record(material) for material in found]})
        return
    rows = [
        [str(pin), material.kind.value, material.certificate.subject if material.certificate else "", material.source]
        for material in found
        if (pin := material.certificate_pin if certificates else material.pin) is not None
    ]
    put_table(["pin", "of", "subject", "file"], rows)
    next_step("put two of them, in service and backup, into a policy, then: pinset lint POLICY")


def _record(material: Material) -> dict[str, object]:
    certificate = material.certificate
    record: dict[str, object] = {"pin": str(material.pin), "of": material.kind.value, "file": material.source}
    if certificate is not None:
        record |= {
            "certificate_pin": str(material.certificate_pin),
            "subject": certificate.subject,
            "not_after": certificate.not_after.isoformat(),
            "ca": material.is_authority,
        }
    return record
