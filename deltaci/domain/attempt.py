"""The attempt machine: one execution of one job, numbered from 1 without gaps.

Rule 1: LEASED to UPLOADING if and only if a live lease exists.
Rule 2: LOST is final for the attempt; whether there is a next one is the job's decision.
"""

from collections.abc import Mapping
from typing import Final, TypeAlias, assert_never

import msgspec

from deltaci.domain import lease as leases
from deltaci.domain.events import AttemptEnded, AttemptLeased, AttemptMoved, LeaseAcknowledged, LeaseRenewed
from deltaci.domain.lease import LIVE, Lease
from deltaci.domain.machine import Move, moved
from deltaci.domain.states import HELD, AttemptState, EndReason, LeaseState

AttemptEvent: TypeAlias = AttemptLeased | LeaseAcknowledged | LeaseRenewed | AttemptMoved | AttemptEnded

_STARTED: Final = frozenset({AttemptState.STARTING, AttemptState.RUNNING, AttemptState.UPLOADING})

MOVES: Final[Mapping[str, Move[AttemptState]]] = {
    "lease": Move(frozenset({AttemptState.QUEUED}), AttemptState.LEASED),
    "acknowledge": Move(frozenset({AttemptState.LEASED}), AttemptState.STARTING),
    "run": Move(frozenset({AttemptState.STARTING}), AttemptState.RUNNING),
    "upload": Move(frozenset({AttemptState.STARTING, AttemptState.RUNNING}), AttemptState.UPLOADING),
    "succeed": Move(_STARTED, AttemptState.SUCCEEDED),
    "fail": Move(_STARTED, AttemptState.FAILED),
    "time_out": Move(HELD, AttemptState.TIMED_OUT),
    "cancel": Move(HELD | {AttemptState.QUEUED}, AttemptState.CANCELED),
    "lose": Move(HELD, AttemptState.LOST),
}

END_MOVES: Final[Mapping[AttemptState, str]] = {
    AttemptState.SUCCEEDED: "succeed",
    AttemptState.FAILED: "fail",
    AttemptState.TIMED_OUT: "time_out",
    AttemptState.CANCELED: "cancel",
    AttemptState.LOST: "lose",
}


class Attempt(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """An attempt as stored."""

    number: int
    state: AttemptState
    queued_at_ms: int
    not_before_ms: int = 0
    lease: Lease | None = None
    started_at_ms: int | None = None
    ended_at_ms: int | None = None
    end_reason: EndReason | None = None
    exit_code: int | None = None
    text: str = ""
    result_digest: str = ""

    def __post_init__(self) -> None:
        is_held = self.state in HELD
        if is_held != (self.lease is not None and self.lease.state in LIVE):
            raise ValueError(f"attempt {self.number} is {self.state} with lease {self.lease}")
        if self.state.is_final != (self.end_reason is not None):
            raise ValueError(f"attempt {self.number} is {self.state} with end reason {self.end_reason}")


def after(state: AttemptState, move: str) -> AttemptState:
    """The state after `move`; raises `IllegalMove`."""
    return moved(MOVES, state, move)


def evolve(attempt: Attempt, event: AttemptEvent) -> Attempt:
    """The attempt after `event`; raises `IllegalMove` when a table does not have that move."""
    replace = msgspec.structs.replace
    lease = attempt.lease
    if isinstance(event, AttemptLeased):
        granted = Lease(
            token_hash=event.lease_hash,
            runner_id=event.runner_id,
            state=LeaseState.GRANTED,
            granted_at_ms=event.at_ms,
            expires_at_ms=event.ack_by_ms,
            ttl_ms=event.ttl_ms,
            ack_within_ms=event.ack_by_ms - event.at_ms,
        )
        return replace(attempt, state=after(attempt.state, "lease"), lease=granted)
    if isinstance(event, AttemptEnded):
        if lease is not None and event.lease_state is not None:
            lease = leases.ended(lease, event.lease_state)
        return replace(
            attempt,
            state=after(attempt.state, END_MOVES[event.state]),
            lease=lease,
            ended_at_ms=event.at_ms,
            end_reason=event.reason,
            exit_code=event.exit_code,
            text=event.text,
            result_digest=event.result_digest,
        )
    if lease is None:
        raise ValueError(f"{type(event).__name__} for attempt {attempt.number} without a lease")
    match event:
        case LeaseAcknowledged():
            return replace(
                attempt,
                state=after(attempt.state, "acknowledge"),
                lease=leases.acknowledged(lease, expires_at_ms=event.expires_at_ms),
                started_at_ms=event.at_ms,
            )
        case LeaseRenewed():
            return replace(attempt, lease=leases.renewed(lease, expires_at_ms=event.expires_at_ms))
        case AttemptMoved():
            move = "run" if event.state is AttemptState.RUNNING else "upload"
            return replace(attempt, state=after(attempt.state, move))
        case _:
            assert_never(event)
