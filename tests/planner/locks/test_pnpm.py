"""pnpm-lock.yaml in its three generations."""

import pytest

from deltaci.planner.locks.formats import differences, resolutions
from tests.planner.locks.compare import members, touched

NAME = "pnpm-lock.yaml"
WHO = members(".", "packages/a", "packages/b", "packages/c")

NINE = """lockfileVersion: '9.0'

settings:
  autoInstallPeers: true

importers:

  .:
    devDependencies:
      tool:
        specifier: ^1.0.0
        version: 1.0.0

  packages/a:
    dependencies:
      x:
        specifier: ^1.0.0
        version: 1.0.0(z@1.0.0)
    devDependencies:
      w:
        specifier: 1.0.0
        version: 1.0.0

  packages/b:
    dependencies:
      '@w/a':
        specifier: workspace:*
        version: link:../a
      alias:
        specifier: npm:@s/y@1.0.0
        version: '@s/y@1.0.0'

  packages/c:
    dependencies:
      elsewhere:
        specifier: link:../../elsewhere
        version: link:../../elsewhere
    optionalDependencies:
      z:
        specifier: 1.0.0
        version: 1.0.0

packages:

  '@s/y@1.0.0':
    resolution: {integrity: sha512-y}

  tool@1.0.0:
    resolution: {integrity: sha512-tool}

  u@1.0.0:
    resolution: {integrity: sha512-u}

  w@1.0.0:
    resolution: {integrity: sha512-w}

  x@1.0.0:
    resolution: {integrity: sha512-x}
    peerDependencies:
      z: '*'

  z@1.0.0:
    resolution: {integrity: sha512-z}
    engines: {node: '>=6'}

snapshots:

  '@s/y@1.0.0': {}

  tool@1.0.0: {}

  u@1.0.0:
    dependencies:
      x: 1.0.0(z@1.0.0)

  w@1.0.0: {}

  x@1.0.0(z@1.0.0):
    dependencies:
      u: 1.0.0
      z: 1.0.0

  z@1.0.0:
    optional: true
"""
SIX = """lockfileVersion: '6.0'
importers:
  .:
    devDependencies:
      tool: {specifier: 1.0.0, version: 1.0.0}
  packages/a:
    dependencies:
      x: {specifier: 1.0.0, version: 1.0.0(z@1.0.0)}
    devDependencies:
      w: {specifier: 1.0.0, version: 1.0.0}
  packages/b:
    dependencies:
      '@w/a': {specifier: 'workspace:*', version: 'link:../a'}
      alias: {specifier: 'npm:@s/y@1.0.0', version: /@s/y@1.0.0}
  packages/c:
    dependencies:
      z: {specifier: 1.0.0, version: 1.0.0}
packages:
  /@s/y@1.0.0: {resolution: {integrity: sha512-y}, dev: false}
  /tool@1.0.0: {resolution: {integrity: sha512-tool}, dev: true}
  /w@1.0.0: {resolution: {integrity: sha512-w}, dev: true}
  /x@1.0.0(z@1.0.0):
    resolution: {integrity: sha512-x}
    dependencies: {z: 1.0.0}
    dev: false
  /z@1.0.0: {resolution: {integrity: sha512-z}, dev: false}
"""
FIVE = """lockfileVersion: 5.4
importers:
  .:
    specifiers: {tool: 1.0.0}
    devDependencies: {tool: 1.0.0}
  packages/a:
    specifiers: {x: 1.0.0, w: 1.0.0}
    dependencies: {x: 1.0.0_z@1.0.0}
    devDependencies: {w: 1.0.0}
  packages/b:
    specifiers: {'@w/a': 'workspace:*', alias: 'npm:@s/y@1.0.0'}
    dependencies: {'@w/a': 'link:../a', alias: /@s/y/1.0.0}
  packages/c:
    specifiers: {z: 1.0.0}
    dependencies: {z: 1.0.0}
packages:
  /@s/y/1.0.0: {resolution: {integrity: sha512-y}, dev: false}
  /tool/1.0.0: {resolution: {integrity: sha512-tool}, dev: true}
  /w/1.0.0: {resolution: {integrity: sha512-w}, dev: true}
  /x/1.0.0_z@1.0.0:
    resolution: {integrity: sha512-x}
    dependencies: {z: 1.0.0}
    dev: false
  /z/1.0.0: {resolution: {integrity: sha512-z}, dev: false}
"""


