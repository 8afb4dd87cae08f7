"""The API for people and their tools: what each address answers, and what it never shows."""

from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock

import anyio
import msgspec
import pytest

from deltaci.domain.effects import ReportRun
from deltaci.domain.errors import ForgeRejected, ForgeUnavailable
from deltaci.domain.events import Trigger
from deltaci.domain.ids import hashed
from deltaci.domain.plan import Plan, digest
from deltaci.domain.states import RunState
from deltaci.orchestrator.messages import Admit, Wake
from deltaci.orchestrator.paths import OUTBOX
from deltaci.store.writes import Owe
from protocol import messages as wire
from tests.gateway.support import RUNNER, Gateway, error_of, fence, opened
from tests.orchestrator.faults import nothing_owed
from tests.orchestrator.support import ME, SHA, a_job, a_repo

pytestmark = pytest.mark.anyio

A_REPO = {"name": "lib", "forge": "git", "clone_url": "file:///srv/lib.git", "secret": "t" * 16}
RUN_FIELDS = {
    *("id", "repo", "repo_id", "commit_sha", "trigger", "pr_number", "attempt", "ref", "base_sha", "title", "author"),
    *("state", "end_reason", "text", "plan_digest", "created_at_ms", "started_at_ms", "ended_at_ms"),
    *("waiting_reason", "waiting_detail", "approved_by", "approved_at_ms"),
}
JOB_FIELDS = {
    *("id", "name", "state", "end_reason", "end_detail", "waiting_reason", "waiting_detail", "is_required", "needs"),
    *("labels", "concurrency", "created_at_ms", "ended_at_ms", "attempts", "artifacts"),
}
ATTEMPT_FIELDS = {
    *("number", "state", "end_reason", "exit_code", "text", "runner_id", "queued_at_ms", "leased_at_ms"),
    *("started_at_ms", "ended_at_ms", "explanation"),
}


async def a_finished_run(gateway: Gateway, *, exit_code: int = 0) -> tuple[str, str, wire.LeaseGranted]:
    """(run, runner, lease) of a run of one job that ran."""
    run_id = (await (await gateway.deliver()).get_json())["run_id"]
    runner_id = await gateway.register()
    lease = await gateway.lease(runner_id)
    await gateway.told(wire.AppendLog(**fence(lease), offset=0, data=b"hello\n", is_final=True), runner_id=runner_id)
    done = await gateway.told(wire.Complete(**fence(lease), exit_code=exit_code), runner_id=runner_id)
    assert isinstance(done, wire.CompleteAck)
    await gateway.stage.run_until(run_id, "SUCCEEDED", "FAILED")
    return run_id, runner_id, lease


# ---- repositories ------------------------------------------------------------------------------------------------


async def test_a_repository_is_registered_once_and_its_secret_never_shown(tmp_path: Path) -> None:
    """The name is the address of its webhooks; a second one of that name would steal them."""
    async with opened(tmp_path) as gateway:
        made = (await gateway.post("/api/v1/repos", A_REPO))["repo"]
        again = await gateway.ask("POST", "/api/v1/repos", body={**A_REPO, "name": "LIB"})
        listed = await gateway.ask("GET", "/api/v1/repos")
        text = await listed.get_data(as_text=True)
        repos = (await listed.get_json())["repos"]

    assert made == repos[-1]
    assert [repo["name"] for repo in repos] == ["shop", "lib"]
    assert made["id"].startswith("repo_")
    assert (again.status_code, (await error_of(again))["code"]) == (409, "duplicate")
    assert "t" * 16 not in text
    assert "s" * 20 not in text


async def test_a_repository_takes_webhooks_at_once(tmp_path: Path) -> None:
    """Registered means registered: no restart, no cache that does not know it yet."""
    async with opened(tmp_path) as gateway:
        await gateway.post("/api/v1/repos", A_REPO)
        started = await gateway.post("/api/v1/runs", {"repo": "lib", "commit_sha": SHA})
        view = await gateway.get(f"/api/v1/runs/{started['run_id']}")

    assert view["run"]["repo"] == "lib"


