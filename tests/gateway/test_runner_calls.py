"""The runner protocol over HTTP: each call in both encodings, and what a runner without the lease is told."""

import hashlib
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from protocol import messages as wire
from protocol.codec import JSON_TYPE, MSGPACK_TYPE, decode_server_body
from tests.gateway.support import OTHER_RUNNER, RUNNER, Gateway, error_of, fence, fingerprint, opened
from tests.orchestrator.support import SHA

pytestmark = pytest.mark.anyio


async def leased(gateway: Gateway) -> tuple[str, wire.LeaseGranted]:
    """(runner, acknowledged lease)."""
    await gateway.deliver()
    runner_id = await gateway.register()
    return runner_id, await gateway.lease(runner_id)


@pytest.mark.parametrize("content_type", [JSON_TYPE, MSGPACK_TYPE])
async def test_a_job_is_carried_from_lease_to_result(tmp_path: Path, content_type: str) -> None:
    """One meaning in two encodings, call by call."""
    async with opened(tmp_path) as gateway:
        await gateway.deliver()
        options: dict[str, Any] = {"content_type": content_type}
        registered = await gateway.told(wire.Register(name="r1", labels=("linux",)), **options)
        assert isinstance(registered, wire.Registered)
        options["runner_id"] = registered.runner_id
        leases = await gateway.told(wire.Lease(runner_id=registered.runner_id, wait_ms=5_000), **options)
        assert isinstance(leases, wire.Leases)
        (lease,) = leases.leases
        answers = [
            await gateway.told(message, **options)
            for message in (
                wire.AckLease(**fence(lease)),
                wire.Heartbeat(**fence(lease), phase="running", step=0),
                wire.AppendLog(**fence(lease), offset=0, data=b"\x00\xffok"),
                wire.AppendLog(**fence(lease), offset=0, data=b"\x00\xffok"),
                wire.AppendLog(**fence(lease), offset=4, is_final=True),
                wire.Complete(**fence(lease), exit_code=0),
                wire.Complete(**fence(lease), exit_code=0),
            )
        ]

    assert lease.job.commit_sha == SHA
    assert answers == [
        wire.LeaseAcked(**fence(lease), expires_in_ms=120_000),
        wire.HeartbeatAck(**fence(lease), expires_in_ms=120_000),
        wire.LogAck(**fence(lease), size=4),
        wire.LogAck(**fence(lease), size=4),
        wire.LogAck(**fence(lease), size=4),
        wire.CompleteAck(**fence(lease), state="SUCCEEDED"),
        wire.CompleteAck(**fence(lease), state="SUCCEEDED"),
    ]


@pytest.mark.parametrize(("content_type", "accept"), [(JSON_TYPE, MSGPACK_TYPE), (MSGPACK_TYPE, JSON_TYPE)])
async def test_the_answer_comes_in_the_encoding_that_was_asked_for(
    tmp_path: Path, content_type: str, accept: str
) -> None:
    """A runner may write one and read the other."""
    async with opened(tmp_path) as gateway:
        response = await gateway.say(wire.Register(name="r1"), content_type=content_type, accept=accept)

    assert response.content_type == accept
    assert isinstance(decode_server_body(await response.get_data(as_text=False), accept), wire.Registered)


async def test_the_same_token_and_name_are_the_same_runner(tmp_path: Path) -> None:
    """A restarted runner finds itself again; the same name under another token is another one."""
    async with opened(tmp_path) as gateway:
        ids = [await gateway.register(), await gateway.register(), await gateway.register("r2")]
        other = await gateway.register(token=OTHER_RUNNER)

    assert ids[0] == ids[1]
    assert len({*ids, other}) == 3


async def test_a_stale_lease_is_409_and_changes_nothing(tmp_path: Path) -> None:
    """The fencing token decides, whatever the message; the answer is the protocol's own."""
    async with opened(tmp_path) as gateway:
        runner_id, lease = await leased(gateway)
        stale = {**fence(lease), "lease_id": "0" * 32}
        before = await fingerprint(gateway.store)
        answers = []
        for message in (
            wire.AckLease(**stale),
            wire.Heartbeat(**stale),
            wire.AppendLog(**stale, offset=0, data=b"x"),
            wire.Complete(**stale, exit_code=0),
            wire.CancelAck(**stale),
            wire.Heartbeat(**{**fence(lease), "attempt": 2}),
            wire.Heartbeat(**{**fence(lease), "attempt": 2**64 - 1}),
            wire.Heartbeat(**{**fence(lease), "attempt": -1}),
            wire.Heartbeat(**{**fence(lease), "job_id": lease.job_id.replace("_0", "_1")}),
        ):
            response = await gateway.say(message, runner_id=runner_id)
            data = await response.get_data(as_text=False)
            answers.append((response.status_code, type(decode_server_body(data, response.content_type or ""))))
        after = await fingerprint(gateway.store)

    assert answers == [(409, wire.StaleLease)] * 9
    assert before == after


