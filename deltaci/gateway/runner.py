"""The runner protocol over HTTP and over one WebSocket: two transports, one desk behind them."""

import re
from collections.abc import Mapping
from typing import Any, Final

import anyio
from loguru import logger
from quart import Blueprint, Response, current_app, request, websocket

from actors import ActorError
from deltaci.domain.errors import DeltaError, MalformedRequest
from deltaci.domain.machine import Refusal
from deltaci.gateway import answers
from deltaci.gateway.auth import authenticate
from deltaci.gateway.house import House, raw_body
from deltaci.store.writes import ArtifactStored, Runner
from protocol import messages as wire
from protocol.codec import (
    JSON_TYPE,
    MSGPACK_TYPE,
    MalformedMessage,
    decode_request_frame,
    decode_runner_body,
    encode_body,
    encode_frame,
)

bp = Blueprint("runner", __name__, url_prefix="/api/v1/runner")

RUNNER_HEADER: Final = "X-Deltaci-Runner"
LEASE_HEADER: Final = "X-Deltaci-Lease"
SHA256_HEADER: Final = "X-Deltaci-Sha256"

VERBS: Final[Mapping[str, type[wire.RunnerMessage]]] = {
    "register": wire.Register,
    "lease": wire.Lease,
    "ack": wire.AckLease,
    "credential": wire.AskCredential,
    "heartbeat": wire.Heartbeat,
    "log": wire.AppendLog,
    "complete": wire.Complete,
    "cancel-ack": wire.CancelAck,
}

_SHA256: Final = re.compile(r"[0-9a-f]{64}")

# How long a channel waits for its last answers when the server ends
FINISH_WITHIN_S: Final = 5

# Close codes of RFC 6455 (1012 from its registry): the runner reconnects after each of them
POLICY_VIOLATION: Final = 1008
SERVICE_RESTART: Final = 1012


def _house() -> House:
    house: House = current_app.extensions["house"]
    return house


# ---- HTTP --------------------------------------------------------------------------------------------------------


@bp.post("/<verb>")
async def receive(verb: str) -> Response:
    """One message in, one out; the message's class must be the one that belongs to `verb`."""
    house = _house()
    token = await authenticate(request, house.store, "runner")
    kind = VERBS.get(verb)
    if kind is None:
        return answers.problem(404, "not_found", f"no such call {verb[:50]!r}: there are {', '.join(VERBS)}")
    content_type = (request.content_type or JSON_TYPE).partition(";")[0].strip().lower()
    if content_type not in (JSON_TYPE, MSGPACK_TYPE):
        return answers.problem(415, "unsupported_media_type", f"send {JSON_TYPE} or {MSGPACK_TYPE}")
    message = decode_runner_body(await raw_body(request), content_type)
    if not isinstance(message, kind):
        raise MalformedRequest(f"{verb} takes a message of type {kind.__name__}, not {type(message).__name__}")
    desk = house.orchestrator.desk
    answer: wire.ServerMessage
    if isinstance(message, wire.Register):
        _, answer = await desk.register(token.id, message)
    else:
        runner_id = message.runner_id if isinstance(message, wire.Lease) else request.headers.get(RUNNER_HEADER, "")
        runner = await desk.identify(token.id, runner_id)
        answer = await desk.serve(runner, message)
    return _http(answer, request.headers.get("Accept", content_type))


def _http(answer: wire.ServerMessage, accept: str) -> Response:
    if isinstance(answer, wire.Failure):
        return answers.problem(
            answer.http_status, answer.code, answer.message, answer.details, retry_after_ms=answer.retry_after_ms
        )
    status = 409 if isinstance(answer, wire.StaleLease) else 416 if isinstance(answer, wire.LogGap) else 200
    content_type = MSGPACK_TYPE if MSGPACK_TYPE in accept else JSON_TYPE
    return Response(encode_body(answer, content_type), status, content_type=content_type)


@bp.put("/artifacts/<job_id>/<int:attempt>/<name>")
async def put_artifact(job_id: str, attempt: int, name: str) -> Response:
    """Store one artifact of the attempt that the sender holds: 201 when new, 200 when it is there already."""
    house = _house()
    token = await authenticate(request, house.store, "runner")
    desk = house.orchestrator.desk
    runner = await desk.identify(token.id, request.headers.get(RUNNER_HEADER, ""))
    holder = await desk.check_holder(
        runner, job_id=job_id, attempt=attempt, lease_id=request.headers.get(LEASE_HEADER, "")
    )
    if isinstance(holder, Refusal):
        return answers.refused(holder)
    sha256 = request.headers.get(SHA256_HEADER, "").lower()
    if _SHA256.fullmatch(sha256) is None:
        raise MalformedRequest(f"{SHA256_HEADER} is the SHA-256 of the artifact: 64 hexadecimal digits")
    for known in await house.store.artifacts_of_run(holder.state.run_id):
        if (known.job_id, known.attempt, known.name) == (job_id, attempt, name):
            if known.sha256 == sha256:
                return answers.ok({"name": name, "size_bytes": known.size_bytes, "sha256": sha256})
            return answers.problem(409, "duplicate", f"artifact {name!r} of this attempt is stored with other content")
    policy = house.orchestrator.ports.policy
    stored = await house.artifacts.store(
        job_id,
        attempt,
        name,
        request.body,
        sha256=sha256,
        size_bytes_max=policy.artifact_bytes_max,
        size_bytes=request.content_length or 0,
    )
    now_ms = house.orchestrator.ports.clock.now_ms()
    row = ArtifactStored(
        job_id=job_id, attempt=attempt, name=name, size_bytes=stored.size_bytes, sha256=stored.sha256, at_ms=now_ms
    )
    await house.store.commit((row,))
    return answers.ok({"name": name, "size_bytes": row.size_bytes, "sha256": row.sha256}, 201)