# ---- runs --------------------------------------------------------------------------------------------------------


async def test_a_run_is_shown_with_everything_but_leases(tmp_path: Path) -> None:
    """The lease id is a secret: neither it nor its hash may be anywhere in an answer."""
    async with opened(tmp_path) as gateway:
        run_id, runner_id, lease = await a_finished_run(gateway)
        shown = await gateway.ask("GET", f"/api/v1/runs/{run_id}")
        events = await gateway.ask("GET", f"/api/v1/runs/{run_id}/events")
        texts = [await shown.get_data(as_text=True), await events.get_data(as_text=True)]
        view = await shown.get_json()

    assert set(view) == {"run", "jobs", "plan", "report"}
    assert view["report"] == {"state": "none", "error": "", "tries": 0, "due_at_ms": None}
    assert set(view["run"]) == RUN_FIELDS
    (job,) = view["jobs"]
    assert set(job) == JOB_FIELDS
    (attempt,) = job["attempts"]
    assert set(attempt) == ATTEMPT_FIELDS
    assert (view["run"]["state"], job["state"], attempt["state"]) == ("SUCCEEDED", "SUCCEEDED", "SUCCEEDED")
    assert attempt["runner_id"] == runner_id
    assert view["plan"]["jobs"][0]["name"] == "test"
    for text in texts:
        assert lease.lease_id not in text
        assert hashed(lease.lease_id) not in text
        assert "hash" not in text


async def test_a_run_says_why_its_forge_was_not_told(tmp_path: Path) -> None:
    """Told, on its way, put off, or refused for good: whoever waits for a check looks here."""
    async with opened(tmp_path, repo=a_repo(report_to="/srv/results")) as gateway:
        reporter, store, clock = gateway.stage.reporter, gateway.stage.store, gateway.stage.clock
        run_id, _, _ = await a_finished_run(gateway)
        await nothing_owed(store)
        views = [await gateway.get(f"/api/v1/runs/{run_id}")]
        for failure in (ForgeUnavailable("502", retry_after_ms=5_000), ForgeRejected("404: no such repository")):
            reporter.failures = [failure]
            await store.commit((Owe(effect=ReportRun(run_id), due_at_ms=0),))
            gateway.stage.orchestrator.ports.tell(OUTBOX, Wake(kind=ReportRun))
            key, tried = ReportRun(run_id).key, 0
            while not tried:
                await anyio.lowlevel.checkpoint()
                owed = await store.debt(key)
                tried = owed.tries if owed is not None else 0
            views.append(await gateway.get(f"/api/v1/runs/{run_id}"))

    told, put_off, refused = (view["report"] for view in views)
    assert told == {"state": "told", "error": "", "tries": 0, "due_at_ms": None}
    assert put_off == {"state": "owed", "error": "502", "tries": 1, "due_at_ms": clock.now_ms() + 5_000}
    assert refused == {"state": "refused", "error": "404: no such repository", "tries": 1, "due_at_ms": None}


async def test_the_whole_plan_is_served_with_its_digest_and_as_a_chart(tmp_path: Path) -> None:
    """What the digest names can be fetched, and checked against it."""
    async with opened(tmp_path) as gateway:
        run_id, _, _ = await a_finished_run(gateway)

        served = await (await gateway.ask("GET", f"/api/v1/runs/{run_id}/plan")).get_json()

    plan = msgspec.convert(served["plan"], Plan)
    assert served["digest"] == digest(plan)
    assert [job.name for job in plan.jobs] == ["test"]
    assert served["mermaid"].startswith("flowchart LR\n")


