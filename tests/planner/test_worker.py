"""The process that plans: whatever happens to it costs one plan, says why, and leaves nothing behind."""

import os
import signal
import subprocess
import sys
import textwrap
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread
import msgspec
import psutil
import pytest

from deltaci.forge.local import MirrorLimits
from deltaci.planner.errors import PlanFailed
from deltaci.planner.messages import Failed, Planned, Request, Start, Unreadable
from deltaci.planner.pool import COMMAND, Worker, Workers
from tests.planner.planned import Asker
from tests.planner.repositories import Bare

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

START = Start(memory_bytes_max=2 * 1024**3, cache_bytes_max=2**20, jobs_max=100, limits=MirrorLimits())
# In place of the planner: plays a trick on the first request and on each that names it, and is itself otherwise.
TRICK = """
import os, sys, time
from deltaci.planner import worker
real = worker.Work._plan
def plan(self, request):
    if request.repo_id == "trick":
        trick(self, request)
    return real(self, request)
worker.Work._plan = plan
def trick(self, request):
{}
worker.main()
"""


def tricked(body: str) -> tuple[str, ...]:
    return (sys.executable, "-I", "-c", TRICK.format(textwrap.indent(textwrap.dedent(body), "    ")))


@pytest.fixture
def repository(tmp_path: Path) -> Bare:
    return Bare(tmp_path / "r.git")


def a_request(repository: Bare, sha: str, repo_id: str = "r") -> Request:
    return Request(number=0, directory=str(repository.path), repo_id=repo_id, commit_sha=sha)


def some(command: tuple[str, ...] = COMMAND, *, plan_ms: int = 20_000, start: Start = START) -> Workers:
    return Workers(start, workers_max=1, plan_ms=plan_ms, command=command)


async def works(workers: Workers, repository: Bare, sha: str) -> bool:
    reply = await workers.ask(a_request(repository, sha))
    return isinstance(reply, Planned) and [job.name for job in reply.plan.jobs] == ["go-test"]


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


async def is_gone(pid: int) -> bool:
    with anyio.move_on_after(20):
        while not gone(pid):  # noqa: ASYNC110 - the end of somebody else's child is no event
            await anyio.sleep(0.01)
    return gone(pid)


@pytest.fixture
def sha(repository: Bare) -> str:
    return repository.commit({"go.mod": "module x\n"})


async def test_a_process_plans_one_commit_after_the_other(repository: Bare, sha: str) -> None:
    """It is started once; a commit that cannot be planned is an answer, not its end."""
    workers = some()
    bad = repository.commit({"deltaci.yaml": "version: 1\njobs: {a: {stepz: [x]}}\n"}, sha)

    first = await works(workers, repository, sha)
    pids = workers.pids()
    reply = await workers.ask(a_request(repository, bad))
    again = await works(workers, repository, sha)

    assert (first, again) == (True, True)
    assert isinstance(reply, Failed)
    assert (reply.is_configuration, reply.problems[0].line) == (True, 2)
    assert workers.pids() == pids
    workers.close()
    assert await is_gone(pids[0])


