"""
The rules of an update, without I/O: what is fetched, what is believed, and why not.
"""

from __future__ import annotations

import json
import pickle
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from publishing import NAME, Publisher, now, policy
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, TargetFile, Targets

from pinset import InputError
from pinset.formats import write_json
from pinset.updates import KeyRole, UpdateError, UpdateFault
from pinset.updates._trust import Want, follow, read_anchor, verify_again


@pytest.fixture
def publisher(tmp_path):
    return Publisher(tmp_path / "repository", first=policy(1, 2))


def files_of(publisher):
    """The repository as a mapping."""
    return {
        str(path.relative_to(publisher.directory)): path.read_bytes()
        for path in publisher.directory.rglob("*")
        if path.is_file()
    }


def run(files, anchor, *, known=None, at=None, name=NAME):
    """An update against files in memory: the result, and what was wanted."""
    wants = []
    steps = follow(anchor, known or {}, name=name, now=at or now())
    try:
        want = next(steps)
        while True:
            wants.append(want)
            data = files.get(want.path)
            if data is None and not want.optional:
                raise LookupError(want.path)
            want = steps.send(data)
    except StopIteration as end:
        return end.value, wants


def refused(files, anchor, **options):
    """The error of an update that fails."""
    with pytest.raises(UpdateError) as caught:
        run(files, anchor, **options)
    return caught.value


def test_first_update(publisher):
    """A program without a cache wants root, timestamp, snapshot, targets and the policy, and no more."""
    verified, wants = run(files_of(publisher), publisher.anchor)
    assert verified.target == write_json(policy(1, 2)).encode()
    assert [want.path for want in wants[:4]] == [
        "metadata/2.root.json",
        "metadata/timestamp.json",
        "metadata/2.snapshot.json",
        "metadata/2.targets.json",
    ]
    assert wants[4].path.startswith("targets/")
    assert wants[4].limit == len(verified.target)
    assert len(wants) == 5
    assert [want.optional for want in wants] == [True, False, False, False, False]
    assert wants[1].limit == 4096
    assert verified.versions == {"root": 1, "targets": 2, "snapshot": 2, "timestamp": 2}
    assert [(state.threshold, state.keys) for state in verified.roles] == [(2, 3), (1, 1), (1, 1), (1, 1)]
    assert verified.expires == Metadata.from_bytes(publisher.read("metadata/timestamp.json")).signed.expires


def test_no_change_costs_two_requests(publisher):
    """What is kept and still wanted is not fetched again."""
    verified, _ = run(files_of(publisher), publisher.anchor)
    again, wants = run(files_of(publisher), publisher.anchor, known=verified.files)
    assert [want.path for want in wants] == ["metadata/2.root.json", "metadata/timestamp.json"]
    assert again.files == verified.files
    publisher.refresh()  # the timestamp alone
    renewed, wants = run(files_of(publisher), publisher.anchor, known=verified.files)
    assert len(wants) == 2
    assert renewed.versions["timestamp"] == 3


def test_what_is_kept_verifies_again(publisher):
    """The files of an update are enough to verify it without a network, also after they have expired."""
    verified, _ = run(files_of(publisher), publisher.anchor)
    assert verify_again(publisher.anchor, verified.files.get, name=NAME) == verified
    for path in verified.files:
        fewer = {other: data for other, data in verified.files.items() if other != path}
        with pytest.raises(UpdateError, match="is missing"):
            verify_again(publisher.anchor, fewer.get, name=NAME)


def test_embedded_root_is_newer_than_the_cache(publisher):
    """A program that was shipped with a newer root begins there, and what it kept still counts."""
    old = publisher.anchor
    publisher.repository.refresh(publisher.roots, now())
    verified, _ = run(files_of(publisher), old)
    assert verified.versions["root"] == 2
    again, wants = run(files_of(publisher), publisher.read("metadata/2.root.json"), known=verified.files)
    assert [want.path for want in wants] == ["metadata/3.root.json", "metadata/timestamp.json"]
    assert again.target == verified.target


def test_timestamp_of_the_same_version_but_other_content(publisher):
    """Of two timestamps with one version the first counts (TUF 5.4.3.1)."""
    verified, _ = run(files_of(publisher), publisher.anchor)
    publisher.forge_snapshot(9, 2)
    publisher.forge_timestamp(2, 9)
    again, _ = run(files_of(publisher), publisher.anchor, known=verified.files)
    assert again.files == verified.files


