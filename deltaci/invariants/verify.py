"""Every invariant that can be decided from what is stored, over a whole store, live or at rest.

Rule 1: reads alone, through the port. The tables of a run are read as of one instant, the journal is followed up to
        exactly that instant, and only then they are compared: what moves meanwhile is never taken for wrong.
Rule 2: a check names what it found and where; it repairs nothing. A row that cannot be read is a finding, too.
"""

from collections import Counter, deque
from typing import Final

import msgspec

from deltaci.domain.errors import SnapshotCorrupt
from deltaci.invariants import catalogue, entity, settled, tables
from deltaci.invariants import check_rows as rows_checked
from deltaci.invariants.journal import RULES_AFTER, Journal
from deltaci.invariants.ledger import DELIVERY_RULES, OWED, REQUESTED, Ledger, check_outbox, check_requests
from deltaci.invariants.recipes import RULES as RECIPE_RULES
from deltaci.invariants.recipes import check_recipes
from deltaci.invariants.rules import Found, Rule, Violation, violation, violations
from deltaci.store.port import JournalEntry, Rows, Store


class Report(msgspec.Struct, frozen=True):
    """How much was looked at, by what it is; how often each invariant was looked at; what was found."""

    checked: dict[str, int]
    looks: dict[int, int]
    violations: tuple[Violation, ...]


async def verify(store: Store, *, now_ms: int | None = None, late_ms: int = 0) -> Report:
    """Check the whole store.

    Args:
        now_ms: also check that nothing is left to do that was due `late_ms` before this instant: for a server that
            was left in peace for a while.
    """
    verifier = _Verifier(store, now_ms, late_ms)
    looks = (verifier.check_runs, verifier.check_dispatch, verifier.check_ledger, verifier.check_recipes)
    for look in (verifier.follow, *looks):
        try:
            await look()
        except SnapshotCorrupt as error:
            verifier.unreadable(error)
    return verifier.report()


_RULES_AFTER: Final = {kind.__name__: rules for kind, rules in RULES_AFTER.items()}


