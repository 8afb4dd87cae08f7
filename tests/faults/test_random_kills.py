"""A busy little system whose processes are killed at random moments: at the end everything is as if none had been.

`make soak` does it for SOAK_S seconds (60). The seed is printed; SEED=n draws the same actions and kills again, though
not at the same instants: those are the machine's.
"""

import itertools
import os
import random
import secrets
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec
import pytest

from tests.faults.ticks import OVERLAP_MAX_S
from tests.scenarios.support import FINAL, Project, RunnerProcess, Server, git, step, wait_for

pytestmark = pytest.mark.slow

SHORT_S: Final = 6.0
RUNNERS: Final = 3
LINES: Final = 40
SETTINGS: Final = {
    # Long enough for a server that starts on a busy machine: what is lost is lost with its runner.
    "DELTACI_POLICY_LEASE_TTL_MS": "5000",
    "DELTACI_POLICY_RECONCILE_EVERY_MS": "1000",
}

# Each step leaves a mark when it begins and when it ends, and prints what can be told beforehand.
SCRIPT: Final = """\
mark() {{ read -r up _ < /proc/uptime; echo "$DELTACI_JOB_ID $DELTACI_ATTEMPT {number} $1 $up" >> {marks}; }}
mark begin
for line in $(seq {lines}); do
    echo "$DELTACI_JOB_ID $DELTACI_ATTEMPT {number} $line"
    if [ $((line % 10)) = 0 ]; then sleep 0.0{pause}; fi
done
mark end
exit {code}
"""


class Mark(msgspec.Struct, frozen=True):
    """A step of an attempt began or ended, that many seconds after the machine's boot."""

    job_id: str
    attempt: int
    step: int
    what: str
    at_s: float


INSIST_S = 45


