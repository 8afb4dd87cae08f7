"""A table of bad input: each gets a 4xx with a text that helps, none a 500, and nothing is changed by it."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from deltaci.forge.webhook import signature
from protocol import messages as wire
from protocol.codec import JSON_TYPE, MSGPACK_TYPE
from tests.gateway.support import RUNNER, SECRET, Gateway, a_push, error_of, fence, fingerprint, hook, opened
from tests.orchestrator.support import SHA

pytestmark = pytest.mark.anyio

DEEP = 100_000
KIB = 1024
MIB = 1024 * KIB


async def refused(gateway: Gateway, status: int, method: str, path: str, says: str = "", **options: Any) -> None:
    """The request is answered `status` with a structured error that says `says`; the store is as before."""
    before = await fingerprint(gateway.store)

    response = await gateway.ask(method, path, **options)

    error = await error_of(response)
    assert response.status_code == status, error
    assert says in error["message"], error
    assert before == await fingerprint(gateway.store)


# ---- webhooks ----------------------------------------------------------------------------------------------------

WEBHOOK = "/api/v1/webhooks/git"
UNSIGNED = {name: value for name, value in hook(a_push()).items() if name != "x-deltaci-signature"}


@pytest.mark.parametrize(
    ("status", "says", "headers"),
    [
        (401, "x-deltaci-signature is missing", UNSIGNED),
        (401, "sha256=<64 hexadecimal digits>", {**UNSIGNED, "x-deltaci-signature": ""}),
        (401, "sha256=<64 hexadecimal digits>", {**UNSIGNED, "x-deltaci-signature": "sha1=" + "0" * 40}),
        (401, "sha256=<64 hexadecimal digits>", {**UNSIGNED, "x-deltaci-signature": "sha256=" + "0" * 63}),
        (401, "sha256=<64 hexadecimal digits>", {**UNSIGNED, "x-deltaci-signature": "sha256=" + "\u00fc" * 64}),
        (401, "not made with the secret", {**UNSIGNED, "x-deltaci-signature": "sha256=" + "0" * 64}),
        (401, "x-deltaci-signature is missing", {**UNSIGNED, "x-hub-signature-256": signature(SECRET, a_push())}),
        (401, "not made with the secret", hook(a_push(), x_deltaci_signature=signature("x" * 20, a_push()))),
        (401, "not made with the secret", hook(a_push(), x_deltaci_signature=signature("", a_push()))),
        (401, "not made with the secret", hook(a_push(title="other"))),
        (401, "not made with the secret", hook(a_push(), x_deltaci_repo="nobody's")),
        (401, "not made with the secret", hook(a_push(), x_deltaci_repo="")),
        (401, "not made with the secret", hook(a_push(), x_deltaci_repo="\u00ff" * 3000)),
        (400, "x-deltaci-delivery is missing", hook(a_push(), x_deltaci_delivery="")),
        (400, "x-deltaci-delivery is missing", hook(a_push(), x_deltaci_delivery="a b")),
        (400, "x-deltaci-delivery is missing", hook(a_push(), x_deltaci_delivery="x" * 101)),
        (400, "x-deltaci-event is missing", hook(a_push(), x_deltaci_event="")),
    ],
)
async def test_a_webhook_with_bad_headers_is_refused(
    tmp_path: Path, status: int, says: str, headers: dict[str, str]
) -> None:
    """Forgery and sloppiness, header by header."""
    async with opened(tmp_path) as gateway:
        await refused(gateway, status, "POST", WEBHOOK, says, token=None, data=a_push(), headers=headers)


@pytest.mark.parametrize(
    ("status", "says", "body"),
    [
        (400, "the body is not", b""),
        (400, "the body is not", b"{"),
        (400, "the body is not", b"null"),
        (400, "the body is not", b"[]"),
        (400, "the body is not", b"{}"),
        (400, "not UTF-8", b'{"repository": "\xff"}'),
        (400, "not UTF-8", a_push().replace(b'"t"', b'"\xed\xa0\x80"')),
        (400, "the body is not", a_push().replace(b'"t"', b'"\\ud800"')),
        (400, "the body is not", b"[" * DEEP),
        (400, "the body is not", b'{"title": ' + b"[" * DEEP),
        (400, "nested too deeply", b'{"x": ' + b'{"x": ' * DEEP),
        (400, "the body is not", a_push(title=1)),
        (400, "the body is not", a_push(ref=None)),
        (400, "the body is not", a_push(after=10**400)),
        (400, "after is not a full", a_push(after="HEAD")),
        (400, "after is not a full", a_push(after=SHA + "\n")),
        (400, "after is not a full", a_push(after="A" * 40)),
        (400, "before is not a full", a_push(before="--upload-pack=x")),
        (400, "ref is not", a_push(ref="refs/heads/a\u0000b")),
        (400, "ref is not", a_push(ref="refs/heads/a\nb")),
        (400, "ref is not", a_push(ref="--upload-pack=x")),
        (400, "ref is not", a_push(ref="refs/heads/" + "x" * 2000)),
        (400, "not about the repository", a_push(repository="other")),
    ],
)
async def test_a_webhook_with_a_bad_body_is_refused(tmp_path: Path, status: int, says: str, body: bytes) -> None:
    """Signed does not mean well-formed."""
    async with opened(tmp_path) as gateway:
        await refused(gateway, status, "POST", WEBHOOK, says, token=None, data=body, headers=hook(body))


async def test_an_unknown_forge_is_404_and_says_which_there_are(tmp_path: Path) -> None:
    """An address that was typed wrong on the other side."""
    async with opened(tmp_path) as gateway:
        for forge in ("gitlab", "GIT", "%00", "x" * 5000):
            says = "this server knows git, github"
            await refused(gateway, 404, "POST", f"/api/v1/webhooks/{forge}", says, token=None, data=a_push())


async def test_a_webhook_as_large_as_the_limit_is_read_and_one_byte_more_is_not(tmp_path: Path) -> None:
    """25 MiB is what GitHub sends at most; the limit is answered before the signature is computed."""
    full = a_push(filler="")
    full = full.replace(b'"filler": ""', b'"filler": "' + b"x" * (25 * MIB - len(full)) + b'"')
    async with opened(tmp_path) as gateway:
        over = full + b" "
        await refused(gateway, 413, "POST", WEBHOOK, token=None, data=over, headers=hook(over))
        taken = await gateway.deliver(full)

    assert len(full) == 25 * MIB
    assert taken.status_code == 202


# ---- the API -----------------------------------------------------------------------------------------------------

RUNS = "/api/v1/runs"
REPOS = "/api/v1/repos"
A_RUN = {"repo": "shop", "commit_sha": SHA}
A_REPO = {"name": "lib", "forge": "git", "clone_url": "file:///srv/lib.git", "secret": "t" * 16}

BODIES: list[tuple[int, str, str, Any]] = [
    (400, RUNS, "does not accept this body", b"{"),
    (400, RUNS, "does not accept this body", b""),
    (400, RUNS, "does not accept this body", b"\xff\xfe"),
    (400, RUNS, "does not accept this body", b"[" * DEEP),
    (400, RUNS, "does not accept this body", b'{"repo": ' * DEEP),
    (400, RUNS, "does not accept this body", []),
    (400, RUNS, "commit_sha", {"repo": "shop"}),
    (400, RUNS, "unknown field `branch`", {**A_RUN, "branch": "main"}),
    (400, RUNS, "Expected `str`", {**A_RUN, "repo": 7}),
    (400, RUNS, "$.commit_sha", {**A_RUN, "commit_sha": "HEAD"}),
    (400, RUNS, "$.commit_sha", {**A_RUN, "commit_sha": SHA[:39]}),
    (400, RUNS, "$.commit_sha", {**A_RUN, "commit_sha": SHA + "\n"}),
    (400, RUNS, "$.base_sha", {**A_RUN, "base_sha": "main"}),
    (400, RUNS, "ref is not", {**A_RUN, "ref": ""}),
    (400, RUNS, "ref is not", {**A_RUN, "ref": "--upload-pack=x"}),
    (400, RUNS, "ref is not", {**A_RUN, "ref": "refs/heads/\u0000"}),
    (400, RUNS, "does not accept this body", b'{"repo": "\\ud800", "commit_sha": "' + SHA.encode() + b'"}'),
    (404, RUNS, "deltaci repo add", {**A_RUN, "repo": "nobody's"}),
    (404, RUNS, "deltaci repo add", {**A_RUN, "repo": "\u0000"}),
    (400, REPOS, "missing required field", {}),
    (400, REPOS, "$.name", {**A_REPO, "name": ""}),
    (400, REPOS, "$.name", {**A_REPO, "name": "-x"}),
    (400, REPOS, "$.name", {**A_REPO, "name": "lib\n"}),
    (400, REPOS, "$.name", {**A_REPO, "name": "x" * 201}),
    (400, REPOS, "$.forge", {**A_REPO, "forge": "svn"}),
    (400, REPOS, "$.clone_url", {**A_REPO, "clone_url": ""}),
    (400, REPOS, "$.clone_url", {**A_REPO, "clone_url": "file:///a\u0000b"}),
    (400, REPOS, "$.secret", {**A_REPO, "secret": "short"}),
    (400, REPOS, "$.report_to", {**A_REPO, "report_to": "/a\u0000b"}),
    (400, REPOS, "$.api_token", {**A_REPO, "api_token": "a\r\nX-Admin: 1"}),
    (400, REPOS, "$.running_max", {**A_REPO, "running_max": -1}),
    (400, REPOS, "$.running_max", {**A_REPO, "running_max": 10**30}),
    (400, REPOS, "$.run_timeout_ms", {**A_REPO, "run_timeout_ms": 0}),
    (400, REPOS, "$.run_timeout_ms", {**A_REPO, "run_timeout_ms": 10**18}),
    (400, REPOS, "unknown field", {**A_REPO, "admin": True}),
    (400, "/api/v1/admin/runner-tokens", "label", {"label": 1}),
    (400, "/api/v1/admin/runner-tokens", "label", b"[" * DEEP),
    (400, "/api/v1/admin/runner-tokens", "unknown field", {"scope": "admin"}),
    (400, "/api/v1/admin/actors/release", "path", {}),
    (400, "/api/v1/admin/actors/release", "path", b"[" * DEEP),
    (400, "/api/v1/admin/actors/release", "path", {"path": 1}),
    (404, "/api/v1/admin/actors/release", "nothing is quarantined", {"path": ""}),
    (404, "/api/v1/admin/actors/release", "nothing is quarantined", {"path": "/" * 10_000}),
    (413, RUNS, "", b" " * (MIB + 1)),
    (413, REPOS, "", b"{" + b" " * MIB + b"}"),
    (404, f"{RUNS}/run_none/cancel", "no run", {}),
    (404, f"{RUNS}/run_none/approve", "no run", {}),
    (404, f"{RUNS}/run_none/rerun", "no run", {}),
    (404, f"{RUNS}/..%2Frepos/rerun", "", {}),
    (404, f"{RUNS}/%00/cancel", "no run", {}),
    (404, f"{RUNS}/{'x' * 10_000}/cancel", "no run", {}),
    (405, "/api/v1/jobs/job_1_0/log", "method", {}),
]


@pytest.mark.parametrize(("status", "path", "says", "body"), BODIES)
async def test_a_bad_body_is_refused(tmp_path: Path, status: int, path: str, says: str, body: Any) -> None:
    """Wrong shapes, wrong types, unknown fields, bombs."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with opened(tmp_path) as gateway:
        await refused(gateway, status, "POST", path, says, data=data)


