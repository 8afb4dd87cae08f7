"""What a signed webhook means: a trigger, or a reason why there is none."""

from typing import Any

import pytest

from deltaci.domain.errors import MalformedRequest
from deltaci.domain.events import Trigger
from deltaci.forge.git import PlainGit
from deltaci.forge.github_webhooks import GitHub
from deltaci.forge.webhook import Received, one_line
from tests.forge.hooks import (
    NEW,
    OLD,
    TAG_OBJECT,
    ZERO,
    a_git_push,
    a_pull_request,
    a_push,
    a_repo,
    from_git,
    from_github,
)

SHOP = a_repo()
PLAIN = a_repo("shop", forge="git")


def github_says(body: Any, event: str) -> Received:
    return GitHub().read(from_github(body, event=event), SHOP)


def git_says(body: Any) -> Received:
    return PlainGit().read(from_git(body), PLAIN)


def test_a_push_to_a_branch_triggers() -> None:
    """The common case, field by field."""
    received = github_says(a_push(), "push")

    assert received == Received(
        delivery_id="6f0e0f0a-0000-11ee-8000-000000000001",
        event="push",
        trigger=Trigger(
            kind="push",
            ref="refs/heads/main",
            commit_sha=NEW,
            base_sha=OLD,
            stream="branch:main",
            title="Add a cart",
            author="mona",
        ),
    )


