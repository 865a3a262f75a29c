"""
``pinset convert``: pins from one format into another, with what is lost on the way.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pinset._policy import Role
from pinset.cli._moment import moment
from pinset.cli._output import Exit, next_step, put_record, read_input, refusing, say, source_name, write_output
from pinset.formats.conversion import FormatName, convert
from pinset.formats.exchange import Circumstances, Effect, Loss
from pinset.operate.material import read_material, roles_of


class RoleName(StrEnum):
    """
    What the keys in ``pins`` are, for formats that ask.
    """

    LEAF = "leaf"
    CA = "ca"


_ROLES = {RoleName.LEAF: Role.LEAF, RoleName.CA: Role.CA}
_STYLES = {Effect.WEAKENS: "bold red", Effect.TIGHTENS: "yellow", Effect.NOTHING: ""}


def convert_command(
    file: Annotated[str, typer.Argument(help="What to convert; - for standard input.")],
    *,
    source: Annotated[FormatName | None, typer.Option("--from", help="Its format; known for .toml and .json.")] = None,
    target: Annotated[FormatName, typer.Option("--to", help="The format to write.")] = FormatName.TOML,
    chain: Annotated[
        list[str] | None,
        typer.Option(
            help="Certificates, leaf first, that say of keys whether they are a leaf's or a CA's. Repeatable."
        ),
    ] = None,
    role: Annotated[RoleName | None, typer.Option(help="What keys are that no --chain shows.")] = None,
    host: Annotated[str | None, typer.Option(help="The host, for curl and hpkp.")] = None,
    port: Annotated[int, typer.Option(help="The port of TLSA records.", min=1, max=65535)] = 443,
    allow_loss: Annotated[bool, typer.Option("--allow-loss", help="Write although pins are weakened.")] = False,
    out: Annotated[Path | None, typer.Option(help="Write to this file instead of standard output.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON record: text and losses.")] = False,
) -> None:
    """
    Convert pins between a policy and other systems.

    A loss that weakens ends with status 3 and writes nothing, unless --allow-loss is given.
    """
    with refusing():
        source_format = _source_format(file, source)
        roles = roles_of([read_material(read_input(path), source=source_name(path)) for path in chain or ()])
        around = Circumstances(
            host=host,
            now=moment(),
            port=port,
            roles=roles,
            other_roles=None if role is None else _ROLES[role],
        )
        done = convert(read_input(file), source_format, target, around, source=source_name(file))
        for loss in done.losses:
            say(_sentence(loss), style=_STYLES[loss.effect])
        weakens = any(loss.weakens for loss in done.losses)
        is_written = allow_loss or not weakens
        if as_json:
            text = done.text if is_written else None
            put_record({"from": source_format.value, "to": target.value, "text": text, "losses": _records(done.losses)})
        elif is_written:
            write_output(done.text, out)
    if not is_written:
        say("nothing was written: the result would be weaker than the source")
        next_step("change the source, or accept every loss above: pinset convert … --allow-loss")
        raise typer.Exit(Exit.ATTENTION)


def _source_format(file: str, given: FormatName | None) -> FormatName:
    if given is not None:
        return given
    suffix = Path(file).suffix.lower().removeprefix(".")
    if suffix not in ("toml", "json"):
        raise typer.BadParameter(f"say what {file} is: {', '.join(FormatName)}", param_hint="--from")
    return FormatName(suffix)


def _records(losses: Iterable[Loss]) -> list[dict[str, str]]:
    return [{"place": loss.place, "what": loss.what, "effect": loss.effect.value} for loss in losses]


def _sentence(loss: Loss) -> str:
    return f"{loss.effect.value if loss.effect is not Effect.NOTHING else 'note'}: {loss}"
