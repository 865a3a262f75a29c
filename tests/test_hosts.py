"""
Canonical host names and the pattern grammar.
"""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pinset import HostError
from pinset._hosts import _PLAIN, HostPattern, Scope, _canonical, canonical_host, is_address, parent

LABEL = "a" * 63
NAME_253 = ".".join([LABEL, LABEL, LABEL, "a" * 61])
EMPTY = "it has an empty label"
LABELS = "labels are 1 to 63 letters, digits, '-' or '_', joined by dots"
ALONE = "write the host alone, without port, path or user"
NUMBERS = "looks like an IP address but is not written as one; write four decimal numbers"


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("example.com", "example.com"),
        ("EXAMPLE.Com", "example.com"),
        ("example.com.", "example.com"),
        ("localhost", "localhost"),
        ("_dmarc.a-b.example", "_dmarc.a-b.example"),
        ("σkhttp.com", "xn--khttp-fde.com"),
        ("ΣKHTTP.com", "xn--khttp-fde.com"),
        ("example。com", "example.com"),
        ("straße.de", "xn--strae-oqa.de"),
        ("1.2.3.4", "1.2.3.4"),
        ("[1.2.3.4]", "1.2.3.4"),
        ("2001:DB8:0::1", "2001:db8::1"),
        ("[2001:db8::0001]", "2001:db8::1"),
        ("::ffff:1.2.3.4", str(ipaddress.ip_address("::ffff:1.2.3.4"))),
        ("1.2.3.4.example", "1.2.3.4.example"),
        ("0xfg", "0xfg"),
        ("a1", "a1"),
        ("1a", "1a"),
        (LABEL + ".com", LABEL + ".com"),
        (NAME_253, NAME_253),
        (NAME_253 + ".", NAME_253),
    ],
)
def test_canonical_host(text, canonical):
    """A name has one spelling: A-labels, lower case, no trailing dot; an address as ipaddress prints it."""
    assert canonical_host(text) == canonical
    assert canonical_host(canonical) == canonical


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", f"is not a host name; {LABELS}"),
        (".", EMPTY),
        ("..", EMPTY),
        (".example.com", EMPTY),
        ("a..b", EMPTY),
        ("example.com..", EMPTY),
        ("a b", LABELS),
        ("example.com\n", LABELS),
        ("a\x00b", LABELS),
        ("a" * 64 + ".com", LABELS),
        (NAME_253 + "a", LABELS),
        (NAME_253[:-1] + "!", LABELS),
        (NAME_253[:-1] + "!!", LABELS),
        ("https://example.com", "; write the host alone, without the scheme"),
        ("example.com:443", ALONE),
        ("example.com/a", ALONE),
        ("user@example.com", ALONE),
        ("[::1", ALONE),
        ("::1]", ALONE),
        ("a.*.com", "; a star may stand only at the front of a pattern, as '*.' or '**.'"),
        ("127.1", NUMBERS),
        ("2130706433", NUMBERS),
        ("0x7f.1", NUMBERS),
        ("a.0x", NUMBERS),
        ("a.0xFf", NUMBERS),
        ("001.2.3.4", NUMBERS),
        ("1.2.3.4.", NUMBERS),
        ("fe80::1%eth0", "carries a zone, which no certificate can name; leave it out"),
        ("[fe80::1%1]", "carries a zone"),
        ("\u212aelvin.com", "has a letter that only looks like ASCII"),
        ("te\u2121.com", "is not a valid international host name: Codepoint U+2121"),
        ("☃.net", "is not a valid international host name"),
        ("é" * 64 + ".com", "is not a valid international host name"),
    ],
)
def test_no_canonical_form(text, reason):
    """A text without canonical form is refused with the text, the reason and a hint."""
    with pytest.raises(HostError) as caught:
        canonical_host(text)
    shown = text if len(text) <= 253 else text[:253] + "…"
    assert str(caught.value).startswith(repr(shown) + " ")
    assert reason in str(caught.value)
    assert caught.value.text == text


def test_length_limit_counts_bytes_of_the_a_label_form():
    """253 bytes are a name and 254 are not, however many characters the U-labels have."""
    wide = "é" + ".a" * 122  # xn--9ca and 244 bytes
    assert len(canonical_host(wide)) == 251
    assert len(canonical_host(wide + "bc")) == 253
    with pytest.raises(HostError):
        canonical_host(wide + "bcd")


def test_international_name_with_a_trailing_dot_loses_it():
    """The trailing dot goes from international names, too."""
    assert canonical_host("σkhttp.com.") == "xn--khttp-fde.com"


def test_invalid_international_name_keeps_its_cause():
    """The reason of the idna package is the cause of the error."""
    with pytest.raises(HostError) as caught:
        canonical_host("☃.net")
    assert isinstance(caught.value.__cause__, UnicodeError)


