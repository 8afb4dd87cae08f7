"""uv.lock: members by directory, extras, groups and markers."""

import pytest

from deltaci.planner.locks.formats import resolutions
from tests.planner.locks.compare import members, touched

NAME = "uv.lock"
WHO = members(".", "packages/a", "packages/b")
SOURCE = 'source = { registry = "https://example.com/simple" }'


def package(name: str, version: str = "1.0", more: str = "") -> str:
    files = f'wheels = [{{ url = "{name}.whl", hash = "sha256:{name}{version}", size = 7 }}]'
    return f'[[package]]\nname = "{name}"\nversion = "{version}"\n{SOURCE}\n{files}\n{more}\n'


TEXT = "\n".join(
    [
        'version = 1\nrevision = 3\nrequires-python = ">=3.9"\n[manifest]\nmembers = ["a", "b", "ws"]',
        """[[package]]
name = "a"
version = "0.1.0"
source = { editable = "packages/a" }
dependencies = [{ name = "idna" }]
[package.optional-dependencies]
fast = [{ name = "speed", marker = "sys_platform == 'linux'" }]
[package.dev-dependencies]
dev = [{ name = "tester" }]
[package.metadata]
requires-dist = [{ name = "idna", specifier = ">=1" }]
""",
        """[[package]]
name = "b"
version = "0.1.0"
source = { virtual = "packages/b" }
dependencies = [{ name = "http", extra = ["socks"] }, { name = "a" }]
""",
        """[[package]]
name = "ws"
version = "0.1.0"
source = { virtual = "." }
dependencies = [{ name = "http" }]
""",
        package("idna"),
        package("speed"),
        package("tester"),
        package("socks"),
        package(
            "http",
            more=f"""dependencies = [
    {{ name = "pool", version = "1.0", {SOURCE}, marker = "python_version < '3.10'" }},
    {{ name = "pool", version = "2.0", {SOURCE}, marker = "python_version >= '3.10'" }},
]
[package.optional-dependencies]
socks = [{{ name = "socks" }}]
""",
        ),
        package("pool", "1.0"),
        package("pool", "2.0"),
    ]
)


@pytest.mark.parametrize(
    ("old", "expected"),
    [
        ("sha256:idna", {"packages/a", "packages/b"}),
        ("sha256:speed", {"packages/a"}),
        ("sha256:tester", {"packages/a"}),
        ("sha256:socks", {"packages/b"}),
        ("sha256:pool2", {".", "packages/b"}),
        ("sha256:pool1", {".", "packages/b"}),
        ("python_version < ", {".", "packages/b"}),
        ("sys_platform == ", {"packages/a"}),
        ('requires-python = ">=3', set(WHO)),
    ],
)
def test_a_package_concerns_those_that_resolve_to_it(old: str, expected: set[str]) -> None:
    """A member gets all of its own extras and groups; of others, the extras that it asks for."""
    new = f"{old[:-1]}#"

    assert old in TEXT
    assert touched(NAME, TEXT, TEXT.replace(old, new), WHO) == expected


@pytest.mark.parametrize(("old", "new"), [("size = 7", "size = 8"), ("vision = 3", "vision = 4"), ('">=1"', '">=2"')])
def test_notes_are_no_change(old: str, new: str) -> None:
    """Sizes, compatible revisions and ranges that the manifests ask for install nothing else."""
    assert touched(NAME, TEXT, TEXT.replace(old, new), WHO) == set()


def test_unknown_versions_and_gaps_are_not_told() -> None:
    """A version from the future tells nothing, a missing package nothing of those that need it."""
    found = resolutions(NAME, TEXT.replace('name = "speed"\n', 'name = "spade"\n').encode(), WHO)

    assert found is not None
    assert {root for root, digest in found.items() if digest is None} == {"packages/a"}
    assert resolutions(NAME, TEXT.replace("version = 1\n", "version = 2\n", 1).encode(), WHO) is None
