"""Artifact files: hostile names, broken uploads, and what is left of them."""

import hashlib
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from deltaci.domain.errors import MalformedRequest, NotFound, StorageFull
from deltaci.store.artifacts import NAME_MAX, ArtifactFiles, ArtifactTooLarge, ChecksumMismatch, StoredFile

pytestmark = pytest.mark.anyio

DATA = b"0123456789" * 100
SHA256 = hashlib.sha256(DATA).hexdigest()


async def sent(data: bytes = DATA, size: int = 7) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def cut() -> AsyncIterator[bytes]:
    yield DATA[:10]
    raise ConnectionResetError


def files_in(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


async def test_an_artifact_is_read_as_it_was_sent(tmp_path: Path) -> None:
    """Byte for byte, under a name of its own, closed to others."""
    files = ArtifactFiles(tmp_path / "artifacts")

    stored = await files.store("job_1", 1, "report äö.xml", sent(), sha256=SHA256, size_bytes_max=len(DATA))

    assert StoredFile(len(DATA), SHA256) == stored
    assert b"".join([chunk async for chunk in files.read("job_1", 1, "report äö.xml")]) == DATA
    path = tmp_path / "artifacts" / "job_1" / "1" / "report äö.xml"
    assert [stat.S_IMODE(one.stat().st_mode) for one in (path, path.parent)] == [0o600, 0o700]


async def test_an_artifact_may_be_empty(tmp_path: Path) -> None:
    """A report of no findings is a report."""
    files = ArtifactFiles(tmp_path)

    stored = await files.store("job_1", 1, "empty", sent(b""), sha256="", size_bytes_max=0)

    assert stored.size_bytes == 0
    assert [chunk async for chunk in files.read("job_1", 1, "empty")] == []


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../x",
        "a/b",
        "/etc/passwd",
        "a\\b",
        "nul\0",
        "line\n",
        "escape\x1b[31m",
        "right-to-left\u202etxt",
        "lone\ud800",
        "x" * (NAME_MAX + 1),
        "ä" * NAME_MAX,
    ],
)
async def test_a_hostile_name_is_refused(tmp_path: Path, name: str) -> None:
    """None may leave its directory, hide another, or write to a terminal."""
    files = ArtifactFiles(tmp_path / "artifacts")

    with pytest.raises(MalformedRequest):
        await files.store("job_1", 1, name, sent(), sha256="", size_bytes_max=10_000)
    with pytest.raises(MalformedRequest):
        await anext(files.read("job_1", 1, name))

    assert files_in(tmp_path) == []


async def test_the_longest_name_is_accepted(tmp_path: Path) -> None:
    """The limit itself is allowed."""
    files = ArtifactFiles(tmp_path)

    await files.store("job_1", 1, "x" * NAME_MAX, sent(), sha256="", size_bytes_max=10_000)

    assert [f"job_1/1/{'x' * NAME_MAX}"] == files_in(tmp_path)


@pytest.mark.parametrize(("job_id", "attempt"), [("../job", 1), ("", 1), (".incoming", 1), ("job_1", 0), ("job_1", -1)])
async def test_a_place_that_no_attempt_has_is_refused(tmp_path: Path, job_id: str, attempt: int) -> None:
    """Ids reach this far from a URL."""
    with pytest.raises(MalformedRequest):
        await ArtifactFiles(tmp_path).store(job_id, attempt, "x", sent(), sha256="", size_bytes_max=10_000)

    assert files_in(tmp_path) == []


async def test_one_byte_too_many_is_refused(tmp_path: Path) -> None:
    """Whatever length was announced; nothing stays on disk."""
    files = ArtifactFiles(tmp_path)

    with pytest.raises(ArtifactTooLarge):
        await files.store("job_1", 1, "x", sent(), sha256=SHA256, size_bytes_max=len(DATA) - 1)

    assert files_in(tmp_path) == []


async def test_other_bytes_than_announced_are_refused(tmp_path: Path) -> None:
    """What was stored before under the name stays."""
    files = ArtifactFiles(tmp_path)
    await files.store("job_1", 1, "x", sent(), sha256=SHA256, size_bytes_max=10_000)

    with pytest.raises(ChecksumMismatch):
        await files.store("job_1", 1, "x", sent(b"other"), sha256=SHA256, size_bytes_max=10_000)

    assert files_in(tmp_path) == ["job_1/1/x"]
    assert b"".join([chunk async for chunk in files.read("job_1", 1, "x")]) == DATA


async def test_an_upload_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    """The connection's error is its sender's; the disk is as before."""
    with pytest.raises(ConnectionResetError):
        await ArtifactFiles(tmp_path).store("job_1", 1, "x", cut(), sha256="", size_bytes_max=10_000)

    assert files_in(tmp_path) == []


async def test_what_a_killed_process_left_is_overwritten(tmp_path: Path) -> None:
    """Its half upload was never answered."""
    (tmp_path / ".incoming").mkdir()
    (tmp_path / ".incoming" / "1").write_bytes(b"half")

    await ArtifactFiles(tmp_path).store("job_1", 1, "x", sent(), sha256=SHA256, size_bytes_max=10_000)

    assert files_in(tmp_path) == ["job_1/1/x"]


async def test_a_link_is_not_followed(tmp_path: Path) -> None:
    """Whoever can write into the directory still cannot make the server read elsewhere."""
    (tmp_path / "job_1" / "1").mkdir(parents=True)
    (tmp_path / "job_1" / "1" / "x").symlink_to("/etc/hostname")

    with pytest.raises(NotFound):
        await anext(ArtifactFiles(tmp_path).read("job_1", 1, "x"))


async def test_an_artifact_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    """A normal answer for a stale link."""
    with pytest.raises(NotFound):
        await anext(ArtifactFiles(tmp_path).read("job_1", 1, "x"))


@pytest.mark.parametrize(("announced", "room"), [(0, 0), (len(DATA), len(DATA) - 1), (0, len(DATA) - 1)])
async def test_an_artifact_never_takes_the_last_space(tmp_path: Path, announced: int, room: int) -> None:
    """Refused before the first byte when its size is announced, else as soon as it shows; nothing of it stays."""
    files = ArtifactFiles(tmp_path, has_room=lambda size: size <= room)

    with pytest.raises(StorageFull):
        await files.store("job_1", 1, "x", sent(), sha256="", size_bytes_max=10_000, size_bytes=announced)

    assert files_in(tmp_path) == []


async def test_an_artifact_that_just_fits_is_stored(tmp_path: Path) -> None:
    """At the limit, not one byte before it."""
    files = ArtifactFiles(tmp_path, has_room=lambda size: size <= len(DATA))

    await files.store("job_1", 1, "x", sent(), sha256=SHA256, size_bytes_max=10_000, size_bytes=len(DATA))

    assert files_in(tmp_path) == ["job_1/1/x"]