def test_a_pull_request_triggers_for_its_head_against_its_base() -> None:
    """The common case, field by field."""
    received = github_says(a_pull_request(), "pull_request")

    assert received.trigger == Trigger(
        kind="pull_request",
        ref="refs/pull/12/head",
        commit_sha=NEW,
        base_sha=OLD,
        pr_number=12,
        stream="pr:12",
        title="Add a cart",
        author="mona",
        base_ref="refs/heads/main",
    )


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"before": ZERO, "created": True}, {"base_sha": None}),
        ({"forced": True}, {"is_forced": True, "base_sha": OLD}),
        ({"ref": "refs/heads/feature/a:b"}, {"stream": "branch:feature/a:b"}),
        ({"ref": "refs/tags/v1", "before": ZERO}, {"stream": "tag:v1", "base_sha": None}),
        ({"ref": "refs/tags/v1", "after": TAG_OBJECT}, {"commit_sha": NEW, "base_sha": None}),
        ({"head_commit": None}, {"title": "", "author": "mona"}),
        ({"pusher": None}, {"author": "mona"}),
        ({"before": "a" * 64, "after": "b" * 64}, {"base_sha": "a" * 64, "commit_sha": "b" * 64}),
    ],
)
def test_a_push_is_read_in_all_its_shapes(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    """First pushes have no base, forced ones say so, and an annotated tag is built at its commit."""
    trigger = github_says(a_push(**fields), "push").trigger

    assert expected == {name: getattr(trigger, name) for name in expected}


@pytest.mark.parametrize(
    ("event", "body", "reason"),
    [
        ("ping", a_push(), "ping"),
        ("push", a_push(before=NEW), "did not change"),
        ("push", a_push(ref="refs/heads/gh-readonly-queue/main/pr-1-abc"), "merge queue"),
        ("push", a_push(ref="refs/notes/commits"), "neither a branch nor a tag"),
        ("push", a_push(ref="refs/heads/"), "neither a branch nor a tag"),
        ("pull_request", a_pull_request("labeled"), "labeled"),
        ("pull_request", a_pull_request("edited"), "edited"),
        ("status", a_push(), "status"),
        ("star", a_push(), "star"),
    ],
)
def test_what_starts_nothing_says_why(event: str, body: dict[str, Any], reason: str) -> None:
    """Every accepted webhook has a run or a recorded reason; our own statuses come back as webhooks too."""
    received = github_says(body, event)

    assert received.trigger is None
    assert reason in (received.ignored or "")


@pytest.mark.parametrize("action", ["opened", "synchronize", "reopened", "ready_for_review"])
def test_the_actions_that_bring_new_commits_trigger(action: str) -> None:
    """Drafts run too: people push drafts to see what the checks say."""
    received = github_says(a_pull_request(action, draft=True), "pull_request")

    assert received.trigger is not None


def test_another_base_branch_triggers() -> None:
    """The same commits against another base are another difference."""
    body = a_pull_request("edited") | {"changes": {"base": {"sha": {"from": TAG_OBJECT}}}}

    received = github_says(body, "pull_request")

    assert received.trigger is not None


@pytest.mark.parametrize(
    ("head_repo", "is_fork"),
    [
        ({"full_name": "acme/shop"}, False),
        ({"full_name": "ACME/Shop"}, False),
        ({"full_name": "eve/shop"}, True),
        (None, True),
    ],
)
def test_a_pull_request_from_elsewhere_is_a_fork(head_repo: dict[str, str] | None, is_fork: bool) -> None:
    """A deleted fork has no name any more, and is still not ours."""
    trigger = github_says(a_pull_request(head={"sha": NEW, "ref": "cart", "repo": head_repo}), "pull_request").trigger

    assert trigger is not None
    assert trigger.is_fork == is_fork


def test_a_push_to_plain_git_triggers() -> None:
    """What the hook posts is what the run is made from."""
    received = git_says(a_git_push(forced=True))

    assert received == Received(
        delivery_id="d1",
        event="push",
        trigger=Trigger(
            kind="push",
            ref="refs/heads/main",
            commit_sha=NEW,
            base_sha=OLD,
            stream="branch:main",
            is_forced=True,
            title="Add a cart",
            author="Mona",
        ),
    )


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"before": ZERO}, {"base_sha": None}),
        ({"ref": "refs/tags/v1"}, {"stream": "tag:v1", "base_sha": None}),
        ({"title": "a\x1b[31mb\x00c\u202ed\nsecond"}, {"title": "a[31mbcd"}),
        ({"title": "x" * 300}, {"title": "x" * 199 + "…"}),
    ],
)
def test_a_plain_push_is_read_in_all_its_shapes(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    """What people write is shown later in terminals and pages: no escapes, no reversed text, no second line."""
    trigger = git_says(a_git_push(**fields)).trigger

    assert expected == {name: getattr(trigger, name) for name in expected}


@pytest.mark.parametrize(
    ("fields", "reason"),
    [({"before": NEW}, "did not change"), ({"ref": "refs/notes/x"}, "neither a branch nor a tag")],
)
def test_a_plain_push_that_starts_nothing_says_why(fields: dict[str, Any], reason: str) -> None:
    """Notes are pushed, too."""
    received = git_says(a_git_push(**fields))

    assert reason in (received.ignored or "")


HOSTILE: tuple[bytes | dict[str, Any], ...] = (
    b"",
    b"null",
    b"[]",
    b"{",
    b'{"repository": "shop"} {}',
    b"\xef\xbb\xbf{}",
    b'{"x": "\xff"}',
    b'{"x": "\\ud800"}',
    b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    {"repository": ["shop"]},
)


@pytest.mark.parametrize("body", HOSTILE, ids=range(len(HOSTILE)))
def test_a_malformed_body_is_refused_and_never_a_crash(body: Any) -> None:
    """Whatever the decoder raises, the sender gets a 400."""
    with pytest.raises(MalformedRequest):
        git_says(body)
    for event in ("push", "pull_request"):
        with pytest.raises(MalformedRequest):
            github_says(body, event)


@pytest.mark.parametrize(
    "fields",
    [
        {"after": "b" * 39},
        {"after": "B" * 40},
        {"after": "--upload-pack=x"},
        {"after": NEW + "\n"},
        {"before": "HEAD"},
        {"after": None},
        {"ref": "main"},
        {"ref": ""},
        {"ref": "refs/heads/a\nb"},
        {"ref": "refs/heads/a b"},
        {"ref": "refs/heads/\u202egnp"},
        {"ref": "refs/heads/" + "x" * 2_000},
        {"forced": "yes"},
        {"repository": {"full_name": "acme/other"}},
    ],
)
def test_fields_that_could_hurt_later_are_refused_here(fields: dict[str, Any]) -> None:
    """Object ids and refs become arguments of git, keys of rows and text on pages."""
    with pytest.raises(MalformedRequest):
        github_says(a_push(**fields), "push")
    if "repository" in fields:
        fields = {"repository": "other"}
    with pytest.raises(MalformedRequest):
        git_says(a_git_push(**fields))


def test_the_labels_of_a_pull_request_are_read_bounded_and_in_order() -> None:
    """One of them may ask for a full run; a payload without any is as good as one with none."""
    many = [{"name": f"l{number:03}\n"} for number in range(150)]
    bodies = [a_pull_request(labels=labels) for labels in ([{"name": "full-ci"}, {"name": "bug"}, {}], None, many)]

    read = [github_says(body, "pull_request").trigger for body in bodies]

    assert [trigger.labels for trigger in read[:2] if trigger] == [("bug", "full-ci"), ()]
    assert read[2] is not None
    assert len(read[2].labels) == 100
    assert read[2].labels[0] == "l000"


@pytest.mark.parametrize("number", [0, -1, 2**60, "12", 1.5, None])
def test_a_pull_request_number_is_a_number(number: Any) -> None:
    """It goes into the run's key."""
    with pytest.raises(MalformedRequest):
        github_says(a_pull_request() | {"number": number}, "pull_request")


@pytest.mark.parametrize("value", ["", "a b", "x" * 101, "a\nb", "é"])
def test_a_delivery_id_is_an_identifier(value: str) -> None:
    """It is a key for ever, and is shown."""
    with pytest.raises(MalformedRequest):
        GitHub().read(from_github(a_push(), x_github_delivery=value), SHOP)
    with pytest.raises(MalformedRequest):
        PlainGit().read(from_git(a_git_push(), x_deltaci_delivery=value), PLAIN)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", ""), ("\n\n a ", "a"), ("a\r\nb", "a"), ("abcdef", "abcd…"), ("abcde", "abcde"), ("\x00\x1b", "")],
)
def test_one_line_is_what_fits_and_can_be_printed(text: str, expected: str) -> None:
    """Titles of unknown origin are shown in lists."""
    assert expected == one_line(text, 5)
