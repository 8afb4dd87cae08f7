"""A control plane in memory, a repository, and a runner between the two."""

import asyncio
import contextlib
import itertools
import os
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import psutil

from deltaci.runner.runner import Runner
from deltaci.runner.settings import RunnerSettings
from deltaci.runner.shepherd import boot_clock
from deltaci.runner.workspace import WorkDir
from protocol.client import ArtifactStored, OnPush, OnRegistered, RunnerClient, ServerUnreachable
from protocol.messages import (
    AckLease,
    AppendLog,
    AskCredential,
    CancelAck,
    CancelRequested,
    Complete,
    CompleteAck,
    CredentialGiven,
    Failure,
    Heartbeat,
    HeartbeatAck,
    JobSpec,
    Lease,
    LeaseAcked,
    LeaseGranted,
    Leases,
    LogAck,
    LogGap,
    Register,
    Registered,
    RunnerMessage,
    ServerMessage,
    StaleLease,
    Step,
)

Rule = Callable[[RunnerMessage], ServerMessage | Exception | None]

GIT_ENV = {
    **{key: value for key, value in os.environ.items() if not key.startswith("GIT_")},
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "a",
    "GIT_AUTHOR_EMAIL": "a@example.org",
    "GIT_COMMITTER_NAME": "a",
    "GIT_COMMITTER_EMAIL": "a@example.org",
}


