"""Cargo.lock: crates of the repository by name, all of it for a workspace."""

import pytest

from deltaci.planner.locks.formats import resolutions
from deltaci.planner.locks.lock import Member
from tests.planner.locks.compare import touched

NAME = "Cargo.lock"
WHO = {
    ".": Member(None, b"[workspace]\nmembers = ['*']\n"),
    "one": Member("one", b"[package]\nname = 'one'\n"),
    "two": Member(None, b"[package]\nname = 'two'\n"),
}
SOURCE = 'source = "registry+https://example.com/index"'
TEXT = f"""version = 4

[[package]]
name = "log"
version = "0.3.0"
{SOURCE}
checksum = "log3"

[[package]]
name = "log"
version = "0.4.0"
{SOURCE}
checksum = "log4"

[[package]]
name = "mem"
version = "1.0.0"
{SOURCE}
checksum = "mem1"

[[package]]
name = "one"
version = "0.1.0"
dependencies = [
 "log 0.3.0",
 "mem",
]

[[package]]
name = "two"
version = "0.1.0"
dependencies = [
 "log 0.4.0 (registry+https://example.com/index)",
 "one",
]
"""


@pytest.mark.parametrize(
    ("old", "expected"), [("log3", {".", "one", "two"}), ("log4", {".", "two"}), ("mem1", {".", "one", "two"})]
)
def test_a_package_concerns_those_that_reach_it(old: str, expected: set[str]) -> None:
    """By name, by name and version, or in full, as short as Cargo can write it."""
    assert touched(NAME, TEXT, TEXT.replace(f'"{old}"', '"other"'), WHO) == expected


def test_checksums_that_are_kept_apart_belong_to_their_packages() -> None:
    """The first version of the format has them at the end."""
    text = TEXT.replace("version = 4\n", "", 1).replace('checksum = "log4"\n', "")
    text += '\n[metadata]\n"checksum log 0.4.0 (registry+https://example.com/index)" = "log4"\n'

    assert touched(NAME, text, text.replace('"log4"', '"other"'), WHO) == {".", "two"}


def test_unused_patches_and_other_versions_concern_all() -> None:
    """They belong to no crate."""
    patch = TEXT + '\n[[patch.unused]]\nname = "q"\nversion = "1.0.0"\n'

    assert touched(NAME, TEXT, patch, WHO) == set(WHO)
    assert touched(NAME, TEXT, TEXT.replace("version = 4\n", "version = 3\n", 1), WHO) == set(WHO)


def test_unknown_versions_and_gaps_are_not_told() -> None:
    """A version from the future tells nothing, a missing package nothing of those that need it."""
    found = resolutions(NAME, TEXT.replace(' "log 0.4.0', ' "log 0.5.0').encode(), WHO)

    assert found is not None
    assert {root for root, digest in found.items() if digest is None} == {"two"} | {"."}
    assert resolutions(NAME, TEXT.replace("version = 4\n", "version = 5\n", 1).encode(), WHO) is None