@pytest.mark.parametrize(
    ("status", "path", "says"),
    [
        (400, f"{RUNS}?limit=0", "limit='0': give a whole number from 1 to 500"),
        (400, f"{RUNS}?limit=501", "from 1 to 500"),
        (400, f"{RUNS}?limit=-1", "limit"),
        (400, f"{RUNS}?limit=ten", "limit"),
        (400, f"{RUNS}?limit=1e3", "limit"),
        (400, f"{RUNS}?limit=", "limit"),
        (400, f"{RUNS}?limit={'9' * 10_000}", "limit"),
        (400, f"{RUNS}?state=OPEN", "state is one of"),
        (404, f"{RUNS}?repo=nobody", "no repository"),
        (404, f"{RUNS}?repo=%00", "no repository"),
        (404, f"{RUNS}/run_none", "no run"),
        (404, f"{RUNS}/{{job}}", "no run"),
        (404, f"{RUNS}/{{run}}%0A", "no run"),
        (404, f"{RUNS}/..%2F..%2Fmetrics", ""),
        (404, f"{RUNS}/%FF%FE", "no run"),
        (404, f"{RUNS}/run_none/events", "no run"),
        (400, f"{RUNS}/{{run}}/events?after=-1", "after"),
        (400, f"{RUNS}/{{run}}/events?after=9223372036854775808", "after"),
        (400, f"{RUNS}/{{run}}/events?limit=1000", "limit"),
        (404, "/api/v1/jobs/{run}/log", "no job"),
        (404, "/api/v1/jobs/job_none_0/log", "no job"),
        (404, "/api/v1/jobs/{job}1/log", "no job"),
        (404, "/api/v1/jobs/job__0/log", "no job"),
        (404, "/api/v1/jobs/%2E%2E%2Fx/log", ""),
        (404, "/api/v1/jobs/job_%00_0/log", "no job"),
        (400, "/api/v1/jobs/{job}/log?offset=-1", "offset"),
        (400, "/api/v1/jobs/{job}/log?offset=1.5", "offset"),
        (400, "/api/v1/jobs/{job}/log?offset=99999999999999999999", "offset"),
        (400, "/api/v1/jobs/{job}/log?attempt=0", "attempt"),
        (404, "/api/v1/jobs/{job}/log?attempt=2", "has 1 attempts, not 2"),
        (404, "/api/v1/nothing", "not found"),
        (404, "/", "not found"),
        (404, "/etc/passwd", "not found"),
    ],
)
async def test_a_bad_address_or_query_is_refused(tmp_path: Path, status: int, path: str, says: str) -> None:
    """Unknown ids, path tricks, numbers that are none."""
    async with opened(tmp_path) as gateway:
        run_id = (await (await gateway.deliver()).get_json())["run_id"]
        await gateway.stage.run_until(run_id, "QUEUED")
        (job,) = await gateway.store.jobs_of_run(run_id)
        await refused(gateway, status, "GET", path.replace("{run}", run_id).replace("{job}", job.id), says)


