"""The data directory: what is in it, and who is at home there.

Rule: one process at a time is at home in a data directory. Heartbeats live in the memory of the server that heard them:
      of two servers on one database, each would let the leases expire whose holders speak to the other.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from deltaci.domain.errors import ConfigError

DATABASE_FILE: Final = "deltaci.db"
ADMIN_TOKEN_FILE: Final = "admin-token"
ARTIFACTS: Final = "artifacts"
# In a backup only, and its last file: what the backup holds
MANIFEST_FILE: Final = "backup.json"
# In a data directory that is being restored: everything, until it is whole
UNFINISHED: Final = "restore.partial"


def prepare(data: Path) -> None:
    """The data directory, closed to others; raises `ConfigError` when others can read it."""
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--data {data}: {error.strerror}; name a directory that can be written") from error
    if data.stat().st_mode & 0o077:
        raise ConfigError(
            f"--data {data} is open to other users (mode {data.stat().st_mode & 0o777:o}), and it holds secrets: "
            f"chmod 700 {data}"
        )


@contextmanager
def held(data: Path) -> Iterator[None]:
    """Be at home in `data`, which is made if need be, until the block is left or the process ends, however it ends.

    Raises `ConfigError` when another process is, when `data` is a backup, or half of a restored one.
    """
    prepare(data)
    if (data / MANIFEST_FILE).exists():
        raise ConfigError(
            f"--data {data} is a backup: `deltaci restore --from {data} --data DIR` makes a data directory of it"
        )
    with locked(data):
        if (data / UNFINISHED).exists() and not (data / DATABASE_FILE).exists():
            raise ConfigError(f"a restore into {data} did not finish: run `deltaci restore` into it again")
        yield


@contextmanager
def locked(data: Path) -> Iterator[None]:
    """Hold the directory itself, so that nothing that is removed from it takes the lock along."""
    descriptor = os.open(data, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(f"another process works on {data}: stop it, or let it end, first") from error
        yield
    finally:
        os.close(descriptor)
