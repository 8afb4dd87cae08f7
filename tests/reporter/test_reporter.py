"""Reporting: what is sent, in which order, how often, and what a crash or a refusal leaves."""

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import anyio
import msgspec
import pytest

from deltaci.domain.errors import ForgeRejected, ForgeUnavailable, NotFound, StoreUnavailable
from deltaci.domain.events import RunKey
from deltaci.domain.job import Job
from deltaci.domain.plan import Plan
from deltaci.domain.pull_request import PullRequest
from deltaci.domain.repo import Latest, Repo
from deltaci.domain.run import Run
from deltaci.domain.states import EndReason, JobState, RunState
from deltaci.forge.budget import WriteBudget
from deltaci.forge.git import GitResults
from deltaci.forge.github_access import GitHubAccess
from deltaci.forge.github_api import GitHubApi
from deltaci.reporter.desired import Check
from deltaci.reporter.ports import Memory, ResultsPort, Sent, Snapshot
from deltaci.reporter.reporter import StatusReporter
from deltaci.reporter.results import GitDocuments, StatusResults
from deltaci.reporter.tellings import Telling
from deltaci.store.port import Store
from deltaci.store.writes import Explanation, Reported, SaveRemoteId, Write
from tests.forge.asking import asking
from tests.forge.loopback import FixedClock, Say, serving
from tests.reporter.runs import RUN_ID, SHA, a_job, a_run, failed, refs, succeeded

pytestmark = pytest.mark.anyio
URL = "https://ci.example.com"


class OneRun:
    """A store with one run."""

    def __init__(self, *jobs: Job, run: Run | None = None) -> None:
        self.run = run or a_run(jobs=refs(*jobs))
        self.jobs = jobs
        self.latest = Latest(run_id=RUN_ID, attempt=1, state=RunState.RUNNING)
        self.told: dict[str, str] = {}
        self.remote_ids: dict[str, str] = {}
        self.is_down = False
        self.repo: Repo | None = Repo(
            id="repo_1",
            name="acme/shop",
            forge="github",
            clone_url="",
            secret="s",
            created_at_ms=0,
            report_to="somewhere",
            api_token="t",
        )

    async def commit(self, writes: Sequence[Write]) -> None:
        if self.is_down:
            raise StoreUnavailable
        for write in writes:
            assert isinstance(write, Reported | SaveRemoteId)
            if isinstance(write, SaveRemoteId):
                self.remote_ids[write.key] = write.remote_id
            else:
                self.told[write.check] = write.digest

    async def load_run(self, run_id: str) -> Run | None:
        return self.run if run_id == RUN_ID else None

    async def load_plan(self, run_id: str) -> Plan | None:
        return None

    async def load_repo(self, repo_id: str) -> Repo | None:
        return self.repo

    async def latest_run(self, key: RunKey) -> Latest | None:
        return self.latest

    async def jobs_of_run(self, run_id: str) -> tuple[Job, ...]:
        return self.jobs

    async def explanations_of_run(self, run_id: str) -> tuple[Explanation, ...]:
        return ()

    async def reported(self, run_id: str) -> dict[str, str]:
        return dict(self.told)

    async def pull_request(self, repo_id: str, number: int) -> PullRequest | None:
        return None

    async def remote_id(self, repo_id: str, key: str) -> str | None:
        return self.remote_ids.get(key)


