"""
The JSON Schema of a policy against the loader: whatever loads is accepted, and what only the loader finds is listed.
"""

from __future__ import annotations

import importlib.resources
import json
import re
import tomllib
from datetime import datetime
from pathlib import Path

import pytest
from formats.samples import PIN_A, PIN_B, WHOLE_A, WHOLE_B
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from policies import policies

from pinset import Fault, Mode, OnExpiry, PolicyError, Subdomains, Unlisted
from pinset._policy import PIN_SET_FIELDS, Role
from pinset.formats import read_json, read_toml, write_json

ROOT = Path(__file__).parent.parent.parent
SCHEMA = json.loads(importlib.resources.files("pinset.formats").joinpath("policy.schema.json").read_text("utf-8"))
VALIDATOR = Draft202012Validator(SCHEMA)
RULE = SCHEMA["$defs"]["rule"]["properties"]

A, B, WHOLE = str(PIN_A), str(PIN_B), str(WHOLE_A)
DIGEST = A.removeprefix("sha256/")
GOOD = {"name": "a.com", "pins": [A, B]}
INSTANT = "2027-01-31T00:00:00Z"


def faults_of(document) -> list[Fault]:
    """What the loader says of a document; nothing when it makes a policy."""
    try:
        read_json(json.dumps(document))
    except PolicyError as error:
        return list(error.faults)
    return []


def one_rule(**changes) -> dict[str, object]:
    """A document with one rule, which is good but for what is changed; None takes a key away."""
    rule = {key: value for key, value in (GOOD | changes).items() if value is not None}
    return {"host": [rule]}


def test_is_a_schema():
    """The schema is one of the edition that it names, and every pattern in it compiles."""
    Draft202012Validator.check_schema(SCHEMA)


def test_knows_what_the_loader_knows():
    """Keys, words and defaults are those of the code."""
    assert list(RULE) == list(PIN_SET_FIELDS)
    words = {"subdomains": Subdomains, "mode": Mode, "on_expiry": OnExpiry}
    assert {key: RULE[key]["enum"] for key in words} == {key: list(known) for key, known in words.items()}
    assert SCHEMA["properties"]["unlisted"]["enum"] == list(Unlisted)
    assert {role for role in Role if RULE[role]["$ref"] == "#/$defs/certificate_pins"} == {Role.CERTIFICATE}


@given(policies())
def test_accepts_what_is_written(policy):
    """Every policy, as JSON, is accepted."""
    VALIDATOR.validate(json.loads(write_json(policy)))


TOML = re.compile(r"^```toml\n(.*?)^```", re.DOTALL | re.MULTILINE)
PAGES = {
    f"{path.name}-{number}": text
    for path in sorted((ROOT / "docs").rglob("*.md"))
    for number, text in enumerate(TOML.findall(path.read_text(encoding="utf-8")))
}
FILES = {name: (ROOT / "tests/cli/files" / name).read_text(encoding="utf-8") for name in ("good.toml", "pins.toml")}


@pytest.mark.parametrize("text", [*PAGES.values(), *FILES.values()], ids=[*PAGES, *FILES])
def test_accepts_the_policies_of_pages_and_tests(text):
    """TOML has a type for instants; with them as text, it is the same document."""
    read_toml(text)
    document = json.loads(json.dumps(tomllib.loads(text), default=datetime.isoformat))
    VALIDATOR.validate(document)


