"""The tables themselves: every (state, command) and every (state, move), generated, so that a new one is covered."""

import itertools
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any

import msgspec
import pytest

from deltaci.domain import attempt as attempts
from deltaci.domain import job as jobs
from deltaci.domain import lease as leases
from deltaci.domain import run as runs
from deltaci.domain.events import JobRef
from deltaci.domain.machine import IllegalMove, Move, Refusal, Step, Why, moved
from deltaci.domain.states import AttemptState, EndReason, JobState, LeaseState, RunState
from tests.domain.builders import (
    ACK_WITHIN_MS,
    CANCEL_WITHIN_MS,
    HOLD_WITHIN_MS,
    HOUR_MS,
    TTL_MS,
    a_cancel,
    a_cancel_ack,
    a_completion,
    a_heartbeat,
    a_held_run,
    a_job,
    a_run,
    a_tick,
    all_seen,
    an_ack,
    folded_job,
    folded_run,
    held,
    ref,
)

# ---- every command in every state --------------------------------------------------------------------------------

_HELD = held()
A_JOB_COMMAND: Mapping[type[jobs.JobCommand], jobs.JobCommand] = {
    jobs.Release: jobs.Release(),
    jobs.Skip: jobs.Skip(reason=EndReason.NEEDS_FAILED),
    jobs.GrantLease: jobs.GrantLease(
        lease_hash="lease_new", runner_id="runner_1", ack_within_ms=ACK_WITHIN_MS, ttl_ms=TTL_MS
    ),
    jobs.AckLease: an_ack(_HELD),
    jobs.Heartbeat: a_heartbeat(_HELD),
    jobs.Complete: a_completion(_HELD),
    jobs.CancelAck: a_cancel_ack(_HELD),
    jobs.RequestCancel: a_cancel(),
    jobs.Tick: a_tick(),
    jobs.Revoke: jobs.Revoke(),
}

A_RUN_COMMAND: Mapping[type[runs.RunCommand], runs.RunCommand] = {
    runs.Approve: runs.Approve(by="alice"),
    runs.StartPlanning: runs.StartPlanning(),
    runs.AdoptPlan: runs.AdoptPlan(plan_digest="plan_1", jobs=(ref("test"),)),
    runs.FailPlan: runs.FailPlan(text="no such file"),
    runs.Advance: runs.Advance(jobs={}),
    runs.RequestCancel: runs.RequestCancel(reason=EndReason.USER_CANCELED),
    runs.Tick: runs.Tick(),
    runs.Restore: runs.Restore(),
}

JOB_PAIRS = [
    pytest.param(state, command, id=f"{state}-{command.__name__}")
    for state, command in itertools.product(JobState, jobs.LEGAL_IN)
]
RUN_PAIRS = [
    pytest.param(state, command, id=f"{state}-{command.__name__}")
    for state, command in itertools.product(RunState, runs.LEGAL_IN)
]
HOLDERS_WHY = {Why.STALE_LEASE, Why.CONFLICTING_RESULT}


def test_every_command_has_a_row_in_the_table_and_a_sample_here() -> None:
    """A command without a row would crash on its first use; one without a sample would not be tested."""
    job_commands = set(jobs.JobCommand.__args__)
    run_commands = set(runs.RunCommand.__args__)

    assert job_commands == set(jobs.LEGAL_IN) == set(A_JOB_COMMAND)
    assert run_commands == set(runs.LEGAL_IN) == set(A_RUN_COMMAND)


@pytest.mark.parametrize("now_ms", [0, CANCEL_WITHIN_MS, TTL_MS, 2 * HOUR_MS])
@pytest.mark.parametrize(("state", "kind"), JOB_PAIRS)
def test_a_job_does_what_its_table_says(state: JobState, kind: type[jobs.JobCommand], now_ms: int) -> None:
    """An illegal command is refused by name and state; a legal one folds to its own state, or is fenced with a hint."""
    job, command = a_job(state), A_JOB_COMMAND[kind]

    answer = jobs.step(job, command, now_ms=now_ms)

    assert job == a_job(state)
    if state not in jobs.LEGAL_IN[kind]:
        assert answer == Refusal(Why.ILLEGAL_MOVE, job.id, state, kind.__name__)
    elif isinstance(answer, Refusal):
        assert (answer.entity_id, answer.at, answer.command) == (job.id, state, kind.__name__)
        assert answer.hint
        assert answer.why in HOLDERS_WHY or (kind, answer.why) in {
            (jobs.GrantLease, Why.TOO_EARLY),
            (jobs.CancelAck, Why.ILLEGAL_MOVE),
        }
    else:
        assert answer.state == folded_job(job, answer.events)
        assert answer.state.revision == job.revision + len(answer.events)
        assert answer.events or not answer.effects
        assert not (state.is_final and answer.events)