async def test_a_failure_is_shown_with_its_explanation(tmp_path: Path) -> None:
    """A red run without a reason helps nobody."""
    async with opened(tmp_path) as gateway:
        run_id, _, lease = await a_finished_run(gateway, exit_code=1)
        explanations: Any = ()
        while not explanations:
            explanations = await gateway.store.explanations_of_run(run_id)
            await gateway.stage.run_until(run_id, "FAILED")
        view = await gateway.get(f"/api/v1/runs/{run_id}")

    (attempt,) = view["jobs"][0]["attempts"]
    assert view["jobs"][0]["id"] == lease.job_id
    assert (attempt["exit_code"], attempt["end_reason"]) == (1, "step_failed")
    assert attempt["explanation"] == {
        "category": "user.test",
        "confidence": 0.9,
        "summary": "a test failed",
        "evidence": ["E assert 1 == 2"],
        "next_step": "mend it",
    }


async def test_a_waiting_job_says_what_it_waits_for(tmp_path: Path) -> None:
    """`no runner online` and `needs lint` are different problems for different people."""
    async with opened(tmp_path, a_job("lint"), a_job("test", needs=("lint",))) as gateway:
        run_id = (await (await gateway.deliver()).get_json())["run_id"]
        await gateway.stage.run_until(run_id, "QUEUED")
        view = await gateway.get(f"/api/v1/runs/{run_id}")

    lint, test = view["jobs"]
    assert (lint["state"], lint["waiting_reason"]) == ("QUEUED", "no_runner_online")
    assert (test["state"], test["waiting_reason"], test["needs"]) == ("BLOCKED", "needs", ["lint"])


async def test_jobs_stored_after_the_run_was_read_are_left_for_the_next_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plan that is adopted between the two reads of one answer must not break it."""
    async with opened(tmp_path) as gateway:
        run_id = (await (await gateway.deliver()).get_json())["run_id"]
        await gateway.stage.run_until(run_id, "QUEUED")
        later = await gateway.store.load_run(run_id)
        assert later is not None
        earlier = msgspec.structs.replace(later, jobs=(), state=RunState.PLANNING, plan_digest="")
        monkeypatch.setattr(gateway.store, "load_run", AsyncMock(return_value=earlier))
        view = await gateway.get(f"/api/v1/runs/{run_id}")

    assert view["jobs"] == []


async def test_runs_are_listed_newest_first_in_pages(tmp_path: Path) -> None:
    """`before` goes on where the last page ended."""
    async with opened(tmp_path) as gateway:
        made = []
        for number in range(5):
            gateway.stage.clock.advance(1)
            made.append(await gateway.stage.push(f"{number:040x}", branch=f"b{number}"))
        first = (await gateway.get("/api/v1/runs?limit=3"))["runs"]
        rest = (await gateway.get(f"/api/v1/runs?limit=3&before={first[-1]['id']}"))["runs"]
        none = (await gateway.get("/api/v1/runs?state=CANCELED&repo=shop"))["runs"]

    assert [run["id"] for run in (*first, *rest)] == made[::-1]
    assert set(first[0]) == RUN_FIELDS
    assert none == []


async def test_a_clock_starts_a_run_of_its_own(tmp_path: Path) -> None:
    """A scheduled run of a commit is another one than a person's: its plan is the whole one."""
    body = {"repo": "shop", "commit_sha": SHA}
    async with opened(tmp_path) as gateway:
        by_hand = await gateway.post("/api/v1/runs", body)
        by_clock = await gateway.post("/api/v1/runs", {**body, "trigger": "schedule"})
        wrong = await gateway.ask("POST", "/api/v1/runs", body={**body, "trigger": "push"})
        view = await gateway.get(f"/api/v1/runs/{by_clock['run_id']}")

    assert (by_clock["attempt"], view["run"]["trigger"]) == (1, "schedule")
    assert by_hand["run_id"] != by_clock["run_id"]
    assert wrong.status_code == 400