def test_rollback_of_each_file(publisher):
    """Neither timestamp, nor snapshot, nor targets go back, whatever the others say."""
    publisher.publish(policy(2, 3))
    verified, _ = run(files_of(publisher), publisher.anchor)
    known = verified.files
    publisher.forge_timestamp(2, 3)
    assert "timestamp.json has version 2, and version 3" in str(
        refused(files_of(publisher), publisher.anchor, known=known)
    )
    publisher.forge_timestamp(4, 2)
    assert "snapshot.json in" in str(refused(files_of(publisher), publisher.anchor, known=known))
    publisher.forge_snapshot(4, 2)
    publisher.forge_timestamp(4, 4)
    error = refused(files_of(publisher), publisher.anchor, known=known)
    assert "targets.json in metadata/4.snapshot.json has version 2" in str(error)
    assert error.fault is UpdateFault.ROLLBACK
    gone = Snapshot(version=5, expires=now() + timedelta(days=1), meta={"other.json": MetaFile(1)})
    publisher.sign(gone, publisher.online, path="metadata/5.snapshot.json")
    publisher.forge_timestamp(5, 5)
    error = refused(files_of(publisher), publisher.anchor, known=known)
    assert "does not name targets.json any more" in str(error)
    error = refused(files_of(publisher), publisher.anchor)
    assert (error.fault, "does not name targets.json" in str(error)) == (UpdateFault.INVALID, True)


def test_versions_that_do_not_fit(publisher):
    """A file under the name of another version is refused."""
    publisher.replace("metadata/7.snapshot.json", publisher.read("metadata/2.snapshot.json"))
    publisher.forge_timestamp(3, 7)
    assert "7.snapshot.json has version 2" in str(refused(files_of(publisher), publisher.anchor))
    publisher.replace("metadata/7.targets.json", publisher.read("metadata/2.targets.json"))
    publisher.forge_snapshot(8, 7)
    publisher.forge_timestamp(3, 8)
    assert "7.targets.json has version 2" in str(refused(files_of(publisher), publisher.anchor))
    root = Metadata[Root].from_bytes(publisher.anchor).signed
    root.version = 5
    publisher.sign(root, *publisher.roots, path="metadata/2.root.json")
    assert "2.root.json has version 5" in str(refused(files_of(publisher), publisher.anchor))


def test_one_kind_in_the_place_of_another(publisher):
    """A snapshot is no timestamp, although one key signs both."""
    publisher.replace("metadata/timestamp.json", publisher.read("metadata/2.snapshot.json"))
    error = refused(files_of(publisher), publisher.anchor)
    assert (error.fault, "is a snapshot.json" in str(error)) == (UpdateFault.INVALID, True)


def test_each_role_expires(publisher):
    """An expired file of any role stops the update."""
    for days, role in ((8, "timestamp"), (15, "snapshot"), (91, "targets"), (366, "root")):
        later = now() + timedelta(days=days)
        if role in {"snapshot", "targets"}:
            publisher.forge_timestamp(3, 2)
        timestamp = Metadata.from_bytes(publisher.read("metadata/timestamp.json"))
        if role in {"snapshot", "targets"}:
            timestamp.signed.expires = later + timedelta(days=1)
            publisher.sign(timestamp.signed, publisher.online, path="metadata/timestamp.json")
        if role == "targets":
            snapshot = Metadata.from_bytes(publisher.read("metadata/2.snapshot.json")).signed
            snapshot.expires = later + timedelta(days=1)
            publisher.sign(snapshot, publisher.online, path="metadata/2.snapshot.json")
        error = refused(files_of(publisher), publisher.anchor, at=later)
        assert (error.fault, f"{role} version" in str(error)) == (UpdateFault.EXPIRED, True), role
        assert (error.expired_at is not None) == (role == "timestamp")


def test_expiry_is_the_first_instant_that_is_too_late(publisher):
    """One second before the expiry is early enough, the expiry itself is not."""
    verified, _ = run(files_of(publisher), publisher.anchor)
    run(files_of(publisher), publisher.anchor, at=verified.expires - timedelta(seconds=1))
    refused(files_of(publisher), publisher.anchor, at=verified.expires)


