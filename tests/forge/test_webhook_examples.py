"""Every payload that GitHub gives as an example, read as if it had been sent."""

from typing import Any, NamedTuple

import msgspec
import pytest

from deltaci.domain.events import Trigger
from deltaci.domain.requests import (
    AddRepos,
    Approve,
    CancelRuns,
    EndStream,
    InstalledRepo,
    RemoveRepos,
    RenameRepo,
    Request,
    RunAgain,
)
from deltaci.forge.github_webhooks import GitHub
from deltaci.forge.webhook import Received
from tests.forge.facts import require_facts, webhook_examples
from tests.forge.hooks import a_repo, from_github

NAMES = (
    "Codertocat/Hello-World",
    "Octocoders/Hello-World",
    "electron/electron",
    "github/hello-world",
    "octo-org/octo-repo",
    "octocat/Hello-World",
)
REPOS = [a_repo(name, secret=f"of {name}") for name in NAMES]


@pytest.fixture(autouse=True)
def _facts() -> None:
    require_facts()


def said(event: str, body: dict[str, Any]) -> Received:
    forge, webhook = GitHub(["app secret"]), from_github(body, event=event, secret="app secret")
    return forge.read(webhook, forge.authenticate(webhook, REPOS))


def test_every_example_is_accepted_or_ignored_with_a_reason() -> None:
    """329 payloads of 58 events: none is refused, none is forgotten without a word, none becomes what it should not."""
    examples = webhook_examples()
    kinds: dict[str, dict[str, int]] = {}
    for event, bodies in examples.items():
        for body in bodies:
            received = said(event, body)
            outcome = received.trigger or received.request or received.ignored
            assert outcome, f"{event} {body.get('action')} says nothing"
            if not isinstance(outcome, str):
                count = kinds.setdefault(event, {})
                name = type(outcome).__name__
                count[name] = count.get(name, 0) + 1

    assert (len(examples), sum(len(bodies) for bodies in examples.values())) == (58, 329)
    assert kinds == {
        "push": {"Trigger": 3, "EndStream": 4},
        "delete": {"EndStream": 4},
        "pull_request": {"Trigger": 10, "EndStream": 2},
        "merge_group": {"Trigger": 2},
        "check_suite": {"RunAgain": 2},
        "repository": {"RenameRepo": 3},
        "installation": {"AddRepos": 3, "RemoveRepos": 3},
        "installation_repositories": {"AddRepos": 2, "RemoveRepos": 1},
    }


class Relevant(NamedTuple):
    """The examples of `event` with that action, and what each becomes after `edits` (fields of one object in it)."""

    event: str
    action: str | None
    becomes: Trigger | Request
    edits: dict[str, Any] = {}
    ref: str = ""


