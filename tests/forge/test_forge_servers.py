"""The forges of the tests refuse what the real ones refuse: a test that passes against them means something."""

from typing import Any

import httpx
import pytest

from tests.forge.servers.gitea import gitea_server
from tests.forge.servers.github import GitHubServer, github_server
from tests.forge.servers.gitlab import gitlab_server
from tests.forge.servers.wire import RESET, Fault

pytestmark = pytest.mark.anyio
TOKEN = {"authorization": "Bearer t"}


async def ask(
    forge: Any, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False) as client:
        return await client.request(method, f"{forge.url}{path}", json=body, headers=headers or TOKEN)


def with_shop(github: GitHubServer) -> str:
    github.add_token("t")
    return github.add_repo("acme/shop").commit({"a": b"1"})


async def test_a_status_is_shown_and_counted() -> None:
    """What reporters are judged by."""
    async with github_server(now_ms=lambda: 7) as github:
        head = with_shop(github)

        answer = await ask(github, "POST", f"/repos/acme/shop/statuses/{head}", {"state": "pending", "context": "c"})

        shop = github.repos["acme/shop"]
        assert answer.status_code == 201
        assert answer.json()["creator"] is None  # filled in, as the description has it
        assert [(one.at_ms, one.name, one.state) for one in shop.history] == [(7, "c", "pending")]
        assert answer.headers["x-ratelimit-remaining"] == "4999"


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/repos/acme/shop/statuses/SHA", {"state": "queued"}),
        ("POST", "/repos/acme/shop/statuses/SHA", {"state": "success", "contex": "misspelt"}),
        ("POST", "/repos/acme/shop/statuses/SHA", {"state": "success", "description": "x" * 141}),
        ("POST", "/repos/acme/shop/statuses/SHA", {}),
        ("GET", "/repos/acme/shop/pulls?stat=open", None),
        ("GET", "/repos/acme/shop/pulls?state=opened", None),
        ("GET", "/repos/acme/shop/nowhere", None),
    ],
)
async def test_what_the_description_does_not_allow_is_refused(method: str, path: str, body: Any) -> None:
    """GitHub passes over a misspelt property in silence: here it is seen."""
    async with github_server(expects_violations=True) as github:
        head = with_shop(github)

        answer = await ask(github, method, path.replace("SHA", head), body)

        assert answer.status_code in (404, 422)
        assert len(github.violations) == 1


async def test_a_violation_that_nobody_expects_fails_the_test() -> None:
    """Otherwise a wrong request would be one more retry that nobody looks at."""
    serving = github_server()
    github = await serving.__aenter__()
    with_shop(github)
    await ask(github, "GET", "/repos/acme/shop/nowhere")

    with pytest.raises(AssertionError):
        await serving.__aexit__(None, None, None)


async def test_writes_past_the_secondary_limit_are_told_to_wait() -> None:
    """80 in a minute, 500 in an hour, by the server's own clock."""
    now_ms = 0
    async with github_server(now_ms=lambda: now_ms) as github:
        head = with_shop(github)
        github.limits.writes_per_minute, github.limits.writes_per_hour = 2, 3
        path, body = f"/repos/acme/shop/statuses/{head}", {"state": "success"}

        answers = [await ask(github, "POST", path, body) for _ in range(3)]
        now_ms = 60_000
        answers += [await ask(github, "POST", path, body) for _ in range(2)]

        assert [one.status_code for one in answers] == [201, 201, 403, 201, 403]
        assert [one.headers.get("retry-after") for one in answers] == [None, None, "60", None, "3540"]
        assert github.limits.refused == 2


async def test_an_answer_that_is_known_costs_nothing() -> None:
    """That is what entity tags are for."""
    async with github_server() as github:
        with_shop(github)
        first = await ask(github, "GET", "/repos/acme/shop/pulls")

        again = await ask(
            github, "GET", "/repos/acme/shop/pulls", headers={**TOKEN, "if-none-match": first.headers["etag"]}
        )

        assert (again.status_code, again.content) == (304, b"")
        assert github.limits.used("delta-bot") == 1


async def test_misfortune_comes_when_it_is_scheduled() -> None:
    """A lost answer is the worst of it: the thing was done."""
    async with github_server() as github:
        head = with_shop(github)
        github.fail_next(Fault(status=503), RESET, Fault("reset", is_done=True), on="POST")
        path, body = f"/repos/acme/shop/statuses/{head}", {"state": "success"}

        assert (await ask(github, "POST", path, body)).status_code == 503
        for _ in range(2):
            with pytest.raises(httpx.TransportError):
                await ask(github, "POST", path, body)

        assert len(github.repos["acme/shop"].statuses) == 1


async def test_a_token_shows_no_repository_that_is_not_there() -> None:
    """Gone and never seen look the same."""
    async with github_server() as github:
        with_shop(github)
        github.repos["acme/shop"].is_gone = True

        assert (await ask(github, "GET", "/repos/acme/shop")).status_code == 404
        assert (await ask(github, "GET", "/repos/acme/shop", headers={"authorization": "Bearer no"})).status_code == 401


async def test_gitlab_refuses_a_transition_that_is_none() -> None:
    """Its state machine has no way from running to running."""
    async with gitlab_server() as gitlab:
        gitlab.add_token("t")
        head = gitlab.add_repo("acme/shop").commit({"a": b"1"})
        path = f"/api/v4/projects/acme%2Fshop/statuses/{head}"

        answers = [await ask(gitlab, "POST", path, {"state": state, "name": "c"}) for state in ("running", "running")]

        assert [one.status_code for one in answers] == [201, 400]
        assert "Cannot transition status" in answers[1].text


async def test_gitea_shows_a_tree_page_by_page() -> None:
    """Its pages are numbered, and `truncated` says that there are more."""
    async with gitea_server() as gitea:
        gitea.add_token("t")
        head = gitea.add_repo("acme/shop").commit({"a": b"1", "b": b"2", "c": b"3"})
        gitea.tree_page = 2

        pages = [
            (
                await ask(
                    gitea,
                    "GET",
                    f"/api/v1/repos/acme/shop/git/trees/{head}?page={page}",
                    headers={"authorization": "token t"},
                )
            ).json()
            for page in (1, 2)
        ]

        assert [(len(page["tree"]), page["truncated"]) for page in pages] == [(2, True), (1, False)]