async def test_a_repeat_with_a_bad_key_is_refused(tmp_path: Path) -> None:
    """Keys are kept for ever, so they are short and readable."""
    async with opened(tmp_path) as gateway:
        for key in ("x" * 201, "a\tb", "\u0080"):
            says = "Idempotency-Key is printable"
            await refused(gateway, 400, "POST", RUNS, says, body=A_RUN, headers={"Idempotency-Key": key})


async def test_a_wrong_method_is_told_the_right_ones(tmp_path: Path) -> None:
    """405 comes with `Allow`, as RFC 9110 asks."""
    async with opened(tmp_path) as gateway:
        response = await gateway.ask("DELETE", RUNS)

    assert response.status_code == 405
    assert {"GET", "POST"} <= set(response.headers["Allow"].split(", "))
    assert (await error_of(response))["code"] == "method_not_allowed"


# ---- runners -----------------------------------------------------------------------------------------------------


def packed(**fields: Any) -> bytes:
    return msgspec.msgpack.encode(fields)


CALLS: list[tuple[int, str, str, str, bytes]] = [
    (404, "nothing", JSON_TYPE, "register, lease, ack", b"{}"),
    (404, "%00", JSON_TYPE, "register, lease, ack", b"{}"),
    (415, "register", "text/plain", "application/msgpack", b"{}"),
    (415, "register", "application/x-www-form-urlencoded", "application/json", b"a=b"),
    (400, "register", JSON_TYPE, "not a message", b""),
    (400, "register", JSON_TYPE, "not a message", b"{"),
    (400, "register", JSON_TYPE, "not a message", b"[" * DEEP),
    (400, "register", JSON_TYPE, "not a message", b'{"type": "Register", "name": ' + b"[" * DEEP),
    (400, "register", MSGPACK_TYPE, "not a message", b"\x91" * DEEP),
    (400, "register", MSGPACK_TYPE, "not a message", b"\x81\xa1x" * DEEP),
    (400, "register", MSGPACK_TYPE, "not a message", b"\xdf\xff\xff\xff\xff"),
    (400, "register", MSGPACK_TYPE, "not a message", b"\xc1"),
    (400, "register", MSGPACK_TYPE, "not a message", packed(type="Register", name="x") + b"\x00"),
    (400, "register", MSGPACK_TYPE, "not a message", packed(type="Register", name=b"\xff")),
    (400, "register", JSON_TYPE, "not a message", b'{"type": "Register", "name": "\xff"}'),
    (400, "register", JSON_TYPE, "not a message", b'{"type": "Register", "name": 7}'),
    (400, "register", JSON_TYPE, "not a message", b'{"type": "Registered", "runner_id": "x"}'),
    (400, "register", JSON_TYPE, "not a message", b'{"name": "x"}'),
    (400, "register", JSON_TYPE, "takes a message of type Register", b'{"type": "Lease", "runner_id": "x"}'),
    (400, "register", JSON_TYPE, "printable", b'{"type": "Register", "name": ""}'),
    (400, "register", JSON_TYPE, "printable", b'{"type": "Register", "name": "a\\u0000"}'),
    (400, "register", JSON_TYPE, "printable", b'{"type": "Register", "name": "' + b"x" * 201 + b'"}'),
    (400, "register", JSON_TYPE, "slots", b'{"type": "Register", "name": "x", "slots": 0}'),
    (400, "register", JSON_TYPE, "slots", b'{"type": "Register", "name": "x", "slots": 1001}'),
    (400, "register", JSON_TYPE, "", b'{"type": "Register", "name": "x", "slots": 1' + b"0" * 400 + b"}"),
    (400, "register", MSGPACK_TYPE, "labels", packed(type="Register", name="x", labels=["l"] * 65)),
    (400, "register", JSON_TYPE, "version 1", b'{"type": "Register", "name": "x", "protocol_version": 2}'),
    (413, "register", JSON_TYPE, "", b" " * (MIB + 1)),
    (404, "lease", JSON_TYPE, "register first", b'{"type": "Lease", "runner_id": "nobody"}'),
    (404, "lease", JSON_TYPE, "register first", b'{"type": "Lease", "runner_id": "\\u0000"}'),
    (404, "lease", JSON_TYPE, "register first", json.dumps({"type": "Lease", "runner_id": "x" * 100_000}).encode()),
    (400, "lease", JSON_TYPE, "ask for 1 to 1000", b'{"type": "Lease", "runner_id": "{runner}", "slots": 0}'),
    (400, "lease", JSON_TYPE, "ask for 1 to 1000", b'{"type": "Lease", "runner_id": "{runner}", "slots": 1001}'),
]


