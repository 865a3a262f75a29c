"""
XML that a stranger may have written, as a small tree with line numbers.

Rules of this module:

1. No document type with declarations of its own, no entity, nothing from outside: what expands is refused where it
   begins. Apple's property lists name a public document type; that name is allowed, and nothing is fetched.
2. Bytes, depth and nodes are bounded before anything is built on the tree.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NoReturn
from xml.parsers import expat

from pinset._errors import Fault, PolicyError
from pinset.formats.exchange import check_size

_MOST_LEVELS = 32
_MOST_ELEMENTS = 20_000


@dataclass(slots=True)
class Element:
    """
    One element.

    Attributes:
        name: Its tag.
        line: The line on which it begins, from 1.
        attributes: By name.
        children: In order.
        text: The character data directly inside.
    """

    name: str
    line: int
    attributes: dict[str, str] = field(default_factory=dict)
    children: list[Element] = field(default_factory=list)
    text: str = ""


def read_xml(data: str | bytes, *, public_types: frozenset[str] = frozenset(), source: str = "") -> Element:
    """
    Parse a document.

    Args:
        data: The document; bytes in the encoding that it declares.
        public_types: Public identifiers of document types that may be named.
        source: Its name, for the error.

    Returns:
        The root element.

    Raises:
        PolicyError: Not well-formed, too large, too deep, or with a document type; with the line.
    """
    check_size(data, source=source)
    return _Tree(public_types, source).parse(data)


class _Tree:
    def __init__(self, public_types: frozenset[str], source: str) -> None:
        self._public_types, self._source = public_types, source
        self._open: list[Element] = []
        self._text: list[list[str]] = []
        self._root: Element | None = None
        self._count = 0
        self._parser = parser = expat.ParserCreate()
        parser.StartDoctypeDeclHandler = self._doctype
        parser.SkippedEntityHandler = self._entity
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._characters

    def parse(self, data: str | bytes) -> Element:
        try:
            self._parser.Parse(data, True)
        except expat.ExpatError as error:
            self._refuse(f"not well-formed XML: {expat.ErrorString(error.code)}", line=error.lineno)
        except PolicyError:  # of our own handlers
            raise
        except (ValueError, LookupError) as error:  # lone surrogates; encodings that Python does not know
            self._refuse(f"not well-formed XML: {error}")
        assert self._root is not None  # expat reports a document without an element
        return self._root

    def _doctype(self, name: str, _system: str | None, public: str | None, has_declarations: int) -> None:
        if public not in self._public_types:
            self._refuse(f"a DOCTYPE ({name}) is not allowed", "remove the line")
        if has_declarations:
            self._refuse("a DOCTYPE with declarations of its own is not allowed", "remove what is in its brackets")

    def _entity(self, name: str, _is_parameter: bool) -> None:  # noqa: FBT001 - expat calls it
        self._refuse(f"the entity &{name}; is not one of the five of XML", "write the character itself")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._count += 1
        if len(self._open) >= _MOST_LEVELS:
            self._refuse(f"elements are nested deeper than {_MOST_LEVELS} levels")
        if self._count > _MOST_ELEMENTS:
            self._refuse(f"more than {_MOST_ELEMENTS:,} elements")
        element = Element(name, self._parser.CurrentLineNumber, attributes)
        if self._open:
            self._open[-1].children.append(element)
        else:
            self._root = element
        self._open.append(element)
        self._text.append([])

    def _end(self, _name: str) -> None:
        self._open.pop().text = "".join(self._text.pop())

    def _characters(self, text: str) -> None:
        self._text[-1].append(text)

    def _refuse(self, reason: str, suggestion: str = "", *, line: int | None = None) -> NoReturn:
        place = f"line {line or self._parser.CurrentLineNumber}"
        raise PolicyError([Fault(place, reason, suggestion)], source=self._source)
