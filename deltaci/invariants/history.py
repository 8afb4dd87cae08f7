"""What runners and clients saw, told by them, and the rules that hold it against what is stored.

The outside world is the judge of promises: what it was told must be stored, and it must never be told two things.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Final, TypeVar

import msgspec

from deltaci.domain.attempt import Attempt
from deltaci.domain.lease import LIVE
from deltaci.domain.machine import Why
from deltaci.domain.states import AttemptState, LeaseState
from deltaci.invariants.ledger import Answer, Ledger
from deltaci.invariants.past import Past
from deltaci.invariants.rules import Found, Rule

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)

# ---- what was heard ----------------------------------------------------------------------------------------------


class Heard(msgspec.Struct, frozen=True, kw_only=True):
    """Something that somebody outside saw. Instants are by the server's clock, as far as the listener can tell."""


class Granted(Heard, frozen=True, kw_only=True):
    """A runner was told that it holds this lease."""

    at_ms: int
    runner_id: str
    job_id: str
    attempt: int
    lease_hash: str


class Answered(Heard, frozen=True, kw_only=True):
    """A runner got an answer to a message under a lease.

    `message` is its kind: AckLease, Heartbeat, Complete, CancelAck or AppendLog. Neither accepted nor stale: it was
    refused for another reason, which is `code`. `digest`: SHA-256 of a Complete's JSON, hex. `state`: the one that the
    answer named, if any. `sent_at_ms`: when the message was sent, to be handled then or later; -1: not known.
    """

    at_ms: int
    runner_id: str
    job_id: str
    attempt: int
    lease_hash: str
    message: str
    is_accepted: bool
    is_stale: bool
    digest: str = ""
    state: str = ""
    code: str = ""
    sent_at_ms: int = -1


class Worked(Heard, frozen=True, kw_only=True):
    """A runner really executed the attempt from one instant to another."""

    runner_id: str
    job_id: str
    attempt: int
    from_ms: int
    until_ms: int


class Delivered(Heard, frozen=True, kw_only=True):
    """A webhook was answered 2xx."""

    at_ms: int
    repo_id: str
    delivery_id: str
    body_sha256: str
    run_id: str | None
    ignored: str | None
    accepted: str | None = None


class Replied(Heard, frozen=True, kw_only=True):
    """The answer to an idempotent request: start, rerun, cancel."""

    at_ms: int
    key: str
    http_status: int
    body: bytes


class View:
    """Everything heard, by kind, beside everything stored."""

    def __init__(
        self,
        past: Past,
        history: Sequence[Heard],
        *,
        ledger: Ledger | None,
        overlap_ms: int,
        slots: Mapping[str, int],
    ) -> None:
        self.past = past
        self.ledger = ledger
        self.overlap_ms = overlap_ms
        self.slots = slots
        self.granted = [heard for heard in history if isinstance(heard, Granted)]
        self.answered = [heard for heard in history if isinstance(heard, Answered)]
        self.worked = [heard for heard in history if isinstance(heard, Worked)]
        self.delivered = [heard for heard in history if isinstance(heard, Delivered)]
        self.replied = [heard for heard in history if isinstance(heard, Replied)]

    def attempt(self, job_id: str, number: int) -> Attempt | None:
        """An attempt as stored."""
        job = self.past.job(job_id)
        return job.attempts[number - 1] if job is not None and 1 <= number <= len(job.attempts) else None

    def held(self, heard: Granted | Answered) -> Attempt | None:
        """The attempt, if the lease that is spoken of is its lease and the runner that spoke its holder."""
        attempt = self.attempt(heard.job_id, heard.attempt)
        if attempt is None or attempt.lease is None:
            return None
        is_holder = (attempt.lease.token_hash, attempt.lease.runner_id) == (heard.lease_hash, heard.runner_id)
        return attempt if is_holder else None

    def story(self, job_id: str, lease_hash: str = "") -> tuple[int, ...]:
        """The entries to look at: the lease's grant and the job's last event."""
        return tuple(sorted({*self.past.granted_id(lease_hash), *self.past.ids(job_id)}))


# ---- leases and results ------------------------------------------------------------------------------------------


def grants_are_stored(view: View) -> Iterator[Found]:
    """A grant is stored before the runner hears of it."""
    for told in view.granted:
        if view.held(told) is None:
            text = f"{told.runner_id} was told at {told.at_ms} that it holds attempt {told.attempt}: not stored so"
            yield Found(text, view.story(told.job_id, told.lease_hash), told.job_id)


def accepted_is_stored(view: View) -> Iterator[Found]:
    """What a runner was told to be accepted is stored, under the lease that it named."""
    for told in view.answered:
        if told.is_accepted:
            wrong = _not_accepted(told, view.held(told))
            if wrong:
                text = f"{told.runner_id} was told at {told.at_ms} that its {told.message} counts: {wrong}"
                yield Found(text, view.story(told.job_id, told.lease_hash), told.job_id)


