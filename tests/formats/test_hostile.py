"""
Files that were written to harm: refused with a line, before they cost anything.
"""

from __future__ import annotations

import plistlib
from datetime import UTC, datetime

import pytest
from formats.samples import A, B, faults_of
from hypothesis import given
from hypothesis import strategies as st

from pinset import PolicyError
from pinset.formats._xml import read_xml
from pinset.formats.conversion import FORMATS
from pinset.formats.exchange import Circumstances

AROUND = Circumstances(host="a.com", now=datetime(2026, 11, 1, tzinfo=UTC))
FOREIGN = sorted(set(FORMATS) - {"toml", "json"})
XML = ["android", "trustkit-android", "apple", "trustkit"]
LAUGHS = (
    "<?xml version='1.0'?>\n<!DOCTYPE x [<!ENTITY a 'ha'>"
    + "".join(f"<!ENTITY {chr(98 + n)} '{f'&{chr(97 + n)};' * 10}'>" for n in range(9))
    + "]>\n<x>&j;</x>"
)
PLIST_TYPE = '<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://127.0.0.1:9/x.dtd"'


def refusal(name: str, data: str | bytes) -> str:
    """What the reader of *name* says of *data*."""
    return str(faults_of(FORMATS[name].read, data, AROUND, "hostile")[0])


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("data", [b" " * (2 << 20), "\u00e9" * (1 << 20)], ids=["bytes", "text"])
def test_size(name, data):
    """Two mebibytes are not parsed."""
    big = data if isinstance(data, bytes) else data + data
    assert "bytes, and at most" in refusal(name, big)


@pytest.mark.parametrize("name", XML)
@pytest.mark.parametrize(
    ("text", "said"),
    [
        (LAUGHS, "line 2: a DOCTYPE (x) is not allowed"),
        ("<!DOCTYPE x SYSTEM 'file:///etc/passwd'>\n<x/>", "line 1: a DOCTYPE (x) is not allowed"),
        ("<!DOCTYPE plist PUBLIC '-//Apple//DTD OTHER//EN' 'http://127.0.0.1:9/x.dtd'>\n<x/>", "is not allowed"),
        ("\n<x>\n&undefined;</x>", "line 3: not well-formed XML: undefined entity"),
        ("<x>\n" * 100_000, "line 33: elements are nested deeper than 32 levels"),
        ("<x>" + "<y/>" * 30_000 + "</x>", "line 1: more than 20,000 elements"),
        ("<x a='1'\na='2'/>", "line 2: not well-formed XML: duplicate attribute"),
        ("", "line 1: not well-formed XML: no element found"),
        ("<x>", "line 1: not well-formed XML: no element found"),
        ("<x>\0</x>", "not well-formed XML"),
        ("\ud800", "not well-formed XML"),
        (b"<?xml version='1.0' encoding='no-such'?><x/>", "not well-formed XML: unknown encoding"),
        (b"<x>\xff</x>", "not well-formed XML"),
    ],
)
def test_xml(name, text, said):
    """No document type, no entity, no depth, no breadth, and a line for each."""
    assert said in refusal(name, text)
    assert refusal(name, text).count("policy was refused") == 0


@pytest.mark.parametrize("name", ["apple", "trustkit"])
@pytest.mark.parametrize(
    ("text", "said"),
    [
        (PLIST_TYPE + " [<!ENTITY a 'b'>]>\n<plist/>", "line 1: a DOCTYPE with declarations of its own"),
        (PLIST_TYPE + " []>\n<plist/>", "line 1: a DOCTYPE with declarations of its own"),
        (PLIST_TYPE + ">\n<plist><string>&a;</string></plist>", "line 2: the entity &a; is not one of the five of XML"),
        (PLIST_TYPE + ">\n<plist/>", "line 2: the root is not a <plist> with one value"),
        (
            "<plist><dict>\n<key>a</key><true/>\n<key>a</key><false/></dict></plist>",
            "line 3: the key 'a' already stands on line 2",
        ),
        ("<plist><dict>\n<string>a</string></dict></plist>", "line 2: a <key> was expected, and this is <string>"),
        ("<plist><dict>\n<key>a</key></dict></plist>", "line 2: the key 'a' has no value"),
        (plistlib.dumps({"NSPinnedDomains": {}}, fmt=plistlib.FMT_BINARY), "a binary property list is not read"),
    ],
)
def test_property_lists(name, text, said):
    """The standard document type is a name, fetched from nowhere; a key stands once; binary lists are not read."""
    assert said in refusal(name, text)