async def test_a_person_starts_a_run_and_a_repeat_with_the_same_key_gets_the_same_answer(tmp_path: Path) -> None:
    """A client that lost the answer asks again; the run must not start twice."""
    body = {"repo": "shop", "commit_sha": SHA}
    async with opened(tmp_path) as gateway:
        key = {"Idempotency-Key": "k1"}
        first = await gateway.ask("POST", "/api/v1/runs", body=body, headers=key)
        again = await gateway.ask("POST", "/api/v1/runs", body=body, headers=key)
        other = await gateway.ask("POST", "/api/v1/runs", body={**body, "commit_sha": "c" * 40}, headers=key)
        fresh = await gateway.post("/api/v1/runs", body)
        runs = await gateway.store.list_runs()
        told = await first.get_json()

    assert first.status_code == again.status_code == 201
    assert await first.get_data(as_text=False) == await again.get_data(as_text=False)
    assert set(told) == {"run_id", "attempt"}
    assert fresh["attempt"] == told["attempt"] + 1
    assert (other.status_code, (await error_of(other))["code"]) == (409, "idempotency_conflict")
    assert len(runs) == 2


async def test_a_run_is_canceled_once_and_stays_canceled(tmp_path: Path) -> None:
    """Accepted in every state, also after the end."""
    async with opened(tmp_path) as gateway:
        run_id = (await (await gateway.deliver()).get_json())["run_id"]
        first = await gateway.post(f"/api/v1/runs/{run_id}/cancel", status=202)
        run = await gateway.stage.run_until(run_id, "CANCELED")
        again = await gateway.post(f"/api/v1/runs/{run_id}/cancel", status=202)

    assert first["run_id"] == run_id
    assert first["state"] in ("CANCEL_REQUESTED", "CANCELED")
    assert again == {"run_id": run_id, "state": "CANCELED"}
    assert run.end_reason == "user_canceled"


async def test_a_held_run_says_what_it_waits_for_and_goes_on_when_an_administrator_approves_it(tmp_path: Path) -> None:
    """The answer says whether it counts; a run that is not held is none the worse for it."""
    trigger = Trigger(kind="pull_request", ref="refs/pull/7/head", commit_sha=SHA, pr_number=7, is_fork=True)
    key = {"Idempotency-Key": "k1"}
    async with opened(tmp_path) as gateway:
        held = a_repo(id="repo_held", name="held", approval="forks")
        await gateway.stage.orchestrator.add_repo(held, ME)
        message = Admit(delivery_id="d", body_sha256="b", event="pull_request", trigger=trigger)
        run_id = (await gateway.stage.orchestrator.admit(held.id, message)).run_id or ""
        other = await gateway.stage.push()
        path = f"/api/v1/runs/{run_id}"
        before = (await gateway.get(path))["run"]
        refused = await gateway.ask("POST", f"{path}/approve", token=RUNNER)
        first = await gateway.ask("POST", f"{path}/approve", headers=key)
        run = await gateway.stage.run_until(run_id, "QUEUED")
        again = await gateway.ask("POST", f"{path}/approve", headers=key)
        after = (await gateway.get(path))["run"]
        not_held = await gateway.post(f"/api/v1/runs/{other}/approve", status=202)
        unknown = await gateway.ask("POST", "/api/v1/runs/run_none/approve")
        told = await first.get_json()

    waits = f"it waits for approval of commit {SHA} by somebody who may write"
    assert (before["state"], before["waiting_reason"], before["waiting_detail"]) == ("CREATED", "approval", waits)
    assert (first.status_code, refused.status_code, unknown.status_code) == (202, 403, 404)
    assert await first.get_data(as_text=False) == await again.get_data(as_text=False)
    assert told == {"run_id": run_id, "state": "CREATED", "approved_by": run.approved_by}
    assert (after["waiting_reason"], after["waiting_detail"], after["approved_by"]) == (None, "", run.approved_by)
    assert not_held["approved_by"] is None