def _not_accepted(told: Answered, held: Attempt | None) -> str:
    if held is None or held.lease is None:
        return f"attempt {told.attempt} was never leased so"
    match told.message:
        case "Complete" if held.lease.state is not LeaseState.COMPLETED:
            return f"its lease is {held.lease.state}"
        case "Complete" if told.digest and told.digest != held.result_digest:
            return f"the stored result is {held.result_digest or 'none'}, not {told.digest}"
        case "CancelAck" if held.lease.state is not LeaseState.CANCELED:
            return f"its lease is {held.lease.state}"
        case "AckLease" | "Heartbeat" if held.started_at_ms is None:
            return "its lease was never acknowledged"
        case "AckLease" | "Heartbeat" | "AppendLog" if held.ended_at_ms is not None:
            return "the attempt had ended" if told.sent_at_ms > held.ended_at_ms else ""
        case _:
            return ""


def stale_changes_nothing(view: View) -> Iterator[Found]:
    """What a runner was told to be stale changed nothing, and its lease was not live."""
    for told in view.answered:
        held = view.held(told) if told.is_stale else None
        if held is None or held.lease is None:
            continue
        is_result = told.message == "Complete" and told.digest != "" and told.digest == held.result_digest
        is_obeyed = told.message == "CancelAck" and held.lease.state is LeaseState.CANCELED
        if is_result or is_obeyed or held.lease.state in LIVE:
            text = f"{told.runner_id} was told at {told.at_ms} that its {told.message} is stale: its lease is "
            text += f"{held.lease.state}, the result {held.result_digest or 'none'}"
            yield Found(text, view.story(told.job_id, told.lease_hash), told.job_id)


def one_answer_a_result(view: View) -> Iterator[Found]:
    """A repeated result gets the same answer for ever; one with other content is never accepted."""
    results = [told for told in view.answered if told.message == "Complete" and told.is_accepted]
    for (job_id, number), same in _grouped(results, lambda told: (told.job_id, told.attempt)).items():
        answers = dict.fromkeys((told.lease_hash, told.digest, told.state) for told in same)
        if len(answers) > 1:
            text = f"attempt {number} had {len(answers)} results accepted: {', '.join(map(str, answers))}"
            yield Found(text, view.story(job_id, same[0].lease_hash), job_id)


def conflicts_are_audited(view: View) -> Iterator[Found]:
    """A result refused for another one that was accepted is in the audit."""
    code = Why.CONFLICTING_RESULT.value
    refused = Counter(told.job_id for told in view.answered if told.message == "Complete" and told.code == code)
    for job_id, count in refused.items():
        audited = view.past.refusals[job_id, "Complete", code]
        if audited < count:
            yield Found(f"{count} results were refused for another one, {audited} audited", view.story(job_id), job_id)


def one_end_for_all(view: View) -> Iterator[Found]:
    """When a cancel and a result cross, one wins: every answer names the state that is stored."""
    ends = [told for told in view.answered if told.is_accepted and told.message in ("Complete", "CancelAck")]
    for told in ends:
        held = view.held(told)
        if held is not None and told.state and told.state != held.state:
            text = f"{told.runner_id} was told at {told.at_ms} that attempt {told.attempt} is {told.state}: "
            yield Found(f"{text}it is {held.state}", view.story(told.job_id, told.lease_hash), told.job_id)
    for (job_id, number), same in _grouped(ends, lambda told: (told.job_id, told.attempt)).items():
        if len({told.message for told in same}) > 1:
            text = f"both a result and an obeyed cancel were accepted for attempt {number}"
            yield Found(text, view.story(job_id, same[0].lease_hash), job_id)


def never_expired_while_heard(view: View) -> Iterator[Found]:
    """A lease whose holder was heard within its time to live does not expire."""
    for told in view.answered:
        held = view.held(told) if told.is_accepted and told.message in ("AckLease", "Heartbeat") else None
        if held is None or held.lease is None or held.ended_at_ms is None or told.sent_at_ms < 0:
            continue
        early_ms = told.sent_at_ms + held.lease.ttl_ms - held.ended_at_ms
        if held.state is AttemptState.LOST and early_ms > 0:
            text = f"attempt {told.attempt} is lost {early_ms} ms too early: a {told.message} was accepted before"
            yield Found(text, view.story(told.job_id, told.lease_hash), told.job_id)


# ---- work --------------------------------------------------------------------------------------------------------


