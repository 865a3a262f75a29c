"""
The publisher: what is signed by whom, in which order it is written, and what is refused.
"""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import pytest
from publishing import NAME, Publisher, now, policy
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata

from pinset import InputError
from pinset.updates import KeyRole, Keys, Lifetimes, Repository, UpdateError, UpdateFault
from pinset.updates._keys import lock_up, make_signer, unlock


@pytest.fixture
def publisher(tmp_path):
    return Publisher(tmp_path / "repository", first=policy(1, 2))


@pytest.fixture
def repository(publisher):
    return publisher.repository


def versions(repository):
    """Of the four roles, as a client sees them."""
    return tuple(repository.verified().versions.values())


def state(directory):
    """Every file of a directory."""
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_init(tmp_path):
    """A repository without a policy, which only enough keys can make, and only once."""
    made = Publisher(tmp_path / "new")
    assert made.repository.policy() is None
    assert not made.repository.waits
    with pytest.raises(UpdateError, match=r"names no policy\.json"):
        made.repository.verified()
    keys = Keys(
        root=[key.public_key for key in made.roots], targets=[made.targets.public_key], online=made.online.public_key
    )
    with pytest.raises(InputError, match="holds a repository already"):
        made.repository.init(keys, made.roots, now())
    other = Repository(tmp_path / "other")
    with pytest.raises(InputError, match="root needs 2 of its keys to sign, and 1 are at hand"):
        other.init(keys, [made.roots[0], made.targets, made.online], now())
    with pytest.raises(InputError, match="targets needs 1"):
        other.init(keys, [*made.roots, made.online], now())
    assert not (tmp_path / "other").exists()


def test_lifetimes(publisher, repository):
    """A year, 90 days, 14 days and 7 days, or what the publisher says."""
    left = {state.role: (state.expires - now()) for state in repository.verified().roles}
    days = {role: round(span / timedelta(days=1)) for role, span in left.items()}
    assert days == {"root": 365, "targets": 90, "snapshot": 14, "timestamp": 7}
    short = Repository(publisher.directory, lifetimes=Lifetimes(timestamp=timedelta(hours=1)))
    short.refresh([publisher.online], now())
    assert short.verified().expires <= now() + timedelta(hours=1)


def test_publish(publisher, repository):
    """A policy goes into service, as JSON under its digest."""
    repository.publish(policy(2, 3), [publisher.targets, publisher.online], now())
    assert repository.policy() == policy(2, 3)
    assert versions(repository) == (1, 3, 3, 3)
    assert len(list((publisher.directory / "targets").iterdir())) == 2


def test_publish_without_the_online_key(publisher, repository):
    """Then it waits, and clients see the old one, until the machine with that key renews the repository."""
    before = repository.verified()
    assert repository.publish(policy(2, 3), [publisher.targets], now()) is False
    assert (repository.waits, repository.verified(), repository.policy()) == (True, before, policy(2, 3))
    assert repository.refresh([publisher.online], now()) == ["snapshot", "timestamp"]
    assert not repository.waits
    assert versions(repository) == (1, 3, 3, 3)


def test_publish_without_the_targets_key(publisher, repository):
    """The online key cannot sign a policy."""
    before = state(publisher.directory)
    with pytest.raises(InputError, match="targets needs 1 of its keys to sign, and 0 are at hand"):
        repository.publish(policy(66, 67), [publisher.online], now())
    assert state(publisher.directory) == before


def test_refresh(publisher, repository):
    """Every day the timestamp, the snapshot when half of its time is over, other roles with their keys."""
    assert repository.refresh([publisher.online], now()) == ["timestamp"]
    assert repository.refresh([publisher.online], now() + timedelta(days=6)) == ["timestamp"]
    assert repository.refresh([publisher.online], now() + timedelta(days=8)) == ["snapshot", "timestamp"]
    assert repository.refresh([publisher.targets], now()) == ["targets"]
    assert repository.waits
    both = [publisher.targets, publisher.online]
    assert repository.refresh(both, now()) == ["targets", "snapshot", "timestamp"]
    assert repository.refresh(publisher.roots[1:], now()) == ["root"]
    with pytest.raises(InputError, match="root needs 2"):
        repository.refresh(publisher.roots[:1], now())
    with pytest.raises(InputError, match="none of the keys"):
        repository.refresh([make_signer()], now())
    assert repository.policy() == policy(1, 2)


@pytest.mark.parametrize("role", KeyRole)
def test_rotate(publisher, repository, role):
    """A changed key can sign, the old one cannot any more, and clients follow."""
    old = {KeyRole.ROOT: publisher.roots[2], KeyRole.TARGETS: publisher.targets, KeyRole.ONLINE: publisher.online}[role]
    getattr(publisher, f"rotate_{role}")()
    assert versions(repository)[0] == 2
    signers = [publisher.roots[0], old] if role is KeyRole.ROOT else [old]
    before = state(publisher.directory)
    with pytest.raises(InputError, match=r"needs 2|none of the keys"):
        repository.refresh(signers, now())
    assert state(publisher.directory) == before
    publisher.publish(policy(2, 3))
    assert repository.policy() == policy(2, 3)


