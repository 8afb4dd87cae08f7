"""What every store promises of logs, artifacts, explanations and reports."""

import msgspec
import pytest

from deltaci.domain.errors import DuplicateKey, RevisionConflict
from deltaci.store.port import LogState, Store
from deltaci.store.writes import ArtifactStored, Explanation, LogChunk, Reported
from tests.builders import (
    NOW_MS,
    a_created_job,
    a_job,
    a_run_id,
    add_job,
)
from tests.contracts.store.support import outcomes

pytestmark = pytest.mark.anyio


def a_chunk(offset: int, data: bytes, *, is_final: bool = False, crc32: int | None = None) -> LogChunk:
    return LogChunk(
        job_id=a_job().id, attempt=1, offset=offset, data=data, at_ms=NOW_MS, is_final=is_final, crc32=crc32
    )


async def test_a_log_grows_by_offset_and_is_closed_once(store: Store) -> None:
    """Its bytes are contiguous; nothing comes after the last chunk."""
    await store.commit([a_chunk(0, b"one\n"), a_chunk(4, b"two\n")])
    await store.commit([a_chunk(8, b"", is_final=True, crc32=7)])

    answers = await outcomes(store, [[a_chunk(8, b"late")]])

    assert isinstance(answers[0], RevisionConflict)
    assert LogState(size=8, is_final=True, crc32=7) == await store.log_state(a_job().id, 1)
    assert await store.read_log(a_job().id, 1, offset=0, limit=100) == b"one\ntwo\n"
    assert LogState() == await store.log_state(a_job().id, 2)


@pytest.mark.parametrize("offset", [0, 3, 5])
async def test_a_chunk_that_does_not_follow_is_refused(store: Store, offset: int) -> None:
    """A repeat, an overlap and a gap alike: the sender is told where to go on."""
    await store.commit([a_chunk(0, b"four")])

    with pytest.raises(RevisionConflict):
        await store.commit([a_chunk(offset, b"other")])

    assert await store.read_log(a_job().id, 1, offset=0, limit=100) == b"four"


async def test_a_log_cannot_begin_in_the_middle(store: Store) -> None:
    """A first chunk lost on the way is a gap too."""
    with pytest.raises(RevisionConflict):
        await store.commit([a_chunk(4, b"data")])

    assert LogState() == await store.log_state(a_job().id, 1)


async def test_an_empty_log_can_be_closed(store: Store) -> None:
    """A job that prints nothing has a complete log of no bytes, closed once."""
    await store.commit([a_chunk(0, b"")])
    await store.commit([a_chunk(0, b"", is_final=True, crc32=0)])

    answers = await outcomes(store, [[a_chunk(0, b"x")]])

    assert isinstance(answers[0], RevisionConflict)
    assert LogState(size=0, is_final=True, crc32=0) == await store.log_state(a_job().id, 1)


@pytest.mark.parametrize(
    ("offset", "limit", "expected"),
    [
        (0, 3, b"012"),
        (2, 4, b"2345"),
        (5, 1, b"5"),
        (9, 5, b"9"),
        (10, 5, b""),
        (-3, 2, b"78"),
        (-99, 4, b"0123"),
        (3, 0, b""),
    ],
)
async def test_a_log_is_read_from_any_offset(store: Store, offset: int, limit: int, expected: bytes) -> None:
    """Where chunks begin and end does not show."""
    for start in (0, 4, 5):
        await store.commit([a_chunk(start, b"0123456789"[start : {0: 4, 4: 5, 5: 10}[start]])])

    assert expected == await store.read_log(a_job().id, 1, offset=offset, limit=limit)


async def test_an_artifact_name_is_taken_once_an_attempt(store: Store) -> None:
    """What was stored first stays; the list follows the plan."""
    first = ArtifactStored(job_id=a_job(index=1).id, attempt=1, name="a.xml", size_bytes=3, sha256="0", at_ms=1)
    other = ArtifactStored(job_id=a_job(index=0).id, attempt=1, name="a.xml", size_bytes=3, sha256="0", at_ms=1)
    again = ArtifactStored(job_id=a_job(index=1).id, attempt=1, name="a.xml", size_bytes=4, sha256="1", at_ms=2)
    await store.commit([add_job(a_created_job(index=index)) for index in range(2)])
    await store.commit([first, other])

    with pytest.raises(DuplicateKey) as caught:
        await store.commit([again])

    assert ("artifact", (other, first)) == (caught.value.table, await store.artifacts_of_run(a_run_id()))


async def test_an_explanation_is_replaced_by_a_later_one(store: Store) -> None:
    """One an attempt, in the order of the plan."""
    first = Explanation(
        job_id=a_job().id,
        attempt=1,
        category="test",
        confidence=0.5,
        summary="a test failed",
        evidence=("FAILED a",),
        next_step="fix it",
        at_ms=1,
    )
    second = msgspec.structs.replace(first, confidence=0.9, evidence=("FAILED a", "FAILED b"))
    await store.commit([add_job(), first])

    await store.commit([second])

    assert (second,) == await store.explanations_of_run(a_run_id())
    assert await store.explanations_of_run(a_run_id(2)) == ()


async def test_what_was_reported_is_kept_by_check(store: Store) -> None:
    """The empty name is the run itself."""
    writes = [("", "1"), ("test", "2"), ("test", "3")]
    for check, digest in writes:
        await store.commit([Reported(run_id=a_run_id(), check=check, digest=digest, at_ms=0)])

    assert await store.reported(a_run_id()) == {"": "1", "test": "3"}
    assert await store.reported(a_run_id(2)) == {}
