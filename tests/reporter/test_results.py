"""Commit statuses on each forge, and the test reports that jobs kept."""

from pathlib import Path

import msgspec
import pytest

from deltaci.domain.plan import Plan, PlannedJob, Step
from deltaci.domain.pull_request import PullRequest
from deltaci.domain.repo import Forge
from deltaci.domain.run import Run
from deltaci.domain.states import EndReason, JobState
from deltaci.forge.api import Status
from deltaci.reporter.kept_reports import ARCHIVE_BYTES_MAX, ArtifactReports
from deltaci.reporter.ports import Snapshot
from deltaci.reporter.results import StatusResults, branch_of, status_state
from deltaci.reporter.tellings import LIVE_JOBS_MAX
from deltaci.store.artifacts import ArtifactFiles
from deltaci.store.writes import ArtifactStored
from tests.reporter.committed import REPO
from tests.reporter.runs import PR, SHA, a_job, a_run, failed, refs
from tests.reporter.test_annotations import REPORT, archive, redacted

pytestmark = pytest.mark.anyio


class Statuses:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[Status] = []

    async def set_status(self, repo: object, commit_sha: str, status: Status) -> None:
        assert commit_sha == SHA
        self.told.append(status)


class NoMemory:
    async def recall(self, key: str) -> str | None:
        raise AssertionError(f"a status has no id: {key}")

    async def note(self, key: str, remote_id: str) -> None:
        raise AssertionError(f"a status has no id: {key}")


def a_snapshot(forge: Forge, *jobs: object, run: Run | None = None, request: PullRequest | None = None) -> Snapshot:
    repo = msgspec.structs.replace(REPO, forge=forge, installation_id=0, api_token="t")
    return Snapshot(
        repo=repo,
        run=run or a_run(jobs=refs(*jobs)),  # type: ignore[arg-type]
        jobs=jobs,  # type: ignore[arg-type]
        explanations=(),
        plan=None,
        base_url="https://ci.example.com",
        pull_request=request,
    )


def a_request(**fields: object) -> PullRequest:
    given = {
        "repo_id": "repo_1",
        "number": PR,
        "head_sha": SHA,
        "head_ref": "refs/heads/topic/x",
        "base_ref": "refs/heads/main",
        "base_sha": SHA,
    }
    return PullRequest(**{**given, **fields})  # type: ignore[arg-type]


@pytest.mark.parametrize(("forge", "skipped"), [("gitlab", "skipped"), ("gitea", "success"), ("github", "success")])
async def test_statuses_say_what_each_forge_has_words_for(forge: Forge, skipped: str) -> None:
    """A skipped job is green everywhere; GitLab has a word of its own for it that lets a change pass."""
    api = Statuses()
    results = StatusResults(api)
    snapshot = a_snapshot(
        forge,
        a_job("a"),
        a_job("b", JobState.RUNNING),
        a_job("c", JobState.SKIPPED, EndReason.NOT_AFFECTED, attempts=0),
        failed("d", is_required=False),
        a_job("e", JobState.CANCELED, EndReason.SUPERSEDED),
        a_job("f", JobState.TIMED_OUT, EndReason.JOB_TIMEOUT),
        request=a_request(),
    )

    for telling in results.wanted(snapshot):
        await results.send(snapshot, telling, NoMemory())

    assert [
        ("deltaci/a", "queued"),
        ("deltaci/b", "running"),
        ("deltaci/c", skipped),
        ("deltaci/d", "success"),
        ("deltaci/e", "canceled"),
        ("deltaci/f", "failure"),
        ("deltaci", "running"),
    ] == [(one.context, one.state) for one in api.told]
    assert {"topic/x"} == {one.ref for one in api.told}


def test_every_state_has_a_word_on_every_forge() -> None:
    """One that was added later must not be a crash."""
    for forge in ("github", "gitlab", "gitea"):
        repo = msgspec.structs.replace(REPO, forge=forge)
        assert status_state(repo, "error") == "error"
        assert status_state(repo, "neutral") == "success"


