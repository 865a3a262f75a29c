"""
A publisher of pins for tests: a repository with its keys, and what an attacker would do to it.
"""

from __future__ import annotations

import shutil
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, MetaFile, Snapshot, Timestamp

from pinset import Pin, PinKind, Policy
from pinset.formats import write_json
from pinset.testing import TLSServer
from pinset.updates import KeyRole, Keys, Repository

NAME = "policy.json"


def pin(number):
    """The pin of a key that nobody holds."""
    return Pin(PinKind.SPKI, bytes([number]) * 32)


def policy(*numbers, host="api.example.com"):
    """A policy for one host, told apart by its pins."""
    return Policy.from_mapping({host: [pin(number) for number in numbers]})


def now():
    """The present instant as TUF writes it."""
    return datetime.now(UTC).replace(microsecond=0)


class Publisher:
    """
    A repository in *directory*, with 2-of-3 root keys, a key for targets and an online key.
    """

    def __init__(self, directory: Path, *, at=None, first=None) -> None:
        self.directory = directory
        self.roots = [CryptoSigner.generate_ed25519() for _ in range(3)]
        self.targets = CryptoSigner.generate_ed25519()
        self.online = CryptoSigner.generate_ed25519()
        self.repository = Repository(directory)
        self.repository.init(
            Keys(
                root=[key.public_key for key in self.roots],
                targets=[self.targets.public_key],
                online=self.online.public_key,
            ),
            [*self.roots, self.targets, self.online],
            at or now(),
        )
        if first is not None:
            self.publish(first, at=at)

    @property
    def anchor(self) -> bytes:
        """What programs bring along."""
        return self.read("metadata/1.root.json")

    def publish(self, policy, *, at=None):
        """Sign a policy and put it in service."""
        assert self.repository.publish(policy, [self.targets, self.online], at or now())
        # What a client without signatures would read.
        self.replace(NAME, write_json(policy).encode())

    def refresh(self, *, at=None):
        """What cron does every day."""
        return self.repository.refresh([self.online], at or now())

    def _rotate(self, role, old, new, *signers):
        self.repository.rotate(role, old.public_key.keyid, new.public_key, [*self.roots[:2], *signers], now())
        return new

    def rotate_online(self):
        """Put a new online key in the place of a stolen one."""
        new = CryptoSigner.generate_ed25519()
        self.online = self._rotate(KeyRole.ONLINE, self.online, new, new)

    def rotate_targets(self):
        """Likewise the key that signs policies."""
        new = CryptoSigner.generate_ed25519()
        self.targets = self._rotate(KeyRole.TARGETS, self.targets, new, new, self.online)

    def rotate_root(self):
        """Likewise one of the root keys: the third, which is lost."""
        self.roots[2] = self._rotate(KeyRole.ROOT, self.roots[2], CryptoSigner.generate_ed25519())

    def read(self, path):
        """A file of the repository."""
        return (self.directory / path).read_bytes()

    def copy(self, directory):
        """The repository as it is now, somewhere else."""
        shutil.copytree(self.directory, directory, dirs_exist_ok=True)
        return directory

    def replace(self, path, data):
        """Put a file in the place of another, as somebody does who owns the server."""
        (self.directory / path).write_bytes(data)

    # With the stolen online key.

    def sign(self, signed, *signers, path):
        """Sign anything with any keys, and put it in place."""
        metadata = Metadata(signed)
        for signer in signers:
            metadata.sign(signer, append=True)
        self.replace(path, metadata.to_bytes())

    def forge_timestamp(self, version, snapshot, *, online=None):
        """A timestamp as the holder of the online key would sign it."""
        signed = Timestamp(version=version, expires=now() + timedelta(days=7), snapshot_meta=MetaFile(snapshot))
        self.sign(signed, online or self.online, path="metadata/timestamp.json")

    def forge_snapshot(self, version, targets, *, online=None):
        """Likewise a snapshot."""
        signed = Snapshot(version=version, expires=now() + timedelta(days=7), meta={"targets.json": MetaFile(targets)})
        self.sign(signed, online or self.online, path=f"metadata/{version}.snapshot.json")

    def sign_nothing(self, path):
        """Take the signatures off a file."""
        metadata = Metadata.from_bytes(self.read(path))
        metadata.signatures.clear()
        self.replace(path, metadata.to_bytes())


class Site:
    """
    A small HTTPS server for the files of a repository, which counts what is asked for.

    Attributes:
        asked: The paths, in order.
        gate: Cleared, it holds back every answer.
        header: A header line that every answer has.
    """

    def __init__(self, identity, publisher) -> None:
        self._server = TLSServer(identity.server_context(), respond=self._respond)
        self._publisher = publisher
        self.asked = []
        self.gate = threading.Event()
        self.gate.set()
        self.header = b""

    def __enter__(self):
        self._server.__enter__()
        return self

    def __exit__(self, *error):
        self.gate.set()
        self._server.__exit__(*error)

    @property
    def url(self):
        """Where the repository is."""
        return self._server.url(path="/pins/")

    def _respond(self, head):
        path = head.split(b" ")[1].decode().removeprefix("/pins/")
        self.asked.append(path)
        self.gate.wait(10)
        file = self._publisher.directory / path
        status, body = (b"200 OK", file.read_bytes()) if file.is_file() else (b"404 Not Found", b"")
        return b"HTTP/1.1 %b\r\nContent-Length: %d\r\n%b\r\n%b" % (status, len(body), self.header, body)
