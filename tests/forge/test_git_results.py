"""Result documents of plain git: in a directory, in a file, or posted."""

import errno
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from deltaci.domain.errors import ForgeRejected, ForgeUnavailable
from deltaci.domain.repo import Repo
from deltaci.forge.git import GitResults
from deltaci.forge.webhook import signature
from tests.forge.asking import asking
from tests.forge.hooks import NEW, OLD, a_repo
from tests.forge.loopback import Say, serving

pytestmark = pytest.mark.anyio
FIRST = b'{"state":"pending"}'
LAST = b'{"state":"success"}'


@pytest.fixture
async def results() -> AsyncIterator[GitResults]:
    async with asking() as client:
        yield GitResults(client)


def files_of(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def to(target: str | Path) -> Repo:
    return a_repo("shop", forge="git", report_to=str(target))


async def test_a_directory_gets_one_document_a_commit(results: GitResults, tmp_path: Path) -> None:
    """Scripts look a commit up by its name; only the last word on it counts."""
    await results.publish(to(tmp_path), NEW, FIRST, key="1")
    await results.publish(to(tmp_path), OLD, FIRST, key="2")
    await results.publish(to(tmp_path), NEW, LAST, key="3")

    assert files_of(tmp_path) == {f"{NEW}.json": LAST + b"\n", f"{OLD}.json": FIRST + b"\n"}


async def test_a_path_that_ends_in_a_slash_becomes_a_directory(results: GitResults, tmp_path: Path) -> None:
    """So that nobody has to make it by hand."""
    await results.publish(to(f"{tmp_path}/results/"), NEW, LAST, key="1")

    assert (tmp_path / "results" / f"{NEW}.json").read_bytes() == LAST + b"\n"


async def test_a_file_gets_one_line_a_result(results: GitResults, tmp_path: Path) -> None:
    """A log of all results that can be followed."""
    file = tmp_path / "results.jsonl"

    await results.publish(to(file), NEW, FIRST, key="1")
    await results.publish(to(file), NEW, LAST, key="2")

    assert file.read_bytes() == FIRST + b"\n" + LAST + b"\n"


async def test_a_torn_last_line_does_not_spoil_the_next(results: GitResults, tmp_path: Path) -> None:
    """A power cut in the middle of a line costs that line and no other."""
    file = tmp_path / "results.jsonl"
    file.write_bytes(b'{"state":"pen')

    await results.publish(to(file), NEW, LAST, key="1")

    assert file.read_bytes().splitlines()[-1] == LAST


async def test_an_endpoint_gets_the_document_signed(results: GitResults) -> None:
    """The receiver can tell who wrote it, and a repeat from a new one."""
    with serving(Say(204, body=b"")) as endpoint:
        await results.publish(to(endpoint.url + "/results"), NEW, LAST, key="run_1:abc")

    (asked,) = endpoint.asked
    assert (asked.path, asked.body) == ("/results", LAST)
    assert asked.headers["x-deltaci-signature"] == signature("s3cret", LAST)
    assert asked.headers["x-deltaci-delivery"] == "run_1:abc"
    assert asked.headers["x-deltaci-repo"] == "shop"


@pytest.mark.parametrize(("status", "kind"), [(503, ForgeUnavailable), (410, ForgeRejected)])
async def test_an_endpoint_that_does_not_take_it_is_an_error(
    results: GitResults, status: int, kind: type[Exception]
) -> None:
    """What was not taken is still owed, or refused for all to see."""
    with serving(Say(status)) as endpoint, pytest.raises(kind, match=f"publish the result of shop@{NEW}"):
        await results.publish(to(endpoint.url), NEW, LAST, key="1")


async def test_a_place_that_cannot_be_written_is_rejected(results: GitResults, tmp_path: Path) -> None:
    """No directory, or something that is no file: a person has to look."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    with pytest.raises(ForgeRejected, match="No such file"):
        await results.publish(to(tmp_path / "no" / "where"), NEW, LAST, key="1")
    with pytest.raises(ForgeRejected, match="not a regular file"):
        await results.publish(to(pipe), NEW, LAST, key="1")


@pytest.mark.parametrize("sha", ["", "../../etc/passwd", "B" * 40, "b" * 39])
async def test_only_an_object_id_becomes_a_file_name(results: GitResults, tmp_path: Path, sha: str) -> None:
    """The last check before the file system."""
    with pytest.raises(ForgeRejected):
        await results.publish(to(tmp_path), sha, LAST, key="1")

    assert files_of(tmp_path) == {}


async def test_a_full_disk_is_tried_again(results: GitResults, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There will be space again, and no half document is left until then."""

    def no_space(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", no_space)

    with pytest.raises(ForgeUnavailable, match="No space left"):
        await results.publish(to(tmp_path), NEW, LAST, key="1")

    assert files_of(tmp_path) == {}


async def test_every_line_is_json(results: GitResults, tmp_path: Path) -> None:
    """Readers go line by line."""
    file = tmp_path / "results.jsonl"

    for number in range(5):
        await results.publish(to(file), NEW, json.dumps({"n": number}).encode(), key=str(number))

    assert [json.loads(line)["n"] for line in file.read_text().splitlines()] == [0, 1, 2, 3, 4]
