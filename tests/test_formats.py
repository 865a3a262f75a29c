"""
The policy document as TOML and JSON: all faults with their places, and round trips.
"""

from __future__ import annotations

import json
import tomllib
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from policies import policies

from pinset import Fault, Mode, OnExpiry, Pin, PinKind, PinSet, Policy, PolicyError, Subdomains, Unlisted
from pinset._policy import PIN_SET_FIELDS
from pinset.formats import read_json, read_toml, write_json, write_toml
from pinset.formats._document import document_from_policy, policy_from_document

A, B = (str(Pin(PinKind.SPKI, bytes([n]) * 32)) for n in (1, 2))
WHOLE_A, WHOLE_B = (str(Pin(PinKind.CERTIFICATE, bytes([n]) * 32)) for n in (1, 2))
GOOD = {"name": "example.com", "pins": [A, B]}
INSTANT = "write 2027-01-31T00:00:00Z"
TABLES = "write [[host]] above each host, with two brackets"
KEYS = ", ".join(PIN_SET_FIELDS)

FULL_TOML = f"""
unlisted = "allow"

[[host]]
name = "example.com"
subdomains = "all"
pins = ["{A}", "{B}"]
leaf_pins = ["{A}"]
ca_pins = ["{B}"]
certificate_pins = ["{WHOLE_A}"]
mode = "report-only"
expires = 2027-01-31T02:00:00+02:00
on_expiry = "unpin"
rotation = "every autumn"
allow_single_pin = true

[[host]]
name = "www.example.com"
mode = "off"
"""
FULL = Policy(
    (
        PinSet(
            name="example.com",
            subdomains=Subdomains.ALL,
            pins=[A, B],
            leaf_pins=[A],
            ca_pins=[B],
            certificate_pins=[WHOLE_A],
            mode=Mode.REPORT_ONLY,
            expires=datetime(2027, 1, 31, tzinfo=UTC),
            on_expiry=OnExpiry.UNPIN,
            rotation="every autumn",
            allow_single_pin=True,
        ),
        PinSet(name="www.example.com", mode=Mode.OFF),
    ),
    Unlisted.ALLOW,
)


def faults_of(*hosts: object, **top: object) -> list[Fault]:
    """The faults of a document, which are the same in every reader."""
    with pytest.raises(PolicyError) as caught:
        policy_from_document({"host": list(hosts), **top}, source="here")
    assert caught.value.source == "here"
    return list(caught.value.faults)


def host_faults(**fields: object) -> list[Fault]:
    prefix = 'host[0]."example.com".'
    faults = faults_of({**GOOD, **fields})
    assert all(fault.path.startswith(prefix) for fault in faults)
    return [Fault(fault.path.removeprefix(prefix), fault.reason, fault.suggestion) for fault in faults]


def test_every_key_is_read():
    """A document with every key makes the policy that the classes make."""
    assert read_toml(FULL_TOML) == FULL
    assert read_json(write_json(FULL)) == FULL
    assert policy_from_document({"host": [GOOD]}).unlisted is Unlisted.DENY


def test_toml_that_is_written():
    """TOML is written a host a table, a pin a line, without defaults."""
    policy = Policy((PinSet(name="a.com", pins=[A, B], expires=datetime(2027, 1, 31, tzinfo=UTC), on_expiry="block"),))
    assert write_toml(policy) == (
        'unlisted = "deny"\n\n[[host]]\nname = "a.com"\n'
        f'pins = [\n    "{A}",\n    "{B}",\n]\n'
        'expires = 2027-01-31T00:00:00Z\non_expiry = "block"\n'
    )


def test_json_that_is_written():
    """JSON is written with instants as RFC 3339 text, readable letters, and a line end."""
    text = write_json(
        Policy((PinSet(name="σ.com", pins=[A, B], expires=datetime(2027, 1, 31, tzinfo=UTC), on_expiry="block"),))
    )
    assert text.endswith("}\n")
    assert '\n  "unlisted": "deny",\n' in text
    assert "σ.com" in text
    assert json.loads(text)["host"] == [
        {"name": "σ.com", "pins": [A, B], "expires": "2027-01-31T00:00:00Z", "on_expiry": "block"}
    ]


def test_document_leaves_defaults_out():
    """What a rule does not say is not written."""
    assert document_from_policy(Policy((PinSet(**GOOD),))) == {"unlisted": "deny", "host": [GOOD]}
    assert list(document_from_policy(FULL)["host"][0]) == list(PIN_SET_FIELDS)