REFUSED = {
    "no-table": [],
    "no-hosts": {},
    "no-host": {"host": []},
    "hosts-table": {"host": GOOD},
    "host-text": {"host": ["a.com"]},
    "unknown-key": {"host": [GOOD], "hosts": []},
    "unknown-word-for-unlisted": {"host": [GOOD], "unlisted": "alow"},
    "null": {"host": [GOOD], "unlisted": None},
    "unknown-key-of-a-rule": one_rule(expire=INSTANT),
    "no-name": one_rule(name=None),
    "name-number": one_rule(name=5),
    "empty-name": one_rule(name=""),
    "scheme": one_rule(name="https://a.com"),
    "port": one_rule(name="a.com:443"),
    "path": one_rule(name="a.com/b"),
    "empty-label": one_rule(name="a..com"),
    "star-inside": one_rule(name="a.*.com"),
    "star-in-a-label": one_rule(name="*a.com"),
    "two-stars": one_rule(name="*.*.a.com"),
    "zone": one_rule(name="fe80::1%eth0"),
    "subdomains-word": one_rule(subdomains="some"),
    "subdomains-of-a-pattern": one_rule(name="*.a.com", subdomains="one"),
    "subdomains-of-an-address": one_rule(name="1.2.3.4", subdomains="all"),
    "subdomains-of-an-ipv6-address": one_rule(name="::1", subdomains="one"),
    "two-modes": one_rule(mode=["enforce", "report-only"]),
    "mode-word": one_rule(mode="enforced"),
    "mode-true": one_rule(mode=True),
    "no-pins": one_rule(pins=None),
    "empty-pins": one_rule(pins=[]),
    "one-pin": one_rule(pins=[A]),
    "one-leaf-pin": one_rule(leaf_pins=[A]),
    "one-certificate-pin": one_rule(pins=None, certificate_pins=[WHOLE]),
    "pins-text": one_rule(pins=A),
    "pin-number": one_rule(pins=[A, 5]),
    "pin-without-algorithm": one_rule(pins=[A, DIGEST]),
    "pin-sha1": one_rule(pins=[A, "sha1/DmxUShsZuNiqPQsX2Oi9uv2sCnw="]),
    "pin-upper-case": one_rule(pins=[A, B.replace("sha256", "SHA256")]),
    "pin-short": one_rule(pins=[A, "sha256/AAAA"]),
    "pin-unpadded": one_rule(pins=[A, B.removesuffix("=")]),
    "pin-not-canonical": one_rule(pins=[A, B.replace("1oE=", "1oF=")]),
    "pin-url-safe": one_rule(pins=[A, B.replace("+", "-")]),
    "pin-not-quoted": one_rule(pins=[A, f"pin-sha256={DIGEST}"]),
    "certificate-in-pins": one_rule(pins=[A, WHOLE]),
    "fingerprint-without-colons": one_rule(certificate_pins=[WHOLE.replace(":", ""), str(WHOLE_B)]),
    "fingerprint-sha1": one_rule(certificate_pins=[":".join(["AA"] * 20), str(WHOLE_B)]),
    "expires-alone": one_rule(expires=INSTANT),
    "on-expiry-alone": one_rule(on_expiry="block"),
    "on-expiry-word": one_rule(expires=INSTANT, on_expiry="warn"),
    "expires-day": one_rule(expires="2027-01-31", on_expiry="block"),
    "expires-without-offset": one_rule(expires="2027-01-31T00:00:00", on_expiry="block"),
    "expires-number": one_rule(expires=5, on_expiry="block"),
    "expires-month-13": one_rule(expires="2027-13-01T00:00:00Z", on_expiry="block"),
    "rotation-number": one_rule(rotation=5),
    "single-pin-text": one_rule(allow_single_pin="true"),
    "single-pin-number": one_rule(allow_single_pin=1),
}


@pytest.mark.parametrize("document", REFUSED.values(), ids=REFUSED)
def test_refuses_what_the_loader_refuses(document):
    """Faults of structure are found by both."""
    assert faults_of(document)
    assert not VALIDATOR.is_valid(document)


