"""What each event of each forge becomes, payload by payload; and the page that says so."""

import re
from pathlib import Path

import msgspec
import pytest

from deltaci.domain.pull_request import PullRequest
from deltaci.domain.repo import Repo
from deltaci.forge.gitea_webhooks import Gitea
from deltaci.forge.github_webhooks import GitHub
from deltaci.forge.gitlab_webhooks import GitLab
from deltaci.forge.webhook import Received
from tests.forge import events_gitea, events_github, events_gitlab
from tests.forge.cases import WORDS, Case, named
from tests.forge.hooks import NEW, OLD, a_repo, from_gitea, from_github, from_gitlab

PAGE = Path(__file__).parents[2] / "docs" / "webhooks.md"
SHOP = msgspec.structs.replace(a_repo(), clone_url="https://github.com/acme/shop.git")
PROJECT = a_repo("acme/web/shop", forge="gitlab")
GITEA = a_repo(forge="gitea")


def github_says(case: Case, repos: list[Repo], *, secret: str = "s3cret") -> Received:
    forge, webhook = GitHub(["app secret"]), from_github(case.body, event=case.event, secret=secret)
    return forge.read(webhook, forge.authenticate(webhook, repos))


def gitlab_says(case: Case, repos: list[Repo]) -> Received:
    forge, webhook = GitLab(), from_gitlab(case.body, event=case.event)
    return forge.read(webhook, forge.authenticate(webhook, repos))


def gitea_says(case: Case, repos: list[Repo], *, is_forgejo: bool = False) -> Received:
    forge, webhook = Gitea(), from_gitea(case.body, event=case.event, is_forgejo=is_forgejo)
    return forge.read(webhook, forge.authenticate(webhook, repos))


@pytest.mark.parametrize("case", events_github.EVENTS, ids=named)
def test_an_event_of_github_becomes_what_it_should(case: Case) -> None:
    """A run, a request or a reason, and nothing else, whoever's secret signed."""
    for secret in ("s3cret", "app secret"):
        case.check(github_says(case, [SHOP], secret=secret))


@pytest.mark.parametrize("case", events_github.OF_THE_APP, ids=named)
def test_an_event_of_our_app_is_about_no_repository(case: Case) -> None:
    """Only the app's secret signs for what an installation sees; what is not registered is told, not refused."""
    case.check(github_says(case, [SHOP], secret="app secret"))


@pytest.mark.parametrize("case", events_gitlab.EVENTS, ids=named)
def test_an_event_of_gitlab_becomes_what_it_should(case: Case) -> None:
    """A run, a request or a reason, and nothing else."""
    case.check(gitlab_says(case, [PROJECT]))


@pytest.mark.parametrize("case", events_gitlab.OF_OTHERS, ids=named)
def test_an_event_of_gitlab_about_no_project_of_ours_is_acknowledged(case: Case) -> None:
    """Four refusals in a row, and GitLab disables the webhook of a whole group."""
    case.check(gitlab_says(case, [PROJECT]))


@pytest.mark.parametrize("is_forgejo", [False, True], ids=("gitea", "forgejo"))
@pytest.mark.parametrize("case", events_gitea.EVENTS, ids=named)
def test_an_event_of_gitea_becomes_what_it_should(case: Case, is_forgejo: bool) -> None:
    """Forgejo sends the same under one name more."""
    case.check(gitea_says(case, [GITEA], is_forgejo=is_forgejo))


@pytest.mark.parametrize("case", events_gitea.OF_OTHERS, ids=named)
def test_an_event_of_gitea_about_no_repository_of_ours_is_acknowledged(case: Case) -> None:
    """The webhook of an organisation tells of all its repositories."""
    case.check(gitea_says(case, [GITEA]))


