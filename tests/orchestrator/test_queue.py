"""Which queued job a runner gets: the rules one by one, then any history against a model that looks at everything."""

import random
from typing import Any

import pytest

from deltaci.orchestrator.queue import JobQueue
from deltaci.store.port import QueuedJob

NOBODY: frozenset[str] = frozenset()


def a_queued(job_id: str = "job_a_0", **more: Any) -> QueuedJob:
    values = {"repo_id": "r1", "labels": (), "priority": 0, "queued_at_ms": 0, "not_before_ms": 0}
    return QueuedJob(job_id=job_id, **(values | more))


def a_queue(*queued: QueuedJob, now_ms: int = 0) -> JobQueue:
    queue = JobQueue()
    for job in queued:
        queue.put(job, now_ms=now_ms)
    return queue


def taken(queue: JobQueue, *labels: str, count: int = 1, now_ms: int = 0) -> list[str]:
    return [job.job_id for job in queue.take(frozenset(labels), count, now_ms=now_ms)]


def test_a_runner_gets_only_jobs_whose_labels_it_has() -> None:
    """A job that wants linux and gpu waits for a runner with both; more labels than wanted do no harm."""
    queue = a_queue(a_queued("gpu", labels=("linux", "gpu")), a_queued("any", queued_at_ms=9))

    assert taken(queue, "linux", count=5) == ["any"]
    assert taken(queue, "linux", "gpu", "big", count=5) == ["gpu"]


def test_the_higher_priority_goes_first_then_the_older_job() -> None:
    """Priority orders the jobs of a repository, age those of one priority, the id those of one instant."""
    queue = a_queue(
        a_queued("late", queued_at_ms=2),
        a_queued("early-b", queued_at_ms=1),
        a_queued("early-a", queued_at_ms=1),
        a_queued("urgent", queued_at_ms=3, priority=5),
    )

    assert taken(queue, count=9) == ["urgent", "early-a", "early-b", "late"]


def test_the_repository_with_the_fewest_running_jobs_goes_first() -> None:
    """A thousand jobs of one repository do not keep the single job of another one waiting."""
    queue = a_queue(*(a_queued(f"many-{number}", queued_at_ms=number) for number in range(4)))
    assert taken(queue, count=2) == ["many-0", "many-1"]

    queue.put(a_queued("single", repo_id="r2", queued_at_ms=99), now_ms=0)

    assert taken(queue, count=3) == ["single", "many-2", "many-3"]


def test_a_repository_at_its_limit_waits_until_a_job_of_its_own_ends() -> None:
    """running_max counts held jobs, whoever holds them; the end of one lets the next one go."""
    queue = a_queue(a_queued("a"), a_queued("b", queued_at_ms=1), a_queued("c", queued_at_ms=2))
    queue.limit("r1", 2)

    assert taken(queue, count=9) == ["a", "b"]
    assert queue.is_at_limit("r1")
    queue.drop("a")
    assert taken(queue, count=9) == ["c"]


def test_a_limit_that_is_lifted_lets_the_waiting_jobs_go() -> None:
    """Nothing has to be queued again for that."""
    queue = a_queue(a_queued("a"), a_queued("b"))
    queue.limit("r1", 1)
    assert taken(queue, count=9) == ["a"]
    assert taken(queue, count=9) == []

    queue.limit("r1", 0)

    assert taken(queue, count=9) == ["b"]


def test_a_delayed_job_is_given_from_its_instant_on_and_not_before() -> None:
    """The retry backoff is over at not_before_ms, to the millisecond."""
    queue = a_queue(a_queued("later", not_before_ms=100))

    assert taken(queue, now_ms=99) == []
    assert taken(queue, now_ms=100) == ["later"]


def test_a_job_put_twice_is_given_once() -> None:
    """A repeated notification, or one that a reconciler sent again, makes no second job."""
    queue = a_queue(a_queued("a"), a_queued("a"), a_queued("d", not_before_ms=5), a_queued("d", not_before_ms=5))

    assert len(queue) == 2
    assert taken(queue, count=9, now_ms=5) == ["a", "d"]
    assert taken(queue, count=9, now_ms=5) == []


def test_a_job_that_was_offered_and_put_again_is_offered_again() -> None:
    """The offer came to nothing: the job is queued as before, and no longer counts as running."""
    queue = a_queue(a_queued("a"))
    assert taken(queue) == ["a"]

    queue.put(a_queued("a"), now_ms=0)

    assert (len(queue), queue.running("r1")) == (1, 0)
    assert taken(queue) == ["a"]


def test_a_job_that_is_held_or_dropped_is_not_given() -> None:
    """Another runner has it, or it was canceled."""
    queue = a_queue(a_queued("held"), a_queued("gone"), a_queued("left"))

    queue.hold("held", "r1")
    queue.hold("held", "r1")
    queue.drop("gone")
    queue.drop("gone")

    assert queue.running("r1") == 1
    assert taken(queue, count=9) == ["left"]


