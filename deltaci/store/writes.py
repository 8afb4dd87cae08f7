"""What is written: a commit is a sequence of these, and nothing else changes what is stored.

Each says what it raises when it finds other rows than it needs; see the rules of the store port.
"""

from typing import Literal, TypeAlias

import msgspec

from deltaci.domain.blueprint import Blueprint
from deltaci.domain.effects import Effect
from deltaci.domain.events import Cause, JobEvent, RunEvent
from deltaci.domain.job import Job
from deltaci.domain.plan import Plan, PlannedJob
from deltaci.domain.pull_request import PullRequest
from deltaci.domain.recipe import Recipe
from deltaci.domain.repo import Repo
from deltaci.domain.requests import Request
from deltaci.domain.run import Run


class _Write(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    pass


class SaveRun(_Write, frozen=True, kw_only=True):
    """Store `run` and append `events`, numbered `expected_revision` + 1 and on. Revision 0 inserts the first one.

    Raises `RevisionConflict` when another revision is stored, `DuplicateKey(table="run")` when the run's key and
    attempt, or its id, exist already.
    """

    run: Run
    expected_revision: int
    events: tuple[RunEvent, ...]
    cause: Cause


class SaveJob(_Write, frozen=True, kw_only=True):
    """Store `job` and append `events`, numbered `expected_revision` + 1 and on; raises `RevisionConflict`.

    `is_grant`: store it only while its run is not CANCEL_REQUESTED and no job of its concurrency group is held; raises
    `GrantKeptOut`.
    """

    job: Job
    expected_revision: int
    events: tuple[JobEvent, ...]
    cause: Cause
    is_grant: bool = False


class AddJob(_Write, frozen=True, kw_only=True):
    """Insert a new job (revision 1) with what a runner will be told to do, and the ids of the jobs it needs."""

    job: Job
    planned: PlannedJob
    needs: tuple[str, ...]
    events: tuple[JobEvent, ...]
    cause: Cause


class SavePlan(_Write, frozen=True, kw_only=True):
    """Keep the plan of a run; written once."""

    run_id: str
    plan: Plan
    digest: str


class SaveBlueprint(_Write, frozen=True, kw_only=True):
    """Keep what the plan of a run was made from; raises `DuplicateKey(table="blueprint")` when there is one."""

    run_id: str
    blueprint: Blueprint


class DropBlueprint(_Write, frozen=True, kw_only=True):
    """The end of the run was told to the recipes; without effect when that was done before."""

    run_id: str


class SaveRecipe(_Write, frozen=True, kw_only=True):
    """Store a version of a recipe on top of its `revision` - 1; revision 1 inserts it with its `blueprint`.

    With a new version those are forgotten that are `VERSIONS_MAX` or more behind it. Raises `RevisionConflict` when
    another revision is stored, or the version is there already.
    """

    recipe: Recipe
    blueprint: Blueprint | None = None


class Owe(_Write, frozen=True, kw_only=True):
    """Put an effect into the outbox; owing the same key again makes it due at once, with a new generation."""

    effect: Effect
    due_at_ms: int


class Settle(_Write, frozen=True, kw_only=True):
    """The effect was delivered: take it out, unless it was owed anew (its generation moved) in the meantime."""

    key: str
    generation: int


class Postpone(_Write, frozen=True, kw_only=True):
    """The delivery failed: try again at `due_at_ms`, unless it was owed anew in the meantime.

    `is_refused`: it will never work; the row stays, visible, and is not tried again until it is owed anew.
    """

    key: str
    generation: int
    due_at_ms: int
    error: str
    is_refused: bool = False


class Hasten(_Write, frozen=True, kw_only=True):
    """No effect that is not refused waits beyond `latest_at_ms`: whatever was put off further is due then."""

    latest_at_ms: int


class Delivery(_Write, frozen=True, kw_only=True):
    """A webhook's row in the ledger; kept for ever. Exactly one of `run_id`, `ignored` and `request` is set.

    `repo_id` is empty for what is about no repository. `outcome` is what became of the request: half a sentence, None
    until it was acted on. A request whose content was there before is a duplicate, and has its outcome at once.

    Raises `DuplicateKey(table="delivery")` when this repository has a row with this delivery id.
    """

    repo_id: str
    delivery_id: str
    body_sha256: str
    received_at_ms: int
    event: str
    run_id: str | None = None
    ignored: str | None = None
    is_duplicate: bool = False
    request: Request | None = None
    outcome: str | None = None


class DeliveryActed(_Write, frozen=True, kw_only=True):
    """The request of a delivery was acted on, or refused; `outcome` says which, for people."""

    repo_id: str
    delivery_id: str
    outcome: str


class SavePullRequest(_Write, frozen=True, kw_only=True):
    """What is known of a pull request; upserted."""

    pull_request: PullRequest


class SaveRemoteId(_Write, frozen=True, kw_only=True):
    """What the forge calls something of ours; upserted. `key` is `check:<run>:<check>`, `comment:<number>`."""

    repo_id: str
    key: str
    remote_id: str


class Reply(_Write, frozen=True, kw_only=True):
    """The answer to an idempotent request: the same `key` gets the same answer for ever.

    Raises `DuplicateKey(table="reply")` when the key exists.
    """

    key: str
    request_sha256: str
    http_status: int
    body: bytes
    at_ms: int


class LogChunk(_Write, frozen=True, kw_only=True):
    """Bytes of an attempt's log; raises `RevisionConflict` unless `offset` is the stored size and the log is open."""

    job_id: str
    attempt: int
    offset: int
    data: bytes
    at_ms: int
    is_final: bool = False
    crc32: int | None = None


class Audit(_Write, frozen=True, kw_only=True):
    """Something that somebody caused and that is no state change: a refusal, a token made, a repository added."""

    at_ms: int
    cause: Cause
    type: str
    entity_id: str = ""
    details: dict[str, str] = {}


class SaveRepo(_Write, frozen=True, kw_only=True):
    """Insert the repository; raises `DuplicateKey(table="repo")` when its id or name exists."""

    repo: Repo


class ChangeRepo(_Write, frozen=True, kw_only=True):
    """Replace the repository; raises `RevisionConflict` unless the revision before is stored and its name is free."""

    repo: Repo


class Token(_Write, frozen=True, kw_only=True):
    """A bearer token, hashed. `scope` says what it may do."""

    id: str
    token_hash: str
    scope: Literal["admin", "runner"]
    label: str
    created_at_ms: int


class Runner(_Write, frozen=True, kw_only=True):
    """A runner as it registered last; upserted. The pair of token and name is unique."""

    id: str
    token_id: str
    name: str
    labels: tuple[str, ...]
    slots: int
    version: str
    platform: str
    registered_at_ms: int


class Explanation(_Write, frozen=True, kw_only=True):
    """Why an attempt failed; upserted, one an attempt. `evidence` holds redacted log lines."""

    job_id: str
    attempt: int
    category: str
    confidence: float
    summary: str
    evidence: tuple[str, ...]
    next_step: str
    at_ms: int


class Reported(_Write, frozen=True, kw_only=True):
    """What the forge was last told about one check of a run; upserted. `check` is empty for the run itself."""

    run_id: str
    check: str
    digest: str
    at_ms: int


class ArtifactStored(_Write, frozen=True, kw_only=True):
    """An artifact whose bytes are on disk; raises `DuplicateKey(table="artifact")` when the name is taken."""

    job_id: str
    attempt: int
    name: str
    size_bytes: int
    sha256: str
    at_ms: int


Write: TypeAlias = (
    SaveRun
    | SaveJob
    | AddJob
    | SavePlan
    | SaveBlueprint
    | DropBlueprint
    | SaveRecipe
    | Owe
    | Settle
    | Postpone
    | Hasten
    | Delivery
    | DeliveryActed
    | SavePullRequest
    | SaveRemoteId
    | Reply
    | LogChunk
    | Audit
    | SaveRepo
    | ChangeRepo
    | Token
    | Runner
    | Explanation
    | Reported
    | ArtifactStored
)
