"""The index of the files of a commit: what is changed in it is what is indexed anew."""

import random

import pytest

from deltaci.forge.local import TreeEntry
from deltaci.planner import repository
from deltaci.planner.repository import Files

PATHS = [f"{a}{b}" for a in ("", "a/", "a-/", "a0/", "b/c/") for b in ("x", "y.py", "z.lock", "é")]


def entry(path: str, sha: str) -> TreeEntry:
    return TreeEntry(path=path, mode="100644", sha=sha)


@pytest.mark.parametrize("newer_max", [0, 3, 1_000])
def test_files_that_changed_are_those_that_are_indexed_anew(newer_max: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over any changes in a row, whether they are kept beside what was there or taken in; what was there stays."""
    monkeypatch.setattr(repository, "NEWER_MAX", newer_max)
    rng = random.Random(newer_max)
    now: dict[str, TreeEntry] = {}
    files = Files()
    for number in range(200):
        before, was = files, dict(now)
        changes = {
            path: None if rng.random() < 0.4 else entry(path, str(number))
            for path in rng.sample(PATHS, k=rng.choice((0, 1, 1, 2, 9)))
        }
        now |= {path: each for path, each in changes.items() if each is not None}
        now = {path: each for path, each in now.items() if changes.get(path, each) is not None}

        files = before.changed(changes)

        for one, expected in ((files, now), (before, was)):
            anew = Files(expected.values())
            assert one.paths == anew.paths == tuple(sorted(expected))
            assert {each.path: each for each in one.entries()} == expected
            assert [one.entry(path) for path in PATHS] == [expected.get(path) for path in PATHS]
            assert one.below("a") == anew.below("a")
            assert one.hash_of_files(PATHS) == anew.hash_of_files(PATHS)
            assert one.hash_of(["**/*.lock"]) == anew.hash_of(["**/*.lock"])
            assert one.only(str.isascii).paths == anew.only(str.isascii).paths
