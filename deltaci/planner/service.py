"""From "this commit of this repository" to a plan: the mirror and the planner together.

Rule: whatever goes wrong leaves here as `PlanFailed` or `PlanUnavailable`, with a text for the people whose run it is.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from deltaci.domain.plan import JOBS_MAX, Plan
from deltaci.forge.git_command import DEFAULT_PROTOCOLS
from deltaci.forge.mirror import Change, CommitView, Mirror, MirrorError, MirrorLimits, Mirrors
from deltaci.planner.errors import PlanFailed, PlanUnavailable
from deltaci.planner.occasion import Occasion
from deltaci.planner.planner import NO_OCCASION, PLAN_MS_DEFAULT, Planner

_NO_COMMIT: Final[Mapping[str, str]] = {
    "": "no base was given",
    "0" * 40: "this is the first push",
    "0" * 64: "this is the first push",
}


class RepositoryPlanner:
    """Plans runs from mirrors below a data directory. Concurrent calls are safe."""

    def __init__(
        self,
        data_directory: Path,
        *,
        limits: MirrorLimits | None = None,
        protocols: str = DEFAULT_PROTOCOLS,
        plan_ms: int = PLAN_MS_DEFAULT,
        jobs_max: int = JOBS_MAX,
    ) -> None:
        """Nothing is read or written yet.

        Args:
            protocols: the transports that clone URLs may use, as in `GIT_ALLOW_PROTOCOL`; leave `file` out where
                people who may not read the server's disk may choose clone URLs.
            plan_ms: the longest that planning takes once the commit is here, milliseconds.
            jobs_max: the jobs of one plan, after expanding matrices.
        """
        self._mirrors = Mirrors(data_directory, limits=limits, protocols=protocols)
        self._planner = Planner(plan_ms=plan_ms, jobs_max=jobs_max)

    async def plan(
        self,
        *,
        repo_id: str,
        clone_url: str,
        commit_sha: str,
        ref: str | None,
        base_sha: str | None = None,
        base_ref: str | None = None,
        is_pull_request: bool = False,
        is_trusted: bool = True,
        authorization: str | None = None,
        occasion: Occasion = NO_OCCASION,
    ) -> Plan:
        """What should run for a commit.

        A push is compared with `base_sha`, the commit before it, if that is an ancestor; after a force push or on a
        new branch the base is unknown and everything runs. A pull request is compared with its merge base with
        `base_sha`, the target's commit.

        Args:
            ref: where the commit was seen (`refs/heads/main`, `refs/pull/7/head`); a hint for fetching.
            base_ref: where `base_sha` was seen, for pull requests; a hint as well.
            is_trusted: False for changes from people who may not write to the repository: then `deltaci.yaml` is
                taken from `base_sha`, which must be known.
            occasion: what brought the run about; it may be a reason to run everything.
            authorization: HTTP Authorization header value for fetching.
        Raises:
            ConfigurationInvalid: `deltaci.yaml` cannot be used; carries all problems.
            PlanFailed: any other reason why there is no plan; the parent of `ConfigurationInvalid`.
            PlanUnavailable: the repository could not be reached or read in time; ask again later.
        """
        try:
            mirror = self._mirrors.of(repo_id=repo_id, clone_url=clone_url, authorization=authorization)
            await mirror.ensure(commit_sha, ref)
            base_sha, unknown_because = await self._base(mirror, base_sha, base_ref)
            configuration_view = await self._configuration(mirror, commit_sha, base_sha, unknown_because, is_trusted)
            start, unknown_because = await self._start(mirror, commit_sha, base_sha, unknown_because, is_pull_request)
            changes, unknown_because = await self._changes(mirror, start, commit_sha, unknown_because)
            return await self._planner.plan(
                await mirror.view(commit_sha),
                changes,
                base_sha=start,
                unknown_because=unknown_because,
                configuration_view=configuration_view,
                occasion=occasion,
            )
        except MirrorError as error:
            if error.is_retryable:
                raise PlanUnavailable(str(error)) from error
            raise PlanFailed(str(error)) from error

    async def _base(self, mirror: Mirror, base_sha: str | None, base_ref: str | None) -> tuple[str | None, str | None]:
        """The base if it can be had, or why it cannot: a base that is gone is normal after a force push."""
        why = _NO_COMMIT.get(base_sha or "")
        if why is not None or base_sha is None:
            return None, why
        try:
            await mirror.ensure(base_sha, base_ref)
        except MirrorError:
            # Not git's words: they differ from one try to the next, and the plan must not.
            return None, f"its base {base_sha} could not be read from the repository"
        return base_sha, None

    async def _configuration(
        self, mirror: Mirror, commit_sha: str, base_sha: str | None, unknown_because: str | None, is_trusted: bool
    ) -> CommitView | None:
        if is_trusted:
            return None
        if base_sha is None:
            text = (
                f"commit {commit_sha} comes from somebody who may not change deltaci.yaml, so it is taken from the base"
            )
            raise PlanFailed(f"{text}, but {unknown_because}; let a maintainer run it, or update the pull request")
        return await mirror.view(base_sha)

    async def _start(
        self, mirror: Mirror, commit_sha: str, base_sha: str | None, unknown_because: str | None, is_pull_request: bool
    ) -> tuple[str | None, str | None]:
        """The commit to compare with."""
        if base_sha is None:
            return None, unknown_because
        start = await mirror.merge_base(base_sha, commit_sha)
        if start is None:
            return None, f"{base_sha} and {commit_sha} have no history in common"
        if not is_pull_request and start != base_sha:
            return None, f"history was rewritten: {base_sha} is not an ancestor of {commit_sha}"
        return start, None

    async def _changes(
        self, mirror: Mirror, start: str | None, commit_sha: str, unknown_because: str | None
    ) -> tuple[tuple[Change, ...] | None, str | None]:
        if start is None:
            return None, unknown_because
        changes = await mirror.diff(start, commit_sha)
        if changes is None:
            return None, f"more than {mirror.limits.changes_max} files changed"
        return changes, None
