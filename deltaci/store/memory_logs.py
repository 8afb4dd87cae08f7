"""The part of the memory store that keeps the logs of attempts, chunk by chunk."""

from collections.abc import Callable, Collection, MutableMapping
from typing import Any

from deltaci.store.port import LogRow, LogState
from deltaci.store.rules import refused
from deltaci.store.writes import LogChunk

Put = Callable[[MutableMapping[Any, Any], Any, Any], None]


class MemoryLogs:
    """Logs by job and attempt; `put` notes how to undo what it does."""

    def __init__(self, put: Put) -> None:
        self._put = put
        self._states: dict[tuple[str, int], LogState] = {}
        self._chunks: dict[tuple[str, int], tuple[bytes, ...]] = {}

    def append(self, write: LogChunk) -> None:
        """One write; raises what its docstring says."""
        key = (write.job_id, write.attempt)
        state = self._states.get(key, LogState())
        if state.is_final or state.size != write.offset:
            raise refused(write)
        size = write.offset + len(write.data)
        self._put(self._states, key, LogState(size=size, is_final=write.is_final, crc32=write.crc32))
        self._put(self._chunks, key, (*self._chunks.get(key, ()), write.data))

    def state(self, job_id: str, attempt: int) -> LogState:
        """How far a log is stored."""
        return self._states.get((job_id, attempt), LogState())

    def data(self, job_id: str, attempt: int) -> bytes:
        """A whole log."""
        return b"".join(self._chunks.get((job_id, attempt), ()))

    def rows(self, job_ids: Collection[str]) -> tuple[LogRow, ...]:
        """The logs of these jobs, as a check of what is stored sees them."""
        return tuple(self._row(key) for key in sorted(self._states) if key[0] in job_ids)

    def _row(self, key: tuple[str, int]) -> LogRow:
        chunks, start = [], 0
        for data in self._chunks[key]:
            if data:
                chunks.append((start, len(data)))
            start += len(data)
        return LogRow(job_id=key[0], attempt=key[1], state=self._states[key], chunks=tuple(chunks))
