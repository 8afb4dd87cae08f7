"""Workspaces of npm, pnpm, Yarn and Bun: which packages are members of which root.

Rule: patterns mean directories of packages, exactly; one that we cannot read means all packages below, but those that
are left out by their place.
"""

import posixpath
import re
from collections.abc import Mapping, Sequence
from typing import Final

from deltaci.planner.discovery.node_packages import Package
from deltaci.planner.discovery.project import Tree, is_left_out, join, parent, table, texts
from deltaci.planner.globs import GlobInvalid, Globs
from deltaci.planner.yaml_nodes import Fields, Items, Scalar, parse

GLOBS_MAX: Final = 200
EXPANSIONS_MAX: Final = 64
# Patterns times packages, those of long paths more often: a second or two.
MATCHES_MAX: Final = 2_000_000
_SPECIAL: Final = re.compile(r"[*?\[\]\\!]")
_EXTENDED: Final = re.compile(r"[@+*?!]\([^()]*\)")
_UNREADABLE: Final = "("
_RANGE: Final = re.compile(r"\{[^{},]*\}")


# Options and programs by which a script runs what other packages have, and how it goes where they are.
_ELSEWHERE: Final = re.compile(
    r"(?:^|[\s\"'])(?:-r|-w|-ws|-F|-C|--recursive|--workspaces?|--filter|--scope|--prefix|--cwd|cd|workspaces?|foreach|"
    r"lerna|nx|turbo|wsrun|rush|lage|moon|ultra|wireit)(?=[\s\"'=;]|$)"
)
_WORD: Final = re.compile(r"[\w:.*/-]+")
# Of scripts that call others, and the characters that are read of each: what is beyond runs nothing of others.
_CALLS_MAX: Final = 50
_SCRIPT_CHARACTERS_MAX: Final = 2_000


def whole(name: str, scripts: Mapping[str, str]) -> str:
    """A script with those that it calls, a line each."""
    waiting, seen = [name], {name}
    bodies: list[str] = []
    while waiting and len(seen) <= _CALLS_MAX:
        body = scripts[waiting.pop()][:_SCRIPT_CHARACTERS_MAX]
        bodies.append(body)
        words = set(_WORD.findall(body))
        starts = tuple(word[:-1] for word in words if word.endswith(":*"))
        called = words & scripts.keys()
        if starts:
            called |= {other for other in scripts if other.startswith(starts)}
        waiting += sorted(called - seen)
        seen |= called
    return "\n".join(bodies)


def delegates(name: str, scripts: Mapping[str, str]) -> bool:
    """Whether a script of a workspace's root runs those of other packages, itself or by scripts that it calls."""
    return _ELSEWHERE.search(whole(name, scripts)) is not None


class Matching:
    """Counts what matching costs over all workspaces; once that is too much, every pattern is one we cannot read."""

    def __init__(self) -> None:
        self.left = MATCHES_MAX
        self._is_left_out: dict[str, bool] = {}

    def leaves_out(self, root: str) -> bool:
        """Whether a package at `root` is one only if it is declared; looked up once for each."""
        if root not in self._is_left_out:
            self._is_left_out[root] = is_left_out(f"{root}/package.json")
        return self._is_left_out[root]

    def allows(self, count: int) -> bool:
        self.left -= count
        return self.left >= 0


def declared(tree: Tree, package: Package) -> list[str] | None:
    """The patterns of the workspace that `package` is the root of; None if it is none."""
    if tree.has(package.root, "pnpm-workspace.yaml"):
        return _in_order(_pnpm(tree, package.root))
    value = package.content.get("workspaces")
    if value is None:
        return None
    patterns = texts(value if isinstance(value, list) else table(package.content, "workspaces").get("packages"))
    # npm lets a later pattern take in again what an earlier one left out; in others negations always win.
    is_npm = not any(tree.has(package.root, lock) for lock in ("yarn.lock", "bun.lock", "bun.lockb"))
    return patterns if is_npm else _in_order(patterns)


def _in_order(patterns: Sequence[str]) -> list[str]:
    return sorted(patterns, key=lambda pattern: pattern.startswith("!"))


def _pnpm(tree: Tree, root: str) -> list[str]:
    path = join(root, "pnpm-workspace.yaml")
    text = tree.text(path)
    content = parse(text.encode(), path) if text.strip() else Fields(fields=[], line=1, column=1)
    listed = content.get("packages") if isinstance(content, Fields) else None
    if isinstance(listed, Items):
        return [item.text for item in listed.items if isinstance(item, Scalar)]
    # Newer pnpm keeps settings in this file without any package; a file that we refuse to read may list all.
    return [] if isinstance(content, Fields) else [_UNREADABLE]