async def test_a_run_that_is_over_is_run_again(tmp_path: Path) -> None:
    """A rerun is a new attempt; the same key gets the same one, and a run that goes on is refused."""
    async with opened(tmp_path) as gateway:
        run_id, _, _ = await a_finished_run(gateway, exit_code=1)
        path = f"/api/v1/runs/{run_id}/rerun"
        key = {"Idempotency-Key": "again"}
        first = await gateway.post(path, {"jobs": "failed"}, headers=key)
        repeat = await gateway.post(path, {"jobs": "failed"}, headers=key)
        early = await gateway.ask("POST", path, body={})

    assert first == repeat == {"run_id": first["run_id"], "attempt": 2}
    assert first["run_id"] != run_id
    assert early.status_code == 409
    error = await error_of(early)
    assert error["code"] == "not_over"
    assert "wait for run" in error["message"]


async def test_events_come_in_order_and_go_on_after_the_last_one_seen(tmp_path: Path) -> None:
    """`watch` follows a run by asking for what is new."""
    async with opened(tmp_path) as gateway:
        run_id, _, _ = await a_finished_run(gateway)
        every = (await gateway.get(f"/api/v1/runs/{run_id}/events"))["events"]
        page = (await gateway.get(f"/api/v1/runs/{run_id}/events?limit=4"))["events"]
        rest = (await gateway.get(f"/api/v1/runs/{run_id}/events?after={page[-1]['id']}"))["events"]

    assert page + rest == every
    assert [event["id"] for event in every] == sorted(event["id"] for event in every)
    assert every[0]["type"] == "RunCreated"
    assert set(every[0]) == {"id", "entity_id", "sequence", "type", "at_ms", "cause", "data"}
    assert every[0]["cause"] == {"kind": "webhook", "id": "d-1", "via": "git"}
    own = [event["sequence"] for event in every if event["entity_id"] == run_id]
    assert own == list(range(1, len(own) + 1))


# ---- logs --------------------------------------------------------------------------------------------------------


async def test_a_log_is_read_from_any_offset(tmp_path: Path) -> None:
    """Bytes, not lines; the headers say how much there is and whether more may come."""
    async with opened(tmp_path) as gateway:
        _, _, lease = await a_finished_run(gateway)
        path = f"/api/v1/jobs/{lease.job_id}/log"
        whole = await gateway.ask("GET", path)
        tail = await gateway.ask("GET", f"{path}?offset=2&attempt=1")
        beyond = await gateway.ask("GET", f"{path}?offset=1000")
        missing = await gateway.ask("GET", f"{path}?attempt=2")

    assert await whole.get_data(as_text=False) == b"hello\n"
    assert whole.headers["X-Log-Size"] == "6"
    assert whole.headers["X-Log-Final"] == "true"
    assert whole.content_type == "text/plain; charset=utf-8"
    assert await tail.get_data(as_text=False) == b"llo\n"
    assert (beyond.status_code, await beyond.get_data(as_text=False)) == (200, b"")
    assert missing.status_code == 404
    assert "has 1 attempts, not 2" in (await error_of(missing))["message"]


async def test_the_log_of_an_attempt_that_is_over_is_final_though_its_runner_never_closed_it(tmp_path: Path) -> None:
    """A killed runner closes nothing; who follows the log must not wait for ever."""
    async with opened(tmp_path) as gateway:
        run_id = (await (await gateway.deliver()).get_json())["run_id"]
        runner_id = await gateway.register()
        lease = await gateway.lease(runner_id)
        path = f"/api/v1/jobs/{lease.job_id}/log"
        await gateway.told(wire.AppendLog(**fence(lease), offset=0, data=b"so far"), runner_id=runner_id)
        open_log = await gateway.ask("GET", path)
        await gateway.post(f"/api/v1/runs/{run_id}/cancel", status=202)
        await gateway.told(wire.CancelAck(**fence(lease)), runner_id=runner_id)
        closed_log = await gateway.ask("GET", path)

    assert open_log.headers["X-Log-Final"] == "false"
    assert closed_log.headers["X-Log-Final"] == "true"
    assert await closed_log.get_data(as_text=False) == b"so far"
