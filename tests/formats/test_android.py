"""
``network_security_config.xml``: the grammar of Android, its losses both ways, and TrustKit-Android's element.
"""

from __future__ import annotations

from datetime import timedelta

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
    C,
    faults_of,
    open_policy,
    places,
)
from hypothesis import given
from hypothesis import strategies as st

from pinset import Fault, Mode, Pin, PinKind, PinSet, Policy, Subdomains
from pinset.formats.android import read_android, read_trustkit_android, write_android, write_trustkit_android
from pinset.formats.exchange import Effect, Loss

SAMPLE = f"""<?xml version="1.0" encoding="utf-8"?>
<network-security-config>
  <domain-config cleartextTrafficPermitted="false">
    <domain includeSubdomains="true">example.com</domain>
    <pin-set expiration="2027-01-31">
      <pin digest="SHA-256">{A}</pin>
      <pin digest="SHA-256">{B}</pin>
    </pin-set>
    <domain-config><domain>cdn.example.com</domain><pin-set/></domain-config>
    <domain-config><domain>img.example.com</domain></domain-config>
  </domain-config>
</network-security-config>
"""
PINNED = {"pins": (PIN_A, PIN_B), "expires": DAY, "on_expiry": "unpin"}


def config(inside: str) -> str:
    return f"<network-security-config>{inside}</network-security-config>"


def domain(inside: str, name: str = "example.com", attributes: str = "") -> str:
    return config(f"<domain-config><domain {attributes}>{name}</domain>{inside}</domain-config>")


PINS = f'<pin-set><pin digest="SHA-256">{A}</pin><pin digest="SHA-256">{B}</pin></pin-set>'


def test_sample():
    """Expiry, inheritance and an empty pin-set in a nested configuration are read as Android means them."""
    read = read_android(SAMPLE)
    assert read.policy == open_policy(
        PinSet(name="example.com", subdomains="all", **PINNED),
        PinSet(name="cdn.example.com", mode="off"),
        PinSet(name="img.example.com", **PINNED),
    )
    midnight = "2027-01-31 begins at midnight of the device's time zone, and of UTC in a policy"
    assert read.losses == (Loss("line 5", midnight),)
    assert read_android(SAMPLE.encode()) == read


def test_what_is_written():
    """A rule a domain-config, without cleartext, and an exclusion as an empty pin-set."""
    policy = open_policy(
        PinSet(name="example.com", subdomains="all", **PINNED), PinSet(name="a.example.com", mode="off")
    )
    written = write_android(policy)
    assert written.losses == ()
    assert (
        written.text
        == f"""<?xml version="1.0" encoding="utf-8"?>
<network-security-config>
  <domain-config cleartextTrafficPermitted="false">
    <domain includeSubdomains="true">example.com</domain>
    <pin-set expiration="2027-01-31">
      <pin digest="SHA-256">{A}</pin>
      <pin digest="SHA-256">{B}</pin>
    </pin-set>
  </domain-config>
  <domain-config cleartextTrafficPermitted="false">
    <domain includeSubdomains="false">a.example.com</domain>
    <pin-set/>
  </domain-config>
</network-security-config>
"""
    )


@pytest.mark.parametrize("digest", ["SHA-256", "sha-256"])
@pytest.mark.parametrize("name", ["example.com", "  EXAMPLE.com\n ", "example.com."])
def test_names_and_digests(digest, name):
    """Names are trimmed and lower-cased, and the digest is SHA-256 in any case."""
    text = domain(PINS.replace("SHA-256", digest), name)
    assert read_android(text).policy == open_policy(PinSet(name="example.com", pins=[PIN_A, PIN_B]))


def test_one_config_for_several_domains():
    """Every domain of a configuration has its pins; a nested one need not be below them."""
    text = config(
        f"<domain-config><domain>a.com</domain><domain includeSubdomains='true'>b.com</domain>{PINS}"
        "<domain-config><domain>c.org</domain></domain-config></domain-config>"
    )
    pins = [PIN_A, PIN_B]
    assert read_android(text).policy == open_policy(
        PinSet(name="a.com", pins=pins),
        PinSet(name="b.com", pins=pins, subdomains="all"),
        PinSet(name="c.org", pins=pins),
    )


