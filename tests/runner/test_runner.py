"""A whole runner against a control plane in memory: real repositories, real processes, no wire."""

import io
import os
import secrets
import tarfile
import zlib
from pathlib import Path

import pytest

from deltaci.runner.runner import RegistrationRefused
from deltaci.runner.shepherd import boot_clock
from protocol.messages import (
    AckLease,
    AppendLog,
    Artifact,
    Cache,
    CancelAck,
    Complete,
    Failure,
    Heartbeat,
    Lease,
    LogGap,
    Register,
    RunnerMessage,
    ServerMessage,
    StaleLease,
    Step,
)
from tests.runner.support import FakePlane, Repository, a_job, a_runner, fails_times, processes_with

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


async def test_a_job_whose_steps_succeed_is_completed_with_exit_code_zero(
    tmp_path: Path, repository: Repository
) -> None:
    """The whole way: lease, acknowledgement, checkout, steps in order, log, result."""
    plane = FakePlane()

    async with a_runner(plane, tmp_path):
        grant = await plane.grant(a_job(repository, "cat README", "echo second; pwd"))
        result = await plane.result_of(grant)

    log = bytes(plane.logs[grant.lease_id])
    assert isinstance(result, Complete)
    assert (result.reason, result.exit_code) == ("exited", 0)
    assert [(step.name, step.exit_code) for step in result.steps] == [("step 0", 0), ("step 1", 0)]
    assert (len(log), zlib.crc32(log)) == (result.log_size, result.log_crc32)
    assert zlib.crc32(log) == plane.closed_logs[grant.lease_id]
    assert f"==> step 0\nhello\n==> step 1\nsecond\n{tmp_path}/work/slots/0/checkout\n" in log.decode()
    assert len(plane.sent(AckLease)) == 1


async def test_the_first_failing_step_ends_the_job_with_its_exit_code(tmp_path: Path, repository: Repository) -> None:
    """Later steps may rely on earlier ones, so they must not run; a failing pipe is a failure too."""
    plane = FakePlane()

    async with a_runner(plane, tmp_path):
        grant = await plane.grant(a_job(repository, "(exit 3) | cat\necho not reached", "echo never"))
        result = await plane.result_of(grant)

    assert isinstance(result, Complete)
    assert (result.reason, result.exit_code) == ("exited", 3)
    assert [step.name for step in result.steps] == ["step 0"]
    assert "not reached" not in plane.log_of(grant)
    assert "never" not in plane.log_of(grant)