# The list of docs/reference/policy-file.md, in its order, with the words of the loader.
ONLY_THE_LOADER = {
    "same-host-twice": ({"host": [GOOD, GOOD | {"name": "A.com."}]}, "is already listed"),
    "nothing-to-exclude-from": ({"host": [GOOD, {"name": "b.com", "mode": "off"}]}, "that no broader rule covers"),
    "one-pin-in-two-spellings": (one_rule(pins=[A, f'pin-sha256="{DIGEST}"']), "only one distinct pin"),
    "one-pin-twice": (one_rule(pins=[A, A]), "only one distinct pin"),
    "like-an-address": (one_rule(name="127.1"), "looks like an IP address"),
    "star-before-an-address": (one_rule(name="*.1.2.3.4"), "puts a star before an IP address"),
    "too-long-a-label": (one_rule(name="a" * 64), "is not a host name"),
    "not-an-international-name": (one_rule(name="☃☃.com"), "is not a valid international host name"),
    "like-ascii": (one_rule(name="\u212a.com"), "that only looks like ASCII"),
    "no-such-day": (one_rule(expires="2027-02-30T00:00:00Z", on_expiry="block"), "is not an instant"),
}


@pytest.mark.parametrize(("document", "reason"), ONLY_THE_LOADER.values(), ids=ONLY_THE_LOADER)
def test_what_only_the_loader_finds(document, reason):
    """What JSON Schema has no words for is left to the loader."""
    assert [reason in fault.reason for fault in faults_of(document)] == [True]
    VALIDATOR.validate(document)


def test_what_json_itself_hides():
    """A key that stands twice is gone when a parser hands the document over; the loader reads the text."""
    text = json.dumps({"host": [GOOD]}).replace('"name"', '"mode": "enforce", "mode": "off", "name"')
    with pytest.raises(PolicyError, match="stands twice"):
        read_json(text)
    VALIDATOR.validate(one_rule())


@pytest.mark.parametrize("text", ["20270131T000000Z", "2027-W04-7T00:00Z", "2027-01-31T00:00Z"])
def test_the_one_thing_the_schema_is_stricter_about(text):
    """Instants are RFC 3339 for the schema, as pinset writes them; the loader reads what Python reads."""
    document = one_rule(expires=text, on_expiry="block")
    assert not faults_of(document)
    assert not VALIDATOR.is_valid(document)


def _some(*values):
    return st.sampled_from(values)


KEYS = st.lists(
    _some(A, B, f"  {B}\n", A.replace("/", "//", 1), f'pin-sha256="{DIGEST}"', WHOLE, DIGEST, 5), max_size=3
)
WHOLES = st.lists(_some(WHOLE, str(WHOLE_B), WHOLE.lower(), A, WHOLE[:-3], None), max_size=3)
NAMES = _some(
    "a.com", " A.com. ", "*.a.com", "**.a.com", "w.a.com", "v.w.a.com", "σ.com", "1.2.3.4", "[::1]", "::1", "127.1",
    "*.1.2.3.4", "a..com", "a.com:443", "*.*.a.com", "", 5,
)  # fmt: skip
HOSTS = st.fixed_dictionaries(
    {},
    optional={
        "name": NAMES,
        "subdomains": _some("none", "one", "all", "some", True),
        "pins": KEYS,
        "leaf_pins": KEYS,
        "ca_pins": KEYS,
        "certificate_pins": WHOLES,
        "mode": _some("enforce", "report-only", "off", "of", None),
        "expires": _some(INSTANT, "2027-01-31 02:00:00.5+02:00", "2027-02-30T00:00:00Z", "2027-01-31", 5),
        "on_expiry": _some("unpin", "block", "enforce", "x"),
        "rotation": _some("by hand", 5),
        "allow_single_pin": _some(True, False, 1),
        "x": _some(1),
    },
)
DOCUMENTS = st.fixed_dictionaries(
    {"host": st.lists(HOSTS | st.just(GOOD), max_size=3)}, optional={"unlisted": _some("deny", "allow", "x", None)}
)
REASONS = {reason for _, reason in ONLY_THE_LOADER.values()}


@given(DOCUMENTS | HOSTS.map(lambda host: {"host": [GOOD | host]}))
def test_agrees_with_the_loader(document):
    """Whatever loads is accepted; what is accepted and does not load has none but the faults that are listed."""
    faults = faults_of(document)
    if not VALIDATOR.is_valid(document):
        assert faults
    else:
        assert all(any(reason in fault.reason for reason in REASONS) for fault in faults), faults
