"""
``pinset backup``: a key that is not in service, its signing request, and its pin in the policy.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from pinset._errors import InputError
from pinset._files import refuse_existing, replace_file, write_new
from pinset._hosts import canonical_host
from pinset.cli._output import next_step, put, put_record, refusing, say
from pinset.operate.backup import KeyType, add_backup, make_backup


def backup_command(
    host: Annotated[str, typer.Argument(help="The host that the key is for.")],
    *,
    policy: Annotated[
        Path | None, typer.Option(help="Add the pin to the rule of the host in this policy, TOML.")
    ] = None,
    directory: Annotated[Path, typer.Option("--dir", help="Where key and request go.")] = Path(),
    key_type: Annotated[KeyType, typer.Option(help="EC P-256, or RSA with 3072 bits.")] = KeyType.EC,
    passphrase_file: Annotated[Path | None, typer.Option(help="The passphrase; asked for without.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON record.")] = False,
) -> None:
    """
    Make a backup key: encrypted, mode 0600, never in place of another; its signing request and its pin.
    """
    with refusing():
        name = canonical_host(host)
        stem = name.replace(":", "_")
        key_file, request_file = (directory / f"{stem}.backup.{suffix}" for suffix in ("key", "csr"))
        _check_files(key_file, request_file, policy)
        made = make_backup(name, kind=key_type, passphrase=_passphrase(passphrase_file))
        amended = None
        if policy is not None:
            text = policy.read_text(encoding="utf-8")
            comment = f"backup, made on {datetime.now(UTC):%Y-%m-%d}: {key_file.name}"
            amended = add_backup(text, name, made.pin, comment=comment, source=str(policy))
        write_new(key_file, made.key_pem, mode=0o600)
        try:
            write_new(request_file, made.request_pem, mode=0o644)
        except OSError:
            key_file.unlink()
            raise
        if policy is not None and amended is not None:
            replace_file(policy, amended.encode())
    if as_json:
        put_record({"host": name, "pin": str(made.pin), "key": str(key_file), "request": str(request_file)})
    else:
        put(str(made.pin))
    say(
        f"{key_file}  the private key, encrypted. Keep it where the server's key is not, with its passphrase elsewhere."
    )
    say(f"{request_file}  the signing request, for the day on which it goes into service.")
    if policy is None:
        next_step(f"add the pin to the rule of {name}, then: pinset lint POLICY")
    else:
        say(f"{policy}  has the pin, beside those of the rule.")
        next_step(f"pinset lint {policy}, then ship it: a backup protects only the apps that know it")


def _check_files(key_file: Path, request_file: Path, policy: Path | None) -> None:
    for path in (key_file, request_file):
        refuse_existing(path)
    if policy is not None and policy.suffix != ".toml":
        raise InputError(f"{policy} is not TOML; add the pin by hand, or convert: pinset convert {policy} --to toml")


def _passphrase(file: Path | None) -> bytes:
    if file is not None:
        return file.read_bytes().rstrip(b"\r\n")
    if not sys.stdin.isatty():
        raise InputError("a private key is kept encrypted: give --passphrase-file, or run this on a terminal")
    return str(typer.prompt("passphrase", hide_input=True, confirmation_prompt=True, err=True)).encode()
