"""What a private repository is fetched with reaches git just in time, and nobody else."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from deltaci.domain.errors import ForgeRejected, ForgeUnavailable
from deltaci.domain.repo import Repo
from deltaci.forge.api import Credential
from deltaci.forge.clone import CloneCredentials
from deltaci.forge.local import MirrorError
from deltaci.forge.mirror import Mirror
from tests.forge.private_git import HEADER, PASSWORD, USER, PrivateGit, files_with, private_git
from tests.planner.repositories import Bare

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


class Api:
    """A forge that gives a credential, or what it was told to raise."""

    def __init__(self, answer: Credential | Exception | None) -> None:
        self.answer = answer
        self.asked: list[str] = []

    async def credential(self, repo: Repo) -> Credential | None:
        self.asked.append(repo.id)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def a_repo(clone_url: str) -> Repo:
    return Repo(id="repo_1", name="o/r", forge="github", clone_url=clone_url, secret="s", created_at_ms=1)


@pytest.fixture
def origin(tmp_path: Path) -> Bare:
    return Bare(tmp_path / "served" / "o" / "r.git")


@pytest.fixture
def server(origin: Bare) -> Iterator[PrivateGit]:
    with private_git(origin.path.parents[1]) as served:
        yield served


def a_mirror(tmp_path: Path, server: PrivateGit, api: Api, protocols: str = "http") -> Mirror:
    repo = a_repo(f"{server.url}/o/r.git")
    credentials = CloneCredentials({"github": api})  # type: ignore[dict-item]  # the part of the port that is asked

    async def authorize() -> str | None:
        return await credentials.authorization(repo)

    return Mirror(
        repo_id=repo.id,
        clone_url=repo.clone_url,
        directory=tmp_path / "mirror.git",
        protocols=protocols,
        authorize=authorize,
    )


async def test_a_mirror_asks_right_before_it_fetches_and_keeps_nothing(
    tmp_path: Path, origin: Bare, server: PrivateGit
) -> None:
    """One question a fetch, none for what is here; no process list and no file has the secret."""
    first = origin.commit({"a": "1"})
    api = Api(Credential(username=USER, password=PASSWORD, expires_at_ms=1))
    mirror = a_mirror(tmp_path, server, api)

    await mirror.ensure(first)
    await mirror.ensure(first)
    second = origin.commit({"a": "2"}, first)
    await mirror.ensure(second)

    assert mirror.local().view(second).read("a") == b"2"
    assert api.asked == ["repo_1", "repo_1"]
    assert set(server.authorizations) == {HEADER}
    assert any("fetch" in line for line in server.command_lines)
    assert any("remote-http" in line for line in server.command_lines)
    assert not [line for line in server.command_lines if PASSWORD in line or HEADER in line]
    assert files_with(PASSWORD, tmp_path / "mirror.git") == []


@pytest.mark.parametrize(
    ("failure", "is_retryable"), [(ForgeUnavailable("away", retry_after_ms=7), True), (ForgeRejected("gone"), False)]
)
async def test_without_a_credential_nothing_is_fetched(
    tmp_path: Path, origin: Bare, server: PrivateGit, failure: Exception, is_retryable: bool
) -> None:
    """The failure of the forge is that of the fetch, with what it says about trying again."""
    mirror = a_mirror(tmp_path, server, Api(failure))

    with pytest.raises(MirrorError, match="no credential") as caught:
        await mirror.ensure(origin.commit({"a": "1"}))

    assert (caught.value.is_retryable, caught.value.retry_after_ms) == (is_retryable, 7 if is_retryable else None)
    assert server.authorizations == []


async def test_a_credential_is_not_carried_along_by_a_redirect(
    tmp_path: Path, origin: Bare, server: PrivateGit
) -> None:
    """Whoever can redirect the request must not get what it carries."""
    api = Api(Credential(username=USER, password=PASSWORD))
    with private_git(tmp_path) as elsewhere:
        server.redirect_to = elsewhere.url
        with pytest.raises(MirrorError) as caught:
            await a_mirror(tmp_path, server, api).ensure(origin.commit({"a": "1"}))

    assert set(server.authorizations) == {HEADER}
    assert elsewhere.authorizations == []
    assert PASSWORD not in str(caught.value)


async def test_only_what_is_cloned_over_http_from_a_forge_with_an_api_is_asked_for() -> None:
    """Over ssh, and on this machine, other means decide who may read."""
    api = Api(Credential(username=USER, password=PASSWORD))
    credentials = CloneCredentials({"github": api})  # type: ignore[dict-item]

    urls = ("https://github.com/o/r.git", "git@github.com:o/r.git", "/srv/r.git", "ssh://git@github.com/o/r.git")
    asked = [credentials.is_asked(a_repo(url)) for url in urls]

    assert asked == [True, False, False, False]
    assert await credentials.of(a_repo("/srv/r.git")) is None
    assert await credentials.authorization(a_repo(urls[0])) == HEADER
    assert not CloneCredentials({}).is_asked(a_repo(urls[0]))


def test_a_credential_that_is_printed_does_not_show() -> None:
    """Whoever logs one by mistake logs no secret."""
    credential = Credential(username=USER, password=PASSWORD)

    assert PASSWORD not in f"{credential!r} {credential} {[credential]}"