CHANGES = "ec26c3e57ca3a959ca5aad62de7213c562f8c821"
PULL = Trigger(
    kind="pull_request",
    ref="refs/pull/2/head",
    commit_sha=CHANGES,
    base_sha="f95f852bd8fca8fcc58a9a2d6c842781e32a215e",
    base_ref="refs/heads/master",
    pr_number=2,
    stream="pr:2",
    title="Update the README with new information.",
    author="Codertocat",
    labels=("bug",),
)
FIRST = "6113728f27ae82c7b1a177c8d03f9e96e0adf246"
QUEUE = "gh-readonly-queue/main/pr-104-929f8209d40f77f4abc622a499c93a83babdbe64"
COMMENTED = {"issue": {"pull_request": {}}}
OURS = {"check_run": {"external_id": "run_01hzxk3v8a4bq7c9d2e"}}
OUR_RUN = "run_01hzxk3v8a4bq7c9d2e"
API_REVIEW = "5bd5f196a46b8222fb7484f05faba41a73cf34bd"
RELEVANT = (
    *(Relevant("pull_request", action, PULL) for action in ("synchronize", "reopened", "ready_for_review")),
    Relevant("pull_request", "closed", EndStream(stream="pr:2", because="pull request 2 was closed")),
    Relevant(
        "push",
        None,
        Trigger(
            kind="push",
            ref="refs/heads/master",
            commit_sha=FIRST,
            stream="branch:master",
            title="Initial commit",
            author="Codertocat",
        ),
        ref="refs/heads/master",
    ),
    Relevant(
        "push",
        None,
        EndStream(stream="tag:simple-tag", because="the tag simple-tag was deleted"),
        {"deleted": True, "after": "0" * 40},
        ref="refs/tags/simple-tag",
    ),
    Relevant(
        "merge_group",
        "checks_requested",
        Trigger(
            kind="merge_group",
            ref=f"refs/heads/{QUEUE}",
            commit_sha="2ffea6db159f6b6c47a24e778fb9ef40cf6b1c7d",
            base_sha="380387fbc80638b734a49e1be1c4dfec1c01b33c",
            base_ref="refs/heads/main",
            stream=f"queue:{QUEUE}",
            title="Merge pull request #2048 from octo-repo/update-readme",
            author="Codertocat",
        ),
    ),
    Relevant("check_run", "rerequested", RunAgain(by="octocat", right="write", run_id=OUR_RUN), OURS),
    Relevant(
        "check_run",
        "requested_action",
        CancelRuns(by="codebytere", right="write", run_id=OUR_RUN),
        OURS | {"requested_action": {"identifier": "cancel"}},
    ),
    Relevant(
        "check_run",
        "requested_action",
        Approve(by="codebytere", right="write", pr_number=26764, commit_sha=API_REVIEW, run_id=OUR_RUN),
        OURS | {"requested_action": {"identifier": "approve"}},
    ),
    Relevant("check_suite", "rerequested", RunAgain(by="octocoders-linter[bot]", right="write", commit_sha=CHANGES)),
    Relevant(
        "issue_comment",
        "created",
        RunAgain(by="Codertocat", right="write", is_failed_only=True, pr_number=1),
        COMMENTED | {"comment": {"body": "Again, please.\n\n/retest"}},
    ),
    Relevant(
        "issue_comment",
        "created",
        CancelRuns(by="Codertocat", right="write", pr_number=1),
        COMMENTED | {"comment": {"body": "/cancel"}},
    ),
    Relevant(
        "installation",
        "created",
        AddRepos(installation_id=957387, repos=(InstalledRepo(name="Codertocat/Hello-World"),)),
    ),
    Relevant("installation", "deleted", RemoveRepos(installation_id=2, names=None, because="the app was uninstalled")),
    Relevant(
        "installation_repositories",
        "removed",
        RemoveRepos(installation_id=2, names=("octocat/Hello-World",), because="the app may not see it any more"),
    ),
)


@pytest.mark.parametrize("number", range(len(RELEVANT)))
def test_an_example_that_asks_for_something_gets_it(number: int) -> None:
    """Where the examples hold what somebody else's program wrote, ours takes its place, and nothing else is touched."""
    case = RELEVANT[number]
    bodies = [
        body
        for body in webhook_examples()[case.event]
        if body.get("action") == case.action and body.get("ref", "") in ("", case.ref)
    ]

    assert bodies
    for body in bodies:
        edited = body | {
            name: (body.get(name) or {}) | value if isinstance(value, dict) else value
            for name, value in case.edits.items()
        }
        received = said(case.event, edited)
        assert case.becomes == (received.trigger or received.request)


def test_an_example_of_a_rename_finds_the_repository_by_its_old_name() -> None:
    """The event comes under the new name, and nobody knows that yet."""
    (body,) = [body for body in webhook_examples()["repository"] if body["action"] == "renamed"]
    body = msgspec.json.decode(msgspec.json.encode(body))
    body["repository"]["full_name"] = "Octocoders/Hello-Moon"
    moved = [body for body in webhook_examples()["repository"] if body["action"] == "transferred"]

    assert said("repository", body).request == RenameRepo(name="Octocoders/Hello-Moon")
    assert [said("repository", one).request for one in moved] == [RenameRepo(name="Octocoders/Hello-World")] * 3
