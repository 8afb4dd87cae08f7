"""Tells people that a run is over: each channel that its plan names, once.

Rule 1: it reads committed state only; it changes no run, and no run waits for it.
Rule 2: that a channel was told is committed right after it was: a crash between the two tells it once more.
Rule 3: one channel that refuses does not keep the others from being told.
"""

from collections.abc import Sequence
from typing import Final, Protocol

from deltaci.domain.clock import Clock
from deltaci.domain.errors import ForgeRejected, ForgeUnavailable
from deltaci.domain.run import Run
from deltaci.notifier.message import Message, channels, happened, message, unexplained
from deltaci.store.port import Store
from deltaci.store.writes import Reported

# For so long after a run's end it is worth waiting for the explanations of what failed.
EXPLAINED_WITHIN_MS: Final = 15_000
LOOK_AGAIN_MS: Final = 300
# News of yesterday is none.
GIVE_UP_AFTER_MS: Final = 24 * 3_600_000


class Sender(Protocol):
    """Sends to channels by name."""

    async def send(self, channel: str, message: Message) -> None:
        """Send it; raises `ForgeRejected` or `ForgeUnavailable`."""
        ...


class RunNotifier:
    """Tells the ends of runs to the channels of a server."""

    def __init__(self, store: Store, sender: Sender, *, base_url: str, clock: Clock) -> None:
        """`base_url` is where people find this server."""
        self._store = store
        self._sender = sender
        self._base_url = base_url
        self._clock = clock

    async def notify(self, run_id: str) -> None:
        """Tell each channel that was not told yet.

        Raises:
            ForgeUnavailable: a channel, or an explanation that the message should have, is to be tried again.
            ForgeRejected: a channel refused for good, or failed for a day; the others were told.
        """
        run = await self._store.load_run(run_id)
        plan = await self._store.load_plan(run_id)
        repo = None if run is None else await self._store.load_repo(run.key.repo_id)
        if run is None or plan is None or repo is None:
            raise ForgeRejected(f"cannot tell anybody that run {run_id} is over: it, its plan or repository is gone")
        happenings = happened(run, await self._store.run_before(run_id))
        told = await self._store.reported(run_id)
        waiting = [one for one in channels(plan.notify, happenings) if mark(one) not in told]
        if not waiting:
            return
        jobs = await self._store.jobs_of_run(run_id)
        explanations = await self._store.explanations_of_run(run_id)
        age_ms = self._clock.now_ms() - (run.ended_at_ms or 0)
        if unexplained(jobs, explanations) and age_ms < EXPLAINED_WITHIN_MS:
            raise ForgeUnavailable(
                f"run {run_id} has a failure that is about to be explained", retry_after_ms=LOOK_AGAIN_MS
            )
        text = message(run, jobs, explanations, repo, happenings[0], self._base_url)
        await self._tell(run, waiting, text, is_last=age_ms >= GIVE_UP_AFTER_MS)

    async def _tell(self, run: Run, waiting: Sequence[str], text: Message, *, is_last: bool) -> None:
        refused: list[ForgeRejected] = []
        failed: list[ForgeUnavailable] = []
        for channel in waiting:
            try:
                await self._sender.send(channel, text)
            except ForgeRejected as error:
                refused.append(error)
            except ForgeUnavailable as error:
                failed.append(error)
            else:
                told = Reported(run_id=run.id, check=mark(channel), digest="told", at_ms=self._clock.now_ms())
                await self._store.commit((told,))
        if failed and not is_last:
            raise failed[0]
        if failed:
            raise ForgeRejected(f"given up a day after the end of the run: {failed[0]}") from failed[0]
        if refused:
            raise ForgeRejected("; ".join(map(str, refused)))


def mark(channel: str) -> str:
    """Under what name it is noted that a channel was told, among the checks of a run; no job is named like this."""
    return f"@{channel}"
