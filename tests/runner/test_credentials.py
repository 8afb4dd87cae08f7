"""A private repository is fetched with what the server gives for it, and nothing of that is left or seen."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from loguru import logger

from deltaci.runner.credentials import environment_for
from protocol.messages import AskCredential, Complete, CredentialGiven, Failure, JobSpec, RunnerMessage, StaleLease
from tests.forge.private_git import HEADER, PASSWORD, USER, PrivateGit, files_with, private_git
from tests.runner.support import FakePlane, Repository, a_job, a_runner, fails_times

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


@pytest.fixture
def server(tmp_path: Path, repository: Repository) -> Iterator[PrivateGit]:
    served = tmp_path / "served"
    served.mkdir()
    bare = served / "app.git"
    subprocess.run(["git", "clone", "-q", "--bare", str(repository.path), str(bare)], check=True)
    with private_git(served) as git:
        yield git


@pytest.fixture
def log() -> Iterator[list[str]]:
    lines: list[str] = []
    sink = logger.add(lines.append, level=0, diagnose=True, backtrace=True)
    yield lines
    logger.remove(sink)


def a_private_job(repository: Repository, server: PrivateGit, *scripts: str) -> JobSpec:
    return a_job(repository, *scripts, clone_url=f"{server.url}/app.git", has_credential=True)


def a_plane() -> FakePlane:
    plane = FakePlane()
    plane.credential = (USER, PASSWORD)
    return plane


async def test_a_private_repository_is_fetched_and_the_credential_is_nowhere(
    tmp_path: Path, repository: Repository, server: PrivateGit, log: list[str]
) -> None:
    """Not on a command line, not in the job's environment or git configuration, not in a log, not in any file."""
    plane = a_plane()
    script = "env; git config --list --show-origin; cat .git/config; cat README"

    async with a_runner(plane, tmp_path):
        grant = await plane.grant(a_private_job(repository, server, script))
        result = await plane.result_of(grant)
        found = files_with(PASSWORD, tmp_path / "work")
        again = await plane.result_of(await plane.grant(a_private_job(repository, server, "true")))

    assert isinstance(result, Complete)
    assert (result.reason, result.exit_code) == ("exited", 0)
    assert isinstance(again, Complete)
    assert again.exit_code == 0
    assert len(plane.sent(AskCredential)) == 1
    assert set(server.authorizations) == {HEADER}
    assert any("fetch" in line for line in server.command_lines)
    assert any("remote-http" in line for line in server.command_lines)
    secrets = (PASSWORD, HEADER.removeprefix("Basic "))
    said = [*server.command_lines, plane.log_of(grant), *log]
    assert "hello" in plane.log_of(grant)
    assert [text for text in said if any(secret in text for secret in secrets)] == []
    assert [found, files_with(PASSWORD, tmp_path / "work")] == [[], []]


async def test_a_wrong_credential_fails_the_checkout_and_is_not_told(
    tmp_path: Path, repository: Repository, server: PrivateGit, log: list[str]
) -> None:
    """What git says goes into the log of the job."""
    plane = FakePlane()
    plane.credential = (USER, "wrong-hush-hush")

    async with a_runner(plane, tmp_path):
        grant = await plane.grant(a_private_job(repository, server, "true"))
        result = await plane.result_of(grant)

    assert isinstance(result, Complete)
    assert result.reason == "checkout_failed"
    assert "hush-hush" not in "".join([result.message, plane.log_of(grant), *log])


async def test_a_redirect_does_not_carry_it_along(tmp_path: Path, repository: Repository, server: PrivateGit) -> None:
    """It is for one address."""
    plane = a_plane()

    with private_git(tmp_path / "served") as elsewhere:
        server.redirect_to = elsewhere.url
        async with a_runner(plane, tmp_path):
            result = await plane.result_of(await plane.grant(a_private_job(repository, server, "true")))

    assert isinstance(result, Complete)
    assert result.reason == "checkout_failed"
    assert elsewhere.authorizations == []


