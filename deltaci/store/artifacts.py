"""The bytes of artifacts, as files: `<root>/<job>/<attempt>/<name>`. Their rows are the store's.

Rule 1: a file has its final name only when all its bytes are on disk and their SHA-256 is the announced one.
Rule 2: names come from builds and are hostile until checked: none leaves its directory, none hides another.
"""

import hashlib
import os
import unicodedata
from collections.abc import AsyncIterable, AsyncIterator, Callable
from pathlib import Path
from typing import Final, TypeVar, TypeVarTuple, Unpack

import anyio
import anyio.to_thread
import msgspec

from deltaci.domain.errors import MalformedRequest, NotFound, ProtocolError, StorageFull, StoreUnavailable
from deltaci.store.space import endless

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

NAME_MAX: Final = 200  # characters
NAME_BYTES_MAX: Final = 255  # what a file system takes
READ_BYTES: Final = 256 * 1024
_INCOMING: Final = ".incoming"  # no job id starts with a dot


class ArtifactTooLarge(ProtocolError):
    """The artifact is larger than this server accepts."""

    code = "artifact_too_large"
    http_status = 413


class ChecksumMismatch(ProtocolError):
    """The bytes that arrived are not the announced ones: send them again."""

    code = "checksum_mismatch"
    http_status = 422


class StoredFile(msgspec.Struct, frozen=True):
    """What is on disk."""

    size_bytes: int
    sha256: str


class ArtifactFiles:
    """A directory of artifacts; made with its first one. `has_room`: whether so many more bytes may be stored."""

    def __init__(self, root: Path, *, has_room: Callable[[int], bool] = endless) -> None:
        self._root = root
        self._has_room = has_room
        self._uploads = 0

    async def store(
        self,
        job_id: str,
        attempt: int,
        name: str,
        chunks: AsyncIterable[bytes],
        *,
        sha256: str,
        size_bytes_max: int,
        size_bytes: int = 0,
    ) -> StoredFile:
        """Write `chunks` to disk; afterwards the artifact is there as a whole, or nothing of it is.

        Storing the same name again replaces the file: without its row, an earlier one was never answered.

        Args:
            sha256: what the bytes must add up to, hex; empty: not checked.
            size_bytes_max: one byte more raises `ArtifactTooLarge`.
            size_bytes: how many are announced; 0: it was not said.

        Raises `MalformedRequest` for a name that is not accepted, `ChecksumMismatch`, `StorageFull` when it would take
        the last space, and `StoreUnavailable` when the disk does not take it.
        """
        target = self._path(job_id, attempt, name)
        self._check_room(size_bytes)
        self._uploads += 1
        partial = self._root / _INCOMING / str(self._uploads)
        descriptor = await _on_disk(self._begin, partial)
        try:
            stored = await self._receive(descriptor, chunks, size_bytes_max=size_bytes_max)
            if sha256 and stored.sha256 != sha256.lower():
                raise ChecksumMismatch(
                    f"artifact {name!r} has SHA-256 {stored.sha256}, {sha256} was announced: send it again"
                )
            with anyio.CancelScope(shield=True):
                await _on_disk(_settle, descriptor, partial, target, self._root)
        finally:
            os.close(descriptor)
            partial.unlink(missing_ok=True)
        return stored

    async def read(self, job_id: str, attempt: int, name: str) -> AsyncIterator[bytes]:
        """The bytes of an artifact; raises `NotFound` when there is no such file."""
        path = self._path(job_id, attempt, name)
        try:
            descriptor = await anyio.to_thread.run_sync(os.open, path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError as error:
            raise NotFound(f"attempt {attempt} of {job_id} has no artifact {name!r}") from error
        try:
            while chunk := await anyio.to_thread.run_sync(os.read, descriptor, READ_BYTES):
                yield chunk
        finally:
            os.close(descriptor)

    async def _receive(self, descriptor: int, chunks: AsyncIterable[bytes], *, size_bytes_max: int) -> StoredFile:
        digest = hashlib.sha256()
        size = 0

        def write(data: bytes) -> None:
            digest.update(data)
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]

        waiting = bytearray()
        async for chunk in chunks:
            size += len(chunk)
            if size > size_bytes_max:
                raise ArtifactTooLarge(f"an artifact has at most {size_bytes_max} bytes")
            waiting += chunk
            if len(waiting) >= READ_BYTES:
                self._check_room(len(waiting))
                await _on_disk(write, bytes(waiting))
                waiting.clear()
        self._check_room(len(waiting))
        await _on_disk(write, bytes(waiting))
        return StoredFile(size, digest.hexdigest())

    def _check_room(self, size_bytes: int) -> None:
        if not self._has_room(size_bytes):
            raise StorageFull

    def _path(self, job_id: str, attempt: int, name: str) -> Path:
        return self._root / relative_path(job_id, attempt, name)

    def _begin(self, partial: Path) -> int:
        partial.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # A number left over from an earlier process belongs to an upload that was never answered.
        partial.unlink(missing_ok=True)
        return os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def relative_path(job_id: str, attempt: int, name: str) -> Path:
    """Where an artifact lies below the root; raises `MalformedRequest` for what cannot be one."""
    check_name(name)
    if not job_id.replace("_", "").isalnum() or not job_id.isascii() or attempt < 1:
        raise MalformedRequest(f"attempt {attempt} of {job_id!r} cannot have artifacts")
    return Path(job_id) / str(attempt) / name


def check_name(name: str) -> None:
    """Raise `MalformedRequest` unless `name` is one plain component of a path, visible as it is."""
    if not name or len(name) > NAME_MAX or name in (".", ".."):
        raise MalformedRequest(f"artifact names have 1 to {NAME_MAX} characters: {name[:NAME_MAX]!r}")
    if any(character in "/\\" or unicodedata.category(character).startswith("C") for character in name):
        raise MalformedRequest(f"artifact names have no separators and no control characters: {name!r}")
    if len(name.encode()) > NAME_BYTES_MAX:
        raise MalformedRequest(f"artifact names have at most {NAME_BYTES_MAX} bytes: {name!r}")


async def _on_disk(function: Callable[[Unpack[Ts]], T], *args: *Ts) -> T:
    """The result of `function`, called on a thread; an error of the disk is the store's, not the sender's."""
    try:
        return await anyio.to_thread.run_sync(function, *args)
    except OSError as error:
        raise StoreUnavailable(f"an artifact was not stored: {error.strerror}; try again later") from error


def _settle(descriptor: int, partial: Path, target: Path, root: Path) -> None:
    """Bytes first, then the name, then the directories that hold it: a crash leaves all or nothing."""
    os.fsync(descriptor)
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    partial.replace(target)
    for directory in (target.parent, target.parent.parent, root):
        opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)
