"""What the tests of the formats share."""

from collections.abc import Mapping

from deltaci.planner.locks.formats import differences, resolutions
from deltaci.planner.locks.lock import Member


def members(*roots: str, **manifests: str) -> dict[str, Member]:
    """Members at `roots`, each named `@w/<last part of the root>`; `.` is named `ws`."""
    return {
        root: Member(
            "ws" if root == "." else f"@w/{root.rpartition('/')[2]}",
            manifests.get("root" if root == "." else root.rpartition("/")[2], "{}").encode(),
        )
        for root in roots
    }


def touched(name: str, old: str, new: str, who: Mapping[str, Member], directory: str = ".") -> set[str]:
    """The members that get something else; both locks must be told for all of them, and compare by digest alike."""
    found = differences(name, old.encode(), new.encode(), who, directory)
    before, after = (resolutions(name, text.encode(), who, directory) for text in (old, new))
    assert before is not None
    assert after is not None
    assert set(found) == {root for root in who if before[root] is None or before[root] != after[root]}
    return set(found)
