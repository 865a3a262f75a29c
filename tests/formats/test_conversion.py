"""
From any format to any other: the losses of both ways, and what the surroundings must give.
"""

from __future__ import annotations

import itertools

import pytest
from formats.samples import NOW, PIN_A, PIN_B, faults_of
from formats.test_android import SAMPLE as ANDROID

from pinset import PinSet, Policy, Unlisted
from pinset._policy import Role
from pinset.formats import read_toml, write_toml
from pinset.formats.conversion import FORMATS, convert
from pinset.formats.exchange import Circumstances, Effect, Loss

AROUND = Circumstances(host="example.com", now=NOW, other_roles=Role.LEAF)


@pytest.mark.parametrize(("source", "target"), list(itertools.product(FORMATS, FORMATS)))
def test_every_way(source, target):
    """A rule of two pins for one host finds its way from every format to every other."""
    role = "leaf_pins" if source in ("apple", "curl", "tlsa") else "pins"
    policy = Policy((PinSet(name="example.com", **{role: [PIN_A, PIN_B]}),), Unlisted.ALLOW)
    text = FORMATS[source].write(policy, AROUND).text
    done = convert(text, source, target, AROUND, source="here")
    [pin_set] = FORMATS[target].read(done.text.encode(), AROUND, "there").policy.pin_sets
    assert (pin_set.name, set(pin_set.all_pins)) == ("example.com", {PIN_A, PIN_B})


def test_losses_of_both_ways():
    """First what reading lost, then what writing lost."""
    done = convert(ANDROID, "android", "okhttp", AROUND)
    midnight = "2027-01-31 begins at midnight of the device's time zone, and of UTC in a policy"
    assert done.losses[0] == Loss("line 5", midnight)
    assert [loss.effect for loss in done.losses[1:]] == [Effect.TIGHTENS, Effect.TIGHTENS, Effect.TIGHTENS]


def test_android_to_toml():
    """The sample of Android as a policy file."""
    done = convert(ANDROID, "android", "toml", AROUND)
    assert read_toml(done.text) == FORMATS["android"].read(ANDROID, AROUND, "").policy
    assert 'name = "cdn.example.com"\nmode = "off"' in done.text
    assert 'expires = 2027-01-31T00:00:00Z\non_expiry = "unpin"' in done.text


@pytest.mark.parametrize(
    ("name", "text", "around", "reason"),
    [
        ("curl", "sha256//x", Circumstances(), "a curl option does not say of which host it speaks"),
        ("hpkp", "max-age=1", Circumstances(now=NOW), "a header does not say of which host it speaks"),
        ("hpkp", "max-age=1", Circumstances(host="a.com"), "the present instant is not given"),
        ("toml", b"\xff", Circumstances(), "not UTF-8 text"),
        ("toml", "x =", Circumstances(), "not TOML"),
    ],
)
def test_what_the_surroundings_must_give(name, text, around, reason):
    """What a format leaves open is asked for."""
    assert reason in faults_of(convert, text, name, "json", around)[0].reason


def test_a_policy_file_is_as_long_as_it_is():
    """Our own formats have no limit of size: the file is the user's own."""
    policy = Policy((PinSet(name="a.com", pins=[PIN_A, PIN_B], rotation="x" * (1 << 20)),))
    text = write_toml(policy)
    assert len(text) > 1 << 20
    assert FORMATS["toml"].read(text.encode(), Circumstances(), "").policy == policy


@pytest.mark.parametrize(
    ("loss", "text"),
    [(Loss("line 5", "x is lost"), "line 5: x is lost"), (Loss("", "x is lost", Effect.WEAKENS), "x is lost")],
)
def test_loss_as_text(loss, text):
    """A loss reads as its place and what is lost."""
    assert str(loss) == text
    assert loss.weakens is (loss.effect is Effect.WEAKENS)