async def test_a_lease_is_of_no_use_to_another_runner(tmp_path: Path) -> None:
    """A lease id that leaked opens nothing for whoever has another token, or another runner's id."""
    async with opened(tmp_path) as gateway:
        runner_id, lease = await leased(gateway)
        thief = await gateway.register(token=OTHER_RUNNER)
        message = wire.Complete(**fence(lease), exit_code=0)
        before = await fingerprint(gateway.store)
        as_itself = await gateway.say(message, runner_id=thief, token=OTHER_RUNNER)
        as_holder = await gateway.say(message, runner_id=runner_id, token=OTHER_RUNNER)
        artifact = await gateway.put_artifact(thief, lease, "a", b"x", token=OTHER_RUNNER)
        after = await fingerprint(gateway.store)

    assert as_itself.status_code == 409
    assert as_holder.status_code == 404
    assert "register first" in (await error_of(as_holder))["message"]
    assert artifact.status_code == 409
    assert before == after


async def test_a_gap_in_the_log_is_416_and_says_where_to_go_on(tmp_path: Path) -> None:
    """Lines are never lost: what does not continue the log is asked for again."""
    async with opened(tmp_path) as gateway:
        runner_id, lease = await leased(gateway)
        await gateway.told(wire.AppendLog(**fence(lease), offset=0, data=b"abc"), runner_id=runner_id)
        response = await gateway.say(wire.AppendLog(**fence(lease), offset=5, data=b"f"), runner_id=runner_id)
        data = await response.get_data(as_text=False)

    assert response.status_code == 416
    assert decode_server_body(data, MSGPACK_TYPE) == wire.LogGap(**fence(lease), size=3)


async def test_another_result_for_the_same_attempt_is_refused(tmp_path: Path) -> None:
    """The first accepted result stands for ever."""
    async with opened(tmp_path) as gateway:
        runner_id, lease = await leased(gateway)
        await gateway.told(wire.Complete(**fence(lease), exit_code=0), runner_id=runner_id)
        response = await gateway.say(wire.Complete(**fence(lease), exit_code=1), runner_id=runner_id)
        job, _ = await gateway.store.load_job(lease.job_id) or (None, None)

    assert response.status_code == 409
    assert (await error_of(response))["code"] == "conflicting_result"
    assert job is not None
    assert job.state == "SUCCEEDED"


async def test_a_canceled_job_is_told_with_the_next_heartbeat(tmp_path: Path) -> None:
    """A runner without a channel hears of it within one heartbeat."""
    async with opened(tmp_path) as gateway:
        runner_id, lease = await leased(gateway)
        run_id = lease.run_id
        await gateway.post(f"/api/v1/runs/{run_id}/cancel", status=202)
        await gateway.stage.job_until(lease.job_id, "CANCEL_REQUESTED")
        beat = await gateway.told(wire.Heartbeat(**fence(lease)), runner_id=runner_id)
        acked = await gateway.told(wire.CancelAck(**fence(lease)), runner_id=runner_id)
        await gateway.stage.run_until(run_id, "CANCELED")

    assert isinstance(beat, wire.HeartbeatAck)
    assert beat.is_cancel_requested
    assert 0 < beat.cancel_within_ms <= 30_000
    assert acked == wire.CompleteAck(**fence(lease), state="CANCELED")


async def test_a_request_for_work_waits_and_is_answered_by_the_push(tmp_path: Path) -> None:
    """Long poll: no job waits for the next question."""
    async with opened(tmp_path) as gateway:
        runner_id = await gateway.register()
        answers: list[wire.ServerMessage] = []

        async def ask() -> None:
            answers.append(await gateway.told(wire.Lease(runner_id=runner_id, wait_ms=15_000)))

        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ask)
                await anyio.lowlevel.checkpoint()
                await gateway.deliver()

    (answer,) = answers
    assert isinstance(answer, wire.Leases)
    assert len(answer.leases) == 1


async def test_a_server_that_drains_grants_no_more(tmp_path: Path) -> None:
    """A job granted to a connection that is about to close would wait for its deadline."""
    async with opened(tmp_path) as gateway:
        await gateway.deliver()
        runner_id = await gateway.register()
        gateway.house.drain()
        answer = await gateway.told(wire.Lease(runner_id=runner_id, wait_ms=60_000))

    assert answer == wire.Leases()


def files_below(path: Path) -> list[Path]:
    return [found for found in path.rglob("*") if found.is_file()]


# ---- artifacts ---------------------------------------------------------------------------------------------------


