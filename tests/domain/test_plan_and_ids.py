"""Plans, ids and what a trigger becomes: the small pure functions."""

import itertools
import random

import pytest

from deltaci.domain import ids
from deltaci.domain.plan import Plan, PlannedJob, Step, digest, first_cycle
from deltaci.domain.repo import Latest, SameRun, StartRun, admit, run_key
from deltaci.domain.states import EndReason, RunState
from tests.domain.builders import A_KEY, A_TRIGGER

# ---- cycles ------------------------------------------------------------------------------------------------------


def _graphs(size: int) -> list[dict[str, tuple[str, ...]]]:
    """Every directed graph of `size` jobs, self-needs included."""
    names = [str(number) for number in range(size)]
    choices = [c for length in range(size + 1) for c in itertools.combinations(names, length)]
    return [dict(zip(names, needs, strict=True)) for needs in itertools.product(choices, repeat=size)]


def _has_cycle(needs: dict[str, tuple[str, ...]]) -> bool:
    """By brute force: take away jobs that need nothing until none is left or none can be."""
    left = {job: {need for need in of if need in needs} for job, of in needs.items()}
    while free := [job for job, of in left.items() if not of]:
        left = {job: of - set(free) for job, of in left.items() if job not in free}
    return bool(left)


def _assert_right(needs: dict[str, tuple[str, ...]]) -> None:
    cycle = first_cycle(needs)
    assert (cycle is not None) == _has_cycle(needs), needs
    if cycle is not None:
        assert cycle[0] == cycle[-1], needs
        assert len(set(cycle)) == len(cycle) - 1, needs
        assert all(need in needs[job] for job, need in itertools.pairwise(cycle)), needs


@pytest.mark.parametrize("size", [0, 1, 2, 3])
def test_a_cycle_is_found_exactly_in_those_small_graphs_that_have_one(size: int) -> None:
    """All 512 graphs of three jobs, against brute force; the path it names is really one that closes."""
    for needs in _graphs(size):
        _assert_right(needs)


@pytest.mark.parametrize("seed", range(20))
def test_a_cycle_is_found_exactly_in_those_random_graphs_that_have_one(seed: int) -> None:
    """Larger ones, with repeated needs and needs that nobody planned."""
    rng = random.Random(seed)
    for _ in range(100):
        size = rng.randint(4, 9)
        names = [str(number) for number in range(size)]
        of = [tuple(rng.choices([*names, "unknown"], k=rng.choice((0, 1, 1, 2)))) for _ in names]
        _assert_right(dict(zip(names, of, strict=True)))


def test_a_chain_of_ten_thousand_jobs_does_not_overflow_the_stack() -> None:
    """A plan may be long: the search keeps its own stack."""
    needs: dict[str, tuple[str, ...]] = {str(number): (str(number + 1),) for number in range(10_000)}

    assert first_cycle(needs) is None
    assert first_cycle({**needs, "10000": ("0",)}) is not None


# ---- digest ------------------------------------------------------------------------------------------------------


def _plan(env: dict[str, str], name: str = "test") -> Plan:
    step = Step(name="run", run="make test", env=env)
    return Plan(
        commit_sha="c0ffee", base_sha=None, source="discovery", jobs=(PlannedJob(name=name, steps=(step,), env=env),)
    )


def test_equal_plans_have_equal_digests_whatever_the_order_of_their_mappings() -> None:
    """ "Same inputs, same plan" is checked by digest: the order in which a parser met two keys is no difference."""
    one, other = _plan({"A": "1", "B": "2"}), _plan({"B": "2", "A": "1"})

    assert digest(one) == digest(other)


def test_different_plans_have_different_digests() -> None:
    """One letter is enough."""
    assert len({digest(_plan({})), digest(_plan({"A": ""})), digest(_plan({}, name="tests"))}) == 3


def test_the_digest_of_a_plan_never_changes() -> None:
    """It is stored: a program that computed another one for an old plan would call it changed."""
    assert digest(_plan({"A": "1"})) == "27f4f4dc5d371715f4af2cf367d228ab13a1a182600b46e4b9efaf7d028e188f"


# ---- ids ---------------------------------------------------------------------------------------------------------


