"""Globs: the same answers as a well-known implementation, and no slow ones."""

import random

import pathspec
import pytest

from deltaci.planner.globs import GlobInvalid, Globs

ATOMS = ("a", "b", "ab", "*", "?", "**", "a*", "*b", "*a*b", "[ab]", "[!a]", "a?b", "c.py", "*.py", "a*b*a")
NAMES = ("a", "b", "ab", "ba", "aab", "c.py", "x.py", "aba", "abab", "bb")


@pytest.mark.parametrize("seed", range(8))
def test_patterns_mean_what_they_mean_in_gitignore(seed: int) -> None:
    """Thousands of random patterns and paths get the answer that pathspec gives."""
    choose = random.Random(seed)
    for _ in range(300):
        pattern = "/".join(choose.choice(ATOMS) for _ in range(choose.randint(1, 4)))
        pattern = choose.choice(("", "", "", "/")) + pattern + choose.choice(("", "", "", "/"))
        path = "/".join(choose.choice(NAMES) for _ in range(choose.randint(1, 4)))
        if set(pattern.split("/")) <= {"", "**"}:
            continue  # `**/` is the one form in which implementations disagree
        expected = pathspec.GitIgnoreSpec.from_lines([pattern]).match_file(path)

        answer = Globs([pattern]).match(path) is not None

        assert answer == expected, (pattern, path)


@pytest.mark.parametrize(
    ("patterns", "path", "expected"),
    [
        (["docs/**", "!docs/code/**"], "docs/a.md", "docs/**"),
        (["docs/**", "!docs/code/**"], "docs/code/a.py", None),
        (["!a", "**"], "a", "**"),
        (["src"], "src/deep/down.c", "src"),
        (["/src"], "lib/src/a.c", None),
        (["a[.]b"], "a.b", "a[.]b"),
        (["[]]"], "]", "[]]"),
        (["[a-c]x"], "bx", "[a-c]x"),
        (["\\*"], "*", "\\*"),
        (["\\*"], "x", None),
        (["*"], "new\nline", "*"),
        (["a*"], "a\n", "a*"),
    ],
)
def test_the_last_matching_pattern_decides(patterns: list[str], path: str, expected: str | None) -> None:
    """And it is named, since it is the reason that people see."""
    answer = Globs(patterns).match(path)

    assert answer == expected


@pytest.mark.parametrize("pattern", ["", "/", "!", "../a", "a/./b", "[a", "[z-a]", "x" * 501, "a\0"])
def test_a_pattern_that_means_nothing_is_refused(pattern: str) -> None:
    """Rather than never matching, in silence."""
    with pytest.raises(GlobInvalid):
        Globs([pattern])


@pytest.mark.parametrize(
    "pattern",
    [
        "*a" * 100 + "b",
        "/".join(["**", "a*"] * 60) + "/b",
        "/".join(["**", "*a*a*a*", "a"] * 20) + "/b",
        "[!b]*" * 90 + "b",
    ],
)
def test_no_pattern_is_slow(pattern: str) -> None:
    """A backtracking matcher would still be busy with these when the sun goes out."""
    globs = Globs([pattern])

    answers = [globs.match(path) for path in ("a" * 4_000, "/".join(["a"] * 2_000), "/".join(["a" * 50] * 80))]

    assert answers == [None, None, None]
