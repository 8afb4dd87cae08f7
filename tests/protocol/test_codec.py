"""Bytes to messages and back, and everything that is no message."""

from typing import Any, get_args

import msgspec
import pytest

from protocol.codec import (
    JSON_TYPE,
    MSGPACK_TYPE,
    MalformedMessage,
    decode_answer_frame,
    decode_request_frame,
    decode_runner_body,
    decode_server_body,
    encode_body,
    encode_frame,
)
from protocol.messages import (
    AckLease,
    Answer,
    AppendLog,
    Artifact,
    AskCredential,
    Cache,
    CancelAck,
    CancelRequested,
    Complete,
    CompleteAck,
    CredentialGiven,
    Failure,
    Heartbeat,
    HeartbeatAck,
    JobSpec,
    Lease,
    LeaseAcked,
    LeaseGranted,
    Leases,
    LogAck,
    LogGap,
    Register,
    Registered,
    Request,
    RunnerMessage,
    ServerMessage,
    StaleLease,
    Step,
    StepResult,
)

FENCE: dict[str, Any] = {"lease_id": "l", "job_id": "j", "attempt": 2}
JOB = JobSpec(
    name="build",
    repo="team/app",
    clone_url="https://example.org/app",
    commit_sha="a" * 40,
    ref="refs/heads/main",
    steps=(Step(name="one", run="make", env={"A": "ä"}, workdir="sub"),),
    artifacts=(Artifact(name="out", paths=("dist/*",)),),
    caches=(Cache(key="k", paths=("x",), is_read_only=True),),
)
RUNNER_MESSAGES = (
    Register(name="r", labels=("linux", "gpu"), slots=4, version="1", platform="linux/arm64"),
    Lease(runner_id="r", slots=2, wait_ms=10),
    AckLease(**FENCE),
    AskCredential(**FENCE),
    Heartbeat(**FENCE, phase="uploading", step=3),
    AppendLog(**FENCE, offset=7, data=b"\x00\xff\xfe", is_final=True, crc32=4_294_967_295),
    Complete(**FENCE, reason="job_timeout", exit_code=None, steps=(StepResult(name="s", exit_code=1),), log_size=9),
    CancelAck(**FENCE),
)
SERVER_MESSAGES = (
    Registered(runner_id="r", lease_ttl_ms=1),
    Leases(leases=(LeaseGranted(**FENCE, run_id="u", job=JOB, expires_in_ms=5, ack_within_ms=6),)),
    LeaseAcked(**FENCE, expires_in_ms=5),
    CredentialGiven(**FENCE, username="u", password="p", expires_in_ms=5),
    HeartbeatAck(**FENCE, expires_in_ms=5, is_cancel_requested=True, cancel_within_ms=9),
    LogAck(**FENCE, size=1),
    LogGap(**FENCE, size=0),
    CompleteAck(**FENCE, state="SUCCEEDED"),
    StaleLease(**FENCE, reason="expired"),
    CancelRequested(**FENCE, cancel_within_ms=1),
    Failure(code="c", message="m", details={"a": "b"}, http_status=503, retry_after_ms=2),
)


def test_a_credential_that_is_printed_does_not_show() -> None:
    """Whoever logs an answer by mistake logs no secret."""
    given = CredentialGiven(**FENCE, username="u", password="hush-hush")

    assert "hush-hush" not in f"{given!r} {given} {Answer(1, given)}"


def test_the_table_of_examples_has_every_message() -> None:
    """A message added later must be tried here too."""
    kinds = {type(message) for message in (*RUNNER_MESSAGES, *SERVER_MESSAGES)}

    assert kinds == {*get_args(RunnerMessage), *get_args(ServerMessage)}


@pytest.mark.parametrize("content_type", [JSON_TYPE, MSGPACK_TYPE])
@pytest.mark.parametrize("message", RUNNER_MESSAGES, ids=lambda message: type(message).__name__)
def test_a_runners_message_survives_both_body_codecs(message: Any, content_type: str) -> None:
    """Both content types carry the same structs."""
    decoded = decode_runner_body(encode_body(message, content_type), content_type)

    assert decoded == message


@pytest.mark.parametrize("content_type", [JSON_TYPE, MSGPACK_TYPE])
@pytest.mark.parametrize("message", SERVER_MESSAGES, ids=lambda message: type(message).__name__)
def test_a_servers_message_survives_both_body_codecs(message: Any, content_type: str) -> None:
    """Both content types carry the same structs."""
    decoded = decode_server_body(encode_body(message, content_type), content_type)

    assert decoded == message