def test_a_status_is_of_the_branch_that_people_look_at() -> None:
    """GitLab shows a status at a branch: that of the request, not the hidden one of its number; of a fork at none."""
    push = a_run()
    push = msgspec.structs.replace(
        push, trigger=msgspec.structs.replace(push.trigger, kind="push", pr_number=None, ref="refs/heads/release/1")
    )
    tag = msgspec.structs.replace(push, trigger=msgspec.structs.replace(push.trigger, ref="refs/tags/v1"))

    assert branch_of(a_snapshot("gitlab", request=a_request())) == "topic/x"
    assert branch_of(a_snapshot("gitlab", request=a_request(is_fork=True))) == ""
    assert branch_of(a_snapshot("gitlab")) == ""
    assert branch_of(a_snapshot("gitlab", run=push)) == "release/1"
    assert branch_of(a_snapshot("gitlab", run=tag)) == "v1"


def test_only_where_writes_are_bounded_a_large_run_is_told_at_its_end() -> None:
    """GitLab and Gitea take all that happens."""
    jobs = [a_job(str(number)) for number in range(LIVE_JOBS_MAX + 1)]

    free = StatusResults(Statuses()).wanted(a_snapshot("gitlab", *jobs))
    bounded = StatusResults(Statuses(), account=lambda repo: "token").wanted(a_snapshot("github", *jobs))
    few = StatusResults(Statuses(), account=lambda repo: "token").wanted(a_snapshot("github", *jobs[1:]))

    assert len(jobs) + 1 == len(free)
    assert [one.check for one in bounded] == [""]
    assert len(jobs) == len(few)


# ---- reports -----------------------------------------------------------------------------------------------------


class Rows:
    def __init__(self, *rows: ArtifactStored) -> None:
        self.rows = rows

    async def artifacts_of_run(self, run_id: str) -> tuple[ArtifactStored, ...]:
        return self.rows


def a_row(attempt: int = 1, name: str = "reports", size_bytes: int = 1) -> ArtifactStored:
    return ArtifactStored(job_id="job_x_test", attempt=attempt, name=name, size_bytes=size_bytes, sha256="", at_ms=0)


async def test_reports_of_the_last_attempt_are_read_from_what_is_stored(tmp_path: Path) -> None:
    """Their paths are those of the directory that the job's steps run in."""
    files = ArtifactFiles(tmp_path)
    job = failed(attempts=2)
    for attempt, data in ((1, b"old"), (2, archive(**{"a.xml": REPORT}))):

        async def chunks(data: bytes = data) -> object:
            yield data

        await files.store(job.id, attempt, "reports", chunks(), sha256="", size_bytes_max=10_000)  # type: ignore[arg-type]
    planned = PlannedJob(
        name="test", steps=(Step(name="a", run="x", workdir="api"), Step(name="b", run="y", workdir="api"))
    )
    plan = Plan(commit_sha=SHA, base_sha=None, source="discovery", jobs=(planned,))
    reports = ArtifactReports(Rows(a_row(1), a_row(2, "logs"), a_row(2)), files, lambda repo: redacted)

    found = await reports.failures(REPO, job, plan)

    assert [(one.path, one.start_line) for one in found] == [("api/tests/helpers.py", 3), ("api/tests/test_b.py", 4)]
    assert "s3cret-value" not in str(found)


async def test_reports_that_are_not_there_or_too_large_are_none(tmp_path: Path) -> None:
    """A run is told without them."""
    files = ArtifactFiles(tmp_path)
    for rows in (Rows(), Rows(a_row())):
        assert await ArtifactReports(rows, files, lambda repo: redacted).failures(REPO, failed(), None) == ()

    async def chunks() -> object:
        yield archive(**{"a.xml": REPORT})

    await files.store("job_x_test", 1, "reports", chunks(), sha256="", size_bytes_max=10_000)  # type: ignore[arg-type]
    for size_bytes, count in ((ARCHIVE_BYTES_MAX, 2), (ARCHIVE_BYTES_MAX + 1, 0)):
        reports = ArtifactReports(Rows(a_row(size_bytes=size_bytes)), files, lambda repo: redacted)
        assert len(await reports.failures(REPO, failed(), None)) == count