def test_a_retried_job_of_the_same_instant_waits_for_its_backoff() -> None:
    """What is left of its earlier place in the queue must not give it away early."""
    queue = a_queue(a_queued("first"), a_queued("retried", queued_at_ms=1))
    queue.hold("retried", "r1")

    queue.put(a_queued("retried", queued_at_ms=1, not_before_ms=50), now_ms=1)

    assert taken(queue, count=9, now_ms=1) == ["first"]
    assert taken(queue, count=9, now_ms=50) == ["retried"]


# ---- any history -------------------------------------------------------------------------------------------------


class Model:
    """The rules of the queue, by looking at every job each time."""

    def __init__(self) -> None:
        self.queued: dict[str, QueuedJob] = {}
        self.held: dict[str, tuple[str, str]] = {}
        self.limits: dict[str, int] = {}

    def running(self, repo_id: str) -> int:
        return sum(one == repo_id for one, _ in self.held.values())

    def take(self, labels: frozenset[str], count: int, now_ms: int) -> list[str]:
        given: list[str] = []
        while len(given) < count:
            fit = [
                job
                for job in self.queued.values()
                if frozenset(job.labels) <= labels
                and job.not_before_ms <= now_ms
                and not 0 < self.limits.get(job.repo_id, 0) <= self.running(job.repo_id)
                and not (job.concurrency and self.is_behind(job, now_ms))
            ]
            if not fit:
                break
            best = min(fit, key=lambda job: (self.running(job.repo_id), -job.priority, job.queued_at_ms, job.job_id))
            given.append(best.job_id)
            self.hold(best.job_id, best.repo_id, best.concurrency)
        return given

    def is_behind(self, job: QueuedJob, now_ms: int) -> bool:
        """Whether its group is held, or somebody older of it wants the same labels."""
        group = (job.repo_id, job.concurrency)
        return group in self.held.values() or any(
            (other.queued_at_ms, other.job_id) < (job.queued_at_ms, job.job_id)
            for other in self.queued.values()
            if (other.repo_id, other.concurrency) == group
            and frozenset(other.labels) == frozenset(job.labels)
            and other.not_before_ms <= now_ms
        )

    def put(self, job: QueuedJob) -> None:
        self.held.pop(job.job_id, None)
        self.queued[job.job_id] = job

    def hold(self, job_id: str, repo_id: str, concurrency: str = "") -> None:
        self.queued.pop(job_id, None)
        self.held.setdefault(job_id, (repo_id, concurrency))

    def drop(self, job_id: str) -> None:
        self.queued.pop(job_id, None)
        self.held.pop(job_id, None)


@pytest.mark.parametrize("seed", range(40))
def test_any_history_of_the_queue_gives_what_a_look_at_every_job_gives(seed: int) -> None:
    """Heads left behind, jobs put twice, limits that move: none of it changes who goes next."""
    chance = random.Random(seed)
    queue, model, now_ms = JobQueue(), Model(), 0
    names = [f"job_{number}" for number in range(chance.choice((3, 12)))]
    repo_of = {name: f"r{chance.randrange(3)}" for name in names}
    labels_of = {name: tuple(chance.sample(("linux", "gpu", "arm"), chance.randrange(3))) for name in names}
    group_of = {name: chance.choice(("", "deploy", "docs") if seed % 4 else ("",)) for name in names}

    for _ in range(400):
        now_ms += chance.randrange(3)
        name = chance.choice(names)
        match chance.randrange(10):
            case 0 | 1 | 2 | 3:
                job = QueuedJob(
                    job_id=name,
                    repo_id=repo_of[name],
                    labels=labels_of[name],
                    priority=chance.randrange(2),
                    queued_at_ms=now_ms - chance.randrange(2),
                    not_before_ms=now_ms + chance.choice((0, 0, 4)),
                    concurrency=group_of[name],
                )
                for _ in range(chance.choice((1, 1, 2))):
                    queue.put(job, now_ms=now_ms)
                    model.put(job)
            case 4:
                queue.hold(name, repo_of[name], group_of[name])
                model.hold(name, repo_of[name], group_of[name])
            case 5:
                queue.drop(name)
                model.drop(name)
            case 6:
                repo_id, limit = f"r{chance.randrange(3)}", chance.randrange(3)
                queue.limit(repo_id, limit)
                model.limits[repo_id] = limit
            case _:
                has = frozenset(chance.sample(("linux", "gpu", "arm"), chance.randrange(4)))
                count = chance.randrange(1, 4)
                assert taken(queue, *has, count=count, now_ms=now_ms) == model.take(has, count, now_ms)
        assert set(queue.job_ids()) == set(model.queued)
        assert queue.held_count == len(model.held)
        assert all(queue.running(one) == model.running(one) for one in set(repo_of.values()))
        held = set(model.held.values())
        pairs = {(repo_of[name], group_of[name]) for name in names if group_of[name]}
        assert all(queue.is_group_held(*pair) == (pair in held) for pair in pairs)


