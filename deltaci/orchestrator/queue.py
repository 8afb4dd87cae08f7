"""The queue of dispatch: which queued job a runner gets next.

Rule 1: among the jobs whose labels the runner has, the repository with the fewest running jobs goes first; within a
        repository the higher priority, then the older job.
Rule 2: of the jobs of a repository with the same concurrency group, one at a time is given away. Among those that want
        the same labels only the oldest stands in its lane; the others stand in line behind it.
Rule 3: it is a copy of what the store says, never the truth: a job offered twice is refused by its own actor.
Rule 4: taking one of n queued jobs costs O(log n), whatever n is: entries are left behind, recognised as old by their
        ticket, and swept out before there are more of them than of jobs.

Synchronous and deterministic: no clock, no I/O, no randomness.
"""

import heapq
from collections.abc import Iterable
from typing import Final, TypeAlias

from deltaci.store.port import QueuedJob

Labels: TypeAlias = frozenset[str]
# (-priority, queued_at_ms, job id, ticket): the order of jobs within one repository and one label set
Rank: TypeAlias = tuple[int, int, str, int]

# (queued_at_ms, job id, ticket): the order of jobs within one concurrency group and one label set
Place: TypeAlias = tuple[int, str, int]

# Entries left behind that are not worth a sweep
OLD_ENTRIES_MIN: Final = 128


class Lane:
    """The queued jobs that want the same labels, by repository."""

    def __init__(self) -> None:
        self.by_repo: dict[str, list[Rank]] = {}
        # (running jobs of the repository, its best rank, repository): may hold entries that are out of date
        self.heads: list[tuple[int, Rank, str]] = []


class Group:
    """A concurrency group: the jobs that hold it, and by labels who stands in the lane and who in line for that."""

    def __init__(self) -> None:
        self.holders: set[str] = set()
        self.fronts: dict[Labels, str] = {}
        self.lines: dict[Labels, list[Place]] = {}


