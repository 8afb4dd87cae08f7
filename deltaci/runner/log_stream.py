"""An attempt's log on its way to the control plane: appended to a spool file, sent by offset, acknowledged.

Rule 1: a byte that was kept stays in the spool until the log is closed, so that any gap can be filled again.
Rule 2: nothing is cut in silence: what goes beyond the limit is counted, and the log says how much it was.
"""

import asyncio
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

from loguru import logger

from deltaci.runner.resend import ask_until_definite
from protocol.client import Backoff, RunnerClient
from protocol.messages import AppendLog, Failure, LeaseGranted, LogAck, LogGap, StaleLease

MARKER_BYTES_MAX: Final = 160


class LogStream:
    """The log of one attempt.

    Args:
        spool: where the bytes wait; created, and removed by `discard`.
        chunk_bytes_max: the most one `AppendLog` carries.
        flush_ms: how long bytes may wait for more.
        on_stale: called when the server says that the lease is not the current one.
        can_go_on: False once the right to send is lost; sending then ends.
    """

    def __init__(
        self,
        grant: LeaseGranted,
        *,
        client: RunnerClient,
        spool: Path,
        chunk_bytes_max: int,
        flush_ms: int,
        backoff: Backoff,
        on_stale: Callable[[], None],
        can_go_on: Callable[[], bool] = lambda: True,
    ) -> None:
        self._grant = grant
        self._client = client
        self._spool = spool
        self._fd = os.open(spool, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._chunk_bytes_max = chunk_bytes_max
        self._flush_s = flush_ms / 1000
        self._backoff = backoff
        self._on_stale = on_stale
        self._can_go_on = can_go_on
        self._room = max(0, grant.job.log_bytes_max - MARKER_BYTES_MAX)
        self._is_marked = False
        self._dropped_bytes = 0
        self._acked = 0
        self._is_closing = False
        self._is_refused = False
        self._changed = asyncio.Event()
        self._sender: asyncio.Task[None] | None = None
        self.size = 0
        self.crc32 = 0

    def start(self) -> None:
        """Begin to send; needs the running loop."""
        self._sender = asyncio.create_task(self._send())

    def write(self, data: bytes) -> None:
        """Append output. Never waits. Raises `OSError` when the spool's disk is full."""
        kept = data[: self._room]
        if kept:
            self._keep(kept)
            self._room -= len(kept)
        if len(kept) < len(data):
            self._dropped_bytes += len(data) - len(kept)
            self._mark_limit()

    def line(self, text: str) -> None:
        """Append a line of the runner's own."""
        self.write(f"{text}\n".encode(errors="replace"))

    async def close(self) -> None:
        """Write the last line, send everything, close the log with its checksum; returns when that is definite.

        Afterwards `size` and `crc32` are final. An outage of the server is waited out.
        """
        if not self._is_closing and self._dropped_bytes:
            self._keep(f"{self._dropped_bytes} more bytes were not kept\n".encode())
        self._is_closing = True
        self._changed.set()
        if self._sender is not None:
            await asyncio.shield(self._sender)

    async def discard(self) -> None:
        """Stop sending and remove the spool. Idempotent."""
        if self._sender is not None:
            self._sender.cancel()
            await asyncio.gather(self._sender, return_exceptions=True)
            self._sender = None
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            self._spool.unlink(missing_ok=True)

    def _mark_limit(self) -> None:
        # The line is begun at the limit, for whoever is watching, and ended at the close, when the count is known.
        if not self._is_marked:
            self._is_marked = True
            self._keep(f"\nlog limit of {self._grant.job.log_bytes_max} bytes reached; ".encode())

    def _keep(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            written = os.write(self._fd, view)
            self.crc32 = zlib.crc32(view[:written], self.crc32)
            self.size += written
            view = view[written:]
        self._changed.set()

    # ---- sending -------------------------------------------------------------------------------------------------

    async def _send(self) -> None:
        """Send what is new until the log is closed or refused."""
        while not self._is_refused:
            await self._wait_for_bytes()
            is_final = self._is_closing and self.size - self._acked <= self._chunk_bytes_max
            if await self._send_chunk(is_final=is_final) and is_final:
                return

    async def _wait_for_bytes(self) -> None:
        while not self._is_closing and self._acked == self.size:
            self._changed.clear()
            await self._changed.wait()
        deadline = asyncio.get_running_loop().time() + self._flush_s
        while not self._is_closing and self.size - self._acked < self._chunk_bytes_max:
            self._changed.clear()
            try:
                async with asyncio.timeout_at(deadline):
                    await self._changed.wait()
            except TimeoutError:
                return

    async def _send_chunk(self, *, is_final: bool) -> bool:
        """Send from the acknowledged offset; True when the server has the chunk."""
        offset = self._acked
        data = os.pread(self._fd, min(self._chunk_bytes_max, self.size - offset), offset)
        answer = await ask_until_definite(
            self._client,
            AppendLog(
                lease_id=self._grant.lease_id,
                job_id=self._grant.job_id,
                attempt=self._grant.attempt,
                offset=offset,
                data=data,
                is_final=is_final,
                crc32=self.crc32 if is_final else None,
            ),
            backoff=self._backoff,
            can_go_on=self._can_go_on,
        )
        match answer:
            case LogAck(size=size) if offset < size <= offset + len(data) or size == offset + len(data):
                self._acked = size
                self._backoff.reset()
                return size == offset + len(data)
            case LogGap(size=size) | LogAck(size=size) if size <= self.size:
                logger.info("the log goes on from {} instead of {}", size, offset)
                self._acked = size
                await asyncio.sleep(self._backoff.next_s())
            case StaleLease():
                self._is_refused = True
                self._on_stale()
            case None:
                self._is_refused = True
            case Failure():
                self._is_refused = True
                logger.error("the server refuses the log at {}: {} {}", offset, answer.code, answer.message)
            case _:
                self._is_refused = True
                logger.error("the server answers the log at {} with a {}", offset, type(answer).__name__)
        return False
