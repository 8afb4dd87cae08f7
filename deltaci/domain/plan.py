"""The plan of a run: the chosen jobs with their reasons, as plain frozen structs.

Rule 1: a plan is data; equal inputs give equal plans, byte for byte, and `digest` names it.
Rule 2: every job and every skip carries the reasons for which it is there.
"""

import hashlib
from typing import Final, Literal, TypeAlias

import msgspec

from deltaci.domain.blueprint import Blueprint
from deltaci.domain.script import Artifact as Artifact
from deltaci.domain.script import Reason as Reason
from deltaci.domain.script import Step as Step

PLAN_VERSION: Final = 1

Policy: TypeAlias = Literal["required", "allow_failure"]
Source: TypeAlias = Literal["configuration", "recipe", "discovery"]

# What the end of a run can be to those who are told of it; one that succeeds after one that failed is both.
Happening: TypeAlias = Literal["succeeded", "failed", "recovered", "canceled"]

JOBS_MAX: Final = 1_000
MATRIX_MAX: Final = 256


class _Frozen(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Immutable; unknown fields fail on decoding."""


class Cache(_Frozen, frozen=True, kw_only=True):
    """Directories kept between jobs under a deterministic key."""

    key: str
    paths: tuple[str, ...]


class PlannedJob(_Frozen, frozen=True, kw_only=True):
    """One job of a plan. `name` is unique in the plan; `needs` names other jobs of it.

    `is_skipped` jobs are kept in the plan, so that their required checks report success with the reason. `project` is
    the id of the project that the job is of, if it is of one; `reports` are globs of JUnit XML files. Of the jobs of a
    repository with the same `concurrency`, at most one is with a runner at a time.
    """

    name: str
    steps: tuple[Step, ...]
    needs: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    env: dict[str, str] = {}
    timeout_ms: int = 3_600_000
    retries: int = 0
    policy: Policy = "required"
    priority: int = 0
    artifacts: tuple[Artifact, ...] = ()
    caches: tuple[Cache, ...] = ()
    matrix: dict[str, str] = {}
    reasons: tuple[Reason, ...] = ()
    is_skipped: bool = False
    reports: tuple[str, ...] = ()
    project: str | None = None
    concurrency: str | None = None


class PlannedProject(_Frozen, frozen=True, kw_only=True):
    """A project that the change touches: `reason` says why, and `via` through which other project, if not by itself.

    `id` is `<ecosystem>:<root>`; `depends_on` are the ids of the projects that it depends on directly, touched or not.
    """

    id: str
    manifest: str
    reason: Reason
    via: str | None = None
    depends_on: tuple[str, ...] = ()


class NotifyRule(_Frozen, frozen=True, kw_only=True):
    """Tell the channel of this name, which the server knows the address of, when the run ends in one of these ways."""

    channel: str
    on: tuple[Happening, ...]


class Plan(_Frozen, frozen=True, kw_only=True):
    """The jobs of one run in topological order (needs first), and where they come from.

    `base_sha` is None when the base is unknown (first push, force push): then everything runs. `projects` are those
    that the change touches, sorted by id. `advice` is what an advisor said about it, for people alone. `blueprint` is
    what a plan from discovery or a recipe was made from, for the recipe that its run may become: it is stored beside
    the plan, and not in it. Neither is part of the digest. `notify` holds the rules that are about this run's branch.
    """

    commit_sha: str
    base_sha: str | None
    source: Source
    jobs: tuple[PlannedJob, ...]
    reasons: tuple[Reason, ...] = ()
    changed_files_count: int | None = None
    projects: tuple[PlannedProject, ...] = ()
    advice: str = ""
    blueprint: Blueprint | None = None
    notify: tuple[NotifyRule, ...] = ()
    version: int = PLAN_VERSION


_encoder: Final = msgspec.json.Encoder(order="deterministic")


def digest(plan: Plan) -> str:
    """SHA-256 of the plan's canonical JSON, hex: equal plans have equal digests on any machine."""
    return hashlib.sha256(_encoder.encode(msgspec.structs.replace(plan, advice="", blueprint=None))).hexdigest()


def first_cycle(needs: dict[str, tuple[str, ...]]) -> tuple[str, ...] | None:
    """The first cycle among `needs` (job -> jobs it needs), as the path that closes on itself, or None."""
    done: set[str] = set()
    for start in needs:
        path: list[str] = []
        on_path: set[str] = set()
        stack: list[tuple[str, int]] = [(start, 0)]
        while stack:
            name, index = stack.pop()
            if index == 0:
                if name in done:
                    continue
                if name in on_path:
                    return (*path[path.index(name) :], name)
                path.append(name)
                on_path.add(name)
            children = needs.get(name, ())
            if index < len(children):
                stack.append((name, index + 1))
                child = children[index]
                if child in on_path:
                    return (*path[path.index(child) :], child)
                stack.append((child, 0))
            else:
                done.add(name)
                on_path.discard(name)
                path.pop()
    return None