def test_the_row_of_a_pull_request_is_told_whole() -> None:
    """It is what commands, approvals and the comparison with the forge go by."""
    github = events_github.a_pull_request(
        "converted_to_draft",
        draft=True,
        labels=[{"name": "b"}, {"name": "a"}],
        updated_at=events_github.AT,
        head={"sha": NEW, "ref": "cart", "repo": {"full_name": "eve/shop"}},
    )
    gitlab = events_gitlab.a_merge_request("close", draft=True, source_project_id=16)
    gitea = events_gitea.a_pull_request("label_updated", title="x" * 300, labels=[{"id": 1, "name": "a"}])

    told = [
        github_says(Case("pull_request", "", github, ""), [SHOP]).pull_request,
        gitlab_says(Case("Merge Request Hook", "", gitlab, ""), [PROJECT]).pull_request,
        gitea_says(Case("pull_request", "", gitea, ""), [GITEA]).pull_request,
    ]

    assert told == [
        PullRequest(
            repo_id=SHOP.id,
            number=12,
            head_sha=NEW,
            head_ref="refs/heads/cart",
            base_ref="refs/heads/main",
            base_sha=OLD,
            is_fork=True,
            is_draft=True,
            author="mona",
            title="Add a cart",
            labels=("a", "b"),
            updated_at_ms=events_github.AT_MS,
        ),
        PullRequest(
            repo_id=PROJECT.id,
            number=12,
            head_sha=NEW,
            head_ref="refs/heads/cart",
            base_ref="refs/heads/main",
            base_sha="",
            is_open=False,
            is_fork=True,
            is_draft=True,
            author="mona",
            title="Add a cart",
            labels=("full-ci",),
            updated_at_ms=events_gitlab.AT_MS,
        ),
        PullRequest(
            repo_id=GITEA.id,
            number=12,
            head_sha=NEW,
            head_ref="refs/heads/cart",
            base_ref="refs/heads/main",
            base_sha=OLD,
            author="mona",
            title="x" * 199 + "…",
            labels=("a",),
            updated_at_ms=events_gitea.AT_MS,
        ),
    ]


def test_the_author_of_a_merge_request_is_not_whoever_does_something_to_it() -> None:
    """The event names only who acts; taking a maintainer for the author would trust a stranger's code."""
    body = events_gitlab.a_merge_request("reopen", user=events_gitlab.MONA | {"id": 9, "username": "maintainer"})

    received = gitlab_says(Case("Merge Request Hook", "", body, ""), [PROJECT])

    assert received.trigger is not None
    assert received.trigger.author == ""


def test_a_check_of_a_fork_is_approved_by_its_run() -> None:
    """GitHub names no pull request for the commit of a fork: the run that the check is of knows it."""
    body = events_github.a_check_run("requested_action", identifier="approve", pull_requests=[])

    request = github_says(Case("check_run", "", body, ""), [SHOP]).request

    assert request == events_github.Approve(
        by="mona", right="write", pr_number=0, commit_sha=NEW, run_id=events_github.RUN
    )


@pytest.mark.parametrize(("app_id", "is_ours"), [("", True), ("29310", True), ("Iv1.deadbeef", True), ("7", False)])
def test_checks_of_another_app_are_told_by_its_id(app_id: str, is_ours: bool) -> None:
    """Two installations of Delta CI may both have checks at a commit, with ids of the same form."""
    forge, webhook = GitHub(app_id=app_id), from_github(events_github.a_check_run(), event="check_run")

    received = forge.read(webhook, forge.authenticate(webhook, [SHOP]))

    assert is_ours == (received.request is not None)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("https://github.com/acme/shop.git", "https://github.com/acme/store.git"),
        ("git@github.com:acme/shop.git", "git@github.com:acme/store.git"),
        ("ssh://git@github.com/acme/shop.git", "git@github.com:acme/store.git"),
        ("file:///srv/mirror/shop.git", ""),
    ],
)
def test_a_renamed_repository_is_cloned_as_before(address: str, expected: str) -> None:
    """Whoever clones over ssh has a key and no password; a mirror on this machine has not moved."""
    case = next(case for case in events_github.EVENTS if case.what == "renamed")

    request = github_says(case, [msgspec.structs.replace(SHOP, clone_url=address)]).request

    assert request == events_github.RenameRepo(name="acme/store", clone_url=expected)


def test_the_page_of_webhooks_says_what_the_code_does() -> None:
    """Each row of the tables is an event of the tests, and each event of the tests is a row."""
    said: dict[str, set[tuple[str, str, str]]] = {}
    forge = ""
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        forge = line.removeprefix("## ") if line.startswith("## ") else forge
        row = re.fullmatch(r"\| `([^`]+)` \| (.+?) \| (.+?) \|", line)
        if row is not None:
            said.setdefault(forge, set()).add((row[1], row[2], row[3]))

    tables = {
        "GitHub": (*events_github.EVENTS, *events_github.OF_THE_APP),
        "GitLab": (*events_gitlab.EVENTS, *events_gitlab.OF_OTHERS),
        "Gitea and Forgejo": (*events_gitea.EVENTS, *events_gitea.OF_OTHERS),
    }
    assert said == {
        name: {(case.event, case.what, WORDS[type(case.becomes)]) for case in cases} for name, cases in tables.items()
    }
