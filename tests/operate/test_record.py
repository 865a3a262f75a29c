"""
Records of checks: a line each, which comes back as it was or is refused with its number.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pinset import InputError, Pin, PinKind
from pinset._certificates import read_certificate
from pinset.operate.record import Record, Result, Seen, latest, read_records, seen, write_record

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
PIN = Pin(PinKind.SPKI, bytes(32))
WHOLE = Pin(PinKind.CERTIFICATE, bytes(32))
CHAIN = (Seen(PIN, WHOLE, "CN=a.com", NOW),)
MATCHED = Record(
    at=NOW, host="a.com", port=443, rule="**.a.com", result=Result.MATCHED, matched=(PIN, WHOLE), chain=CHAIN
)

RECORDS = st.builds(
    Record,
    at=st.datetimes(timezones=st.just(UTC), min_value=datetime(1970, 1, 2)),  # noqa: DTZ001 - Hypothesis adds the zone
    host=st.text(max_size=9),
    port=st.integers(1, 65535),
    rule=st.text(max_size=9),
    result=st.sampled_from(Result),
    matched=st.sampled_from([(), (PIN,), (PIN, WHOLE)]),
    chain=st.sampled_from([(), CHAIN, CHAIN * 3]),
    detail=st.text(max_size=20),
)


@given(st.lists(RECORDS, max_size=3))
def test_round_trip(records):
    """Whatever is written is read, one line each."""
    text = "".join(map(write_record, records))
    assert read_records(text, source="x") == records
    assert text.count("\n") == len(records)


def test_certificate(leaf):
    """Of a certificate both pins, the subject and the end are remembered."""
    certificate = read_certificate(leaf.chain[0])
    remembered = seen(certificate)
    assert (str(remembered.pin), remembered.not_after) == (leaf.pin, certificate.not_after)
    assert remembered.certificate_pin.digest == certificate.certificate_sha256


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (None, "Expecting value"),
        ([], "is not a record"),
        ({"at": 5}, "5 is not a text"),
        ({"at": "2026-11-01T00:00:00"}, "has no offset"),
        ({"port": "443"}, "is not a number"),
        ({"result": "fine"}, "'fine' is not a valid Result"),
        ({"matched": PIN}, "is not a list"),
        ({"matched": ["x"]}, "does not name its algorithm"),
        ({"chain": [5]}, "5 is not a record"),
        ({"chain": [{}]}, "'certificate_pin' is missing"),
    ],
)
def test_lines_that_are_no_records(change, reason):
    """A line that is not understood is named by its number."""
    good = write_record(MATCHED)
    document = json.loads(good)
    bad = (
        json.dumps(change if isinstance(change, list) else document | change, default=str)
        if change is not None
        else "x"
    )
    with pytest.raises(InputError) as caught:
        read_records(f"{good}\n{bad}\n", source="history.jsonl")
    assert str(caught.value).startswith("history.jsonl, line 3: not a record of pinset check: ")
    assert reason in str(caught.value)


def test_latest():
    """Of each host and port the last record, whatever the order of the file."""
    later = Record(at=NOW + timedelta(1), host="a.com", port=443, rule="a.com", result=Result.MISMATCHED)
    other = Record(at=NOW, host="a.com", port=8443, rule="a.com", result=Result.UNREACHABLE)
    for records in ([MATCHED, other, later], [later, MATCHED, other]):
        assert list(latest(records).values()) == [later, other] or list(latest(records).values()) == [later, other]
    assert [result.is_good for result in Result] == [True, False, False, False, False]