@given(policies())
def test_round_trips(policy):
    """Whatever a policy says, TOML and JSON say it back."""
    assert read_toml(write_toml(policy)) == policy
    assert read_json(write_json(policy)) == policy
    assert policy_from_document(document_from_policy(policy)) == policy


@pytest.mark.parametrize("rotation", ["\x7f", '"""', "\\", "\x00\x1f\t\n\r", "é\u2028😀", "'\"'"])
def test_every_character_survives(rotation):
    """Quotes, control characters and what TOML wants escaped come back as they were."""
    policy = Policy((PinSet(**GOOD, rotation=rotation),))
    assert read_toml(write_toml(policy)) == policy
    assert read_json(write_json(policy)) == policy


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(["host", "name", A, "a.com"]),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.sampled_from(["host", "unlisted", *PIN_SET_FIELDS, "x"]), inner, max_size=5),
    max_leaves=12,
))  # fmt: skip
def test_any_json_is_a_policy_or_a_policy_error(document):
    """Whatever stands in a document, it is a policy or a PolicyError with at least one fault."""
    try:
        read_json(json.dumps(document))
    except PolicyError as error:
        assert error.faults


@pytest.mark.parametrize("document", [None, [], "host", 5])
def test_document_that_is_no_table(document):
    """The document itself is a table."""
    with pytest.raises(PolicyError) as caught:
        read_json(json.dumps(document), source="here")
    assert caught.value.faults == (Fault("", "the document is not a table with the keys unlisted and host"),)
    assert caught.value.source == "here"


def test_empty_document():
    """A document without hosts is refused, whether it has the key or not."""
    fault = Fault("host", "no host is listed", "a policy without hosts pins nothing")
    assert faults_of() == [fault]
    for read in (read_json, read_toml):
        with pytest.raises(PolicyError) as caught:
            read("{}" if read is read_json else "", source="here")
        assert caught.value.faults == (fault,)
        assert caught.value.source == "here"


def test_unknown_keys():
    """An unknown key is a fault, with the known one that it resembles, or all of them."""
    assert faults_of(GOOD, hosts=[])[0] == Fault("hosts", "is not a known key", "did you mean 'host'?")
    assert faults_of(GOOD, xyz=1) == [Fault("xyz", "is not a known key", "known are unlisted, host")]
    assert host_faults(expire=1) == [Fault("expire", "is not a known key", "did you mean 'expires'?")]
    assert host_faults(zzz=1) == [Fault("zzz", "is not a known key", f"known are {KEYS}")]


def test_unknown_word_for_unlisted():
    """The word for unlisted hosts is one of two."""
    known = 'is not one of "deny", "allow"'
    assert faults_of(GOOD, unlisted="alow") == [Fault("unlisted", f"'alow' {known}", "did you mean 'allow'?")]
    assert faults_of(GOOD, unlisted=True) == [Fault("unlisted", f"True {known}")]
    assert faults_of(GOOD, unlisted=["deny"])[0].reason == f"['deny'] {known}"


@pytest.mark.parametrize("hosts", [GOOD, {}, "example.com", None])
def test_hosts_that_are_no_list(hosts):
    """One [host] instead of [[host]] is a table, not a list."""
    assert faults_of(host=hosts) == [Fault("host", "is not a list", TABLES)]


def test_host_that_is_no_table():
    """Every host is a table with a name."""
    assert faults_of("example.com", {}, {"name": 5}, {"name": None, "pins": []}) == [
        Fault("host[0]", "is not a table", TABLES),
        Fault("host[1].name", "is missing", "name the host"),
        Fault("host[2].name", "is not a text", "name the host"),
        Fault("host[3].name", "is missing", "name the host"),
    ]


