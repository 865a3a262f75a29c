"""
What is worth a report, what stands in it, and which ones are the same.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import ssl
from datetime import UTC, datetime, timedelta, timezone

import pytest

from pinset import Decision, Outcome, Pin, PinKind, PinSet, Policy, evaluate
from pinset._evaluate import refuse
from pinset.reports import PinReport
from pinset.reports._duplicates import Duplicates
from pinset.reports._report import is_reported
from pinset.testing import Authority

AUTHORITY = Authority("Reports")
IDENTITY = AUTHORITY.issue("api.example.com")
CHAIN = (*IDENTITY.chain, AUTHORITY.root)
KEY = IDENTITY.pin
OTHER = "sha256/7HIpactkIAq2Y49orFOOQKurWxmmSFZhBCoQYcRhJ3Y="
SPARE = "sha256/fwza0LRMXouZHRC8Ei+4PyuldPDcf3UKgO/04cDM1oE="
NOW = datetime(2026, 6, 1, 12, 0, 0, 500, tzinfo=UTC)
RFC_7469 = [
    "date-time", "hostname", "port", "effective-expiration-date", "include-subdomains", "noted-hostname",
    "served-certificate-chain", "validated-certificate-chain", "known-pins",
]  # fmt: skip


def rule(pins=(OTHER, SPARE), **fields) -> PinSet:
    return PinSet(**{"name": "api.example.com", "pins": list(pins), **fields})


def verdict(*, chain=CHAIN, now=NOW, host="api.example.com", **fields):
    return evaluate(Policy((rule(**fields),)), host, chain, now)


@pytest.mark.parametrize(
    ("fields", "reported"),
    [
        ({"pins": (KEY, OTHER)}, False),
        ({}, True),
        ({"chain": ()}, True),
        ({"chain": (b"no certificate",)}, True),
        ({"mode": "report-only"}, True),
        ({"mode": "report-only", "pins": (KEY,)}, True),
        *(
            ({"pins": (KEY, OTHER), "expires": NOW, "on_expiry": consequence}, True)
            for consequence in ("unpin", "block", "enforce")
        ),
        ({"pins": (KEY, OTHER), "expires": NOW + timedelta(seconds=1), "on_expiry": "unpin"}, False),
    ],
)
def test_what_is_reported(fields, reported):
    """All but a match of a rule that is enforced and has not expired."""
    assert is_reported(verdict(**fields)) is reported


def test_what_is_never_reported():
    """Hosts without a rule and excluded ones, whatever was found."""
    off = PinSet(name="api.example.com", mode="off")
    policy = Policy((PinSet(name="**.example.com", pins=[OTHER, SPARE]), off))
    assert not is_reported(evaluate(policy, "api.example.com", CHAIN, NOW))
    assert not is_reported(refuse(policy, "api.example.com", NOW, outcome=Outcome.UNVERIFIED, detail="expired"))
    assert not is_reported(evaluate(policy, "unlisted.test", CHAIN, NOW))
    assert is_reported(evaluate(policy, "www.example.com", CHAIN, NOW))


def test_keys_of_rfc_7469():
    """The nine keys are there, first and in the order of the RFC, with their meaning."""
    expires = datetime(2027, 1, 31, 1, 30, tzinfo=timezone(timedelta(hours=2)))
    found = verdict(name="**.example.com", expires=expires, on_expiry="block")
    report = PinReport(verdict=found, port=8443, served_chain=IDENTITY.chain, suppressed=3)
    document = report.to_dict()
    assert list(document)[:9] == RFC_7469
    assert document["date-time"] == "2026-06-01T12:00:00Z"
    assert (document["hostname"], document["port"]) == ("api.example.com", 8443)
    assert document["effective-expiration-date"] == "2027-01-30T23:30:00Z"
    assert (document["noted-hostname"], document["include-subdomains"]) == ("example.com", True)
    assert [ssl.PEM_cert_to_DER_cert(pem) for pem in document["served-certificate-chain"]] == list(IDENTITY.chain)
    assert [ssl.PEM_cert_to_DER_cert(pem) for pem in document["validated-certificate-chain"]] == list(CHAIN)
    assert document["known-pins"] == [f'pin-sha256="{pin.removeprefix("sha256/")}"' for pin in (OTHER, SPARE)]
    assert [str(Pin.parse(pin)) for pin in document["known-pins"]] == [OTHER, SPARE]
    assert document["suppressed-count"] == 3
    assert (document["rule"], document["outcome"], document["decision"]) == ("**.example.com", "mismatched", "refuse")


def test_json_is_one_line_and_the_same_document():
    """The text is the document, without a line break in it."""
    report = PinReport(verdict=verdict())
    assert "\n" not in report.to_json()
    assert json.loads(report.to_json()) == report.to_dict()


def test_what_is_not_known():
    """Without expiry, port and served chain the keys are there all the same."""
    document = PinReport(verdict=verdict()).to_dict()
    assert document["effective-expiration-date"] is None
    assert (document["port"], document["served-certificate-chain"]) == (0, [])
    assert document["include-subdomains"] is False


@pytest.mark.parametrize(
    ("fields", "result", "enforced"),
    [
        ({"mode": "report-only", "pins": (KEY,)}, 0, False),
        ({}, 1, True),
        ({"mode": "report-only"}, 1, False),
        ({"chain": ()}, 2, True),
        ({"chain": (b"no certificate",)}, 5, True),
        ({"expires": NOW, "on_expiry": "unpin"}, 1, False),
        ({"expires": NOW, "on_expiry": "block"}, 1, True),
    ],
)
def test_keys_of_trustkit(fields, result, enforced):
    """``validation-result`` has TrustKit's numbers, and ``enforce-pinning`` says what was in force at the time."""
    document = PinReport(verdict=verdict(**fields)).to_dict()
    assert (document["validation-result"], document["enforce-pinning"]) == (result, enforced)


