"""More than can be done at once: memory is bounded, who is refused is told when to come back, the rest goes on."""

import asyncio
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec
import pytest

from protocol import messages as wire
from protocol.codec import decode_answer_frame, encode_frame
from tests.faults.raw import besieged, connected, frame, handshake
from tests.scenarios.support import Project, Server, attempts_of, step, wait_for

pytestmark = pytest.mark.slow

MIB: Final = 1024 * 1024
GROWN_BYTES_MAX: Final = 200 * MIB
CHANNELS: Final = 16
CONNECTIONS: Final = 100
PATIENT: Final = {
    "DELTACI_POLICY_LEASE_TTL_MS": "60000",
    "DELTACI_POLICY_ACK_WITHIN_MS": "60000",
    "DELTACI_POLICY_CANCEL_WITHIN_MS": "60000",
}


class Hand:
    """A runner by hand, over HTTP and JSON."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.token: str = server.post("/admin/runner-tokens", {"label": "hand"})["token"]
        self._headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        self._headers["Accept"] = "application/json"
        self.id = ""
        self.id = self.say("register", type="Register", name="hand", slots=10)["runner_id"]

    def say(self, verb: str, **message: Any) -> Any:
        """One message; the answer must be 200."""
        headers = {**self._headers, "X-Deltaci-Runner": self.id}
        url = f"{self._server.url}/api/v1/runner/{verb}"
        answer = httpx.post(url, content=json.dumps(message), headers=headers, timeout=60)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def lease(self) -> dict[str, Any]:
        """A lease, acknowledged: the fence of its attempt."""

        def poll() -> Any:
            return self.say("lease", type="Lease", runner_id=self.id, wait_ms=2_000)["leases"]

        (granted,) = wait_for("a lease", poll)
        fence = {key: granted[key] for key in ("lease_id", "job_id", "attempt")}
        self.say("ack", type="AckLease", **fence)
        return fence


# ---- heartbeats --------------------------------------------------------------------------------------------------


class Flood(threading.Thread):
    """Heartbeats for one lease over many channels at once, none waiting for the answer to the one before."""

    def __init__(self, server: Server, hand: Hand, fence: dict[str, Any], count: int) -> None:
        super().__init__()
        self._port = server.port
        self._token = hand.token
        self._per_channel = count // CHANNELS
        self._heartbeat = wire.Heartbeat(**fence, phase="running")
        self.count = self._per_channel * CHANNELS
        self.answers: Counter[str] = Counter()
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            asyncio.run(self._flood())
        except BaseException as error:  # noqa: BLE001 - it is raised where the flood is waited for
            self.error = error

    def finish(self) -> None:
        """Wait for the last answer."""
        self.join(500)
        assert not self.is_alive()
        if self.error is not None:
            raise self.error

    async def _flood(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(CHANNELS):
                tasks.create_task(self._channel())

    async def _channel(self) -> None:
        async with connected(self._port) as (reader, writer):
            writer.write(handshake(self._token))
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
            writer.write(frame(2, encode_frame(wire.Request(1, wire.Register(name="hand", slots=10)))))
            assert isinstance((await self._answer(reader)).body, wire.Registered)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._send(writer))
                tasks.create_task(self._count(reader))

    async def _send(self, writer: asyncio.StreamWriter) -> None:
        for number in range(self._per_channel):
            writer.write(frame(2, encode_frame(wire.Request(number + 2, self._heartbeat))))
            if number % 64 == 0:
                await writer.drain()
        await writer.drain()

    async def _count(self, reader: asyncio.StreamReader) -> None:
        waiting = set(range(2, self._per_channel + 2))
        while waiting:
            answer = await self._answer(reader)
            if answer.id == 0:
                continue  # a push: the cancel, or the end of the lease
            waiting.remove(answer.id)
            body = answer.body
            kind = type(body).__name__
            if isinstance(body, wire.Failure):
                kind = f"{body.http_status} {body.retry_after_ms}"
            elif isinstance(body, wire.HeartbeatAck) and body.is_cancel_requested:
                kind = "cancel"
            self.answers[kind] += 1

    async def _answer(self, reader: asyncio.StreamReader) -> wire.Answer:
        _, size = await reader.readexactly(2)
        if size == 126:
            size = int.from_bytes(await reader.readexactly(2), "big")
        return decode_answer_frame(await reader.readexactly(size))


@pytest.mark.parametrize(
    "count",
    [
        pytest.param(12_000, id="small"),
        pytest.param(100_000, id="large", marks=[pytest.mark.long, pytest.mark.timeout(600)]),
    ],
)
@pytest.mark.parametrize("is_canceled", [True, False], ids=["cancel", "complete"])
def test_a_flood_of_heartbeats_to_one_job_keeps_out_neither_cancel_nor_result(
    tmp_path: Path, count: int, is_canceled: bool
) -> None:
    """Each is answered, with 503 where there is no room; what must not wait overtakes them all."""
    with Server(tmp_path, **PATIENT, DELTACI_POLICY_MAILBOX_SIZE="500") as server:
        project = Project(server)
        run_id = project.configure({"flooded": {"steps": [step("true")]}})
        hand = Hand(server)
        fence = hand.lease()
        with besieged(server) as witness:
            flood = Flood(server, hand, fence, count)
            flood.start()
            wait_for("the flood", lambda: flood.answers.total() > count // 20 or flood.error)
            if is_canceled:
                server.post(f"/runs/{run_id}/cancel")
                wait_for("the runner to hear of it", lambda: flood.answers["cancel"] or not flood.is_alive())
                said = hand.say("cancel-ack", type="CancelAck", **fence)
            else:
                said = hand.say("complete", type="Complete", exit_code=0, **fence)
            was_flooded = flood.is_alive()
            flood.finish()
        view = server.run_until(run_id)

    assert was_flooded
    state = "CANCELED" if is_canceled else "SUCCEEDED"
    assert said["state"] == state
    assert attempts_of(view) == {"flooded": [(1, state)]}
    assert flood.answers.total() == flood.count
    assert set(flood.answers) <= {"HeartbeatAck", "cancel", "StaleLease", "503 1000"}, flood.answers
    assert flood.answers["503 1000"] > 0
    assert flood.answers["StaleLease"] > 0
    assert witness.grown_bytes < GROWN_BYTES_MAX


# ---- webhooks ----------------------------------------------------------------------------------------------------


class Burst(msgspec.Struct):
    """What the senders of a burst of webhooks were told."""

    accepted: dict[str, str]
    refusals: Counter[str]


async def send_all(server: Server, project: Project, count: int) -> Burst:
    """Pushes of new commits over many connections; who is refused comes back when told to."""
    numbers = iter(range(1, count + 1))
    burst = Burst({}, Counter())

    async def sender() -> None:
        async with connected(server.port) as (reader, writer):
            for number in numbers:
                data, headers = project.webhook("0" * 40, f"d-{number}", after=f"{number:040x}")
                lines = [f"{name}: {value}" for name, value in {**headers, "Content-Length": len(data)}.items()]
                head = "\r\n".join(("POST /api/v1/webhooks/git HTTP/1.1", "Host: x", *lines))
                while True:
                    writer.write(head.encode() + b"\r\n\r\n" + data)
                    status, answered, body = await answer_from(reader)
                    if status == 202:
                        burst.accepted[f"d-{number}"] = json.loads(body)["run_id"]
                        break
                    burst.refusals[f"{status} {answered.get('retry-after')}"] += 1
                    assert status == 503, body
                    await asyncio.sleep(float(answered["retry-after"]))

    async with asyncio.TaskGroup() as tasks:
        for _ in range(CONNECTIONS):
            tasks.create_task(sender())
    return burst


async def answer_from(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body."""
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
    return int(first.split()[1]), headers, await reader.readexactly(int(headers["content-length"]))


