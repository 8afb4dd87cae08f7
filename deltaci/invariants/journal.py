"""The incremental look at the journal: one entry after the other, each against everything before it."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from deltaci.domain.events import JobEvent, RunEvent
from deltaci.domain.job import Job
from deltaci.domain.run import Run
from deltaci.invariants import attempts, cancels, entity, leases, run_rules
from deltaci.invariants.past import Change, Past, Track
from deltaci.invariants.rules import Rule, Violation, violation
from deltaci.store.journal import GENESIS
from deltaci.store.port import JournalEntry

EVENT_RULES: Final = (*attempts.RULES, *leases.RULES, *cancels.RULES, *run_rules.RULES)


def _by_kind() -> Mapping[type, tuple[Rule, ...]]:
    """The rules to look at after each kind of event, the general ones first."""
    kinds = dict.fromkeys(kind for rule in EVENT_RULES for kind in rule.kinds)
    return {kind: (*entity.ALWAYS, *(rule for rule in EVENT_RULES if kind in rule.kinds)) for kind in kinds}


RULES_AFTER: Final = _by_kind()


class Journal:
    """Takes the journal's entries in order, from the first on, and says of each what is wrong with it.

    Args:
        late_ms: how late a cancel's deadline may be kept by a server that is up; None: not looked at.
        reach_ms: how long a run's stored cancel may take to reach its jobs; None: not looked at.
    """

    def __init__(self, *, late_ms: int | None = None, reach_ms: int | None = None) -> None:
        self.past = Past(late_ms=late_ms, reach_ms=reach_ms)
        self.last_id = 0
        self.folded: Mapping[str, Run | Job] = MappingProxyType(self.past.folded)
        self._last_hash = GENESIS

    def started(self, at_ms: int) -> None:
        """A server started then, at the earliest: no lease may expire before it was granted that time anew."""
        self.past.started_at_ms = at_ms

    def disturbed(self, at_ms: int) -> None:
        """Until then something kept the server from its work: what must happen in time counts from there."""
        self.past.disturbed_at_ms = at_ms

    def take(self, entry: JournalEntry) -> list[Violation]:
        """What is wrong with the next entry. One that cannot follow ends the looking at its entity, not at others."""
        broken = entity.chain(self.last_id, self._last_hash, entry)
        # Go on from what is stored, so that one edit is one finding.
        self.last_id, self._last_hash = entry.id, bytes.fromhex(entry.hash)
        found = [] if broken is None else [violation(entity.CHAIN, entry.entity_id, broken, entry.id)]
        if entry.sequence is None:
            self.past.note_refusal(entry)
        else:
            self._take_event(entry, found)
        return found

    def is_unfoldable(self, entity_id: str) -> bool:
        """Whether an event of this entity could not follow the ones before."""
        track = self.past.tracks.get(entity_id)
        return track is not None and track.is_unfoldable

    def _take_event(self, entry: JournalEntry, found: list[Violation]) -> None:
        tracks = self.past.tracks
        track = tracks.get(entry.entity_id)
        if track is None:
            track = tracks[entry.entity_id] = Track(entry.run_id, entry.cause)
        gap = entity.dense(track, entry)
        track.sequence = entry.sequence or 0
        if gap is not None:
            found.append(violation(entity.DENSE, entry.entity_id, gap, entry.id))
            track.is_unfoldable = True
        if track.is_unfoldable:
            track.last_id = entry.id
            return
        before = self.past.folded.get(entry.entity_id)
        beyond = entity.nothing_after_end(track, before)
        if beyond is not None:
            found.append(violation(entity.END, entry.entity_id, beyond, entry.id))
        event = entity.read(entry.data)
        after = event if isinstance(event, Exception) else entity.followed(before, event)
        if isinstance(event, Exception) or isinstance(after, Exception):
            found.append(self._why_not(entry, event, after))
            track.is_unfoldable = True
            track.last_id = entry.id
            return
        change = Change(entry, event, before, after, self.past)
        for rule in RULES_AFTER.get(type(event), entity.ALWAYS):
            wrong = rule.check(change)
            if wrong is not None:
                found.append(violation(rule, entry.entity_id, wrong, entry.id))
        self.past.note(change)

    def _why_not(
        self, entry: JournalEntry, event: RunEvent | JobEvent | Exception, after: Run | Job | Exception
    ) -> Violation:
        last_id = self.past.tracks[entry.entity_id].last_id
        for rule, looked_at in ((entity.READABLE, event), *((rule, after) for rule in entity.FOLDS)):
            wrong = rule.check(looked_at)
            if wrong is not None:
                text = f"event {entry.sequence}, {entry.type}: {wrong.text}"
                events = (last_id,) if last_id else ()
                return violation(rule, entry.entity_id, wrong._replace(text=text, events=events), entry.id)
        raise AssertionError("it was said to be wrong")
