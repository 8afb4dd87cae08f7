"""The reserve on the disk: what leaves it untouched, and how often its end is told."""

from pathlib import Path

import loguru
import pytest

from deltaci.store.space import RELIEF_BYTES, DiskSpace, free_bytes

RESERVE_BYTES = 1_000


@pytest.fixture
def told() -> list[str]:
    """The levels of what is logged."""
    levels: list[str] = []
    number = loguru.logger.add(lambda message: levels.append(message.record["level"].name), level="INFO")
    yield levels
    loguru.logger.remove(number)


@pytest.mark.parametrize(("size_bytes", "has_room"), [(0, True), (500, True), (501, False)])
def test_what_leaves_the_reserve_untouched_has_room(size_bytes: int, has_room: bool) -> None:
    """To the byte."""
    space = DiskSpace(Path("/"), RESERVE_BYTES, free=lambda _: 1_500)

    assert space.has_room(size_bytes) == has_room


def test_that_space_runs_out_is_told_once_and_once_that_it_is_back(told: list[str]) -> None:
    """Every runner comes back every few seconds for as long as it lasts."""
    free = [0]
    space = DiskSpace(Path("/"), RESERVE_BYTES, free=lambda _: free[-1])

    refused = [space.has_room(1) for _ in range(1_000)]
    free.append(RELIEF_BYTES - 1)  # what the database itself gives and takes
    refused += [space.has_room(RELIEF_BYTES) for _ in range(1_000)]
    free.append(2 * RELIEF_BYTES)
    accepted = [space.has_room(1) for _ in range(1_000)]

    assert (any(refused), all(accepted)) == (False, True)
    assert told == ["WARNING", "INFO"]


def test_a_disk_that_does_not_tell_is_left_to_tell_by_itself() -> None:
    """The write that follows will fail or not."""

    def unknown(_: Path) -> int:
        raise OSError

    assert DiskSpace(Path("/"), RESERVE_BYTES, free=unknown).has_room(2**60)


def test_the_space_of_a_real_disk_is_seen(tmp_path: Path) -> None:
    """In bytes, not in blocks."""
    assert DiskSpace(tmp_path, 1).has_room(1)
    assert not DiskSpace(tmp_path, 1).has_room(2 * free_bytes(tmp_path))
