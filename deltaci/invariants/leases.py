"""Rules over leases: unique for ever, heard only from their holder, one result, never ended before their time."""

from typing import Final

from deltaci.domain.attempt import Attempt
from deltaci.domain.events import AttemptEnded, AttemptLeased, AttemptMoved, LeaseAcknowledged, LeaseRenewed
from deltaci.domain.job import STARTED, Job
from deltaci.domain.lease import LIVE
from deltaci.domain.states import AttemptState, EndReason, LeaseState
from deltaci.invariants.past import Change
from deltaci.invariants.rules import Found, Rule


def lease_ids_unique(change: Change) -> Found | None:
    """A lease id is granted once, for ever and everywhere."""
    known = change.past.leases.get(change.event.lease_hash)
    if known is not None:
        job_id, attempt, entry_id = known
        return Found(f"its lease id was granted before, for attempt {attempt} of {job_id}", (entry_id,))
    return None


def one_live_lease(change: Change) -> Found | None:
    """A job has at most one live lease."""
    before: Job = change.before
    live = [one.number for one in before.attempts if one.lease is not None and one.lease.state in LIVE]
    if live:
        return Found(f"attempt {change.event.attempt} is leased while attempts {live} have live leases")
    return None


def one_lease_a_group(change: Change) -> Found | None:
    """Of the jobs of a repository with the same concurrency group, at most one has a live lease."""
    leased: Job = change.after
    holder = change.past.job(change.past.holders.get((leased.repo_id, leased.concurrency), ""))
    if not leased.concurrency or holder is None or holder.id == leased.id or holder.state not in STARTED:
        return None
    text = f"it is leased while {holder.id} of the same group {leased.concurrency!r} is {holder.state}"
    return Found(text, change.past.ids(holder.id))


def only_the_holder_speaks(change: Change) -> Found | None:
    """What only a lease's holder may bring about was caused by the runner that holds it."""
    event, cause = change.event, change.entry.cause
    held: Attempt = change.before.attempts[-1]
    if isinstance(event, LeaseRenewed) and cause.kind == "timer":
        return None  # a restart's grace, stored
    if isinstance(event, AttemptEnded) and not (event.result_digest or event.lease_state is LeaseState.CANCELED):
        return None
    if held.lease is None or (cause.kind, cause.id) != ("runner", held.lease.runner_id):
        holder = held.lease.runner_id if held.lease else "nobody"
        granted = change.past.granted_id(held.lease.token_hash) if held.lease else ()
        return Found(f"{change.entry.type} was caused by {cause.kind} {cause.id}; the holder is {holder}", granted)
    return None


def one_result(change: Change) -> Found | None:
    """An attempt has at most one accepted result, and it carries the lease that was current then."""
    event: AttemptEnded = change.event
    if not event.result_digest:
        return None
    earlier = change.past.results.get((change.entry.entity_id, event.attempt))
    if earlier is not None:
        return Found(f"attempt {event.attempt} has a result already", (earlier,))
    lease = change.before.attempts[-1].lease
    if lease is None or lease.state is not LeaseState.ACTIVE or event.lease_state is not LeaseState.COMPLETED:
        return Found(f"a result is accepted under a lease that is {lease and lease.state}")
    return None


def never_expired_early(change: Change) -> Found | None:
    """A lease never expires before its time, nor within one time to live of a start."""
    event: AttemptEnded = change.event
    lease = change.before.attempts[-1].lease
    if event.state is not AttemptState.LOST or lease is None or event.reason is EndReason.RESTORED:
        return None  # what a restored backup takes back has nothing to do with time
    granted = change.past.granted_id(lease.token_hash)
    if (lease.state is LeaseState.GRANTED) != (event.reason is EndReason.NEVER_ACKNOWLEDGED):
        return Found(f"a lease that is {lease.state} is lost with {event.reason}", granted)
    if event.at_ms < lease.expires_at_ms:
        return Found(f"it is lost {lease.expires_at_ms - event.at_ms} ms before its lease expires", granted)
    window_ms = lease.ttl_ms if lease.state is LeaseState.ACTIVE else lease.ack_within_ms
    started_at_ms = change.past.started_at_ms
    if started_at_ms is not None and event.at_ms < started_at_ms + window_ms:
        after_ms = event.at_ms - started_at_ms
        return Found(f"it is lost {after_ms} ms after a start, within the {window_ms} ms it has from then", granted)
    return None


def renewed_forward(change: Change) -> Found | None:
    """A renewed lease lives longer than before."""
    lease = change.before.attempts[-1].lease
    if lease is not None and change.event.expires_at_ms <= lease.expires_at_ms:
        return Found(f"its end moves from {lease.expires_at_ms} to {change.event.expires_at_ms}")
    return None


RULES: Final = (
    Rule(5, lease_ids_unique, (AttemptLeased,)),
    Rule(5, one_live_lease, (AttemptLeased,)),
    Rule(25, one_lease_a_group, (AttemptLeased,)),
    Rule(4, only_the_holder_speaks, (LeaseAcknowledged, LeaseRenewed, AttemptMoved, AttemptEnded)),
    Rule(4, one_result, (AttemptEnded,)),
    Rule(15, never_expired_early, (AttemptEnded,)),
    Rule(15, renewed_forward, (LeaseRenewed,)),
)
