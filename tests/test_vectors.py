"""
The language-neutral vectors of tests/vectors.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from pinset import HostError, Pin, PinError, PinKind, PinSet, Policy, PolicyError, Unlisted, evaluate
from pinset.formats import read_json
from pinset.testing import Authority

VECTORS = Path(__file__).parent / "vectors"
FILES = ("hosts", "patterns", "pins", "chains")
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def rows(name: str) -> list[dict]:
    return json.loads((VECTORS / f"{name}.json").read_text(encoding="utf-8"))["vectors"]


def runnable(name: str) -> list:
    chosen = [row for row in rows(name) if "skip" not in row and "needs" not in row]
    return [pytest.param(row, id=row["id"]) for row in chosen]


@functools.cache
def authority() -> Authority:
    return Authority("Vectors", intermediate=False)


@functools.cache
def key_of(name: str):
    return authority().issue("key.example").key if "#" not in name else key_of(name.partition("#")[0])


@functools.cache
def certificate_of(name: str) -> bytes:
    return authority().issue(f"{name.partition('#')[0].lower()}.example", key=key_of(name)).chain[0]


def pin_of(name: str, kind: PinKind = PinKind.SPKI) -> str:
    if name == "zero":
        return str(Pin(kind, bytes(32)))
    return str(Pin.from_certificate(certificate_of(name), kind=kind))


def with_pins(rule: dict) -> dict:
    lists = ("pins", "leaf_pins", "ca_pins", "certificate_pins")
    kinds = {"certificate_pins": PinKind.CERTIFICATE}
    return {
        key: [pin_of(name, kinds.get(key, PinKind.SPKI)) for name in value] if key in lists else value
        for key, value in rule.items()
    }


def document_of(document: dict) -> str:
    return json.dumps({**with_pins(document), "host": [with_pins(host) for host in document["host"]]})


def expect_policy_error(document: dict, expected: dict) -> None:
    with pytest.raises(PolicyError) as caught:
        read_json(document_of(document))
    assert expected["error"] == "policy"
    assert [fault.path for fault in caught.value.faults] == expected["paths"]


@pytest.mark.parametrize("name", FILES)
def test_rows_are_complete(name):
    """Every row has an id of its own, a source, and an expectation or a reason not to be run."""
    ids = [row["id"] for row in rows(name)]
    assert len(ids) == len(set(ids)) > 0
    for row in rows(name):
        assert row["source"]
        assert "expected" in row or row.get("skip") or (row.get("needs") == "handshake" and row["behaviour"]), row
        assert not ("skip" in row and len(row["skip"]) < 10)


@pytest.mark.parametrize("vector", runnable("hosts"))
def test_host(vector):
    """A host is covered by the rule the vector names, or refused as it says."""
    expected = vector["expected"]
    pins = [pin_of("A"), pin_of("B")]
    make = lambda: Policy(  # noqa: E731
        tuple(PinSet(**({"pins": pins} | rule)) for rule in vector["rules"]),
        Unlisted(vector.get("unlisted", "deny")),
    )
    if expected.get("error") == "policy":
        with pytest.raises(PolicyError):
            make()
        return
    policy = make()
    hosts = vector["hosts"] + [httpx.URL(url).raw_host.decode() for url in vector.get("urls", [])]
    assert hosts
    for host in hosts:
        if expected.get("error") == "host":
            with pytest.raises(HostError):
                policy.find(host)
            continue
        found = policy.find(host)
        assert (found and found.name) == expected["rule"]
        if "outcome" in expected:
            verdict = evaluate(policy, host, [certificate_of("X")], NOW)
            assert (verdict.outcome, verdict.decision) == (expected["outcome"], expected["decision"])


@pytest.mark.parametrize("vector", runnable("patterns"))
def test_pattern(vector):
    """A pattern or document is accepted or refused as the vector says."""
    expected = vector["expected"]
    if "document" in vector:
        if "error" in expected:
            expect_policy_error(vector["document"], expected)
        else:
            assert len(read_json(document_of(vector["document"])).pin_sets) == len(vector["document"]["host"])
        return
    for pattern in vector["patterns"]:
        if "error" in expected:
            with pytest.raises(PolicyError) as caught:
                PinSet(name=pattern, pins=[pin_of("A"), pin_of("B")])
            assert [fault.path for fault in caught.value.faults] == [f'"{pattern}".name']
        else:
            assert str(PinSet(name=pattern, pins=[pin_of("A"), pin_of("B")]).patterns[0]) == pattern


@pytest.mark.parametrize("vector", [row for row in runnable("pins") if "rule" not in row.values[0]])
def test_pin(vector):
    """A pin is read, or computed, as the vector says."""
    expected = vector["expected"]
    if "expires" in vector:
        for text in vector["expires"]:
            host = {"name": "example.com", "pins": ["A", "B"], "expires": text, "on_expiry": "block"}
            expect_policy_error({"host": [host]}, expected)
        return
    if expected.get("error") == "pin":
        for text in vector["texts"]:
            with pytest.raises(PinError):
                Pin.parse(text)
        return
    makers = {
        "public_key_pem": Pin.from_public_key,
        "public_key_der": lambda text: Pin.from_public_key(base64.b64decode(text)),
        "certificate_der": lambda text: Pin.from_certificate(base64.b64decode(text)),
        "request_pem": Pin.from_csr,
    }
    pins = [Pin.parse(text) for text in vector.get("texts", [])]
    pins += [make(vector[key]) for key, make in makers.items() if key in vector]
    assert pins
    for pin in pins:
        assert str(pin) == expected["text"]
        assert pin.digest.hex() == expected.get("digest", pin.digest.hex())


@pytest.mark.parametrize("vector", [row for row in runnable("pins") if "rule" in row.values[0]])
def test_number_of_pins(vector):
    """A rule has as many distinct pins as its mode asks for."""
    document = {"host": [{"name": "example.com", **vector["rule"]}]}
    if "error" in vector["expected"]:
        expect_policy_error(document, vector["expected"])
    else:
        assert read_json(document_of(document)).find("example.com") is not None


@pytest.mark.parametrize("vector", runnable("chains"))
def test_chain(vector):
    """A verified chain gets the outcome and the decision that the vector says."""
    expected = vector["expected"]
    host = vector.get("host", "example.com")
    document = vector.get("document") or {
        "host": [
            *([vector["parent"]] if "parent" in vector else []),
            {"name": vector.get("rule_name", "example.com"), **vector["rule"]},
        ]
    }
    if "error" in expected:
        expect_policy_error(document, expected)
        return
    policy = read_json(document_of(document))
    now = datetime.fromisoformat(vector["now"]) if "now" in vector else NOW
    chain = [certificate_of(name) for name in vector["chain"]]
    assert [hashlib.sha256(der).digest() for der in chain] == [
        Pin.parse(pin_of(name, PinKind.CERTIFICATE)).digest for name in vector["chain"]
    ]
    verdict = evaluate(policy, host, chain, now)
    assert (verdict.outcome, verdict.decision) == (expected["outcome"], expected["decision"])
    spelled = {pin_of(name): name.partition("#")[0] for name in "ABCDEFGHIJXYZ"}
    spelled |= {pin_of(name, PinKind.CERTIFICATE): name for name in ("A", "A#2", "B")}
    assert [spelled[str(pin)] for pin in verdict.matched] == expected["matched"]
    assert verdict.expired is expected.get("expired", False)
