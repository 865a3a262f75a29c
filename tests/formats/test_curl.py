"""
``curl --pinnedpubkey``: text that curl compares letter by letter, and leaves alone.
"""

from __future__ import annotations

import pytest
from formats.samples import DAY, PIN_A, PIN_B, PIN_C, UNLISTED, WHOLE_A, WHOLE_B, A, B, faults_of, open_policy, places
from hypothesis import given
from hypothesis import strategies as st

from pinset import Pin, PinKind, PinSet, Policy
from pinset._policy import Role
from pinset.formats.curl import read_curl, write_curl
from pinset.formats.exchange import Circumstances, Effect

BOTH = f"sha256//{A};sha256//{B}"


@pytest.mark.parametrize("text", [BOTH, BOTH + "\n", BOTH + "\r\n", BOTH.encode()])
def test_pins_of_the_leaf(text):
    """The argument is the leaf_pins of the host that it is given for."""
    read = read_curl(text, host="API.example.com")
    assert read.policy == open_policy(PinSet(name="api.example.com", leaf_pins=[PIN_A, PIN_B]))
    assert read.losses == ()


def test_single_pin():
    """One pin is accepted by name."""
    read = read_curl(f"sha256//{A}", host="a.com")
    assert read.policy.pin_sets[0].allow_single_pin
    assert places(read) == [("a.com", Effect.NOTHING)]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("key.pem", "curl takes it for the name of a key file"),
        ("", "curl takes it for the name of a key file"),
        (f" sha256//{A}", "curl takes it for the name of a key file"),
        (f"sha256/{A}", "does not begin with sha256//"),
        (f"SHA256//{A}", "does not begin with sha256//"),
        (f"sha256//{A}; sha256//{B}", "does not begin with sha256//"),
        (f"sha256//{A};", "does not begin with sha256//"),
        (f"sha256//{A[:-1]}", "is not base64"),
        (f"sha256//{A} ", "has space around it"),
        ("sha256//AAAA", "is 3 bytes, and SHA-256 is 32"),
    ],
)
def test_faults(text, reason):
    """What curl would not compare as a pin is a fault."""
    assert any(reason in fault.reason for fault in faults_of(read_curl, text, host="a.com"))


def test_host():
    """The host is a host, without stars."""
    assert faults_of(read_curl, BOTH, host="*.a.com")[0].path == "host"


def test_what_is_written():
    """Pins of the leaf, joined as curl wants them, on one line."""
    written = write_curl(Policy((PinSet(name="a.com", leaf_pins=[PIN_A, PIN_B]),)))
    assert written.text == BOTH + "\n"
    assert written.losses == ()  # which hosts are listed is not curl's question


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        (None, "curl is for one host, and the policy has 2"),
        ("c.com", "no rule of the policy pins this host"),
        ("off.a.com", "no rule of the policy pins this host"),
        ("b.com", "pins keys of CAs only"),
    ],
)
def test_which_host(host, reason):
    """It is for one pinned host, whose leaf is pinned."""
    policy = open_policy(
        PinSet(name="a.com", leaf_pins=[PIN_A, PIN_B], subdomains="all"),
        PinSet(name="off.a.com", mode="off"),
        PinSet(name="b.com", ca_pins=[PIN_A, PIN_B]),
    )
    assert reason in faults_of(write_curl, policy, Circumstances(host=host))[0].reason
    assert write_curl(policy, Circumstances(host="x.a.com")).text == BOTH + "\n"


def test_roles_and_losses():
    """Pins of any place must be those of a leaf; what curl cannot ask for as well weakens."""
    anywhere = open_policy(PinSet(name="a.com", pins=[PIN_A, PIN_B]))
    assert "--chain" in faults_of(write_curl, anywhere)[0].suggestion
    written = write_curl(anywhere, Circumstances(roles={PIN_A: Role.LEAF}))
    assert places(written) == [("a.com", Effect.TIGHTENS)]
    policy = open_policy(
        PinSet(
            name="a.com",
            leaf_pins=[PIN_A, PIN_B],
            ca_pins=[PIN_B, PIN_C],
            certificate_pins=[WHOLE_A, WHOLE_B],
            mode="report-only",
            rotation="in May",
            expires=DAY,
            on_expiry="block",
        )
    )
    written = write_curl(policy)
    nothing, weakens, tightens = Effect.NOTHING, Effect.WEAKENS, Effect.TIGHTENS
    assert [effect for _, effect in places(written)] == [nothing, tightens, weakens, weakens, weakens]
    assert UNLISTED not in written.losses


@given(st.lists(st.binary(min_size=32, max_size=32), min_size=2, max_size=4, unique=True))
def test_round_trip(digests):
    """Pins of a leaf come back as they were."""
    pins = [Pin(PinKind.SPKI, digest) for digest in digests]
    policy = open_policy(PinSet(name="a.com", leaf_pins=pins))
    assert read_curl(write_curl(policy).text, host="a.com").policy == policy
