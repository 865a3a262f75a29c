"""
TrustKit's property list: its rules, its traps, and the way from Android and back.
"""

from __future__ import annotations

import plistlib
from datetime import timedelta

import pytest
from formats.samples import DAY, PIN_A, PIN_B, WHOLE_A, WHOLE_B, A, B, C, faults_of, open_policy, places
from formats.test_android import SAMPLE as ANDROID
from formats.test_android import what_android_can_say
from hypothesis import given

from pinset import Fault, Mode, PinSet
from pinset.formats.android import read_android, write_android
from pinset.formats.exchange import Effect
from pinset.formats.trustkit import read_trustkit, write_trustkit

HASHES = {"TSKPublicKeyHashes": [A, B]}
NO_ANCHORS = {"TSKIgnorePinningForUserDefinedTrustAnchors": False}


def plist(**domains) -> bytes:
    return plistlib.dumps({"TSKPinnedDomains": domains, **NO_ANCHORS}, sort_keys=False)


def one(**keys) -> bytes:
    return plist(**{"example.com": {**HASHES, **keys}})


def test_every_key():
    """Each key is read as TrustKit means it."""
    data = plist(
        **{
            "example.com": {
                **HASHES,
                "TSKIncludeSubdomains": True,
                "TSKEnforcePinning": False,
                "TSKExpirationDate": "2027-01-31",
                "TSKReportUris": ["https://r.example"],
                "TSKDisableDefaultReportUri": True,
                "TSKPublicKeyAlgorithms": ["TSKAlgorithmRsa2048"],
            },
            "unsecured.example.com": {"TSKExcludeSubdomainFromParentPolicy": True},
            "other.example.com": {**HASHES, "TSKExcludeSubdomainFromParentPolicy": False},
        }
    )
    read = read_trustkit(data)
    assert read.policy == open_policy(
        PinSet(
            name="example.com",
            pins=[PIN_A, PIN_B],
            subdomains="all",
            mode="report-only",
            expires=DAY,
            on_expiry="unpin",
        ),
        PinSet(name="unsecured.example.com", mode="off"),
        PinSet(name="other.example.com", pins=[PIN_A, PIN_B]),
    )
    assert [loss.what for loss in read.losses] == [
        "report URIs are not part of a policy; give the client a report sink"
    ]


def test_defaults():
    """To enforce is the default, and so is the way round for CAs that the user added, which a policy does not have."""
    data = plistlib.dumps({"TSKConfiguration": {"TSKPinnedDomains": {"example.com": HASHES}}})
    read = read_trustkit(data)
    assert read.policy == open_policy(PinSet(name="example.com", pins=[PIN_A, PIN_B]))
    assert [loss.effect for loss in read.losses] == [Effect.TIGHTENS]
    assert "a CA that the user added" in read.losses[0].what


def test_one_pin_is_enough_to_report():
    """To enforce needs two distinct pins, to report one."""
    single = {"TSKPublicKeyHashes": [A, A]}
    assert read_trustkit(one(**single, TSKEnforcePinning=False)).policy.pin_sets[0].pins == (PIN_A,)
    [fault] = faults_of(read_trustkit, one(**single))
    assert "only one distinct pin" in fault.reason


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (plist(), "TSKPinnedDomains is empty"),
        (plist(**{"a.com": []}), "a.com is an array, not a dictionary"),
        (plist(**{"a.com": {}}), "a.com has no list TSKPublicKeyHashes"),
        (one(TSKPublicKeyHashes=[]), "example.com has no list TSKPublicKeyHashes"),
        (one(TSKPublicKeyHashes=A), "example.com has no list TSKPublicKeyHashes"),
        (one(TSKPublicKeyHashes=[A, 5]), "a <integer> where the base64 of a pin was expected"),
        (one(TSKPublicKeyHashes=[A, "x"]), "is not base64"),
        (one(TSKPublicKeyHash=[A]), "TSKPublicKeyHash is not a known key"),
        (one(TSKEnforcePinning="yes"), "TSKEnforcePinning is a text, not <true/> or <false/>"),
        (one(TSKExpirationDate="31 Jan 2027"), "TSKExpirationDate is not a day"),
        (one(TSKExpirationDate=5), "TSKExpirationDate is not a day"),
        (one(TSKExcludeSubdomainFromParentPolicy=True), "must be the only key of example.com"),
        (
            plist(**{"x.example.com": {"TSKExcludeSubdomainFromParentPolicy": True}, "example.com": HASHES}),
            "x.example.com is excluded, and no pinned domain above it includes subdomains",
        ),
        (plist(**{"*.domain.com": HASHES}), "has a star, which this format never matches"),
        (plist(**{"a.com": HASHES, "A.com": HASHES}), "a.com already stands on line"),
        (plistlib.dumps({"TSKConfiguration": []}), "an array where TSKPinnedDomains was expected"),
    ],
)
def test_faults(data, reason):
    """What TrustKit refuses, and what it drops in silence, is a fault."""
    assert any(reason in fault.reason for fault in faults_of(read_trustkit, data))


