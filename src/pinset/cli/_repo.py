"""
``pinset repo``: a repository of signed pin sets. Here the commands that sign; those that look are in `_repo_state`.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pinset._errors import InputError
from pinset._files import refuse_existing, write_new
from pinset._pinner import load_policy
from pinset._policy import Policy
from pinset.cli._moment import moment
from pinset.cli._network import (
    CAFileOption,
    ConnectToOption,
    JobsOption,
    TimeoutOption,
    make_context,
    split_address,
)
from pinset.cli._output import Exit, fail, next_step, put, put_record, refusing, say

if TYPE_CHECKING:
    from securesystemslib.signer import CryptoSigner

    from pinset.updates import KeyRole

DirectoryArgument = Annotated[Path, typer.Argument(help="The repository: a directory with metadata and targets.")]
KeyOption = Annotated[list[Path], typer.Option("--key", help="A private key that pinset repo has made. Repeatable.")]
PassphraseOption = Annotated[
    Path | None, typer.Option("--passphrase-file", help="The passphrase of all keys; asked for without.")
]
JSONOption = Annotated[bool, typer.Option("--json", help="One JSON record.")]


def need_updates() -> None:
    """
    Make sure that the extra is there.

    Raises:
        InputError: It is not.
    """
    try:
        import pinset.updates  # noqa: F401 - asked for here, so that the message is one
    except ModuleNotFoundError as error:
        raise InputError(str(error)) from error


def init_command(
    directory: DirectoryArgument,
    *,
    keys: Annotated[Path, typer.Option(help="Where the private keys go: not where the repository is served from.")],
    root_keys: Annotated[int, typer.Option(help="How many keys the root has.", min=1, max=16)] = 3,
    root_threshold: Annotated[int, typer.Option(help="How many of them sign a root.", min=1, max=16)] = 2,
    targets_keys: Annotated[int, typer.Option(help="How many keys may sign policies.", min=1, max=16)] = 1,
    targets_threshold: Annotated[int, typer.Option(help="How many of them sign a policy.", min=1, max=16)] = 1,
    passphrase_file: PassphraseOption = None,
    as_json: JSONOption = False,
) -> None:
    """
    Make a repository and its keys, each encrypted with a passphrase.
    """
    with refusing():
        need_updates()
        if root_threshold > root_keys or targets_threshold > targets_keys:
            raise InputError("a threshold is higher than the number of keys: nobody could ever sign")
        if (directory / "metadata").exists():
            raise InputError(f"{directory} holds a repository already")
        names = [f"root-{number + 1}" for number in range(root_keys)]
        names += [f"targets-{number + 1}" for number in range(targets_keys)]
        made = _make_keys(keys, [*names, "online"], passphrase_file)
        _init(directory, list(made.values()), root_keys, root_threshold, targets_threshold)
    root = directory / "metadata" / "1.root.json"
    if as_json:
        listed = [
            {"name": file.stem, "file": str(file), "keyid": signer.public_key.keyid} for file, signer in made.items()
        ]
        put_record({"directory": str(directory), "root": str(root), "keys": listed})
    else:
        put(str(root))
    for file, signer in made.items():
        say(f"{file}  {signer.public_key.keyid}")
    say(
        f"Each root key to a person and a place of its own; {root_threshold} of them can replace any key, and nobody else."
    )
    say(f"{root}  goes into your program: all trust begins there.")
    next_step(f"pinset repo publish {directory} POLICY --key {keys}/targets-1.key --key {keys}/online.key")


def _make_keys(directory: Path, names: Sequence[str], passphrase_file: Path | None) -> dict[Path, CryptoSigner]:
    """New keys in files of their own, all or none."""
    from pinset.updates._keys import lock_up, make_signer

    made = {directory / f"{name}.key": make_signer() for name in names}
    locked = {file: lock_up(signer, _new_passphrase(passphrase_file, file)) for file, signer in made.items()}
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    written: list[Path] = []
    try:
        for file, data in locked.items():
            write_new(file, data, mode=0o600)
            written.append(file)
    except BaseException:
        for file in written:
            file.unlink()
        raise
    return made


def _init(
    directory: Path, signers: Sequence[CryptoSigner], root_keys: int, root_threshold: int, targets_threshold: int
) -> None:
    from pinset.updates import Keys, Repository

    public = [signer.public_key for signer in signers]
    keys = Keys(
        root=public[:root_keys],
        root_threshold=root_threshold,
        targets=public[root_keys:-1],
        targets_threshold=targets_threshold,
        online=public[-1],
    )
    Repository(directory).init(keys, signers, moment())


def publish_command(
    directory: DirectoryArgument,
    policy: Annotated[Path, typer.Argument(help="A policy file, .toml or .json.")],
    *,
    key: KeyOption,
    passphrase_file: PassphraseOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Publish in spite of objections.")] = False,
    verify_live: Annotated[
        bool, typer.Option("--verify-live", help="Connect to every host first, and object if one does not match.")
    ] = False,
    ca_file: CAFileOption = None,
    connect_to: ConnectToOption = None,
    timeout: TimeoutOption = 10.0,
    jobs: JobsOption = 50,
    as_json: JSONOption = False,
) -> None:
    """
    Sign a policy. With the online key at hand it is in service at once; else after pinset repo refresh.

    Ends with 1 when something speaks against it and --force is not given.
    """
    with refusing():
        need_updates()
        from pinset.updates import Repository
        from pinset.updates._changes import changes, objections

        repository = Repository(directory)
        loaded, before = load_policy(policy), repository.policy()
        differences = changes(before, loaded)
        faults = [str(fault) for fault in objections(before, loaded)]
        if verify_live:
            faults += _mismatches(loaded, ca_file, connect_to, timeout, jobs)
        _show(differences, faults)
        if faults and not force:
            raise fail("nothing was signed", status=Exit.FOUND, step="mend that, or say --force")
        _confirm("sign this?", yes=yes)
        in_service = repository.publish(loaded, _signers(key, passphrase_file), moment())
    if as_json:
        put_record({"changes": differences, "objections": faults, "in_service": in_service})
    say(f"{policy} was signed{'' if in_service else ', and is not in service yet'}")
    if in_service:
        next_step(f"upload {directory}, metadata/timestamp.json last, then: pinset repo check URL")
    else:
        next_step(f"pinset repo refresh {directory} --key online.key, where that key is")


def _show(differences: Sequence[str], faults: Sequence[str]) -> None:
    for line in differences:
        say(line, style={"+": "green", "-": "red"}.get(line[0], ""))
    if not differences:
        say("The policy says what the published one says.")
    for fault in faults:
        say(f"objection: {fault}", style="yellow")


def refresh_command(
    directory: DirectoryArgument,
    *,
    key: KeyOption,
    passphrase_file: PassphraseOption = None,
    as_json: JSONOption = False,
) -> None:
    """
    Renew what the keys can renew: with the online key the timestamp, every day by cron; with others their files.
    """
    with refusing():
        need_updates()
        from pinset.updates import Repository

        signed = Repository(directory).refresh(_signers(key, passphrase_file), moment())
    if as_json:
        put_record({"signed": signed})
    say(f"signed: {', '.join(signed)}")
    next_step(f"upload {directory}, metadata/timestamp.json last")


def rotate_key_command(
    directory: DirectoryArgument,
    role: Annotated[str, typer.Argument(help="root, targets or online.")],
    *,
    old: Annotated[str, typer.Option(help="The identifier of the key that goes, or the beginning of it.")],
    new_key: Annotated[Path, typer.Option(help="Where the new private key goes.")],
    key: KeyOption,
    passphrase_file: PassphraseOption = None,
    as_json: JSONOption = False,
) -> None:
    """
    Put a new key in the place of one that is lost, stolen or old. Takes enough root keys.
    """
    with refusing():
        need_updates()
        from pinset.updates import Repository
        from pinset.updates._keys import lock_up, make_signer

        repository, what = Repository(directory), _role(role)
        keyid = _whole_keyid(old, repository.root.roles["timestamp" if role == "online" else role].keyids)
        new = make_signer()
        locked = lock_up(new, _new_passphrase(passphrase_file, new_key))
        signers = [*_signers(key, passphrase_file), new]
        write_new(new_key, locked, mode=0o600)
        try:
            signed = repository.rotate(what, keyid, new.public_key, signers, moment())
        except BaseException:
            new_key.unlink()
            raise
    if as_json:
        put_record({"signed": signed, "old": keyid, "new": new.public_key.keyid, "key": str(new_key)})
    say(f"{new_key}  {new.public_key.keyid}")
    say(f"signed: {', '.join(signed)}")
    if what != "root" and "timestamp" not in signed:
        next_step(f"pinset repo refresh {directory}, with the keys of targets and online; upload nothing before")
    else:
        next_step(f"upload {directory}, metadata/timestamp.json last, then: pinset repo check URL")


def _role(text: str) -> KeyRole:
    from pinset.updates import KeyRole

    try:
        return KeyRole(text)
    except ValueError:
        raise InputError(f"{text!r} is no role; write root, targets or online") from None


def _whole_keyid(text: str, known: Sequence[str]) -> str:
    found = [keyid for keyid in known if keyid.startswith(text)] if text else []
    if len(found) != 1:
        raise InputError(f"{text!r} is not the beginning of one key of that role: {', '.join(known)}")
    return found[0]


def _mismatches(policy: Policy, ca_file: Path | None, connect_to: str | None, timeout: float, jobs: int) -> list[str]:
    """What the hosts of the policy show that it would refuse."""
    from pinset.operate.health import hosts_to_check
    from pinset.probe import Target, check_targets

    elsewhere = None if connect_to is None else split_address(connect_to, 443)
    targets = [Target(host=name, port=443, connect_to=elsewhere) for name in hosts_to_check(policy)[0]]
    context = make_context(ca_file)
    records = asyncio.run(check_targets(policy, targets, context, now=moment(), timeout=timeout, jobs=jobs))
    return [
        f"{record.host}: its server is {record.result} today{f': {record.detail}' if record.detail else ''}"
        for record in records
        if not record.result.is_good
    ]


def _signers(files: Sequence[Path], passphrase_file: Path | None) -> list[CryptoSigner]:
    from pinset.updates._keys import unlock

    return [unlock(file.read_bytes(), _passphrase(passphrase_file, file), source=str(file)) for file in files]


def _passphrase(passphrase_file: Path | None, key: Path) -> bytes:
    if passphrase_file is not None:
        return passphrase_file.read_bytes().rstrip(b"\r\n")
    if not sys.stdin.isatty():
        raise InputError(f"{key} is encrypted: give --passphrase-file, or run this on a terminal")
    return str(typer.prompt(f"passphrase of {key.name}", hide_input=True, err=True)).encode()


def _new_passphrase(passphrase_file: Path | None, key: Path) -> bytes:
    refuse_existing(key)
    if passphrase_file is not None or not sys.stdin.isatty():
        return _passphrase(passphrase_file, key)
    prompt = f"new passphrase for {key.name}"
    return str(typer.prompt(prompt, hide_input=True, confirmation_prompt=True, err=True)).encode()


def _confirm(question: str, *, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise InputError("nobody is there to agree: give --yes, or run this on a terminal")
    if not typer.confirm(question, err=True):
        raise typer.Exit(Exit.REFUSED)
