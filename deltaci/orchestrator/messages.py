"""What the orchestrator's actors tell and ask each other, around the commands of the domain."""

from collections.abc import Mapping
from typing import Any, Generic, TypeAlias, TypeVar

import msgspec

from deltaci.domain.effects import Effect
from deltaci.domain.events import Cause, Trigger
from deltaci.domain.job import GrantLease, Job, JobCommand
from deltaci.domain.machine import Refusal
from deltaci.domain.plan import Plan, PlannedJob
from deltaci.domain.pull_request import PullRequest
from deltaci.domain.requests import Request
from deltaci.domain.run import JobSeen, RunCommand
from deltaci.store.port import QueuedJob
from deltaci.store.writes import Reply

T = TypeVar("T")


class _Message(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    pass


class Accepted(msgspec.Struct, Generic[T], frozen=True, gc=False):
    """The command stands in the store, now or since an earlier time; `state` is the committed one."""

    state: T


Answer: TypeAlias = Accepted[T] | Refusal


class Due(_Message, frozen=True, kw_only=True):
    """To a run or a job: the deadline that stands in the store has passed."""


class Wake(_Message, frozen=True, kw_only=True):
    """To a keeper: time has passed, or something was owed; see what is due. `kind` narrows it to one kind of effect."""

    kind: type[Effect] | None = None


# ---- to a job ----------------------------------------------------------------------------------------------------


class DoJob(_Message, frozen=True, kw_only=True):
    """A command of the job machine, and who brought it about. Answered with `Answer[Job]`."""

    command: JobCommand
    cause: Cause


class Grant(_Message, frozen=True, kw_only=True):
    """Give the job to a runner. Answered with `Granted` or a refusal; `lease_id` is the secret behind the hash."""

    command: GrantLease
    lease_id: str
    cause: Cause


class Granted(_Message, frozen=True, kw_only=True):
    """The lease is stored; `planned` is what the runner is to do."""

    job: Job
    planned: PlannedJob


class AppendLog(_Message, frozen=True, kw_only=True):
    """Bytes of an attempt's log, fenced by its lease. Answered with `LogStored` or a refusal."""

    attempt: int
    lease_hash: str
    runner_id: str
    offset: int
    data: bytes
    is_final: bool = False
    crc32: int | None = None


class LogStored(_Message, frozen=True, kw_only=True):
    """Everything before `size` is on disk; `is_gap`: the chunk is not, because it does not continue the log."""

    size: int
    is_gap: bool = False


class CheckHolder(_Message, frozen=True, kw_only=True):
    """Is this the current lease's holder? Answered with `Answer[Job]`; changes nothing."""

    attempt: int
    lease_hash: str
    runner_id: str


# ---- to a run ----------------------------------------------------------------------------------------------------


class DoRun(_Message, frozen=True, kw_only=True):
    """A command of the run machine, and who brought it about. Answered with `Answer[Run]`."""

    command: RunCommand
    cause: Cause


class UsePlan(_Message, frozen=True, kw_only=True):
    """The planner's answer: create the jobs. Answered with `Answer[Run]`."""

    plan: Plan


class JobMoved(_Message, frozen=True, kw_only=True):
    """A job of the run was stored in another state."""

    job_id: str
    revision: int
    seen: JobSeen


class Look(_Message, frozen=True, kw_only=True):
    """Load again and do what is due: a wake-up was missed, or may have been."""


# ---- to a repository ---------------------------------------------------------------------------------------------


class Admit(_Message, frozen=True, kw_only=True):
    """An authentic webhook: make it a run, or find the run that it already is. Answered with `Admitted`."""

    delivery_id: str
    body_sha256: str
    event: str
    trigger: Trigger | None = None
    request: Request | None = None
    ignored: str | None = None
    pull_request: PullRequest | None = None


class Admitted(_Message, frozen=True, kw_only=True):
    """What a webhook became: a run, nothing with a reason, or a request in words. Equal ones get equal answers."""

    run_id: str | None
    is_duplicate: bool
    ignored: str | None
    accepted: str | None = None


class StartRun(_Message, frozen=True, kw_only=True):
    """A person asks for a run of a commit. Answered with the `Reply` kept under `reply_key`, or a refusal."""

    trigger: Trigger
    cause: Cause
    reply_key: str
    request_sha256: str


class Rerun(_Message, frozen=True, kw_only=True):
    """A person asks for a new attempt of a run. Answered with the `Reply` kept under `reply_key`, or a refusal.

    `job_id`: that job of it, with what depends on it and what did not succeed.
    """

    run_id: str
    is_failed_only: bool
    job_id: str = ""
    cause: Cause
    reply_key: str
    request_sha256: str


class Alter(_Message, frozen=True, kw_only=True):
    """Change fields of the repository. Answered with the `Repo` as it is then, or an error that says why not.

    `what` is the type of the audit record, `details` what it tells: no secret. `delivery_id`: the request that this is,
    whose `outcome` is stored with it.
    """

    changes: Mapping[str, Any]
    what: str
    details: dict[str, str]
    cause: Cause
    delivery_id: str = ""
    outcome: str = ""


class Supersede(_Message, frozen=True, kw_only=True):
    """Cancel what a newer run of the same stream made superfluous."""

    stream: str
    newer_run_id: str


# ---- to dispatch -------------------------------------------------------------------------------------------------


class Queued(_Message, frozen=True, kw_only=True):
    """These jobs wait for a runner."""

    jobs: tuple[QueuedJob, ...]


class Held(_Message, frozen=True, kw_only=True):
    """A runner holds the job."""

    job_id: str
    repo_id: str
    concurrency: str = ""


class Gone(_Message, frozen=True, kw_only=True):
    """The job ended."""

    job_id: str


__all__ = [
    "Accepted",
    "Admit",
    "Admitted",
    "Alter",
    "Answer",
    "AppendLog",
    "CheckHolder",
    "DoJob",
    "DoRun",
    "Due",
    "Gone",
    "Grant",
    "Granted",
    "Held",
    "JobMoved",
    "LogStored",
    "Look",
    "Queued",
    "Reply",
    "Rerun",
    "StartRun",
    "Supersede",
    "UsePlan",
    "Wake",
]
