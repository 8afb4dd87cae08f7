"""Signed, and crooked: whatever is in a body, the answer is a trigger, a request, a reason or a 400, and never a crash.

Every documented payload is taken, and values in it are replaced by what no forge would send; the same seeds, the same
bodies.
"""

import copy
import random
import re
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from deltaci.domain.errors import BadSignature, MalformedRequest, NotFound
from deltaci.domain.events import Trigger
from deltaci.domain.repo import Repo
from deltaci.forge.gitea_webhooks import Gitea
from deltaci.forge.github_webhooks import GitHub
from deltaci.forge.gitlab_webhooks import GitLab
from deltaci.forge.webhook import Received, Webhook, WebhookForge
from tests.forge import events_gitea, events_github, events_gitlab
from tests.forge.cases import Case
from tests.forge.hooks import a_repo, from_gitea, from_github, from_gitlab

ODD: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    2**53 + 1,
    2**70,
    1e308,
    0.5,
    "",
    "\x00",
    "a\x00b\nc",
    "\u202e/../..",
    "refs/heads/../../x",
    "--upload-pack=x",
    "0" * 40,
    "A" * 40,
    "x" * 5_000,
    "٣" * 40,
    "9999-99-99T99:99:99Z",
    "0001-01-01T00:00:00+23:59",
    [],
    [None],
    {},
    {"from": {"from": []}},
    [[[[]]]],
)
# Raw bytes of which no JSON value is made: each in the place of a value.
RAW = (
    b"1e400",
    b"-0",
    b"9" * 400,
    b'"\\ud800"',
    b'"\\udc00\\ud800"',
    b'"\xed\xa0\x80"',
    b'"\xff"',
    b'"\\u0000"',
    b"NaN",
    b"[" * 5_000 + b"]" * 5_000,
    b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
    b"",
    b'"',
)
MARK = "the mark \u2603"
ROUNDS = 12


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value in a payload."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from places(inner, (*path, key))


