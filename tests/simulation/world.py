"""What all parts of one simulated world share: its clock, its chance, its trace, what was counted and what went wrong.

Rule 1: nothing here or around it asks the machine for time or randomness; a seed is all there is.
Rule 2: the trace is hashed as it grows: two runs of one seed are the same world if and only if their hashes are equal.
"""

import hashlib
import random
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any, Final

import anyio
import msgspec
import trio

from deltaci.domain.events import Trigger
from deltaci.domain.repo import Approval
from deltaci.domain.run import Run
from deltaci.invariants import Heard, Violation
from tests.simulation.parameters import Parameters

EPOCH_MS: Final = 1_700_000_000_000
TAIL_LINES: Final = 200
SECRETS_MAX: Final = 40


class PlantedCrash(Exception):
    """An actor crashes here because the simulation wants it to: a bug in a handler, as the supervisor sees it."""


class Clock:
    """The wall clock of one life of the server: anchored at its start, never jumping while it lives."""

    def __init__(self, offset_ms: int) -> None:
        self.offset_ms = offset_ms

    def now_ms(self) -> int:
        return EPOCH_MS + self.offset_ms + elapsed_ms()


class Asked(msgspec.Struct, frozen=True):
    """What somebody let run: this run, or of this pull request the named commit, or what was there at `at_ms`."""

    repo_id: str
    run_id: str = ""
    pr_number: int | None = None
    commit_sha: str = ""
    at_ms: int = 0

    def is_about(self, run: Run) -> bool:
        """Whether letting `run` go on is what was asked for."""
        if self.run_id:
            return run.id == self.run_id
        if (run.key.repo_id, run.key.pr_number) != (self.repo_id, self.pr_number):
            return False
        return run.key.commit_sha == self.commit_sha if self.commit_sha else run.created_at_ms < self.at_ms


class World:
    """Chance, trace, counters, history and violations of one seed."""

    def __init__(self, parameters: Parameters, *, is_loud: Callable[[str], None] | None = None) -> None:
        self.parameters = parameters
        self.faults = parameters.faults
        self.healed = anyio.Event()
        self.counts: Counter[str] = Counter()
        self.covered: Counter[tuple[str, str, str]] = Counter()
        self.history: list[Heard] = []
        self.violations: list[Violation] = []
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        self.known_runs: list[str] = []
        self.approval: dict[str, Approval] = {}  # what each repository asks for
        self.fork_pushes: list[tuple[str, Trigger, str]] = []  # repository, trigger, run
        self.approvals: dict[str, Asked] = {}  # what was asked for, by the name under which
        self.runner_ids: dict[str, None] = {}
        self.secrets: deque[bytes] = deque(maxlen=SECRETS_MAX)
        self.clock = Clock(0)  # of the server that lives now, or lived last
        self.disturbed_at_ms = 0
        self.failed = anyio.Event()
        self._chances: dict[str, random.Random] = {}
        self._hash = hashlib.sha256()
        self._tell = is_loud

    @property
    def is_healed(self) -> bool:
        """Whether nothing goes wrong any more."""
        return self.healed.is_set()

    async def until_healed(self, seconds: float) -> bool:
        """Wait, at most until all is mended; whether it is."""
        with anyio.move_on_after(seconds):
            await self.healed.wait()
        return self.is_healed

    # ---- chance --------------------------------------------------------------------------------------------------

    def rng(self, name: str) -> random.Random:
        """A source of chance of its own for each part, so that one more question here changes nothing there."""
        rng = self._chances.get(name)
        if rng is None:
            rng = self._chances[name] = random.Random(f"{name}:{self.parameters.seed}")
        return rng

    def strikes(self, fault: str, *, as_: str = "") -> bool:
        """Whether the fault with this rate happens here and now; counted under its name, or under `as_`."""
        rate = getattr(self.faults, fault)
        if self.is_healed or rate == 0 or self.rng(fault).random() >= rate:
            return False
        self.counts[as_ or fault] += 1
        return True

    def after(self, mean_s: float, name: str) -> float:
        """Seconds until something that happens every `mean_s` seconds on the average, without memory."""
        return self.rng(name).expovariate(1 / mean_s)

    def disturb(self) -> None:
        """Something keeps the server from its work just now."""
        self.disturbed_at_ms = self.clock.now_ms()

    async def pause(self, fault: str) -> bool:
        """Wait for the next of a fault that comes every so often; False if it never does."""
        mean_s = getattr(self.faults, fault)
        if mean_s == 0 or self.is_healed:
            return False
        if await self.until_healed(self.after(mean_s, fault)):
            return False
        self.counts[fault.removesuffix("_every_s")] += 1
        return True

    # ---- trace ---------------------------------------------------------------------------------------------------

    def trace(self, *words: Any) -> None:
        """A line of the trace."""
        line = f"{trio.current_time():.6f} {' '.join(map(str, words))}"
        self._hash.update(line.encode())
        self.tail.append(line)
        if self._tell is not None:
            self._tell(line)

    @property
    def trace_hash(self) -> str:
        """Names the whole trace so far."""
        return self._hash.hexdigest()

    # ---- what went wrong -----------------------------------------------------------------------------------------

    def violate(self, violations: Sequence[Violation]) -> None:
        """A rule was broken: the simulation ends here."""
        for violation in violations:
            self.trace("VIOLATION", violation.rule, violation.entity_id, violation.text)
        self.violations.extend(violations)
        if violations:
            self.failed.set()

    def broken(self, rule: str, text: str, entity_id: str = "") -> None:
        """A rule of the simulation's own was broken."""
        self.violate([Violation(rule, entity_id, text)])


class Outcome(msgspec.Struct, kw_only=True):
    """What became of one seed; plain data, to be sent between processes."""

    seed: int
    simulated_s: float
    cpu_s: float
    commits: int
    trace_hash: str
    counts: dict[str, int]
    covered: dict[str, int]
    violations: list[Violation]
    tail: list[str]


def elapsed_ms() -> int:
    """Milliseconds since the beginning of this world."""
    return int(trio.current_time() * 1000)