@pytest.mark.parametrize(("status", "verb", "content_type", "says", "data"), CALLS)
async def test_a_bad_call_of_a_runner_is_refused(
    tmp_path: Path, status: int, verb: str, content_type: str, says: str, data: bytes
) -> None:
    """Whatever a runner sends is an observation, and some are none."""
    async with opened(tmp_path) as gateway:
        runner_id = await gateway.register()
        headers = {"Content-Type": content_type, "X-Deltaci-Runner": runner_id}
        data = data.replace(b"{runner}", runner_id.encode())
        path = f"/api/v1/runner/{verb}"
        await refused(gateway, status, "POST", path, says, token=RUNNER, data=data, headers=headers)


@pytest.mark.parametrize(
    ("status", "says", "fields"),
    [
        (404, "no job", {"job_id": "run_1"}),
        (404, "no job", {"job_id": ""}),
        (404, "no job", {"job_id": "../../x_0"}),
        (404, "no job", {"job_id": "job_a/../b_0"}),
        (404, "no job", {"job_id": "job_" + "x" * 10_000 + "_0"}),
        (400, "a chunk starts at 0", {"offset": -1}),
        (400, "a chunk starts at 0", {"data": b"x" * (256 * KIB + 1)}),
        (400, "not a message", {"offset": "0"}),
        (400, "not a message", {"data": 1}),
        (400, "not a message", {"attempt": 1.5}),
    ],
)
async def test_a_bad_chunk_of_a_log_is_refused(tmp_path: Path, status: int, says: str, fields: dict[str, Any]) -> None:
    """Offsets, sizes and ids at their limits and past them."""
    async with opened(tmp_path) as gateway:
        await gateway.deliver()
        runner_id = await gateway.register()
        lease = await gateway.lease(runner_id)
        body = packed(**{"type": "AppendLog", "offset": 0, "data": b"x", **fence(lease), **fields})
        headers = {"Content-Type": MSGPACK_TYPE, "X-Deltaci-Runner": runner_id}
        before = await fingerprint(gateway.store)
        response = await gateway.ask("POST", "/api/v1/runner/log", token=RUNNER, data=body, headers=headers)
        after = await fingerprint(gateway.store)

    assert response.status_code == status
    assert says in (await error_of(response))["message"]
    assert before == after