class JobQueue:
    """Queued jobs and the number of held ones per repository."""

    def __init__(self) -> None:
        self._jobs: dict[str, QueuedJob] = {}
        # Each time a job is put it gets a new ticket; an entry with another one is out of date.
        self._tickets: dict[str, int] = {}
        self._last_ticket = 0
        self._entries = 0
        self._now_ms = 0
        self._lanes: dict[Labels, Lane] = {}
        self._delayed: list[tuple[int, str, int]] = []
        self._groups: dict[tuple[str, str], Group] = {}
        self._held: dict[str, tuple[str, str]] = {}  # job id -> repository id, concurrency group
        self._running: dict[str, int] = {}
        self._running_max: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._jobs)

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._jobs

    @property
    def held_count(self) -> int:
        """Jobs given away and not yet over."""
        return len(self._held)

    def running(self, repo_id: str) -> int:
        """Held jobs of the repository."""
        return self._running.get(repo_id, 0)

    def limit(self, repo_id: str, running_max: int) -> None:
        """At most `running_max` jobs of the repository run at once; 0 lifts the limit."""
        if self._running_max.get(repo_id, 0) != running_max:
            self._running_max[repo_id] = running_max
            self._refresh(repo_id)

    def is_at_limit(self, repo_id: str) -> bool:
        """Whether the repository has as many running jobs as it may."""
        running_max = self._running_max.get(repo_id, 0)
        return running_max > 0 and self.running(repo_id) >= running_max

    def is_group_held(self, repo_id: str, concurrency: str) -> bool:
        """Whether a held job is of this concurrency group."""
        group = self._groups.get((repo_id, concurrency))
        return group is not None and bool(group.holders)

    def put(self, job: QueuedJob, *, now_ms: int) -> None:
        """Queue `job`; if it was held before, it no longer is. Putting it twice is putting it once."""
        self._unhold(job.job_id)
        if self._jobs.get(job.job_id) == job:
            return
        self._forget(job.job_id)
        self._now_ms = max(self._now_ms, now_ms)
        self._jobs[job.job_id] = job
        self._stamp(job.job_id)
        self._place(job)
        if self._entries > OLD_ENTRIES_MIN + 2 * len(self._jobs):
            self._sweep()

    def hold(self, job_id: str, repo_id: str, concurrency: str = "") -> None:
        """Count the job as held by a runner, and its concurrency group as held; it is not queued any more."""
        is_new = job_id not in self._held
        if is_new and concurrency:
            self._close(repo_id, concurrency, job_id)
        self._forget(job_id)
        if is_new:
            self._held[job_id] = (repo_id, concurrency)
            self._running[repo_id] = self.running(repo_id) + 1
            self._refresh(repo_id)

    def drop(self, job_id: str) -> None:
        """Forget the job: it ended, or was never there."""
        self._forget(job_id)
        self._unhold(job_id)

    def take(self, labels: Labels, count: int, *, now_ms: int) -> tuple[QueuedJob, ...]:
        """Up to `count` jobs for a runner with `labels`; they are held from now on."""
        self._promote(now_ms)
        taken: list[QueuedJob] = []
        lanes = [lane for wanted, lane in self._lanes.items() if wanted <= labels]
        while len(taken) < count:
            best: Lane | None = None
            for lane in lanes:
                if self._clean(lane) and (best is None or lane.heads[0] < best.heads[0]):
                    best = lane
            if best is None:
                break
            _, rank, _ = best.heads[0]
            job = self._jobs[rank[2]]
            self.hold(job.job_id, job.repo_id, job.concurrency)
            taken.append(job)
        return tuple(taken)

    def job_ids(self) -> Iterable[str]:
        """Ids of all queued jobs."""
        return self._jobs.keys()

    def held_ids(self) -> Iterable[str]:
        """Ids of all held jobs."""
        return self._held.keys()

    # ---- inside --------------------------------------------------------------------------------------------------

    def _forget(self, job_id: str) -> None:
        job = self._jobs.pop(job_id, None)
        self._tickets.pop(job_id, None)
        group = self._groups.get((job.repo_id, job.concurrency)) if job is not None and job.concurrency else None
        if job is not None and group is not None:
            labels = frozenset(job.labels)
            if group.fronts.get(labels) == job_id:
                del group.fronts[labels]
                self._move_up(group, labels)
            self._tidy(job.repo_id, job.concurrency)

    def _stamp(self, job_id: str) -> None:
        """A new ticket: whatever entry the job has is out of date."""
        self._last_ticket += 1
        self._tickets[job_id] = self._last_ticket

    def _place(self, job: QueuedJob) -> None:
        self._entries += 1
        ticket = self._tickets[job.job_id]
        if job.not_before_ms > self._now_ms:
            heapq.heappush(self._delayed, (job.not_before_ms, job.job_id, ticket))
        elif job.concurrency:
            group = self._groups.setdefault((job.repo_id, job.concurrency), Group())
            labels = frozenset(job.labels)
            heapq.heappush(group.lines.setdefault(labels, []), (job.queued_at_ms, job.job_id, ticket))
            self._move_up(group, labels)
        else:
            self._enter(job)

    def _enter(self, job: QueuedJob) -> None:
        """Put the job where a runner may get it; its entry is counted already."""
        ticket = self._tickets[job.job_id]
        lane = self._lanes.setdefault(frozenset(job.labels), Lane())
        ranks = lane.by_repo.setdefault(job.repo_id, [])
        rank = (-job.priority, job.queued_at_ms, job.job_id, ticket)
        heapq.heappush(ranks, rank)
        if ranks[0] == rank:
            heapq.heappush(lane.heads, (self.running(job.repo_id), rank, job.repo_id))

    # ---- concurrency groups --------------------------------------------------------------------------------------

    def _move_up(self, group: Group, labels: Labels) -> None:
        """The oldest in line goes into the lane, if the group is free and nobody older stands there."""
        line = group.lines.get(labels, [])
        while line and self._tickets.get(line[0][1]) != line[0][2]:
            heapq.heappop(line)
            self._entries -= 1
        if not line:
            group.lines.pop(labels, None)
        if group.holders or not line:
            return
        front = group.fronts.get(labels)
        if front is not None:
            if (self._jobs[front].queued_at_ms, front) <= line[0][:2]:
                return
            self._step_back(group, labels, front)
        _, job_id, _ = heapq.heappop(line)
        if not line:
            del group.lines[labels]
        group.fronts[labels] = job_id
        self._enter(self._jobs[job_id])

    def _step_back(self, group: Group, labels: Labels, job_id: str) -> None:
        """Out of the lane, into the line: what stands in the lane has an old ticket from now on."""
        self._stamp(job_id)
        self._entries += 1
        place = (self._jobs[job_id].queued_at_ms, job_id, self._tickets[job_id])
        heapq.heappush(group.lines.setdefault(labels, []), place)
        del group.fronts[labels]

    def _close(self, repo_id: str, concurrency: str, holder: str) -> None:
        """The group is held: nobody else of it stands in a lane."""
        group = self._groups.setdefault((repo_id, concurrency), Group())
        group.holders.add(holder)
        for labels, job_id in tuple(group.fronts.items()):
            if job_id != holder:
                self._step_back(group, labels, job_id)

    def _tidy(self, repo_id: str, concurrency: str) -> None:
        group = self._groups.get((repo_id, concurrency))
        if group is not None and not (group.holders or group.fronts or group.lines):
            del self._groups[repo_id, concurrency]

    # ---- lanes ---------------------------------------------------------------------------------------------------

    def _promote(self, now_ms: int) -> None:
        self._now_ms = max(self._now_ms, now_ms)
        while self._delayed and self._delayed[0][0] <= self._now_ms:
            _, job_id, ticket = heapq.heappop(self._delayed)
            self._entries -= 1
            if self._tickets.get(job_id) == ticket:
                self._place(self._jobs[job_id])

    def _sweep(self) -> None:
        """Put every queued job anew, and nothing else: entries left behind, and lanes without jobs, are gone."""
        self._entries = 0
        self._lanes = {}
        self._delayed = []
        for key, group in tuple(self._groups.items()):
            group.fronts, group.lines = {}, {}
            self._tidy(*key)
        for job in self._jobs.values():
            self._place(job)

    def _clean(self, lane: Lane) -> bool:
        """Drop out-of-date entries until the first head is true; False if the lane has nothing to give."""
        while lane.heads:
            running, rank, repo_id = lane.heads[0]
            best = self._best(lane, repo_id)
            if best == rank and running == self.running(repo_id) and not self.is_at_limit(repo_id):
                return True
            heapq.heappop(lane.heads)
            if best is not None and running == self.running(repo_id) and not self.is_at_limit(repo_id):
                heapq.heappush(lane.heads, (running, best, repo_id))
        return False

    def _best(self, lane: Lane, repo_id: str) -> Rank | None:
        """The best rank of the repository in this lane whose job is still queued."""
        ranks = lane.by_repo.get(repo_id)
        while ranks:
            if self._tickets.get(ranks[0][2]) == ranks[0][3]:
                return ranks[0]
            heapq.heappop(ranks)
            self._entries -= 1
        lane.by_repo.pop(repo_id, None)
        return None

    def _unhold(self, job_id: str) -> None:
        held = self._held.pop(job_id, None)
        if held is None:
            return
        repo_id, concurrency = held
        group = self._groups.get(held)
        if group is not None:
            group.holders.discard(job_id)
            for labels in tuple(group.lines):
                self._move_up(group, labels)
            self._tidy(repo_id, concurrency)
        left = self._running[repo_id] - 1
        if left:
            self._running[repo_id] = left
        else:
            del self._running[repo_id]
        self._refresh(repo_id)

    def _refresh(self, repo_id: str) -> None:
        """The repository's running count changed: its heads are out of date in every lane."""
        for lane in self._lanes.values():
            best = self._best(lane, repo_id)
            if best is not None:
                heapq.heappush(lane.heads, (self.running(repo_id), best, repo_id))
            if len(lane.heads) > 64 + 4 * len(lane.by_repo):
                # Entries with a higher running count than today's sink and are never seen again: sweep them out.
                lane.heads = [
                    (self.running(repo), head, repo)
                    for repo in tuple(lane.by_repo)
                    if (head := self._best(lane, repo)) is not None
                ]
                heapq.heapify(lane.heads)