@pytest.mark.parametrize("text", [NINE, SIX, FIVE], ids=["nine", "six", "five"])
@pytest.mark.parametrize(
    ("package", "expected"),
    [
        ("z", {"packages/a", "packages/b", "packages/c"}),
        ("x", {"packages/a", "packages/b"}),
        ("y", {"packages/b"}),
        ("w", {"packages/a"}),
        ("tool", set(WHO)),
    ],
)
def test_a_package_concerns_those_that_resolve_to_it(text: str, package: str, expected: set[str]) -> None:
    """Through peers, aliases, circles and links to other members; the root's tools are for all."""
    changed = text.replace(f"sha512-{package}}}", "sha512-other}")

    assert changed != text
    assert touched(NAME, text, changed, WHO) == expected


@pytest.mark.parametrize("text", [NINE, SIX, FIVE], ids=["nine", "six", "five"])
def test_every_member_is_told(text: str) -> None:
    """None of the three generations leaves a gap in this workspace."""
    found = resolutions(NAME, text.encode(), WHO)

    assert found is not None
    assert None not in found.values()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("specifier: ^1.0.0", "specifier: ~1.0.0"),
        ("  z@1.0.0:\n    optional: true", "  z@1.0.0: {}"),
        ("\nimporters:", "\ncatalogs:\n  default:\n    z: {specifier: 1.0.0, version: 1.0.0}\n\nimporters:"),
        ("engines: {node: '>=6'}", "engines: {node: '>=6'}\n    deprecated: use something else"),
    ],
)
def test_what_is_derived_or_asked_for_is_no_change(old: str, new: str) -> None:
    """Ranges are the manifests'; `optional` follows from who asks; a deprecation is a message."""
    changed = NINE.replace(old, new)

    assert changed != NINE
    assert touched(NAME, NINE, changed, WHO) == set()


@pytest.mark.parametrize(
    "part",
    [
        "settings:\n  autoInstallPeers: false",
        "overrides:\n  z: 1.0.0\n\nsettings:\n  autoInstallPeers: true",
        "patchedDependencies:\n  z@1.0.0: {hash: abc, path: z.patch}\n\nsettings:\n  autoInstallPeers: true",
    ],
)
def test_settings_concern_all(part: str) -> None:
    """They may change what is installed for anybody."""
    changed = NINE.replace("settings:\n  autoInstallPeers: true", part)

    assert changed != NINE
    assert touched(NAME, NINE, changed, WHO) == set(WHO)


@pytest.mark.parametrize("version", ["4.0", "'7.0'", "'10.0'", "", "[9]"])
def test_an_unknown_version_is_not_told(version: str) -> None:
    """What it means is not for us to guess."""
    assert resolutions(NAME, NINE.replace("'9.0'", version).encode(), WHO) is None


def test_a_member_that_is_no_importer_is_not_told() -> None:
    """A project that is new, or not in the workspace after all, may get anything."""
    who = members("packages/c", "packages/new")

    found = differences(NAME, NINE.encode(), NINE.encode(), who)

    assert found == {"packages/new": "changed, and what it resolves to for this project cannot be told"}


def test_a_reference_to_nowhere_is_not_told() -> None:
    """A merge gone wrong is seen by those that it concerns."""
    broken = NINE.replace("        version: '@s/y@1.0.0'", "        version: '@s/y@2.0.0'").encode()

    found = resolutions(NAME, broken, WHO)

    assert found is not None
    assert {root for root, digest in found.items() if digest is None} == {"packages/b"}


def test_a_lock_without_importers_is_that_of_one_project() -> None:
    """Older pnpm writes the dependencies of a single project at the top."""
    text = """lockfileVersion: 5.3
specifiers: {z: ^1.0.0}
dependencies: {z: 1.0.0}
packages:
  /z/1.0.0: {resolution: {integrity: q}}
"""
    other = text.replace(" 1.0.0", " 1.1.0").replace("/1.0.0", "/1.1.0")

    assert touched(NAME, text, text.replace("^1.0.0", "1.x"), members("web"), "web") == set()
    assert touched(NAME, text, other, members("web"), "web") == {"web"}
