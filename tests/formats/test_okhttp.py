"""
OkHttp's builder calls: the tokens of two languages, and the union of all matching patterns.
"""

from __future__ import annotations

import pytest
from formats.samples import DAY, PIN_A, PIN_B, PIN_C, WHOLE_A, WHOLE_B, A, B, faults_of, open_policy, places
from hypothesis import given
from hypothesis import strategies as st

from pinset import Pin, PinKind, PinSet
from pinset._hosts import HostPattern
from pinset.formats.exchange import Effect
from pinset.formats.okhttp import read_okhttp, write_okhttp

KOTLIN = f"""
// pins of example.com, see ".add("
val pinner = CertificatePinner.Builder() /* .add("no", "no") */
    .add("**.example.com", "sha256/{A}")
    .add(
        "**.example.com",
        "sha256/{B}",   // backup
    )
    .build()
"""
JAVA = f'new CertificatePinner.Builder()\n .add("example.com", "sha256/{A}", "sha256/{B}") . add ("*.example.org","sha256/{A}").build();'


def test_kotlin():
    """Calls for one pattern add up; comments and a last comma are nothing."""
    read = read_okhttp(KOTLIN)
    assert read.policy == open_policy(PinSet(name="**.example.com", pins=[PIN_A, PIN_B]))
    assert read.losses == ()


def test_java():
    """Java reads the same; a pattern with one pin is accepted by name."""
    read = read_okhttp(JAVA.encode())
    assert read.policy == open_policy(
        PinSet(name="example.com", pins=[PIN_A, PIN_B]),
        PinSet(name="*.example.org", pins=[PIN_A], allow_single_pin=True),
    )
    assert places(read) == [("line 2", Effect.NOTHING)]


def add(*calls: str) -> str:
    """Calls that are written ``pattern pin pin``, joined by lines."""
    return "\n".join(".add({})".format(", ".join(f'"{word}"' for word in call.split())) for call in calls)


def accepted(policy, host) -> set[Pin]:
    rule = policy.find(host)
    return set(rule.all_pins) if rule else set()


def test_all_matching_patterns_count():
    """A narrower pattern gets the pins of the broader ones, which a policy would replace."""
    read = read_okhttp(add(f"*.example.com sha256/{A}", f"a.example.com sha256/{B}"))
    assert accepted(read.policy, "a.example.com") == {PIN_A, PIN_B}
    assert accepted(read.policy, "b.example.com") == {PIN_A}
    what = "a.example.com has the pins of *.example.com as well, as all matching patterns count there"
    assert what in [loss.what for loss in read.losses]
    assert not any(loss.weakens for loss in read.losses)


def test_a_host_that_only_two_stars_cover_together():
    """The base of ``**.`` below a ``*.`` has the pins of both, and no pattern of its own."""
    read = read_okhttp(add(f"**.b.example.com sha256/{A}", f"*.example.com sha256/{B}"))
    assert accepted(read.policy, "b.example.com") == {PIN_A, PIN_B}
    assert accepted(read.policy, "x.b.example.com") == {PIN_A}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", 'there is no .add("pattern", "sha256/…")'),
        ('// .add("a.com", "sha256/x")', "there is no .add("),
        ('"a string with .add(1)"', "there is no .add("),
        ('/* .add("a.com") never closed', "there is no .add("),
        ('.add("a.com"', ".add(: the bracket is never closed"),
        ('.add("a.com")', ".add( needs a pattern and a pin"),
        ('.add("a.com", /* no', ".add(: the bracket is never closed"),
        ('.add(,"a.com")', "',' where a text"),
        ('.add("a.com" .add("b.com"', "'.add' where a text"),
        (".add()", ".add( needs a pattern and a pin"),
        ('.add(HOST, "sha256/x")', "'HOST' where a text in double quotes was expected"),
        ('.add("a.com" "sha256/x")', "where a text in double quotes was expected"),
        ('.add("a.com, "sha256/x")', "where a text in double quotes was expected"),
        ('.add("a.com\\\n")', "where a text in double quotes was expected"),
        (add("a.com md5/DmxUShsZuNiqPQsX2Oi9uv2sCnw="), "uses md5, which can be forged"),
        (add("a.com sha1/DmxUShsZuNiqPQsX2Oi9uv2sCnw="), "uses sha1, which can be forged"),
        (add("a.com sha256/a"), "is not base64"),
        (add("a.com sha512/AAAA"), "only sha256 is known"),
        (add("a.com sha256/$PIN"), "is not base64"),
        (add(f"a.*.com sha256/{A}"), "a star may stand only at the front"),
        (add(f"example.* sha256/{A}"), "a star may stand only at the front"),
        (add(f"*.*.a.com sha256/{A}"), "a star may stand only at the front"),
    ],
)
def test_faults(text, reason):
    """Code that cannot be read without running it, and pins that are none, are faults with their line."""
    assert any(reason in str(fault) for fault in faults_of(read_okhttp, text))


