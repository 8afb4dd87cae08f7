"""Metrics in Prometheus format, made at one seam: what was committed, and what the actor runtime reports."""

from collections.abc import Sequence
from typing import Final

from loguru import logger
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from actors import ActorSystem
from actors import Observer as ActorObserver
from deltaci.domain.events import (
    AttemptEnded,
    AttemptLeased,
    AttemptQueued,
    JobCreated,
    JobEnded,
    JobEvent,
    RunCreated,
    RunEnded,
    RunEvent,
    type_name,
)
from deltaci.forge.breaker import BreakerState
from deltaci.forge.client import Outcome
from deltaci.orchestrator.runners import RunnerHub
from deltaci.store.port import Store

# From milliseconds, when a runner is idle, to half an hour, when all are busy
WAIT_BUCKETS_S: Final = (0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 1800)


class Telemetry:
    """Counts what happened; asks the store for what stands. Implements the orchestrator's `Observer`."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._children: dict[tuple[Counter, tuple[str, ...]], Counter] = {}
        self.store: Store | None = None
        self.hub: RunnerHub | None = None
        self.system: ActorSystem | None = None
        self.events = self._counter("deltaci_events", "State events committed to the journal", "type")
        self.runs_created = self._counter("deltaci_runs_created", "Runs created, by trigger", "trigger")
        self.runs_ended = self._counter("deltaci_runs_ended", "Runs that ended", "state", "reason")
        self.jobs_created = self._counter("deltaci_jobs_created", "Jobs created, by first state", "state")
        self.jobs_ended = self._counter("deltaci_jobs_ended", "Jobs that ended", "state", "reason")
        self.leases_granted = self._counter("deltaci_leases_granted", "Leases granted")
        self.leases_ended = self._counter("deltaci_leases_ended", "Leases that ended", "state")
        self.retries = self._counter("deltaci_retries", "Attempts that follow another one")
        self.refusals = self._counter("deltaci_refusals", "Commands refused", "command", "why")
        self.missed_total = self._counter(
            "deltaci_missed", "What a reconciler found, or a notification that was not delivered", "what"
        )
        self.crashes = self._counter("deltaci_actor_crashes", "Actor crashes", "actor")
        self.restarts = self._counter("deltaci_actor_restarts", "Actor restarts", "actor")
        self.quarantines = self._counter("deltaci_actor_quarantines", "Actors quarantined", "actor")
        self.waits = Histogram(
            "deltaci_job_wait_seconds",
            "From the queueing of an attempt to its lease",
            buckets=WAIT_BUCKETS_S,
            registry=self.registry,
        )
        self.forge_requests = self._counter(
            "deltaci_forge_requests", "Requests to forges, by what became of them", "host", "outcome"
        )
        self.forges_left_alone = Gauge(
            "deltaci_forge_left_alone",
            "1 while a forge that failed again and again is not asked",
            ("host",),
            registry=self.registry,
        )
        self.rows = Gauge("deltaci_rows", "Rows in the store", ("table", "state"), registry=self.registry)
        self.runners_online = Gauge("deltaci_runners_online", "Runners online", registry=self.registry)
        self.dead_letters = Gauge(
            "deltaci_dead_letters", "Messages that reached nobody since the start", registry=self.registry
        )

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def committed(self, events: Sequence[RunEvent | JobEvent]) -> None:
        """Count each event once."""
        for event in events:
            self._count(self.events, type_name(event))
            match event:
                case RunCreated():
                    self._count(self.runs_created, event.key.trigger_type)
                case RunEnded():
                    self._count(self.runs_ended, event.state, event.reason)
                case JobCreated():
                    self._count(self.jobs_created, event.state)
                case JobEnded():
                    self._count(self.jobs_ended, event.state, event.reason)
                case AttemptLeased():
                    self.leases_granted.inc()
                case AttemptEnded() if event.lease_state is not None:
                    self._count(self.leases_ended, event.lease_state)
                case AttemptQueued():
                    self.retries.inc()
                case _:
                    pass

    def _count(self, counter: Counter, *labels: str) -> None:
        # Looking a child up in the library takes a lock and three times as long; there are a few dozen of them.
        child = self._children.get((counter, labels))
        if child is None:
            child = self._children[counter, labels] = counter.labels(*labels)
        child.inc()

    def refused(self, command: str, why: str) -> None:
        """Count a refusal."""
        self._count(self.refusals, command, why)

    def waited(self, wait_ms: int) -> None:
        """Observe how long an attempt was queued before it was leased."""
        self.waits.observe(wait_ms / 1000)

    def missed(self, what: str) -> None:
        """Count what a reconciler found."""
        self.missed_total.labels(what).inc()

    def forge_asked(self, host: str, outcome: Outcome) -> None:
        """Count what became of a request to a forge."""
        self._count(self.forge_requests, host, outcome)

    def forge_breaker(self, host: str, state: BreakerState) -> None:
        """Show whether a forge is asked."""
        self.forges_left_alone.labels(host).set(0 if state == "closed" else 1)

    async def render(self) -> bytes:
        """One exposition, with the store's counts as of now."""
        if self.store is not None:
            self.rows.clear()
            for table, states in (await self.store.counts()).items():
                for state, count in states.items():
                    self.rows.labels(table, state).set(count)
        if self.hub is not None:
            self.runners_online.set(len(self.hub.online()))
        if self.system is not None:
            self.dead_letters.set(self.system.dead_letters.total)
        return generate_latest(self.registry)


class ActorTelemetry(ActorObserver):
    """What the actor runtime reports, by the last class name or the kind of path: never one series an entity."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry

    def crashed(self, path: str, class_name: str, cause: BaseException) -> None:
        """Count the crash and log it with its traceback."""
        self._telemetry.crashes.labels(class_name).inc()
        logger.bind(actor=path).opt(exception=cause).error("{} crashed", class_name)

    def restarted(self, path: str) -> None:
        """Count the restart."""
        self._telemetry.restarts.labels(kind_of(path)).inc()

    def quarantined(self, path: str, last_crash: str) -> None:
        """Count and name the poisoned entity."""
        self._telemetry.quarantines.labels(kind_of(path)).inc()
        logger.bind(actor=path).error("quarantined after its last crash: {}", last_crash)

    def escalated(self, path: str, cause: BaseException) -> None:
        """A supervisor gave up."""
        logger.bind(actor=path).error("gave up: {}", cause)


def kind_of(path: str) -> str:
    """`runs`, `jobs`, `repos` or the name of a keeper: a label with few values."""
    segments = path.split("/")
    return segments[-2] if len(segments) > 3 else segments[-1]