def test_exclusion_stands_under_what_it_excludes_from():
    """A name without pins excludes under pins that cover it; elsewhere it means nothing and is left out."""
    text = config(
        f"<domain-config><domain includeSubdomains='true'>a.com</domain>{PINS}</domain-config>"
        "<domain-config><domain includeSubdomains='true'>x.a.com</domain></domain-config>"
        "<domain-config><domain>y.x.a.com</domain><pin-set/></domain-config>"
        "<domain-config><domain>other.org</domain><pin-set/></domain-config>"
    )
    read = read_android(text)
    assert [(pin_set.name, pin_set.mode) for pin_set in read.policy.pin_sets] == [
        ("a.com", "enforce"),
        ("x.a.com", "off"),
    ]
    assert read.policy.find("z.x.a.com").mode is Mode.OFF
    assert [loss.what for loss in read.losses] == [
        "y.x.a.com has no pins, and nothing above it has: left out",
        "other.org has no pins, and nothing above it has: left out",
    ]


def test_what_stands_beside_the_pins_is_reported_with_its_line():
    """Trust anchors, transparency, debug overrides, cleartext and unknown elements are losses, none in silence."""
    text = config(
        "\n<base-config hstsEnforced='true'/>"
        "\n<domain-config cleartextTrafficPermitted='true'>\n<domain>example.com</domain>"
        "\n<trust-anchors><certificates src='user' overridePins='true'/></trust-anchors>"
        f"\n<certificateTransparency enabled='true'/>\n<domainEncryption/>\n{PINS}"
        "\n<trustkit-config enforcePinning='false'>\n<report-uri>https://r.example</report-uri>\n<other/></trustkit-config>"
        "</domain-config>\n<debug-overrides/>\n<localhost/>\n"
        "<domain-config><domain>example.org</domain><pin-set><note/></pin-set></domain-config>"
    )
    read = read_android(text)
    assert [loss.place for loss in read.losses] == [f"line {n}" for n in (2, 3, 5, 6, 7, 10, 11, 9, 12, 13, 14, 14)]
    assert all(loss.effect is Effect.NOTHING and loss.what for loss in read.losses)
    assert read.policy.pin_sets[0].mode is Mode.ENFORCE


def test_single_pin():
    """Android enforces one pin; a policy accepts that by name, and it is said."""
    read = read_android(domain(f'<pin-set><pin digest="SHA-256">{A}</pin></pin-set>'))
    assert read.policy.pin_sets[0].allow_single_pin
    assert places(read) == [("line 1", Effect.NOTHING)]
    assert not read_android(domain(PINS)).policy.pin_sets[0].allow_single_pin


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("<x/>", "the root is <x>, not <network-security-config>"),
        (config(""), "the file pins no host"),
        (domain("<pin-set/>"), "the file pins no host"),
        (config("<base-config><domain>a.com</domain></base-config>"), "<domain> cannot stand in <base-config>"),
        (config(f"<base-config>{PINS}</base-config>"), "<pin-set> cannot stand in <base-config>"),
        (config("<base-config/><base-config/>"), "a second <base-config> in one <network-security-config>"),
        (config("<debug-overrides/><debug-overrides/>"), "a second <debug-overrides> in one <network-security-config>"),
        (config(f"<domain-config>{PINS}</domain-config>"), "a <domain-config> needs a <domain>"),
        (domain(PINS + PINS), "a second <pin-set> in one <domain-config>"),
        (domain(PINS, "*.example.com"), "has a star, which this format never matches"),
        (domain(PINS, ".android.com"), "'.android.com' is not a host name; it has an empty label"),
        (domain(PINS, "https://example.com"), "without the scheme"),
        (domain(PINS, ""), "'' is not a host name"),
        (domain(PINS, "192.0.2.1", "includeSubdomains='true'"), "an IP address has no subdomains"),
        (domain(PINS, attributes="includeSubdomains='yes'"), "includeSubdomains is neither true nor false"),
        (domain(PINS, attributes="includeSubdomains='@bool/x'"), "includeSubdomains is neither true nor false"),
        (domain(PINS + "<domain>EXAMPLE.com.</domain>"), "example.com already stands on line 1"),
        (domain(PINS.replace("SHA-256", "I am probably not an algorithm")), "is not SHA-256"),
        (domain(f"<pin-set><pin>{A}</pin></pin-set>"), "digest None is not SHA-256"),
        (domain('<pin-set><pin digest="SHA-256"/></pin-set>'), "'' is empty"),
        (domain(PINS.replace(A, "sha256/" + A)), "has a prefix; this format writes the base64 alone"),
        (domain(PINS.replace(A, A[:-1])), f"lacks the = at its end; if it is the right pin, write {A}"),
        (domain(PINS.replace(A, A.replace("7H", "!H"))), "is not base64: it holds '!'"),
        (domain(PINS.replace(A, A.replace("7H", "_H"))), "it is URL-safe base64: write + for - and / for _"),
        (domain(PINS.replace(A, PIN_A.digest.hex())), f"is hexadecimal; in base64 it is {A}"),
        (domain(PINS.replace(A, "AAAA")), "is 3 bytes, and SHA-256 is 32"),
        (
            domain(PINS.replace(A, "DmxUShsZuNiqPQsX2Oi9uv2sCnw=")),
            "is 20 bytes, and SHA-256 is 32; that is the size of SHA-1",
        ),
        (domain(PINS.replace(A, "AAAAA")), "is not base64: no bytes have 5 characters; some are missing"),
        (domain(PINS.replace(A, "AA=A")), "is not base64: no bytes have 4 characters; some are missing"),
        (domain(PINS.replace(A, A[:-2] + "Z=")), f"is not canonical base64; if it is the right pin, write {A}"),
        (domain(PINS.replace(A, A + "=")), f"is not canonical base64; if it is the right pin, write {A}"),
        (domain(PINS.replace(">" + A, "><b/>" + A)), "a <pin> holds text only"),
        (domain('<pin-set expiration="2016-13-45"/>'), "expiration '2016-13-45' is not a day"),
        (domain('<pin-set expiration="tomorrow"/>'), "expiration 'tomorrow' is not a day"),
        (domain('<pin-set expiration="20270131"/>'), "expiration '20270131' is not a day"),
        (domain('<pin-set expiration="2027-W01-1"/>'), "expiration '2027-W01-1' is not a day"),
        (domain(PINS + "<trustkit-config enforcePinning='maybe'/>"), "enforcePinning is neither true nor false"),
    ],
)
def test_faults(text, reason):
    """What Android refuses, and what it misreads in silence, is a fault that says what is wrong."""
    assert any(reason in fault.reason for fault in faults_of(read_android, text, source="x.xml"))


