"""
The ``Public-Key-Pins`` header of RFC 7469.
"""

from __future__ import annotations

from datetime import timedelta

import pytest
from formats.samples import DAY, NOW, PIN_A, PIN_B, PIN_C, WHOLE_A, WHOLE_B, A, B, faults_of, open_policy, places
from hypothesis import given
from hypothesis import strategies as st

from pinset import Mode, Pin, PinKind, PinSet
from pinset.formats.exchange import Circumstances, Effect
from pinset.formats.hpkp import read_hpkp, write_hpkp

PINS = f'pin-sha256="{A}"; pin-sha256="{B}"'
SAMPLE = f'Public-Key-Pins: max-age=2592000; {PINS}; includeSubDomains; report-uri="https://r.example/pkp"'
AROUND = Circumstances(now=NOW)


def read(text, host="example.com"):
    return read_hpkp(text, host=host, now=NOW)


def test_sample():
    """Pins, age and subdomains of the host that sent the header."""
    result = read(SAMPLE)
    assert result.policy == open_policy(
        PinSet(
            name="example.com",
            pins=[PIN_A, PIN_B],
            subdomains="all",
            expires=NOW + timedelta(days=30),
            on_expiry="unpin",
        )
    )
    assert places(result) == [("max-age", Effect.NOTHING), ("report-uri", Effect.NOTHING)]


@pytest.mark.parametrize(
    "text",
    [
        f"{PINS}; max-age=60",
        f'PUBLIC-KEY-PINS:{PINS};MAX-AGE="60"',
        f"public-key-pins :  ;; {PINS} ;max-age=60;;",
        f'{PINS}; max-age="6\\0"\n',
    ],
)
def test_spellings(text):
    """Names in any case, empty directives, quoted values, and the value without its name."""
    [pin_set] = read(text).policy.pin_sets
    assert (pin_set.pins, pin_set.expires) == ((PIN_A, PIN_B), NOW + timedelta(seconds=60))


def test_report_only():
    """The report-only header reports, and its age means nothing."""
    [pin_set] = read(f"Public-Key-Pins-Report-Only: {PINS}; max-age=x").policy.pin_sets
    assert (pin_set.mode, pin_set.expires) == (Mode.REPORT_ONLY, None)


def test_what_is_ignored_there_is_reported_here():
    """Pins of unknown algorithms and unknown directives are left out, as RFC 7469 section 2.1 has it."""
    result = read(f'{PINS}; max-age=60; pin-sha512="AAAA"; preload; x="y"')
    assert places(result) == [
        ("pin-sha512", Effect.TIGHTENS),
        ("max-age", Effect.NOTHING),
        ("preload", Effect.NOTHING),
        ("x", Effect.NOTHING),
    ]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (PINS, "max-age: is missing"),
        (f"{PINS}; max-age=0", "is not a number of seconds that leaves the pins in force"),
        (f"{PINS}; max-age=-5", "is not a number of seconds"),
        (f"{PINS}; max-age=999999999999", "is not a number of seconds"),
        (f"{PINS}; max-age=99999999999999", "is not a number of seconds"),
        (f"{PINS}; max-age", "is not a number of seconds"),
        (f"{PINS}; max-age=6; max-age=7", "max-age: stands twice"),
        (f"{PINS}; includeSubDomains; max-age=7; includesubdomains", "includesubdomains: stands twice"),
        (f'pin-sha256="{A}"; max-age=7', "only one distinct pin"),
        ("max-age=7", "no pins are given"),
        (f"pin-sha256={A[:5]}; {PINS}; max-age=7", "the value is not in double quotes"),
        (f'pin-sha256="AAAA"; {PINS}; max-age=7', "is 3 bytes, and SHA-256 is 32"),
        (f"{PINS}; max age=7", "is not a directive"),
        (f'{PINS}; max-age=7; x="never closed', "is not a directive"),
        (f"{PINS}; max-age=7\nPublic-Key-Pins: {PINS}", "is not a directive"),
    ],
)
def test_faults(text, reason):
    """What the grammar does not have is a fault."""
    assert any(reason in str(fault) for fault in faults_of(read, text))


def test_host():
    """The host is a host; an address has no subdomains."""
    assert faults_of(read, SAMPLE, host="a b")[0].path == "host"
    assert "an IP address has no subdomains" in faults_of(read, SAMPLE, host="192.0.2.1")[0].reason


def test_what_is_written():
    """An expiry is an age from now."""
    policy = open_policy(
        PinSet(name="a.com", pins=[PIN_A, PIN_B], subdomains="all", expires=NOW + timedelta(1), on_expiry="unpin")
    )
    written = write_hpkp(policy, AROUND)
    assert written.text == f"Public-Key-Pins: max-age=86400; {PINS}; includeSubDomains\n"
    assert written.losses == ()


def test_losses():
    """Pins without an end, those that block, and a header of one host below a tree."""
    weakens = Effect.WEAKENS
    policy = open_policy(
        PinSet(name="**.a.com", pins=[PIN_A, PIN_B]),
        PinSet(name="b.com", leaf_pins=[PIN_B, PIN_C], expires=DAY, on_expiry="block", rotation="in May"),
        PinSet(name="c.com", pins=[PIN_A, PIN_B], mode="report-only", expires=DAY, on_expiry="unpin"),
        PinSet(name="d.com", pins=[PIN_A, PIN_B], subdomains="one"),
        PinSet(name="e.com", pins=[PIN_A, PIN_B], expires=NOW - timedelta(1), on_expiry="unpin"),
        PinSet(name="f.com", certificate_pins=[WHOLE_A, WHOLE_B]),
    )

    def written(host):
        return write_hpkp(policy, Circumstances(host=host, now=NOW))

    assert places(written("x.a.com")) == [("**.a.com", weakens), ("**.a.com", weakens)]
    assert "includeSubDomains" not in written("x.a.com").text
    assert places(written("a.com")) == [("**.a.com", weakens)]
    assert places(written("b.com")) == [("b.com", Effect.NOTHING), *[("b.com", weakens)] * 3]
    assert written("c.com").text == f"Public-Key-Pins-Report-Only: {PINS}\n"
    assert places(written("c.com")) == [("c.com", Effect.TIGHTENS)]
    assert places(written("d.com")) == [("d.com", Effect.TIGHTENS), ("d.com", weakens)]
    assert "includeSubDomains" in written("d.com").text
    assert faults_of(written, "e.com")[0].reason == "the pin set has expired"
    assert faults_of(written, "f.com")[0].path == "f.com"


def test_an_age_needs_a_clock():
    """Without the present instant there is no age to write."""
    policy = open_policy(PinSet(name="a.com", pins=[PIN_A, PIN_B], expires=DAY, on_expiry="unpin"))
    assert "the present instant is not given" in faults_of(write_hpkp, policy, Circumstances())[0].reason


@given(
    st.lists(st.binary(min_size=32, max_size=32), min_size=2, max_size=4, unique=True),
    st.integers(1, 10_000_000),
    st.sampled_from(["none", "all"]),
)
def test_round_trip(digests, seconds, below):
    """Pins, subdomains and age come back as they were."""
    policy = open_policy(
        PinSet(
            name="a.com",
            pins=[Pin(PinKind.SPKI, digest) for digest in digests],
            subdomains=below,
            expires=NOW + timedelta(seconds=seconds),
            on_expiry="unpin",
        )
    )
    written = write_hpkp(policy, AROUND)
    assert written.losses == ()
    assert read_hpkp(written.text, host="a.com", now=NOW).policy == policy
