"""
Signing: files of a repository, by whoever is there to sign.

A file comes out signed by enough keys of its role, or not at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, TypeVar

from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, Targets, Timestamp

from pinset._errors import InputError
from pinset.updates._errors import UpdateError
from pinset.updates._trust import vouched

if TYPE_CHECKING:
    from securesystemslib.signer import Key, Signer

S = TypeVar("S", Root, Timestamp, Snapshot, Targets)


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """
    How long signed files are good for.

    The shorter, the sooner clients notice that updates are held back, and the less time there is to mend a publisher.
    """

    root: timedelta = timedelta(days=365)
    targets: timedelta = timedelta(days=90)
    snapshot: timedelta = timedelta(days=14)
    timestamp: timedelta = timedelta(days=7)

    def of(self, role: str) -> timedelta:
        """
        The one of a role.
        """
        lifetime: timedelta = getattr(self, role)
        return lifetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """
    Who may sign what.

    Attributes:
        root: For the root: kept apart and offline.
        root_threshold: How many of them it takes.
        targets: For policies; offline.
        targets_threshold: How many of them it takes.
        online: For snapshot and timestamp; where the repository is renewed every day.
    """

    root: Sequence[Key]
    root_threshold: int = 2
    targets: Sequence[Key]
    targets_threshold: int = 1
    online: Key


@dataclass(slots=True)
class Work:
    """
    Files that are being signed.

    Attributes:
        root: Says who may sign.
        signers: Who is there.
        lifetimes: Of what is signed.
        now: The present instant.
        files: What was signed.
        signed: The roles of it.
    """

    root: Root
    signers: Sequence[Signer]
    lifetimes: Lifetimes
    now: datetime
    files: dict[str, bytes] = field(default_factory=dict)
    signed: list[str] = field(default_factory=list)

    def concerns(self, role: str) -> bool:
        """
        Whether any signer is one of *role*.
        """
        return bool(self._signers(role))

    def can_sign(self, role: str) -> bool:
        """
        Whether there are enough signers for *role*.
        """
        return len(self._signers(role)) >= self.root.roles[role].threshold

    def _signers(self, role: str, *roots: Root) -> list[Signer]:
        allowed = {keyid for root in roots or (self.root,) for keyid in root.roles[role].keyids}
        return [signer for signer in self.signers if signer.public_key.keyid in allowed]

    def add_root(self, root: Root, previous: Root | None = None) -> None:
        """
        A root, signed by enough keys of its own and of the one before, if there is one.
        """
        if previous is not None:
            root.version = previous.version + 1
        root.expires = self.now + self.lifetimes.root
        metadata = Metadata(root)
        for signer in self._signers("root", previous or root, root):
            metadata.sign(signer, append=True)
        result = root.get_root_verification_result(previous, metadata.signed_bytes, metadata.signatures)
        for part in (result.first, result.second):
            _refuse_too_few("root", len(part.signed), part.threshold)
        self.root = root
        self._keep("root", f"metadata/{root.version}.root.json", metadata.to_bytes())

    def add_snapshot(self, before: Snapshot | None, targets: int, version: int = 1) -> None:
        """
        A snapshot that names the version of targets.
        """
        meta = {} if before is None else dict(before.meta)
        self.add(Snapshot(meta={**meta, "targets.json": MetaFile(targets)}), version)

    def add_timestamp(self, snapshot: int, version: int = 1) -> None:
        """
        A timestamp that names the version of the snapshot.
        """
        self.add(Timestamp(snapshot_meta=MetaFile(snapshot)), version)

    def add(self, signed: S, version: int) -> None:
        """
        Sign anything but a root.
        """
        role = signed.type
        signed.version, signed.expires = version, self.now + self.lifetimes.of(role)
        metadata = Metadata(signed)
        signers = self._signers(role)
        _refuse_too_few(role, len(signers), self.root.roles[role].threshold)
        for signer in signers:
            metadata.sign(signer, append=True)
        prefix = "" if role == "timestamp" else f"{version}."
        self._keep(role, f"metadata/{prefix}{role}.json", metadata.to_bytes())

    def _keep(self, role: str, path: str, data: bytes) -> None:
        self.files[path] = data
        self.signed.append(role)


def _refuse_too_few(role: str, count: int, threshold: int) -> None:
    if count < threshold:
        raise InputError(f"{role} needs {threshold} of its keys to sign, and {count} are at hand; nothing was written")


def is_signed(metadata: Metadata[S], root: Root) -> bool:
    """
    Whether *root* vouches for *metadata*.
    """
    try:
        vouched(metadata, root)
    except UpdateError:
        return False
    return True
