"""
TLSA records: usages, selectors and matching types of RFC 6698, and the zone file around them.
"""

from __future__ import annotations

import hashlib

import pytest
from formats.samples import DAY, PIN_A, PIN_B, PIN_C, UNLISTED, WHOLE_A, WHOLE_B, faults_of, open_policy, places
from hypothesis import given
from hypothesis import strategies as st

from pinset import Pin, PinKind, PinSet, Policy
from pinset._certificates import spki_of_certificate
from pinset.formats.exchange import Circumstances, Effect
from pinset.formats.tlsa import read_tlsa, write_tlsa

HEX_A, HEX_B = PIN_A.digest.hex(), PIN_B.digest.hex()


def record(numbers: str, data: str, name: str = "_443._tcp.a.com.") -> str:
    return f"{name} 3600 IN TLSA {numbers} {data}\n"


LEAVES = record("1 1 1", HEX_A) + record("1 1 1", HEX_B)


@pytest.mark.parametrize(
    ("numbers", "fields"),
    [
        ("1 1 1", {"leaf_pins": [PIN_A, PIN_B]}),
        ("0 1 1", {"ca_pins": [PIN_A, PIN_B]}),
        (
            "1 0 1",
            {"certificate_pins": [Pin(PinKind.CERTIFICATE, PIN_A.digest), Pin(PinKind.CERTIFICATE, PIN_B.digest)]},
        ),
    ],
)
def test_usages(numbers, fields):
    """Usage and selector say which list it is."""
    read = read_tlsa(record(numbers, HEX_A) + record(numbers, HEX_B))
    assert read.policy == open_policy(PinSet(name="a.com", **fields))
    assert read.losses == ()


@pytest.mark.parametrize(("numbers", "role"), [("3 1 1", "leaf_pins"), ("2 1 1", "ca_pins")])
def test_usages_that_give_up_the_chain(numbers, role):
    """DANE-TA and DANE-EE are stricter here, since the chain is verified."""
    read = read_tlsa(record(numbers, HEX_A) + record(numbers, HEX_B))
    assert read.policy == open_policy(PinSet(name="a.com", **{role: [PIN_A, PIN_B]}))
    assert places(read) == [("line 1", Effect.TIGHTENS), ("line 2", Effect.TIGHTENS)]


def test_zone_file():
    """Comments, brackets over lines, upper case, and a record without time to live and class."""
    text = (
        f"; the pins of a.com\n_443._TCP.A.com. 3600 IN TLSA ( 1 1 1 ; the leaf\n  {HEX_A[:32]}\n  {HEX_A[32:].upper()} )\n"
        f"\n_443._tcp.a.com tlsa 1 1 1 {HEX_B}\n"
    )
    assert read_tlsa(text).policy == read_tlsa(LEAVES).policy


def test_full_data_is_hashed(leaf):
    """A key or certificate in full becomes its pin."""
    certificate = leaf.chain[0]
    spki = spki_of_certificate(certificate)
    key = read_tlsa(record("1 1 0", spki.hex())).policy.pin_sets[0]
    assert key.leaf_pins == (Pin.parse(leaf.pin),)
    whole = read_tlsa(record("1 0 0", certificate.hex())).policy.pin_sets[0]
    assert whole.certificate_pins == (Pin(PinKind.CERTIFICATE, hashlib.sha256(certificate).digest()),)


def test_any_record_is_enough():
    """A key of a leaf *or* of a CA can only be a pin of any place, which is weaker unless both say the same."""
    mixed = read_tlsa(record("1 1 1", HEX_A) + record("0 1 1", HEX_B))
    assert mixed.policy == open_policy(PinSet(name="a.com", pins=[PIN_A, PIN_B]))
    assert [loss.effect for loss in mixed.losses] == [Effect.WEAKENS]
    same = read_tlsa("".join(record(numbers, data) for data in (HEX_A, HEX_B) for numbers in ("0 1 1", "1 1 1")))
    assert (same.policy, same.losses) == (mixed.policy, ())


