"""The invariants, held against what is on disk after each commit, and against everything once all is over.

Rule: it reads the file through a connection of its own: what it sees is what the next life of the server would find.
"""

import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from deltaci.domain.run import Run
from deltaci.domain.states import RunState
from deltaci.invariants import Journal, Ledger, check_history, check_rows, settled
from deltaci.invariants.ledger import check_requests
from deltaci.invariants.rules import Violation, violations
from deltaci.invariants.secrecy import secrets_found
from deltaci.orchestrator.ports import Policy
from deltaci.store import reads, rows
from deltaci.store.database import Database
from deltaci.store.port import JournalEntry
from tests.simulation.forge import SimulatedForge
from tests.simulation.world import World

PAGE: Final = 1_000
BACKOFF_MAX_MS: Final = 60_000
# The order in which a run may be seen to go: a forge must never be told of an earlier one after a later one.
ORDER: Final[Mapping[str, int]] = {
    RunState.CREATED: 0,
    RunState.PLANNING: 1,
    RunState.QUEUED: 2,
    RunState.RUNNING: 3,
    RunState.CANCEL_REQUESTED: 4,
    RunState.SUCCEEDED: 5,
    RunState.FAILED: 5,
    RunState.TIMED_OUT: 5,
    RunState.CANCELED: 5,
}