@contextmanager
def meanwhile(work: Callable[[], Any]) -> Iterator[list[Any]]:
    """`work` goes on in a thread; what it came to is in the list at the end."""
    results: list[Any] = []

    def call() -> None:
        try:
            results.append(work())
        except BaseException as error:  # noqa: BLE001 - it is looked at below
            results.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    try:
        yield results
    finally:
        thread.join(500)
    assert not thread.is_alive()
    if isinstance(results[0], BaseException):
        raise results[0]


@pytest.mark.parametrize(
    "count",
    [
        pytest.param(500, id="small"),
        pytest.param(10_000, id="large", marks=[pytest.mark.long, pytest.mark.timeout(600)]),
    ],
)
def test_a_burst_of_webhooks_loses_none_and_holds_up_no_other_work(tmp_path: Path, count: int) -> None:
    """A small mailbox refuses many of them for a second; each 2xx has its run; a result and a cancel get through."""
    # One plan at a time: the commits do not exist, and looking for them is not what this is about.
    with Server(tmp_path, **PATIENT, DELTACI_POLICY_MAILBOX_SIZE="30", DELTACI_POLICY_PLANS_AT_ONCE="1") as server:
        calm, busy = Project(server, "calm"), Project(server, "busy")
        runs = [calm.configure({"a": {"steps": [step("true")]}})]
        hand = Hand(server)
        fence = hand.lease()
        with (
            besieged(server) as witness,
            meanwhile(lambda: asyncio.run(send_all(server, busy, count))) as results,
        ):
            wait_for("the burst", lambda: len(witness.statuses) > 3)
            said = hand.say("complete", type="Complete", exit_code=0, **fence)
            runs.append(calm.configure({"b": {"steps": [step("true")]}}))
            canceled = server.post(f"/runs/{runs[1]}/cancel")
            was_busy = not results
        burst: Burst = results[0]
        known = {run["id"] for run in server.runs()}
        again = send_again(server, busy, burst)
        views = [server.run_until(run) for run in runs]
        last = server.run_until(burst.accepted[f"d-{count}"], "PLANNING", "FAILED", "CANCELED")
        server.assert_sound()

    assert was_busy
    assert said["state"] == "SUCCEEDED"
    assert canceled["run_id"] == runs[1]
    assert [view["run"]["state"] for view in views] == ["SUCCEEDED", "CANCELED"]
    assert len(burst.accepted) == count
    assert len(set(burst.accepted.values())) == count
    assert known == {*burst.accepted.values(), *runs}
    assert again == burst.accepted
    assert set(burst.refusals) == {"503 1"}
    assert last["run"]["repo"] == "busy"
    assert witness.grown_bytes < GROWN_BYTES_MAX


