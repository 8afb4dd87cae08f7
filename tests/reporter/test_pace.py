"""What goes first, what is kept for it, and when nothing goes: decisions about what a forge is told."""

import pytest

from deltaci.forge.budget import WriteBudget
from deltaci.reporter.pace import AGAIN_MAX_MS, PUT_OFF_MS, TURN_MAX, Pace
from deltaci.reporter.tellings import COMMENT, KEEP, REJECTIONS_MAX, Rank, Telling, open_tellings


def a_telling(check: str, rank: Rank, state: str = "success", words: str = "w") -> Telling:
    is_final = rank not in (Rank.LIVE_RUN, Rank.LIVE_JOB)
    return Telling(check=check, state=state, words=words, is_final=is_final, rank=rank, body=None)


def names(tellings: tuple[Telling, ...]) -> list[str]:
    return [one.check for one in tellings]


WANTED = (
    a_telling("green", Rank.JOB),
    a_telling("live", Rank.LIVE_JOB, "running"),
    a_telling("red", Rank.RED_JOB, "failure"),
    a_telling("", Rank.RUN, "failure"),
    a_telling(COMMENT, Rank.COMMENT, "failure"),
)


def test_final_states_go_first_and_what_holds_a_change_back_before_all() -> None:
    """People wait for these."""
    assert names(open_tellings(WANTED, {}, ())) == ["red", "green", "", "live", COMMENT]


def test_better_words_for_what_was_told_go_last() -> None:
    """A state that somebody does not know yet is worth more."""
    told = {"red": "failure:old words", "green": WANTED[0].digest}

    assert names(open_tellings(WANTED, told, ())) == ["", "live", COMMENT, "red"]


def test_what_was_told_as_over_is_never_told_as_not_over() -> None:
    """Also if somebody reads an old state: the order that a forge sees never goes backwards."""
    assert names(open_tellings(WANTED[1:2], {"live": "success:w"}, ())) == []
    assert names(open_tellings(WANTED[1:2], {"live": "queued:w"}, ())) == ["live"]
    assert names(open_tellings(WANTED[1:2], {"live": ""}, ())) == ["live"]


def test_after_a_few_refusals_only_the_run_is_tried() -> None:
    """A wrong token is refused for each job alike."""
    refused = [f"refused {number}" for number in range(REJECTIONS_MAX)]

    assert names(open_tellings(WANTED, {}, refused)) == [""]
    assert names(open_tellings(WANTED, {}, [*refused, ""])) == []


def test_each_rank_leaves_something_to_those_that_matter_more() -> None:
    """Of the last writes of a minute none goes to what is not over, and the very last is the run's."""
    budget, told = WriteBudget(), []
    pace = Pace(budget)
    for _ in range(80):
        chosen = pace.choose("a", [a_telling("live", Rank.LIVE_JOB), a_telling("", Rank.RUN)], 0)
        assert isinstance(chosen, Telling)
        budget.spent("a", 0)
        told.append(chosen.check)

    assert ["live"] * (80 - KEEP[Rank.LIVE_JOB]) + [""] * KEEP[Rank.LIVE_JOB] == told
    wait_ms = pace.choose("a", WANTED, 0)
    assert isinstance(wait_ms, int)
    assert wait_ms >= 60_000
    assert isinstance(pace.choose("a", WANTED, wait_ms), Telling)


def test_every_rank_has_its_share() -> None:
    """One that was added later must not be a crash; no rank keeps so much that it never gets a turn of its own."""
    assert set(KEEP) == set(Rank)
    assert max(KEEP.values()) <= 40
    assert KEEP[Rank.RUN] == 0


def test_who_asked_to_be_left_alone_is_left_alone() -> None:
    """For as long as it asked to, by this account; a shorter wish does not undo a longer one."""
    pace = Pace(WriteBudget())
    pace.leave_alone("a", 5_000, 1_000)
    pace.leave_alone("a", 100, 1_000)

    assert pace.choose("a", WANTED, 3_000) == 3_000
    assert WANTED[0] == pace.choose("b", WANTED, 3_000)
    assert WANTED[0] == pace.choose("a", WANTED, 6_000)


def test_a_run_makes_way_only_for_others_that_wait() -> None:
    """Alone it goes on; after a few things in a row it lets the others have their turn, until they had it."""
    pace = Pace(WriteBudget())
    pace.put_off("a", "run_1", 0)

    assert not pace.is_turn_over("a", "run_1", 1_000, 0)
    assert pace.is_turn_over("a", "run_2", TURN_MAX, 0)
    assert not pace.is_turn_over("a", "run_2", TURN_MAX - 1, 0)
    assert not pace.is_turn_over("b", "run_2", TURN_MAX, 0)
    assert not pace.is_turn_over("a", "run_2", TURN_MAX, PUT_OFF_MS)


@pytest.mark.parametrize(("failures", "wait_ms"), [(1, 1_000), (2, 2_000), (4, 8_000), (50, AGAIN_MAX_MS)])
def test_a_forge_that_keeps_failing_is_asked_ever_less(failures: int, wait_ms: int) -> None:
    """One success, and the next failure is a first one again."""
    pace = Pace(WriteBudget())

    assert wait_ms == [pace.failed("run_1") for _ in range(failures)][-1]
    assert pace.failed("run_2") == 1_000
    pace.succeeded("run_1")
    assert pace.failed("run_1") == 1_000