class _Verifier:
    def __init__(self, store: Store, now_ms: int | None, late_ms: int) -> None:
        self.journal = Journal()
        self.violations: list[Violation] = []
        self.checked: Counter[str] = Counter(journal=0, runs=0, jobs=0, deliveries=0, owed=0, requests=0, recipes=0)
        self._store = store
        self._now_ms = now_ms
        self._late_ms = late_ms
        self._ahead: deque[JournalEntry] = deque()
        self._kinds: Counter[str] = Counter()
        self._seen: set[str] = set()

    # ---- journal -------------------------------------------------------------------------------------------------

    async def follow(self, until_id: int | None = None) -> None:
        """Take the journal up to this entry, or to its end."""
        self._take(until_id)
        if until_id is None or self.journal.last_id < until_id:
            # Nothing is left that was read ahead: it would follow the last entry that was taken.
            async for entry in self._store.journal(after_id=self.journal.last_id):
                self._ahead.append(entry)
                self._take(until_id)

    def _take(self, until_id: int | None) -> None:
        while self._ahead and (until_id is None or self._ahead[0].id <= until_id):
            entry = self._ahead.popleft()
            self.violations += self.journal.take(entry)
            self.checked["journal"] += 1
            self._kinds[entry.type if entry.sequence is not None else ""] += 1

    # ---- tables --------------------------------------------------------------------------------------------------

    async def check_runs(self) -> None:
        """Every run that has a row, then every entity that has events and was not among them."""
        after = ""
        while page := await self._store.run_ids(after=after):
            for run_id in page:
                await self._check_run(run_id)
            after = page[-1]
        tracks = self.journal.past.tracks
        # Those planned or created since their run was looked at, and those without a row.
        missing = [entity_id for entity_id in tracks if entity_id not in self._seen]
        for run_id in dict.fromkeys(tracks[entity_id].run_id for entity_id in missing):
            await self._check_run(run_id)
        for entity_id in missing:
            if entity_id not in self._seen:
                found = tables.no_row(self.journal.past, entity_id)
                self.violations.append(violation(tables.STORED, entity_id, found))

    async def check_dispatch(self) -> None:
        """What dispatch would lease, or take for leased: jobs that have events, whatever run their row names."""
        found = [job.job_id for job in await self._store.queued_jobs()]
        found += [job.job_id for job in await self._store.held_jobs()]
        await self.follow()
        for job_id in found:
            if job_id not in self.journal.past.tracks:
                self.violations.append(violation(tables.STORED, job_id, tables.NO_EVENTS))

    async def _check_run(self, run_id: str) -> None:
        try:
            rows = await self._store.rows_of_run(run_id)
        except SnapshotCorrupt as error:
            self.unreadable(error)
            tracks = self.journal.past.tracks
            self._seen.update(entity_id for entity_id, track in tracks.items() if track.run_id == run_id)
            return
        if rows is None:
            return
        await self.follow(rows.journal_id)
        self._count(rows)
        self.violations += rows_checked(self.journal, rows)
        if self._now_ms is not None:
            past = self.journal.past
            self.violations += violations(settled.RULES, run_id, past, rows, self._now_ms, self._late_ms)

    def _count(self, rows: Rows) -> None:
        ids = {rows.run.run.id, *(row.job.id for row in rows.jobs)}
        new = ids - self._seen
        self._seen |= ids
        self.checked["runs"] += rows.run.run.id in new
        self.checked["jobs"] += len(new) - (rows.run.run.id in new)

    def unreadable(self, error: SnapshotCorrupt) -> None:
        """A row that cannot be decoded."""
        found = Found(str(error))
        self.violations.append(violation(entity.READABLE, error.details.get("entity_id", ""), found))

    # ---- what belongs to no single run ---------------------------------------------------------------------------

    async def check_ledger(self) -> None:
        """The ledger of webhooks, and what is owed. A row is read first and the journal followed from there."""
        ledger = Ledger(self.journal.past)
        async for delivery in self._store.deliveries():
            if delivery.run_id is not None and delivery.run_id not in self.journal.folded:
                await self.follow()
            self.violations += ledger.take(delivery)
            self.checked["deliveries"] += 1
        outbox = await self._store.outbox()
        await self.follow()
        self.violations += check_outbox(self.journal.past, outbox)
        self.checked["owed"] += len(outbox)
        # What was open when it was read may have been settled since: read after the outbox, it has its outcome then.
        again = [await self._store.delivery(*key) for key in ledger.open]
        keys = {owed.effect.key for owed in outbox}
        self.violations += check_requests((one for one in again if one is not None), keys)
        self.checked["requests"] += len(again)

    async def check_recipes(self) -> None:
        """The recipes of every repository. They are read first and the journal followed from there."""
        for repo in await self._store.repos():
            recipes = await self._store.recipes(repo.id)
            if recipes:
                await self.follow()
                self.violations += check_recipes(self.journal.past, repo, recipes)
                self.checked["recipes"] += len(recipes)

    # ---- report --------------------------------------------------------------------------------------------------

    def report(self) -> Report:
        """What was looked at and found so far."""
        looks: Counter[int] = Counter()

        def looked(rules: tuple[Rule, ...], times: int) -> None:
            for rule in rules:
                looks[rule.invariant] += times

        looked((entity.CHAIN,), self.checked["journal"])
        events = self.checked["journal"] - self._kinds[""]
        looked((entity.DENSE, entity.READABLE, entity.END, *entity.FOLDS), events)
        for name, count in self._kinds.items():
            looked(_RULES_AFTER.get(name, entity.ALWAYS if name else ()), count)
        looked(tables.RULES, self.checked["runs"])
        looked(settled.RULES if self._now_ms is not None else (), self.checked["runs"])
        looked(DELIVERY_RULES, self.checked["deliveries"])
        looked((OWED,), self.checked["owed"])
        looked((REQUESTED,), self.checked["requests"])
        looked(RECIPE_RULES, self.checked["recipes"])
        ordered = {number: looks[number] for number in catalogue.INVARIANTS if looks[number]}
        # A run that was looked at twice may show the same twice.
        return Report(dict(self.checked), ordered, tuple(dict.fromkeys(self.violations)))
