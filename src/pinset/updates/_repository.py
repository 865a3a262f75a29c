"""
`Repository`: a TUF repository in a directory, as it is served.

Rules of this module:

1. A file is put in place whole, and in the order in which clients need them: targets first, ``timestamp.json`` last. A
   client at any moment finds an old repository or a new one.
2. A version that ``timestamp.json`` has led to is never written again.
3. Nothing is signed on top of what does not verify.
4. Keys come in as signers and are asked for nothing but signatures: they may lie on another machine for every role.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from tuf.api.exceptions import LengthOrHashMismatchError
from tuf.api.metadata import Metadata, Root, Snapshot, TargetFile, Targets, Timestamp

from pinset._errors import InputError
from pinset._files import replace_file
from pinset._policy import Policy
from pinset.formats import read_json, write_json
from pinset.updates._errors import UpdateError
from pinset.updates._signing import Keys, Lifetimes, Work, is_signed
from pinset.updates._trust import TIMESTAMP, Verified, parse, verify_again, vouched

if TYPE_CHECKING:
    from securesystemslib.signer import Key, Signer

_ORDER = (r"targets/", r"metadata/\d+\.targets", r"metadata/\d+\.snapshot", r"metadata/\d+\.root", "metadata/timestamp")

S = TypeVar("S", Root, Timestamp, Snapshot, Targets)


class KeyRole(StrEnum):
    """
    What a key is for: root, targets, or online for snapshot and timestamp together.
    """

    ROOT = "root"
    TARGETS = "targets"
    ONLINE = "online"


_SIGNS = {KeyRole.ROOT: ("root",), KeyRole.TARGETS: ("targets",), KeyRole.ONLINE: ("snapshot", "timestamp")}


class Repository:
    """
    A repository in a directory.

    Args:
        directory: Holds ``metadata/`` and ``targets/``.
        name: The path of the policy among the targets.
        lifetimes: Of the files that are signed from now on.
    """

    def __init__(self, directory: Path, *, name: str = "policy.json", lifetimes: Lifetimes | None = None) -> None:
        self.directory = directory
        self.name = name
        self.lifetimes = lifetimes or Lifetimes()

    def init(self, keys: Keys, signers: Sequence[Signer], now: datetime) -> None:
        """
        Make the first root, and a repository without a policy.

        Args:
            keys: Who may sign what from now on.
            signers: All that is needed for all roles.
            now: The present instant, in UTC.

        Raises:
            InputError: The directory holds a repository already, or signers are missing.
            OSError: It cannot be written.
        """
        if self._path("metadata/1.root.json").exists():
            raise InputError(f"{self.directory} holds a repository already")
        root = Root(expires=now + self.lifetimes.root, consistent_snapshot=True)
        for role, allowed, threshold in (
            ("root", keys.root, keys.root_threshold),
            ("targets", keys.targets, keys.targets_threshold),
            ("snapshot", [keys.online], 1),
            ("timestamp", [keys.online], 1),
        ):
            for key in allowed:
                root.add_key(key, role)
            root.roles[role].threshold = threshold
        work = Work(root, signers, self.lifetimes, now)
        work.add_root(root)
        work.add(Targets(), 1)
        work.add_snapshot(None, 1)
        work.add_timestamp(1)
        self._commit(work.files)

    @property
    def root(self) -> Root:
        """
        The newest root.

        Raises:
            InputError: There is none, or one does not verify.
        """
        return self._roots()[-1]

    def verified(self) -> Verified:
        """
        What a client without a cache would end with, expired or not.

        Raises:
            UpdateError: A client would refuse the repository.
            InputError: There is none.
        """
        return verify_again(self._bytes("metadata/1.root.json"), self._find, name=self.name)

    def policy(self) -> Policy | None:
        """
        The policy in the newest ``targets.json``, whether or not it is in service; None for none yet.

        Raises:
            InputError: There is no repository, or it does not verify.
        """
        info = self._targets(self.root).targets.get(self.name)
        if info is None:
            return None
        path = "targets/" + info.get_prefixed_paths()[0]
        data = self._bytes(path)
        try:
            info.verify_length_and_hashes(data)
        except LengthOrHashMismatchError as error:
            raise InputError(f"{path} is not the file that was signed: {error}; restore it from a copy") from error
        return read_json(data.decode("utf-8"), source=self.name)

    @property
    def waits(self) -> bool:
        """
        Whether a policy was signed that is not in service yet.

        Raises:
            InputError: There is no repository, or it does not verify.
        """
        version = self._vouched(TIMESTAMP, Timestamp).signed.snapshot_meta.version
        snapshot = self._vouched(f"metadata/{version}.snapshot.json", Snapshot).signed
        return snapshot.meta["targets.json"].version != self._targets(self.root).version

    def publish(self, policy: Policy, signers: Sequence[Signer], now: datetime) -> bool:
        """
        Sign a policy, and put it in service if the online key is at hand.

        Args:
            policy: The policy.
            signers: Enough for targets; the online key as well, or `refresh` puts it in service later.
            now: The present instant, in UTC.

        Returns:
            Whether it is in service.

        Raises:
            InputError: Signers are missing, or what there is does not verify.
            OSError: It cannot be written; what is served still is.
        """
        work = Work(self.root, signers, self.lifetimes, now)
        targets = self._targets(work.root)
        data = write_json(policy).encode("utf-8")
        info = TargetFile.from_data(self.name, data, ["sha256"])
        targets.targets[self.name] = info
        work.files["targets/" + info.get_prefixed_paths()[0]] = data
        work.add(targets, targets.version + 1)
        if work.can_sign("timestamp"):
            self._put_in_service(work, targets)
        self._commit(work.files)
        return work.can_sign("timestamp")

    def refresh(self, signers: Sequence[Signer], now: datetime) -> list[str]:
        """
        Renew what the keys at hand can renew: with the online key the timestamp, and the snapshot when half of its time is
        over or a policy waits; with keys of root or targets those files.

        Args:
            signers: The keys.
            now: The present instant, in UTC.

        Returns:
            The roles that were signed.

        Raises:
            InputError: There are signers for a role, and too few; or for none.
            OSError: It cannot be written; what is served still is.
        """
        root = self.root
        work = Work(root, signers, self.lifetimes, now)
        if work.concerns("root"):
            renewed = copy.deepcopy(root)
            work.add_root(renewed, root)
        targets = self._targets(root)
        if work.concerns("targets"):
            work.add(targets, targets.version + 1)
        if work.can_sign("timestamp"):
            self._put_in_service(work, targets)
        if not work.files:
            raise InputError("none of the keys may sign anything in this repository")
        self._commit(work.files)
        return work.signed

    def rotate(self, role: KeyRole, old: str, new: Key, signers: Sequence[Signer], now: datetime) -> list[str]:
        """
        Put a new key in the place of one that is lost, stolen or old.

        What the old key has signed counts no more, so it is signed anew as far as keys are at hand; else by `refresh`.

        Args:
            role: What the key is for.
            old: The identifier of the key that goes.
            new: The key that comes.
            signers: Enough keys of the root, and those that will sign from now on.
            now: The present instant, in UTC.

        Returns:
            The roles that were signed.

        Raises:
            InputError: The key is not one of the role, or signers are missing.
            OSError: It cannot be written; what is served still is.
        """
        root = self.root
        targets = self._targets(root)
        renewed = copy.deepcopy(root)
        for name in _SIGNS[role]:
            try:
                renewed.revoke_key(old, name)
                renewed.add_key(new, name)
            except ValueError as error:
                raise InputError(f"{old} is no key of {name}: {', '.join(root.roles[name].keyids)}") from error
        work = Work(renewed, signers, self.lifetimes, now)
        work.add_root(renewed, root)
        if role is KeyRole.TARGETS and work.concerns("targets"):
            work.add(targets, targets.version + 1)
        if role is not KeyRole.ROOT and work.can_sign("timestamp"):
            self._put_in_service(work, targets)
        self._commit(work.files)
        return work.signed

    # What the above is made of.

    def _put_in_service(self, work: Work, targets: Targets) -> None:
        """Snapshot and timestamp for the newest targets, where they are needed."""
        timestamp = self._vouched(TIMESTAMP, Timestamp).signed
        path = f"metadata/{timestamp.snapshot_meta.version}.snapshot.json"
        metadata = self._vouched(path, Snapshot)
        snapshot, version = metadata.signed, timestamp.snapshot_meta.version
        is_good = is_signed(metadata, work.root) and snapshot.expires - work.now > self.lifetimes.snapshot / 2
        if not is_good or snapshot.meta["targets.json"].version != targets.version:
            version += 1
            work.add_snapshot(snapshot, targets.version, version)
        work.add_timestamp(version, timestamp.version + 1)

    def _roots(self) -> list[Root]:
        roots: list[Root] = []
        try:
            while (path := self._path(f"metadata/{len(roots) + 1}.root.json")).exists():
                metadata = parse(path.read_bytes(), Root, path.name)
                for voucher in (roots[-1] if roots else metadata.signed, metadata.signed):
                    vouched(metadata, voucher)
                roots.append(metadata.signed)
        except UpdateError as error:
            raise InputError(
                f"{self.directory} does not verify, and nothing is signed on top of it: {error}"
            ) from error
        if not roots:
            raise InputError(f"{self.directory} holds no repository; pinset repo init makes one")
        return roots

    def _targets(self, root: Root) -> Targets:
        """The newest targets, in service or not."""
        pattern = re.compile(r"(\d+)\.targets\.json")
        names = [match for path in self._path("metadata").iterdir() if (match := pattern.fullmatch(path.name))]
        newest = max(names, key=lambda match: int(match[1]))[0]
        metadata = self._parsed(f"metadata/{newest}", Targets)
        if not is_signed(metadata, root):
            raise InputError(
                f"{newest} is not signed by enough keys of the newest root: remove it, or refresh with them"
            )
        return metadata.signed

    def _vouched(self, path: str, kind: type[S]) -> Metadata[S]:
        """
        A file that counts on from: whoever could put a high version into it would have it signed, and every client that
        sees it refuses all that comes after.
        """
        metadata = self._parsed(path, kind)
        # A root that was rotated leaves files that only an older one vouches for.
        if not any(is_signed(metadata, root) for root in self._roots()):
            raise InputError(f"{path} is signed by no key of any root: restore it from a copy that is")
        return metadata

    def _parsed(self, path: str, kind: type[S]) -> Metadata[S]:
        try:
            return parse(self._bytes(path), kind, path)
        except UpdateError as error:
            raise InputError(f"{self.directory} cannot be read: {error}") from error

    def _path(self, path: str) -> Path:
        return self.directory / path

    def _find(self, path: str) -> bytes | None:
        file = self._path(path)
        return file.read_bytes() if file.exists() else None

    def _bytes(self, path: str) -> bytes:
        try:
            return self._path(path).read_bytes()
        except FileNotFoundError as error:
            raise InputError(f"{self._path(path)} is missing; pinset repo init makes a repository") from error

    def _commit(self, files: Mapping[str, bytes]) -> None:
        for pattern in _ORDER:
            for path, data in files.items():
                if re.match(pattern, path):
                    target = self._path(path)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    replace_file(target, data, mode=0o644)