def test_a_check_that_failed():
    """The detail of a check that failed is part of the report."""
    found = refuse(Policy((rule(),)), "api.example.com", NOW, outcome=Outcome.FAILED, detail="TypeError: why")
    document = PinReport(verdict=found).to_dict()
    assert (document["validation-result"], document["detail"]) == (3, "TypeError: why")


def test_certificate_pins_are_no_known_pins():
    """``known-pins`` holds digests of keys alone; certificates have a key of their own, if there are any."""
    fingerprint = Pin.from_certificate(IDENTITY.chain[0], kind=PinKind.CERTIFICATE)
    report = PinReport(verdict=verdict(certificate_pins=[fingerprint], allow_single_pin=True))
    assert len(report.to_dict()["known-pins"]) == 2
    assert report.to_dict()["known-certificates"] == [str(fingerprint)]
    assert "known-certificates" not in PinReport(verdict=verdict()).to_dict()


def test_violation():
    """A match that is let through is none; one that an expired rule blocks is."""
    kinds = [
        ({}, True),
        ({"mode": "report-only"}, True),
        ({"mode": "report-only", "pins": (KEY,)}, False),
        ({"pins": (KEY, OTHER), "expires": NOW, "on_expiry": "unpin"}, False),
        ({"pins": (KEY, OTHER), "expires": NOW, "on_expiry": "block"}, True),
    ]
    assert [PinReport(verdict=verdict(**fields)).is_violation for fields, _ in kinds] == [one for _, one in kinds]


def test_a_report_is_a_value():
    """It cannot be changed, and equal ones are equal."""
    report = PinReport(verdict=verdict(), port=443)
    assert report == PinReport(verdict=verdict(), port=443)
    assert report.verdict.decision is Decision.REFUSE
    with pytest.raises(dataclasses.FrozenInstanceError):
        report.port = 1


def test_no_private_data():
    """Nothing but hosts, keys and certificates: the whole document is accounted for."""
    document = PinReport(verdict=verdict(), served_chain=CHAIN).to_dict()
    added = {"enforce-pinning", "validation-result", "rule", "outcome", "decision", "detail", "suppressed-count"}
    assert set(document) == {*RFC_7469, *added}
    assert base64.b64encode(IDENTITY.key_pem).decode() not in json.dumps(document)


class TestDuplicates:
    """`Duplicates`."""

    def test_one_in_a_window(self):
        """The first is let through; the next once the window has passed, and it tells how many were held back."""
        same = Duplicates(10.0)
        assert same.admit("a", 0.0) == 0
        assert [same.admit("a", now) for now in (0.0, 5.0, 9.999)] == [None] * 3
        assert same.admit("a", 10.0) == 3
        assert same.admit("a", 19.999) is None
        assert same.admit("a", 20.0) == 1

    def test_kinds_are_apart(self):
        """What is held back for one kind is nothing to another."""
        same = Duplicates(10.0)
        assert [same.admit(kind, 0.0) for kind in "abab"] == [0, 0, None, None]

    def test_reopened_when_lost(self):
        """After a loss the next one goes through from the given instant on, and tells of the lost one."""
        same = Duplicates(100.0)
        assert same.admit("a", 0.0) == 0
        assert same.admit("a", 1.0) is None
        same.reopen("a", 5.0, 1)
        assert same.admit("a", 4.0) is None
        assert same.admit("a", 5.0) == 3

    def test_reopening_never_prolongs(self):
        """An instant after the end of the window changes nothing."""
        same = Duplicates(10.0)
        same.admit("a", 0.0)
        same.reopen("a", 50.0, 1)
        assert same.admit("a", 10.0) == 1

    def test_reopening_what_is_forgotten(self):
        """A kind that was forgotten in the meantime stays so."""
        same = Duplicates(10.0)
        same.reopen("a", 0.0, 1)
        assert same.admit("a", 0.0) == 0

    def test_forgets_what_was_longest_not_seen(self):
        """Memory is bounded; a kind that keeps coming is remembered."""
        same = Duplicates(10.0, size=2)
        for kind in ("a", "b", "a", "c"):
            same.admit(kind, 0.0)
        assert same.admit("a", 1.0) is None
        assert same.admit("b", 1.0) == 0
