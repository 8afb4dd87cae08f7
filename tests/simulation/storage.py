"""The disk under a simulated server: the production SQL on a real file, which dies, fails and fills up on demand.

Rule 1: once its process is dead, nothing of a life reaches the file any more, whatever its tasks still run.
Rule 2: what is on disk is looked at right after each COMMIT, before anybody can be told.
"""

import sqlite3
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

import anyio

from deltaci.domain.errors import RevisionConflict, StoreError, StoreUnavailable
from deltaci.store.database import Database, Held, Staged
from deltaci.store.prepare import Prepared
from deltaci.store.sqlite import SqliteStore
from deltaci.store.writes import SaveJob, SaveRun, Write
from tests.simulation import coverage
from tests.simulation.world import PlantedCrash

if TYPE_CHECKING:
    from tests.simulation.server import Life

T = TypeVar("T")

CONFLICT_SHARE: Final = 0.2


class MortalDatabase(Database):
    """The writer's connection of one life."""

    def __init__(self, connection: sqlite3.Connection, life: "Life") -> None:
        super().__init__(connection, busy_timeout_ms=0)
        self._life = life
        self._staged: Sequence[Prepared] = ()

    def stage(self, batch: Sequence[Prepared], *, is_patient: bool = False) -> Staged | Held:
        """As in production, while the process lives."""
        if self._life.is_dead:
            return Staged([StoreUnavailable("the process is dead")] * len(batch), is_open=False)
        self._staged = batch
        return super().stage(batch, is_patient=is_patient)

    def finish(self, staged: Staged | Held) -> list[StoreError | None]:
        """As in production, unless the process is killed before the COMMIT counts, or the disk fails or is full."""
        assert isinstance(staged, Staged)
        life, world = self._life, self._life.world
        if staged.is_open and not life.is_dead and world.strikes("kill_in_commit"):
            coverage.hit(world, self._staged, "killed in the transaction")
            life.die("in a transaction")
        if staged.is_open and life.is_dead:
            self.connection.execute("ROLLBACK")
            return [StoreUnavailable("the process is dead")] * len(staged.answers)
        if staged.is_open and life.disk.is_full:
            return self._nothing_stored(staged.answers, sqlite3.OperationalError("database or disk is full")).answers
        if staged.is_open and world.strikes("io_error"):
            return self._fail(staged)
        answers = super().finish(staged)
        if staged.is_open:
            life.look()
        return answers

    def _fail(self, staged: Staged) -> list[StoreError | None]:
        """The disk fails during COMMIT, and nobody knows whether it is stored: sometimes it is."""
        if self._life.world.rng("io_error_stored").random() < 1 / 2:
            super().finish(staged)
            self._life.look()
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
        return self._nothing_stored(staged.answers, error).answers


class SlowEngine:
    """Calls in-process, each after the time that the disk takes, in which everything else goes on."""

    def __init__(self, database: Database, life: "Life") -> None:
        self.database = database
        self._life = life

    @classmethod
    def opener(cls, life: "Life") -> Callable[[Callable[[], Database]], Any]:
        """What `SqliteStore.open` takes to open its writer and its scanner."""
        opened = 0

        async def open_one(opener: Callable[[], Database]) -> "SlowEngine":
            nonlocal opened
            await anyio.lowlevel.checkpoint()
            database = opener()
            database.connection.execute("PRAGMA synchronous = OFF")  # no power cut here: the file outlives processes
            opened += 1
            if opened == 1:
                database = MortalDatabase(database.connection, life)
            return cls(database, life)

        return open_one

    async def run(self, function: Callable[[], T]) -> T:
        """The result of `function`."""
        world = self._life.world
        await anyio.sleep(world.after(world.parameters.disk_s, "disk"))
        return function()

    async def close(self) -> None:
        """The process is gone: what it did not commit is undone."""
        self.database.close()


class FlakyStore:
    """The store port as the house sees it: each call may fail, crash its caller, or be the last of its process."""

    def __init__(self, store: SqliteStore, life: "Life") -> None:
        self._store = store
        self._life = life

    @property
    def is_broken(self) -> bool:
        """See `SqliteStore`."""
        return self._store.is_broken

    async def commit(self, writes: Sequence[Write]) -> None:
        """See `Store`; before and after it anything may happen."""
        world, life = self._life.world, self._life
        if world.strikes("kill_before_commit"):
            coverage.note(world, writes, "killed before the commit")
            await life.end_here("before a commit")
        poisoned = life.disk.poisoned
        if poisoned and any(isinstance(write, SaveJob) and write.job.id == poisoned for write in writes):
            raise PlantedCrash("storing a poisoned job")
        if world.strikes("actor_crash_before"):
            coverage.note(world, writes, "crashed before the commit")
            raise PlantedCrash("before the commit")
        if world.strikes("commit_error_before"):
            coverage.note(world, writes, "not stored")
            world.disturb()
            raise self._error(writes)
        coverage.remember(writes)
        try:
            await self._store.commit(writes)
        except StoreError as error:
            world.disturb()
            coverage.note(world, writes, type(error).__name__)
            raise
        finally:
            coverage.forget(writes)
        coverage.note(world, writes, "stored")
        if world.strikes("kill_after_commit"):
            coverage.note(world, writes, "killed after the commit")
            await life.end_here("after a commit")
        if world.strikes("actor_crash_after"):
            coverage.note(world, writes, "crashed after the commit")
            raise PlantedCrash("after the commit")
        if world.strikes("commit_error_after"):
            coverage.note(world, writes, "stored, unknown")
            world.disturb()
            raise StoreUnavailable("stored, but nobody knows")

    def _error(self, writes: Sequence[Write]) -> StoreError:
        has_condition = any(isinstance(write, SaveJob | SaveRun) for write in writes)
        if has_condition and self._life.world.rng("conflict").random() < CONFLICT_SHARE:
            return RevisionConflict("another writer was first")
        return StoreUnavailable("nothing was stored")

    def __getattr__(self, name: str) -> Any:
        read = getattr(self._store, name)
        if name == "journal":
            return read

        async def reading(*args: Any, **more: Any) -> Any:
            world = self._life.world
            if world.strikes("read_error"):
                world.disturb()
                await anyio.lowlevel.checkpoint()
                raise StoreUnavailable("the database cannot be read")
            if name == "load_job" and args[0] == self._life.disk.poisoned:
                raise PlantedCrash("loading a poisoned job")
            if name in ("load_job", "load_run") and world.strikes("actor_crash_loading"):
                raise PlantedCrash(f"in {name}")
            return await read(*args, **more)

        return reading
