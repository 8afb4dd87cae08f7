"""How each kind of value of `deltaci.yaml` is read from its node: texts, lists, times, patterns, directories.

Rule: a value that is wrong is noted with its place, and a harmless one stands in for it.
"""

import re
from collections.abc import Callable, Sequence
from typing import TypeVar

from deltaci.planner.configuration.problems import Problems
from deltaci.planner.configuration.shape import (
    DURATION,
    ENV_NAME,
    LABEL,
    LABELS_MAX,
    LIST_MAX,
    TIMEOUT_MS_MAX,
    At,
    Text,
)
from deltaci.planner.errors import printable
from deltaci.planner.globs import GlobInvalid, Globs
from deltaci.planner.yaml_nodes import Fields, Items, Node, Scalar

T = TypeVar("T")


class Values:
    """Reads values; answers with a harmless one where it noted a problem."""

    def __init__(self, problems: Problems) -> None:
        self.problems = problems

    def env(self, node: Node | None, key: str) -> dict[str, Text]:
        """Names and values of environment variables."""
        fields = self.fields(node, key, None, "a mapping of names to values")
        env: dict[str, Text] = {}
        for name, value in fields.fields if fields is not None else ():
            where = f"{key}.{name.text}"
            if not ENV_NAME.fullmatch(name.text):
                self.problems.add(
                    place(name, where), "a variable is named by letters, digits and _, not starting with a digit"
                )
            text = self.text(value, where, 'a text, number or boolean; write "" for an empty value')
            if text is not None and "\0" in text.text:
                self.problems.add(text.at, "a value cannot have a NUL character in it")
            elif text is not None:
                env[name.text] = text
        return env

    def labels(self, node: Node | None, key: str) -> tuple[Text, ...]:
        """Labels that a runner must have."""
        labels = self.texts(node, key, "labels")
        if len(labels) > LABELS_MAX:
            self.problems.add(labels[LABELS_MAX].at, f"{len(labels)} labels; at most {LABELS_MAX} are accepted")
        for label in labels:
            if "${{" not in label.text and not LABEL.fullmatch(label.text):
                self.problems.add(label.at, "a label has 1 to 100 characters and no white space")
        return labels

    def timeout(self, node: Node | None, key: str, default: int) -> int:
        """Milliseconds of `90`, `90s`, `10m` or `1h30m`."""
        text = self.text(node, key, "a time such as 90s, 10m or 1h30m")
        if text is None:
            return default
        match = DURATION.fullmatch(text.text)
        if text.text.isascii() and text.text.isdigit() and len(text.text) <= 6:
            seconds = int(text.text)
        elif match is not None and text.text:
            hours, minutes, rest = (int(part or 0) for part in match.groups())
            seconds = hours * 3600 + minutes * 60 + rest
        else:
            self.problems.add(
                text.at, f"{printable(text.text, length_max=40)!r} is not a time; write 90s, 10m, 1h30m or seconds"
            )
            return default
        if not 1 <= seconds <= TIMEOUT_MS_MAX // 1000:
            self.problems.add(text.at, "a timeout is between 1s and 24h")
            return default
        return seconds * 1000

    def integer(self, node: Node | None, key: str, default: int, bounds: tuple[int, int]) -> int:
        """A whole number within `bounds`, both included."""
        low, high = bounds
        expects = f"a whole number from {low} to {high}"
        text = self.text(node, key, expects)
        if text is None:
            return default
        value = int(text.text) if re.fullmatch(r"-?[0-9]{1,6}", text.text) else None
        if value is None or not low <= value <= high:
            self.problems.add(text.at, f"{printable(text.text, length_max=40)!r} is not {expects}")
            return default
        return value

    def boolean(self, node: Node | None, key: str, *, default: bool) -> bool:
        """`true` or `false`, and no other spelling."""
        if node is None:
            return default
        if isinstance(node, Scalar) and node.text in ("true", "false"):
            return node.text == "true"
        self.problems.add(place(node, key), "write true or false")
        return default

    def globs(self, node: Node | None, key: str, *, can_only_take_back: bool = False) -> tuple[Text, ...]:
        """Patterns in the manner of .gitignore."""
        patterns: list[Text] = []
        texts = self.texts(node, key, "patterns such as 'src/**'")
        if node is not None and isinstance(node, Items) and not node.items:
            self.problems.add(place(node, key), "an empty list matches no file; remove the key, or name patterns")
        for text in texts:
            try:
                Globs((text.text,))
            except GlobInvalid as error:
                self.problems.add(text.at, str(error))
            else:
                patterns.append(text)
        if patterns and not can_only_take_back and all(pattern.text.startswith("!") for pattern in patterns):
            self.problems.add(
                place(node, key) if node else texts[0].at, "only '!' patterns match no file; begin with '**'"
            )
        return tuple(patterns)

    def branches(self, node: Node | None, key: str) -> tuple[Text, ...]:
        """Patterns of branches, from the first character of their names on."""
        branches = self.texts(node, key, "branches such as 'release/*'")
        for branch in branches:
            try:
                Globs((f"/{branch.text}",))
            except GlobInvalid as error:
                self.problems.add(branch.at, str(error))
            if branch.text.startswith("!"):
                self.problems.add(branch.at, "a branch is named by a pattern without '!'")
        return branches

    def directory(self, node: Node | None, key: str, default: str) -> str:
        """A directory inside the checkout."""
        text = self.text(node, key, "a directory inside the repository")
        if text is None:
            return default
        self.check_inside(text)
        return text.text.strip("/") or "."

    def check_inside(self, path: Text) -> None:
        why = outside(path.text)
        if why is not None:
            self.problems.add(path.at, why)

    def text(self, node: Node | None, key: str, expects: str) -> Text | None:
        """A scalar as it was written; None for an absent one, and with a problem for any other kind."""
        if node is None:
            return None
        if not isinstance(node, Scalar) or node.is_null:
            self.problems.add(place(node, key), f"expected {expects}, found {_kind(node)}")
            return None
        return Text(node.text, place(node, key))

    def texts(self, node: Node | None, key: str, expects: str) -> tuple[Text, ...]:
        """A list of scalars, or one scalar alone."""
        if isinstance(node, Scalar) and not node.is_null:
            return (Text(node.text, place(node, key)),)
        items = self.items(node, key, f"a list of {expects}")
        return _present(items, lambda index, item: self.text(item, f"{key}[{index}]", expects))

    def items(self, node: Node | None, key: str, expects: str) -> Sequence[Node]:
        """The items of a list."""
        if node is None:
            return ()
        if not isinstance(node, Items):
            self.problems.add(place(node, key), f"expected {expects}, found {_kind(node)}")
            return ()
        if len(node.items) > LIST_MAX:
            self.problems.add(place(node, key), f"{len(node.items)} items; at most {LIST_MAX} are accepted")
        return node.items[:LIST_MAX]

    def fields(self, node: Node | None, key: str, known: tuple[str, ...] | None, expects: str) -> Fields | None:
        """A mapping whose keys are all in `known`, if that is given."""
        if node is None:
            return None
        if not isinstance(node, Fields):
            self.problems.add(place(node, key), f"expected {expects}, found {_kind(node)}")
            return None
        for name, _ in node.fields if known is not None else ():
            if known is not None and name.text not in known:
                near = self.problems.nearest(name.text, known)
                where = f"{key}.{name.text}" if key else name.text
                self.problems.add(place(name, where), f"unknown key{near}; accepted: {', '.join(known)}")
        return node


def outside(path: str) -> str | None:
    """Why `path` may lead out of the checkout, or None: relative, with slashes, without `..`."""
    if not path or "\0" in path or not path.isprintable():
        return "a path has at least one character, and only printable ones"
    if path.startswith(("/", "~")) or "\\" in path or re.match(r"[A-Za-z]:", path):
        return "a path is relative to the root of the repository, with forward slashes"
    if ".." in path.split("/"):
        return "a path stays inside the repository, without '..'"
    return None


def place(node: Node, key: str) -> At:
    return At(node.line, node.column, key)


def _kind(node: Node) -> str:
    if isinstance(node, Items):
        return "a list"
    if isinstance(node, Fields):
        return "a mapping"
    return "nothing" if node.is_null else f"the text {printable(node.text, length_max=40)!r}"


def _present(items: Sequence[Node], read_one: Callable[[int, Node], T | None]) -> tuple[T, ...]:
    values = (read_one(index, item) for index, item in enumerate(items))
    return tuple(value for value in values if value is not None)