def replaced(body: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    changed: Any = copy.deepcopy(body)
    holder = changed
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value
    return changed  # type: ignore[no-any-return]


def hostile(case: Case, chance: random.Random) -> Iterator[bytes]:
    everywhere = list(places(case.body))
    for _ in range(ROUNDS):
        yield msgspec.json.encode(replaced(case.body, chance.choice(everywhere), chance.choice(ODD)))
        marked = msgspec.json.encode(replaced(case.body, chance.choice(everywhere), MARK))
        yield marked.replace(msgspec.json.encode(MARK), chance.choice(RAW))
    whole = msgspec.json.encode(case.body)
    yield whole[: chance.randrange(len(whole))]


def answer(forge: WebhookForge, webhook: Webhook, repos: list[Repo]) -> Received | None:
    """None if it was refused for what is in it."""
    try:
        return forge.read(webhook, forge.authenticate(webhook, repos))
    except (MalformedRequest, NotFound):
        return None
    except BadSignature as error:
        raise AssertionError(f"it was signed: {webhook.body[:500]!r}") from error


def check(received: Received | None) -> None:
    """What gets past is fit to be stored and shown: text as a row of SQLite holds it, and lines that are lines."""
    if received is None:
        return
    msgspec.json.encode(received).decode("utf-8")
    told = [received.ignored or "", *((received.pull_request.labels) if received.pull_request is not None else ())]
    shas = [received.pull_request.head_sha, received.pull_request.base_sha] if received.pull_request is not None else []
    if isinstance(received.trigger, Trigger):
        shas += [received.trigger.commit_sha, received.trigger.base_sha or ""]
        told += [received.trigger.title, received.trigger.author, received.trigger.ref, received.trigger.stream]
    told += [getattr(received.request, name, "") for name in ("by", "because", "stream", "name", "clone_url")]
    shas.append(getattr(received.request, "commit_sha", ""))
    for sha in shas:
        assert re.fullmatch(r"(?:[0-9a-f]{40})?", sha), sha
    for text in told:
        assert text.isprintable(), text
        assert len(text) <= 2_000, text


GITHUB, GITLAB, GITEA = a_repo(), a_repo("acme/web/shop", forge="gitlab"), a_repo(forge="gitea")


@pytest.mark.parametrize("seed", range(3))
def test_hostile_bodies_of_github_are_refused_or_read(seed: int) -> None:
    """Also those of the app, which are about no repository."""
    chance = random.Random(seed)
    for case in (*events_github.EVENTS, *events_github.OF_THE_APP):
        for body in hostile(case, chance):
            webhook = from_github(body, event=case.event, secret="app secret")
            check(answer(GitHub(["app secret"]), webhook, [GITHUB]))


@pytest.mark.parametrize("seed", range(3))
def test_hostile_bodies_of_gitlab_are_refused_or_read(seed: int) -> None:
    """System hooks as well."""
    chance = random.Random(seed)
    for case in (*events_gitlab.EVENTS, *events_gitlab.OF_OTHERS):
        for body in hostile(case, chance):
            check(answer(GitLab(), from_gitlab(body, event=case.event), [GITLAB]))


@pytest.mark.parametrize("seed", range(3))
def test_hostile_bodies_of_gitea_are_refused_or_read(seed: int) -> None:
    """Whatever the name of the event."""
    chance = random.Random(seed)
    for case in (*events_gitea.EVENTS, *events_gitea.OF_OTHERS):
        for body in hostile(case, chance):
            check(answer(Gitea(), from_gitea(body, event=case.event), [GITEA]))


@pytest.mark.parametrize("raw", [*RAW, b"[]", b"null", b"7", b"\xef\xbb\xbf{}", b"{}{}"], ids=lambda raw: str(raw[:12]))
def test_a_body_that_is_no_object_is_malformed_for_every_forge(raw: bytes) -> None:
    """Signed does not mean well-formed."""
    signed: tuple[tuple[WebhookForge, Webhook, Repo], ...] = (
        (GitHub(), from_github(raw), GITHUB),
        (GitLab(), from_gitlab(raw), GITLAB),
        (Gitea(), from_gitea(raw), GITEA),
    )

    for forge, webhook, repo in signed:
        with pytest.raises(MalformedRequest):
            forge.authenticate(webhook, [repo])


def test_an_event_that_nobody_knows_is_acknowledged_by_every_forge() -> None:
    """Forges get new events; a refusal would be shown to people as a failure of theirs."""
    body = {"action": "imagined", "repository": {"full_name": "acme/shop"}, "whatever": [{"x": 2**70}]}
    project = {"object_kind": "imagined", "project": {"path_with_namespace": "acme/web/shop"}, "x": [2**70]}
    signed: tuple[tuple[WebhookForge, Webhook, Repo], ...] = (
        (GitHub(), from_github(body, event="imagined"), GITHUB),
        (GitLab(), from_gitlab(project, event="Imagined Hook"), GITLAB),
        (Gitea(), from_gitea(body, event="imagined"), GITEA),
    )

    for forge, webhook, repo in signed:
        received = answer(forge, webhook, [repo])
        assert received is not None
        assert received.ignored == "the event imagined starts no run"


@pytest.mark.parametrize(
    "fields",
    [
        {"number": 0},
        {"number": 2**60},
        {"number": "12"},
        {"action": None},
        {"pull_request": None},
        {"pull_request": {}},
    ],
)
def test_what_we_do_read_must_be_whole(fields: dict[str, Any]) -> None:
    """A pull request without its number or its head is one that cannot be acted on, and somebody has to hear of it."""
    github = from_github(events_github.a_pull_request() | fields, event="pull_request")
    gitea = from_gitea(events_gitea.a_pull_request() | fields, event="pull_request")

    with pytest.raises(MalformedRequest):
        GitHub().read(github, GITHUB)
    with pytest.raises(MalformedRequest):
        Gitea().read(gitea, GITEA)


@pytest.mark.parametrize("name", ["a", "../shop", "acme/..", "acme/a/b", "acme/a b", "acme/\u202e", "x" * 101 + "/y"])
def test_a_repository_gets_no_name_that_is_none(name: str) -> None:
    """It becomes a row, part of addresses, and text on pages."""
    changes = {"owner": {"from": {"user": {"login": "acme"}}}, "repository": {"name": {"from": "shop"}}}
    renamed = from_github(events_github.a_repository("renamed", name=name, changes=changes), event="repository")
    installed = from_github(
        events_github.an_installation("created", repositories=[{"full_name": name}]), event="installation"
    )

    with pytest.raises(MalformedRequest):
        GitHub().read(renamed, GITHUB)
    with pytest.raises(MalformedRequest):
        GitHub().read(installed, None)
