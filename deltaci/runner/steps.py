"""The content of one attempt: its caches, its steps one by one, its artifacts, and what became of them."""

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
from loguru import logger

from deltaci.runner.artifacts import ArtifactTooLarge, pack, select_files
from deltaci.runner.caches import CacheDir
from deltaci.runner.environment import shell, step_environment
from deltaci.runner.log_stream import LogStream
from deltaci.runner.process import ProcessTree
from deltaci.runner.resend import until_definite
from deltaci.runner.settings import RunnerSettings
from deltaci.runner.workspace import Workspace
from protocol.client import ArtifactStored, Backoff, RunnerClient
from protocol.messages import Artifact, EndReason, Failure, LeaseGranted, Step, StepResult

UPLOAD_PATIENCE_S: Final = 600.0


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How an attempt ended by itself; `exit_code` is that of the step that failed, or 0."""

    reason: EndReason = "exited"
    exit_code: int | None = None
    message: str = ""

    @property
    def summary(self) -> str:
        """A few words for the log."""
        if self.reason == "exited":
            return "succeeded" if self.exit_code == 0 else f"failed with exit code {self.exit_code}"
        return self.reason.replace("_", " ")


class Steps:
    """Runs what the grant asks for inside `workspace`, writing headers and notes into `log`."""

    def __init__(
        self,
        grant: LeaseGranted,
        workspace: Workspace,
        tree: ProcessTree,
        log: LogStream,
        *,
        settings: RunnerSettings,
    ) -> None:
        self.index: int | None = None
        self.results: list[StepResult] = []
        self._grant = grant
        self._workspace = workspace
        self._tree = tree
        self._log = log
        self._settings = settings

    async def run_all(self, grace_s: Callable[[], float]) -> Outcome:
        """Run the steps in order until one fails. On cancellation the running step is in `results` without a code."""
        for index, step in enumerate(self._grant.job.steps):
            self.index = index
            self._log.line(f"==> {step.name}")
            started = time.monotonic()
            code: int | None = None
            try:
                code = await self._run(index, step, grace_s)
            finally:
                duration_ms = int((time.monotonic() - started) * 1000)
                self.results.append(StepResult(name=step.name, exit_code=code, duration_ms=duration_ms))
            if code != 0:
                self._log.line(f"==> {step.name} failed with exit code {code}")
                return Outcome(exit_code=code, message=f"step {step.name!r} failed with exit code {code}")
        return Outcome(exit_code=0)

    async def _run(self, index: int, step: Step, grace_s: Callable[[], float]) -> int:
        workspace = self._workspace
        cwd = (workspace.checkout / step.workdir).resolve()
        if not cwd.is_relative_to(workspace.checkout.resolve()) or not cwd.is_dir():
            self._log.line(f"==> workdir {step.workdir!r} is no directory of the checkout")
            return 1
        script = workspace.scripts / f"step-{index}.sh"
        script.write_text(step.run + "\n", errors="surrogateescape")
        env = step_environment(
            self._grant,
            step,
            home=workspace.home,
            temporary=workspace.temporary,
            host=os.environ,
            # What the host lets through may well be a token: it is not for strangers.
            passed=self._settings.pass_env if self._grant.job.is_trusted else (),
        )
        return await self._tree.run((*shell(), str(script)), env=env, cwd=cwd, grace_s=grace_s)

    # ---- caches --------------------------------------------------------------------------------------------------

    async def restore_caches(self, caches: CacheDir) -> None:
        """Bring back what an earlier job left under the same keys; a miss is only a line in the log."""
        places = {"checkout": self._workspace.checkout, "home": self._workspace.home}
        for cache in self._grant.job.caches:
            is_hit = await asyncio.to_thread(caches.restore, self._grant.job.repo, cache, **places)
            self._log.line(f"==> cache {cache.key} {'restored' if is_hit else 'not found'}")

    async def save_caches(self, caches: CacheDir) -> None:
        """Keep the caches of a successful job, but for read-only ones; a failure to do so fails nothing."""
        places = {"checkout": self._workspace.checkout, "home": self._workspace.home}
        for cache in self._grant.job.caches:
            if cache.is_read_only:
                continue
            try:
                is_new = await asyncio.to_thread(caches.save, self._grant.job.repo, cache, **places)
            except OSError as error:
                self._log.line(f"==> cache {cache.key} could not be saved: {error.strerror}")
                continue
            if is_new:
                self._log.line(f"==> cache {cache.key} saved")

    # ---- artifacts -----------------------------------------------------------------------------------------------

    async def upload_artifacts(self, client: RunnerClient, *, backoff: Backoff, bytes_max: int) -> None:
        """Keep what was asked for, whatever the steps' result; each artifact that cannot be kept is a log line."""
        for number, artifact in enumerate(self._grant.job.artifacts):
            target = self._workspace.artifacts / f"{number}.tar.gz"
            try:
                sha256 = await self._pack(artifact, target, bytes_max)
            except ArtifactTooLarge:
                self._log.line(f"==> artifact {artifact.name} is over the limit of {bytes_max} bytes and was not kept")
                continue
            except OSError as error:
                self._log.line(f"==> artifact {artifact.name} could not be packed: {error.strerror}")
                continue
            if sha256 is not None:
                await self._upload(client, artifact.name, target, sha256, backoff)
                target.unlink()

    async def _pack(self, artifact: Artifact, target: Path, bytes_max: int) -> str | None:
        checkout = self._workspace.checkout
        selection = await asyncio.to_thread(select_files, checkout, artifact)
        for why in selection.refused:
            self._log.line(f"==> artifact {artifact.name}: {why}")
        if not selection.files:
            self._log.line(f"==> artifact {artifact.name}: no file matches {', '.join(artifact.paths)}")
            return None
        return await asyncio.to_thread(pack, checkout, selection.files, target, bytes_max=bytes_max)

    async def _upload(self, client: RunnerClient, name: str, target: Path, sha256: str, backoff: Backoff) -> None:
        grant = self._grant
        give_up_at = time.monotonic() + UPLOAD_PATIENCE_S
        answer = await until_definite(
            lambda: client.upload_artifact(
                lease_id=grant.lease_id,
                job_id=grant.job_id,
                attempt=grant.attempt,
                name=name,
                path=target,
                sha256=sha256,
            ),
            what=f"artifact {name}",
            backoff=backoff,
            # A server that refuses in mid-stream may cut the connection, which looks like an outage: not for ever.
            can_go_on=lambda: time.monotonic() < give_up_at,
        )
        if isinstance(answer, ArtifactStored):
            self._log.line(f"==> artifact {name} uploaded")
        else:
            why = answer.message if isinstance(answer, Failure) else "no definite answer" if answer is None else "stale"
            logger.warning("artifact {} was not stored: {}", name, answer)
            self._log.line(f"==> artifact {name} was not stored: {why}")
