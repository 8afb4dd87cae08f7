"""The space on the disk that logs and artifacts leave to state.

Rule: what a build can make as much of as it likes must not take the last bytes: without them no webhook is accepted, no
      lease granted and no result stored. Its senders are told to come back; state goes on until the disk is full.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from loguru import logger

# Space that comes back; less is the database's own to and fro
RELIEF_BYTES: Final = 1024 * 1024


class DiskSpace:
    """Knows whether there is room for bytes of logs and artifacts beside the reserve."""

    def __init__(self, directory: Path, reserve_bytes: int, *, free: Callable[[Path], int] | None = None) -> None:
        """`free` tells how many bytes may still be written to the file system of `directory`."""
        self._directory = directory
        self._reserve_bytes = reserve_bytes
        self._free = free or free_bytes
        self._low_at_bytes: int | None = None

    def has_room(self, size_bytes: int) -> bool:
        """Whether `size_bytes` more leave the reserve untouched; the first of many refusals is logged."""
        try:
            free = self._free(self._directory)
        except OSError as error:
            # Not knowing is no reason to refuse: the write itself will tell.
            logger.debug("how much space is free is not known: {}", error)
            return True
        if self._low_at_bytes is not None and free >= self._low_at_bytes + RELIEF_BYTES:
            logger.info("{} bytes are free again", free)
            self._low_at_bytes = None
        if free - size_bytes >= self._reserve_bytes:
            return True
        if self._low_at_bytes is None:
            logger.warning(
                "logs and artifacts have to wait: {} bytes are free, and {} are kept for state (disk_reserve_bytes)",
                free,
                self._reserve_bytes,
            )
            self._low_at_bytes = free
        return False


def free_bytes(directory: Path) -> int:
    """What an ordinary user may still write to the file system of `directory`."""
    found = os.statvfs(directory)
    return found.f_bavail * found.f_frsize


def endless(_size_bytes: int) -> bool:
    """There is always room."""
    return True
