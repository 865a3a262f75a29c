"""
What a check saw of a host, as one JSON line: the memory of ``pinset check --record``.

A file of such lines is only ever appended to. A reader passes over nothing: a line that it does not understand is an
error with its number, since a history with holes is worse than none.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from pinset._certificates import Certificate
from pinset._errors import InputError, PinError
from pinset._pins import Pin, PinKind
from pinset.formats._document import utc_text


class Result(StrEnum):
    """
    What came of a check.
    """

    MATCHED = "matched"
    """The verified chain has what the rule asks for."""
    MISMATCHED = "mismatched"
    """It has not."""
    EXPIRED = "expired"
    """It has, and the pin set has expired and blocks."""
    UNVERIFIED = "unverified"
    """The chain does not verify, or cannot be read."""
    UNREACHABLE = "unreachable"
    """There was no connection, or no TLS on it."""

    @property
    def is_good(self) -> bool:
        """
        Whether an app with this policy would have been served.
        """
        return self is Result.MATCHED


@dataclass(frozen=True, slots=True)
class Seen:
    """
    One certificate of a chain, as far as it is remembered.

    Attributes:
        pin: The pin of its key.
        certificate_pin: The pin of the whole certificate.
        subject: For people.
        not_after: The last instant of its validity.
    """

    pin: Pin
    certificate_pin: Pin
    subject: str
    not_after: datetime


def seen(certificate: Certificate) -> Seen:
    """
    What is remembered of *certificate*.
    """
    return Seen(
        Pin(PinKind.SPKI, certificate.spki_sha256),
        Pin(PinKind.CERTIFICATE, certificate.certificate_sha256),
        certificate.subject,
        certificate.not_after,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """
    What one check saw of one host.

    Attributes:
        at: When.
        host: Canonical.
        port: Of the connection.
        rule: The name of the rule that applies.
        result: What came of it.
        matched: The pins of the rule that were in the chain.
        chain: What was verified, leaf first.
        detail: In words, where there is no chain.
    """

    at: datetime
    host: str
    port: int
    rule: str
    result: Result
    matched: tuple[Pin, ...] = ()
    chain: tuple[Seen, ...] = ()
    detail: str = ""


def write_record(record: Record) -> str:
    """
    The record as one line, with its end.
    """
    return json.dumps(document_of(record)) + "\n"


def document_of(record: Record) -> dict[str, object]:
    """
    The record as JSON has it.
    """
    return {
        "at": utc_text(record.at),
        "host": record.host,
        "port": record.port,
        "rule": record.rule,
        "result": record.result.value,
        "matched": [str(pin) for pin in record.matched],
        "chain": [
            {
                "pin": str(each.pin),
                "certificate_pin": str(each.certificate_pin),
                "subject": each.subject,
                "not_after": utc_text(each.not_after),
            }
            for each in record.chain
        ],
        "detail": record.detail,
    }


def read_records(text: str, *, source: str) -> list[Record]:
    """
    The records of a file, in its order.

    Args:
        text: JSON lines.
        source: The name of the file.

    Raises:
        InputError: A line is no record; with its number.
    """
    records: list[Record] = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            records.append(_record(json.loads(line)))
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            raise InputError(f"{source}, line {number}: not a record of pinset check: {what}") from error
    return records


def _record(document: object) -> Record:
    table = _table(document)
    return Record(
        at=_instant(table["at"]),
        host=_text(table["host"]),
        port=_number(table["port"]),
        rule=_text(table["rule"]),
        result=Result(_text(table["result"])),
        matched=tuple(_pin(pin) for pin in _list(table["matched"])),
        chain=tuple(_seen(_table(each)) for each in _list(table["chain"])),
        detail=_text(table["detail"]),
    )


def _seen(table: Mapping[str, object]) -> Seen:
    whole = Pin.parse(_text(table["certificate_pin"]), kind=PinKind.CERTIFICATE)
    return Seen(_pin(table["pin"]), whole, _text(table["subject"]), _instant(table["not_after"]))


def _table(value: object) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise TypeError(f"{value!r:.40} is not a record")
    return value


def _list(value: object) -> Sequence[object]:
    if not isinstance(value, list):
        raise TypeError(f"{value!r:.40} is not a list")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.40} is not a text")
    return value


def _number(value: object) -> int:
    if not isinstance(value, int):
        raise TypeError(f"{value!r:.40} is not a number")
    return value


def _instant(value: object) -> datetime:
    instant = datetime.fromisoformat(_text(value))
    if instant.tzinfo is None:
        raise ValueError(f"{value} has no offset")
    return instant.astimezone(UTC)


def _pin(value: object) -> Pin:
    text = _text(value)
    try:
        return Pin.parse(text)
    except PinError as error:
        raise ValueError(str(error)) from error


def latest(records: Iterable[Record]) -> dict[tuple[str, int], Record]:
    """
    The last record of each host and port, in the order in which they were first seen.
    """
    found: dict[tuple[str, int], Record] = {}
    for record in records:
        key = record.host, record.port
        if key not in found or record.at >= found[key].at:
            found[key] = record
    return found