def test_thresholds(publisher):
    """Two signatures of one key are one signature."""
    metadata = Metadata[Root].from_bytes(publisher.anchor)
    metadata.signatures = {publisher.roots[0].public_key.keyid: publisher.roots[0].sign(metadata.signed_bytes)}
    with pytest.raises(InputError, match="signed by 1 of the 2 keys"):
        read_anchor(metadata.to_bytes())
    document = json.loads(metadata.to_bytes())
    document["signatures"] *= 2
    with pytest.raises(InputError, match="is not TUF metadata"):
        read_anchor(json.dumps(document).encode())


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"signed": 1}', b"\xff", b"[" * 5000])
def test_anchor_that_is_none(data):
    """What is given as the root and is none is refused when the program starts."""
    with pytest.raises(InputError, match=r"give the bytes of an N\.root\.json"):
        read_anchor(data)


def test_anchor_of_another_kind(publisher):
    """Likewise other metadata."""
    with pytest.raises(InputError, match=r"is a timestamp\.json"):
        read_anchor(publisher.read("metadata/timestamp.json"))


def test_lengths_that_are_too_large(publisher):
    """A file that is announced with more than its role may have is not asked for."""
    snapshot = Snapshot(
        version=3, expires=now() + timedelta(days=1), meta={"targets.json": MetaFile(2, length=300_000)}
    )
    publisher.sign(snapshot, publisher.online, path="metadata/3.snapshot.json")
    publisher.forge_timestamp(3, 3)
    error = refused(files_of(publisher), publisher.anchor)
    assert (error.fault, "may have 262144" in str(error)) == (UpdateFault.TOO_LARGE, True)


def test_hashes_are_verified_where_there_are_any(publisher):
    """A snapshot that gives the digest of targets is held to it."""
    meta = MetaFile(2, hashes={"sha256": "00" * 32})
    publisher.sign(
        Snapshot(version=3, expires=now() + timedelta(days=1), meta={"targets.json": meta}),
        publisher.online,
        path="metadata/3.snapshot.json",
    )
    publisher.forge_timestamp(3, 3)
    error = refused(files_of(publisher), publisher.anchor)
    assert (error.fault, "is not the file that was signed" in str(error)) == (UpdateFault.SIGNATURE, True)


def test_target_without_sha256(publisher):
    """A digest of another kind does not lead to a file."""
    info = TargetFile(3, {"sha512": "00" * 64}, NAME)
    targets = Targets(version=3, expires=now() + timedelta(days=1), targets={NAME: info})
    publisher.sign(targets, publisher.targets, path="metadata/3.targets.json")
    publisher.refresh()
    assert "no SHA-256" in str(refused(files_of(publisher), publisher.anchor))


def test_target_in_a_directory(publisher):
    """The digest goes before the last part of the path."""
    data = b"anything"
    info = TargetFile.from_data("team/pins.json", data, ["sha256"])
    targets = Targets(version=3, expires=now() + timedelta(days=1), targets={"team/pins.json": info})
    publisher.sign(targets, publisher.targets, path="metadata/3.targets.json")
    publisher.refresh()
    (publisher.directory / "targets/team").mkdir()
    path = f"targets/team/{info.hashes['sha256']}.pins.json"
    publisher.replace(path, data)
    verified, wants = run(files_of(publisher), publisher.anchor, name="team/pins.json")
    assert (verified.target, wants[-1]) == (data, Want(path, len(data)))


def test_too_many_roots(publisher):
    """After 64 roots the program has to be shipped anew; up to then each is followed."""
    root = Metadata[Root].from_bytes(publisher.anchor).signed
    for root.version in range(2, 66):
        publisher.sign(root, *publisher.roots[:2], path=f"metadata/{root.version}.root.json")
    assert "more than 64 roots since version 1" in str(refused(files_of(publisher), publisher.anchor))
    verified, _ = run(files_of(publisher), publisher.read("metadata/2.root.json"))
    assert verified.versions["root"] == 65


def test_new_root_that_the_old_one_does_not_vouch_for(publisher, tmp_path):
    """A root of somebody else, signed by all of its own keys."""
    other = Publisher(tmp_path / "other")
    root = Metadata[Root].from_bytes(other.anchor).signed
    root.version = 2
    publisher.sign(root, *other.roots, path="metadata/2.root.json")
    assert "signed by 0 of the 2 keys that root version 1 asks for" in str(
        refused(files_of(publisher), publisher.anchor)
    )