class Forge:
    """Remembers what it was told; `answers` run before each telling is taken."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []
        self.refuses: dict[str, Exception] = {}
        self.before: Callable[[Check], Awaitable[None]] | None = None
        self.limited: str | None = "token"

    def account(self, repo: Repo) -> str | None:
        return self.limited

    def reads_reports(self, repo: Repo) -> bool:
        return False

    def wanted(self, snapshot: Snapshot) -> tuple[Telling, ...]:
        return StatusResults(self, account=lambda repo: "token").wanted(snapshot)  # type: ignore[arg-type]

    async def send(self, snapshot: Snapshot, telling: Telling, memory: Memory) -> Sent:
        assert isinstance(telling.body, Check)
        if self.before is not None:
            await self.before(telling.body)
        if telling.check in self.refuses:
            raise self.refuses[telling.check]
        self.told.append((telling.body.context, telling.body.state))
        return Sent()


def _the_store_has_what_is_needed(store: Store) -> StatusReporter:
    return StatusReporter(store, {}, URL, FixedClock(), budget=WriteBudget())


def reporter_of(store: OneRun, forge: ResultsPort | None, name: str = "github") -> StatusReporter:
    return StatusReporter(store, {name: forge} if forge else {}, URL, FixedClock(), budget=WriteBudget())


async def test_everything_is_told_once() -> None:
    """Running it twice sends nothing; what is over comes before what is not."""
    store, forge = OneRun(a_job("a"), succeeded("b")), Forge()
    reporter = reporter_of(store, forge)

    await reporter.report(RUN_ID)
    await reporter.report(RUN_ID)

    assert forge.told == [("deltaci/b", "success"), ("deltaci", "running"), ("deltaci/a", "queued")]


async def test_only_what_changed_is_told_again() -> None:
    """A forge takes 80 requests a minute."""
    store, forge = OneRun(a_job("a"), a_job("b")), Forge()
    reporter = reporter_of(store, forge)
    await reporter.report(RUN_ID)
    forge.told.clear()

    store.jobs = (a_job("a"), succeeded("b"))
    await reporter.report(RUN_ID)

    assert forge.told == [("deltaci/b", "success"), ("deltaci", "running")]


async def test_what_became_final_during_the_report_is_told_as_final() -> None:
    """State is read right before each sending: what was read at the beginning would be old by the end."""
    store, forge = OneRun(a_job("a"), a_job("b")), Forge()

    async def end_the_run(check: Check) -> None:
        if not check.name and not check.is_final:
            store.jobs = (succeeded("a"), failed("b"))
            store.run = a_run(RunState.FAILED, EndReason.JOBS_FAILED, jobs=refs(*store.jobs))

    forge.before = end_the_run
    await reporter_of(store, forge).report(RUN_ID)

    assert forge.told == [
        ("deltaci", "running"),
        ("deltaci/b", "failure"),
        ("deltaci/a", "success"),
        ("deltaci", "failure"),
    ]


async def test_a_crash_after_a_sending_repeats_that_one_at_most() -> None:
    """What was told and not remembered is told once more, which changes nothing there."""
    store, forge = OneRun(a_job("a"), a_job("b")), Forge()
    reporter = reporter_of(store, forge)

    async def store_goes_down(check: Check) -> None:
        store.is_down = check.name == "b"

    forge.before = store_goes_down
    with pytest.raises(StoreUnavailable):
        await reporter.report(RUN_ID)
    store.is_down, forge.before = False, None
    await reporter.report(RUN_ID)

    assert [context for context, _ in forge.told] == ["deltaci", "deltaci/a", "deltaci/b", "deltaci/b"]


async def test_an_unavailable_forge_keeps_what_it_was_told() -> None:
    """The next try goes on where this one stopped."""
    store, forge = OneRun(a_job("a"), a_job("b")), Forge()
    forge.refuses["b"] = ForgeUnavailable(retry_after_ms=5_000)
    reporter = reporter_of(store, forge)

    with pytest.raises(ForgeUnavailable) as caught:
        await reporter.report(RUN_ID)
    forge.refuses.clear()
    await reporter_of(store, forge).report(RUN_ID)

    assert caught.value.retry_after_ms == 5_000
    assert [context for context, _ in forge.told] == ["deltaci", "deltaci/a", "deltaci/b"]


async def test_one_refused_check_does_not_keep_the_run_from_being_told() -> None:
    """A pull request would wait for ever for the check that protects its branch."""
    store, forge = OneRun(a_job("a"), a_job("b")), Forge()
    forge.refuses["a"] = ForgeRejected("no such context")

    with pytest.raises(ForgeRejected, match="no such context"):
        await reporter_of(store, forge).report(RUN_ID)

    assert [context for context, _ in forge.told] == ["deltaci", "deltaci/b"]


async def test_a_forge_that_refuses_everything_is_not_asked_for_every_job() -> None:
    """A wrong token is refused a thousand times as well as four."""
    store, forge = OneRun(*(failed(str(number)) for number in range(100))), Forge()
    forge.refuses = {str(number): ForgeRejected("no right") for number in range(100)} | {"": ForgeRejected("no right")}
    asked: list[str] = []

    async def note(check: Check) -> None:
        asked.append(check.name)

    forge.before = note
    with pytest.raises(ForgeRejected):
        await reporter_of(store, forge).report(RUN_ID)

    assert asked == ["0", "1", "2", ""]


async def test_a_run_with_a_later_attempt_is_not_reported_any_more() -> None:
    """Both have the same checks at the same commit: the late word of the old one would hide the new one."""
    store, forge = OneRun(a_job("a")), Forge()
    store.latest = Latest(run_id="run_y", attempt=2, state=RunState.CREATED)

    await reporter_of(store, forge).report(RUN_ID)

    assert forge.told == []


async def test_reports_of_one_commit_take_turns() -> None:
    """Told at the same time, the older could have the last word; each check is told once all the same."""
    store, forge = OneRun(a_job("a")), Forge()
    reporter = reporter_of(store, forge)
    inside = 0

    async def alone(_check: Check) -> None:
        nonlocal inside
        inside += 1
        await anyio.lowlevel.checkpoint()
        assert inside == 1
        inside -= 1

    forge.before = alone
    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(reporter.report, RUN_ID)

    assert forge.told == [("deltaci", "running"), ("deltaci/a", "queued")]
    assert reporter._turns == {}


async def test_a_repository_that_reports_nowhere_is_left_alone() -> None:
    """It is a setting, not an error."""
    store, forge = OneRun(a_job("a")), Forge()
    assert store.repo is not None
    store.repo = msgspec.structs.replace(store.repo, report_to="", api_token="")

    await reporter_of(store, forge).report(RUN_ID)

    assert forge.told == []


async def test_what_cannot_be_reported_is_refused_with_its_id() -> None:
    """It is shown beside the debt, for whoever looks after it."""
    store, forge = OneRun(a_job("a")), Forge()
    with pytest.raises(NotFound, match="run_y"):
        await reporter_of(store, forge).report("run_y")

    with pytest.raises(ForgeRejected, match=RUN_ID):
        await reporter_of(store, None).report(RUN_ID)

    store.repo = None
    with pytest.raises(ForgeRejected, match="not registered any more"):
        await reporter_of(store, forge).report(RUN_ID)


async def test_github_gets_statuses_over_a_real_socket() -> None:
    """The whole way from committed state to the request."""
    store = OneRun(a_job("docs", JobState.SKIPPED, EndReason.NOT_AFFECTED, attempts=0), failed("test"))
    store.run = a_run(RunState.FAILED, EndReason.JOBS_FAILED, jobs=refs(*store.jobs))
    assert store.repo is not None
    with serving(Say(201), Say(502), Say(201)) as github:
        store.repo = msgspec.structs.replace(store.repo, report_to=github.url)
        async with asking(pace={"tries_max": 1}) as client:
            api = GitHubApi(GitHubAccess(client, FixedClock()))
            reporter = reporter_of(store, StatusResults(api, account=api.account))
            with pytest.raises(ForgeUnavailable):
                await reporter.report(RUN_ID)
            await reporter.report(RUN_ID)
            await reporter.report(RUN_ID)

    told = [(asked.json()["context"], asked.json()["state"]) for asked in github.asked]
    assert told == [
        ("deltaci/test", "failure"),
        ("deltaci/docs", "success"),
        ("deltaci/docs", "success"),
        ("deltaci", "failure"),
    ]
    assert {asked.path for asked in github.asked} == {f"/repos/acme/shop/statuses/{SHA}"}


async def test_plain_git_gets_a_document_a_commit(tmp_path: Path) -> None:
    """Told again only when something in it changed."""
    store = OneRun(a_job("test"))
    assert store.repo is not None
    store.repo = msgspec.structs.replace(store.repo, forge="git", report_to=str(tmp_path / "results.jsonl"))
    async with asking() as client:
        reporter = reporter_of(store, GitDocuments(GitResults(client)), "git")
        await reporter.report(RUN_ID)
        await reporter.report(RUN_ID)
        store.jobs = (succeeded("test"),)
        store.run = a_run(RunState.SUCCEEDED, EndReason.SUCCEEDED, jobs=refs(*store.jobs))
        await reporter.report(RUN_ID)

    documents = [msgspec.json.decode(line) for line in (tmp_path / "results.jsonl").read_bytes().splitlines()]
    assert [(one["state"], one["status"]) for one in documents] == [("RUNNING", "pending"), ("SUCCEEDED", "success")]
