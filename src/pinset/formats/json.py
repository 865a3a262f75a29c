"""
The policy as JSON, for programs: the TOML document with instants as RFC 3339 text.
"""

from __future__ import annotations

import json
from datetime import datetime

from pinset._errors import Fault, PolicyError
from pinset._policy import Policy
from pinset.formats._document import document_from_policy, policy_from_document, utc_text


def read_json(text: str, *, source: str = "") -> Policy:
    """
    Read a policy from JSON (RFC 8259).

    Args:
        text: The document.
        source: Its name, for the error.

    Raises:
        PolicyError: With every fault; for a syntax error or a key that stands twice, its place.
    """
    try:
        document = json.loads(text, object_pairs_hook=_table)
    except _DuplicateKeyError as error:
        raise PolicyError([Fault(error.key, "stands twice in one table")], source=source) from error
    except (ValueError, RecursionError) as error:
        raise PolicyError([Fault("", f"not JSON: {error}")], source=source) from error
    _read_instants(document)
    return policy_from_document(document, source=source)


def write_json(policy: Policy) -> str:
    """
    Write *policy* as JSON that `read_json` reads back as the same policy.
    """
    return json.dumps(document_from_policy(policy), indent=2, ensure_ascii=False, default=_instant) + "\n"


class _DuplicateKeyError(ValueError):
    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


def _table(pairs: list[tuple[str, object]]) -> dict[str, object]:
    # Python keeps the last of two equal keys; another reader of the same file may keep the first.
    table: dict[str, object] = {}
    for key, value in pairs:
        if key in table:
            raise _DuplicateKeyError(key)
        table[key] = value
    return table


def _read_instants(document: object) -> None:
    hosts = document.get("host") if isinstance(document, dict) else None
    for host in hosts if isinstance(hosts, list) else ():
        if isinstance(host, dict) and isinstance(host.get("expires"), str):
            try:
                host["expires"] = datetime.fromisoformat(host["expires"])
            except ValueError:
                continue  # left as text, which the document reader refuses with the place and an example


def _instant(value: object) -> str:
    if isinstance(value, datetime):
        return utc_text(value)
    raise TypeError(value)  # pragma: no cover - a document holds nothing else
