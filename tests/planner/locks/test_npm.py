"""package-lock.json: what Node finds from where."""

import json
from typing import Any

import pytest

from deltaci.planner.locks.formats import differences, resolutions
from tests.planner.locks.compare import members, touched

NAME = "package-lock.json"
WHO = members(".", "packages/a", "packages/b", "packages/c")


def package(version: str, **fields: Any) -> dict[str, Any]:
    return {"version": version, "integrity": f"sha512-{version}", **fields}


def lock(**changes: Any) -> str:
    """A workspace: a uses x, which has its own y; b uses a and y; c uses only z, and w for development."""
    packages = {
        "": {"name": "ws", "workspaces": ["packages/*"], "devDependencies": {"tool": "1"}},
        "node_modules/@w/a": {"resolved": "packages/a", "link": True},
        "node_modules/@w/b": {"resolved": "packages/b", "link": True},
        "node_modules/@w/c": {"resolved": "packages/c", "link": True},
        "packages/a": {"name": "@w/a", "dependencies": {"x": "1"}, "devDependencies": {"w": "1"}},
        "packages/b": {"name": "@w/b", "dependencies": {"@w/a": "1", "y": "1"}},
        "packages/c": {"name": "@w/c", "dependencies": {"z": "1"}, "optionalDependencies": {"gone": "1"}},
        "node_modules/tool": package("1.0.0", dev=True),
        "node_modules/w": package("1.0.0", dev=True),
        "node_modules/x": package("1.0.0", dependencies={"y": "^2"}, peerDependencies={"absent": "*"}),
        "node_modules/x/node_modules/y": package("2.0.0"),
        "node_modules/y": package("1.0.0"),
        "node_modules/z": package("1.0.0"),
        **changes.pop("packages", {}),
    }
    packages = {path: entry for path, entry in packages.items() if entry is not None}
    return json.dumps({"name": "ws", "lockfileVersion": 3, "requires": True, "packages": packages, **changes})


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("node_modules/z", {"packages/c"}),
        ("node_modules/y", {"packages/b"}),
        ("node_modules/x/node_modules/y", {"packages/a", "packages/b"}),
        ("node_modules/x", {"packages/a", "packages/b"}),
        ("node_modules/w", {"packages/a"}),
        ("node_modules/tool", {".", "packages/a", "packages/b", "packages/c"}),
    ],
)
def test_a_package_concerns_those_that_resolve_to_it(path: str, expected: set[str]) -> None:
    """Nested copies are for those above them; development packages for their own member; the root's tools for all."""
    old = json.loads(lock())["packages"][path]

    found = touched(NAME, lock(), lock(packages={path: {**old, "version": "9.9.9"}}), WHO)

    assert found == expected


def test_moving_the_same_package_elsewhere_is_no_change() -> None:
    """npm hoists as it likes; what is installed for a member stays the same."""
    moved = lock(packages={"node_modules/z": None, "packages/c/node_modules/z": package("1.0.0")})

    assert touched(NAME, lock(), moved, WHO) == set()


def test_what_npm_derives_is_no_change() -> None:
    """`dev` turns to false when another member starts to use a package; a licence is not installed."""
    other = lock(packages={"node_modules/z": package("1.0.0", dev=True, license="MIT", funding={"url": "x"})})

    assert touched(NAME, lock(), other, WHO) == set()


def test_the_hash_of_a_package_is_part_of_it() -> None:
    """The same version from elsewhere is something else."""
    other = lock(packages={"node_modules/z": {"version": "1.0.0", "integrity": "sha512-other"}})

    assert touched(NAME, lock(), other, WHO) == {"packages/c"}


def test_a_nearer_copy_takes_the_place_of_the_one_above() -> None:
    """What was found at the root is hidden by what is put beside a member."""
    other = lock(packages={"packages/b/node_modules/y": package("1.5.0")})

    assert touched(NAME, lock(), other, WHO) == {"packages/b"}


def test_a_dependency_that_is_not_there_cannot_be_told() -> None:
    """The lock is broken for those that reach it, and says nothing new about the others."""
    broken = lock(packages={"node_modules/z": None}).encode()

    found = resolutions(NAME, broken, WHO)

    assert found is not None
    assert {root for root, digest in found.items() if digest is None} == {"packages/c"}
    assert set(differences(NAME, broken, broken, WHO)) == {"packages/c"}


@pytest.mark.parametrize("version", [1, 4, "3", True, None])
def test_an_unknown_version_is_not_told(version: Any) -> None:
    """What a number means tomorrow is not for us to guess."""
    assert resolutions(NAME, lock(lockfileVersion=version).encode(), WHO) is None


def test_other_versions_and_unknown_parts_concern_all() -> None:
    """Between version 2 and 3, and with a part that we do not know, nobody can be left out."""
    assert touched(NAME, lock(), lock(lockfileVersion=2), WHO) == set(WHO)
    assert touched(NAME, lock(), lock(overrides={"x": "2"}), WHO) == set(WHO)


def test_members_are_found_from_the_directory_of_the_lock() -> None:
    """A workspace below the root of the repository has paths of its own."""
    who = members("web", "web/packages/a", "web/packages/c")
    other = lock(packages={"node_modules/z": package("2.0.0")})

    assert touched(NAME, lock(), other, who, "web") == {"web/packages/c"}


def test_the_reason_names_the_packages() -> None:
    """People want to know which update it was; of two copies of y only one is left."""
    other = lock(packages={f"node_modules/{name}": package("2.0.0") for name in ("x", "y", "z", "w")})

    found = differences(NAME, lock().encode(), other.encode(), WHO)

    assert found["packages/c"] == "resolves otherwise for this project: z 1.0.0 -> 2.0.0"
    assert found["packages/b"] == "resolves otherwise for this project: x 1.0.0 -> 2.0.0, y 1.0.0 removed"