class Watch:
    """Looks at the database of one world."""

    def __init__(self, world: World, path: Path) -> None:
        self.in_time_ms = _in_time_ms(world.parameters.policy)
        self.journal = Journal(reach_ms=self.in_time_ms, late_ms=self.in_time_ms)
        self.commits = 0
        self._world = world
        self._path = path
        self._last_id = 0
        self._heard = 0
        self._unsettled: Mapping[tuple[str, str], Violation] = {}
        self._connection: sqlite3.Connection | None = None

    def started(self, at_ms: int) -> None:
        """A new life of the server begins, by its own clock."""
        self.journal.started(at_ms)

    def look(self) -> None:
        """Something was committed: take in its events, and look at the rows of every run they are about."""
        self.commits += 1
        self.journal.disturbed(self._world.disturbed_at_ms)
        connection = self._connect()
        run_ids: dict[str, None] = {}
        while entries := reads.journal(connection, self._last_id, PAGE):
            for entry in entries:
                self._world.violate(self.journal.take(entry))
                self._check_trust(entry)
                if entry.run_id:
                    run_ids[entry.run_id] = None
            self._last_id = entries[-1].id
            self._world.trace("journal", self._last_id, entries[-1].hash, *(entry.type for entry in entries[-8:]))
        for run_id in run_ids:
            found = rows.rows_of_run(connection, run_id)
            if found is None:
                self._world.broken("stored", "it has events, and no row", run_id)
            else:
                self._world.violate(check_rows(self.journal, found))

    def _check_trust(self, entry: JournalEntry) -> None:
        """Code of a stranger is planned only where somebody asked for just that, and approved as it was asked."""
        run = self.journal.past.folded.get(entry.entity_id)
        if not isinstance(run, Run):
            return
        if entry.type == "RunApproved":
            asked = self._world.approvals.get(run.approved_by)
            if asked is None or not asked.is_about(run):
                self._world.broken("approved_as_asked", f"approved by {run.approved_by}, who asked for {asked}", run.id)
        elif entry.type == "PlanningStarted" and run.trigger.is_fork and not run.approved_by:
            known = {
                (one.key.repo_id, one.trigger.author)
                for one in self.journal.past.folded.values()
                if isinstance(one, Run) and one.approved_by
            }
            approval, repo_id, author = self._world.approval[run.key.repo_id], run.key.repo_id, run.trigger.author
            is_known = approval == "first_time" and author != "" and (repo_id, author) in known
            if approval != "none" and not is_known:
                self._world.broken("planned_as_let", f"{author!r} of {approval} is planned, approved by nobody", run.id)

    def _connect(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = Database.open_reader(self._path).connection
        return self._connection

    def close(self) -> None:
        """Nothing is looked at any more."""
        if self._connection is not None:
            self._connection.close()

    # ---- the end -------------------------------------------------------------------------------------------------

    def still_open(self) -> list[str]:
        """What has not come to its end: live runs, and debts that somebody still tries to pay."""
        connection = self._connect()
        live = [
            f"run {run_id} is {state}"
            for run_id, state in connection.execute("SELECT id, state FROM run WHERE is_live")
        ]
        owed = [
            f"{key} is owed after {tries} tries: {error}"
            for key, tries, error in connection.execute("SELECT key, tries, error FROM outbox WHERE is_refused = 0")
        ]
        return live + owed

    def check_settled(self) -> None:
        """Nothing that only somebody's look could move is left from one look to the next."""
        connection, now_ms, past = self._connect(), self._world.clock.now_ms(), self.journal.past
        found: dict[tuple[str, str], Violation] = {}
        for (run_id,) in connection.execute("SELECT id FROM run WHERE is_live").fetchall():
            of_run = rows.rows_of_run(connection, run_id)
            if of_run is not None:
                for one in violations(settled.RULES, run_id, past, of_run, now_ms, self.in_time_ms):
                    found[one.rule, one.entity_id] = one
        # At one look something may just be on its way.
        self._world.violate([one for what, one in found.items() if what in self._unsettled])
        self._unsettled = found

    def check_secrets(self, forge: SimulatedForge) -> None:
        """No lease id and no repository's secret stands in the journal, in a table, or in what a forge was told."""
        connection = self._connect()
        run_ids = connection.execute("SELECT id FROM run").fetchall()
        tables = [found for (run_id,) in run_ids if (found := rows.rows_of_run(connection, run_id)) is not None]
        entries = reads.journal(connection, 0, self._last_id)
        bodies = {repo_id: b"".join(one.body for one in told) for repo_id, told in forge.told.items()}
        self._world.violate(secrets_found(self._world.secrets, entries, tables, bodies))

    def check_heard(self) -> None:
        """Whatever anybody was told until now is stored by now."""
        heard, self._heard = self._world.history[self._heard :], len(self._world.history)
        self._world.violate(check_history(self.journal, heard))

    def check_history(self) -> None:
        """What clients saw, against what happened; and the ledger of what they sent."""
        connection = self._connect()
        ledger = Ledger(self.journal.past)
        page, after = reads.page_of_deliveries(connection, 0, PAGE)
        while page:
            for delivery in page:
                self._world.violate(ledger.take(delivery))
            page, after = reads.page_of_deliveries(connection, after, PAGE)
        keys = {owed.effect.key for owed in reads.owed(connection, "outbox")}
        again = [reads.delivery(connection, "delivery", *key) for key in ledger.open]
        self._world.violate(check_requests((one for one in again if one is not None), keys))
        slots = dict.fromkeys(self._world.runner_ids, self._world.parameters.slots)
        self._world.violate(check_history(self.journal, self._world.history, ledger=ledger, slots=slots))

    def check_forge(self, forge: SimulatedForge) -> None:
        """What forges were told never went back, and the last of it is the end."""
        connection = self._connect()
        for repo_id, told in forge.told.items():
            last: dict[str, str] = {}
            for one in told:
                if not one.check and one.body:
                    document = msgspec.json.decode(one.body)
                    run_id, state = document["run_id"], document["state"]
                    before = last.get(run_id)
                    if before is not None and ORDER[state] < ORDER[before]:
                        self._world.broken("told_in_order", f"told {state} after {before}", run_id)
                    last[run_id] = state
            for run_id, state in last.items():
                run = reads.load_run(connection, run_id)
                refused = connection.execute("SELECT 1 FROM outbox WHERE key = ?", (f"report:{run_id}",)).fetchone()
                if run is None:
                    self._world.broken("told_truth", f"{repo_id} was told of a run that is not stored", run_id)
                    continue
                latest = reads.latest_run(connection, run.key)
                is_latest = latest is not None and latest.run_id == run_id
                if is_latest and refused is None and run.state != state:
                    self._world.broken("told_the_end", f"the forge was last told {state}, it is {run.state}", run_id)


def _in_time_ms(policy: Policy) -> int:
    """How late an undisturbed server may be: two looks of the reconciler, a restart's backoff, a slow answer."""
    return 2 * policy.reconcile_every_ms + 2 * policy.ask_timeout_ms + BACKOFF_MAX_MS