def test_utf_16():
    """A file may be in any encoding that it declares."""
    assert read_xml("<?xml version='1.0' encoding='utf-16'?><x>\u00e9</x>".encode("utf-16")).text == "\u00e9"


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("okhttp", '"\\' * 500_000, "there is no .add("),
        ("okhttp", "/*" * 500_000, "there is no .add("),
        ("okhttp", '.add("' * 150_000, "where a text in double quotes was expected"),
        ("okhttp", "(" * 1_000_000, "there is no .add("),
        ("okhttp", ". " * 500_000, "there is no .add("),
        ("hpkp", " " * 60_000 + "(", "is not a directive"),
        ("hpkp", "a" * 60_000 + "(", "is not a directive"),
        ("hpkp", 'a="' + "\\" * 60_000, "is not a directive"),
        ("curl", "sha256//" + ";" * 60_000, "is 0 bytes"),
        ("tlsa", "(" * 1_000_000, "a bracket is never closed"),
        ("tlsa", "x\n" * 500_000, "is not a TLSA record"),
    ],
    ids=range(11),
)
def test_text_that_makes_scanners_slow(name, text, said):
    """Each of these costs a scanner with backtracking minutes. Here they end, which is the test."""
    try:
        FORMATS[name].read(text, AROUND, "hostile")
    except PolicyError as error:
        assert any(said in str(fault) for fault in error.faults)
    else:
        pytest.fail("was read")


def test_few_pins_for_many_names():
    """Pins that are handed down are counted for each name that gets them."""
    pins = "".join(f'<pin digest="SHA-256">{"A" * n}{A[n:]}</pin>' for n in range(40))
    names = "".join(f"<domain>h{n}.com</domain>" for n in range(1000))
    text = f"<network-security-config><domain-config><pin-set>{pins}</pin-set>{names}</domain-config></network-security-config>"
    assert "more than 20,000 pins" in refusal("android", text)
    pins = ", ".join(f'"sha256/{"A" * n}{A[n:]}"' for n in range(40))
    calls = "".join(f'.add("h{n}.a.com", "sha256/{B}")' for n in range(1000))
    assert "more than 20,000 pins" in refusal("okhttp", f'.add("**.a.com", {pins}){calls}')


@pytest.mark.parametrize("name", [name for name in FOREIGN if name not in XML])
def test_bytes_that_are_no_text(name):
    """Text formats are UTF-8, with or without a byte order mark."""
    assert "not UTF-8 text" in refusal(name, b"\xff\xfe")


@pytest.mark.parametrize("name", FOREIGN)
@given(data=st.binary(max_size=300) | st.text(max_size=300))
def test_any_input_is_a_policy_or_a_policy_error(name, data):
    """Whatever is given, it is read or refused with at least one fault; nothing else leaves a reader."""
    try:
        FORMATS[name].read(data, AROUND, "any")
    except PolicyError as error:
        assert error.faults


WORDS = st.sampled_from(
    [
        "<domain-config>",
        "</domain-config>",
        "<domain>a.com</domain>",
        "<domain includeSubdomains='true'>b.com</domain>",
        "<domain>c.b.com</domain>",
        "<pin-set>",
        "</pin-set>",
        "<pin-set/>",
        f"<pin digest='SHA-256'>{A}</pin>",
        f"<pin digest='SHA-256'>{B}</pin>",
        "<trustkit-config enforcePinning='true'/>",
        "<base-config/>",
    ]
)


@pytest.mark.parametrize("name", ["android", "trustkit-android"])
@given(words=st.lists(WORDS, max_size=14))
def test_any_arrangement_of_elements(name, words):
    """Whatever order the elements of the grammar stand in, it is read or refused."""
    text = f"<network-security-config>{''.join(words)}</network-security-config>"
    try:
        policy = FORMATS[name].read(text, AROUND, "any").policy
    except PolicyError as error:
        assert error.faults
    else:
        assert policy.pin_sets
