"""GitHub as the reporter sees it: checks, comments, statuses; its limits enforced, failing as often as it is told."""

import random
from collections import defaultdict
from collections.abc import Callable
from typing import Any, Final

import anyio
import msgspec

from deltaci.domain.errors import ForgeRejected, ForgeUnavailable
from deltaci.domain.repo import Repo
from deltaci.forge.api import Status
from deltaci.forge.budget import WriteBudget
from deltaci.forge.checks import ANNOTATIONS_A_REQUEST, Annotation, CheckRun

WINDOWS: Final = ((60_000, 80), (3_600_000, 500))
ORDER: Final = {"queued": 0, "in_progress": 1, "completed": 2}


class Held(msgspec.Struct):
    """A check run as GitHub has it."""

    remote_id: str
    check: CheckRun
    annotations: tuple[Annotation, ...]


class FakeGitHub:
    """Takes what is written within its limits; `heard` has all of it, in order."""

    def __init__(
        self, now_ms: Callable[[], int], *, seed: int = 0, faults: float = 0.0, latency_s: float = 0.0
    ) -> None:
        self._now_ms = now_ms
        self._chance = random.Random(seed)
        self._faults = faults
        self._latency_s = latency_s
        self.budget = WriteBudget()
        self.writes: list[int] = []  # when each was heard or lost
        self.checks: dict[str, Held] = {}
        self.comments: dict[tuple[int, str], str] = {}
        self.heard: list[CheckRun] = []
        self.statuses: list[Status] = []
        self.ended_at_ms: dict[str, int] = {}
        self.limited = 0
        self.asked = 0
        self.refuses_lines = False
        self.step: Callable[[], Any] = anyio.lowlevel.checkpoint
        self.gone = ""

    # ---- what is asked -------------------------------------------------------------------------------------------

    def account(self, repo: Repo) -> str:
        return f"installation:{repo.installation_id}"

    async def put_check(self, repo: Repo, check: CheckRun, *, remote_id: str | None) -> str:
        await anyio.lowlevel.checkpoint()
        found = self.checks[remote_id] if remote_id is not None else self._found(check)
        shown = len(found.annotations) if found is not None else 0
        new = check.annotations[shown:]
        assert len(new) <= ANNOTATIONS_A_REQUEST
        if self.refuses_lines and new:
            raise ForgeRejected("422: annotations are not acceptable")

        def hear() -> str:
            self.heard.append(check)
            if check.status == "completed":
                self.ended_at_ms.setdefault(check.external_id, self._now_ms())
            held = found or Held(str(len(self.checks) + 1), check, ())
            held.check, held.annotations = check, held.annotations + new
            self.checks[held.remote_id] = held
            return held.remote_id

        return await self._write(repo, hear)

    def _found(self, check: CheckRun) -> Held | None:
        same = [held for held in self.checks.values() if held.check.external_id == check.external_id]
        return same[-1] if same else None

    async def put_comment(self, repo: Repo, number: int, body: str, *, marker: str, remote_id: str | None) -> str:
        assert marker in body.splitlines()

        def hear() -> str:
            found = [key for key, text in self.comments.items() if key[0] == number and marker in text]
            key = found[0] if found else (number, f"comment{len(self.comments)}")
            self.comments[key] = body
            return key[1]

        return await self._write(repo, hear)

    async def set_status(self, repo: Repo, commit_sha: str, status: Status) -> None:
        await self._write(repo, lambda: self.statuses.append(status))

    # ---- its limits and moods ------------------------------------------------------------------------------------

    async def _write(self, repo: Repo, hear: Callable[[], object]) -> str:
        self.asked += 1
        if self.gone:
            raise ForgeRejected(self.gone)
        now_ms, writes = self._now_ms(), self.writes
        self.budget.spent(self.account(repo), now_ms)
        for window_ms, most in WINDOWS:
            if sum(at_ms > now_ms - window_ms for at_ms in writes) >= most:
                self.limited += 1
                raise ForgeUnavailable("403: you have exceeded a secondary rate limit", retry_after_ms=60_000)
        writes.append(now_ms)
        mood = self._chance.random() / self._faults if self._faults else 1.0
        if mood < 0.1:
            raise ForgeUnavailable("403: a secondary rate limit", retry_after_ms=10_000)
        if mood < 0.4:
            await anyio.sleep(self._latency_s)
            raise ForgeUnavailable("502")
        await self.step()
        given = hear()
        await self.step()
        await anyio.sleep(self._latency_s)
        if mood < 0.7:
            raise ForgeUnavailable("no answer within 10000 ms")
        return str(given)

    # ---- what became of it ---------------------------------------------------------------------------------------

    def backwards(self) -> list[str]:
        """Checks that were told to be less far than before."""
        furthest: dict[tuple[str, str], int] = defaultdict(int)
        found = []
        for check in self.heard:
            key = (check.name, check.external_id)
            if ORDER[check.status] < furthest[key]:
                found.append(check.name)
            furthest[key] = max(furthest[key], ORDER[check.status])
        return found

    def conclusions(self) -> dict[str, str | None]:
        """What each check came to, by external id; fails if one was made twice."""
        ids = [held.check.external_id for held in self.checks.values()]
        assert sorted(set(ids)) == sorted(ids), "a check was made twice"
        return {held.check.external_id: held.check.conclusion for held in self.checks.values()}
