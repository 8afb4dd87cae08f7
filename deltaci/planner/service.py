"""From "this commit of this repository" to a plan: the mirror fetches, a process of its own reads and plans.

Rule 1: what needs the network or a secret is done here; what reads contents of a repository is done there.
Rule 2: whatever goes wrong leaves here as `PlanFailed` or `PlanUnavailable`, with a text for those whose run it is.
"""

from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec
from loguru import logger

from deltaci.domain.plan import JOBS_MAX, Plan
from deltaci.domain.recipe import Recipe
from deltaci.forge.git_command import DEFAULT_PROTOCOLS
from deltaci.forge.local import MirrorError
from deltaci.forge.mirror import Authorize, Mirror, Mirrors
from deltaci.planner.bounds import Bounds
from deltaci.planner.difference import no_base
from deltaci.planner.errors import ConfigurationInvalid, PlanFailed, PlanUnavailable
from deltaci.planner.messages import Failed, Planned, Reply, Request, Start, Unreadable, Wants
from deltaci.planner.occasion import NO_OCCASION, Occasion
from deltaci.planner.pool import Workers
from deltaci.planner.remote import Asked, AtForge, NotTold, Reading, Told

# A configuration, manifests, the locks before and after, and their manifests: one round each, and some to spare.
_ROUNDS_MAX: Final = 8


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
        self._bounds: Final = bounds or Bounds()
        bounds = self._bounds
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
        authorize: Authorize | None = None,
        at_forge: AtForge | None = None,
        recipe: Recipe | None = None,
        has_a_say: bool = False,
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
            authorize: asked before each fetch for the HTTP Authorization header value.
            at_forge: asked instead of reading a clone if the setting says so and there is no mirror yet.
            recipe: the newest one of the repository; used while discovery finds the same.
            has_a_say: whether the run may make a recipe; then the plan has the blueprint for it.
            occasion: what brought the run about; it may be a reason to run everything.
        Raises:
            ConfigurationInvalid: `deltaci.yaml` cannot be used; carries all problems.
            PlanFailed: any other reason why there is no plan; the parent of `ConfigurationInvalid`.
            PlanUnavailable: the repository could not be reached or read in time; ask again later.
        """
        asked = Asked(commit_sha=commit_sha, base_sha=base_sha, is_pull_request=is_pull_request, is_trusted=is_trusted)
        reading = Reading(at_forge, asked, self._bounds) if at_forge is not None else None
        try:
            mirror = self._mirrors.of(repo_id=repo_id, clone_url=clone_url, authorize=authorize)
            mirror.local().check_sha(commit_sha)
            request = Request(
                number=0,
                directory=str(mirror.directory),
                repo_id=repo_id,
                commit_sha=commit_sha,
                is_pull_request=is_pull_request,
                recipe=recipe,
                has_a_say=has_a_say,
                occasion=occasion,
            )
            is_by_name = not base_sha and base_ref is not None  # what that names, the repository itself tells
            if reading is not None and self._bounds.source == "api" and not (is_by_name or mirror.is_filled()):
                try:
                    return await self._plan_without_a_clone(reading, asked, request)
                except NotTold as error:
                    logger.info("commit {} of repository {} is read from a clone: {}", commit_sha, repo_id, error)
            return await self._plan_of_clone(mirror, asked, request, ref=ref, base_ref=base_ref)
        except MirrorError as error:
            if error.is_retryable:
                raise PlanUnavailable(str(error), retry_after_ms=error.retry_after_ms) from error
            if reading is not None and reading.told.lacking:
                with suppress(NotTold):
                    return await self._plan_without_a_base(reading, asked, request)
            raise PlanFailed(str(error)) from error

    async def _plan_of_clone(
        self, mirror: Mirror, asked: Asked, request: Request, *, ref: str | None, base_ref: str | None
    ) -> Plan:
        await mirror.ensure(asked.commit_sha, ref)
        base_sha, unknown_because = await self._base(mirror, asked.base_sha, base_ref)
        request = msgspec.structs.replace(
            request,
            base_sha=base_sha,
            unknown_because=unknown_because,
            configuration_sha=_configuration(asked, base_sha, unknown_because),
        )
        return await self._ask(mirror, request)

    async def _plan_without_a_clone(self, reading: Reading, asked: Asked, request: Request) -> Plan:
        """Raises NotTold if the forge does not tell all that it takes, and what `plan` raises."""
        told = await reading.tell()
        if told.lacking:
            raise NotTold(told.lacking)
        return await self._converse(reading, told, asked, request)

    async def _plan_without_a_base(self, reading: Reading, asked: Asked, request: Request) -> Plan:
        """Neither forge nor clone tells what changed, and the clone never will: everything runs."""
        text = f"the difference to {asked.base_sha} is unknown: {reading.told.lacking}"
        told = Told(files=reading.told.files, base=reading.told.base, unknown_because=text)
        return await self._converse(reading, told, asked, request)

    async def _converse(self, reading: Reading, told: Told, asked: Asked, request: Request) -> Plan:
        """Have it planned, with the contents that turn out to be needed. Raises NotTold."""
        files, unknown_because = told.remote(self._bounds.changes_max)
        is_based = no_base(asked.base_sha) is None and (asked.is_trusted or told.base is not None)
        request = msgspec.structs.replace(
            request,
            base_sha=told.start_sha,
            unknown_because=unknown_because,
            configuration_sha=_configuration(asked, asked.base_sha if is_based else None, unknown_because),
            remote=files,
        )
        for _ in range(_ROUNDS_MAX):
            reply = await self.workers.ask(request)
            if not isinstance(reply, Wants):
                return _plan_in(reply)
            blobs = {**files.blobs, **await reading.read(reply)}
            files = msgspec.structs.replace(files, blobs=blobs)
            request = msgspec.structs.replace(request, remote=files)
        raise NotTold(f"more than {_ROUNDS_MAX} rounds of files would be read")

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
        why = no_base(base_sha)
        if why is not None or base_sha is None:
            return None, why
        try:
            await mirror.ensure(base_sha, base_ref)
        except MirrorError:
            # Not git's words: they differ from one try to the next, and the plan must not.
            return None, f"its base {base_sha} could not be read from the repository"
        return base_sha, None

    async def _ask(self, mirror: Mirror | None, request: Request) -> Plan:
        reply = await self.workers.ask(request)
        if isinstance(reply, Unreadable) and reply.is_damaged and mirror is not None:
            await mirror.discard()
        return _plan_in(reply)


def _plan_in(reply: Reply) -> Plan:
    """Raises what there is instead of one."""
    match reply:
        case Planned(plan=plan):
            return plan
        case Failed(text=text, problems=problems, is_configuration=is_configuration):
            raise ConfigurationInvalid(problems) if is_configuration else PlanFailed(text, problems)
        case Unreadable(text=text, is_retryable=is_retryable):
            raise PlanUnavailable(text) if is_retryable else PlanFailed(text)
        case Wants():
            raise PlanFailed("the process that plans asked for files of a repository that it has; please report it")


def _configuration(asked: Asked, base_sha: str | None, unknown_because: str | None) -> str | None:
    """The commit whose `deltaci.yaml` counts, if it is not the commit itself. Raises PlanFailed if there is none."""
    if asked.is_trusted or base_sha is not None:
        return None if asked.is_trusted else base_sha
    text = (
        f"commit {asked.commit_sha} comes from somebody who may not change deltaci.yaml, so it is taken from the base"
    )
    raise PlanFailed(f"{text}, but {unknown_because}; let a maintainer run it, or update the pull request")