def test_android_to_trustkit_and_back():
    """The sample of Android says the same in TrustKit's words, and comes back as the same file."""
    android = read_android(ANDROID).policy
    trustkit = write_trustkit(android)
    assert trustkit.losses == ()
    back = read_trustkit(trustkit.text)
    assert back.losses == ()
    assert back.policy == android
    assert write_android(back.policy) == write_android(android)


def test_what_is_written():
    """No report goes to TrustKit's maker, and no CA of a user leads round the pins."""
    policy = open_policy(
        PinSet(name="a.com", pins=[PIN_A, PIN_B], subdomains="all", expires=DAY, on_expiry="unpin"),
        PinSet(name="x.a.com", mode="off"),
    )
    written = write_trustkit(policy)
    assert written.losses == ()
    assert plistlib.loads(written.text.encode()) == {
        "TSKConfiguration": {
            "TSKSwizzleNetworkDelegates": False,
            "TSKIgnorePinningForUserDefinedTrustAnchors": False,
            "TSKPinnedDomains": {
                "a.com": {
                    "TSKIncludeSubdomains": True,
                    "TSKEnforcePinning": True,
                    "TSKPublicKeyHashes": [A, B],
                    "TSKDisableDefaultReportUri": True,
                    "TSKExpirationDate": "2027-01-31",
                },
                "x.a.com": {"TSKExcludeSubdomainFromParentPolicy": True},
            },
        }
    }


def test_losses():
    """Time of day, roles, notes and exclusions of a tree."""
    policy = open_policy(
        PinSet(
            name="a.com",
            leaf_pins=[PIN_A, PIN_B],
            subdomains="all",
            rotation="in May",
            expires=DAY + timedelta(1, 1),
            on_expiry="unpin",
        ),
        PinSet(name="x.a.com", mode="off", subdomains="all"),
    )
    written = write_trustkit(policy)
    nothing, weakens, tightens = Effect.NOTHING, Effect.WEAKENS, Effect.TIGHTENS
    assert places(written) == [("a.com", nothing), ("a.com", weakens), ("a.com", weakens), ("x.a.com", tightens)]
    assert "2027-02-01" in written.text
    assert C not in written.text


@pytest.mark.parametrize(
    ("pin_set", "reason"),
    [
        (PinSet(name="a.com", pins=[PIN_A], allow_single_pin=True), "TrustKit enforces two pins or more"),
        (PinSet(name="192.0.2.1", pins=[PIN_A, PIN_B]), "TrustKit pins names below a public suffix only"),
        (PinSet(name="localhost", pins=[PIN_A, PIN_B]), "TrustKit pins names below a public suffix only"),
        (PinSet(name="a.com", certificate_pins=[WHOLE_A, WHOLE_B]), "pins whole certificates"),
    ],
)
def test_what_trustkit_cannot_say(pin_set, reason):
    """What TrustKit would refuse is refused here, with a word on it."""
    assert any(fault.reason.startswith(reason) for fault in faults_of(write_trustkit, open_policy(pin_set)))


def test_doubles_and_starred_exclusions():
    """A name stands once; an exclusion is of a host."""
    policy = open_policy(PinSet(name="**.a.com", pins=[PIN_A, PIN_B]), PinSet(name="*.x.a.com", mode="off"))
    assert faults_of(write_trustkit, policy) == [
        Fault("*.x.a.com", "an exclusion is of one host there", "name the hosts")
    ]
    policy = open_policy(PinSet(name="a.com", pins=[PIN_A, PIN_B]), PinSet(name="**.a.com", pins=[PIN_A, PIN_B]))
    assert faults_of(write_trustkit, policy)[0].path == "**.a.com"


@given(what_android_can_say((Mode.ENFORCE, Mode.REPORT_ONLY), least=2, addresses=(), exclusions=("none",)))
def test_round_trip(policy):
    """What TrustKit can say comes back as it was, and nothing is lost in writing."""
    written = write_trustkit(policy)
    assert written.losses == ()
    assert read_trustkit(written.text).policy == policy