@pytest.mark.parametrize("phase", [AttemptState.LEASED, AttemptState.STARTING, AttemptState.UPLOADING])
@pytest.mark.parametrize("state", [JobState.RUNNING, JobState.CANCEL_REQUESTED])
@pytest.mark.parametrize("kind", list(jobs.LEGAL_IN))
def test_a_held_job_does_what_its_table_says_in_every_phase(
    state: JobState, phase: AttemptState, kind: type[jobs.JobCommand]
) -> None:
    """The holder's messages meet every phase of the attempt: each has an answer, and none of them is an exception."""
    job = a_job(state, phase)

    answers = [jobs.step(job, A_JOB_COMMAND[kind], now_ms=now_ms) for now_ms in (0, TTL_MS, 2 * HOUR_MS)]

    for answer in answers:
        assert isinstance(answer, Refusal) or answer.state == folded_job(job, answer.events)


@pytest.mark.parametrize("now_ms", [0, HOLD_WITHIN_MS])
@pytest.mark.parametrize("kind", list(runs.LEGAL_IN))
def test_a_held_run_does_what_its_table_says(kind: type[runs.RunCommand], now_ms: int) -> None:
    """It is CREATED, and all that differs is that it cannot be planned: that is refused with the reason."""
    run = a_held_run()

    answer = runs.step(run, A_RUN_COMMAND[kind], now_ms=now_ms)

    if kind is runs.StartPlanning:
        assert isinstance(answer, Refusal)
        assert (answer.why, answer.at) == (Why.NOT_APPROVED, RunState.CREATED)
        assert "approval of commit cccc" in answer.text
    elif run.state not in runs.LEGAL_IN[kind]:
        assert answer == Refusal(Why.ILLEGAL_MOVE, run.id, run.state, kind.__name__)
    else:
        assert isinstance(answer, Step)
        assert answer.state == folded_run(run, answer.events)
        assert answer.events or not answer.effects


@pytest.mark.parametrize("now_ms", [0, 24 * HOUR_MS])
@pytest.mark.parametrize(("state", "kind"), RUN_PAIRS)
def test_a_run_does_what_its_table_says(state: RunState, kind: type[runs.RunCommand], now_ms: int) -> None:
    """An illegal command is refused by name and state; a legal one folds to its own state."""
    run, command = a_run(state), A_RUN_COMMAND[kind]
    if kind is runs.Advance:
        command = runs.Advance(jobs=all_seen(run, JobState.RUNNING))

    answer = runs.step(run, command, now_ms=now_ms)

    assert run == a_run(state)
    if state not in runs.LEGAL_IN[kind]:
        assert answer == Refusal(Why.ILLEGAL_MOVE, run.id, state, kind.__name__)
    else:
        assert isinstance(answer, Step)
        assert answer.state == folded_run(run, answer.events)
        assert answer.state.revision == run.revision + len(answer.events)
        assert answer.events or not answer.effects
        assert not (state.is_final and answer.events)


def test_a_refusal_is_one_sentence_that_names_command_id_state_reason_and_what_to_do() -> None:
    """People read it in the audit and in answers: it must be understandable alone."""
    bare = Refusal(Why.ILLEGAL_MOVE, "job_1_0", JobState.BLOCKED, "GrantLease")
    hinted = Refusal(
        Why.STALE_LEASE, "job_1_0", JobState.RUNNING, "Complete", "stop: this lease is not the current one"
    )

    assert bare.text == "GrantLease refused for job_1_0 in state BLOCKED: illegal_move"
    assert hinted.text == (
        "Complete refused for job_1_0 in state RUNNING: stale_lease; stop: this lease is not the current one"
    )


def test_the_text_of_an_illegal_move_names_the_states_that_it_starts_from() -> None:
    """It is a bug's first clue."""
    with pytest.raises(IllegalMove, match=r"no move 'lease' from RUNNING: it starts from QUEUED"):
        moved(jobs.MOVES, JobState.RUNNING, "lease")


# ---- every move from every state ---------------------------------------------------------------------------------

MACHINES: list[tuple[str, Mapping[str, Move[Any]], type[StrEnum], set[Any], Mapping[Any, str]]] = [
    ("lease", leases.MOVES, LeaseState, {LeaseState.GRANTED}, leases.END_MOVES),
    ("attempt", attempts.MOVES, AttemptState, {AttemptState.QUEUED}, attempts.END_MOVES),
    ("job", jobs.MOVES, JobState, {JobState.BLOCKED, JobState.QUEUED, JobState.SKIPPED}, jobs.END_MOVES),
    ("run", runs.MOVES, RunState, {RunState.CREATED}, runs.END_MOVES),
]
MACHINE = pytest.mark.parametrize(
    ("table", "states", "first", "ends"), [pytest.param(*row[1:], id=row[0]) for row in MACHINES]
)


def _all_moves() -> Iterator[Any]:
    for name, table, states, _, _ in MACHINES:
        for state, move in itertools.product(states, table):
            yield pytest.param(table, state, move, id=f"{name}-{state}-{move}")


@pytest.mark.parametrize(("table", "state", "move"), list(_all_moves()))
def test_exactly_the_moves_of_the_table_are_possible(table: Mapping[str, Move[Any]], state: Any, move: str) -> None:
    """`moved` is the only door from state to state, and the table is its only key."""
    if state in table[move].sources:
        assert moved(table, state, move) is table[move].target
    else:
        with pytest.raises(IllegalMove):
            moved(table, state, move)