def test_all_faults_with_their_lines():
    """All faults come out at once, in the order of the file."""
    text = config(
        "\n<domain-config>\n<domain>a b</domain>\n<pin-set expiration='x'>\n<pin digest='MD5'>AAAA</pin>\n"
        f"</pin-set></domain-config>\n<domain-config>{PINS}</domain-config>"
    )
    assert [fault.path for fault in faults_of(read_android, text)] == ["line 4", "line 5", "line 5", "line 3", "line 7"]


# Writing.


def test_losses_of_roles():
    """A role, a second list and a whole certificate cannot be asked for, which weakens."""
    weakens = Effect.WEAKENS
    policy = open_policy(
        PinSet(name="a.com", leaf_pins=[PIN_A, PIN_B]),
        PinSet(name="b.com", ca_pins=[PIN_A, PIN_B], pins=[PIN_C, PIN_B]),
        PinSet(name="c.com", pins=[PIN_A, PIN_B], certificate_pins=[WHOLE_A, WHOLE_B]),
    )
    written = write_android(policy)
    assert places(written) == [("a.com", weakens), ("b.com", weakens), ("b.com", weakens), ("c.com", weakens)]
    assert written.text.count(C) == 0
    again = read_android(written.text).policy
    assert again == open_policy(*(PinSet(name=f"{n}.com", pins=[PIN_A, PIN_B]) for n in "abc"))


def test_whole_certificates_alone_are_refused():
    """A rule of whole certificates leaves nothing to write."""
    policy = open_policy(PinSet(name="a.com", certificate_pins=[WHOLE_A, WHOLE_B]))
    assert faults_of(write_android, policy) == [
        Fault("a.com", "pins whole certificates, and the format knows keys only", "pin the key")
    ]


@pytest.mark.parametrize(
    ("expires", "on_expiry", "attribute", "effects"),
    [
        (DAY, "unpin", 'expiration="2027-01-31"', []),
        (DAY + timedelta(hours=23), "unpin", 'expiration="2027-01-31"', [Effect.WEAKENS]),
        (DAY, "block", None, [Effect.WEAKENS]),
        (DAY, "enforce", None, [Effect.NOTHING]),
    ],
)
def test_losses_of_expiry(expires, on_expiry, attribute, effects):
    """The date is rounded down; what does not end in trust without pins has no date."""
    policy = open_policy(PinSet(name="a.com", pins=[PIN_A, PIN_B], expires=expires, on_expiry=on_expiry))
    written = write_android(policy)
    assert ("expiration" in written.text) == (attribute is not None)
    assert attribute is None or attribute in written.text
    assert [loss.effect for loss in written.losses] == effects


def test_losses_of_words():
    """Denied hosts, notes and report-only are reported."""
    policy = Policy((PinSet(name="a.com", pins=[PIN_A, PIN_B], mode="report-only", rotation="in May"),))
    written = write_android(policy)
    assert written.losses[0] == UNLISTED
    assert places(written)[1:] == [("a.com", Effect.NOTHING), ("a.com", Effect.TIGHTENS)]


