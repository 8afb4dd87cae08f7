"""bun.lock: JSON with commas at the ends, packages by chains of names."""

import pytest

from deltaci.planner.locks.formats import resolutions
from tests.planner.locks.compare import members, touched

NAME = "bun.lock"
WHO = members(".", "packages/a", "packages/b", "packages/c")
TEXT = """{
  "lockfileVersion": 1, // a note
  "workspaces": {
    "": {"name": "ws", "devDependencies": {"tool": "1"},},
    "packages/a": {"name": "@w/a", "dependencies": {"x": "1"}, "devDependencies": {"w": "1"},},
    "packages/b": {"name": "@w/b", "dependencies": {"@w/a": "1", "y": "1", "z": "2"},},
    "packages/c": {"name": "@w/c", "dependencies": {"z": "1"}, "optionalDependencies": {"gone": "1"},},
  },
  "packages": {
    "@w/a": ["@w/a@workspace:packages/a"],
    "@w/b": ["@w/b@workspace:packages/b"],
    "@w/c": ["@w/c@workspace:packages/c"],
    "tool": ["tool@1.0.0", "", {}, "sha512-tool=="],
    "w": ["w@1.0.0", "", { "bin": { "w": "//,]" } }, "sha512-w=="],
    "x": ["x@1.0.0", "", { "dependencies": { "y": "2" } }, "sha512-x=="],
    "x/y": ["y@2.0.0", "", {}, "sha512-xy=="],
    "y": ["y@1.0.0", "", { "peerDependencies": { "absent": "*" } }, "sha512-y=="],
    "z": ["z@1.0.0", "", {}, "sha512-z=="],
    "@w/b/z": ["z@2.0.0", "", {}, "sha512-bz=="],
  },
}
"""


@pytest.mark.parametrize(
    ("package", "expected"),
    [
        ("z", {"packages/c"}),
        ("bz", {"packages/b"}),
        ("y", {"packages/b"}),
        ("xy", {"packages/a", "packages/b"}),
        ("x", {"packages/a", "packages/b"}),
        ("w", {"packages/a"}),
        ("tool", set(WHO)),
    ],
)
def test_a_package_concerns_those_that_resolve_to_it(package: str, expected: set[str]) -> None:
    """The longest chain above a dependent decides which copy it gets."""
    assert touched(NAME, TEXT, TEXT.replace(f"sha512-{package}=", "sha512-other="), WHO) == expected


def test_unknown_versions_and_gaps_are_not_told() -> None:
    """A version from the future tells nothing, a missing package nothing of those that need it."""
    found = resolutions(NAME, TEXT.replace('    "w": [', '    "v": [').encode(), WHO)

    assert found is not None
    assert {root for root, digest in found.items() if digest is None} == {"packages/a"}
    assert resolutions(NAME, TEXT.replace('Version": 1', 'Version": 2').encode(), WHO) is None


def test_overrides_and_trusted_dependencies_concern_all() -> None:
    """They belong to no member."""
    other = TEXT.replace('  "packages": {', '  "overrides": {"z": "1"},\n  "packages": {')

    assert touched(NAME, TEXT, other, WHO) == set(WHO)
