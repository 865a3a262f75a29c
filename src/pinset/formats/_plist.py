"""
Apple's property lists, as XML, with line numbers and without duplicate keys.

`plistlib` keeps the last of two equal keys in silence and forgets lines, so the few types that pins need are read here
from the guarded tree of `pinset.formats._xml`, and written by `plistlib`. Binary lists are refused: the file in a
source tree is XML, and for another one command makes it so.
"""

from __future__ import annotations

import plistlib
from collections.abc import Mapping
from dataclasses import dataclass

from pinset._errors import Fault, PolicyError
from pinset.formats._xml import Element, read_xml

_PUBLIC_TYPES = frozenset({"-//Apple//DTD PLIST 1.0//EN", "-//Apple Computer//DTD PLIST 1.0//EN"})
_BINARY = b"bplist"
_KINDS = {"dict": "a dictionary", "array": "an array", "string": "a text", "true": "a boolean", "false": "a boolean"}


@dataclass(frozen=True, slots=True)
class Value:
    """
    One value of a property list.

    Attributes:
        line: The line on which it begins, from 1.
        content: A dictionary or list of values, a text, a boolean, or None for a type that holds no pins.
        kind: What it is, in words.
    """

    line: int
    content: dict[str, Value] | list[Value] | str | bool | None
    kind: str


def read_plist(data: str | bytes, *, source: str = "") -> Value:
    """
    Parse an XML property list.

    Raises:
        PolicyError: It is binary, not well-formed, or has a key twice in one dictionary; with every such key.
    """
    if isinstance(data, bytes) and data.startswith(_BINARY):
        command = "plutil -convert xml1 -o - FILE"
        raise PolicyError([Fault("", "a binary property list is not read", f"make it XML: {command}")], source=source)
    root = read_xml(data, public_types=_PUBLIC_TYPES, source=source)
    faults: list[Fault] = []
    if root.name != "plist" or len(root.children) != 1:
        faults.append(Fault(f"line {root.line}", "the root is not a <plist> with one value"))
        raise PolicyError(faults, source=source)
    value = _value(root.children[0], faults)
    if faults:
        raise PolicyError(faults, source=source)
    return value


def write_plist(document: Mapping[str, object]) -> str:
    """
    Write *document* as an XML property list, keys in the order given.
    """
    return plistlib.dumps(dict(document), sort_keys=False).decode("utf-8")


def _value(element: Element, faults: list[Fault]) -> Value:
    # Recursion is bounded: `read_xml` lets no more than 32 levels through.
    kind = _KINDS.get(element.name, f"a <{element.name}>")
    match element.name:
        case "dict":
            return Value(element.line, _dictionary(element, faults), kind)
        case "array":
            return Value(element.line, [_value(child, faults) for child in element.children], kind)
        case "string":
            return Value(element.line, element.text, kind)
        case "true" | "false":
            return Value(element.line, element.name == "true", kind)
    return Value(element.line, None, kind)


def _dictionary(element: Element, faults: list[Fault]) -> dict[str, Value]:
    table: dict[str, Value] = {}
    rest = iter(element.children)
    for key in rest:
        if key.name != "key":
            faults.append(Fault(f"line {key.line}", f"a <key> was expected, and this is <{key.name}>"))
            break
        value = next(rest, None)
        if value is None:
            faults.append(Fault(f"line {key.line}", f"the key {key.text!r} has no value"))
            break
        if key.text in table:
            reason = f"the key {key.text!r} already stands on line {table[key.text].line}"
            faults.append(Fault(f"line {key.line}", reason, "merge the two"))
        table[key.text] = _value(value, faults)
    return table


def find_dictionary(root: Value, outer: str, inner: str, *, source: str) -> dict[str, Value]:
    """
    The dictionary *inner*, which stands in *outer*, or at the top.

    Raises:
        PolicyError: It is not there.
    """
    place = root
    for key in (outer, inner):
        if not isinstance(place.content, dict):
            raise PolicyError([Fault(f"line {place.line}", f"{place.kind} where {key} was expected")], source=source)
        if key in place.content:
            place = place.content[key]
        elif key == inner:
            raise PolicyError([Fault(f"line {place.line}", f"there is no {inner}")], source=source)
    if not isinstance(place.content, dict):
        raise PolicyError([Fault(f"line {place.line}", f"{inner} is {place.kind}, not a dictionary")], source=source)
    return place.content
