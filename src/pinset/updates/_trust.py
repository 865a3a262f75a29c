"""
Which files of a TUF repository to believe: the client workflow of the TUF specification (section 5), without I/O.

Rules of this module:

1. `follow` is a generator: it yields the file that it wants next and is sent its bytes. It opens nothing, reads no clock,
   and knows neither network nor disk; whoever drives it does.
2. Nothing of a file is used before its signatures are verified by the root in force.
3. One instant is "now" for the whole of an update (section 5.1).
4. The result is complete or there is none. What was verified in half an update is not remembered: it would protect
   against nobody, since who can stop an update in the middle can stop it at the beginning.
5. Keys of a role that were changed take what they have signed along (section 5.3.11): a file that is kept counts only
   while it verifies under the newest root.
6. Delegations are not followed, and only repositories with consistent snapshots are accepted.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypeVar

from tuf.api.exceptions import LengthOrHashMismatchError
from tuf.api.metadata import Metadata, MetaFile, Role, Root, Snapshot, TargetFile, Targets, Timestamp
from tuf.api.serialization import DeserializationError, SerializationError

from pinset._errors import InputError
from pinset.updates._errors import UpdateError, UpdateFault

TIMESTAMP = "metadata/timestamp.json"
_KIB = 1024
_ROOT_LIMIT, _TIMESTAMP_LIMIT, _SNAPSHOT_LIMIT, _TARGETS_LIMIT = 64 * _KIB, 4 * _KIB, 64 * _KIB, 256 * _KIB
_TARGET_LIMIT = 4 * _KIB * _KIB
_MOST_ROOTS = 64

S = TypeVar("S", Root, Timestamp, Snapshot, Targets)
N = TypeVar("N", Snapshot, Targets)  # what another file names with its version
T = TypeVar("T")
Signed = Root | Timestamp | Snapshot | Targets
Steps = Generator["Want", bytes | None, T]


@dataclass(frozen=True, slots=True)
class Want:
    """
    A file that is needed next.

    Attributes:
        path: Below the URL of the repository.
        limit: The most bytes that it may have.
        optional: Whether the answer may be that there is none.
    """

    path: str
    limit: int
    optional: bool = False


@dataclass(frozen=True, slots=True)
class RoleState:
    """
    One role of a repository.

    Attributes:
        role: root, targets, snapshot or timestamp.
        version: The version that was verified.
        expires: When that expires.
        threshold: How many keys have to sign it.
        keys: How many there are.
    """

    role: str
    version: int
    expires: datetime
    threshold: int
    keys: int


@dataclass(frozen=True, slots=True)
class Verified:
    """
    What an update ends with. Made by `follow` and nowhere else.

    Attributes:
        files: Every file that it rests on, by path: enough to verify it again without a network.
        target: The file that it is all about.
        roles: Root, targets, snapshot and timestamp.
    """

    files: Mapping[str, bytes] = field(repr=False)
    target: bytes = field(repr=False)
    roles: tuple[RoleState, ...]

    @property
    def versions(self) -> dict[str, int]:
        """
        The version of each role.
        """
        return {state.role: state.version for state in self.roles}

    @property
    def expires(self) -> datetime:
        """
        The first instant at which one of them is past its expiry.
        """
        return min(state.expires for state in self.roles)


def follow(anchor: bytes, known: Mapping[str, bytes], *, name: str, now: datetime) -> Steps[Verified]:
    """
    Go from the root that the program brings along to the target file called *name*.

    Args:
        anchor: A root, as bytes; `read_anchor` has accepted it.
        known: `Verified.files` of the update before, against rollback and to spare requests; empty for none.
        name: The path of the target file in the repository.
        now: The present instant, aware.

    Yields:
        Each file that is wanted. Send its bytes, or None for an optional one that the server does not have.

    Raises:
        UpdateError: A file is not to be believed.
    """
    files: dict[str, bytes] = {}
    root = yield from _follow_roots(read_anchor(anchor), files)
    _refuse_expired(root, now)
    before = _Before.of(known, root)
    timestamp = yield from _follow_timestamp(root, before, files, now)
    snapshot = yield from _follow_snapshot(root, timestamp, before, files, now)
    targets = yield from _follow_targets(root, snapshot, before, files, now)
    target = yield from _follow_target(targets, name, before, files)
    signed: tuple[Signed, ...] = (root, targets, snapshot, timestamp)
    return Verified(files, target, tuple(_state(each, root.roles[each.type]) for each in signed))


def _state(signed: Signed, role: Role) -> RoleState:
    return RoleState(signed.type, signed.version, signed.expires, role.threshold, len(role.keyids))


def verify_again(anchor: bytes, read: Callable[[str], bytes | None], *, name: str) -> Verified:
    """
    Verify `Verified.files` that were kept, whether or not they have expired since.

    Args:
        anchor: The root that the program brings along.
        read: Returns a file by its path, or None.
        name: As for `follow`.

    Raises:
        UpdateError: They do not verify, or not all are there.
    """
    steps = follow(anchor, {}, name=name, now=datetime.min.replace(tzinfo=UTC))
    try:
        want = next(steps)
        while True:
            data = read(want.path)
            if data is None and not want.optional:
                raise UpdateError(f"{want.path} is missing", fault=UpdateFault.INVALID)
            want = steps.send(data)
    except StopIteration as end:
        verified: Verified = end.value
        return verified


def read_anchor(data: bytes) -> Root:
    """
    The root that a program brings along, which only itself can vouch for.

    Raises:
        InputError: It is no root, or not signed by enough of its own keys.
    """
    try:
        metadata = parse(data, Root, "the root that was given")
        return vouched(metadata, metadata.signed)
    except UpdateError as error:
        raise InputError(f"{error}; give the bytes of an N.root.json of the repository") from error


@dataclass(frozen=True, slots=True)
class _Before:
    """
    What the update before knew, as far as the newest root still vouches for it.
    """

    files: Mapping[str, bytes]
    timestamp: Timestamp | None = None
    snapshot: Snapshot | None = None

    @classmethod
    def of(cls, files: Mapping[str, bytes], root: Root) -> _Before:
        """
        Both or neither: where one key was changed, the other file may hold versions that nobody can ever reach again.
        """
        with suppress(UpdateError, KeyError):
            timestamp = _read(files[TIMESTAMP], Timestamp, root)
            return cls(files, timestamp, _read(files[_snapshot_path(timestamp)], Snapshot, root))
        return cls(files)

    def obtain(self, want: Want, read: Callable[[bytes], T], files: dict[str, bytes]) -> Steps[T]:
        """A file that is kept, if it is still what is wanted; else a new one."""
        with suppress(UpdateError, KeyError):
            result = read(self.files[want.path])
            files[want.path] = self.files[want.path]
            return result
        data = yield want
        assert data is not None  # it is not optional
        result = read(data)
        files[want.path] = data
        return result


def _follow_roots(root: Root, files: dict[str, bytes]) -> Steps[Root]:
    """Section 5.3: each root is signed by enough keys of the one before, and of its own."""
    for _ in range(_MOST_ROOTS):
        path = f"metadata/{root.version + 1}.root.json"
        data = yield Want(path, _ROOT_LIMIT, optional=True)
        if data is None:
            break
        metadata = parse(data, Root, path)
        following = vouched(metadata, root)
        if following.version != root.version + 1:
            raise UpdateError(f"{path} has version {following.version}", fault=UpdateFault.ROLLBACK)
        root = vouched(metadata, following)
        files[path] = data
    else:
        reason = (
            f"there are more than {_MOST_ROOTS} roots since version {root.version - _MOST_ROOTS}, which the program has"
        )
        raise UpdateError(f"{reason}; ship it with a newer root", fault=UpdateFault.INVALID)
    if root.consistent_snapshot is not True:
        raise UpdateError("the repository has no consistent snapshots", fault=UpdateFault.INVALID)
    return root


def _follow_timestamp(root: Root, before: _Before, files: dict[str, bytes], now: datetime) -> Steps[Timestamp]:
    """Section 5.4."""
    data = yield Want(TIMESTAMP, _TIMESTAMP_LIMIT)
    assert data is not None  # it is not optional
    timestamp, old = _read(data, Timestamp, root), before.timestamp
    if old is not None:
        _refuse_older(timestamp.version, old.version, TIMESTAMP)
        if timestamp.version == old.version:  # 5.4.3.1: the one that was accepted first stays
            timestamp, data = old, before.files[TIMESTAMP]
        _refuse_older(timestamp.snapshot_meta.version, old.snapshot_meta.version, f"snapshot.json in {TIMESTAMP}")
    _refuse_expired(timestamp, now)
    files[TIMESTAMP] = data
    return timestamp


def _follow_snapshot(
    root: Root, timestamp: Timestamp, before: _Before, files: dict[str, bytes], now: datetime
) -> Steps[Snapshot]:
    """Section 5.5."""
    meta, path = timestamp.snapshot_meta, _snapshot_path(timestamp)
    read = _reader(Snapshot, root, meta, path)
    snapshot = yield from before.obtain(Want(path, _limit(meta, _SNAPSHOT_LIMIT, path)), read, files)
    for role, old in before.snapshot.meta.items() if before.snapshot is not None else ():
        if role not in snapshot.meta:
            raise UpdateError(f"{path} does not name {role} any more", fault=UpdateFault.ROLLBACK)
        _refuse_older(snapshot.meta[role].version, old.version, f"{role} in {path}")
    _refuse_expired(snapshot, now)
    return snapshot


def _follow_targets(
    root: Root, snapshot: Snapshot, before: _Before, files: dict[str, bytes], now: datetime
) -> Steps[Targets]:
    """Section 5.6."""
    meta = snapshot.meta.get("targets.json")
    if meta is None:
        raise UpdateError("snapshot.json does not name targets.json", fault=UpdateFault.INVALID)
    path = f"metadata/{meta.version}.targets.json"
    read = _reader(Targets, root, meta, path)
    targets = yield from before.obtain(Want(path, _limit(meta, _TARGETS_LIMIT, path)), read, files)
    _refuse_expired(targets, now)
    return targets


def _follow_target(targets: Targets, name: str, before: _Before, files: dict[str, bytes]) -> Steps[bytes]:
    """Section 5.7."""
    info = targets.targets.get(name)
    if info is None:
        reason = f"targets.json version {targets.version} names no {name}, and delegations are not followed"
        raise UpdateError(f"{reason}; publish one, or give the name of another", fault=UpdateFault.INVALID)
    digest = info.hashes.get("sha256")
    if digest is None:
        raise UpdateError(f"targets.json gives no SHA-256 of {name}", fault=UpdateFault.INVALID)
    parent, slash, file = name.rpartition("/")
    path = f"targets/{parent}{slash}{digest}.{file}"

    def read(data: bytes) -> bytes:
        _refuse_other(info, data, path)
        return data

    target = yield from before.obtain(Want(path, _limit(info, _TARGET_LIMIT, path)), read, files)
    return target


def _snapshot_path(timestamp: Timestamp) -> str:
    return f"metadata/{timestamp.snapshot_meta.version}.snapshot.json"


def _limit(meta: MetaFile | TargetFile, most: int, path: str) -> int:
    if meta.length is None:
        return most
    if meta.length > most:
        reason = f"{path} is said to have {meta.length} bytes, and may have {most}"
        raise UpdateError(reason, fault=UpdateFault.TOO_LARGE)
    return meta.length


def _reader(kind: type[N], root: Root, meta: MetaFile, path: str) -> Callable[[bytes], N]:
    """What reads the file that *meta* names, and no other."""

    def read(data: bytes) -> N:
        _refuse_other(meta, data, path)
        signed = _read(data, kind, root)
        _refuse_unlike(signed, meta, path)
        return signed

    return read


def _read(data: bytes, kind: type[S], root: Root) -> S:
    return vouched(parse(data, kind, f"{kind.type}.json"), root)


def parse(data: bytes, kind: type[S], path: str) -> Metadata[S]:
    """
    Metadata of one kind, unverified.

    Raises:
        UpdateError: It is something else; *path* is for the message.
    """
    try:
        metadata: Metadata[S] = Metadata.from_bytes(data)
    except DeserializationError as error:
        raise UpdateError(f"{path} is not TUF metadata: {error.__cause__}", fault=UpdateFault.INVALID) from error
    if not isinstance(metadata.signed, kind):
        raise UpdateError(f"{path} is a {metadata.signed.type}.json", fault=UpdateFault.INVALID)
    return metadata


def vouched(metadata: Metadata[S], root: Root) -> S:
    """
    The signed part of *metadata*, if *root* vouches for it.

    Raises:
        UpdateError: Too few of the keys have signed it.
    """
    signed = metadata.signed
    try:
        result = root.get_verification_result(signed.type, metadata.signed_bytes, metadata.signatures)
    except SerializationError as error:
        reason = f"{signed.type} version {signed.version} has no canonical form"
        raise UpdateError(f"{reason}: {error.__cause__}", fault=UpdateFault.INVALID) from error
    if not result:
        reason = f"{len(result.signed)} of the {result.threshold} keys that root version {root.version} asks for"
        raise UpdateError(f"{signed.type} version {signed.version} is signed by {reason}", fault=UpdateFault.SIGNATURE)
    return signed


def _refuse_other(meta: MetaFile | TargetFile, data: bytes, path: str) -> None:
    try:
        meta.verify_length_and_hashes(data)
    except LengthOrHashMismatchError as error:
        raise UpdateError(f"{path} is not the file that was signed: {error}", fault=UpdateFault.SIGNATURE) from error


def _refuse_unlike(signed: Snapshot | Targets, meta: MetaFile, path: str) -> None:
    if signed.version != meta.version:
        raise UpdateError(f"{path} has version {signed.version}", fault=UpdateFault.ROLLBACK)


def _refuse_older(version: int, known: int, path: str) -> None:
    if version < known:
        reason = f"{path} has version {version}, and version {known} was accepted before"
        raise UpdateError(
            f"{reason}: somebody shows an old repository, or it was restored from a backup", fault=UpdateFault.ROLLBACK
        )


def _refuse_expired(signed: Signed, now: datetime) -> None:
    if signed.is_expired(now):
        reason = f"{signed.type} version {signed.version} expired on {signed.expires:%Y-%m-%dT%H:%M:%SZ}"
        raise UpdateError(
            f"{reason}: nobody renews the repository, somebody holds it back, or the clock is wrong",
            fault=UpdateFault.EXPIRED,
            expired_at=signed.expires if signed.type == "timestamp" else None,
        )