def size_of(queue: JobQueue) -> int:
    lanes = queue._lanes.values()
    return (
        len(queue._delayed)
        + sum(len(lane.heads) for lane in lanes)
        + sum(len(ranks) for lane in lanes for ranks in lane.by_repo.values())
        + sum(1 for _ in lanes)
        + sum(len(line) for group in queue._groups.values() for line in group.lines.values())
        + sum(1 + len(group.fronts) for group in queue._groups.values())
    )


@pytest.mark.slow
def test_a_hundred_thousand_jobs_leave_nothing_behind() -> None:
    """Entries are left behind and recognised as old; they are swept out before they pile up."""
    queue = a_queue(a_queued("oldest", labels=("nobody",), queued_at_ms=-1, priority=1))

    for number in range(100_000):
        job_id = f"job_{number}"
        delay_ms = 1_000_000 if number % 3 == 0 else 0
        queue.put(a_queued(job_id, labels=("nobody",), queued_at_ms=number, not_before_ms=delay_ms), now_ms=0)
        queue.put(a_queued(f"taken_{number}", queued_at_ms=number), now_ms=0)
        assert taken(queue) == [f"taken_{number}"]
        queue.drop(f"taken_{number}")
        queue.drop(job_id)

    assert len(queue) == 1
    assert size_of(queue) < 500


def test_one_job_of_a_group_at_a_time_the_oldest_first() -> None:
    """Whatever their priorities: of deployments the older one goes first."""
    queue = a_queue(
        a_queued("late", concurrency="deploy", queued_at_ms=2, priority=9),
        a_queued("early", concurrency="deploy", queued_at_ms=1),
        a_queued("free", queued_at_ms=3),
    )

    assert taken(queue, count=9) == ["early", "free"]
    assert queue.is_group_held("r1", "deploy")
    assert taken(queue, count=9) == []
    queue.drop("early")
    assert taken(queue, count=9) == ["late"]


def test_a_job_of_a_group_that_no_runner_can_run_keeps_nobody_waiting() -> None:
    """Only among those that want the same labels does the older one go first."""
    queue = a_queue(
        a_queued("gpu", concurrency="deploy", labels=("gpu",)),
        a_queued("any", concurrency="deploy", queued_at_ms=1),
    )

    assert taken(queue, count=9) == ["any"]
    assert taken(queue, "gpu", count=9) == []
    queue.put(a_queued("any", concurrency="deploy", queued_at_ms=5), now_ms=5)
    assert taken(queue, "gpu", count=9, now_ms=5) == ["gpu"]


def test_groups_of_one_name_in_two_repositories_are_two() -> None:
    """Nobody knows of the other's names."""
    queue = a_queue(*(a_queued(f"job_{repo}", repo_id=repo, concurrency="deploy") for repo in ("r1", "r2")))

    assert taken(queue, count=9) == ["job_r1", "job_r2"]


@pytest.mark.slow
def test_a_hundred_thousand_jobs_of_one_group_are_not_looked_at_one_by_one() -> None:
    """A look costs what it costs with one; counted in entries that were moved, not in seconds."""
    queue = JobQueue()
    for number in range(100_000):
        queue.put(a_queued(f"job_{number:06}", concurrency="deploy", queued_at_ms=number), now_ms=0)

    lane = queue._lanes[frozenset()]
    in_lane = len(lane.by_repo["r1"])
    for number in range(100_000):
        assert taken(queue, count=2) == [f"job_{number:06}"]
        queue.drop(f"job_{number:06}")

    assert in_lane == 1
    assert len(queue) == 0
    assert size_of(queue) < 500


def test_labels_that_nobody_wants_any_more_are_forgotten() -> None:
    """Each set of labels has a lane of its own; a plan may name a new set each time."""
    queue = JobQueue()

    for number in range(2_000):
        queue.put(a_queued(f"job_{number}", labels=(f"host-{number}",)), now_ms=0)
        queue.drop(f"job_{number}")

    assert size_of(queue) < 500


def test_a_job_put_again_and_again_takes_one_place() -> None:
    """The same notification, repeated for ever, costs no memory."""
    queue = JobQueue()

    for _ in range(5_000):
        queue.put(a_queued("a", labels=("nobody",)), now_ms=0)
        queue.put(a_queued("d", not_before_ms=9), now_ms=0)

    assert size_of(queue) < 500
