"""Clients that mean harm get a 4xx or a cut connection, never a 500; and a good one is served all the while."""

import gzip
import json
import os
import resource
import socket
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import httpx
import psutil
import pytest

from deltaci.forge.webhook import signature
from protocol import messages as wire
from protocol.codec import encode_frame
from tests.faults.raw import Answer, besieged, frame, post, speak, talk
from tests.scenarios.support import Project, Server, wait_for

pytestmark = pytest.mark.slow

MIB: Final = 1024 * 1024
DEEP: Final = 100_000
QUICK_LIMITS: Final = {"DELTACI_LIMITS_BODY_TIMEOUT_S": "1", "DELTACI_LIMITS_IDLE_TIMEOUT_S": "2"}
GROWN_BYTES_MAX: Final = 150 * MIB
WEBHOOK: Final = "/api/v1/webhooks/git"
HOST: Final = b"\r\nHost: x\r\n\r\n"


def chunked(body: bytes, *headers: bytes) -> bytes:
    head = (b"POST " + WEBHOOK.encode() + b" HTTP/1.1", b"Host: x", b"Transfer-Encoding: chunked", *headers)
    return b"\r\n".join(head) + b"\r\n\r\n" + body


def lengths(*values: str, body: bytes = b"abcdef") -> bytes:
    return "\r\n".join((f"POST {WEBHOOK} HTTP/1.1", "Host: x", *values)).encode() + b"\r\n\r\n" + body