@pytest.mark.parametrize(
    ("rules", "effect"),
    [
        ([PinSet(name="a.com", pins=[PIN_A, PIN_B], subdomains="one")], Effect.TIGHTENS),
        ([PinSet(name="*.a.com", pins=[PIN_A, PIN_B])], Effect.TIGHTENS),
        (
            [PinSet(name="*.b.a.com", pins=[PIN_A, PIN_B]), PinSet(name="**.a.com", pins=[PIN_B, PIN_C])],
            Effect.WEAKENS,
        ),
        (
            [PinSet(name="b.a.com", mode="off", subdomains="one"), PinSet(name="**.a.com", pins=[PIN_B, PIN_C])],
            Effect.WEAKENS,
        ),
        ([PinSet(name="*." + "a" * 62 + ".aaa" * 46, pins=[PIN_A, PIN_B])], Effect.TIGHTENS),
    ],
)
def test_losses_of_subdomains(rules, effect):
    """One label becomes any depth; that weakens where another rule's pins are replaced."""
    written = write_android(open_policy(*rules))
    assert [(loss.place, loss.effect) for loss in written.losses] == [(rules[0].name, effect)]


def test_two_rules_for_one_name():
    """A host and its tree with different pins have one name there."""
    policy = open_policy(PinSet(name="a.com", pins=[PIN_A, PIN_B]), PinSet(name="**.a.com", pins=[PIN_B, PIN_C]))
    reason = "and a.com are two rules, and the format has one for a name"
    assert faults_of(write_android, policy) == [Fault("**.a.com", reason, "merge the two")]


# TrustKit-Android.


def test_trustkit_enforces_only_where_it_is_said():
    """There enforcePinning is false unless it is written, and a nested configuration inherits it."""
    inside = PINS + "<trustkit-config enforcePinning='true'/><domain-config><domain>b.com</domain></domain-config>"
    enforced = read_trustkit_android(domain(inside))
    assert [pin_set.mode for pin_set in enforced.policy.pin_sets] == [Mode.ENFORCE, Mode.ENFORCE]
    for inside in (PINS, PINS + "<trustkit-config/>"):
        assert read_trustkit_android(domain(inside)).policy.pin_sets[0].mode is Mode.REPORT_ONLY


def test_trustkit_android_is_written_without_reports_to_its_maker():
    """The mode is in TrustKit's element, and the default report URI is off."""
    policy = open_policy(
        PinSet(name="a.com", pins=[PIN_A, PIN_B], mode="report-only"), PinSet(name="b.com", pins=[PIN_A, PIN_B])
    )
    written = write_trustkit_android(policy)
    assert written.losses == ()
    for enforced in ("false", "true"):
        assert f'<trustkit-config enforcePinning="{enforced}" disableDefaultReportUri="true"/>' in written.text
    assert read_trustkit_android(written.text).policy == policy


# Round trips.

PIN = st.binary(min_size=32, max_size=32).map(lambda digest: Pin(PinKind.SPKI, digest))
DAYS = st.none() | st.integers(-700, 70_000).map(lambda days: DAY + timedelta(days=days))


@st.composite
def what_android_can_say(draw, modes=(Mode.ENFORCE,), least=1, addresses=("192.0.2.7",), exclusions=("none", "all")):
    """A policy of nothing but what Android has words for."""
    known = ["a.com", "b.a.com", "c.b.a.com", "d.org", *addresses]
    names = draw(st.lists(st.sampled_from(known), min_size=1, unique=True))
    pin_sets = []
    for name in names:
        pins = draw(st.lists(PIN, min_size=least, max_size=3, unique=True))
        expires = draw(DAYS)
        pin_sets.append(
            PinSet(
                name=name,
                pins=pins,
                subdomains=draw(st.sampled_from([Subdomains.NONE, Subdomains.ALL])) if name[0].isalpha() else "none",
                expires=expires,
                on_expiry=None if expires is None else "unpin",
                mode=draw(st.sampled_from(modes)),
                allow_single_pin=len(pins) == 1,
            )
        )
    if pin_sets[0].subdomains is Subdomains.ALL:
        excluded = PinSet(name="off." + names[0], mode="off", subdomains=draw(st.sampled_from(exclusions)))
        pin_sets.append(excluded)
    return open_policy(*pin_sets)


@given(what_android_can_say())
def test_round_trip(policy):
    """What Android can say comes back as it was, and nothing is lost in writing."""
    written = write_android(policy)
    assert written.losses == ()
    assert read_android(written.text).policy == policy


@given(what_android_can_say((Mode.ENFORCE, Mode.REPORT_ONLY), least=2))
def test_round_trip_with_trustkit(policy):
    """With TrustKit's element report-only rules come back, too."""
    written = write_trustkit_android(policy)
    assert written.losses == ()
    assert read_trustkit_android(written.text).policy == policy