@MACHINE
def test_no_move_starts_from_a_final_state(table: Any, states: Any, first: Any, ends: Any) -> None:
    """What is over stays over: reports, forges and people have been told."""
    assert [name for name, move in table.items() if any(state.is_final for state in move.sources)] == []


@MACHINE
def test_every_state_can_be_reached(table: Any, states: Any, first: Any, ends: Any) -> None:
    """A state that nothing leads to is a word without a meaning."""
    assert _reachable(table, first) == set(states)


@MACHINE
def test_from_every_state_there_is_a_way_to_an_end(table: Any, states: Any, first: Any, ends: Any) -> None:
    """Nothing may wait for ever because its table has a trap."""
    trapped = [state for state in states if not any(each.is_final for each in _reachable(table, {state}))]

    assert trapped == []


@MACHINE
def test_every_final_state_has_its_one_move(table: Any, states: Any, first: Any, ends: Any) -> None:
    """An end is decided by naming the state: the move that leads there must be the only one."""
    leading = {state: [name for name, move in table.items() if move.target is state] for state in states}

    assert {state: [ends[state]] for state in ends} == {state: leading[state] for state in ends}
    assert set(ends) == {state for state in states if state.is_final}


def test_a_job_can_be_canceled_from_every_state_before_its_end() -> None:
    """At once, or by way of CANCEL_REQUESTED when somebody holds it."""
    at_once = jobs.MOVES["cancel"].sources
    asked = jobs.MOVES["request_cancel"].sources

    assert at_once | asked == {state for state in JobState if not state.is_final}


def test_a_run_can_be_asked_to_stop_in_every_state_before_its_end() -> None:
    """There is no moment in which a person's cancel has to be refused."""
    live = {state for state in RunState if not state.is_final}

    assert runs.MOVES["request_cancel"].sources | {RunState.CANCEL_REQUESTED} == live


def _reachable(table: Mapping[str, Move[Any]], first: set[Any]) -> set[Any]:
    found = set(first)
    grown = True
    while grown:
        more = {move.target for move in table.values() if move.sources & found}
        grown = not more <= found
        found |= more
    return found


# ---- impossible mixes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [*JobState])
def test_a_job_has_an_end_reason_if_and_only_if_it_is_over(state: JobState) -> None:
    """An impossible mix fails where it is built, also when it was read from the disk."""
    job = a_job(state)
    broken = None if state.is_final else EndReason.SUCCEEDED

    with pytest.raises(ValueError, match="with end reason"):
        msgspec.structs.replace(job, end_reason=broken)


@pytest.mark.parametrize("state", [*RunState])
def test_a_run_has_an_end_reason_if_and_only_if_it_is_over(state: RunState) -> None:
    """As for jobs: whoever reads the reason need not ask for the state."""
    run = a_run(state)
    broken = None if state.is_final else EndReason.SUCCEEDED

    with pytest.raises(ValueError, match="with end reason"):
        msgspec.structs.replace(run, end_reason=broken)


@pytest.mark.parametrize("state", [RunState.PLANNING, RunState.QUEUED, RunState.RUNNING])
def test_a_run_that_nobody_approved_is_nowhere_behind_its_plan(state: RunState) -> None:
    """Also when it was read from the disk: whoever makes one up has made a mistake."""
    with pytest.raises(ValueError, match="nobody has approved it"):
        msgspec.structs.replace(a_held_run(), state=state)
    with pytest.raises(ValueError, match="nobody has approved it"):
        msgspec.structs.replace(a_held_run(), jobs=(ref("test"),))


@pytest.mark.parametrize("state", [*JobState])
def test_a_job_comes_back_from_the_disk_as_it_was_stored(state: JobState) -> None:
    """The snapshot is what a crashed actor restarts from."""
    job = a_job(state)

    assert msgspec.json.decode(msgspec.json.encode(job), type=jobs.Job) == job


@pytest.mark.parametrize("state", [*RunState])
def test_a_run_comes_back_from_the_disk_as_it_was_stored(state: RunState) -> None:
    """As for jobs."""
    run = a_run(state)

    assert msgspec.json.decode(msgspec.json.encode(run), type=runs.Run) == run


def test_job_refs_keep_their_needs() -> None:
    """A run knows its graph without asking its jobs."""
    assert ref("test", "build") == JobRef(id="test", name="test", needs=("build",))


def test_a_run_without_a_plan_ends_by_way_of_a_cancel_or_for_want_of_one() -> None:
    """The table has no move that no decision makes: before its plan a run cannot time out or succeed directly."""
    before_the_plan = {RunState.CREATED, RunState.PLANNING}

    direct = {name: move.sources & before_the_plan for name, move in runs.MOVES.items() if move.target.is_final}

    assert direct == {"succeed": set(), "fail": {RunState.PLANNING}, "time_out": set(), "cancel": set()}