async def test_a_process_that_is_killed_in_mid_plan_fails_this_plan_alone(
    repository: Bare, sha: str, tmp_path: Path
) -> None:
    """As when the machine has no memory left; the next plan gets a new process."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    workers = some(tricked(f"open({str(pipe)!r}, 'w').close(); time.sleep(60)"))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_kill_when_it_plans, pipe, workers)
        with pytest.raises(PlanFailed, match="signal 9, as the system does when memory runs out") as caught:
            await workers.ask(a_request(repository, sha, "trick"))

    assert not caught.value.is_retryable
    assert await works(workers, repository, sha)
    workers.close()


async def _kill_when_it_plans(pipe: Path, workers: Workers) -> None:
    await anyio.to_thread.run_sync(partial(pipe.read_bytes), abandon_on_cancel=True)
    os.kill(workers.pids()[0], signal.SIGKILL)


async def test_a_process_that_is_killed_while_idle_costs_nothing(repository: Bare, sha: str) -> None:
    """It is found dead before anything is asked of it."""
    workers = some()
    assert await works(workers, repository, sha)
    pid = workers.pids()[0]

    os.kill(pid, signal.SIGKILL)
    with anyio.fail_after(10):
        # A process is dead to its parent when the last of its threads is, a moment after it is dead to others.
        while workers.pids():  # noqa: ASYNC110 - it has no event for that
            await anyio.sleep(0.01)

    assert await works(workers, repository, sha)
    assert workers.pids() != [pid]
    workers.close()


async def test_a_process_that_stands_still_is_ended_at_the_limit_with_its_git(
    repository: Bare, sha: str, tmp_path: Path
) -> None:
    """SIGSTOP, a regular expression without end, a disk that hangs: the limit holds, and names its setting."""
    note = tmp_path / "child"
    body = f"""
    import signal, subprocess
    child = subprocess.Popen(["sleep", "60"])
    open({str(note)!r}, "w").write(str(child.pid))
    os.kill(os.getpid(), signal.SIGSTOP)
    """
    workers = some(tricked(body), plan_ms=1_500)
    assert await works(workers, repository, sha)
    pid = workers.pids()[0]

    with pytest.raises(PlanFailed, match=r"longer than 1500 ms \(setting planner\.plan_ms\)"):
        await workers.ask(a_request(repository, sha, "trick"))

    assert await is_gone(pid)
    assert await is_gone(int(note.read_text()))
    assert await works(workers, repository, sha)
    workers.close()


async def test_a_plan_that_nobody_waits_for_any_more_is_ended(repository: Bare, sha: str, tmp_path: Path) -> None:
    """A canceled run, a server that stops."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    workers = some(tricked(f"open({str(pipe)!r}, 'w').close(); time.sleep(60)"))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(workers.ask, a_request(repository, sha, "trick"))
        await anyio.to_thread.run_sync(partial(pipe.read_bytes), abandon_on_cancel=True)
        pid = workers.pids()[0]
        tasks.cancel_scope.cancel()

    assert await is_gone(pid)
    assert await works(workers, repository, sha)
    workers.close()


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("x = bytearray(1024**3)", r"more than 536870912 bytes of memory \(setting planner\.memory_bytes_max\)"),
        ("x = [[] for _ in range(10**9)]", r"more than 536870912 bytes of memory"),
        ("def f(): f()\nf()", "nested too deeply"),
        ("os._exit(3)", "crashed with exit code 3; the log of the server says more"),
        ("import ctypes; ctypes.string_at(0)", "crashed with exit code -11"),
        ("raise RuntimeError('a bug')", "crashed with exit code 1"),
    ],
)
async def test_each_way_to_die_is_named_and_harms_no_other_plan(
    repository: Bare, sha: str, body: str, why: str
) -> None:
    """The author of the commit learns what to do; the server is as it was."""
    start = msgspec.structs.replace(START, memory_bytes_max=512 * 1024**2)
    workers = some(tricked(body), start=start)

    with pytest.raises(PlanFailed, match=why):
        await workers.ask(a_request(repository, sha, "trick"))

    assert await works(workers, repository, sha)
    workers.close()


@pytest.mark.parametrize(
    "noise", [b"Traceback (most recent call last):\n", b"\0\0\0\3abc", b"\0\0\0\1\xc0", b"\xff\xff\xff\xff", b"\0\0"]
)
async def test_what_is_no_reply_is_not_believed(repository: Bare, sha: str, noise: bytes) -> None:
    """Noise on its standard output, a length without end, half a frame: it is ended, and nothing is waited for."""
    body = f"""
    import gc, io
    out = next(o for o in gc.get_objects() if isinstance(o, io.BufferedWriter) and o.name not in (0, 1, 2))
    out.write({noise!r})
    out.flush()
    os._exit(0)
    """
    workers = some(tricked(body))

    with pytest.raises(PlanFailed, match=r"gave no valid answer|crashed with exit code 0"):
        await workers.ask(a_request(repository, sha, "trick"))

    assert await works(workers, repository, sha)
    workers.close()


async def test_a_reply_to_something_else_is_not_believed(repository: Bare, sha: str) -> None:
    """Its number says what it answers."""
    workers = some(tricked("import msgspec; return_ = msgspec.structs.force_setattr(request, 'number', 7)"))

    with pytest.raises(PlanFailed, match="gave no valid answer"):
        await workers.ask(a_request(repository, sha, "trick"))

    assert await works(workers, repository, sha)
    workers.close()


async def test_a_plan_from_jobs_that_were_never_told_is_not_believed(repository: Bare, sha: str) -> None:
    """The process takes this server for one that knows the roster."""
    workers = some(tricked("import msgspec; return_ = msgspec.structs.force_setattr(request, 'roster', 1)"))

    with pytest.raises(PlanFailed, match="gave no valid answer"):
        await workers.ask(a_request(repository, sha, "trick"))

    assert await works(workers, repository, sha)
    workers.close()


async def test_what_is_told_once_is_in_later_plans_as_well(repository: Bare, tmp_path: Path) -> None:
    """Of two repositories in turn, over the pipes: each plan is the one of a process that told nothing yet."""
    files = {f"p{n}/go.mod": f"module m{n}\n" for n in range(5)}
    other = Bare(tmp_path / "other.git")
    asked = []
    for each in (repository, other):
        first = each.commit({**files, f"{each.path.name}/go.mod": "module own\n"})
        second = each.commit({**files, f"{each.path.name}/go.mod": "module own\n", "p3/a.go": "package a\n"}, first)
        asked += [a_request(each, first), msgspec.structs.replace(a_request(each, second), base_sha=first)]
    workers = some()

    told = [await workers.ask(request) for request in (*asked, *asked)]

    for request, reply in zip((*asked, *asked), told, strict=True):
        expected = Asker(START).reply(request)
        assert isinstance(reply, Planned)
        assert isinstance(expected, Planned)
        assert (reply.plan, len(reply.plan.jobs)) == (expected.plan, 6)
    workers.close()


