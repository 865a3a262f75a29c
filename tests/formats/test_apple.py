"""
``NSPinnedDomains``: roles, one label of subdomains, and the property list around them.
"""

from __future__ import annotations

import plistlib

import pytest
from formats.samples import (
    DAY,
    PIN_A,
    PIN_B,
    PIN_C,
    UNLISTED,
    WHOLE_A,
    WHOLE_B,
    A,
    B,
    faults_of,
    open_policy,
    places,
)
from hypothesis import given
from hypothesis import strategies as st

from pinset import Fault, Pin, PinKind, PinSet, Policy, Subdomains
from pinset._policy import Role
from pinset.formats.apple import read_apple, write_apple
from pinset.formats.exchange import Circumstances, Effect

SAMPLE = f"""<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0"><dict><key>CFBundleName</key><string>App</string><key>Size</key><integer>5</integer>
<key>NSAppTransportSecurity</key><dict><key>NSPinnedDomains</key><dict><key>example.com</key><dict>
<key>NSIncludesSubdomains</key><true/>
<key>NSPinnedCAIdentities</key><array>
<dict><key>SPKI-SHA256-BASE64</key><string>{A}</string></dict>
<dict><key>SPKI-SHA256-BASE64</key><string>{B}</string></dict>
</array></dict></dict></dict></dict></plist>
"""
ALL_CA = Circumstances(other_roles=Role.CA)


def plist(document) -> bytes:
    return plistlib.dumps(document)


def domains(**keys) -> bytes:
    return plist({"NSPinnedDomains": {"example.com": keys}})


def identities(*pins: str) -> list[dict[str, str]]:
    return [{"SPKI-SHA256-BASE64": pin} for pin in pins]


def test_sample():
    """An Info.plist with CA identities is a rule with ca_pins and one label of subdomains."""
    read = read_apple(SAMPLE)
    assert read.policy == open_policy(PinSet(name="example.com", subdomains="one", ca_pins=[PIN_A, PIN_B]))
    assert read.losses == ()


@pytest.mark.parametrize("wrap", [lambda d: d, lambda d: {"NSAppTransportSecurity": d}])
def test_where_the_domains_stand(wrap):
    """The security dictionary alone is as good as the whole file."""
    document = {"NSPinnedDomains": {"example.com": {"NSPinnedLeafIdentities": identities(A, B)}}}
    expected = open_policy(PinSet(name="example.com", leaf_pins=[PIN_A, PIN_B]))
    assert read_apple(plist(wrap(document))).policy == expected


