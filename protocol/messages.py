"""Every message between a runner and the control plane. The field names are the contract.

Rule 1: both transports (HTTP, one message a request; WebSocket, one message a frame) carry these same structs.
Rule 2: a field added later has a default, so that an older peer's message still decodes.
Rule 3: what a runner sends is an observation; the control plane derives every state from it by itself.

Durations end in `_ms` and are relative: the two hosts never compare clocks.
"""

from typing import Final, Literal, TypeAlias

import msgspec

PROTOCOL_VERSION: Final = 1

Phase: TypeAlias = Literal["starting", "running", "uploading"]
EndReason: TypeAlias = Literal[
    "exited",  # every step ran, or one exited non-zero: `exit_code` tells which
    "job_timeout",  # the job's own time ran out; the process group was killed
    "canceled",  # a cancel was obeyed
    "checkout_failed",  # the commit could not be fetched: infrastructure, not the user's fault
    "runner_error",  # the runner itself failed (disk, fork, ...)
    "runner_stopped",  # the runner is shutting down and gave the job back
]


class _Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type", tag=True, gc=False):
    """Base of all messages: immutable, tagged by class name in the field `type`; no cycles, so nothing to collect."""


class _Fenced(_Message, frozen=True, kw_only=True):
    """A message about one attempt, fenced by the lease that gives the right to send it."""

    lease_id: str
    job_id: str
    attempt: int


# ---- what is to be done ------------------------------------------------------------------------------------------