def test_host_cache_is_bounded():
    """Peers cannot grow the cache of names without limit, and plain names do not enter it."""
    assert _canonical.cache_info().maxsize == 4096
    before = _canonical.cache_info()
    for name in (NAME_253, "never-seen-before.example"):
        assert canonical_host(name) == name
    assert _canonical.cache_info() == before


def outcome(function, text):
    try:
        return function(text)
    except HostError as error:
        return str(error)


# Hardly any random text is a name. These are made of the parts that decide, and of lengths around the limits.
LENGTHS = st.sampled_from([1, 2, 61, 62, 63, 64])
PIECES = st.sampled_from(["a", "z", "0", "9", "-", "_", "x", "0x", "1", ".", "A", "é", "\n", "*", ":", "", "com"])
NEAR_NAMES = st.lists(
    st.one_of(PIECES, st.builds(lambda piece, times: piece * times, PIECES, LENGTHS)), max_size=5
).flatmap(lambda labels: st.sampled_from([".".join(labels), "".join(labels)]))


@given(st.one_of(NEAR_NAMES, st.from_regex(_PLAIN, fullmatch=True), st.from_regex(r"[a-z0-9_.-]{0,255}\n?")))
@example(NAME_253)
@example(NAME_253 + "a")
@example("a" * 64)
@example("a" * 64 + ".b")
@example("a.0x1f")
@example("example.com\n")
def test_the_short_way_says_what_the_long_way_says(text):
    """A plain name skips the long way, which would have returned it unchanged."""
    assert outcome(canonical_host, text) == outcome(_canonical, text)


@given(st.text(max_size=80))
def test_canonical_host_raises_nothing_but_host_error(text):
    """Any text has a canonical form that is its own canonical form, or is a HostError."""
    try:
        name = canonical_host(text)
    except HostError as error:
        assert error.text == text
    else:
        assert canonical_host(name) == name
        assert name.isascii()
        assert name == name.lower()


@given(st.ip_addresses())
def test_addresses_are_addresses(address):
    """Every IP address is known as one in its canonical form, with and without brackets."""
    assert canonical_host(str(address)) == str(address) == canonical_host(f"[{address}]")
    assert is_address(canonical_host(str(address)))


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("1.2.3.4", True),
        ("::1", True),
        ("2001:db8::a", True),
        ("a1", False),
        ("a.b1", False),
        ("1a", False),
        ("", False),
    ],
)
def test_is_address(host, expected):
    """What holds a colon or ends in a number is an address."""
    assert is_address(host) is expected


@pytest.mark.parametrize(("host", "above"), [("a.b.c", "b.c"), ("c", ""), ("", "")])
def test_parent(host, above):
    """The parent lacks the first label, and there is none above the top."""
    assert parent(host) == above


@pytest.mark.parametrize(
    ("text", "base", "scope"),
    [
        ("example.com", "example.com", Scope.HOST),
        ("*.EXAMPLE.com.", "example.com", Scope.LABEL),
        ("**.example.com", "example.com", Scope.TREE),
        ("  *.example.com\n", "example.com", Scope.LABEL),
        ("**.com", "com", Scope.TREE),
        ("[::1]", "::1", Scope.HOST),
    ],
)
def test_parse_pattern(text, base, scope):
    """A pattern is a host, one more label, or a tree; it prints in canonical form."""
    pattern = HostPattern.parse(text)
    assert (pattern.base, pattern.scope) == (base, scope)
    assert str(pattern) == scope.value + base
    assert HostPattern.parse(str(pattern)) == pattern


@pytest.mark.parametrize(
    "text", ["*", "**", "*.", "**.", "a.*.com", "*a.com", "*.*.a.com", "***.a.com", "a.*", "*. a.com"]
)
def test_star_elsewhere_is_refused(text):
    """A star stands only at the front, once, with a dot behind it."""
    with pytest.raises(HostError):
        HostPattern.parse(text)


@pytest.mark.parametrize("text", ["*.1.2.3.4", "**.1.2.3.4", "*.[::1]", "**.::1"])
def test_star_before_an_address_is_refused(text):
    """An IP address has no subdomains."""
    with pytest.raises(HostError, match="puts a star before an IP address, which has no subdomains") as caught:
        HostPattern.parse(text)
    assert caught.value.text == text


@pytest.mark.parametrize(
    ("pattern", "hosts", "others"),
    [
        ("b.c", ["b.c"], ["a.b.c", "c", "ab.c"]),
        ("*.b.c", ["a.b.c"], ["b.c", "a.a.b.c", "ab.c", "c"]),
        ("**.b.c", ["b.c", "a.b.c", "a.a.b.c"], ["ab.c", "c", "b.c.d"]),
    ],
)
def test_matches(pattern, hosts, others):
    """A pattern covers what its scope says, compared from a dot on."""
    parsed = HostPattern.parse(pattern)
    assert [host for host in hosts + others if parsed.matches(host)] == hosts
    assert [host for host in hosts if parsed.matches(host.encode().decode())] == hosts  # equal, and not the same text