def members(root: str, patterns: Sequence[str], roots: Sequence[str], matching: Matching) -> list[str]:
    """Those of `roots` (sorted) that the patterns of the workspace at `root` mean; never `root` itself."""
    literal: set[str] = set()
    rules: list[tuple[str, str]] = []
    for pattern in patterns:
        sign = "!" if pattern.startswith("!") else ""
        base, rest = _based(root, pattern.removeprefix("!"))
        expanded = expand(rest) if rest is not None else None
        if rest is None or (sign and expanded is None):
            continue  # outside the repository; or a negation that we cannot read, which leaves out nothing
        if expanded is None:
            return _all_below(root, roots, matching)
        for each in expanded:
            if not sign and _SPECIAL.search(each) is None:
                literal.add(join(base, each))
            rules.append((base, sign + each))
    has_globs = any(_SPECIAL.search(rule) for _, rule in rules)
    if not has_globs:
        return sorted(other for other in literal & set(roots) if other != root)
    if len(rules) > GLOBS_MAX:
        return _all_below(root, roots, matching, also=frozenset(literal))
    return _matching(root, rules, roots, matching)


def _matching(root: str, rules: list[tuple[str, str]], roots: Sequence[str], matching: Matching) -> list[str]:
    bases = sorted({base for base, _ in rules}, key=len)
    chosen = {other for base in bases for other in _below(base, roots)} - {root}
    if not matching.allows(len(rules) * sum(1 + len(other) // 20 for other in chosen)):
        return _all_below(root, roots, matching)
    found = []
    try:
        by_base = {base: Globs([_anchored(rule) for at, rule in rules if at == base]) for base in bases}
    except GlobInvalid:
        return _all_below(root, roots, matching)
    for other in sorted(chosen):
        for base in bases:
            prefix = "" if base == "." else base + "/"
            if other.startswith(prefix) and by_base[base].match(f"{other.removeprefix(prefix)}/package.json"):
                found.append(other)
                break
    return found


def _anchored(rule: str) -> str:
    """A pattern of directories as one of manifests: what matches a directory must not match all below it."""
    return f"{'!' if rule.startswith('!') else ''}/{rule.removeprefix('!')}/package.json"


def _based(root: str, pattern: str) -> tuple[str, str | None]:
    """The directory that a pattern starts at, and the rest of it; None if that is outside, or the root itself."""
    rest = posixpath.normpath(pattern.strip().lstrip("/")) if pattern.strip().lstrip("/") else "."
    base = root
    while rest == ".." or rest.startswith("../"):
        if base == ".":
            return base, None
        base, rest = parent(base), rest[3:] or "."
    return base, None if rest == "." else rest


def _below(base: str, roots: Sequence[str]) -> list[str]:
    prefix = "" if base == "." else base + "/"
    return [other for other in roots if other.startswith(prefix) and other != "."]


def _all_below(root: str, roots: Sequence[str], matching: Matching, also: frozenset[str] = frozenset()) -> list[str]:
    below = [other for other in _below(root, roots) if other in also or not matching.leaves_out(other)]
    return [other for other in below if other != root]


def expand(pattern: str) -> list[str] | None:
    """The globs, without braces and extended patterns, that together match at least what `pattern` does.

    None if that cannot be told, or if there would be more than `EXPANSIONS_MAX`.
    """
    waiting = [pattern]
    done: list[str] = []
    while waiting:
        each = waiting.pop()
        if len(waiting) + len(done) > EXPANSIONS_MAX or len(each) > 500:
            return None
        if _EXTENDED.search(each):
            waiting.append(_EXTENDED.sub("*", each))
            continue
        if _RANGE.search(each):
            waiting.append(_RANGE.sub("*", each))
            continue
        if "(" in each:
            return None
        start = each.rfind("{")
        end = each.find("}", start)
        if start < 0 and end < 0:
            done.append(each)
        elif start < 0 or end < 0:
            return None
        else:
            waiting += [each[:start] + part + each[end + 1 :] for part in each[start + 1 : end].split(",")]
    return [re.sub(r"/{2,}", "/", each).strip("/") for each in done if each.strip("/")]