def test_rotate_with_too_few_root_keys(publisher, repository):
    """One of three is not enough, and the thief of one is the one who would try."""
    before = state(publisher.directory)
    new = make_signer()
    with pytest.raises(InputError, match="root needs 2 of its keys to sign, and 1 are at hand"):
        repository.rotate(
            KeyRole.TARGETS, publisher.targets.public_key.keyid, new.public_key, [publisher.roots[0], new], now()
        )
    with pytest.raises(InputError, match="is no key of targets"):
        repository.rotate(KeyRole.TARGETS, "0000", new.public_key, publisher.roots, now())
    assert state(publisher.directory) == before


def test_rotate_targets_without_the_new_key_at_hand(publisher, repository):
    """The root changes; what the old key signed has to be signed anew before anything works again."""
    new = make_signer()
    signed = repository.rotate(
        KeyRole.TARGETS, publisher.targets.public_key.keyid, new.public_key, publisher.roots, now()
    )
    assert signed == ["root"]
    with pytest.raises(InputError, match="not signed by enough keys of the newest root"):
        repository.policy()


def test_order_of_writing(publisher, repository, monkeypatch):
    """What is referred to is there before what refers to it; the timestamp comes last."""
    written = []
    rename = os.replace

    def note(source, target, **options):
        written.append(Path(target).name)
        rename(source, target, **options)

    monkeypatch.setattr(os, "replace", note)
    new = make_signer()
    signers = [*publisher.roots, new, publisher.online]
    repository.rotate(KeyRole.TARGETS, publisher.targets.public_key.keyid, new.public_key, signers, now())
    repository.publish(policy(2, 3), [new, publisher.online], now())
    kinds = [name.removesuffix(".json").split(".", 1)[-1] for name in written]
    assert kinds == ["targets", "snapshot", "root", "timestamp", "policy", "targets", "snapshot", "timestamp"]


def test_nothing_is_signed_on_top_of_what_does_not_verify(publisher, repository, tmp_path):
    """A directory without a repository, or with one that somebody has touched, is refused."""
    with pytest.raises(InputError, match="holds no repository"):
        Repository(tmp_path / "nothing").policy()
    root = Metadata.from_bytes(publisher.anchor)
    root.signed.version = 2
    publisher.replace("metadata/2.root.json", root.to_bytes())
    with pytest.raises(InputError, match="nothing is signed on top of it"):
        publisher.refresh()
    (publisher.directory / "metadata/2.root.json").unlink()
    publisher.replace("metadata/timestamp.json", b"{")
    with pytest.raises(InputError, match="cannot be read"):
        publisher.refresh()
    (publisher.directory / "metadata/timestamp.json").unlink()
    with pytest.raises(InputError, match="is missing"):
        publisher.refresh()


def test_versions_that_nobody_signed(publisher, repository):
    """Whoever can write to the server does not get a version signed that no client would ever see exceeded."""
    for path in ("metadata/timestamp.json", "metadata/2.snapshot.json"):
        genuine = (publisher.directory / path).read_bytes()
        forged = Metadata.from_bytes(genuine)
        forged.signed.version = 10**9
        publisher.replace(path, forged.to_bytes())
        for act in (publisher.refresh, lambda: publisher.publish(policy(2, 3)), lambda: repository.waits):
            with pytest.raises(InputError, match="signed by no key of any root"):
                act()
        publisher.replace(path, genuine)
    publisher.refresh()


def test_policy_that_was_altered(publisher, repository):
    """The difference that a person signs is one to what was signed before."""
    [target] = (publisher.directory / "targets").iterdir()
    target.write_bytes(target.read_bytes().replace(b"deny", b"allow"))
    with pytest.raises(InputError, match="is not the file that was signed"):
        repository.policy()


def test_repository_that_has_expired_can_be_renewed(tmp_path):
    """With all keys, from what is there."""
    made = Publisher(tmp_path / "old", at=now() - timedelta(days=500), first=policy(1, 2))
    signers = [*made.roots, made.targets, made.online]
    made.repository.refresh(signers, now())
    assert made.repository.verified().expires > now()


def test_keys_are_kept_encrypted():
    """With a passphrase that is worth one, and they come back with it alone."""
    signer = make_signer()
    locked = lock_up(signer, b"open sesame")
    assert locked.startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
    assert unlock(locked, b"open sesame", source="x").public_key == signer.public_key
    with pytest.raises(InputError, match=r"x\.key cannot be read"):
        unlock(locked, b"wrong passphrase", source="x.key")
    with pytest.raises(InputError, match="has 5 bytes"):
        lock_up(signer, b"short")
    with pytest.raises(InputError, match="cannot be read"):
        unlock(b"no key", b"open sesame", source="x")
    with pytest.raises(InputError, match="another kind"):
        unlock(lock_up(CryptoSigner.generate_ecdsa(), b"open sesame"), b"open sesame", source="x")


def test_name_of_the_policy(tmp_path):
    """Another name is another target."""
    made = Publisher(tmp_path / "repository", first=policy(1, 2))
    other = Repository(made.directory, name="beta.json")
    assert other.policy() is None
    other.publish(policy(3, 4), [made.targets, made.online], now())
    assert (other.policy(), made.repository.policy(), NAME) == (policy(3, 4), policy(1, 2), "policy.json")
    assert UpdateFault.INVALID == "invalid"