async def test_a_step_sees_no_variable_of_the_host_that_is_not_allowed(
    tmp_path: Path, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token in the runner's environment would be one `env` away from any pull request."""
    monkeypatch.setenv("DELTACI_TOKEN", "hush-hush")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush-hush")
    monkeypatch.setenv("LET_THROUGH", "yes")
    plane = FakePlane()

    async with a_runner(plane, tmp_path, pass_env=("LET_THROUGH",)):
        job = a_job(repository, "env; ls -l /proc/self/fd; readlink /proc/self/fd/0", env={"MINE": "1", "CI": "no"})
        grant = await plane.grant(job)
        await plane.result_of(grant)

    log = plane.log_of(grant)
    lines = log.splitlines()
    assert "hush-hush" not in log
    expected = {
        "MINE=1", "CI=true", "DELTACI=true", "LET_THROUGH=yes", "DELTACI_RUN_ID=run-1", "DELTACI_JOB_ID=job-1",
        "DELTACI_JOB_NAME=build", "DELTACI_ATTEMPT=1", f"DELTACI_COMMIT_SHA={repository.head}", "TERM=dumb",
        "DELTACI_REF=refs/heads/main", "DELTACI_REPO=team/app", f"HOME={tmp_path}/work/slots/0/home", "/dev/null",
    }  # fmt: skip
    assert set() == expected - set(lines)
    assert len([line for line in lines if " -> " in line]) == 4  # 0, 1, 2, and the directory that ls reads


async def test_a_commit_that_cannot_be_fetched_is_reported_as_checkout_failed(
    tmp_path: Path, repository: Repository
) -> None:
    """It is infrastructure, not the user's fault, and is retried as such; credentials stay out of the text."""
    plane = FakePlane()
    job = a_job(repository, "true", commit_sha="0" * 40, clone_url=f"file://user:hush-hush@{repository.path}")

    async with a_runner(plane, tmp_path):
        grant = await plane.grant(job)
        result = await plane.result_of(grant)

    assert isinstance(result, Complete)
    assert result.reason == "checkout_failed"
    assert "0" * 40 in result.message
    assert "hush-hush" not in result.message + plane.log_of(grant)


async def test_a_canceled_job_leaves_no_process_though_all_of_them_ignore_the_signal(
    tmp_path: Path, repository: Repository
) -> None:
    """The shell, a child, a child in a session of its own and a daemon without environment: all of them are gone."""
    plane = FakePlane()
    number = f"{secrets.randbelow(10**9) + 10**6}"
    script = f"""
        trap '' TERM
        sleep {number} &
        setsid sh -c "trap '' TERM; sleep {number} & sleep {number}" &
        (env -i setsid sh -c "trap '' TERM; sleep {number} & exec sleep {number}" &)
        echo started
        while :; do sleep {number}; done
    """

    async with a_runner(plane, tmp_path):
        grant = await plane.grant(a_job(repository, script))
        await plane.until(lambda: "started" in plane.log_of(grant) and len(processes_with(number)) >= 5)
        plane.cancel(grant)
        result = await plane.result_of(grant)
        left = processes_with(number)

    assert left == []
    assert CancelAck(lease_id="lease-1", job_id="job-1", attempt=1) == result
    assert not (tmp_path / "work/slots/0").exists()


async def test_a_canceled_job_may_clean_up_after_itself(tmp_path: Path, repository: Repository) -> None:
    """SIGTERM comes first, and the grace after it is long enough for a trap."""
    plane = FakePlane()

    async with a_runner(plane, tmp_path, cancel_grace_ms=10_000):
        grant = await plane.grant(
            a_job(repository, "trap 'echo cleaned up; exit 0' TERM; echo ready; sleep 600 & wait")
        )
        await plane.until(lambda: "ready" in plane.log_of(grant))
        plane.cancel(grant)
        result = await plane.result_of(grant)

    assert isinstance(result, CancelAck)
    assert "cleaned up\n" in plane.log_of(grant)


async def test_a_cancel_also_arrives_with_the_answer_to_a_heartbeat(tmp_path: Path, repository: Repository) -> None:
    """Over HTTP nothing can be pushed."""
    plane = FakePlane()

    async with a_runner(plane, tmp_path):
        grant = await plane.grant(a_job(repository, "sleep 600"))
        await plane.until(lambda: "==> step 0" in plane.log_of(grant))
        plane.canceled.add(grant.lease_id)
        result = await plane.result_of(grant)

    assert isinstance(result, CancelAck)


async def test_what_a_job_leaves_in_the_background_is_killed_at_its_end(tmp_path: Path, repository: Repository) -> None:
    """A server started in one step may serve the next, and nothing outlives the job."""
    plane = FakePlane()
    number = f"{secrets.randbelow(10**9) + 10**6}"

    async with a_runner(plane, tmp_path):
        grant = await plane.grant(a_job(repository, f"setsid sleep {number} &", f"pgrep -f 'sleep {number}'"))
        result = await plane.result_of(grant)
        left = processes_with(number)

    assert isinstance(result, Complete)
    assert result.exit_code == 0
    assert left == []


async def test_a_lease_that_is_not_renewed_ends_the_job_and_nothing_more_is_sent(
    tmp_path: Path, repository: Repository
) -> None:
    """The server may have given the job to another runner: two at work would be worse than none."""
    plane = FakePlane()
    plane.expires_in_ms = 1_000
    plane.rules.append(fails_times(Heartbeat, 10**6))
    number = f"{secrets.randbelow(10**9) + 10**6}"

    async with a_runner(plane, tmp_path):
        grant = await plane.grant(a_job(repository, f"sleep {number}"))
        await plane.until(lambda: len(processes_with(number)) > 0)
        await plane.until(lambda: not (tmp_path / "work/slots/0").exists())
        left = processes_with(number)
        await plane.until(lambda: isinstance(plane.received[-1], Lease))

    assert left == []
    assert plane.results == {}
    assert grant.lease_id not in plane.closed_logs


async def test_a_request_for_work_that_waits_for_longer_than_a_lease_lives_is_answered_with_work(
    tmp_path: Path, repository: Repository
) -> None:
    """A server that stood still answers what it finds in its sockets: such a grant is as good as any."""
    plane = FakePlane()
    asleep_s = [0.0]

    def oversleep(message: RunnerMessage) -> None:
        if isinstance(message, Lease):
            asleep_s[0] += plane.expires_in_ms

    plane.rules.append(oversleep)

    async with a_runner(plane, tmp_path, clock=lambda: boot_clock() + asleep_s[0]):
        grant = await plane.grant(a_job(repository, "true"))
        result = await plane.result_of(grant)

    assert isinstance(result, Complete)
    assert result.exit_code == 0


async def test_a_stale_lease_stops_the_job_at_once_and_nothing_more_is_sent(
    tmp_path: Path, repository: Repository
) -> None:
    """No grace: whoever holds the lease now may already be at work."""
    plane = FakePlane()
    number = f"{secrets.randbelow(10**9) + 10**6}"

    async with a_runner(plane, tmp_path, cancel_grace_ms=60_000):
        grant = await plane.grant(a_job(repository, f"trap '' TERM; sleep {number}; sleep {number}"))
        await plane.until(lambda: len(processes_with(number)) > 0)
        plane.push(StaleLease(lease_id=grant.lease_id, job_id=grant.job_id, attempt=1, reason="expired"))
        await plane.until(lambda: not (tmp_path / "work/slots/0").exists())
        left = processes_with(number)

    assert left == []
    assert plane.results == {}


async def test_a_job_whose_time_is_over_is_killed_and_reported(tmp_path: Path, repository: Repository) -> None:
    """The job's own limit is the runner's to keep; what it has printed by then is kept."""
    plane = FakePlane()

    async with a_runner(plane, tmp_path):
        grant = await plane.grant(a_job(repository, "echo before; sleep 600", timeout_ms=700))
        result = await plane.result_of(grant)

    assert isinstance(result, Complete)
    assert result.reason == "job_timeout"
    assert "before\n" in plane.log_of(grant)
    assert [step.exit_code for step in result.steps] == [None]


async def test_a_result_is_resent_until_the_answer_is_definite(tmp_path: Path, repository: Repository) -> None:
    """A server restart, and a server that is busy: both are waited out, and the content stays the same."""
    plane = FakePlane()
    busy = Failure(code="busy", message="later", http_status=503, retry_after_ms=10)
    plane.rules += [fails_times(Complete, 2), fails_times(Complete, 2, busy)]

    async with a_runner(plane, tmp_path):
        grant = await plane.grant(a_job(repository, "true"))
        await plane.result_of(grant)

    assert len(plane.sent(Complete)) == 5
    assert len(set(map(repr, plane.sent(Complete)))) == 1


async def test_a_result_that_is_refused_for_good_is_not_sent_again(tmp_path: Path, repository: Repository) -> None:
    """A definite no is an answer: the runner goes on to other work."""
    plane = FakePlane()
    plane.rules.append(fails_times(Complete, 10, Failure(code="conflict", message="no", http_status=409)))

    async with a_runner(plane, tmp_path):
        await plane.grant(a_job(repository, "true"))
        await plane.until(lambda: len(plane.sent(Complete)) == 1)
        second = await plane.grant(a_job(repository, "true"))
        await plane.until(lambda: len(plane.sent(Complete)) == 2)

    assert second.lease_id == plane.sent(Complete)[1].lease_id


async def test_a_gap_in_the_log_is_filled_from_where_the_server_says(tmp_path: Path, repository: Repository) -> None:
    """A server that lost its last bytes, or never got them, ends up with all of them."""
    plane = FakePlane()
    forgotten: list[int] = []

    def forget_once(message: RunnerMessage) -> ServerMessage | None:
        if isinstance(message, AppendLog) and message.offset > 0 and not forgotten:
            forgotten.append(message.offset)
            plane.logs[message.lease_id].clear()
            return LogGap(lease_id=message.lease_id, job_id=message.job_id, attempt=1, size=0)
        return None

    plane.rules.append(forget_once)

    async with a_runner(plane, tmp_path):
        grant = await plane.grant(a_job(repository, "for i in 1 2 3 4 5; do echo line $i; sleep 0.05; done"))
        result = await plane.result_of(grant)

    log = bytes(plane.logs[grant.lease_id])
    assert isinstance(result, Complete)
    assert len(forgotten) == 1
    assert b"line 1\nline 2\nline 3\nline 4\nline 5\n" in log
    assert (len(log), zlib.crc32(log)) == (result.log_size, result.log_crc32)


async def test_a_log_over_its_limit_says_so_once_and_the_job_goes_on(tmp_path: Path, repository: Repository) -> None:
    """A cut log without a word would be mistaken for the whole one."""
    plane = FakePlane(log_chunk_bytes_max=1_000)
    script = 'head -c 50000 /dev/zero | tr \'\\0\' x; echo; touch "$HOME/end"; test -e "$HOME/end"'

    async with a_runner(plane, tmp_path):
        grant = await plane.grant(a_job(repository, script, log_bytes_max=5_000))
        result = await plane.result_of(grant)

    log = plane.log_of(grant)
    assert isinstance(result, Complete)
    assert result.exit_code == 0
    assert log.count("log limit of 5000 bytes reached; ") == 1
    assert log.endswith(" more bytes were not kept\n")
    assert len(log) <= 5_000
    assert max(len(message.data) for message in plane.sent(AppendLog)) <= 1_000


async def test_a_draining_runner_finishes_its_job_and_takes_no_other(tmp_path: Path, repository: Repository) -> None:
    """An upgrade of the host must not fail anybody's build."""
    plane = FakePlane(lease_wait_ms=100)

    async with a_runner(plane, tmp_path, slots=2) as runner:
        first = await plane.grant(a_job(repository, f"echo up; until test -e {tmp_path}/go; do sleep 0.02; done"))
        await plane.until(lambda: "up\n" in plane.log_of(first))
        runner.drain()
        await plane.until(lambda: plane.open_polls == 0)
        asked = len(plane.sent(Lease))
        await plane.grant(a_job(repository, "true"))
        (tmp_path / "go").touch()
        result = await plane.result_of(first)

    assert isinstance(result, Complete)
    assert result.exit_code == 0
    assert asked == len(plane.sent(Lease))
    assert [first.lease_id] == list(plane.results)


async def test_a_stopped_runner_gives_its_job_back(tmp_path: Path, repository: Repository) -> None:
    """`runner_stopped` lets the orchestrator run the job elsewhere at once, instead of when the lease expires."""
    plane = FakePlane()

    async with a_runner(plane, tmp_path) as runner:
        grant = await plane.grant(a_job(repository, "echo up; sleep 600"))
        await plane.until(lambda: "up\n" in plane.log_of(grant))
        runner.stop()
        result = await plane.result_of(grant)

    assert isinstance(result, Complete)
    assert (result.reason, result.exit_code) == ("runner_stopped", None)


async def test_two_slots_run_two_jobs_at_once(tmp_path: Path, repository: Repository) -> None:
    """Each waits for a file that the other makes: one after the other they would never end."""
    plane = FakePlane()
    waits = f"until test -e {tmp_path}/%s; do sleep 0.02; done"

    async with a_runner(plane, tmp_path, slots=2):
        first = await plane.grant(a_job(repository, f"touch {tmp_path}/a; {waits % 'b'}"))
        second = await plane.grant(a_job(repository, f"touch {tmp_path}/b; {waits % 'a'}"))
        results = [await plane.result_of(first), await plane.result_of(second)]

    assert [result.exit_code for result in results if isinstance(result, Complete)] == [0, 0]


async def test_a_runner_waits_for_a_server_that_is_not_there_yet(tmp_path: Path, repository: Repository) -> None:
    """Hosts start in any order."""
    plane = FakePlane()
    plane.rules += [fails_times(Register, 2), fails_times(Lease, 1), fails_times(AckLease, 2)]

    async with a_runner(plane, tmp_path):
        grant = await plane.grant(a_job(repository, "true"))
        result = await plane.result_of(grant)

    assert isinstance(result, Complete)
    assert len(plane.sent(Register)) == 3


async def test_a_runner_that_the_server_forgot_registers_again(tmp_path: Path, repository: Repository) -> None:
    """A restored database may not know it; nobody should have to restart the fleet."""
    plane = FakePlane()
    plane.rules.append(fails_times(Lease, 1, Failure(code="unknown_runner", message="who?", http_status=404)))

    async with a_runner(plane, tmp_path):
        grant = await plane.grant(a_job(repository, "true"))
        await plane.result_of(grant)

    assert len(plane.sent(Register)) == 2


async def test_a_refused_token_ends_the_runner(tmp_path: Path) -> None:
    """Trying for ever would hide a wrong token file behind a log that nobody reads."""
    plane = FakePlane()
    plane.rules.append(fails_times(Register, 1, Failure(code="unauthorized", message="no", http_status=401)))

    with pytest.raises(RegistrationRefused, match="unauthorized"):
        async with a_runner(plane, tmp_path):
            await plane.until(lambda: bool(plane.received))


async def test_heartbeats_tell_phase_and_step(tmp_path: Path, repository: Repository) -> None:
    """The user sees which step is running, not just that something is."""
    plane = FakePlane(heartbeat_ms=20)

    async with a_runner(plane, tmp_path):
        grant = await plane.grant(a_job(repository, "sleep 0.2", "sleep 0.2"))
        await plane.result_of(grant)

    told = {(beat.phase, beat.step) for beat in plane.sent(Heartbeat)}
    assert {("starting", None), ("running", 0), ("running", 1)} <= told


async def test_a_step_that_kills_its_own_shepherd_ends_as_an_error_of_the_runner(
    tmp_path: Path, repository: Repository
) -> None:
    """The net below the shepherd: what it left is found by its mark."""
    plane = FakePlane()
    number = f"{secrets.randbelow(10**9) + 10**6}"

    async with a_runner(plane, tmp_path):
        grant = await plane.grant(
            a_job(repository, f"setsid sleep {number} & sleep 0.05; kill -9 $PPID; sleep {number}")
        )
        result = await plane.result_of(grant)
        left = processes_with(number)

    assert isinstance(result, Complete)
    assert result.reason == "runner_error"
    assert left == []
    assert os.getpid() not in left


async def test_artifacts_are_uploaded_though_a_step_failed(tmp_path: Path, repository: Repository) -> None:
    """A failing test run is the one whose report is wanted; what leads out of the checkout is named and left out."""
    plane = FakePlane()
    script = f"mkdir out; echo report > out/report; echo hush > {tmp_path}/secret; ln -s {tmp_path}/secret out/; exit 1"
    artifacts = (Artifact(name="reports", paths=("out",)), Artifact(name="none", paths=("missing/*",)))

    async with a_runner(plane, tmp_path):
        grant = await plane.grant(a_job(repository, script, artifacts=artifacts))
        result = await plane.result_of(grant)

    with tarfile.open(fileobj=io.BytesIO(plane.artifacts["reports"])) as archive:
        names = archive.getnames()
    log = plane.log_of(grant)
    assert isinstance(result, Complete)
    assert result.exit_code == 1
    assert names == ["out/report"]
    assert "'out/secret' is or lies behind a link that leads out of the checkout" in log
    assert "artifact none: no file matches missing/*" in log


async def test_an_artifact_over_the_limit_is_named_in_the_log(tmp_path: Path, repository: Repository) -> None:
    """The job keeps its result: an artifact is not what it was run for."""
    plane = FakePlane(artifact_bytes_max=1_000)
    artifacts = (Artifact(name="big", paths=("big",)),)

    async with a_runner(plane, tmp_path):
        grant = await plane.grant(a_job(repository, "head -c 5000 /dev/urandom > big", artifacts=artifacts))
        result = await plane.result_of(grant)

    assert isinstance(result, Complete)
    assert result.exit_code == 0
    assert plane.artifacts == {}
    assert "==> artifact big is over the limit of 1000 bytes and was not kept\n" in plane.log_of(grant)


async def test_a_cache_saved_by_one_job_is_there_in_the_next_unless_it_is_read_only(
    tmp_path: Path, repository: Repository
) -> None:
    """Code from a fork may use a cache, and must not feed one."""
    plane = FakePlane()
    cache = Cache(key="deps-1", paths=("deps",))
    fork = Cache(key="deps-2", paths=("deps",), is_read_only=True)
    script = "test -e deps/x && echo found it; mkdir -p deps; touch deps/x"
    logs = []

    async with a_runner(plane, tmp_path):
        for used in (cache, cache, fork, fork):
            grant = await plane.grant(a_job(repository, script, caches=(used,)))
            await plane.result_of(grant)
            logs.append(plane.log_of(grant))

    assert ["found it" in log for log in logs] == [False, True, False, False]
    assert "==> cache deps-1 saved\n" in logs[0]


async def test_no_job_of_the_base_ever_sees_what_a_fork_left_under_the_key_of_its_cache(
    tmp_path: Path, repository: Repository
) -> None:
    """Neither where the fork was first, nor where it changed what had been unpacked for it."""
    plane = FakePlane()
    base, fork = (Cache(key="deps-1", paths=("deps",), is_read_only=is_fork) for is_fork in (False, True))
    fill = "mkdir -p deps; echo good > deps/x"
    poison = "mkdir -p deps; cat deps/* || true; echo evil > deps/x; echo evil > deps/y"
    jobs = [(poison, fork), (fill, base), (poison, fork), ("cat deps/*", base)]
    logs = []

    async with a_runner(plane, tmp_path):
        for script, cache in jobs:
            grant = await plane.grant(a_job(repository, script, caches=(cache,), is_trusted=not cache.is_read_only))
            await plane.result_of(grant)
            logs.append(plane.log_of(grant))

    assert ["good" in log for log in logs] == [False, False, True, True]
    assert ["evil" in log for log in logs] == [False] * len(logs)


async def test_a_job_of_a_fork_sees_nothing_that_the_host_lets_through(
    tmp_path: Path, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A variable that an operator passes to jobs is most often a token; a stranger's code could send it anywhere."""
    plane = FakePlane()
    monkeypatch.setenv("LET_THROUGH", "planted-token")
    logs = []

    async with a_runner(plane, tmp_path, pass_env=("LET_THROUGH",)):
        for is_trusted in (True, False):
            grant = await plane.grant(a_job(repository, "env", is_trusted=is_trusted))
            await plane.result_of(grant)
            logs.append(plane.log_of(grant))

    assert ["planted-token" in log for log in logs] == [True, False]
    assert "DELTACI_RUN_ID=" in logs[1]


async def test_a_job_canceled_before_it_starts_is_acknowledged_as_canceled(
    tmp_path: Path, repository: Repository
) -> None:
    """The cancel may overtake the checkout."""
    plane = FakePlane()

    async with a_runner(plane, tmp_path):
        plane.canceled.add("lease-1")
        grant = await plane.grant(a_job(repository, "sleep 600"))
        result = await plane.result_of(grant)

    assert isinstance(result, CancelAck)


async def test_a_workdir_outside_of_the_checkout_fails_the_step(tmp_path: Path, repository: Repository) -> None:
    """A plan is data from a repository, and may be wrong or hostile."""
    plane = FakePlane()

    async with a_runner(plane, tmp_path):
        job = a_job(repository, steps=(Step(name="out", run="pwd", workdir="../../.."),))
        grant = await plane.grant(job)
        result = await plane.result_of(grant)

    assert isinstance(result, Complete)
    assert result.exit_code == 1
    assert "workdir '../../..' is no directory of the checkout" in plane.log_of(grant)