class Step(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One shell script of a job, run by `sh -e`-like `shell` in `workdir` below the checkout."""

    name: str
    run: str
    env: dict[str, str] = {}
    workdir: str = "."


class Artifact(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Files to keep after the steps, whatever their result: globs relative to the checkout."""

    name: str
    paths: tuple[str, ...]


class Cache(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Directories to restore before and to save after a successful job, under a deterministic key.

    `is_read_only` caches are restored and never saved: code from a fork must not feed later jobs.
    """

    key: str
    paths: tuple[str, ...]
    is_read_only: bool = False


class JobSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All a runner needs to execute one attempt. It holds no token of the control plane.

    `has_credential`: the repository may be private; `AskCredential` gets what to fetch it with, right before fetching.
    Not `is_trusted`: code of somebody who may not write to the repository, which gets nothing that is a secret.
    """

    name: str
    repo: str
    clone_url: str
    commit_sha: str
    ref: str
    steps: tuple[Step, ...]
    env: dict[str, str] = {}
    timeout_ms: int = 3_600_000
    artifacts: tuple[Artifact, ...] = ()
    caches: tuple[Cache, ...] = ()
    log_bytes_max: int = 64 * 1024 * 1024
    has_credential: bool = False
    is_trusted: bool = True


# ---- runner -> control plane -------------------------------------------------------------------------------------


class Register(_Message, frozen=True, kw_only=True):
    """First message of a runner; the same token and name always give the same runner id."""

    name: str
    labels: tuple[str, ...] = ()
    slots: int = 1
    version: str = ""
    platform: str = ""
    protocol_version: int = PROTOCOL_VERSION


class Lease(_Message, frozen=True, kw_only=True):
    """Ask for up to `slots` attempts; the answer is held up to `wait_ms` when there is nothing to do."""

    runner_id: str
    slots: int = 1
    wait_ms: int = 0


class AckLease(_Fenced, frozen=True, kw_only=True):
    """The runner holds the lease and starts. Without it the lease is revoked after the acknowledgement window."""


class AskCredential(_Fenced, frozen=True, kw_only=True):
    """The holder is about to fetch: what may it do that with? Only for a job that `has_credential`."""


class Heartbeat(_Fenced, frozen=True, kw_only=True):
    """The holder lives. `phase` is what it observes; `step` counts from 0."""

    phase: Phase = "running"
    step: int | None = None


class AppendLog(_Fenced, frozen=True, kw_only=True):
    """Bytes of the attempt's log at `offset`. `is_final` closes the log; `crc32` then covers all of it."""

    offset: int
    data: bytes = b""
    is_final: bool = False
    crc32: int | None = None


class StepResult(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of one step; `exit_code` is None if it never ended by itself."""

    name: str
    exit_code: int | None = None
    duration_ms: int = 0


class Complete(_Fenced, frozen=True, kw_only=True):
    """The attempt is over; resent until a definite answer arrives. Equal content gets the equal answer for ever."""

    reason: EndReason = "exited"
    exit_code: int | None = None
    message: str = ""
    steps: tuple[StepResult, ...] = ()
    log_size: int = 0
    log_crc32: int = 0


class CancelAck(_Fenced, frozen=True, kw_only=True):
    """The cancel was obeyed: no process of the attempt is left."""


# ---- control plane -> runner -------------------------------------------------------------------------------------


class Registered(_Message, frozen=True, kw_only=True):
    """The runner is known; the server's settings for it."""

    runner_id: str
    lease_ttl_ms: int = 120_000
    heartbeat_ms: int = 20_000
    ack_within_ms: int = 30_000
    cancel_within_ms: int = 30_000
    lease_wait_ms: int = 20_000
    log_chunk_bytes_max: int = 256 * 1024
    artifact_bytes_max: int = 1024 * 1024 * 1024


class LeaseGranted(_Fenced, frozen=True, kw_only=True):
    """The right to execute one attempt. Acknowledge it within `ack_within_ms` or lose it."""

    run_id: str
    job: JobSpec
    expires_in_ms: int
    ack_within_ms: int


class Leases(_Message, frozen=True, kw_only=True):
    """Answer to `Lease`: none, or up to the number of slots asked for."""

    leases: tuple[LeaseGranted, ...] = ()


class LeaseAcked(_Fenced, frozen=True, kw_only=True):
    """Answer to `AckLease`: go."""

    expires_in_ms: int


class CredentialGiven(_Fenced, frozen=True, kw_only=True):
    """Answer to `AskCredential`: reads the job's repository over http(s), nothing else, for `expires_in_ms` (None: it
    does not say). Both are empty if there is none to give, because none is needed or for the reason `withheld_because`:
    a public repository can be fetched all the same. For git's memory alone: never written, logged or passed on.
    """

    username: str = ""
    password: str = ""
    expires_in_ms: int | None = None
    withheld_because: str = ""

    def __repr__(self) -> str:
        """Without the password: whoever logs an answer logs no secret."""
        return f"CredentialGiven(job_id={self.job_id!r}, attempt={self.attempt}, username={self.username!r})"


class HeartbeatAck(_Fenced, frozen=True, kw_only=True):
    """Answer to `Heartbeat`: the lease is renewed, and a cancel may be pending."""

    expires_in_ms: int
    is_cancel_requested: bool = False
    cancel_within_ms: int = 0


class LogAck(_Fenced, frozen=True, kw_only=True):
    """Everything before `size` is on disk."""

    size: int


class LogGap(_Fenced, frozen=True, kw_only=True):
    """The chunk does not continue the log: go on from `size` (HTTP 416)."""

    size: int


class CompleteAck(_Fenced, frozen=True, kw_only=True):
    """Definite answer to `Complete` and `CancelAck`: the attempt is final in `state`."""

    state: str


class StaleLease(_Fenced, frozen=True, kw_only=True):
    """The lease is not the current one: stop at once, nothing you send about it counts (HTTP 409)."""

    reason: str = ""


class CancelRequested(_Fenced, frozen=True, kw_only=True):
    """Pushed over the WebSocket (id 0): stop the attempt within `cancel_within_ms`, then send `CancelAck`."""

    cancel_within_ms: int


class Failure(_Message, frozen=True, kw_only=True):
    """A structured error: what was asked, why it was refused, and when to ask again."""

    code: str
    message: str
    details: dict[str, str] = {}
    http_status: int = 400
    retry_after_ms: int | None = None


RunnerMessage: TypeAlias = Register | Lease | AckLease | AskCredential | Heartbeat | AppendLog | Complete | CancelAck
ServerMessage: TypeAlias = (
    Registered
    | Leases
    | LeaseAcked
    | CredentialGiven
    | HeartbeatAck
    | LogAck
    | LogGap
    | CompleteAck
    | StaleLease
    | CancelRequested
    | Failure
)


class Request(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One WebSocket frame from the runner; `id` counts from 1 and comes back with the answer."""

    id: int
    body: RunnerMessage


class Answer(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One WebSocket frame to the runner; id 0 marks what was pushed without a request."""

    id: int
    body: ServerMessage