async def test_a_log_beyond_its_limit_is_refused(tmp_path: Path) -> None:
    """The runner cuts at the limit and says so in the log; one that does not is stopped a chunk later."""
    async with opened(tmp_path, log_bytes_max=10, log_chunk_bytes_max=10) as gateway:
        await gateway.deliver()
        runner_id = await gateway.register()
        lease = await gateway.lease(runner_id)
        statuses = []
        for offset in (0, 10, 20):
            message = wire.AppendLog(**fence(lease), offset=offset, data=b"x" * 10)
            statuses.append((await gateway.say(message, runner_id=runner_id)).status_code)
        state = await gateway.store.log_state(lease.job_id, 1)

    assert statuses == [200, 200, 413]
    assert state.size == 20


async def test_a_runner_that_is_not_named_is_told_to_register(tmp_path: Path) -> None:
    """Calls other than `lease` name the runner in a header."""
    async with opened(tmp_path) as gateway:
        body = packed(type="Heartbeat", lease_id="x", job_id="job_1_0", attempt=1)
        headers = {"Content-Type": MSGPACK_TYPE}
        says = "register first"
        await refused(gateway, 404, "POST", "/api/v1/runner/heartbeat", says, token=RUNNER, data=body, headers=headers)


@pytest.mark.parametrize("attempt", ["0", "-1", "x", "1.0", "9" * 5_000, "%31"])
async def test_an_artifact_of_no_attempt_is_refused(tmp_path: Path, attempt: str) -> None:
    """Numbers in addresses are numbers of attempts, or the address is none."""
    async with opened(tmp_path) as gateway:
        runner_id = await gateway.register()
        headers = {"X-Deltaci-Runner": runner_id, "X-Deltaci-Sha256": "0" * 64}
        response = await gateway.ask(
            "PUT", f"/api/v1/runner/artifacts/job_1_0/{attempt}/a", token=RUNNER, data=b"x", headers=headers
        )

    assert response.status_code in (404, 409)
    await error_of(response)
