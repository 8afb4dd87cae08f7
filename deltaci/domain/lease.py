"""The lease machine: the right to execute one attempt, until a time.

Rule 1: the token is a secret and the fence; only its hash is kept here.
Rule 2: a lease ends once. Whoever holds an ended one changes nothing.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from deltaci.domain.machine import Move, moved
from deltaci.domain.states import LeaseState

LIVE: Final = frozenset({LeaseState.GRANTED, LeaseState.ACTIVE})

MOVES: Final[Mapping[str, Move[LeaseState]]] = {
    "acknowledge": Move(frozenset({LeaseState.GRANTED}), LeaseState.ACTIVE),
    "extend": Move(frozenset({LeaseState.GRANTED}), LeaseState.GRANTED),
    "renew": Move(frozenset({LeaseState.ACTIVE}), LeaseState.ACTIVE),
    "complete": Move(frozenset({LeaseState.ACTIVE}), LeaseState.COMPLETED),
    "cancel": Move(LIVE, LeaseState.CANCELED),
    "expire": Move(LIVE, LeaseState.EXPIRED),
    "revoke": Move(LIVE, LeaseState.REVOKED),
}

END_MOVES: Final[Mapping[LeaseState, str]] = {
    LeaseState.COMPLETED: "complete",
    LeaseState.CANCELED: "cancel",
    LeaseState.EXPIRED: "expire",
    LeaseState.REVOKED: "revoke",
}


class Lease(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A lease as stored. `expires_at_ms` is the acknowledgement deadline while GRANTED, the TTL's end while ACTIVE.

    `ack_within_ms` is the length of the acknowledgement window, which starts anew with a restart.
    """

    token_hash: str
    runner_id: str
    state: LeaseState
    granted_at_ms: int
    expires_at_ms: int
    ttl_ms: int
    ack_within_ms: int = 0


def acknowledged(lease: Lease, *, expires_at_ms: int) -> Lease:
    """The holder has spoken: from now on the TTL counts."""
    return msgspec.structs.replace(lease, state=moved(MOVES, lease.state, "acknowledge"), expires_at_ms=expires_at_ms)


def renewed(lease: Lease, *, expires_at_ms: int) -> Lease:
    """The stored end moves; heartbeats in between live in memory."""
    move = "renew" if lease.state is LeaseState.ACTIVE else "extend"
    return msgspec.structs.replace(lease, state=moved(MOVES, lease.state, move), expires_at_ms=expires_at_ms)


def ended(lease: Lease, state: LeaseState) -> Lease:
    """The lease in its final `state`."""
    return msgspec.structs.replace(lease, state=moved(MOVES, lease.state, END_MOVES[state]))