def test_new_root_that_its_own_keys_do_not_sign(publisher):
    """Else a slip of the old holders could hand the root to keys that nobody has (TUF 5.3.4)."""
    root = Metadata[Root].from_bytes(publisher.anchor).signed
    root.version = 2
    new = CryptoSigner.generate_ed25519()
    for old in publisher.roots[1:]:
        root.revoke_key(old.public_key.keyid, "root")
    root.add_key(new.public_key, "root")
    publisher.sign(root, *publisher.roots, path="metadata/2.root.json")
    assert "signed by 1 of the 2 keys that root version 2 asks for" in str(
        refused(files_of(publisher), publisher.anchor)
    )
    publisher.sign(root, *publisher.roots, new, path="metadata/2.root.json")
    run(files_of(publisher), publisher.anchor)


def test_inconsistent_snapshots(publisher):
    """A repository whose files have no versions in their names is refused."""
    root = Metadata[Root].from_bytes(publisher.anchor).signed
    root.version, root.consistent_snapshot = 2, False
    publisher.sign(root, *publisher.roots, path="metadata/2.root.json")
    assert "no consistent snapshots" in str(refused(files_of(publisher), publisher.anchor))


def test_number_without_a_canonical_form(publisher):
    """What cannot be written canonically cannot have been signed."""
    document = json.loads(publisher.read("metadata/timestamp.json"))
    document["signed"]["extra"] = 1.5
    publisher.replace("metadata/timestamp.json", json.dumps(document).encode())
    assert "has no canonical form" in str(refused(files_of(publisher), publisher.anchor))


def test_changed_targets_key_takes_its_policy_along(publisher):
    """What a key has signed that was taken away does not verify any more, neither from the network nor from the cache."""
    verified, _ = run(files_of(publisher), publisher.anchor)
    publisher.repository.rotate(
        KeyRole.TARGETS,
        publisher.targets.public_key.keyid,
        CryptoSigner.generate_ed25519().public_key,
        publisher.roots,
        now(),
    )
    error = refused(files_of(publisher), publisher.anchor, known=verified.files)
    assert (error.fault, "targets version 2 is signed by 0" in str(error)) == (UpdateFault.SIGNATURE, True)


def test_every_key_can_change(publisher):
    """An update leads over the change of every kind of key."""
    verified, _ = run(files_of(publisher), publisher.anchor)
    publisher.rotate_online()
    publisher.rotate_targets()
    publisher.rotate_root()
    publisher.publish(policy(5, 6))
    again, _ = run(files_of(publisher), publisher.anchor, known=verified.files)
    assert (again.target, again.versions["root"]) == (write_json(policy(5, 6)).encode(), 4)


PATHS = ["metadata/timestamp.json", "metadata/2.snapshot.json", "metadata/2.targets.json", "metadata/2.root.json"]


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    made = Publisher(tmp_path_factory.mktemp("served"), first=policy(1, 2))
    anchor = made.anchor
    made.repository.refresh(made.roots, now())
    return files_of(made), anchor


@settings(max_examples=150)
@given(path=st.sampled_from(PATHS), data=st.data())
def test_altered_bytes(served, path, data):
    """Whatever a byte is changed to, an update ends with the policy that was signed, or an `UpdateError`."""
    files, anchor = served
    whole = files[path]
    at = data.draw(st.integers(0, len(whole) - 1))
    altered = whole[:at] + data.draw(st.binary(min_size=0, max_size=3)) + whole[at + 1 :]
    _ends_well(files | {path: altered}, anchor)


@settings(max_examples=60)
@given(
    st.sampled_from(PATHS),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    ),
    st.sampled_from(
        ["", "signed", "signatures", "signed.version", "signed.meta", "signed.expires", "signed.spec_version"]
    ),
)
def test_any_json(served, path, value, place):
    """Any JSON in any place is an `UpdateError`, or means what was signed (python-tuf reads a null as its default)."""
    files, anchor = served
    document = json.loads(files[path])
    if place:
        *parents, last = place.split(".")
        table = document
        for parent in parents:
            table = table[parent]
        table[last] = value
    else:
        document = value
    _ends_well(files | {path: json.dumps(document).encode()}, anchor)


def _ends_well(files, anchor):
    try:
        verified, _ = run(files, anchor)
    except UpdateError as error:
        assert error.fault in {UpdateFault.INVALID, UpdateFault.SIGNATURE}
    else:
        assert verified.target == write_json(policy(1, 2)).encode()


def test_errors_can_be_pickled():
    """With all that they carry."""
    error = UpdateError("text", fault=UpdateFault.EXPIRED, expired_at=datetime(2026, 1, 1, tzinfo=UTC))
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.fault, copy.expired_at) == ("text", error.fault, error.expired_at)