def test_ids_sort_by_the_time_they_were_made() -> None:
    """Lists page by id: later is greater, whatever the random part says."""
    rng = random.Random(1)
    instants = sorted(rng.sample(range(2**44), 500))

    made = [ids.new_id("run", now_ms=now_ms, random=rng.randbytes(ids.RANDOM_BYTES)) for now_ms in instants]

    assert made == sorted(made)
    assert {len(each) for each in made} == {len("run_") + ids.TIME_CHARACTERS + ids.RANDOM_CHARACTERS}


def test_the_time_is_read_off_an_id() -> None:
    """To the millisecond, over all the time that ids can tell."""
    for now_ms in (0, 1, 31, 32, 1_700_000_000_123, 2**45 - 1):
        assert ids.made_at_ms(ids.new_id("run", now_ms=now_ms, random=bytes(7))) == now_ms


def test_ids_of_one_millisecond_differ_by_their_random_part() -> None:
    """Two runs of the same instant are two runs."""
    rng = random.Random(1)

    made = {ids.new_id("run", now_ms=7, random=rng.randbytes(ids.RANDOM_BYTES)) for _ in range(1_000)}

    assert len(made) == 1_000


def test_ids_have_no_letters_to_misread() -> None:
    """Ids are read out on the telephone."""
    made = ids.new_id("run", now_ms=2**45 - 1, random=b"\xff" * ids.RANDOM_BYTES)

    assert made == "run_" + "z" * 19
    assert not set("ilou") & set(ids.ALPHABET)


@pytest.mark.parametrize("index", [0, 9, 10, 999])
def test_the_run_of_a_job_is_read_off_its_id(index: int) -> None:
    """A job's path must be known from its id alone: a message to it may be the first after a restart."""
    run_id = ids.new_id("run", now_ms=1, random=b"1234567")

    assert ids.run_of(ids.job_id(run_id, index)) == run_id


@pytest.mark.parametrize(
    "nonsense",
    ["", "_", "job", "job_", "job_1", "job__", "job__1", "run_1_0", "job_1_", "job_1_x", "job_1_-1", "JOB_1_0"],
)
def test_what_is_no_job_id_has_no_run(nonsense: str) -> None:
    """Ids come in with requests: nonsense is answered, not crashed on."""
    assert ids.run_of(nonsense) is None


def test_a_lease_token_is_128_random_bits_and_only_its_hash_is_for_keeping() -> None:
    """It is the fence and a secret."""
    token = ids.lease_token(bytes(range(32)))

    assert token == "000102030405060708090a0b0c0d0e0f"
    assert ids.hashed(token) == ids.hashed(token)
    assert token not in ids.hashed(token)


# ---- what a trigger becomes --------------------------------------------------------------------------------------


def test_the_key_of_a_run_is_what_its_trigger_is_about() -> None:
    """The same commit pushed twice is one run, whoever pushed it and under whatever title."""
    assert run_key("repo_1", A_TRIGGER) == A_KEY


@pytest.mark.parametrize("state", list(RunState))
def test_a_trigger_whose_key_is_known_is_the_run_that_it_already_is(state: RunState) -> None:
    """Running or over, good or bad: a duplicate changes nothing, and does not bring back what a person stopped."""
    reason = EndReason.USER_CANCELED if state.is_final else None
    cancel_reason = EndReason.USER_CANCELED if state is RunState.CANCEL_REQUESTED else None

    assert admit(Latest("run_1", 2, state, reason, cancel_reason)) == SameRun("run_1")


def test_a_trigger_without_a_run_starts_its_first_attempt() -> None:
    """Attempts of a run are numbered from 1."""
    assert admit(None) == StartRun(1)


def test_a_superseded_run_starts_again_when_its_commit_is_pushed_again() -> None:
    """A branch that was reset to an older commit must not show a canceled run for ever."""
    assert admit(Latest("run_1", 2, RunState.CANCELED, EndReason.SUPERSEDED)) == StartRun(3)
    assert admit(Latest("run_1", 2, RunState.CANCEL_REQUESTED, None, EndReason.SUPERSEDED)) == StartRun(3)
    assert admit(Latest("run_1", 2, RunState.CANCELED, EndReason.CLOSED)) == StartRun(3)
