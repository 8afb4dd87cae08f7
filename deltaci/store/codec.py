"""Snapshots as bytes: msgpack of frozen structs, validated on the way back in.

Rule: what cannot be decoded is never guessed at; the entity is named and left alone.
"""

from typing import Any, Final, TypeVar

import msgspec

from deltaci.domain.blueprint import Blueprint
from deltaci.domain.effects import Effect
from deltaci.domain.errors import SnapshotCorrupt
from deltaci.domain.job import Job
from deltaci.domain.plan import Plan, PlannedJob
from deltaci.domain.pull_request import PullRequest
from deltaci.domain.recipe import Recipe
from deltaci.domain.repo import Repo
from deltaci.domain.requests import Request
from deltaci.domain.run import Run
from deltaci.store.writes import Explanation, Runner

T = TypeVar("T")

encode: Final = msgspec.msgpack.Encoder().encode

RUN: Final = msgspec.msgpack.Decoder(Run)
JOB: Final = msgspec.msgpack.Decoder(Job)
PLAN: Final = msgspec.msgpack.Decoder(Plan)
PLANNED: Final = msgspec.msgpack.Decoder(PlannedJob)
BLUEPRINT: Final = msgspec.msgpack.Decoder(Blueprint)
RECIPE: Final = msgspec.msgpack.Decoder(Recipe)
REPO: Final = msgspec.msgpack.Decoder(Repo)
REQUEST: Final[msgspec.msgpack.Decoder[Any]] = msgspec.msgpack.Decoder(Request)
PULL_REQUEST: Final = msgspec.msgpack.Decoder(PullRequest)
RUNNER: Final = msgspec.msgpack.Decoder(Runner)
EXPLANATION: Final = msgspec.msgpack.Decoder(Explanation)
EFFECT: Final[msgspec.msgpack.Decoder[Any]] = msgspec.msgpack.Decoder(Effect)


def decode(decoder: msgspec.msgpack.Decoder[T], data: bytes, entity_id: str) -> T:
    """The struct that `encode` wrote; raises `SnapshotCorrupt` naming the entity on anything else."""
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, TypeError) as error:
        raise SnapshotCorrupt(
            f"the snapshot of {entity_id} cannot be decoded: {error}; restore it from its journal or a backup",
            entity_id=entity_id,
        ) from error
