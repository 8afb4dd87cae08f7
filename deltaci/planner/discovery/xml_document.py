"""XML manifests as plain elements, from repositories that may want to harm who reads them.

Rule 1: entities that a document declares are refused, nothing outside of it is read, and its depth and the number of
its elements are bounded.
Rule 2: what cannot be read ends in a `PlanFailed` with file and line, whatever the parser raised.
"""

import re
from collections.abc import Iterator
from typing import Final
from xml.etree.ElementTree import ParseError

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import DefusedXMLParser

from deltaci.planner.errors import PlanFailed, Problem, printable

DEPTH_MAX: Final = 64
ELEMENTS_MAX: Final = 50_000
# Encodings of several bytes a character that expat cannot read; Python can.
_DECODED: Final = frozenset({"gbk", "gb2312", "gb18030", "big5", "shift_jis", "euc-jp", "euc-kr"})
_ENCODING: Final = re.compile(rb"""\A<\?xml[^>]{0,100}?encoding=["']([A-Za-z0-9._-]{1,40})["']""")
_DECLARATION: Final = re.compile(rb"<!(?:ENTITY|DOCTYPE)")


class Element:
    """One element: its name without a namespace, attributes, text before its first child, children, and line."""

    __slots__ = ("attributes", "children", "line", "parts", "tag")

    def __init__(self, tag: str, attributes: dict[str, str], line: int) -> None:
        self.tag = tag
        self.attributes = attributes
        self.line = line
        self.children: list[Element] = []
        self.parts: list[str] = []

    @property
    def text(self) -> str:
        """The text directly in it, trimmed."""
        return "".join(self.parts).strip()

    def all(self, *tags: str) -> "list[Element]":
        """The elements at the end of a path of names below this one."""
        found = [self]
        for tag in tags:
            found = [child for element in found for child in element.children if child.tag == tag]
        return found

    def value(self, *tags: str) -> str:
        """The text of the first element at the end of a path; empty if there is none."""
        found = self.all(*tags)
        return found[0].text if found else ""

    def walk(self) -> "Iterator[Element]":
        """This element and all below, in the order of the document."""
        waiting = [self]
        while waiting:
            element = waiting.pop()
            yield element
            waiting.extend(reversed(element.children))


class _TooMuch(Exception):
    """A limit of this module; the text says which."""


class _Builder:
    """What the parser tells; it stops reading at the limits."""

    def __init__(self) -> None:
        self.root: Element | None = None
        self.parser: DefusedXMLParser | None = None
        self._open: list[Element] = []
        self._count = 0

    @property
    def line(self) -> int:
        """Where the parser is, from 1."""
        return 1 if self.parser is None else int(self.parser.parser.CurrentLineNumber)

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        """An element opens."""
        self._count += 1
        if self._count > ELEMENTS_MAX or len(self._open) >= DEPTH_MAX:
            raise _TooMuch(f"it has more than {ELEMENTS_MAX} elements, or more than {DEPTH_MAX} inside each other")
        element = Element(tag.rpartition("}")[2], attributes, self.line)
        if self._open:
            self._open[-1].children.append(element)
        else:
            self.root = element
        self._open.append(element)

    def end(self, _tag: str) -> None:
        """An element closes."""
        self._open.pop()

    def data(self, text: str) -> None:
        """Text, in as many pieces as the parser likes."""
        if self._open and text.strip():
            self._open[-1].parts.append(text)

    def close(self) -> None:
        """The document ends."""


def parse_xml(data: bytes, path: str) -> Element:
    """The outermost element of a document.

    Raises:
        PlanFailed: it is not XML, declares entities, or is deeper or larger than the limits; with file and line.
    """
    declared = _ENCODING.match(data)
    encoding = declared[1].decode("ascii").lower() if declared else ""
    builder = _Builder()
    if encoding in _DECODED:
        data = data.decode(encoding, "replace").encode()
    parser = DefusedXMLParser(target=builder, encoding="utf-8" if encoding in _DECODED else None)
    builder.parser = parser
    try:
        parser.feed(data)
        parser.close()
    except ParseError as error:
        line, column = error.position
        raise _unreadable(path, str(error), line, column + 1) from error
    except DefusedXmlException as error:
        text = "it declares entities, which are not read; write their values where they are used"
        found = _DECLARATION.search(data)
        line = data.count(b"\n", 0, found.start()) + 1 if found else builder.line
        raise _unreadable(path, text, line, 1) from error
    except _TooMuch as error:
        raise _unreadable(path, str(error), builder.line, 1) from error
    except (ValueError, LookupError) as error:  # an encoding that nobody knows
        raise _unreadable(path, str(error), 1, 1) from error
    assert builder.root is not None, "the parser refuses a document without an element"
    return builder.root


def unfit(path: str, line: int, text: str) -> PlanFailed:
    """A document that is XML, but not what its name promises."""
    problem = Problem(file=path, line=line, column=1, text=f"{text}; fix it, or describe the jobs in deltaci.yaml")
    return PlanFailed(str(problem), (problem,))


def _unreadable(path: str, why: str, line: int, column: int) -> PlanFailed:
    text = f"this XML cannot be read: {printable(why)}; fix it, or describe the jobs in deltaci.yaml"
    problem = Problem(file=path, line=line, column=column, text=text)
    return PlanFailed(str(problem), (problem,))
