"""How long does a plan of a large repository take, from nothing and from the commit before, and in how much memory?"""

import asyncio
import re
import time
from pathlib import Path

from benchmarks import load
from benchmarks.monorepo import FILES_A_PROJECT, Monorepo, git
from benchmarks.results import Row, Target
from deltaci.forge.local import MirrorLimits
from deltaci.planner.messages import Planned, Request, Start
from deltaci.planner.pool import Worker

START = Start(memory_bytes_max=2 * 1024**3, cache_bytes_max=256 * 1024**2, jobs_max=10_000, limits=MirrorLimits())
NOTE = (
    "Projects of Python, a Node workspace, Go and Rust, 50 files each, that depend on each other in groups of 20. "
    "Cold: the first plan of the repository in a process that runs already. Warm: the commit before was planned by "
    "the same process. From the request to the whole plan; the baseline is git alone on the same commits."
)
MIB = 2**20


async def measure(plan: load.Plan, scratch: Path) -> list[Row]:
    """Times and memory for two sizes; each round in a process of its own."""
    return await asyncio.to_thread(_measure, plan, scratch)


def _measure(plan: load.Plan, scratch: Path) -> list[Row]:
    small, large = plan.size(10_000, 1_000), plan.size(100_000, 5_000)
    smaller = _of_size(plan, scratch / f"monorepo-{small}.git", small, is_largest=False)
    larger = _of_size(plan, scratch / f"monorepo-{large}.git", large, is_largest=True)
    grown = Row(
        name=f"... warm, changed: 1 files, {large // small} times the repository",
        unit="s",
        values=_of_one_file(larger),
        baseline=f"s with {small:,} files",
        baseline_values=_of_one_file(smaller),
        target=Target("ratio", 2, is_ceiling=True),
        note=NOTE,
    )
    return [*smaller, *larger, grown]


def _of_one_file(rows: list[Row]) -> list[float]:
    return next(row.values for row in rows if row.name.endswith("changed: 1 files"))


def _of_size(plan: load.Plan, directory: Path, files: int, *, is_largest: bool) -> list[Row]:
    repository = Monorepo(directory, files)
    tiny = Monorepo(directory.with_suffix(".tiny"), FILES_A_PROJECT)
    what = f"{files:,} files, {len(repository.projects):,} projects"
    counts = [count for count in (1, 10, 1_000) if count <= files // 5]
    warm = {f"{count:,}": repository.changed(count) for count in counts}
    warm["a lock file"] = repository.with_lock_changed()
    warm["a manifest"] = repository.with_manifest_changed()
    cold = Row(
        name=f"plan of {what}, cold",
        unit="s",
        values=[],
        baseline="s git ls-tree",
        target=Target("value", 10, is_ceiling=True) if is_largest else None,
        note=NOTE,
    )
    changed = {
        name: Row(
            name=f"... warm, changed: {name}{' files' if name[0].isdigit() else ''}",
            unit="s",
            values=[],
            baseline="s git diff-tree",
            target=Target("value", 2, is_ceiling=True) if is_largest else None,
            note=NOTE,
        )
        for name in warm
    }
    memory = Row(
        name="... most memory of the process",
        unit="MiB",
        values=[],
        baseline="MiB with nothing planned",
        target=Target("value", 500 * 10**6 / MIB, is_ceiling=True) if is_largest else None,
        note=NOTE,
    )
    for _ in range(plan.rounds):
        worker = Worker(START)
        try:
            _timed(worker, tiny, tiny.base, None)
            memory.baseline_values.append(_peak_mib(worker.pid))
            cold.baseline_values.append(_git_s(directory, "ls-tree", "-r", repository.base))
            cold.values.append(_timed(worker, repository, repository.base, None))
            for name, sha in warm.items():
                row = changed[name]
                row.baseline_values.append(_git_s(directory, "diff-tree", "-r", repository.base, sha))
                row.values.append(_timed(worker, repository, sha, repository.base))
                _timed(worker, repository, repository.base, None)
            memory.values.append(_peak_mib(worker.pid))
        finally:
            worker.end()
    return [cold, *changed.values(), memory]


def _timed(worker: Worker, repository: Monorepo, sha: str, base: str | None) -> float:
    started = time.perf_counter()
    reply = worker.ask(
        Request(number=0, directory=str(repository.directory), repo_id="bench", commit_sha=sha, base_sha=base)
    )
    elapsed = time.perf_counter() - started
    assert isinstance(reply, Planned), reply
    assert reply.plan.projects, "the plan touches no project"
    return elapsed


def _git_s(directory: Path, *arguments: str) -> float:
    started = time.perf_counter()
    git(directory, *arguments)
    return time.perf_counter() - started


def _peak_mib(pid: int) -> float:
    """The most memory that was ever resident."""
    found = re.search(r"^VmHWM:\s*(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return int(found[1]) / 1024 if found else 0.0
