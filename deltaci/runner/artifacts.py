"""Artifacts: which files a job keeps, packed into one archive a name.

Rule 1: only regular files that are really inside the checkout are packed; a link that leads out of it is refused.
Rule 2: equal files give equal archives, byte for byte, so that a repeated upload is recognised as one.
"""

import glob
import gzip
import hashlib
import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

import msgspec

from protocol.messages import Artifact


class ArtifactTooLarge(Exception):
    """The archive would pass the limit; nothing of it is kept."""


class Selection(msgspec.Struct, frozen=True):
    """What the globs of an artifact matched.

    Attributes:
        files: paths relative to the checkout, sorted, each once.
        refused: lines for the log, each naming what was left out and why.
    """

    files: tuple[str, ...]
    refused: tuple[str, ...]


def select_files(checkout: Path, artifact: Artifact) -> Selection:
    """Match the globs; a directory stands for all files below it. Blocks on the file system."""
    root = checkout.resolve()
    files: set[str] = set()
    refused: list[str] = []
    for pattern in artifact.paths:
        parts = PurePosixPath(pattern).parts
        if not pattern or ".." in parts or pattern.startswith("/") or "\0" in pattern:
            refused.append(f"pattern {pattern!r} leaves the checkout")
            continue
        for match in glob.iglob(pattern, root_dir=root, recursive=True, include_hidden=True):
            for name in _files_below(root, os.path.normpath(match)):
                why = _why_not(root, name)
                if why is None:
                    files.add(name)
                elif why:
                    refused.append(f"{name!r} {why}")
    return Selection(tuple(sorted(files)), tuple(dict.fromkeys(refused)))


def pack(checkout: Path, files: tuple[str, ...], target: Path, *, bytes_max: int) -> str:
    """Write `files` as a tar.gz to `target` and return its SHA-256, hex. Blocks.

    Raises:
        ArtifactTooLarge: the archive is larger than `bytes_max` bytes; `target` is removed.
        OSError: a file cannot be read, or the disk is full; `target` is removed.
    """
    try:
        with target.open("xb") as file:
            limited = _Limited(file, bytes_max)
            with (
                gzip.GzipFile(filename="", fileobj=limited, mode="wb", compresslevel=6, mtime=0) as zipped,
                tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT, dereference=True) as archive,
            ):
                for name in files:
                    _add(archive, checkout / name, name)
        return _sha256(target)
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def _add(archive: tarfile.TarFile, path: Path, name: str) -> None:
    info = archive.gettarinfo(path, arcname=name)
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    info.mtime = int(info.mtime)
    if info.islnk():
        # A second name of a file packed before: its content is packed again, so that order and names do not matter.
        info.type, info.linkname, info.size = tarfile.REGTYPE, "", path.stat().st_size
    with path.open("rb") as content:
        archive.addfile(info, content)


def _files_below(root: Path, name: str) -> Iterator[str]:
    path = root / name
    if path.is_symlink() or not path.is_dir():
        yield name
        return
    for directory, directories, names in os.walk(path):
        below = os.path.relpath(directory, root)
        # Links to directories are listed among the directories, and not followed: they are judged like files.
        links = [entry for entry in directories if os.path.islink(os.path.join(directory, entry))]
        directories[:] = sorted(entry for entry in directories if not (below == "." and entry == ".git"))
        yield from (os.path.normpath(os.path.join(below, entry)) for entry in (*names, *links))


def _why_not(root: Path, name: str) -> str | None:
    """None if the file may be packed, "" if it is left out without a word, else the reason."""
    try:
        real = (root / name).resolve(strict=True)
        mode = real.stat().st_mode
    except (OSError, RuntimeError):
        return "is a broken link or cannot be read"
    if not real.is_relative_to(root):
        return "is or lies behind a link that leads out of the checkout"
    if stat.S_ISDIR(mode):
        return "is a link to a directory, which is not followed"
    return None if stat.S_ISREG(mode) else "is no regular file"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _Limited:
    """A file that refuses the byte past its limit, so that a full disk is not how a limit is noticed."""

    def __init__(self, file: IO[bytes], bytes_max: int) -> None:
        self._file = file
        self._room = bytes_max

    def write(self, data: bytes) -> int:
        """Write, or raise `ArtifactTooLarge`."""
        self._room -= len(data)
        if self._room < 0:
            raise ArtifactTooLarge
        return self._file.write(data)

    def flush(self) -> None:
        """Nothing is buffered here."""