def test_lines_and_number_of_faults():
    """A fault names its line; after a hundred the reader stops."""
    text = add(f"a.com sha256/{A}", "b.com sha256/x", "*.*.c.com sha256/y")
    assert [fault.path for fault in faults_of(read_okhttp, text)] == ["line 2", "line 3", "line 3"]
    assert len(faults_of(read_okhttp, add(*["a.com sha256/x"] * 500))) == 100


# Writing.


def test_what_is_written():
    """One call a pattern; a rule of one label is two patterns."""
    policy = open_policy(
        PinSet(name="a.com", pins=[PIN_A, PIN_B], subdomains="one"), PinSet(name="**.b.com", pins=[PIN_A, PIN_B])
    )
    written = write_okhttp(policy)
    assert written.losses == ()
    assert written.text == (
        "CertificatePinner.Builder()\n"
        f'    .add("a.com", "sha256/{A}", "sha256/{B}")\n'
        f'    .add("*.a.com", "sha256/{A}", "sha256/{B}")\n'
        f'    .add("**.b.com", "sha256/{A}", "sha256/{B}")\n'
        "    .build()\n"
    )


def test_losses():
    """Exclusions, modes, expiry and roles; a narrower rule that gains keys is weaker there."""
    policy = open_policy(
        PinSet(name="**.a.com", pins=[PIN_A, PIN_B], expires=DAY, on_expiry="unpin"),
        PinSet(name="x.a.com", mode="off", rotation="in May"),
        PinSet(name="y.a.com", pins=[PIN_B, PIN_C], mode="report-only"),
        PinSet(name="z.a.com", pins=[PIN_A, PIN_B, PIN_C]),
        PinSet(name="b.com", ca_pins=[PIN_A, PIN_B]),
    )
    written = write_okhttp(policy)
    nothing, weakens, tightens = Effect.NOTHING, Effect.WEAKENS, Effect.TIGHTENS
    assert places(written) == [
        ("**.a.com", tightens),
        ("x.a.com", nothing),
        ("x.a.com", tightens),
        ("y.a.com", tightens),
        ("b.com", weakens),
        ("y.a.com", weakens),
    ]
    assert "x.a.com" not in written.text


def test_whole_certificates_are_refused():
    """A rule of whole certificates leaves nothing to write."""
    policy = open_policy(PinSet(name="a.com", certificate_pins=[WHOLE_A, WHOLE_B]))
    assert faults_of(write_okhttp, policy)[0].path == "a.com"


PATTERNS = [stars + base for base in ("a.b.c.com", "b.c.com", "c.com", "d.com") for stars in ("", "*.", "**.")]
HOSTS = [
    "com",
    "c.com",
    "x.c.com",
    "b.c.com",
    "x.b.c.com",
    "a.b.c.com",
    "x.a.b.c.com",
    "y.x.a.b.c.com",
    "d.com",
    "x.d.com",
]
DIGESTS = st.integers(0, 5).map(lambda n: Pin(PinKind.SPKI, bytes([n]) * 32))


@given(st.dictionaries(st.sampled_from(PATTERNS), st.sets(DIGESTS, min_size=1, max_size=3), min_size=1))
def test_every_host_has_the_same_pins_here_as_there(patterns):
    """For any set of patterns and any host, the rule that is read holds the union that OkHttp takes."""
    read = read_okhttp(add(*(" ".join([pattern, *map(str, pins)]) for pattern, pins in patterns.items())))
    for host in HOSTS:
        union = set().union(*(pins for pattern, pins in patterns.items() if HostPattern.parse(pattern).matches(host)))
        assert accepted(read.policy, host) == union
    again = write_okhttp(read.policy)
    assert not any(loss.weakens for loss in again.losses if loss.place not in {f"*.{h}" for h in HOSTS} | set(HOSTS))


@given(st.dictionaries(st.sampled_from(["a.com", "*.b.com", "**.c.com"]), st.sets(DIGESTS, min_size=2), min_size=1))
def test_round_trip(patterns):
    """Patterns that do not overlap come back as they were, and nothing is lost in writing."""
    policy = open_policy(*(PinSet(name=name, pins=sorted(pins)) for name, pins in patterns.items()))
    written = write_okhttp(policy)
    assert written.losses == ()
    assert read_okhttp(written.text).policy == policy