class Patient:
    """A client that asks until there is a definite answer, and remembers what it was told for which request."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._token = server.token
        self._client = httpx.Client(timeout=30)
        self.told: dict[str, set[bytes]] = {}
        self.asked = 0

    def close(self) -> None:
        self._client.close()

    def ask(self, path: str, *, key: str = "", **request: Any) -> httpx.Response:
        """POST until the answer is definite, also beyond the end of the storm. A 2xx is remembered under `key`."""
        headers = {"Authorization": f"Bearer {self._token}", **request.pop("headers", {})}
        give_up_at = time.monotonic() + INSIST_S
        while time.monotonic() < give_up_at:
            self.asked += 1
            try:
                answer = self._client.post(f"{self._server.url}/api/v1{path}", headers=headers, **request)
            except httpx.HTTPError:
                time.sleep(0.05)
                continue
            if answer.status_code == 503:
                time.sleep(0.1)
                continue
            assert answer.status_code in (200, 201, 202, 409), answer.text
            if answer.is_success and key:
                self.told.setdefault(key, set()).add(answer.content)
            return answer
        raise AssertionError(f"{path} was not answered within {INSIST_S} s")


class User:
    """Pushes, repeats deliveries, starts, cancels and reruns: a repository and its people, in a thread."""

    def __init__(self, server: Server, name: str, rng: random.Random, marks: Path, is_over: threading.Event) -> None:
        self._project = Project(server, name)
        (self._project.bare / "hooks" / "post-receive").unlink()
        self._rng = rng
        self._marks = marks
        self._is_over = is_over
        self._keys = itertools.count(1)
        self._last_sha = ""
        self._repeatable: list[tuple[str, str, dict[str, Any]]] = []
        self.client = Patient(server)
        self.runs: list[str] = []
        self.actions: Counter[str] = Counter()

    def act(self) -> None:
        """One thing that people do."""
        actions: dict[Callable[[], None], int] = {
            self.push: 6,
            self.repeat: 6,
            self.start: 2,
            self.cancel: 2,
            self.rerun: 2,
        }
        (action,) = self._rng.choices(list(actions), list(actions.values()))
        action()
        self._is_over.wait(self._rng.uniform(0, 0.4))
        self.actions[action.__name__] += 1

    def push(self) -> None:
        """A new commit on one of a few branches, where it may supersede an older one."""
        branch = f"b{self._rng.randrange(6)}"
        sha = self._project.commit({"deltaci.yaml": self._configuration(), "nonce": str(self._rng.random())})
        git("push", "--quiet", "--force", "origin", f"HEAD:refs/heads/{branch}", cwd=self._project.work)
        delivery = f"{self._project.name}-{next(self._keys)}"
        data, headers = self._project.webhook(sha, delivery, ref=f"refs/heads/{branch}")
        self._last_sha = sha
        self._insist("/webhooks/git", delivery, content=data, headers=headers)

    def start(self) -> None:
        """A run of what is there, by hand."""
        if self._last_sha:
            body = {"repo": self._project.name, "commit_sha": self._last_sha, "ref": "refs/heads/main"}
            self._with_key("/runs", body)

    def cancel(self) -> None:
        """One of the newer runs, whatever it does."""
        if self.runs:
            self._with_key(f"/runs/{self._rng.choice(self.runs[-5:])}/cancel", {})

    def rerun(self) -> None:
        """One of all runs; refused while it goes on."""
        if self.runs:
            which = self._rng.choice(("all", "failed"))
            self._with_key(f"/runs/{self._rng.choice(self.runs)}/rerun", {"jobs": which})

    def repeat(self) -> None:
        """Something that was asked before, with the same delivery id or key."""
        if self._repeatable:
            path, key, request = self._rng.choice(self._repeatable)
            self.client.ask(path, key=key, **request)

    def _with_key(self, path: str, body: dict[str, Any]) -> None:
        key = f"{self._project.name}-key-{next(self._keys)}"
        self._insist(path, key, json=body, headers={"Idempotency-Key": key})

    def _insist(self, path: str, key: str, **request: Any) -> None:
        answer = self.client.ask(path, key=key, **request)
        if answer.is_success:
            self._repeatable.append((path, key, request))
            run_id = answer.json()["run_id"]
            if run_id not in self.runs:
                self.runs.append(run_id)

    def _configuration(self) -> str:
        def job(*needs: str, code: int = 0) -> dict[str, Any]:
            codes = (0, code)
            steps = [
                step(
                    SCRIPT.format(number=n, marks=self._marks, lines=LINES, pause=self._rng.randrange(1, 8), code=each),
                    f"step {n}",
                )
                for n, each in enumerate(codes)
            ]
            return {"needs": list(needs), "steps": steps}

        code = self._rng.choice((0, 0, 3))
        jobs = {"first": job(), "left": job("first"), "right": job("first", code=code), "last": job("left")}
        return msgspec.json.encode({"version": 1, "jobs": jobs}).decode()


class Storm:
    """Everything, and the thread that kills."""

    def __init__(self, home: Path, seed: int, stack: ExitStack) -> None:
        self.marks = home / "marks"
        self.is_over = threading.Event()
        self.kills: Counter[str] = Counter()
        self._rng = random.Random(seed)
        self._errors: list[BaseException] = []
        self.server = stack.enter_context(Server(home, **SETTINGS))
        self.runners = [
            stack.enter_context(RunnerProcess(self.server, f"r{number}", slots=2)) for number in range(RUNNERS)
        ]
        self.users = [
            User(self.server, name, random.Random(f"{seed} {name}"), self.marks, self.is_over)
            for name in ("shop", "library")
        ]
        for user in self.users:
            stack.callback(user.client.close)

    def rage(self, for_s: float) -> None:
        """Until the time is over; everything lives again afterwards."""
        threads = [threading.Thread(target=self._endlessly, args=(user.act,)) for user in self.users]
        threads.append(threading.Thread(target=self._endlessly, args=(self._kill,)))
        for thread in threads:
            thread.start()
        self.is_over.wait(for_s)
        self.is_over.set()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
        if self._errors:
            raise self._errors[0]

    def _endlessly(self, act: Callable[[], None]) -> None:
        try:
            while not self.is_over.is_set():
                act()
        except BaseException as error:  # noqa: BLE001 - it is raised in the test's thread
            self._errors.append(error)
            self.is_over.set()

    def _kill(self) -> None:
        """One process after a while, which is started again after a shorter one."""
        self.is_over.wait(self._rng.uniform(0.1, 1.5))
        victim = self._rng.choice((self.server, self.server, *self.runners))
        victim.kill()
        self.kills["server" if victim is self.server else "runner"] += 1
        self.is_over.wait(self._rng.uniform(0.0, 0.5))
        victim.start()

    # ---- afterwards ----------------------------------------------------------------------------------------------

    def settle(self) -> list[Any]:
        """The views of all runs, once every one of them has ended."""

        def are_over() -> bool:
            return all(run["state"] in FINAL for run in self.server.runs())

        wait_for("the end of all runs", are_over, within_s=100, pause_s=0.3)
        return [self.server.view(run["id"]) for run in self.server.runs()]

    def read_marks(self) -> list[Mark]:
        """What the steps left, in order."""
        lines = [line.split() for line in self.marks.read_text().splitlines()]
        return [Mark(job, int(attempt), int(number), what, float(at)) for job, attempt, number, what, at in lines]


def printed_by(job_id: str, attempt: int) -> list[str]:
    """Every line that an attempt prints when it comes to its end."""
    return [f"{job_id} {attempt} {number} {line}" for number in range(2) for line in range(1, LINES + 1)]


def assert_each_step_ran_once(marks: list[Mark]) -> None:
    """And no attempt while another one of its job ran, but for the bound."""
    seen = Counter((mark.job_id, mark.attempt, mark.step, mark.what) for mark in marks)
    assert {what: count for what, count in seen.items() if count > 1} == {}
    times: dict[str, dict[int, list[float]]] = {}
    for mark in marks:
        times.setdefault(mark.job_id, {}).setdefault(mark.attempt, []).append(mark.at_s)
    for job_id, attempts in times.items():
        for earlier, later in itertools.pairwise(sorted(attempts)):
            overlap_s = max(attempts[earlier]) - min(attempts[later])
            assert overlap_s <= OVERLAP_MAX_S, f"{job_id}: attempts {earlier} and {later} overlap by {overlap_s} s"


def assert_no_byte_is_lost(server: Server, views: list[Any], marks: list[Mark]) -> int:
    """The log of an attempt whose result counted is what it printed; that of any other one is the beginning of it."""
    ended = {(mark.job_id, mark.attempt, mark.step) for mark in marks if mark.what == "end"}
    whole = 0
    for job in [job for view in views for job in view["jobs"]]:
        for attempt in job["attempts"]:
            number = attempt["number"]
            log = server.text_of(job["id"], number).splitlines()
            lines = [line for line in log if not line.startswith("==>")]
            expected = printed_by(job["id"], number)
            if attempt["exit_code"] is not None:
                assert lines == expected, (job["id"], number, attempt["state"])
                assert (job["id"], number, 1) in ended
                whole += 1
            else:
                assert lines == expected[: len(lines)], (job["id"], number, attempt["state"])
    return whole


@pytest.mark.parametrize(
    "for_s",
    [
        pytest.param(SHORT_S, id="short"),
        pytest.param(
            float(os.environ.get("SOAK_S", "60")),
            id="long",
            marks=[pytest.mark.long, pytest.mark.timeout(int(os.environ.get("SOAK_S", "60")) + 540)],
        ),
    ],
)
def test_random_kills_lose_nothing_and_do_nothing_twice(tmp_path: Path, for_s: float) -> None:
    """Server and runners die at any moment; who asked again got the same answer, and everything came to its end."""
    seed = int(os.environ.get("SEED") or secrets.randbelow(1_000_000))
    sys.stdout.write(f"SEED={seed}\n")
    with ExitStack() as stack:
        storm = Storm(tmp_path, seed, stack)
        storm.rage(for_s)
        views = storm.settle()
        marks = storm.read_marks()
        whole = assert_no_byte_is_lost(storm.server, views, marks)
        storm.server.assert_sound()
        told = storm.server.log.read_text(errors="replace")

    known = {view["run"]["id"] for view in views}
    answers = {key: said for user in storm.users for key, said in user.client.told.items()}
    states = Counter(attempt["state"] for view in views for job in view["jobs"] for attempt in job["attempts"])
    actions = sum((user.actions for user in storm.users), Counter[str]())
    sys.stdout.write(
        f"kills {dict(storm.kills)}, actions {dict(actions)}, {len(known)} runs, attempts {dict(states)}\n"
    )
    assert storm.kills.total() > 0
    assert whole > 0
    assert {key: said for key, said in answers.items() if len(said) > 1} == {}
    assert {run for said in answers.values() for each in said for run in [msgspec.json.decode(each)["run_id"]]} == known
    assert_each_step_ran_once(marks)
    assert "Traceback" not in told, told[-5_000:]
    assert all(view["run"]["state"] in FINAL for view in views)
