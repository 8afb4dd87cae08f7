"""The invariants by number, and every rule that checks one: the table from which the page in the docs is made.

Four of them cannot be decided from what is stored and said, or not by it alone. They are proven elsewhere: 12 by
whoever holds the clock and knows that faults are over (`settled` says what is left to do then), 21 by `secrets_found`
wherever a test planted secrets, 22 by the gateway's tests of access, 23 by the orchestrator's tests of crashing actors.
"""

from collections.abc import Mapping
from typing import Final

from deltaci.invariants import (
    attempts,
    cancels,
    entity,
    history,
    leases,
    ledger,
    recipes,
    run_rules,
    secrecy,
    settled,
    tables,
)
from deltaci.invariants.rules import Rule

INVARIANTS: Final[Mapping[int, str]] = {
    1: "Events of an entity are numbered 1..n without gap or repeat; the stored state is the fold of its events.",
    2: "Every transition is in its machine's table; none leaves a final state.",
    3: "Attempts of a job are 1..k, one after the other; retries are bounded.",
    4: "An attempt has at most one accepted result, under the lease that was current then.",
    5: "Lease ids are unique for ever; a job has at most one live lease, a runner no more work than slots; a job is "
    "with a runner if and only if there is a live lease.",
    6: "A grant is stored before the runner hears of it; what was accepted is stored, what was stale changed nothing.",
    7: "A repeated result gets the same answer; one with other content is refused and audited.",
    8: "One run a delivery content; equal deliveries and equal requests get equal answers for ever; every webhook "
    "answered 2xx has a run, a request, or a recorded reason why not.",
    9: "No run without a cause: a webhook or a person.",
    10: "A run ends when all its jobs have, and its result is recomputable from theirs.",
    11: "A run's jobs are those of its plan; one starts only when its needs allow, and is skipped only for a stored "
    "reason.",
    12: "No wake-up is lost: whatever can go on does, within a bound.",
    13: "After a cancel nothing starts; it ends at the first of acknowledgement, result and deadline.",
    14: "When a cancel and a result cross, one wins, the same everywhere and for ever.",
    15: "A lease ends by silence when its time is over, never earlier, and never within one time to live of a start.",
    16: "Two runners never work on one job at the same time for longer than the declared bound.",
    17: "Every state with a deadline has exactly one timer, a final one none.",
    18: "Logs are contiguous; nothing is added after the end; nobody but the holder of the lease adds anything.",
    19: "Every effect is stored with its cause and owed until it was delivered.",
    20: "The audit chain is unbroken; every event says who, what and when.",
    21: "No secret is ever found in events, tables, logs, audit, metrics, traces or answers.",
    22: "Nothing of one repository is visible through another's rights.",
    23: "An entity that keeps crashing is quarantined and visible; all others go on.",
    24: "Recipes are made and confirmed by pushes to the default branch that succeeded; versions have no gaps, and "
    "only the newest is used.",
    25: "Of the jobs of a repository with the same concurrency group, at most one has a live lease.",
    26: "Nothing of a run that waits for approval is planned or run before a person has approved its very commit.",
}

# What cannot be decided from what is stored and said: where it is proven instead.
ELSEWHERE: Final[Mapping[int, str]] = {
    22: "`tests/gateway/test_access.py`",
    23: "`tests/orchestrator/test_actor_crashes.py`",
}

RULES_BY_PLACE: Final[Mapping[str, tuple[Rule, ...]]] = {
    "each event": (*entity.RULES, *attempts.RULES, *leases.RULES, *cancels.RULES, *run_rules.RULES),
    "the tables of a run, after any commit": tables.RULES,
    "the ledger of webhooks and the outbox": ledger.RULES,
    "the recipes of a repository": recipes.RULES,
    "what runners and clients saw": history.RULES,
    "the tables of a run, once there was time": settled.RULES,
    "any text, with the secrets that were planted": secrecy.RULES,
}

RULES: Final = tuple(rule for rules in RULES_BY_PLACE.values() for rule in rules)
