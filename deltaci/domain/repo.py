"""A repository as the control plane knows it, and what its triggers become.

Rule 1: the run key decides what is the same; a delivery id or a digest seen before is answered, never acted on again.
Rule 2: a key whose last run was superseded, or ended with its pull request or branch, may run again: its commit has
        become current once more.
"""

from typing import Final, Literal

import msgspec

from deltaci.domain.events import RunKey, Trigger
from deltaci.domain.states import EndReason, RunState

Forge = Literal["git", "github", "gitlab", "gitea"]
# Whose pull requests wait until somebody with the right lets them run: nobody's, those of strangers, of every fork.
Approval = Literal["none", "first_time", "forks"]
# Ends that say nothing about the commit: it was not wanted any more, and may be wanted again.
PASSED: Final = frozenset({EndReason.SUPERSEDED, EndReason.CLOSED})


class Repo(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A registered repository. `secret` and `api_token` never leave the process.

    `report_to`: where the `git` forge writes results (a file path or an http(s) address), or the base address of the
    forge's API; empty: nowhere. `default_branch`: only pushes to it make recipes.
    `previous_secret` still signs while the forge's secret is changed. `installation_id`: that of our GitHub App, whose
    key takes the place of `api_token`. `is_one_run_a_commit`: a push to a branch whose pull request is open starts
    nothing, the pull request does. `watched`: branches (globs) whose heads are compared with what we know, besides the
    default one. `removed_because`: why it is not ours to build any more; empty as long as it is.
    """

    id: str
    name: str
    forge: Forge
    clone_url: str
    secret: str
    created_at_ms: int
    report_to: str = ""
    api_token: str = ""
    is_superseding: bool = True
    running_max: int = 0
    run_timeout_ms: int = 6 * 3_600_000
    default_branch: str = "main"
    previous_secret: str = ""
    installation_id: int = 0
    is_one_run_a_commit: bool = False
    watched: tuple[str, ...] = ()
    approval: Approval = "none"
    removed_because: str = ""
    revision: int = 1


class Latest(msgspec.Struct, frozen=True):
    """What is stored of the newest run attempt under a key."""

    run_id: str
    attempt: int
    state: RunState
    end_reason: EndReason | None = None
    cancel_reason: EndReason | None = None


class StartRun(msgspec.Struct, frozen=True):
    """Create this run attempt."""

    attempt: int


class SameRun(msgspec.Struct, frozen=True):
    """It is this run already."""

    run_id: str


def is_reported(repo: Repo) -> bool:
    """Whether its results go anywhere: plain git needs to be told where, other forges with what right."""
    return bool(repo.report_to) or (repo.forge != "git" and bool(repo.api_token or repo.installation_id))


def run_key(repo_id: str, trigger: Trigger) -> RunKey:
    """The deterministic key of the run that `trigger` asks for."""
    return RunKey(repo_id, trigger.commit_sha, trigger.kind, trigger.pr_number)


def admit(latest: Latest | None) -> StartRun | SameRun:
    """What a trigger becomes whose content was never seen, given the newest run attempt under its key."""
    if latest is None:
        return StartRun(1)
    if PASSED & {latest.end_reason, latest.cancel_reason}:
        return StartRun(latest.attempt + 1)
    return SameRun(latest.run_id)
