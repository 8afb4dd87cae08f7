"""What is known of one project of a repository: where it is, what it depends on, and what it runs.

Rule 1: a project is data that discovery made from names and manifests alone; equal repositories give equal projects.
Rule 2: nothing here depends on the contents of sources or lock files: what does (cache keys) is filled in for a commit.
"""

from typing import Final, TypeAlias

import msgspec

from deltaci.domain.script import Artifact, Step

# go, node, python, rust, maven, gradle, dotnet, cmake, meson, make, docker, just, task
Ecosystem: TypeAlias = str
CHECKS: Final = ("lint", "build", "test")


class _Frozen(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Immutable; unknown fields fail on decoding."""


class CacheRule(_Frozen, frozen=True, kw_only=True):
    """Directories kept between jobs, and what their key is made of.

    The key is `name`, the project's tool versions, and a hash of the object ids of `inputs`: paths from the root of the
    repository, of which those that do not exist count as absent.
    """

    name: str
    paths: tuple[str, ...]
    inputs: tuple[str, ...]


class ProjectJob(_Frozen, frozen=True, kw_only=True):
    """One job of a project. `check` is one of `CHECKS`, unique in the project.

    `reports` are globs of JUnit XML files from the root of the repository.
    """

    check: str
    steps: tuple[Step, ...]
    env: dict[str, str] = {}
    caches: tuple[CacheRule, ...] = ()
    artifacts: tuple[Artifact, ...] = ()
    reports: tuple[str, ...] = ()


class Project(_Frozen, frozen=True, kw_only=True):
    """One project.

    Args:
        root: a directory relative to the repository, `.` for its root; every file below belongs to the project, except
            those below the root of another one.
        manifest: the file that makes it a project.
        name: how others of the same ecosystem name it as a dependency, if they can.
        tools: tool -> version as the repository asks for it (`python` -> `>=3.11`); part of cache keys.
        depends_on_names: package names; they count only if another project here of the same ecosystem has that name.
        depends_on_roots: roots of other projects, of whatever ecosystem.
        reads: files, or directories with all below them, outside `root`, that concern the project (the manifest of its
            workspace, a shared compiler configuration); a change there touches it.
        reads_globs: as `reads`, but globs from the root of the repository, each beginning with `/`.
        is_guest: whether it is at home among the files of others, as an image is that packs them: no file belongs to
            it, and it is touched by what it `reads` alone, which may then be below `root` too.
        lock: the lock file that its dependencies are resolved by, wherever it is. A change there touches the project
            if its own resolved dependencies changed, or if that cannot be told.
    """

    ecosystem: Ecosystem
    root: str
    manifest: str
    jobs: tuple[ProjectJob, ...] = ()
    name: str | None = None
    tools: dict[str, str] = {}
    depends_on_names: frozenset[str] = frozenset()
    depends_on_roots: frozenset[str] = frozenset()
    reads: frozenset[str] = frozenset()
    reads_globs: frozenset[str] = frozenset()
    lock: str | None = None
    is_guest: bool = False