async def test_what_the_machine_lacks_is_not_held_against_the_commit(repository: Bare, sha: str) -> None:
    """No descriptors, a full disk: the same plan may be made later, by the same process."""
    workers = some(tricked("raise OSError(28, 'No space left on device')"))

    reply = await workers.ask(a_request(repository, sha, "trick"))

    assert isinstance(reply, Unreadable)
    assert (reply.is_retryable, reply.is_damaged) == (True, False)
    assert await works(workers, repository, sha)
    workers.close()


async def test_what_a_plan_prints_does_not_get_between_the_replies(repository: Bare, sha: str) -> None:
    """A library with something to say says it to the log."""
    workers = some(tricked("print('hello', flush=True); os.write(1, b'hello')"))

    reply = await workers.ask(a_request(repository, sha, "trick"))

    assert isinstance(reply, Planned)
    workers.close()


async def test_nothing_of_the_server_reaches_a_process(
    repository: Bare, sha: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No secret in its environment, no descriptor, and the limits that were set."""
    monkeypatch.setenv("DELTACI_SECRET", "x")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    secret = os.open(tmp_path, os.O_RDONLY)
    os.set_inheritable(secret, True)
    note = tmp_path / "note"
    body = f"""
    import json, resource
    limits = [resource.getrlimit(w)[1] for w in (resource.RLIMIT_AS, resource.RLIMIT_NOFILE, resource.RLIMIT_CORE)]
    said = [sorted(os.environ), limits, [os.readlink("/proc/self/fd/" + n) for n in os.listdir("/proc/self/fd")[:-1]]]
    open({str(note)!r}, "w").write(json.dumps(said))
    """
    workers = some(tricked(body))

    await workers.ask(a_request(repository, sha, "trick"))
    os.close(secret)

    environment, limits, descriptors = msgspec.json.decode(note.read_bytes())
    assert set(environment) <= {"PATH", "TMPDIR", "LC_ALL", "MALLOC_ARENA_MAX"}
    assert limits[2] == 0
    assert limits[0] <= 2 * 1024**3
    assert limits[1] <= 256
    assert str(tmp_path) not in descriptors
    workers.close()


@pytest.mark.parametrize("is_busy", [False, True])
async def test_a_server_that_is_killed_leaves_no_process(
    repository: Bare, sha: str, tmp_path: Path, is_busy: bool
) -> None:
    """SIGKILL gives nobody a chance to clear away: a process sees that its server is gone, also in mid-plan."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    command = tricked(f"open({str(pipe)!r}, 'w').close(); time.sleep(60)")
    program = f"""
    import threading, time
    from deltaci.planner.messages import Request, Start
    from deltaci.planner.pool import Worker
    from deltaci.forge.local import MirrorLimits
    start = Start(memory_bytes_max=2**31, cache_bytes_max=1, jobs_max=9, limits=MirrorLimits())
    worker = Worker(start, {command!r})
    print(worker.pid, flush=True)
    worker.ask(Request(number=0, directory={str(repository.path)!r}, repo_id="r", commit_sha={sha!r}))
    if {is_busy}:
        worker.ask(Request(number=0, directory={str(repository.path)!r}, repo_id="trick", commit_sha={sha!r}))
    open({str(pipe)!r}, "w").close()
    time.sleep(60)
    """
    server = subprocess.Popen(  # noqa: ASYNC220 - it is started, not waited for
        [sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
    )
    with server:
        assert server.stdout is not None
        pid = int(server.stdout.readline())
        await anyio.to_thread.run_sync(pipe.read_bytes, abandon_on_cancel=True)
        assert not gone(pid)

        server.kill()

    assert await is_gone(pid)


async def test_processes_that_nobody_closed_end_with_their_owner(repository: Bare, sha: str) -> None:
    """A planner that is dropped takes its processes with it."""
    workers = some()
    assert await works(workers, repository, sha)
    pid = workers.pids()[0]

    del workers

    assert await is_gone(pid)


async def test_a_repository_goes_to_the_process_that_knows_it_and_to_another_if_that_is_busy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Warm where it can be, never waiting while a process has nothing to do."""
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    repositories = [Bare(tmp_path / f"{n}.git") for n in range(4)]
    shas = [each.commit({"go.mod": "module x\n"}) for each in repositories]
    workers = Workers(START, workers_max=2, plan_ms=20_000)

    async with anyio.create_task_group() as tasks:
        for each, sha in zip(repositories, shas, strict=True):
            tasks.start_soon(works, workers, each, sha)
    both = workers.pids()
    asked: list[int] = []
    original = Worker.ask
    monkeypatch.setattr(Worker, "ask", lambda self, request: (asked.append(self.pid), original(self, request))[1])
    for _ in range(3):
        await works(workers, repositories[0], shas[0])

    assert len(both) == 2
    assert len(set(asked)) == 1
    workers.close()
