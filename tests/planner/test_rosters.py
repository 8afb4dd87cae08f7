"""What a process told of rosters is kept, bounded, and only a plan that fits it is put together with it."""

import msgspec
import pytest

from deltaci.domain.plan import Plan, PlannedJob, Reason
from deltaci.planner.messages import Failed, Planned, Request
from deltaci.planner.roster import Rest
from deltaci.planner.rosters import Rosters

FOUND, SKIP, RUN = (Reason(rule=rule, text=rule) for rule in ("discovered", "not-affected", "project-changed"))


def job(name: str, *reasons: Reason, is_skipped: bool = False) -> PlannedJob:
    return PlannedJob(name=name, steps=(), reasons=(FOUND, *reasons), is_skipped=is_skipped)


def request(directory: str = "/r.git") -> Request:
    return Request(number=1, directory=directory, repo_id="r", commit_sha="c" * 40)


def reply(number: int, *own: PlannedJob, at: tuple[int, ...] = (), told: tuple[str, ...] | None = None) -> Planned:
    return Planned(
        number=1,
        plan=Plan(commit_sha="c" * 40, base_sha=None, source="discovery", jobs=own),
        rest=Rest(number=number, places=at, reason=SKIP, is_skipped=True),
        jobs=None if told is None else tuple(map(job, told)),
    )


def jobs(answer: object) -> list[PlannedJob]:
    assert isinstance(answer, Planned)
    return [*answer.plan.jobs]


def test_a_plan_has_its_own_jobs_where_they_belong_and_the_rest_from_the_roster() -> None:
    """Told once, then known."""
    rosters = Rosters()

    first = rosters.whole(request(), reply(7, job("b", RUN), at=(1,), told=("a", "b", "c")))
    second = rosters.whole(request(), reply(7, job("c", RUN), at=(2,)))

    a, b, c = (job(name, SKIP, is_skipped=True) for name in "abc")
    assert jobs(first) == [a, job("b", RUN), c]
    assert jobs(second) == [a, b, job("c", RUN)]


def test_what_is_known_is_said_with_each_request() -> None:
    """The process need not remember who knows what."""
    rosters = Rosters()
    before = rosters.asking(request())

    rosters.whole(request(), reply(7, told=("a",)))
    rosters.whole(request("/other.git"), reply(8, told=("a",)))

    assert before.roster is None
    assert [rosters.asking(request(name)).roster for name in ("/r.git", "/other.git", "/third.git")] == [7, 8, None]


@pytest.mark.parametrize(
    "answer",
    [reply(8), reply(7, job("a"), at=(3,)), reply(7, job("a"), at=(-1,)), reply(7, job("a")), reply(7, at=(0,))],
    ids=["another", "behind", "before", "nowhere", "nothing"],
)
def test_a_plan_that_does_not_fit_is_no_plan(answer: Planned) -> None:
    """A process that plans what it likes may say anything."""
    rosters = Rosters()
    rosters.whole(request(), reply(7, told=("a", "b", "c")))

    with pytest.raises(ValueError, match=r"roster 8 was not told; the last one is 7|is at -?\d of 3|zip\(\)"):
        rosters.whole(request(), answer)


def test_what_is_kept_is_bounded() -> None:
    """The one that was used longest ago goes first; the newest stays, however large."""
    rosters = Rosters(jobs_max=3)
    for number, name in enumerate(("/1.git", "/2.git")):
        rosters.whole(request(name), reply(number, told=("a",)))
    rosters.whole(request("/1.git"), reply(0))

    rosters.whole(request("/3.git"), reply(3, told=("a", "b")))
    some = [rosters.asking(request(f"/{n}.git")).roster for n in (1, 2, 3)]
    rosters.whole(request("/4.git"), reply(4, told=tuple("abcdef")))
    one = [rosters.asking(request(f"/{n}.git")).roster for n in (1, 2, 3, 4)]

    assert some == [0, None, 3]
    assert one == [None, None, None, 4]


def test_other_replies_pass() -> None:
    """A failure, and a plan that has all its jobs."""
    failed = Failed(number=1, text="no")
    complete = msgspec.structs.replace(reply(7, job("a")), rest=None)

    assert [Rosters().whole(request(), each) for each in (failed, complete)] == [failed, complete]