async def test_an_artifact_is_stored_once(tmp_path: Path) -> None:
    """201 when it is new, 200 for a repeat; the run shows it."""
    async with opened(tmp_path) as gateway:
        runner_id, lease = await leased(gateway)
        first = await gateway.put_artifact(runner_id, lease, "shop.tar.gz", b"bytes")
        again = await gateway.put_artifact(runner_id, lease, "shop.tar.gz", b"bytes")
        other = await gateway.put_artifact(runner_id, lease, "shop.tar.gz", b"other")
        view = await gateway.get(f"/api/v1/runs/{lease.run_id}")

    sha256 = hashlib.sha256(b"bytes").hexdigest()
    assert first.status_code == 201
    assert await first.get_json() == {"name": "shop.tar.gz", "size_bytes": 5, "sha256": sha256}
    assert again.status_code == 200
    assert (other.status_code, (await error_of(other))["code"]) == (409, "duplicate")
    assert view["jobs"][0]["artifacts"] == [{"name": "shop.tar.gz", "attempt": 1, "size_bytes": 5, "sha256": sha256}]
    assert (tmp_path / "artifacts" / lease.job_id / "1" / "shop.tar.gz").read_bytes() == b"bytes"


async def test_an_artifact_at_the_limit_is_stored_and_one_byte_more_is_not(tmp_path: Path) -> None:
    """The limit is counted while it streams; nothing of what is too large stays."""
    async with opened(tmp_path, artifact_bytes_max=1000) as gateway:
        runner_id, lease = await leased(gateway)
        full = await gateway.put_artifact(runner_id, lease, "full", b"x" * 1000)
        over = await gateway.put_artifact(runner_id, lease, "over", b"x" * 1001)
        stored = await gateway.store.artifacts_of_run(lease.run_id)

    assert full.status_code == 201
    assert (over.status_code, (await error_of(over))["code"]) == (413, "artifact_too_large")
    assert [one.name for one in stored] == ["full"]
    assert not (tmp_path / "artifacts" / lease.job_id / "1" / "over").exists()


async def test_an_artifact_with_other_bytes_than_announced_is_not_stored(tmp_path: Path) -> None:
    """What was damaged on the way is sent again, not kept."""
    async with opened(tmp_path) as gateway:
        runner_id, lease = await leased(gateway)
        damaged = await gateway.put_artifact(runner_id, lease, "a", b"x", sha256="0" * 64)
        unannounced = await gateway.put_artifact(runner_id, lease, "a", b"x", sha256="")
        nonsense = await gateway.put_artifact(runner_id, lease, "a", b"x", sha256="sha256")
        stored = await gateway.store.artifacts_of_run(lease.run_id)

    assert (damaged.status_code, (await error_of(damaged))["code"]) == (422, "checksum_mismatch")
    assert [one.status_code for one in (unannounced, nonsense)] == [400, 400]
    assert "X-Deltaci-Sha256" in (await error_of(nonsense))["message"]
    assert stored == ()


async def test_an_artifact_without_the_lease_is_refused(tmp_path: Path) -> None:
    """Results of an attempt come from its holder alone, and none after its end."""
    async with opened(tmp_path) as gateway:
        runner_id, lease = await leased(gateway)
        wrong = await gateway.put_artifact(runner_id, lease, "a", b"x", lease_id="0" * 32)
        none = await gateway.put_artifact(runner_id, lease, "a", b"x", lease_id="")
        await gateway.told(wire.Complete(**fence(lease), exit_code=0), runner_id=runner_id)
        late = await gateway.put_artifact(runner_id, lease, "a", b"x")

    assert [one.status_code for one in (wrong, none, late)] == [409, 409, 409]
    assert (await error_of(late))["code"] == "stale_lease"
    assert not (tmp_path / "artifacts").exists()


@pytest.mark.parametrize("size", [10, 3 * 1024 * 1024])
async def test_a_refused_upload_is_read_off_before_the_answer(tmp_path: Path, size: int) -> None:
    """Closing with bytes unread resets the connection, and the reset may overtake the refusal."""
    async with opened(tmp_path) as gateway:
        runner_id, lease = await leased(gateway)
        connection = gateway.app.test_client().request(
            f"/api/v1/runner/artifacts/{lease.job_id}/1/a",
            method="PUT",
            headers={"Authorization": f"Bearer {RUNNER}", "X-Deltaci-Runner": runner_id},
        )
        async with connection:
            await connection.send(b"x" * size)
            for _ in range(20):
                await anyio.lowlevel.checkpoint()
            is_answered_early = connection.status_code is not None
            await connection.send(b"x" * size)
            await connection.send_complete()
        response = await connection.as_response()

    assert not is_answered_early
    assert response.status_code == 409


@pytest.mark.parametrize(
    "name",
    [
        "..",
        "%2E%2E",
        "a%2Fb",
        "..%2F..%2Fdeltaci.db",
        "%2Fetc%2Fpasswd",
        "a%5Cb",
        "a%00b",
        "a%0Ab",
        "x" * 201,
        "%E2%80%AE",
    ],
)
async def test_an_artifact_stays_in_its_directory(tmp_path: Path, name: str) -> None:
    """Names come from builds and are hostile until checked."""
    async with opened(tmp_path) as gateway:
        runner_id, lease = await leased(gateway)
        response = await gateway.put_artifact(runner_id, lease, name, b"x")
        stored = await gateway.store.artifacts_of_run(lease.run_id)

    assert response.status_code in (400, 404, 405, 415)
    await error_of(response)
    assert stored == ()
    assert files_below(tmp_path) == []