async def test_no_answer_is_asked_for_again_and_a_refusal_is_the_reason(
    tmp_path: Path, repository: Repository, server: PrivateGit
) -> None:
    """An outage is waited out; what the server says of a refusal reaches whoever reads the log."""
    plane = a_plane()
    refusal = Failure(code="forge_rejected", message="the App is not installed", http_status=422)
    plane.rules += [fails_times(AskCredential, 1), fails_times(AskCredential, 1, refusal)]

    async with a_runner(plane, tmp_path):
        grant = await plane.grant(a_private_job(repository, server, "true"))
        result = await plane.result_of(grant)

    assert len(plane.sent(AskCredential)) == 2
    assert isinstance(result, Complete)
    assert result.reason == "checkout_failed"
    assert "the App is not installed" in plane.log_of(grant)
    assert server.authorizations == []


async def test_what_is_withheld_is_done_without_and_told_when_it_was_needed(
    tmp_path: Path, repository: Repository, server: PrivateGit
) -> None:
    """A fork of a public repository runs; of a private one, the log says what to do."""
    plane = a_plane()

    def withhold(message: RunnerMessage) -> CredentialGiven | None:
        if not isinstance(message, AskCredential):
            return None
        fence = {"lease_id": message.lease_id, "job_id": message.job_id, "attempt": message.attempt}
        return CredentialGiven(**fence, withheld_because="the run is of a fork")

    plane.rules.append(withhold)
    async with a_runner(plane, tmp_path):
        private = await plane.result_of(await plane.grant(a_private_job(repository, server, "true")))
        public = await plane.result_of(await plane.grant(a_job(repository, "true", has_credential=True)))

    assert isinstance(private, Complete)
    assert private.reason == "checkout_failed"
    assert "no credential was given: the run is of a fork" in private.message
    assert isinstance(public, Complete)
    assert public.exit_code == 0


async def test_a_stale_lease_ends_the_attempt(tmp_path: Path, repository: Repository, server: PrivateGit) -> None:
    """Nothing is fetched, and nothing more is said about it."""
    plane = a_plane()

    def stale(message: RunnerMessage) -> StaleLease | None:
        if not isinstance(message, AskCredential):
            return None
        return StaleLease(lease_id=message.lease_id, job_id=message.job_id, attempt=message.attempt)

    plane.rules.append(stale)
    async with a_runner(plane, tmp_path):
        await plane.grant(a_private_job(repository, server, "true"))
        await plane.until(lambda: len(plane.sent(AskCredential)) == 1)

    assert plane.results == {}
    assert server.authorizations == []


async def test_a_job_that_needs_none_does_not_ask(tmp_path: Path, repository: Repository) -> None:
    """An older server does not know the question."""
    plane = a_plane()

    async with a_runner(plane, tmp_path):
        await plane.result_of(await plane.grant(a_job(repository, "true")))

    assert plane.sent(AskCredential) == []


@pytest.mark.parametrize("url", ["/srv/r.git", "ssh://git@host/r.git", "git@host:r.git"])
def test_only_http_carries_a_credential(url: str) -> None:
    """There is no header elsewhere."""
    given = CredentialGiven(lease_id="l", job_id="j", attempt=1, username=USER, password=PASSWORD)

    assert environment_for(url, given) == {}
    assert environment_for("https://host/r.git", None) == {}


def test_git_sends_it_to_that_address_alone(tmp_path: Path) -> None:
    """Asked of git itself: to the repository and what is below it, not to its neighbours on the same host."""
    given = CredentialGiven(lease_id="l", job_id="j", attempt=1, username=USER, password=PASSWORD)
    environment = {"PATH": os.environ["PATH"], **environment_for("https://bob@host/o/r.git", given)}

    def header_for(url: str) -> str:
        command = ["git", "config", "--get-urlmatch", "http.extraHeader", url]
        return subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True).stdout.strip()

    sent = [header_for(f"https://{place}") for place in ("bob@host/o/r.git", "host/o/r.git/info/refs", "host/o/x.git")]

    assert sent == [f"Authorization: {HEADER}", f"Authorization: {HEADER}", ""]