def send_again(server: Server, project: Project, burst: Burst) -> dict[str, str]:
    """The same deliveries once more, one after the other; what each was told."""
    told = dict(burst.accepted)
    with httpx.Client(timeout=60) as client:
        for delivery in list(told)[:: max(1, len(told) // 50)]:
            number = int(delivery.removeprefix("d-"))
            data, headers = project.webhook("0" * 40, delivery, after=f"{number:040x}")
            answer = client.post(f"{server.url}/api/v1/webhooks/git", content=data, headers=headers)
            told[delivery] = answer.json()["run_id"]
    return told


# ---- jobs --------------------------------------------------------------------------------------------------------


def many_jobs(count: int) -> dict[str, Any]:
    """As many, in matrices of 250."""
    sizes = [min(250, count - first) for first in range(0, count, 250)]
    return {
        f"part{number}": {"matrix": {"n": [str(value) for value in range(size)]}, "steps": [step("true")]}
        for number, size in enumerate(sizes)
    }


@pytest.mark.parametrize(
    "count",
    [
        pytest.param(1_000, id="small"),
        pytest.param(10_000, id="large", marks=[pytest.mark.long, pytest.mark.timeout(600)]),
    ],
)
def test_a_run_of_very_many_jobs_is_queued_leased_and_canceled(tmp_path: Path, count: int) -> None:
    """From the push to QUEUED, and from a cancel to the end, while others are served; no job is forgotten."""
    with Server(tmp_path, **PATIENT, DELTACI_POLICY_JOBS_MAX=str(count)) as server:
        project = Project(server)

        def is_in(run_id: str, *states: str) -> bool:
            return any(one["id"] == run_id and one["state"] in states for one in server.get("/runs")["runs"])

        with besieged(server) as witness:
            started = time.monotonic()
            run_id = project.configure(many_jobs(count))
            wait_for("the run to be queued", lambda: is_in(run_id, "QUEUED", "FAILED"), pause_s=0.2)
            queued_s = time.monotonic() - started
            queued = server.view(run_id)
            hand = Hand(server)
            fence = hand.lease()
            said = hand.say("complete", type="Complete", exit_code=0, **fence)
            held = hand.lease()
            canceled = server.post(f"/runs/{run_id}/cancel")
            acknowledged = hand.say("cancel-ack", type="CancelAck", **held)
            wait_for("the end of the run", lambda: is_in(run_id, "CANCELED"), pause_s=0.2)
            view = server.view(run_id)
        too_many = server.run_until(project.configure(many_jobs(count + 1)))
        server.assert_sound()

    assert queued["run"]["state"] == "QUEUED", queued["run"]
    assert Counter(job["state"] for job in queued["jobs"]) == {"QUEUED": count}
    assert said["state"] == "SUCCEEDED"
    assert canceled["state"] == "CANCEL_REQUESTED"
    assert acknowledged["state"] == "CANCELED"
    assert Counter(job["state"] for job in view["jobs"]) == {"SUCCEEDED": 1, "CANCELED": count - 1}
    assert queued_s < 60
    assert witness.longest_s < 15
    assert witness.grown_bytes < GROWN_BYTES_MAX
    assert f"at most {count} are accepted" in too_many["run"]["text"]
