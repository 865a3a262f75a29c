"""
The policy as TOML, for people. One ``[[host]]`` table per host.

``[hosts.api.example.com]`` is not the form: TOML reads the dots as nested tables.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from datetime import datetime

from pinset._errors import Fault, PolicyError
from pinset._policy import Policy
from pinset.formats._document import document_from_policy, policy_from_document, utc_text

_MOST_DOTS = 64
# Strings and comments, exactly as TOML has them: what is taken for a string is not searched. What is never closed is taken
# to the end, so that the scan is linear.
_QUOTED = re.compile(
    r"""
      "{3} (?: [^"\\] | \\. | "(?!"") )*+ (?: "{3,5} | \Z )
    | '{3} .*? (?: '{3,5} | \Z )
    | " (?: [^"\\\n] | \\[^\n] )*+ "?
    | ' [^'\n]*+ '?
    | \# [^\n]*
    """,
    re.DOTALL | re.VERBOSE,
)


def read_toml(text: str, *, source: str = "") -> Policy:
    """
    Read a policy from TOML 1.0.

    Args:
        text: The document.
        source: Its name, for the error.

    Raises:
        PolicyError: With every fault; for a syntax error, its line and column.
    """
    _check_depth(text, source)
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # also for a number of 5,000 digits and 5,000 nested tables
        raise PolicyError([Fault("", f"not TOML: {error}")], source=source) from error
    return policy_from_document(document, source=source)


def _check_depth(text: str, source: str) -> None:
    """
    Refuse ``a.a.a.a…``: tomllib takes memory by the square of the dots, and 100,000 of them took 24 GB.
    """
    if max(map(_dots, text.splitlines()), default=0) <= _MOST_DOTS:
        return
    bare = _QUOTED.sub(lambda quoted: "\n" * quoted[0].count("\n"), text)
    for number, line in enumerate(bare.split("\n"), 1):
        if _dots(line) > _MOST_DOTS:
            reason = f"more than {_MOST_DOTS} dots outside quotes on one line: no key of a policy is so deep"
            raise PolicyError([Fault(f"line {number}", reason)], source=source)


def _dots(line: str) -> int:
    return line.count(".")


def write_toml(policy: Policy) -> str:
    """
    Write *policy* as TOML that `read_toml` reads back as the same policy.
    """
    return "\n".join(_lines(policy)) + "\n"


def _lines(policy: Policy) -> Iterator[str]:
    yield f'unlisted = "{policy.unlisted.value}"'
    hosts = document_from_policy(policy)["host"]
    assert isinstance(hosts, list)
    for host in hosts:
        yield ""
        yield "[[host]]"
        yield from (f"{key} = {_value(value)}" for key, value in host.items())


def _value(value: object) -> str:
    if isinstance(value, list):
        return "[\n" + "".join(f"    {_value(item)},\n" for item in value) + "]"
    if isinstance(value, datetime):
        return utc_text(value)
    # A JSON string is a TOML basic string, but for U+007F, which TOML wants escaped; true and false are the same words.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