@pytest.mark.parametrize("message", RUNNER_MESSAGES, ids=lambda message: type(message).__name__)
def test_a_request_survives_its_frame(message: Any) -> None:
    """The socket carries what HTTP carries, with an id in front."""
    request = Request(2**31, message)

    assert decode_request_frame(encode_frame(request)) == request


@pytest.mark.parametrize("message", SERVER_MESSAGES, ids=lambda message: type(message).__name__)
def test_an_answer_survives_its_frame(message: Any) -> None:
    """Id 0, a push, included."""
    answer = Answer(0, message)

    assert decode_answer_frame(encode_frame(answer)) == answer


MALFORMED = {
    "nothing": b"",
    "noise": b"\xc1\xc1\xc1",
    "cut off": encode_body(RUNNER_MESSAGES[0], JSON_TYPE)[:-3],
    "no object": b"[]",
    "null": b"null",
    "no tag": b'{"name":"r"}',
    "unknown tag": b'{"type":"Reboot"}',
    "a tag that is no string": b'{"type":{}}',
    "a server's message": b'{"type":"CompleteAck","lease_id":"l","job_id":"j","attempt":1,"state":"SUCCEEDED"}',
    "a field missing": b'{"type":"Lease"}',
    "a field of the wrong type": b'{"type":"Lease","runner_id":7}',
    "a number where a truth is wanted": (
        b'{"type":"AppendLog","lease_id":"l","job_id":"j","attempt":1,"offset":0,"is_final":1}'
    ),
    "an unknown phase": b'{"type":"Heartbeat","lease_id":"l","job_id":"j","attempt":1,"phase":"dancing"}',
    "a huge number": b'{"type":"Lease","runner_id":"r","slots":' + b"9" * 5000 + b"}",
    "not a number": b'{"type":"Lease","runner_id":"r","slots":NaN}',
    "no base64": b'{"type":"AppendLog","lease_id":"l","job_id":"j","attempt":1,"offset":0,"data":"*"}',
    "bad UTF-8": b'{"type":"Lease","runner_id":"\xff\xfe"}',
    "a lone surrogate": b'{"type":"Lease","runner_id":"\\ud800"}',
    "deep nesting": b'{"type":"Lease","runner_id":"r","new":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "two messages": b'{"type":"Lease","runner_id":"r"} {"type":"Lease","runner_id":"r"}',
}


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED.keys())
def test_what_is_no_json_message_is_malformed(data: bytes) -> None:
    """One exception for all of it: the gateway answers 400, whatever the decoder underneath raised."""
    with pytest.raises(MalformedMessage):
        decode_runner_body(data, JSON_TYPE)


MALFORMED_MSGPACK = {
    "nothing": b"",
    "a reserved byte": b"\xc1",
    "cut off": encode_frame(Request(1, RUNNER_MESSAGES[0]))[:-3],
    "no array": msgspec.msgpack.encode({"id": 1}),
    "too short an array": msgspec.msgpack.encode([1]),
    "an id that is no number": msgspec.msgpack.encode(["1", {"type": "Lease", "runner_id": "r"}]),
    "unknown tag": msgspec.msgpack.encode([1, {"type": "Reboot"}]),
    "bad UTF-8": b"\x92\x01\x82\xa4type\xa5Lease\xa9runner_id\xa2\xff\xfe",
    "deep nesting": b"\x92\x01\x83\xa4type\xa5Lease\xa9runner_id\xa1r\xa3new" + b"\x91" * 100_000 + b"\x01",
    "a lying length": b"\x92\x01\xdf\xff\xff\xff\xff",
    "bytes after the end": encode_frame(Request(1, RUNNER_MESSAGES[0])) + b"\x00",
}


@pytest.mark.parametrize("data", MALFORMED_MSGPACK.values(), ids=MALFORMED_MSGPACK.keys())
def test_what_is_no_frame_is_malformed(data: bytes) -> None:
    """A frame that cannot be read must not take the reader of the socket with it."""
    with pytest.raises(MalformedMessage):
        decode_request_frame(data)


@pytest.mark.parametrize("message", RUNNER_MESSAGES, ids=lambda message: type(message).__name__)
def test_fields_of_a_future_version_are_ignored(message: Any) -> None:
    """A newer runner talks to an older server: what it says beyond the contract changes nothing."""
    document = msgspec.json.decode(encode_body(message, JSON_TYPE)) | {"invented_later": [1, {"a": None}]}

    decoded = decode_runner_body(msgspec.json.encode(document), JSON_TYPE)

    assert decoded == message


def test_a_frame_with_more_elements_than_known_still_decodes() -> None:
    """Frames are arrays: what a later version appends is ignored as well."""
    data = msgspec.msgpack.encode([7, {"type": "Lease", "runner_id": "r"}, "later"])

    assert decode_request_frame(data) == Request(7, Lease(runner_id="r"))
