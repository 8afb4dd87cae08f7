"""From "this commit of this repository" to a plan: the mirror fetches, a process of its own reads and plans.

Rule 1: what needs the network or a secret is done here; what reads contents of a repository is done there.
Rule 2: whatever goes wrong leaves here as `PlanFailed` or `PlanUnavailable`, with a text for those whose run it is.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from deltaci.domain.plan import JOBS_MAX, Plan
from deltaci.domain.recipe import Kept
from deltaci.forge.git_command import DEFAULT_PROTOCOLS
from deltaci.forge.local import MirrorError
from deltaci.forge.mirror import Mirror, Mirrors
from deltaci.planner.bounds import Bounds
from deltaci.planner.errors import ConfigurationInvalid, PlanFailed, PlanUnavailable
from deltaci.planner.messages import Failed, Planned, Request, Start, Unreadable
from deltaci.planner.occasion import NO_OCCASION, Occasion
from deltaci.planner.pool import Workers

_NO_COMMIT: Final[Mapping[str, str]] = {
    "": "no base was given",
    "0" * 40: "this is the first push",
    "0" * 64: "this is the first push",
}


class RepositoryPlanner:
    """Plans runs from mirrors below a data directory. Concurrent calls are safe; `close` ends its processes."""

    def __init__(
        self,
        data_directory: Path,
        *,
        bounds: Bounds | None = None,
        protocols: str = DEFAULT_PROTOCOLS,
        jobs_max: int = JOBS_MAX,
    ) -> None:
        """Nothing is read, written or started yet.

        Args:
            bounds: what planning may use; the time is that of planning once the commit is here.
            protocols: the transports that clone URLs may use, as in `GIT_ALLOW_PROTOCOL`; leave `file` out where
                people who may not read the server's disk may choose clone URLs.
            jobs_max: the jobs of one plan, after expanding matrices.
        """
        bounds = bounds or Bounds()
        limits = bounds.of_mirrors()
        self._mirrors = Mirrors(data_directory, limits=limits, protocols=protocols)
        start = Start(
            memory_bytes_max=bounds.memory_bytes_max,
            cache_bytes_max=bounds.cache_bytes_max,
            jobs_max=jobs_max,
            limits=limits,
        )
        self.workers: Final = Workers(start, workers_max=bounds.workers_max, plan_ms=bounds.plan_ms)

    def close(self) -> None:
        """End the processes that plan; blocks for a moment."""
        self.workers.close()

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
        recipe: Kept | None = None,
        occasion: Occasion = NO_OCCASION,
    ) -> Plan:
        """What should run for a commit.

        A push is compared with `base_sha`, the commit before it, if that is an ancestor; after a force push or on a
        new branch the base is unknown and everything runs. A pull request is compared with its merge base with
        `base_sha`, the target's commit.

        Args:
            ref: where the commit was seen (`refs/heads/main`, `refs/pull/7/head`); a hint for fetching.
            base_ref: where `base_sha` was seen, for pull requests; a hint as well. Without `base_sha`, the commit that
                it names now is taken.
            is_trusted: False for changes from people who may not write to the repository: then `deltaci.yaml` is
                taken from `base_sha`, which must be known.
            authorization: HTTP Authorization header value for fetching.
            recipe: the newest one of the repository, used instead of discovery while its fingerprint holds.
            occasion: what brought the run about; it may be a reason to run everything.
        Raises:
            ConfigurationInvalid: `deltaci.yaml` cannot be used; carries all problems.
            PlanFailed: any other reason why there is no plan; the parent of `ConfigurationInvalid`.
            PlanUnavailable: the repository could not be reached or read in time; ask again later.
        """
        try:
            mirror = self._mirrors.of(repo_id=repo_id, clone_url=clone_url, authorization=authorization)
            await mirror.ensure(commit_sha, ref)
            base_sha, unknown_because = await self._base(mirror, base_sha, base_ref)
            request = Request(
                number=0,
                directory=str(mirror.directory),
                repo_id=repo_id,
                commit_sha=commit_sha,
                base_sha=base_sha,
                unknown_because=unknown_because,
                configuration_sha=_configuration(commit_sha, base_sha, unknown_because, is_trusted),
                is_pull_request=is_pull_request,
                recipe=recipe,
                occasion=occasion,
            )
            return await self._ask(mirror, request)
        except MirrorError as error:
            if error.is_retryable:
                raise PlanUnavailable(str(error)) from error
            raise PlanFailed(str(error)) from error

    async def plan_here(
        self, git_dir: Path, *, commit_sha: str, base_sha: str | None, work_tree: Path | None = None
    ) -> Plan:
        """What should run for a commit of a repository on this machine, compared as a pull request is.

        Nothing is fetched or written.

        Args:
            git_dir: the repository, or the `.git` of a working copy; it is read and never written.
            base_sha: None if there is nothing to compare with: then everything runs.
            work_tree: plan its files as they are now, on top of the commit; `git_dir` is its `.git`.
        Raises:
            ConfigurationInvalid, PlanFailed, PlanUnavailable: as `plan`.
        """
        request = Request(
            number=0,
            directory=str(git_dir),
            repo_id=git_dir.name,
            commit_sha=commit_sha,
            base_sha=base_sha,
            unknown_because="no base was given" if base_sha is None else None,
            is_pull_request=True,
            work_tree=None if work_tree is None else str(work_tree),
        )
        return await self._ask(None, request)

    async def _base(self, mirror: Mirror, base_sha: str | None, base_ref: str | None) -> tuple[str | None, str | None]:
        """The base if it can be had, or why it cannot: a base that is gone is normal after a force push."""
        if not base_sha and base_ref:
            try:
                return await mirror.tip(base_ref), None
            except MirrorError:
                return None, f"its base {base_ref} could not be read from the repository"
        why = _NO_COMMIT.get(base_sha or "")
        if why is not None or base_sha is None:
            return None, why
        try:
            await mirror.ensure(base_sha, base_ref)
        except MirrorError:
            # Not git's words: they differ from one try to the next, and the plan must not.
            return None, f"its base {base_sha} could not be read from the repository"
        return base_sha, None

    async def _ask(self, mirror: Mirror | None, request: Request) -> Plan:
        match await self.workers.ask(request):
            case Planned(plan=plan):
                return plan
            case Failed(text=text, problems=problems, is_configuration=is_configuration):
                raise ConfigurationInvalid(problems) if is_configuration else PlanFailed(text, problems)
            case Unreadable(text=text, is_retryable=is_retryable, is_damaged=is_damaged):
                if is_damaged and mirror is not None:
                    await mirror.discard()
                raise PlanUnavailable(text) if is_retryable else PlanFailed(text)


def _configuration(commit_sha: str, base_sha: str | None, unknown_because: str | None, is_trusted: bool) -> str | None:
    """The commit whose `deltaci.yaml` counts, if it is not the commit itself. Raises PlanFailed if there is none."""
    if is_trusted or base_sha is not None:
        return None if is_trusted else base_sha
    text = f"commit {commit_sha} comes from somebody who may not change deltaci.yaml, so it is taken from the base"
    raise PlanFailed(f"{text}, but {unknown_because}; let a maintainer run it, or update the pull request")