@pytest.mark.parametrize(
    ("key", "value", "reason", "suggestion"),
    [
        ("subdomains", True, 'True is not one of "none", "one", "all"', ""),
        ("mode", 1, '1 is not one of "enforce", "report-only", "off"', ""),
        ("mode", "enforced", '\'enforced\' is not one of "enforce", "report-only", "off"', "did you mean 'enforce'?"),
        ("on_expiry", None, "is null", "leave it out"),
        ("expires", None, "is null", "leave it out"),
        ("mode", None, "is null", "leave it out"),
        ("rotation", 5, "5 is not a text", "put it in quotes"),
        ("pins", A, f"'{A}' is not a list", "put it in brackets"),
        ("leaf_pins", A, f"'{A}' is not a list", "put it in brackets"),
        ("ca_pins", 5, "5 is not a list", "put it in brackets"),
        ("certificate_pins", {}, "{} is not a list", "put it in brackets"),
        ("allow_single_pin", 1, "1 is not true or false", ""),
        ("allow_single_pin", "true", "'true' is not true or false", ""),
    ],
)
def test_wrong_shapes(key, value, reason, suggestion):
    """No value is taken for one of another shape, and the fault stands once, alone."""
    assert host_faults(**{key: value}) == [Fault(key, reason, suggestion)]


@pytest.mark.parametrize("text", ["2027-01-31", "2027-01-31T00:00:00", "tomorrow", "", "2027-13-45T00:00:00Z"])
def test_expiry_that_is_no_instant(text):
    """A day, a time without offset and words are no instant, and this is the only fault."""
    host = {**GOOD, "expires": text, "on_expiry": "block"}
    with pytest.raises(PolicyError) as caught:
        read_json(json.dumps({"host": [host]}))
    [fault] = caught.value.faults
    assert fault.path == 'host[0]."example.com".expires'
    assert fault.reason.endswith("is not an instant: a date and a time with an offset")
    assert fault.suggestion == INSTANT


@pytest.mark.parametrize("value", ["2027-01-31", "2027-01-31T00:00:00", "00:00:00", '"2027-01-31T00:00:00Z"', "5"])
def test_toml_expiry_that_is_no_instant(value):
    """TOML has instants of its own: dates, times and texts are none."""
    with pytest.raises(PolicyError) as caught:
        read_toml(f'[[host]]\nname = "example.com"\npins = ["{A}", "{B}"]\nexpires = {value}\n')
    fault = caught.value.faults[0]
    assert (fault.path, fault.suggestion) == ('host[0]."example.com".expires', INSTANT)


@pytest.mark.parametrize("expires", [5, None, ["2027-01-31T00:00:00Z"]])
def test_json_expiry_that_is_no_text(expires):
    """Only text is read as an instant."""
    with pytest.raises(PolicyError) as caught:
        read_json(json.dumps({"host": [{**GOOD, "expires": expires}, 5]}))
    assert caught.value.faults[0].path == 'host[0]."example.com".expires'


def test_all_faults_at_once_in_order():
    """Faults of the table, of every host and of every pin come out together, in the order of the document."""
    faults = faults_of(
        GOOD,
        "text",
        {"name": "api.example.com", "pins": ["x", A, 5], "mod": "off", "rotation": 1, "mode": "of"},
        {"pins": []},
        {"name": "a.org", "pins": [A]},
        extra=1,
        unlisted="maybe",
    )
    assert [fault.path for fault in faults] == [
        "extra",
        "unlisted",
        "host[1]",
        'host[2]."api.example.com".mod',
        'host[2]."api.example.com".pins[0]',
        'host[2]."api.example.com".pins[2]',
        'host[2]."api.example.com".mode',
        'host[2]."api.example.com".rotation',
        "host[3].name",
        'host[4]."a.org".pins',
    ]
    assert faults[3].suggestion == "did you mean 'mode'?"


def test_host_listed_twice_is_said_with_its_place():
    """A second rule for a host is a fault with its own number, among other faults, too."""
    twice = Fault('host[2]."EXAMPLE.com"', "example.com is already listed", "merge the two")
    other = {"name": "a.org", "pins": [A, B]}
    assert faults_of(GOOD, other, {**GOOD, "name": "EXAMPLE.com"}) == [twice]
    assert faults_of(GOOD, {"name": "a.org", "pins": []}, {**GOOD, "name": "EXAMPLE.com"})[-1] == twice


def test_exclusion_without_cover_is_said_with_its_place():
    """What the whole table refuses has the path of its host."""
    assert [fault.path for fault in faults_of(GOOD, {"name": "a.org", "mode": "off"})] == ['host[1]."a.org".mode']


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('{"host": [], "host": []}', "host"),
        ('{"host": [{"name": "a.com", "pins": [], "name": "b.com"}]}', "name"),
        ('{"x": {"y": 1, "z": 2, "y": 1}}', "y"),
    ],
)
def test_json_key_that_stands_twice(text, key):
    """A key that stands twice is refused on any level, for readers differ on which one counts."""
    with pytest.raises(PolicyError) as caught:
        read_json(text, source="here")
    assert caught.value.faults == (Fault(key, "stands twice in one table"),)
    assert caught.value.source == "here"


