"""What is missing is told with what to do, whoever does not answer; what is well is told as well."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from deltaci.domain.effects import ActOnDelivery, Notify, ReportRun
from deltaci.domain.errors import StoreUnavailable
from deltaci.forge.api import Finding
from deltaci.gateway import diagnosis, doctor
from deltaci.gateway.diagnosis import DAY_MS, HOUR_MS, RefusedWebhook
from deltaci.store.port import Owed, QueuedJob
from deltaci.store.writes import Delivery, Owe, Postpone
from tests.gateway.support import SECRET, Gateway, opened
from tests.orchestrator.support import ME, a_repo

GITHUB = a_repo(id="repo_2", name="acme/app", forge="github")
NOW_MS = 1_700_000_000_000


def bad(findings: Sequence[Finding] | Iterator[Finding]) -> list[str]:
    found = list(findings)
    assert all(bool(one.advice) is not one.is_good for one in found), found
    return [f"{one.what}: {one.detail}" for one in found if not one.is_good]


# ---- what is said of what was seen -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "repos", "is_good", "says"),
    [
        ("", (a_repo(),), True, "none is set"),
        ("", (a_repo(), GITHUB), False, "public_url is not set, and github must reach"),
        ("http://127.0.0.1:8080", (GITHUB,), False, "leads nowhere from another machine"),
        ("https://[::1]", (GITHUB,), False, "leads nowhere"),
        ("https://ci.localhost", (GITHUB,), False, "leads nowhere"),
        ("http://127.0.0.1:8080", (a_repo(),), True, "http://127.0.0.1:8080"),
        ("http://ci.example.org", (GITHUB,), False, "is not https"),
        ("https://ci.example.org", (GITHUB,), True, "https://ci.example.org"),
    ],
)
def test_forges_elsewhere_need_an_address_to_reach(url: str, repos: Any, is_good: bool, says: str) -> None:
    """Plain git on the same machine needs none."""
    finding = diagnosis.of_address(url, repos)

    assert (is_good, True) == (finding.is_good, says in finding.detail)
    assert bool(finding.advice) is not is_good


def test_files_of_secrets_are_closed_to_others(tmp_path: Path) -> None:
    """And still there."""
    closed, open_ = tmp_path / "closed", tmp_path / "open"
    for file, mode in ((closed, 0o600), (open_, 0o644)):
        file.write_text("x")
        file.chmod(mode)
    modes = doctor.secret_modes({"a": str(closed), "b": str(open_), "c": str(tmp_path / "gone")})

    assert bad(diagnosis.of_secret_files(modes)) == [
        "b: its file is open to others (mode 0644)",
        "c: its file cannot be read any more",
    ]


def test_jobs_that_no_runner_can_take_are_told_by_their_labels() -> None:
    """Those that wait for a busy runner are not."""

    def job(number: int, *labels: str) -> QueuedJob:
        at_ms = NOW_MS - number * HOUR_MS
        return QueuedJob(
            job_id=f"job_{number}", repo_id="r", labels=labels, priority=0, queued_at_ms=at_ms, not_before_ms=0
        )

    queued = (job(1), job(2, "linux"), job(3, "gpu", "linux"), job(5, "linux", "gpu"), job(6, "arm"))

    assert bad(diagnosis.of_runners([("linux", "x86")], queued, NOW_MS)) == [
        "labels: 1 job waits, the oldest for 6 hours, and no runner that is online has all of arm",
        "labels: 2 jobs wait, the oldest for 5 hours, and no runner that is online has all of gpu, linux",
    ]
    assert bad(diagnosis.of_runners([], queued, NOW_MS)) == ["runners: none is online"]
    assert bad(diagnosis.of_runners([()], (), NOW_MS)) == []


def test_what_was_refused_or_fails_for_long_is_told_the_newest_first() -> None:
    """A hiccup is not; of many the first few, with how many more there are."""

    def owed(number: int, **fields: Any) -> Owed:
        return Owed(effect=ReportRun(f"run_{number}"), generation=number, due_at_ms=0, **{"tries": 1, **fields})

    debts = [owed(1, is_refused=True, error="gone"), owed(2, tries=4), owed(3, tries=5, error="no answer")]
    debts.append(owed(4, is_refused=True, error="no right"))

    found = bad(diagnosis.of_debts(debts, {"report:run_4": "report:run_4 of shop"}))
    many = bad(diagnosis.of_debts([owed(number, is_refused=True) for number in range(13)], {}))

    assert found == [
        "refused: report:run_4 of shop: no right",
        "refused: report:run_1: gone",
        "failing: report:run_3: tried 5 times, at last: no answer",
    ]
    assert (many[0], many[-1]) == ("refused: report:run_12: ", "outbox: and 3 more")
    assert bad(diagnosis.of_debts([owed(2, tries=4)], {})) == []


def test_refused_webhooks_of_the_last_day_are_told_by_reason() -> None:
    """The commonest first, with who sent the last one."""

    def refused(text: str, ago_ms: int, sender: str = "192.0.2.1") -> RefusedWebhook:
        return RefusedWebhook(forge="github", sender=sender, text=text, at_ms=NOW_MS - ago_ms)

    seen = [refused("too old", DAY_MS + 1), refused("odd", 0), refused("wrong secret", HOUR_MS)]
    seen.append(refused("wrong secret", 2 * HOUR_MS, "192.0.2.2"))

    assert bad(diagnosis.of_refused_webhooks(seen, NOW_MS)) == [
        "refused webhooks: 2 at github in the last 24 hours, the last 1 hour ago from 192.0.2.1: wrong secret",
        "refused webhooks: 1 at github in the last 24 hours, the last 0 s ago from 192.0.2.1: odd",
    ]
    assert bad(diagnosis.of_refused_webhooks(seen[:1], NOW_MS)) == []


def test_a_repository_that_hears_and_tells_nothing_is_found() -> None:
    """Without asking its forge."""
    delivery = Delivery(
        repo_id="r", delivery_id="d", body_sha256="b", received_at_ms=NOW_MS - 3 * DAY_MS, event="push", ignored="x"
    )
    changing = a_repo(forge="gitlab", previous_secret="p" * 20, removed_because="the forge removed it")

    assert bad(diagnosis.of_repo(changing, None, is_reported=False, now_ms=NOW_MS)) == [
        "registration: it is built no more: the forge removed it",
        "webhooks received: none ever came",
        "secret: two are valid",
        "results: go nowhere",
    ]
    (heard, _) = diagnosis.of_repo(GITHUB, delivery, is_reported=True, now_ms=NOW_MS)
    assert (heard.is_good, heard.detail) == (True, "the last one 3 days ago (push)")


# ---- asked over HTTP ---------------------------------------------------------------------------------------------


class FakeApi:
    """Says what it was told; anything that `doctor` does not ask is not there."""

    def __init__(self, *findings: Finding) -> None:
        self.findings = findings

    async def examine(self, repo: Any) -> tuple[Finding, ...]:
        return self.findings


async def asked(gateway: Gateway, query: str = "") -> Any:
    return await gateway.get(f"/api/v1/doctor{query}")


def of(findings: list[Any], what: str) -> list[Any]:
    return [one for one in findings if what in one["what"]]


@pytest.mark.anyio
async def test_the_server_and_each_repository_are_looked_at(tmp_path: Path) -> None:
    """With what their forges say, and no secret."""
    async with opened(tmp_path) as gateway:
        await gateway.stage.orchestrator.add_repo(GITHUB, ME)
        finding = Finding(what="webhook", is_good=False, detail="nothing leads here", advice="add a webhook")
        gateway.house.apis = {"github": FakeApi(finding)}  # type: ignore[dict-item]
        refused = await gateway.ask("POST", "/api/v1/webhooks/git", token=None, data=b"{}", headers={})
        response = await gateway.ask("GET", "/api/v1/doctor")
        answer, text = await response.get_json(), await response.get_data(as_text=True)

    assert refused.status_code == 401
    assert set(answer["repos"]) == {"shop", "acme/app"}
    assert of(answer["server"], "refused webhooks")[0]["detail"].startswith("1 at git in the last 24 hours")
    assert [one["is_good"] for one in of(answer["server"], "runners")] == [False]
    assert answer["repos"]["acme/app"][-1]["detail"] == "nothing leads here"
    assert of(answer["repos"]["shop"], "webhooks received")[0]["detail"] == "none ever came"
    assert SECRET not in text


@pytest.mark.anyio
async def test_one_repository_has_its_own_debts_alone(tmp_path: Path) -> None:
    """Refusals of another team are not its business."""
    async with opened(tmp_path) as gateway:
        await gateway.stage.orchestrator.add_repo(GITHUB, ME)
        debts = (Notify("run_gone"), ActOnDelivery("repo_1", "d1"), ActOnDelivery("repo_2", "d2"))
        await gateway.store.commit([Owe(effect=debt, due_at_ms=NOW_MS * 2) for debt in debts])
        for owed in await gateway.store.outbox():
            key = owed.effect.key
            refusal = Postpone(key=key, generation=owed.generation, due_at_ms=0, error="no", is_refused=True)
            await gateway.store.commit((refusal,))
        every = await asked(gateway)
        one = await asked(gateway, "?repo=acme/app")
        unknown = await gateway.ask("GET", "/api/v1/doctor?repo=nobody")
        stranger = await gateway.ask("GET", "/api/v1/doctor", token=None)

    assert {one["what"] for one in of(every["server"], "refused: ")} == {
        "refused: notify:run_gone",
        "refused: delivery:repo_1:d1 of shop",
        "refused: delivery:repo_2:d2 of acme/app",
    }
    assert [one["what"] for one in of(one["server"], "refused: ")] == ["refused: delivery:repo_2:d2 of acme/app"]
    assert list(one["repos"]) == ["acme/app"]
    assert (unknown.status_code, stranger.status_code) == (404, 401)


@pytest.mark.anyio
async def test_a_forge_or_a_store_that_does_not_answer_is_a_finding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asks what is wrong must get an answer above all when something is."""
    async with opened(tmp_path) as gateway:
        await gateway.stage.orchestrator.add_repo(GITHUB, ME)
        api = FakeApi()
        gateway.house.apis = {"github": api}  # type: ignore[dict-item]

        async def hang(repo: Any) -> tuple[Finding, ...]:
            await gateway.house.draining.wait()
            return ()

        async def fail() -> Any:
            raise StoreUnavailable("the disk does not answer")

        monkeypatch.setattr(api, "examine", hang)
        monkeypatch.setattr(doctor, "WITHIN_S", 0.05)
        monkeypatch.setattr(gateway.store, "counts", fail)
        answer = await asked(gateway)

    assert answer["repos"]["acme/app"][-1]["detail"] == "no answer within 0.05 s"
    assert of(answer["server"], "database")[0]["detail"] == "the disk does not answer"