def test_both_lists_must_match_there_as_here():
    """Leaf and CA identities together mean both, and a list of one pin is accepted by name."""
    read = read_apple(domains(NSPinnedLeafIdentities=identities(A), NSPinnedCAIdentities=identities(B)))
    expected = PinSet(name="example.com", leaf_pins=[PIN_A], ca_pins=[PIN_B], allow_single_pin=True)
    assert read.policy == open_policy(expected)
    assert [loss.effect for loss in read.losses] == [Effect.NOTHING]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (plist([]), "an array where NSAppTransportSecurity was expected"),
        (plist({"x": 1}), "there is no NSPinnedDomains"),
        (plist({"NSPinnedDomains": {}}), "NSPinnedDomains is empty"),
        (plist({"NSPinnedDomains": "x"}), "NSPinnedDomains is a text, not a dictionary"),
        (plist({"NSPinnedDomains": {"a.com": []}}), "a.com is an array, not a dictionary"),
        (plist({"NSPinnedDomains": {"a.com": {}}}), "a.com pins nothing"),
        (domains(NSIncludesSubdomains=1), "NSIncludesSubdomains is a <integer>"),
        (domains(NSPinnedLeafIdentity=[]), "NSPinnedLeafIdentity is not a known key"),
        (domains(NSPinnedCAIdentities=[]), "NSPinnedCAIdentities is empty"),
        (domains(NSPinnedCAIdentities="x"), "NSPinnedCAIdentities is not a list of identities"),
        (domains(NSPinnedCAIdentities=[A]), "an identity is a dictionary with the text SPKI-SHA256-BASE64 alone"),
        (domains(NSPinnedCAIdentities=[{"SPKI-SHA256-BASE64": 5}]), "an identity is a dictionary with the text"),
        (domains(NSPinnedCAIdentities=identities("AAAA")), "is 3 bytes, and SHA-256 is 32"),
        (plist({"NSPinnedDomains": {"*.a.com": {"NSPinnedCAIdentities": identities(A, B)}}}), "has a star"),
        (plist({"NSPinnedDomains": {"a.com:443": {"NSPinnedCAIdentities": identities(A, B)}}}), "without port"),
        (
            plist({"NSPinnedDomains": {n: {"NSPinnedCAIdentities": identities(A, B)} for n in ("a.com", "A.com")}}),
            "a.com already stands on line",
        ),
        (
            plist(
                {"NSPinnedDomains": {"::1": {"NSIncludesSubdomains": True, "NSPinnedCAIdentities": identities(A, B)}}}
            ),
            "an IP address has no subdomains",
        ),
    ],
)
def test_faults(data, reason):
    """Whatever is not as Apple documents it is a fault with its line."""
    faults = faults_of(read_apple, data, source="Info.plist")
    assert any(reason in fault.reason for fault in faults)
    assert all(fault.path.startswith("line ") for fault in faults)


# Writing.


def test_what_is_written():
    """Roles and one label of subdomains are written without loss."""
    policy = open_policy(
        PinSet(name="a.com", ca_pins=[PIN_A, PIN_B], subdomains="one"), PinSet(name="b.com", leaf_pins=[PIN_A, PIN_B])
    )
    written = write_apple(policy)
    assert written.losses == ()
    assert plistlib.loads(written.text.encode()) == {
        "NSAppTransportSecurity": {
            "NSPinnedDomains": {
                "a.com": {"NSIncludesSubdomains": True, "NSPinnedCAIdentities": identities(A, B)},
                "b.com": {"NSPinnedLeafIdentities": identities(A, B)},
            }
        }
    }


def test_pins_of_any_place_need_a_role():
    """What is a pin of any certificate must become one of a leaf or of a CA, and somebody has to say which."""
    policy = open_policy(PinSet(name="a.com", pins=[PIN_A, PIN_B]))
    [fault] = faults_of(write_apple, policy)
    assert fault.reason == f"it is not known whether {PIN_A} is the key of a leaf or of a CA"
    assert "--chain" in fault.suggestion
    written = write_apple(policy, ALL_CA)
    assert places(written) == [("a.com", Effect.TIGHTENS)]
    assert read_apple(written.text).policy == open_policy(PinSet(name="a.com", ca_pins=[PIN_A, PIN_B]))


@pytest.mark.parametrize(
    ("roles", "other", "expected"),
    [
        ({PIN_A: Role.LEAF}, None, Role.LEAF),
        ({PIN_A: Role.LEAF, PIN_B: Role.LEAF}, None, Role.LEAF),
        ({PIN_A: Role.LEAF, PIN_B: Role.LEAF}, Role.CA, Role.LEAF),
        ({PIN_A: Role.CA}, Role.CA, Role.CA),
        ({}, Role.LEAF, Role.LEAF),
        ({PIN_A: Role.LEAF, PIN_B: Role.CA}, None, "pins are keys of leaves and of CAs"),
        ({PIN_A: Role.LEAF}, Role.CA, "the chain and --role say different things"),
        ({PIN_C: Role.LEAF}, None, "it is not known whether"),
    ],
)
def test_roles(roles, other, expected):
    """A key that the chain shows gives its role to the rest; two roles cannot become two lists, for both would be asked."""
    policy = open_policy(PinSet(name="a.com", pins=[PIN_A, PIN_B]))
    around = Circumstances(roles=roles, other_roles=other)
    if isinstance(expected, Role):
        [pin_set] = read_apple(write_apple(policy, around).text).policy.pin_sets
        assert [requirement.role for requirement in pin_set.requirements] == [expected]
    else:
        assert expected in faults_of(write_apple, policy, around)[0].reason


