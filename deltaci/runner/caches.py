"""Caches: directories of a job kept on this host under a deterministic key.

Rule 1: a cache appears whole or not at all: it is written beside its place and renamed.
Rule 2: a key names its content for ever; what exists is not written again.
"""

import contextlib
import hashlib
import os
import secrets
import tarfile
from pathlib import Path, PurePosixPath
from typing import Any, Final

from loguru import logger

from protocol.messages import Cache

HOME_PREFIX: Final = "~/"
FILTER_ERROR: Final[Any] = getattr(tarfile, "FilterError", ())


class CacheDir:
    """The caches of one host. All methods block on the file system."""

    def __init__(self, root: Path, *, bytes_max: int) -> None:
        self._root = root
        self._bytes_max = bytes_max

    def restore(self, repo: str, cache: Cache, *, checkout: Path, home: Path) -> bool:
        """Unpack the cache; True if there was one. A damaged one is removed and counts as none."""
        place = self._place(repo, cache.key)
        try:
            with tarfile.open(place, "r:") as archive:
                # Early releases of Python 3.11 have no filters; what is unpacked was packed on this host.
                archive.extraction_filter = getattr(tarfile, "tar_filter", None)
                for member in archive:
                    base, _, name = member.name.partition("/")
                    target = {"checkout": checkout, "home": home}.get(base)
                    if target is not None and name:
                        if member.islnk():
                            member.linkname = member.linkname.partition("/")[2]
                        member.name = name
                        archive.extract(member, target)
            os.utime(place)
        except FileNotFoundError:
            return False
        except (tarfile.TarError, OSError, EOFError, KeyError) as error:
            if isinstance(error, FILTER_ERROR):
                # A link of the checkout itself leads out of it: the commit is odd, the cache is not.
                logger.warning("cache {!r} is not restored in full: {}", cache.key, error)
                return False
            logger.warning("cache {!r} is damaged and removed: {}", cache.key, error)
            place.unlink(missing_ok=True)
            return False
        return True

    def save(self, repo: str, cache: Cache, *, checkout: Path, home: Path) -> bool:
        """Keep the cache's directories; False if it exists already, or none of them does.

        Raises:
            OSError: the disk is full or a file cannot be read; nothing was kept.
        """
        place = self._place(repo, cache.key)
        if place.exists():
            return False
        partial = self._root / f"{secrets.token_hex(8)}.partial"
        try:
            count = 0
            with tarfile.open(partial, "x", format=tarfile.PAX_FORMAT) as archive:
                for path in cache.paths:
                    source, name = _source_of(path, checkout, home)
                    if source is not None and source.exists():
                        archive.add(source, arcname=name)
                        count += 1
            if count:
                partial.replace(place)
            return count > 0
        finally:
            partial.unlink(missing_ok=True)
            self._evict(keep=place)

    def _place(self, repo: str, key: str) -> Path:
        # The repository belongs to the key: the same lock file in two repositories is no reason to share.
        digest = hashlib.sha256(f"{repo}\n{key}".encode())
        return self._root / f"{digest.hexdigest()}.tar"

    def _evict(self, *, keep: Path) -> None:
        """Remove the caches used least recently while all together are larger than the limit."""
        found: list[tuple[float, int, Path]] = []
        for path in self._root.glob("*.tar"):
            with contextlib.suppress(FileNotFoundError):
                status = path.stat()
                found.append((status.st_mtime, status.st_size, path))
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= self._bytes_max:
                return
            if path != keep:
                path.unlink(missing_ok=True)
                total -= size


def _source_of(path: str, checkout: Path, home: Path) -> tuple[Path | None, str]:
    """Where a cached path is and its name in the archive; no place for one that leaves checkout and home."""
    base, inner, prefix = (home, path[2:], "home") if path.startswith(HOME_PREFIX) else (checkout, path, "checkout")
    parts = PurePosixPath(inner).parts
    if not parts or ".." in parts or inner.startswith("/"):
        logger.warning("cache path {!r} leaves the checkout and is not kept", path)
        return None, ""
    source = base / inner
    if not source.resolve().is_relative_to(base.resolve()):
        logger.warning("cache path {!r} is a link that leaves the checkout and is not kept", path)
        return None, ""
    return source, "/".join((prefix, *parts))