NONSENSE: Final[dict[str, bytes]] = {
    # Bodies that are two things at once, so that a second request could hide in them
    "length and chunks": chunked(b"0\r\n\r\nGET /healthz HTTP/1.1" + HOST, b"Content-Length: 5"),
    "chunks and length": lengths("Content-Length: 5", "Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
    "two lengths": lengths("Content-Length: 5", "Content-Length: 6"),
    "a list of lengths": lengths("Content-Length: 5, 6"),
    "two encodings": lengths("Transfer-Encoding: chunked", "Transfer-Encoding: identity"),
    "an unknown encoding": lengths("Transfer-Encoding: gzip, chunked"),
    # Lying lengths
    "a negative length": lengths("Content-Length: -5"),
    "a signed length": lengths("Content-Length: +5"),
    "a length that is no number": lengths("Content-Length: five"),
    "a length of five thousand digits": lengths(f"Content-Length: {'9' * 5_000}"),
    "a length beyond the limit": lengths("Content-Length: 99999999999999999999"),
    "more said than sent": lengths("Content-Length: 500"),
    "less said than sent": lengths("Content-Length: 2"),
    "a chunk that is no number": chunked(b"zz\r\nabc\r\n"),
    "a negative chunk": chunked(b"-1\r\nabc\r\n"),
    "an endless chunk": chunked(b"ffffffffffffffff\r\nabc\r\n"),
    "a chunk of five thousand digits": chunked(b"f" * 5_000 + b"\r\nabc\r\n"),
    "chunks without an end": chunked(b"3\r\nabc\r\n"),
    # Requests that are none
    "nothing but a method": b"GET\r\n\r\n",
    "no version": b"GET /healthz\r\n\r\n",
    "no host": b"GET /healthz HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "no path": b"GET ? HTTP/1.1" + HOST,
    "a query without a path": b"GET ?x=1 HTTP/1.1" + HOST,
    "an asterisk": b"OPTIONS * HTTP/1.1" + HOST,
    "an address with half a bracket": b"GET http://[evil/healthz HTTP/1.1" + HOST,
    "an authority": b"CONNECT evil:80 HTTP/1.1" + HOST,
    "a path that is no text": b"GET /\xff\xfe HTTP/1.1" + HOST,
    "a path of 100 KiB": b"GET /" + b"a" * 100 * 1024 + b" HTTP/1.1" + HOST,
    "a NUL in a header": b"GET /healthz HTTP/1.1\r\nX: a\x00b" + HOST,
    "a space before the colon": b"GET /healthz HTTP/1.1\r\nX : a" + HOST,
    "a header of 70 KiB": b"GET /healthz HTTP/1.1\r\nX: " + b"a" * 70 * 1024 + HOST,
    "ten thousand headers": b"GET /healthz HTTP/1.1\r\n"
    + b"".join(b"X%d: a\r\n" % i for i in range(10_000))
    + HOST[2:],
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00",
    "HTTP/2 and garbage": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 1_000,
    "TLS": bytes.fromhex("16030100c8010000c40303") + b"\x5a" * 200,
    "zeros": b"\0" * 4_000,
    "empty lines": b"\r\n" * 20_000,
    # WebSockets that are none
    "a handshake without a key": b"GET /api/v1/runner/channel HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: websocket"
    + HOST,
    "a handshake of the past": (
        b"GET /api/v1/runner/channel HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n"
        b"Sec-WebSocket-Version: 1" + HOST
    ),
    "a handshake without a token": (
        b"GET /api/v1/runner/channel HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n"
        b"Sec-WebSocket-Version: 13" + HOST
    ),
    "frames before the answer": (
        b"GET /api/v1/runner/channel HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n"
        b"Sec-WebSocket-Version: 13" + HOST + frame(2, b"early")
    ),
    # Headers that are no text
    "a token that is no text": b"GET /api/v1/runs HTTP/1.1\r\nAuthorization: Bearer \xff\xfe" + HOST,
    "a signature that is no text": post(WEBHOOK, b"{}", "X-Deltaci-Repo: \xff", "X-Deltaci-Signature: sha256=\xff"),
    "an event that is no text": post(
        "/api/v1/webhooks/github", b"{}", "X-Hub-Signature-256: \xff", "X-GitHub-Event: \xff", "X-GitHub-Delivery: \xff"
    ),
}


@contextmanager
def a_server(home: Path, **settings: str) -> Iterator[tuple[Server, Project]]:
    with Server(home, **{**QUICK_LIMITS, **settings}) as server:
        yield server, Project(server)


def is_refused(answer: Answer) -> bool:
    """4xx or cut; 501 is the parser's word for an encoding that it does not know."""
    return all(400 <= status < 500 or status == 501 for status in answer.statuses) and (
        bool(answer.statuses) or answer.is_cut
    )


def test_nonsense_is_refused_or_cut(tmp_path: Path) -> None:
    """All at once, and each within seconds: also what would have to be waited for."""
    with (
        a_server(tmp_path) as (server, project),
        besieged(server, project) as witness,
        ThreadPoolExecutor(16) as pool,
    ):
        answers = dict(zip(NONSENSE, pool.map(lambda data: talk(server.port, data), NONSENSE.values()), strict=True))

    assert {name: answer for name, answer in answers.items() if not is_refused(answer)} == {}
    assert answers["length and chunks"].statuses == [400]
    assert answers["length and chunks"].is_cut
    assert witness.grown_bytes < GROWN_BYTES_MAX


def test_what_is_odd_and_legal_is_served(tmp_path: Path) -> None:
    """Whoever closes doors must not close the front door."""
    upgrade = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA"
    odd = {
        "an absolute address": b"GET http://x/healthz HTTP/1.1" + HOST,
        "an offer of HTTP/2": b"GET /healthz HTTP/1.1\r\n" + upgrade + HOST,
        "HTTP/1.0": b"GET /healthz HTTP/1.0\r\n\r\n",
        "a brace in the query": b"GET /healthz?[=%ff HTTP/1.1" + HOST,
    }
    with a_server(tmp_path) as (server, _):
        answers = {name: talk(server.port, data) for name, data in odd.items()}
        pipelined = talk(server.port, (b"GET /healthz HTTP/1.1" + HOST) * 50, answers=50)
        waited = talk(server.port, lengths("Content-Length: 2", "Expect: 100-continue", body=b""), b"{}", pause_s=0.3)
        server.assert_sound()

    assert {name: answer.statuses for name, answer in answers.items()} == {name: [200] for name in odd}
    assert pipelined.statuses == [200] * 50
    assert waited.data.startswith(b"HTTP/1.1 100")
    assert waited.statuses == [401]


# ---- bodies ------------------------------------------------------------------------------------------------------


def test_bodies_that_no_decoder_should_see_are_refused(tmp_path: Path) -> None:
    """Signed and authenticated, so that they do get to the decoders: depth, bombs, bytes that are no text."""
    bombs = {
        "depth": b"[" * DEEP,
        "depth of objects": b'{"a":' * DEEP,
        "no text": b'{"repository": "\xff\xfe"}',
        "half a surrogate": b'{"repository": "\\ud800"}',
        "a number of 100,000 digits": b'{"repository": ' + b"9" * DEEP + b"}",
        "a gzip bomb": gzip.compress(b"\0" * 20 * MIB),
        "empty": b"",
        "msgpack of depth": b"\x91" * DEEP,
    }
    with a_server(tmp_path) as (server, project), besieged(server, project) as witness:
        runner = server.post("/admin/runner-tokens", {"label": "x"})["token"]
        statuses: dict[str, list[int]] = {}
        for name, body in bombs.items():
            _, signed = project.webhook("0" * 40, f"d-{name}")
            signed["X-Deltaci-Signature"] = signature(project.secret, body)
            encoded = ("Content-Encoding: gzip",) if name == "a gzip bomb" else ()
            json_type, msgpack_type = "Content-Type: application/json", "Content-Type: application/msgpack"
            admin, host = f"Authorization: Bearer {server.token}", f"Authorization: Bearer {runner}"
            requests = (
                post(WEBHOOK, body, *(f"{key}: {value}" for key, value in signed.items()), *encoded),
                post("/api/v1/runs", body, json_type, admin, *encoded),
                post("/api/v1/runner/register", body, json_type, host, *encoded),
                post("/api/v1/runner/register", body, msgpack_type, host, *encoded),
            )
            with ThreadPoolExecutor(len(requests)) as pool:
                statuses[name] = [each.statuses[0] for each in pool.map(lambda data: talk(server.port, data), requests)]

    assert statuses == {name: [400, 400, 400, 400] for name in bombs}
    assert witness.grown_bytes < GROWN_BYTES_MAX


def test_a_flood_of_large_bodies_is_bounded_in_memory(tmp_path: Path) -> None:
    """Anybody may send 25 MiB to see whether the signature is right; forty at once must not be a gigabyte."""
    room = 64 * MIB
    half = post(WEBHOOK, b"a" * 24 * MIB, length=25 * MIB)
    with a_server(tmp_path, DELTACI_LIMITS_BODIES_BYTES_MAX=str(room)) as (server, project):
        with besieged(server, project) as witness, ThreadPoolExecutor(40) as pool:
            answers = list(pool.map(lambda _: talk(server.port, half), range(40)))
        too_large = talk(server.port, post(WEBHOOK, b"a" * 26 * MIB))
        endless = talk(server.port, chunked((b"100000\r\n" + b"a" * MIB + b"\r\n") * 26))
        data, headers = project.webhook("1" * 40, "d-large", title="x" * 20 * MIB)
        large = httpx.post(f"{server.url}{WEBHOOK}", content=data, headers=headers, timeout=60)
        server.assert_sound()

    statuses = [answer.statuses[0] for answer in answers if answer.statuses]
    assert set(statuses) <= {408, 503}
    refused = [answer for answer in answers if answer.statuses == [503]]
    assert refused
    assert all(b"retry-after: 1\r\n" in answer.data.lower() for answer in refused)
    assert all(b'"overloaded"' in answer.data for answer in refused)
    assert (too_large.statuses, endless.statuses) == ([413], [413])
    assert large.status_code == 202
    # What is counted is what is kept; reading and refusing the rest takes some memory of its own.
    assert witness.grown_bytes < room + GROWN_BYTES_MAX


# ---- slow ones ---------------------------------------------------------------------------------------------------


def test_slow_clients_are_cut(tmp_path: Path) -> None:
    """A byte now and then holds no connection: neither before, nor in, nor after a request."""
    drip = [b"a"] * 100
    slow = {
        "nothing at all": [b""],
        "headers": [b"GET /healthz HTTP/1.1\r\n", *[b"X: a\r\n"] * 100],
        "a request line": [b"GET /", *drip],
        "a body": [post(WEBHOOK, length=1_000), *drip],
        "a body of the runner's": [post("/api/v1/runner/register", length=1_000), *drip],
        "chunks": [chunked(b""), *[b"1\r\na\r\n"] * 100],
        "the second request": [b"GET /healthz HTTP/1.1" + HOST, b"GET /", *drip],
    }

    def drag(pieces: list[bytes]) -> Answer:
        return talk(server.port, *pieces, pause_s=0.3, answers=3)

    with a_server(tmp_path) as (server, project), besieged(server, project), ThreadPoolExecutor(len(slow)) as pool:
        answers = dict(zip(slow, pool.map(drag, slow.values()), strict=True))

    assert {name for name, answer in answers.items() if not answer.is_cut} == set()
    assert {name: answer.statuses for name, answer in answers.items()} == {
        "nothing at all": [],
        "headers": [],
        "a request line": [],
        "a body": [408],
        "a body of the runner's": [401],
        "chunks": [408],
        "the second request": [200],
    }


def test_clients_that_never_read_their_answers_hold_no_memory(tmp_path: Path) -> None:
    """The server stops reading from whoever does not read: a hundred of them, two hundred requests each."""
    with a_server(tmp_path) as (server, project), besieged(server, project) as witness:
        request = f"GET /metrics HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.token}\r\n\r\n".encode()
        deaf = []
        try:
            for _ in range(100):
                one = socket.socket()
                deaf.append(one)
                one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
                one.connect(("127.0.0.1", server.port))
                one.setblocking(False)
                with suppress(BlockingIOError):
                    one.send(request * 200)
            asked = len(witness.statuses) + 15
            wait_for("the good client to be served", lambda: len(witness.statuses) > asked)
        finally:
            for one in deaf:
                one.close()

    assert witness.grown_bytes < GROWN_BYTES_MAX


@contextmanager
def many_descriptors() -> Iterator[int]:
    """As many as this process may have; how many connections fit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        yield min(3_000, hard - 500)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_thousands_of_idle_connections_keep_nobody_out(tmp_path: Path) -> None:
    """More than the usual limit of 1,024 descriptors; cut when their time is over, and gone when they hang up."""
    with many_descriptors() as count:
        before = ("prlimit", f"--nofile=1024:{resource.getrlimit(resource.RLIMIT_NOFILE)[1]}")
        with a_server(tmp_path, DELTACI_LIMITS_IDLE_TIMEOUT_S="60") as (server, project):
            server.stop()
            server.before = before
            server.start()
            with besieged(server, project) as witness:
                idle = [socket.create_connection(("127.0.0.1", server.port), 20) for _ in range(count)]
                for one in idle[::3]:
                    one.sendall(post(WEBHOOK, length=1_000)[:40])
                assert server.process is not None
                held = psutil.Process(server.process.popen.pid)
                wait_for("all of them to be accepted", lambda: held.num_fds() >= count)
                for one in idle:
                    one.close()

    assert count > 1_024
    assert witness.grown_bytes < GROWN_BYTES_MAX


# ---- WebSockets --------------------------------------------------------------------------------------------------

REGISTER: Final = frame(2, encode_frame(wire.Request(1, wire.Register(name="bad"))))
POLICY: Final = "1008"  # close codes of RFC 6455
TOO_BIG: Final = "1009"


def deflated(data: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return (packer.compress(data) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]


def test_frames_that_are_no_frames_of_the_protocol_end_the_channel(tmp_path: Path) -> None:
    """A runner's token is no licence to harm: too large, malformed, or no WebSocket at all."""
    deep = frame(2, b"\x91" * DEEP)
    ends: dict[str, tuple[list[bytes], str]] = {
        "nothing": ([], POLICY),
        "no registration": ([frame(2, encode_frame(wire.Request(1, wire.Lease(runner_id="x"))))], POLICY),
        "malformed": ([REGISTER, frame(2, b"\xc1\xc1")], POLICY),
        "malformed at once": ([frame(2, b"\xc1\xc1")], POLICY),
        "depth": ([REGISTER, deep], POLICY),
        "text": ([REGISTER, frame(1, b"hello")], POLICY),
        "an empty frame": ([REGISTER, frame(2, b"")], POLICY),
        "a large frame": ([REGISTER, *[frame(2, b"a" * 5 * MIB)] * 20], TOO_BIG),
        "large in pieces": (
            [REGISTER, frame(2, b"a" * MIB, fin=False), *[frame(0, b"a" * MIB, fin=False)] * 50],
            TOO_BIG,
        ),
        "large, it says": ([REGISTER, frame(2, b"a" * MIB, length=1 << 30), *[b"a" * MIB] * 50], TOO_BIG),
        "larger than anything": ([REGISTER, frame(2, b"a", length=1 << 63)], "cut"),
        "text that is no text": ([REGISTER, frame(1, b"\xff\xfe")], "cut"),
        "no mask": ([frame(2, b"a", masked=False)], "cut"),
        "an unknown opcode": ([frame(3, b"a")], "cut"),
        "a piece of nothing": ([frame(0, b"a")], "cut"),
        "a ping in pieces": ([frame(9, b"a", fin=False)], "cut"),
        "a long ping": ([frame(9, b"a" * 200)], "cut"),
        "half a close code": ([frame(8, b"\x03")], "cut"),
        "a compressed frame that was not agreed on": ([REGISTER, frame(2, deflated(b"\0" * 200 * MIB), rsv=4)], "cut"),
    }
    with a_server(tmp_path) as (server, project), besieged(server, project) as witness:
        token = server.post("/admin/runner-tokens", {"label": "x"})["token"]
        offer = "Sec-WebSocket-Extensions: permessage-deflate"
        seen = {name: speak(server.port, token, frames, offer) for name, (frames, _) in ends.items()}

    assert {name: how for name, how in seen.items() if how not in (ends[name][1], "cut")} == {}
    # A close frame may be lost with the bytes that were not read after it, but not when there were none.
    for name in ("nothing", "no registration", "malformed", "text"):
        assert seen[name] == ends[name][1]
    assert witness.grown_bytes < GROWN_BYTES_MAX


def test_an_artifact_whose_sender_stalls_is_given_up(tmp_path: Path) -> None:
    """A holder may send a gigabyte, and take its time; but not for ever."""
    with a_server(tmp_path) as (server, project):
        project.configure({"a": {"steps": [{"name": "do", "run": "true"}]}})
        token = server.post("/admin/runner-tokens", {"label": "x"})["token"]
        lease = hold_a_lease(server, token)
        headers = (
            *(f"Authorization: Bearer {token}", f"X-Deltaci-Runner: {lease['runner_id']}"),
            *(f"X-Deltaci-Lease: {lease['lease_id']}", f"X-Deltaci-Sha256: {'0' * 64}"),
        )
        path = f"/api/v1/runner/artifacts/{lease['job_id']}/1/a.tar.gz"
        answer = talk(server.port, post(path, b"a" * MIB, *headers, length=10 * MIB).replace(b"POST", b"PUT", 1))
        left = [name for _, _, names in os.walk(server.data / "artifacts") for name in names]
        server.assert_sound()

    assert answer.statuses == [408]
    assert left == []


def hold_a_lease(server: Server, token: str) -> dict[str, str]:
    """Register, wait for a job and acknowledge it, over HTTP."""
    headers = {"Authorization": f"Bearer {token}"}

    def call(verb: str, **message: object) -> dict[str, object]:
        url = f"{server.url}/api/v1/runner/{verb}"
        answer = httpx.post(url, content=json.dumps(message), headers=headers, timeout=30)
        assert answer.status_code == 200, answer.text
        answered: dict[str, object] = answer.json()
        return answered

    headers["Content-Type"] = headers["Accept"] = "application/json"
    runner_id = str(call("register", type="Register", name="hand")["runner_id"])
    headers["X-Deltaci-Runner"] = runner_id
    leases = wait_for("a lease", lambda: call("lease", type="Lease", runner_id=runner_id, wait_ms=2_000)["leases"])
    fence = {"lease_id": leases[0]["lease_id"], "job_id": leases[0]["job_id"], "attempt": 1}
    call("ack", type="AckLease", **fence)
    return {"runner_id": runner_id, "lease_id": leases[0]["lease_id"], "job_id": leases[0]["job_id"]}