# ---- WebSocket ---------------------------------------------------------------------------------------------------


class Channel:
    """One open socket: answers in any order, pushes in between, a bounded number of requests under way.

    It is served by as many readers as there are requests under way and one more, which reads the next frame: a task for
    each frame would cost more than answering it.
    """

    def __init__(self, socket: Any, house: House, tasks: anyio.abc.TaskGroup) -> None:
        self._socket = socket
        self._house = house
        self._tasks = tasks
        self._readers = 0
        self._idle_readers = 0
        self._quiet: anyio.Event | None = None
        self.runner: Runner | None = None
        self.broken: MalformedMessage | None = None

    def push(self, message: wire.ServerMessage) -> bool:
        """Send without waiting."""
        self._tasks.start_soon(self._send, wire.Answer(0, message))
        return True

    async def start(self, token_id: str) -> bool:
        """The first frame registers the runner; False when it is anything else."""
        try:
            with anyio.fail_after(self._house.limits.body_timeout_s):
                frame = await self._receive()
        except TimeoutError:
            return False
        if not isinstance(frame.body, wire.Register):
            return False
        try:
            self.runner, registered = await self._house.orchestrator.desk.register(token_id, frame.body)
        except (DeltaError, ActorError) as error:
            await self._send(wire.Answer(frame.id, _failure(error)))
            return False
        await self._send(wire.Answer(frame.id, registered))
        return True

    def serve(self) -> None:
        """Read frames, in tasks of the group, until it is canceled; a peer that breaks the protocol cancels it."""
        self._readers += 1
        self._tasks.start_soon(self._read)

    async def finish(self) -> None:
        """Wait until what was read is answered, for as long as an orderly end may take."""
        self._quiet = anyio.Event()
        self._note_quiet()
        with anyio.move_on_after(FINISH_WITHIN_S):
            await self._quiet.wait()

    def _note_quiet(self) -> None:
        if self._quiet is not None and self._idle_readers == self._readers:
            self._quiet.set()

    async def _read(self) -> None:
        while True:
            self._idle_readers += 1
            self._note_quiet()
            try:
                frame = await self._receive()
            except MalformedMessage as error:
                self.broken = error
                self._tasks.cancel_scope.cancel()
                return
            finally:
                self._idle_readers -= 1
            if not self._idle_readers and self._readers < self._house.limits.frames_under_way_max:
                self.serve()
            await self._answer(frame)

    async def _receive(self) -> wire.Request:
        data = await self._socket.receive()
        if not isinstance(data, bytes):
            raise MalformedMessage("a text frame, or an empty one: the channel speaks binary msgpack")
        return decode_request_frame(data)

    async def _answer(self, frame: wire.Request) -> None:
        assert self.runner is not None
        try:
            body: wire.ServerMessage = await self._house.orchestrator.desk.serve(self.runner, frame.body)
        except (DeltaError, ActorError) as error:
            body = _failure(error)
        except Exception:  # noqa: BLE001 - one request's bug must not close the channel of all the runner's jobs
            logger.exception("a frame crashed: {}", type(frame.body).__name__)
            body = wire.Failure(code="internal", message="a bug of ours; it is in the server's log", http_status=500)
        await self._send(wire.Answer(frame.id, body))

    async def _send(self, answer: wire.Answer) -> None:
        await self._socket.send(encode_frame(answer))


def _failure(error: DeltaError | ActorError) -> wire.Failure:
    if isinstance(error, DeltaError):
        retry_after_ms = error.retry_after_ms or (answers.RETRY_AFTER_S * 1000 if error.is_retryable else None)
        details = {key: str(value) for key, value in error.details.items()}
        return wire.Failure(
            code=error.code,
            message=str(error),
            details=details,
            http_status=error.http_status,
            retry_after_ms=retry_after_ms,
        )
    code, status, is_retryable = answers.actor_error_meaning(error)
    return wire.Failure(
        code=code,
        message=str(error),
        http_status=status,
        retry_after_ms=answers.RETRY_AFTER_S * 1000 if is_retryable else None,
    )


@bp.websocket("/channel")
async def channel() -> None:
    """A runner's channel: binary msgpack frames, `Request` in, `Answer` out; the first request is `Register`."""
    house = _house()
    token = await authenticate(websocket, house.store, "runner")
    socket = websocket._get_current_object()  # type: ignore[attr-defined]  # noqa: SLF001 - the proxy costs a look-up a frame
    hub = house.orchestrator.hub
    async with anyio.create_task_group() as tasks:
        here = Channel(socket, house, tasks)
        push = here.push  # once: every look at a method makes another object, and the hub compares by identity
        try:
            if not await here.start(token.id):
                await socket.close(POLICY_VIOLATION, "the first frame registers the runner")
                return
            assert here.runner is not None
            hub.attach(here.runner.id, push)
            here.serve()
            await house.draining.wait()
            await here.finish()
            await socket.close(SERVICE_RESTART, "the server is restarting; come back")
        except MalformedMessage as error:
            here.broken = error
        finally:
            if here.runner is not None:
                hub.detach(here.runner.id, push)
            tasks.cancel_scope.cancel()
    if here.broken is not None:
        logger.warning("channel closed: {}", here.broken)
        await socket.close(POLICY_VIOLATION, "that is no frame of the runner protocol")