class Repository:
    """A real git repository on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: Path, files: dict[str, str]) -> "Repository":
        repository = cls(path)
        path.mkdir(parents=True)
        repository.git("init", "--quiet", "--initial-branch=main", ".")
        repository.commit(files)
        return repository

    @property
    def url(self) -> str:
        return str(self.path)

    @property
    def head(self) -> str:
        return self.git("rev-parse", "HEAD")

    def commit(self, files: dict[str, str]) -> str:
        for name, content in files.items():
            (self.path / name).parent.mkdir(parents=True, exist_ok=True)
            (self.path / name).write_text(content)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "a commit")
        return self.head

    def git(self, *words: str) -> str:
        done = subprocess.run(["git", *words], cwd=self.path, env=GIT_ENV, check=True, capture_output=True, text=True)
        return done.stdout.strip()


class FakePlane:
    """What a control plane would answer, with rules that can be put in front of it."""

    def __init__(self, **registered: Any) -> None:
        defaults: dict[str, Any] = {"heartbeat_ms": 100, "lease_wait_ms": 2_000, "cancel_within_ms": 10_000}
        self.registered = Registered(runner_id="runner-1", **(defaults | registered))
        self.rules: list[Rule] = []
        self.received: list[RunnerMessage] = []
        self.logs: dict[str, bytearray] = {}
        self.closed_logs: dict[str, int | None] = {}
        self.results: dict[str, Complete | CancelAck] = {}
        self.artifacts: dict[str, bytes] = {}
        self.canceled: set[str] = set()
        self.push: OnPush = lambda _push: None
        self.expires_in_ms = 60_000
        self.credential = ("", "")
        self.open_polls = 0
        self._waiting: list[LeaseGranted] = []
        self._ids = itertools.count(1)
        self._changed = asyncio.Condition()

    async def grant(self, job: JobSpec) -> LeaseGranted:
        number = next(self._ids)
        grant = LeaseGranted(
            lease_id=f"lease-{number}",
            job_id=f"job-{number}",
            attempt=1,
            run_id="run-1",
            job=job,
            expires_in_ms=self.expires_in_ms,
            ack_within_ms=30_000,
        )
        self._waiting.append(grant)
        await self._notify()
        return grant

    def log_of(self, grant: LeaseGranted) -> str:
        return bytes(self.logs.get(grant.lease_id, b"")).decode(errors="replace")

    def sent(self, kind: type) -> list[Any]:
        return [message for message in self.received if isinstance(message, kind)]

    async def result_of(self, grant: LeaseGranted) -> Complete | CancelAck:
        await self.until(lambda: grant.lease_id in self.results)
        return self.results[grant.lease_id]

    async def until(self, is_so: Callable[[], bool]) -> None:
        async with asyncio.timeout(30), self._changed:
            await self._changed.wait_for(is_so)

    def cancel(self, grant: LeaseGranted, within_ms: int = 10_000) -> None:
        self.canceled.add(grant.lease_id)
        self.push(CancelRequested(**_fence(grant), cancel_within_ms=within_ms))

    async def answer(self, message: RunnerMessage) -> ServerMessage:
        self.received.append(message)
        try:
            for rule in self.rules:
                answer = rule(message)
                if isinstance(answer, Exception):
                    raise answer
                if answer is not None:
                    return answer
            return await self._answer(message)
        finally:
            await self._notify()

    async def _answer(self, message: RunnerMessage) -> ServerMessage:
        match message:
            case Register():
                return self.registered
            case Lease():
                return await self._lease(message)
            case AckLease():
                return LeaseAcked(**_fence(message), expires_in_ms=self.expires_in_ms)
            case AskCredential():
                return CredentialGiven(**_fence(message), username=self.credential[0], password=self.credential[1])
            case Heartbeat():
                is_canceled = message.lease_id in self.canceled
                return HeartbeatAck(
                    **_fence(message), expires_in_ms=self.expires_in_ms, is_cancel_requested=is_canceled
                )
            case AppendLog():
                return self._append(message)
            case Complete() | CancelAck():
                state = "CANCELED" if isinstance(message, CancelAck) else "done"
                self.results[message.lease_id] = message
                return CompleteAck(**_fence(message), state=state)

    async def _lease(self, message: Lease) -> Leases:
        self.open_polls += 1
        try:
            async with self._changed:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(message.wait_ms / 1000):
                        await self._changed.wait_for(lambda: bool(self._waiting))
        finally:
            self.open_polls -= 1
        taken, self._waiting = self._waiting[: message.slots], self._waiting[message.slots :]
        return Leases(leases=tuple(taken))

    def _append(self, message: AppendLog) -> LogAck | LogGap:
        log = self.logs.setdefault(message.lease_id, bytearray())
        if message.offset > len(log):
            return LogGap(**_fence(message), size=len(log))
        log[message.offset :] = message.data
        if message.is_final:
            self.closed_logs[message.lease_id] = message.crc32
        return LogAck(**_fence(message), size=len(log))

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()


class FakeClient:
    """The port, without a wire."""

    def __init__(self, plane: FakePlane, on_push: OnPush) -> None:
        self._plane = plane
        plane.push = on_push

    async def call(self, message: RunnerMessage) -> ServerMessage:
        await asyncio.sleep(0)
        return await self._plane.answer(message)

    async def upload_artifact(
        self, *, lease_id: str, job_id: str, attempt: int, name: str, path: Path, sha256: str
    ) -> ArtifactStored | StaleLease | Failure:
        self._plane.artifacts[name] = await asyncio.to_thread(path.read_bytes)
        return ArtifactStored()

    async def aclose(self) -> None:
        return


def _fence(message: Any) -> dict[str, Any]:
    return {"lease_id": message.lease_id, "job_id": message.job_id, "attempt": message.attempt}


def fails_times(kind: type, times: int, what: ServerMessage | None = None) -> Rule:
    """The first `times` messages of `kind` get no answer, or `what`."""
    left = [times]

    def rule(message: RunnerMessage) -> ServerMessage | Exception | None:
        if isinstance(message, kind) and left[0] > 0:
            left[0] -= 1
            return what if what is not None else ServerUnreachable("a test says so")
        return None

    return rule


def a_job(repository: Repository, *scripts: str, **fields: Any) -> JobSpec:
    values: dict[str, Any] = {
        "name": "build",
        "repo": "team/app",
        "clone_url": repository.url,
        "commit_sha": repository.head,
        "ref": "refs/heads/main",
        "steps": tuple(Step(name=f"step {number}", run=script) for number, script in enumerate(scripts)),
    }
    return JobSpec(**(values | fields))


def settings_for(tmp_path: Path, **fields: Any) -> RunnerSettings:
    values: dict[str, Any] = {
        "server": "http://127.0.0.1:1",
        "token_file": tmp_path / "token",
        "work_dir": tmp_path / "work",
        "name": "tester",
        "flush_ms": 20,
        "cancel_grace_ms": 300,
    }
    return RunnerSettings(**(values | fields))


@contextlib.asynccontextmanager
async def a_runner(
    plane: FakePlane,
    tmp_path: Path,
    *,
    client: Callable[[OnPush, OnRegistered], RunnerClient] | None = None,
    clock: Callable[[], float] = boot_clock,
    **fields: Any,
) -> AsyncIterator[Runner]:
    """A running runner; at the end it is stopped, and must end by itself."""
    settings = settings_for(tmp_path, **fields)
    work_dir = WorkDir(settings.work_dir)
    work_dir.open()
    runner = Runner(
        settings,
        work_dir,
        client if client is not None else lambda on_push, _on_registered: FakeClient(plane, on_push),
        jitter=lambda: 0.0,
        clock=clock,
    )
    task = asyncio.create_task(runner.run())
    try:
        yield runner
    finally:
        runner.stop()
        try:
            async with asyncio.timeout(30):
                await task
        finally:
            work_dir.close()


def processes_with(word: str) -> list[int]:
    """Living processes with `word` on their command line, this one aside."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid != os.getpid() and word in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
    return found
