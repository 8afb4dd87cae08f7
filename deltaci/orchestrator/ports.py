"""What the orchestrator needs from the other rooms. It declares the shapes; `wiring.py` alone knows who fills them."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec

from deltaci.domain.clock import Clock, Entropy
from deltaci.domain.clone_credential import Credential
from deltaci.domain.errors import ForgeRejected
from deltaci.domain.events import JobEvent, RunEvent
from deltaci.domain.plan import Plan
from deltaci.domain.repo import Repo
from deltaci.domain.requests import Right
from deltaci.domain.run import Run
from deltaci.orchestrator.presence import Presence
from deltaci.store.port import Store
from deltaci.store.space import endless
from deltaci.store.writes import Explanation
from protocol.messages import ServerMessage


class Planner(Protocol):
    """Decides what should run."""

    async def plan(self, run: Run, repo: Repo) -> Plan:
        """The plan for the run's trigger; raises `PlanFailed` with a text for the author of the change."""
        ...


class Analyzer(Protocol):
    """Explains a failed attempt; changes no state."""

    async def explain(self, job_id: str, attempt: int, now_ms: int) -> Explanation:
        """Class, confidence, evidence and next step of an attempt that did not succeed."""
        ...


class Reporter(Protocol):
    """Brings the forge to what is committed."""

    async def report(self, run_id: str) -> None:
        """Report what differs; raises `ForgeUnavailable` (again later) or `ForgeRejected` (never)."""
        ...


class Credentials(Protocol):
    """Gets what repositories are fetched with, each time anew."""

    def is_asked(self, repo: Repo) -> bool:
        """Whether there may be one for the repository; asks nobody."""
        ...

    async def of(self, repo: Repo) -> Credential | None:
        """What to fetch with now, None if nothing is needed; raises `ForgeUnavailable` or `ForgeRejected`."""
        ...


class NoCredentials:
    """No repository needs any."""

    def is_asked(self, _repo: Repo) -> bool:
        """Never."""
        return False

    async def of(self, _repo: Repo) -> Credential | None:
        """None."""
        return None


class Rights(Protocol):
    """What people may do, by the rules of one kind of forge."""

    async def right_of(self, repo: Repo, login: str) -> Right:
        """What a person may do in the repository; raises `ForgeUnavailable` (again later) or `ForgeRejected`."""
        ...


class AppHome(msgspec.Struct, frozen=True, kw_only=True):
    """Where the repositories are that an installation of our GitHub App brings: to clone them, and to tell results."""

    web_url: str = "https://github.com"
    api_url: str = "https://api.github.com"


class Notifier(Protocol):
    """Tells people that a run is over."""

    async def notify(self, run_id: str) -> None:
        """Tell each channel that its plan names; raises `ForgeUnavailable` (again later) or `ForgeRejected` (never)."""
        ...


class NoChannels:
    """The notifier of a server that knows no channel."""

    async def notify(self, run_id: str) -> None:
        """Refused, so that it can be seen."""
        raise ForgeRejected(
            f"cannot tell anybody that run {run_id} is over: this server knows no channel; name their file in the "
            "setting notifications.channels_file, or take 'notify' out of deltaci.yaml"
        )


class Observer(Protocol):
    """Hears of everything that was committed; metrics are made from it and from nothing else."""

    def committed(self, events: Sequence[RunEvent | JobEvent]) -> None:
        """These events are on disk."""
        ...

    def refused(self, command: str, why: str) -> None:
        """A command was refused."""
        ...

    def waited(self, wait_ms: int) -> None:
        """An attempt was leased after having been queued for `wait_ms`."""
        ...

    def missed(self, what: str) -> None:
        """A reconciler found something that a notification should have told."""
        ...


class Tell(Protocol):
    """Notifies the actor at a path; never raises: a reconciler finds what did not arrive."""

    def __call__(self, path: str, message: Any) -> None: ...


class Push(Protocol):
    """Sends a message to a connected runner; False if it is not connected."""

    def __call__(self, runner_id: str, message: ServerMessage) -> bool: ...


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """Times and bounds of the orchestrator; durations in milliseconds. Each is a setting."""

    lease_ttl_ms: int = 120_000
    heartbeat_ms: int = 20_000
    ack_within_ms: int = 30_000
    cancel_within_ms: int = 30_000
    lease_wait_ms: int = 20_000
    approval_within_ms: int = 7 * 24 * 3_600_000
    timer_tick_ms: int = 250
    reconcile_every_ms: int = 5_000
    forge_look_every_ms: int = 300_000
    forge_settled_ms: int = 60_000
    effect_retry_first_ms: int = 1_000
    effect_retry_max_ms: int = 300_000
    plan_tries_max: int = 3
    fetch_tries_max: int = 9
    plan_within_ms: int = 300_000
    plans_at_once: int = 4
    analyses_at_once: int = 2
    reports_at_once: int = 8
    deliveries_at_once: int = 4
    runner_silent_after_ms: int = 90_000
    jobs_max: int = 1_000
    log_bytes_max: int = 64 * 1024 * 1024
    log_chunk_bytes_max: int = 256 * 1024
    artifact_bytes_max: int = 1024 * 1024 * 1024
    disk_reserve_bytes: int = 128 * 1024 * 1024
    mailbox_size: int = 2_000
    passivate_after_ms: int = 60_000
    ask_timeout_ms: int = 20_000
    store_patience_ms: int = 300_000


class Ports(msgspec.Struct, frozen=True, kw_only=True):
    """Everything impure that an actor of the orchestrator may touch.

    `is_reported`: whether results of this repository go anywhere; what is owed to nobody is not owed.
    `began_at_ms`: when this life of the server began.
    `presence`: for how long this process was not there to listen.
    `running_max`: how many jobs of this repository may run at once; 0: any number.
    `repos`: every repository as it is committed; `repo_changed`: it is committed so now.
    `has_room`: whether so many more bytes of a log leave the space that state needs.
    `credentials`: what runners fetch private repositories with.
    """

    store: Store
    clock: Clock
    entropy: Entropy
    policy: Policy
    presence: Presence
    observer: Observer
    tell: Tell
    push: Push
    is_reported: Callable[[str], bool]
    running_max: Callable[[str], int]
    repos: Callable[[], tuple[Repo, ...]]
    repo_changed: Callable[[Repo], None]
    has_room: Callable[[int], bool] = endless
    credentials: Credentials = NoCredentials()
    began_at_ms: int = 0
