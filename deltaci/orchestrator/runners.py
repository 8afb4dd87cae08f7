"""Which runners are online, as far as this process knows: memory only, never a source of truth for state."""

from collections.abc import Callable

import msgspec

from deltaci.domain.clock import Clock
from deltaci.store.writes import Runner
from protocol.messages import ServerMessage


class Online(msgspec.Struct):
    """A runner that was heard of since the start."""

    runner: Runner
    labels: frozenset[str]
    heard_at_ms: int
    send: Callable[[ServerMessage], bool] | None = None


class RunnerHub:
    """Runners by id, with the open channel of each if it has one."""

    def __init__(self, clock: Clock, silent_after_ms: int) -> None:
        self._clock = clock
        self._silent_after_ms = silent_after_ms
        self._online: dict[str, Online] = {}

    def hear(self, runner: Runner) -> Online:
        """The runner spoke."""
        online = self._online.get(runner.id)
        now_ms = self._clock.now_ms()
        if online is None:
            self._forget_silent()
            online = self._online[runner.id] = Online(runner, frozenset(runner.labels), now_ms)
        elif online.runner is not runner:
            online.runner, online.labels = runner, frozenset(runner.labels)
        online.heard_at_ms = now_ms
        return online

    def known(self, runner_id: str) -> Runner | None:
        """The runner, if it registered or spoke since the start."""
        online = self._online.get(runner_id)
        return None if online is None else online.runner

    def attach(self, runner_id: str, send: Callable[[ServerMessage], bool]) -> None:
        """The runner's channel is open; a newer channel takes the place of an older one."""
        self._online[runner_id].send = send

    def detach(self, runner_id: str, send: Callable[[ServerMessage], bool]) -> None:
        """That channel is closed, unless a newer one took its place."""
        online = self._online.get(runner_id)
        if online is not None and online.send == send:  # two looks at a bound method are equal, and not the same
            online.send = None

    def push(self, runner_id: str, message: ServerMessage) -> bool:
        """Send without waiting; False if the runner has no open channel (its next heartbeat tells it)."""
        online = self._online.get(runner_id)
        return online is not None and online.send is not None and online.send(message)

    def _forget_silent(self) -> None:
        """Runners that live for one job, each under a name of its own, must not pile up; the store knows them all."""
        since_ms = self._clock.now_ms() - self._silent_after_ms
        silent = [key for key, one in self._online.items() if one.send is None and one.heard_at_ms < since_ms]
        for key in silent:
            del self._online[key]

    def online(self) -> tuple[Online, ...]:
        """Runners with a channel, or heard recently."""
        since_ms = self._clock.now_ms() - self._silent_after_ms
        return tuple(one for one in self._online.values() if one.send is not None or one.heard_at_ms >= since_ms)

    def labels(self) -> tuple[frozenset[str], ...]:
        """The labels of each runner online."""
        return tuple(one.labels for one in self.online())