def work_is_leased(view: View) -> Iterator[Found]:
    """A runner works only on what was leased to it."""
    for work in view.worked:
        attempt = view.attempt(work.job_id, work.attempt)
        if attempt is None or attempt.lease is None or attempt.lease.runner_id != work.runner_id:
            text = f"{work.runner_id} worked on attempt {work.attempt}, which it never held"
            yield Found(text, view.story(work.job_id), work.job_id)


def work_never_overlaps(view: View) -> Iterator[Found]:
    """Two attempts of a job are never worked on at the same time for longer than the declared bound."""
    for job_id, works in _grouped(view.worked, lambda work: work.job_id).items():
        for one, other in combinations(works, 2):
            both_ms = min(one.until_ms, other.until_ms) - max(one.from_ms, other.from_ms)
            is_same = (one.runner_id, one.attempt) == (other.runner_id, other.attempt)
            if not is_same and both_ms > view.overlap_ms:
                text = f"{one.runner_id} (attempt {one.attempt}) and {other.runner_id} (attempt {other.attempt}) "
                yield Found(f"{text}both worked on it for {both_ms} ms", view.story(job_id), job_id)


def slots_kept(view: View) -> Iterator[Found]:
    """A runner never works on more jobs at a time than it has slots."""
    for runner_id, works in _grouped(view.worked, lambda work: work.runner_id).items():
        if runner_id not in view.slots:
            continue
        # At one instant those that end are counted before those that begin.
        changes = sorted([(work.from_ms, 1) for work in works] + [(work.until_ms, -1) for work in works])
        busy = 0
        for at_ms, change in changes:
            busy += change
            if busy > view.slots[runner_id]:
                yield Found(f"it works on {busy} jobs at {at_ms} with {view.slots[runner_id]} slots", (), runner_id)
                break


# ---- clients -----------------------------------------------------------------------------------------------------


def one_answer_a_delivery(view: View) -> Iterator[Found]:
    """The same delivery gets the same answer for ever, equal content the same run; it has a run, reason or request."""
    answers: dict[tuple[str, str], tuple[str, Answer]] = {}
    contents: dict[tuple[str, str], str] = {}
    for told in view.delivered:
        about, entity_id = f"delivery {told.delivery_id}", told.run_id or ""
        answer = (told.body_sha256, _answer(told))
        known = answers.setdefault((told.repo_id, told.delivery_id), answer)
        if known != answer:
            yield Found(f"{about} was answered with {known} and with {answer}", (), entity_id)
        if sum(part is not None for part in _answer(told)) != 1:
            yield Found(f"{about} was answered with {_answer(told)}: not one of run, reason and request", (), entity_id)
        if told.run_id is not None:
            same = contents.setdefault((told.repo_id, told.body_sha256), told.run_id)
            if same != told.run_id:
                text = f"{about} was answered with another run than {same}, whose content is equal"
                yield Found(text, view.past.ids(same, told.run_id), entity_id)


def delivered_is_stored(view: View) -> Iterator[Found]:
    """Every webhook answered 2xx is stored as it was answered, and its run exists."""
    for told in view.delivered:
        if told.run_id is not None and told.run_id not in view.past.folded:
            yield Found(f"delivery {told.delivery_id} was answered with a run that does not exist", (), told.run_id)
        if view.ledger is None:
            continue
        stored = view.ledger.answers.get((told.repo_id, told.delivery_id))
        if stored != _answer(told):
            text = f"delivery {told.delivery_id} was answered with {_answer(told)}, stored is {stored}"
            yield Found(text, (), told.run_id or "")


def _answer(told: Delivered) -> Answer:
    return (told.run_id, told.ignored, told.accepted)


def one_answer_a_request(view: View) -> Iterator[Found]:
    """The same idempotency key gets the same answer for ever."""
    for key, same in _grouped(view.replied, lambda told: told.key).items():
        answers = dict.fromkeys((told.http_status, told.body) for told in same)
        if len(answers) > 1:
            yield Found(f"request {key} was answered with {' and with '.join(map(str, answers))}")


def _grouped(several: Sequence[T], key: Callable[[T], K]) -> dict[K, list[T]]:
    groups: dict[K, list[T]] = defaultdict(list)
    for one in several:
        groups[key(one)].append(one)
    return groups


RULES: Final = (
    Rule(6, grants_are_stored),
    Rule(6, accepted_is_stored),
    Rule(6, stale_changes_nothing),
    Rule(7, one_answer_a_result),
    Rule(7, conflicts_are_audited),
    Rule(14, one_end_for_all),
    Rule(15, never_expired_while_heard),
    Rule(16, work_is_leased),
    Rule(16, work_never_overlaps),
    Rule(5, slots_kept),
    Rule(8, one_answer_a_delivery),
    Rule(8, delivered_is_stored),
    Rule(8, one_answer_a_request),
)