def test_other_ports_and_other_digests():
    """Records of another port and SHA-512 are left out, and it is said."""
    text = record("1 1 1", HEX_A, "_25._tcp.a.com.") + record("1 1 2", HEX_A * 2) + record("1 1 1", HEX_B)
    read = read_tlsa(text)
    assert read.policy == open_policy(PinSet(name="a.com", leaf_pins=[PIN_B], allow_single_pin=True))
    assert places(read) == [("line 1", Effect.NOTHING), ("line 2", Effect.TIGHTENS), ("line 3", Effect.NOTHING)]
    assert read_tlsa(text, port=25).policy.pin_sets[0].leaf_pins == (PIN_A,)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "there is no TLSA record of port 443 that a policy can hold"),
        (record("1 1 2", HEX_A), "there is no TLSA record of port 443"),
        ("$ORIGIN a.com.", "is not a TLSA record with its name on the same line"),
        ("TLSA 1 1 1 00", "is not a TLSA record with its name on the same line"),
        (record("1 1 1", HEX_A, "@"), "'@' is not the name of a TCP service"),
        (record("1 1 1", HEX_A, "_443._udp.a.com."), "is not the name of a TCP service"),
        (record("1 1 1", HEX_A, "_443._tcp.*.a.com."), "has a star"),
        (record("1 1", ""), "are three numbers, such as 1 1 1"),
        (record("1 x 1", HEX_A), "are three numbers, such as 1 1 1"),
        (record("4 1 1", HEX_A), "4 1 1 is unknown"),
        (record("1 2 1", HEX_A), "1 2 1 is unknown"),
        (record("1 1 3", HEX_A), "1 1 3 is unknown"),
        (record("1 1 1", HEX_A[2:]), "31 bytes, and SHA-256 is 32"),
        (record("1 1 1", HEX_A + "g"), "the data is not what 1 1 1 says"),
        (record("1 1 0", HEX_A), "the data is not what 1 1 0 says: the public key"),
        (record("1 0 0", "3000"), "the data is not what 1 0 0 says: the certificate"),
        (LEAVES + record("1 0 1", HEX_A), "a.com has records of keys and of certificates"),
        ("_443._tcp.a.com. IN TLSA ( 1 1 1\n", "a bracket is never closed"),
    ],
)
def test_faults(text, reason):
    """What RFC 6698 does not have, and what a policy cannot say, is a fault."""
    assert any(reason in fault.reason for fault in faults_of(read_tlsa, text))


def test_number_of_faults():
    """After a hundred the reader stops."""
    assert len(faults_of(read_tlsa, "x\n" * 10_000)) == 100


# Writing.


def test_what_is_written():
    """A record a pin, or two where a pin is of any place; all at the port that is given."""
    policy = open_policy(
        PinSet(name="a.com", leaf_pins=[PIN_A, PIN_B]),
        PinSet(name="b.com", ca_pins=[PIN_A, PIN_B]),
        PinSet(name="c.com", pins=[PIN_A, PIN_B]),
        PinSet(name="d.com", certificate_pins=[WHOLE_A, WHOLE_B]),
    )
    written = write_tlsa(policy, Circumstances(port=8443))
    assert written.losses == ()
    lines = [line.split(maxsplit=4) for line in written.text.splitlines()]
    assert [(line[0].removeprefix("_8443._tcp."), line[4]) for line in lines] == [
        ("a.com.", f"1 1 1 {HEX_A}"),
        ("a.com.", f"1 1 1 {HEX_B}"),
        ("b.com.", f"0 1 1 {HEX_A}"),
        ("b.com.", f"0 1 1 {HEX_B}"),
        ("c.com.", f"0 1 1 {HEX_A}"),
        ("c.com.", f"1 1 1 {HEX_A}"),
        ("c.com.", f"0 1 1 {HEX_B}"),
        ("c.com.", f"1 1 1 {HEX_B}"),
        *(("d.com.", f"{usage} 0 1 {pin.digest.hex()}") for pin in (WHOLE_A, WHOLE_B) for usage in (0, 1)),
    ]


def test_losses():
    """Subdomains and further lists weaken; an exclusion is a name without records."""
    nothing, weakens, tightens = Effect.NOTHING, Effect.WEAKENS, Effect.TIGHTENS
    policy = Policy(
        (
            PinSet(name="a.com", leaf_pins=[PIN_A, PIN_B], ca_pins=[PIN_B, PIN_C], subdomains="all"),
            PinSet(name="x.a.com", mode="off"),
            PinSet(name="b.com", pins=[PIN_A, PIN_B], mode="report-only", rotation="in May"),
            PinSet(name="c.com", pins=[PIN_A, PIN_B], expires=DAY, on_expiry="unpin"),
        )
    )
    written = write_tlsa(policy)
    assert written.losses[0] == UNLISTED
    assert places(written)[1:] == [
        ("a.com", weakens),
        ("a.com", weakens),
        ("x.a.com", nothing),
        ("b.com", nothing),
        ("b.com", tightens),
        ("c.com", tightens),
    ]


@pytest.mark.parametrize("name", ["192.0.2.1", "*.a.com"])
def test_no_name_for_a_record(name):
    """A record stands at a host name."""
    [fault] = faults_of(write_tlsa, open_policy(PinSet(name=name, pins=[PIN_A, PIN_B])))
    assert (fault.path, fault.suggestion) == (name, "leave the rule out")


LIST = st.lists(st.binary(min_size=32, max_size=32), min_size=2, max_size=3, unique=True)


@given(
    st.lists(
        st.tuples(st.sampled_from(["pins", "leaf_pins", "ca_pins", "certificate_pins"]), LIST), min_size=1, max_size=3
    )
)
def test_round_trip(rules):
    """One list a host comes back as it was."""
    kinds = {"certificate_pins": PinKind.CERTIFICATE}
    policy = open_policy(
        *(
            PinSet(
                name=f"host{n}.example", **{role: [Pin(kinds.get(role, PinKind.SPKI), digest) for digest in digests]}
            )
            for n, (role, digests) in enumerate(rules)
        )
    )
    written = write_tlsa(policy)
    assert written.losses == ()
    assert read_tlsa(written.text).policy == policy
