"""The incremental look at the ledger of webhooks, and the look at the outbox: rows that belong to no single run."""

from collections.abc import Collection, Iterable
from typing import Final, TypeAlias

from deltaci.domain.effects import ActOnDelivery, AnalyzeAttempt
from deltaci.domain.requests import in_words
from deltaci.domain.run import Run
from deltaci.invariants.past import Past
from deltaci.invariants.rules import Found, Rule, Violation, violation
from deltaci.store.port import Owed
from deltaci.store.writes import Delivery

# What a delivery is answered with, for ever: its run, why it has none, or what it asks for, in words.
Answer: TypeAlias = tuple[str | None, str | None, str | None]


class Ledger:
    """Takes the deliveries in order of arrival, and says of each what is wrong with it.

    The journal must have been taken at least as far as it was when the delivery was read. `open` are the requests that
    had no outcome then.
    """

    def __init__(self, past: Past) -> None:
        self.past = past
        self.answers: dict[tuple[str, str], Answer] = {}
        self.contents: dict[tuple[str, str], str] = {}
        self.open: dict[tuple[str, str], Delivery] = {}

    def take(self, delivery: Delivery) -> list[Violation]:
        """What is wrong with the next delivery."""
        found = []
        for rule in DELIVERY_RULES:
            wrong = rule.check(self, delivery)
            if wrong is not None:
                found.append(violation(rule, delivery.run_id or "", wrong))
        self.answers[delivery.repo_id, delivery.delivery_id] = answer_of(delivery)
        if delivery.request is not None and delivery.outcome is None:
            self.open[delivery.repo_id, delivery.delivery_id] = delivery
        if delivery.run_id is not None:
            self.contents.setdefault((delivery.repo_id, delivery.body_sha256), delivery.run_id)
        return found


def one_run_a_content(ledger: Ledger, delivery: Delivery) -> Found | None:
    """Deliveries of equal content have the same run."""
    known = ledger.contents.get((delivery.repo_id, delivery.body_sha256))
    if delivery.run_id is not None and known not in (None, delivery.run_id):
        text = f"delivery {delivery.delivery_id} has another run than {known}, whose content is equal"
        return Found(text, ledger.past.ids(str(known), delivery.run_id))
    return None


def delivery_has_its_run(ledger: Ledger, delivery: Delivery) -> Found | None:
    """A delivery in the ledger has a run of its repository, or the reason why there is none."""
    if delivery.run_id is None:
        has_reason = bool(delivery.ignored) or delivery.request is not None
        return None if has_reason else Found(f"delivery {delivery.delivery_id} has neither run nor request nor reason")
    run = ledger.past.folded.get(delivery.run_id)
    if not isinstance(run, Run) or run.key.repo_id != delivery.repo_id:
        return Found(f"delivery {delivery.delivery_id} of {delivery.repo_id} has a run that is none of its repository")
    cause = ledger.past.tracks[run.id].cause
    if not delivery.is_duplicate and (cause.kind, cause.id) != ("webhook", delivery.delivery_id):
        text = f"delivery {delivery.delivery_id} made this run, which was created by {cause.kind} {cause.id}"
        return Found(text, ledger.past.ids(run.id))
    return None


def answer_of(delivery: Delivery) -> Answer:
    """What the delivery is answered with."""
    asked = None if delivery.request is None else in_words(delivery.request)
    return (delivery.run_id, delivery.ignored, asked)


def check_requests(unsettled: Iterable[Delivery], owed_keys: Collection[str]) -> list[Violation]:
    """What is wrong with requests that have no outcome, read again after the outbox was."""
    found = ((delivery, request_is_owed(delivery, owed_keys)) for delivery in unsettled)
    return [violation(REQUESTED, "", wrong) for _, wrong in found if wrong is not None]


def request_is_owed(delivery: Delivery, owed_keys: Collection[str]) -> Found | None:
    """Every request in the ledger has an outcome, or is owed."""
    key = ActOnDelivery(delivery.repo_id, delivery.delivery_id).key
    if delivery.request is None or delivery.outcome is not None or key in owed_keys:
        return None
    return Found(f"delivery {delivery.delivery_id} of {delivery.repo_id!r} has no outcome, and nobody owes it one")


def check_outbox(past: Past, outbox: Iterable[Owed]) -> list[Violation]:
    """What is wrong with what is owed; the journal must have been taken at least as far as when it was read."""
    found = []
    for owed in outbox:
        wrong = owed_for_what_is_stored(past, owed)
        if wrong is not None:
            found.append(violation(OWED, "", wrong))
    return found


def owed_for_what_is_stored(past: Past, owed: Owed) -> Found | None:
    """Every effect is owed for a run, or an ended attempt, that is stored."""
    effect = owed.effect
    if isinstance(effect, ActOnDelivery):
        return None  # the ledger is read before the outbox: one owed since then is not known to it
    if not isinstance(effect, AnalyzeAttempt):
        is_known = isinstance(past.folded.get(effect.run_id), Run)
        return None if is_known else Found(f"{effect.key} is owed for nothing", entity_id=effect.run_id)
    job = past.job(effect.job_id)
    attempts = () if job is None else job.attempts
    if not 1 <= effect.attempt <= len(attempts) or not attempts[effect.attempt - 1].state.is_final:
        return Found(f"{effect.key} is owed for no ended attempt", past.ids(effect.job_id), effect.job_id)
    return None


OWED: Final = Rule(19, owed_for_what_is_stored)
REQUESTED: Final = Rule(19, request_is_owed)
DELIVERY_RULES: Final = (Rule(8, one_run_a_content), Rule(8, delivery_has_its_run))

RULES: Final = (*DELIVERY_RULES, OWED, REQUESTED)
