"""YAML as a small tree with places: scalars keep the text that was written, every node knows its line and column.

Rule: what could surprise a reader or a parser is refused while the events come in, before anything is built from it:
aliases, anchors, tags, second documents, duplicate keys, depth. `3.10` stays "3.10" and `no` stays "no".
"""

from typing import Final, TypeAlias

import msgspec
import yaml

from deltaci.planner.errors import Problem, printable

BYTES_MAX: Final = 256 * 1024
# Not how large: where it comes from, nobody may know.
TOO_LARGE: Final = f"the file has more than {BYTES_MAX} bytes, which is the most that is accepted"
DEPTH_MAX: Final = 20
_Loader: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Scalar(msgspec.Struct, frozen=True, kw_only=True):
    """A text as written; `is_plain` if without quotes. Lines and columns count from 1."""

    text: str
    is_plain: bool
    line: int
    column: int

    @property
    def is_null(self) -> bool:
        """Nothing was written: `key:`, `key: ~` or `key: null`."""
        return self.is_plain and self.text in ("", "~", "null")


class Items(msgspec.Struct, kw_only=True):
    """A list."""

    items: list["Node"]
    line: int
    column: int


class Fields(msgspec.Struct, kw_only=True):
    """A mapping, in the order written; keys are scalars and unique."""

    fields: list[tuple[Scalar, "Node"]]
    line: int
    column: int

    def get(self, name: str) -> "Node | None":
        """The value of a key, or None."""
        return next((value for key, value in self.fields if key.text == name), None)


Node: TypeAlias = Scalar | Items | Fields


class _Refused(Exception):
    def __init__(self, event: yaml.Event, text: str, key: str = "") -> None:
        self.line, self.column = _place(event)
        self.text = text
        self.key = key


class _Open:
    """A collection whose end has not come yet; `key` waits for its value, `lines` knows the keys so far."""

    def __init__(self, node: Items | Fields) -> None:
        self.node = node
        self.key: Scalar | None = None
        self.lines: dict[str, int] = {}


def parse(data: bytes, file: str) -> Node | Problem:
    """The root node of the one document in `data`, or the first problem: YAML that is broken has no second one."""
    if len(data) > BYTES_MAX:
        return Problem(file=file, text=TOO_LARGE)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start]
        column = error.start - (before.rfind(b"\n") + 1) + 1
        text = f"byte 0x{data[error.start]:02x} is not UTF-8; save the file as UTF-8"
        return Problem(file=file, line=before.count(b"\n") + 1, column=column, text=text)
    try:
        root = _build(text)
    except _Refused as refused:
        return Problem(file=file, line=refused.line, column=refused.column, key=refused.key, text=refused.text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = ", ".join(part for part in (error.context, error.problem) if part)
        place = (mark.line + 1, mark.column + 1) if mark is not None else (None, None)
        return Problem(file=file, line=place[0], column=place[1], text=f"this is not YAML: {printable(what)}")
    except yaml.reader.ReaderError as error:
        # The parser counts bytes of a text that it is given as characters: the first of its kind is the one.
        character = chr(error.character) if isinstance(error.character, int) else str(error.character)
        lines = text[: max(text.find(character), 0)].split("\n")
        what = f"the character U+{ord(character):04X} is not accepted; write it as an escape in double quotes"
        return Problem(file=file, line=len(lines), column=len(lines[-1]) + 1, text=what)
    except yaml.YAMLError as error:
        return Problem(file=file, text=f"this is not YAML: {printable(' '.join(str(error).split()))}")
    return root or Problem(file=file, line=1, column=1, text="the file is empty; it needs 'version: 1' and 'jobs:'")


def _build(text: str) -> Node | None:
    """Turn events into nodes with a stack of open collections, so that depth costs no recursion."""
    root: Node | None = None
    documents = 0
    stack: list[_Open] = []
    for event in yaml.parse(text, Loader=_Loader):
        node: Node
        match event:
            case yaml.DocumentStartEvent():
                documents += 1
                if documents > 1:
                    raise _Refused(event, "a second document starts here; one file is one document")
                continue
            case yaml.AliasEvent():
                raise _Refused(event, "aliases (*name) are not accepted; write the value out")
            case yaml.ScalarEvent():
                _check_plain_node(event)
                line, column = _place(event)
                node = Scalar(text=event.value, is_plain=event.style in (None, ""), line=line, column=column)
            case yaml.SequenceStartEvent() | yaml.MappingStartEvent():
                _check_plain_node(event)
                if len(stack) >= DEPTH_MAX:
                    raise _Refused(event, f"nested deeper than {DEPTH_MAX} levels")
                line, column = _place(event)
                is_list = isinstance(event, yaml.SequenceStartEvent)
                node = (
                    Items(items=[], line=line, column=column)
                    if is_list
                    else Fields(fields=[], line=line, column=column)
                )
            case yaml.SequenceEndEvent() | yaml.MappingEndEvent():
                stack.pop()
                continue
            case _:
                continue
        if stack:
            _attach(stack[-1], node, event)
        else:
            root = node
        if not isinstance(node, Scalar):
            stack.append(_Open(node))
    return root


def _check_plain_node(event: yaml.NodeEvent) -> None:
    if event.anchor is not None:
        raise _Refused(
            event, f"anchors (&{printable(event.anchor)}) are not accepted; write the value where it is used"
        )
    tag = getattr(event, "tag", None)
    if tag is not None and tag != "!":
        raise _Refused(event, f"tags ({printable(tag)}) are not accepted; write the value without it")


def _attach(parent: _Open, node: Node, event: yaml.Event) -> None:
    if isinstance(parent.node, Items):
        parent.node.items.append(node)
    elif parent.key is not None:
        parent.node.fields.append((parent.key, node))
        parent.key = None
    elif not isinstance(node, Scalar):
        raise _Refused(event, "a key is a text, not a list or a mapping")
    elif node.text in parent.lines:
        raise _Refused(event, f"this key is already on line {parent.lines[node.text]}", key=printable(node.text))
    elif node.is_plain and node.text == "<<":
        raise _Refused(event, "merge keys (<<) are not accepted; write the fields out")
    else:
        parent.lines[node.text] = node.line
        parent.key = node


def _place(event: yaml.Event) -> tuple[int, int]:
    mark = event.start_mark
    return (1, 1) if mark is None else (mark.line + 1, mark.column + 1)
