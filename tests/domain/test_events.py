"""Events cross the disk: what is read back must be what was written, types included."""

import types
import typing

import msgspec
import pytest

from deltaci.domain import job as jobs
from deltaci.domain.events import JobEvent, RunEvent, decode_event, encode_event, type_name
from deltaci.domain.states import AttemptState, EndReason, JobState, LeaseState, RunState
from tests.domain.builders import A_KEY, A_TRIGGER, a_job_created, ref

EVENT_TYPES = (*typing.get_args(RunEvent), *typing.get_args(JobEvent))
SAMPLES = {
    "has_blueprint": True,
    "is_notifying": True,
    "run_id": "run_1",
    "job_id": "job_1_0",
    "repo_id": "repo_1",
    "key": A_KEY,
    "trigger": A_TRIGGER,
    "jobs": (ref("lint"), ref("test", "lint", is_required=False)),
    "reason": EndReason.SUPERSEDED,
    "end_reason": EndReason.NOT_AFFECTED,
    "lease_state": LeaseState.REVOKED,
    "labels": ("linux", "gpu"),
    "is_required": True,
    "hold": "approval",
}


def _sample(kind: typing.Any, state: object) -> typing.Any:
    """An event of `kind` with every field filled in."""
    values: dict[str, object] = {}
    for field in msgspec.structs.fields(kind):
        if field.name == "state":
            values[field.name] = state
        elif field.type in (int, types.UnionType) or field.type == int | None:
            values[field.name] = 7
        else:
            values[field.name] = SAMPLES.get(field.name, f"some {field.name}")
    return kind(**values)


def _samples() -> typing.Iterator[typing.Any]:
    for kind in EVENT_TYPES:
        hints = typing.get_type_hints(kind)
        states = list(hints["state"]) if "state" in hints else [None]
        for state in states:
            yield pytest.param(_sample(kind, state), id=f"{kind.__name__}-{state}")


@pytest.mark.parametrize("event", list(_samples()))
def test_every_event_comes_back_from_the_disk_as_it_was_written(event: JobEvent | RunEvent) -> None:
    """The journal is the truth: an event that decodes to something else rewrites history."""
    decoded = decode_event(encode_event(event))

    assert event == decoded
    assert type(event) is type(decoded)


@pytest.mark.parametrize("event", list(_samples()))
def test_states_come_back_as_members_of_their_enumeration(event: JobEvent | RunEvent) -> None:
    """The machines compare states by identity: a bare string would take another branch than the state it spells."""
    decoded = decode_event(encode_event(event))

    enums = (JobState, AttemptState, RunState, LeaseState, EndReason)
    expected = {name: type(value) for name, value in _fields(event) if isinstance(value, enums)}
    assert expected == {name: type(value) for name, value in _fields(decoded) if name in expected}


def test_a_job_folded_from_the_disk_is_the_job_that_was_decided() -> None:
    """Recovery replays the journal: the first event alone must already give the same job, attempt included."""
    event = a_job_created(JobState.QUEUED)

    decoded = decode_event(encode_event(event))

    assert jobs.created(event) == jobs.evolve(jobs.created(event), typing.cast("JobEvent", decoded))


def test_an_event_names_its_type_as_it_is_stored() -> None:
    """The journal has a column for it; column and tag must agree."""
    events = [parameter.values[0] for parameter in _samples()]

    stored = [msgspec.json.decode(encode_event(event))["type"] for event in events]

    assert stored == [type_name(event) for event in events]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b'{"type":"Nonsense","at_ms":1}',
        b'{"type":"RunStarted"}',
        b'{"type":"RunStarted","at_ms":"1"}',
    ],
)
def test_anything_else_than_an_event_is_refused_on_reading(data: bytes) -> None:
    """A corrupt row is an error where it is read, not a wrong state later."""
    with pytest.raises(msgspec.DecodeError):
        decode_event(data)


def test_an_old_event_without_later_fields_still_decodes() -> None:
    """Journals outlive programs: a field added later has a default."""
    old = b'{"type":"AttemptEnded","at_ms":1,"attempt":1,"state":"LOST","reason":"runner_lost"}'

    event = decode_event(old)

    assert type_name(event) == "AttemptEnded"


def _fields(event: JobEvent | RunEvent) -> list[tuple[str, object]]:
    return [(name, getattr(event, name)) for name in event.__struct_fields__]