def test_losses():
    """Depth, exclusion, expiry, mode and further lists, each with what its loss does."""
    weakens, tightens, nothing = Effect.WEAKENS, Effect.TIGHTENS, Effect.NOTHING
    ca = {"ca_pins": [PIN_A, PIN_B]}
    policy = Policy(
        (
            PinSet(name="a.com", subdomains="all", **ca),
            PinSet(name="x.a.com", mode="off"),
            PinSet(name="b.com", **ca, expires=DAY, on_expiry="unpin"),
            PinSet(name="c.com", **ca, expires=DAY, on_expiry="block"),
            PinSet(name="d.com", **ca, expires=DAY, on_expiry="enforce", rotation="in May"),
            PinSet(name="e.com", **ca, mode="report-only"),
            PinSet(name="*.f.com", **ca),
            PinSet(name="*.x.a.com", **ca),
            PinSet(name="g.com", **ca, pins=[PIN_A, PIN_B], certificate_pins=[WHOLE_A, WHOLE_B]),
        )
    )
    written = write_apple(policy)
    assert written.losses[0] == UNLISTED
    assert places(written)[1:] == [
        ("a.com", weakens),
        ("x.a.com", tightens),
        ("b.com", tightens),
        ("c.com", weakens),
        ("d.com", nothing),
        ("d.com", nothing),
        ("e.com", tightens),
        ("*.f.com", tightens),
        ("*.x.a.com", tightens),
        ("g.com", weakens),
        ("g.com", weakens),
    ]


def test_what_apple_cannot_say_at_all():
    """Whole certificates alone, and two rules for one name, are refused."""
    policy = open_policy(PinSet(name="a.com", certificate_pins=[WHOLE_A, WHOLE_B]))
    assert faults_of(write_apple, policy)[0].reason == "pins whole certificates, and the format knows keys only"
    policy = open_policy(PinSet(name="a.com", ca_pins=[PIN_A, PIN_B]), PinSet(name="*.a.com", ca_pins=[PIN_A, PIN_B]))
    assert faults_of(write_apple, policy) == [
        Fault("*.a.com", "and a.com are two rules, and the format has one for a name", "merge the two")
    ]


def test_host_that_a_star_gains_from_another_rule():
    """The host of a ``*.`` rule is covered there; that weakens where a broader rule pinned it with other keys."""
    policy = open_policy(
        PinSet(name="*.b.a.com", ca_pins=[PIN_A, PIN_B]), PinSet(name="*.a.com", ca_pins=[PIN_B, PIN_C])
    )
    assert places(write_apple(policy)) == [("*.b.a.com", Effect.WEAKENS), ("*.a.com", Effect.TIGHTENS)]


PINS = st.lists(
    st.binary(min_size=32, max_size=32).map(lambda digest: Pin(PinKind.SPKI, digest)),
    min_size=2,
    max_size=3,
    unique=True,
)


@given(st.lists(st.tuples(PINS, PINS, st.sampled_from(["leaf", "ca", "both"]), st.booleans()), min_size=1, max_size=3))
def test_round_trip(rules):
    """What Apple can say comes back as it was, and nothing is lost in writing."""
    policy = open_policy(
        *(
            PinSet(
                name=f"host{number}.example",
                leaf_pins=leaf if which != "ca" else (),
                ca_pins=ca if which != "leaf" else (),
                subdomains=Subdomains.ONE if below else Subdomains.NONE,
            )
            for number, (leaf, ca, which, below) in enumerate(rules)
        )
    )
    written = write_apple(policy)
    assert written.losses == ()
    assert read_apple(written.text).policy == policy