@pytest.mark.parametrize("text", ["", "{", '{"host": [}', "\ufeff{}", "[" * 100_000, '{"x": ' + "1" * 5000 + "}"])
def test_text_that_is_not_json(text):
    """What the parser refuses, for whatever reason, is a PolicyError with its words."""
    with pytest.raises(PolicyError) as caught:
        read_json(text, source="here")
    [fault] = caught.value.faults
    assert fault.path == ""
    assert fault.reason.startswith("not JSON: ")
    assert caught.value.source == "here"
    assert caught.value.__cause__ is not None


def test_json_error_says_line_and_column():
    """A syntax error has its place."""
    with pytest.raises(PolicyError, match=r"not JSON: .*line 2 column 10"):
        read_json('{\n "host": }')


def test_toml_error_says_line_and_column():
    """A syntax error has its place; a key that stands twice is one."""
    with pytest.raises(PolicyError, match=r"not TOML: Invalid value \(at line 2, column 8\)") as caught:
        read_toml("# policy\nhost = \n", source="here")
    assert caught.value.source == "here"
    assert caught.value.faults[0].path == ""
    with pytest.raises(PolicyError, match=r"not TOML: Cannot overwrite a value \(at line 2, column "):
        read_toml("unlisted = 'deny'\nunlisted = 'allow'\n")


@pytest.mark.parametrize("text", ["x = " + "1" * 5000, "x = " + "[" * 100_000, "x = " + "{a=" * 5000])
def test_toml_that_the_parser_gives_up_on(text):
    """What makes the parser itself fail, by size or depth, is a PolicyError, too."""
    with pytest.raises(PolicyError, match="not TOML: ") as caught:
        read_toml(text, source="here")
    assert caught.value.source == "here"


DEEP = "a." * 100_000 + "b = 1"


@pytest.mark.parametrize(
    "text",
    [
        DEEP,
        f"[{DEEP}]",
        'x = """\\\\"""\n' + DEEP,
        'x = """a"""""\ny = b\'\n' + DEEP,
        "\n" + "a . " * 65 + "b = 1",
        "x = '''\n.\n''' # .\ny = \"\\\".\"\n" + "a." * 65 + "b = 1",
    ],
)
def test_keys_of_100_000_levels(text):
    """A key with that many dots takes tomllib all the memory there is, so it is refused before."""
    with pytest.raises(PolicyError) as caught:
        read_toml(text)
    [fault] = caught.value.faults
    assert fault.reason == "more than 64 dots outside quotes on one line: no key of a policy is so deep"
    assert fault.path == f"line {text.count(chr(10)) + 1}"


@pytest.mark.parametrize("quotes", ['"{}"', "'{}'", '"""{}"""', "'''{}'''", '"""\n{}\n\n"""', '"\\"{}"', '"{}" # {}'])
def test_dots_in_texts_are_none_of_keys(quotes):
    """Dots in quotes and comments are as many as they want to be."""
    dots = "." * 100
    text = write_toml(Policy((PinSet(**GOOD),))) + "rotation = " + quotes.replace("{}", dots) + "\n"
    assert dots in read_toml(text).pin_sets[0].rotation


@pytest.mark.parametrize("hidden", ['"""\\\\"""', '"""a"""""', "'''\\'''", "'''a'''''", '"\\\\"', "'\\'"])
def test_strings_end_where_toml_ends_them(hidden):
    """A backslash or a quote before the end of a string does not hide what follows."""
    assert tomllib.loads(f"x = {hidden}")
    with pytest.raises(PolicyError, match="dots outside quotes"):
        read_toml(f"x = {hidden}\n{DEEP}")


@pytest.mark.parametrize("begin", ['"""', "'''", '"', "'"])
def test_quotes_that_are_never_closed(begin):
    """An open quote is a fault of TOML, and is found in one pass."""
    with pytest.raises(PolicyError, match="not TOML|dots outside quotes"):
        read_toml("x = " + begin + "." * 100 + ("\\" + begin) * 10_000)
