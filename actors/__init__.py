"""Supervised actors on Pykka and anyio, at home on asyncio and Trio; not one word about what they are used for.

An actor is a `pykka.Actor` that lends itself a task only while its mailbox is not empty, so that a hundred thousand
idle ones cost next to nothing. Paths are addresses: a message to an entity that is not live activates it from its
snapshot.
"""

from actors.actor import Actor
from actors.cell import Status
from actors.errors import (
    ActorCrashed,
    ActorError,
    ActorStopped,
    AskTimedOut,
    IntensityExceeded,
    MailboxFull,
    Quarantined,
    UnknownPath,
    WouldBlock,
)
from actors.future import Answer
from actors.observer import DeadLetter, DeadLetters, Observer, Reason, Terminated
from actors.policy import Backoff, Intensity, Strategy
from actors.ref import ActorRef
from actors.supervisor import Entities, Supervisor
from actors.system import ActorSystem
from actors.tree import Node

__all__ = [
    "Actor",
    "ActorCrashed",
    "ActorError",
    "ActorRef",
    "ActorStopped",
    "ActorSystem",
    "Answer",
    "AskTimedOut",
    "Backoff",
    "DeadLetter",
    "DeadLetters",
    "Entities",
    "Intensity",
    "IntensityExceeded",
    "MailboxFull",
    "Node",
    "Observer",
    "Quarantined",
    "Reason",
    "Status",
    "Strategy",
    "Supervisor",
    "Terminated",
    "UnknownPath",
    "WouldBlock",
]
