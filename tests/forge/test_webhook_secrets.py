"""Which secret lets whom in: old and new ones, shared ones, those of GitLab that are sent and those that sign."""

import base64
import hashlib
import hmac
from collections.abc import Callable
from typing import Any

import pytest

from deltaci.domain.errors import BadSignature, MalformedRequest, NotFound
from deltaci.domain.repo import Forge, Repo
from deltaci.forge.gitea_webhooks import Gitea
from deltaci.forge.github_webhooks import GitHub
from deltaci.forge.gitlab_webhooks import GitLab
from deltaci.forge.webhook import Webhook, WebhookForge
from tests.forge import events_gitea, events_github, events_gitlab
from tests.forge.hooks import a_repo, from_gitea, from_github, from_gitlab

KEY = b"0123456789abcdef0123456789abcdef"
SIGNING_TOKEN = "whsec_" + base64.b64encode(KEY).decode()

# of each forge: how it is made with shared secrets, and a push of `name` that was signed with a secret
Make = Callable[[list[str]], WebhookForge]
Push = Callable[[str, str], Webhook]


def github_push(name: str, secret: str) -> Webhook:
    return from_github(events_github.a_push(repository={"full_name": name}), secret=secret)


def gitlab_push(name: str, secret: str) -> Webhook:
    return from_gitlab(events_gitlab.a_push(project={"path_with_namespace": name}), token=secret)


def gitea_push(name: str, secret: str) -> Webhook:
    return from_gitea(events_gitea.a_push(repository={"full_name": name}), secret=secret)


each_forge = pytest.mark.parametrize(
    ("forge", "make", "push"),
    [("github", GitHub, github_push), ("gitlab", GitLab, gitlab_push), ("gitea", Gitea, gitea_push)],
    ids=("github", "gitlab", "gitea"),
)


@each_forge
def test_two_secrets_count_while_one_is_changed(forge: Forge, make: Make, push: Push) -> None:
    """What was sent before the forge knew the new one must not be lost."""
    repo = a_repo(secret="new", previous_secret="old", forge=forge)

    found = [make([]).authenticate(push("acme/shop", secret), [repo]) for secret in ("new", "old")]

    assert found == [repo, repo]
    with pytest.raises(BadSignature):
        make([]).authenticate(push("acme/shop", "older"), [repo])


@each_forge
def test_no_previous_secret_is_not_an_empty_one(forge: Forge, make: Make, push: Push) -> None:
    """Most repositories have none: anybody could sign with nothing."""
    with pytest.raises(BadSignature):
        make([""]).authenticate(push("acme/shop", ""), [a_repo(forge=forge)])


@each_forge
def test_a_shared_secret_signs_for_every_repository(forge: Forge, make: Make, push: Push) -> None:
    """The app's, a group's or an organisation's; two of them while one is changed."""
    repos = [a_repo(name, secret=f"of {name}", forge=forge) for name in ("acme/a", "acme/b")]
    adapter = make(["shared", "shared before"])

    found = [adapter.authenticate(push("ACME/b", secret), repos) for secret in ("shared", "shared before")]

    assert found == [repos[1], repos[1]]


@each_forge
def test_what_is_signed_and_not_registered_is_acknowledged(forge: Forge, make: Make, push: Push) -> None:
    """The forge tells of all that an organisation has; a refusal would be shown as our failure."""
    adapter, webhook = make(["shared"]), push("acme/new", "shared")

    found = adapter.authenticate(webhook, [a_repo(forge=forge)])

    assert found is None
    assert adapter.read(webhook, None).ignored == "the repository acme/new is not registered here"


@each_forge
def test_a_secret_of_one_repository_signs_for_no_other(forge: Forge, make: Make, push: Push) -> None:
    """Nobody's push may be taken for one of somebody else's repository."""
    repos = [a_repo("acme/a", secret="of a", forge=forge), a_repo("acme/b", secret="of b", forge=forge)]
    found: list[Repo | None] = []
    try:
        found.append(make([]).authenticate(push("acme/b", "of a"), repos))
    except NotFound:
        assert forge == "github"  # where a repository's secret is its own webhook's

    assert not any(found)


@each_forge
def test_a_removed_repository_gives_its_name_away(forge: Forge, make: Make, push: Push) -> None:
    """One was deleted, another was made with its name: the events are those of the living one."""
    gone = a_repo(forge=forge, removed_because="the repository was deleted")
    alive = a_repo(forge=forge, default_branch="trunk")

    found = [make([]).authenticate(push("acme/shop", "s3cret"), repos) for repos in ([gone, alive], [gone])]

    assert found == [alive, gone]


@each_forge
@pytest.mark.parametrize("body", [b"", b"[" * 200_000, b"\xff", b"[]", b'{"x": "\\ud800"}'])
def test_strangers_do_not_reach_the_parser(forge: Forge, make: Make, push: Push, body: bytes) -> None:
    """A wrong secret is told before anything in the body is looked at."""
    webhook = Webhook(push("acme/shop", "wrong").headers, body)

    with pytest.raises(BadSignature):
        make(["shared"]).authenticate(webhook, [a_repo(forge=forge)])


@pytest.mark.parametrize("event", ["installation", "installation_repositories", "installation_target"])
def test_a_repository_does_not_speak_for_an_installation(event: str) -> None:
    """Whoever knows the secret of one repository could remove all the others."""
    forged = from_github(events_github.an_installation("deleted"), event=event)

    with pytest.raises(BadSignature, match="secret of the app"):
        GitHub(["app secret"]).authenticate(forged, [a_repo()])


def test_an_event_of_an_organisation_is_acknowledged() -> None:
    """An organisation's webhook sends what no repository has; its secret is that of its repositories."""
    webhook = from_github({"action": "member_added", "organization": {"login": "acme"}}, event="organization")

    found = GitHub().authenticate(webhook, [a_repo()])

    assert found is None
    assert GitHub().read(webhook, None).ignored == "the event organization is about no repository"


# ---- GitLab ------------------------------------------------------------------------------------------------------


def signed(body: bytes, key: bytes = KEY, *, sent_at: str = "1715786433", token: str | None = None) -> Webhook:
    """As GitLab signs: the id, the time and the body."""
    plain = from_gitlab(body)
    message_id = plain.headers["idempotency-key"]
    digest = hmac.new(key, f"{message_id}.{sent_at}.".encode() + body, hashlib.sha256).digest()
    headers = {name: value for name, value in plain.headers.items() if name != "x-gitlab-token"}
    headers |= {
        "webhook-id": message_id,
        "webhook-timestamp": sent_at,
        "webhook-signature": "v1," + base64.b64encode(digest).decode(),
    }
    return Webhook(headers | ({"x-gitlab-token": token} if token is not None else {}), body)


PUSHED = from_gitlab(events_gitlab.a_push()).body
PROJECT = a_repo("acme/web/shop", secret=SIGNING_TOKEN, forge="gitlab")


def test_a_signing_token_of_gitlab_signs_id_time_and_body() -> None:
    """Several signatures may be offered while the token is changed at GitLab; one that holds is enough."""
    webhook = signed(PUSHED)
    offered = "v1,AAAA " + webhook.headers["webhook-signature"]
    several = Webhook({**webhook.headers, "webhook-signature": offered}, PUSHED)

    assert [GitLab().authenticate(one, [PROJECT]) for one in (webhook, several)] == [PROJECT, PROJECT]


@pytest.mark.parametrize(
    "headers",
    [
        {"webhook-signature": "v1," + base64.b64encode(b"x" * 32).decode()},
        {"webhook-signature": ""},
        {"webhook-signature": "v1a,é"},
        {"webhook-timestamp": "1715786434"},
        {"webhook-id": "another"},
        {"webhook-signature": "", "x-gitlab-token": SIGNING_TOKEN},
    ],
)
def test_a_signing_token_of_gitlab_counts_by_its_signature_alone(headers: dict[str, str]) -> None:
    """Each part is signed; and who has seen the token in a log cannot just send it."""
    forged = Webhook({**signed(PUSHED).headers, **headers}, PUSHED)

    with pytest.raises(BadSignature):
        GitLab().authenticate(forged, [PROJECT])


@pytest.mark.parametrize("token", ["whsec_", "whsec_!!", "whsec_é"])
def test_a_signing_token_without_a_key_signs_nothing(token: str) -> None:
    """Whatever was registered by mistake, an empty key would be everybody's."""
    forged = signed(PUSHED, b"", token=token)

    with pytest.raises(BadSignature):
        GitLab().authenticate(forged, [a_repo("acme/web/shop", secret=token, forge="gitlab")])


def test_a_signature_of_gitlab_that_nobody_asked_for_does_not_count() -> None:
    """A webhook may have both; whoever registered the token that is sent is served by that."""
    repo = a_repo("acme/web/shop", secret="s3cret", forge="gitlab")

    assert GitLab().authenticate(signed(PUSHED, b"another key", token="s3cret"), [repo]) == repo
    with pytest.raises(BadSignature):
        GitLab().authenticate(signed(PUSHED, b"s3cret"), [repo])


@pytest.mark.parametrize("token", ["", "s3cre", "s3cret ", "S3CRET", "é", "\U0001f511", "s3cret\x00"])
def test_a_token_of_gitlab_is_the_whole_secret(token: str) -> None:
    """Odd characters must not become a crash."""
    with pytest.raises(BadSignature):
        GitLab().authenticate(from_gitlab(PUSHED, token=token), [a_repo("acme/web/shop", forge="gitlab")])


def test_a_token_of_gitlab_may_hold_any_character() -> None:
    """It is sent in UTF-8, and headers are read as Latin-1."""
    repo = a_repo("acme/web/shop", secret="schlüssel", forge="gitlab")
    sent = "schlüssel".encode().decode("latin-1")

    assert GitLab().authenticate(from_gitlab(PUSHED, token=sent), [repo]) == repo


def test_no_token_at_all_is_told() -> None:
    """Without one in GitLab's settings, no header is sent."""
    headers = {name: value for name, value in from_gitlab(PUSHED).headers.items() if name != "x-gitlab-token"}

    with pytest.raises(BadSignature, match="set a secret token"):
        GitLab().authenticate(Webhook(headers, PUSHED), [PROJECT])


def test_a_delivery_of_gitlab_is_known_by_its_key() -> None:
    """Two webhooks of one request share the event's uuid: with that alone, the second would be refused as a forgery."""
    repo = a_repo("acme/web/shop", forge="gitlab")
    with_key = from_gitlab(PUSHED)
    headers = {name: value for name, value in with_key.headers.items() if name != "idempotency-key"}
    other = from_gitlab(events_gitlab.a_push(ref="refs/heads/next")).body
    without = [Webhook(headers, body) for body in (PUSHED, PUSHED, other)]

    ids = [GitLab().read(webhook, repo).delivery_id for webhook in (with_key, *without)]

    assert ids[0] == with_key.headers["idempotency-key"]
    assert ids[1] == ids[2] != ids[3]
    assert ids[1].startswith(with_key.headers["x-gitlab-event-uuid"])


@pytest.mark.parametrize(
    "headers",
    [
        {"idempotency-key": "a b"},
        {"idempotency-key": "x" * 101},
        {"x-gitlab-event": ""},
        {"x-gitlab-event": "é Hook"},
        {"x-gitlab-event": "x" * 70},
    ],
)
def test_headers_of_gitlab_are_bounded(headers: dict[str, str]) -> None:
    """They are keys for ever, and are shown."""
    webhook = Webhook({**from_gitlab(PUSHED).headers, **headers}, PUSHED)

    with pytest.raises(MalformedRequest):
        GitLab().read(webhook, a_repo("acme/web/shop", forge="gitlab"))


# ---- Gitea and Forgejo -------------------------------------------------------------------------------------------

GITEA = a_repo(forge="gitea")
WRONG, WRONG_TOO = "0" * 64, "f" * 64


@pytest.mark.parametrize(
    "headers",
    [
        {"x-gitea-signature": WRONG},
        {"x-gitea-signature": WRONG_TOO},
        {"x-forgejo-signature": WRONG_TOO},
        {"x-forgejo-signature": WRONG},
        {"x-hub-signature-256": "sha256=" + WRONG},
        {"x-gitea-signature": ""},
        {"x-gitea-signature": "", "x-forgejo-signature": "", "x-hub-signature-256": "sha256="},
        {"x-gitea-signature": "é" * 64, "x-forgejo-signature": "é" * 64, "x-hub-signature-256": "é" * 64},
    ],
)
def test_a_bad_signature_is_not_rescued_by_a_good_one(headers: dict[str, str]) -> None:
    """Whoever can make one of them hold can make all of them hold: one that does not was put there."""
    webhook = from_gitea(events_gitea.a_push(), is_forgejo=True)
    forged = Webhook({**webhook.headers, **headers}, webhook.body)

    with pytest.raises(BadSignature):
        Gitea().authenticate(forged, [GITEA])


@pytest.mark.parametrize("kept", ["x-gitea-signature", "x-forgejo-signature"])
def test_one_good_signature_is_enough(kept: str) -> None:
    """Versions differ in how many names they send."""
    webhook = from_gitea(events_gitea.a_push(), is_forgejo=True)
    headers: dict[str, Any] = {
        name: value for name, value in webhook.headers.items() if "signature" not in name or name == kept
    }

    assert Gitea().authenticate(Webhook(headers, webhook.body), [GITEA]) == GITEA


def test_the_signature_under_the_name_of_another_forge_alone_is_refused() -> None:
    """Then it was not Gitea that sent it."""
    webhook = from_gitea(events_gitea.a_push())
    headers = {name: value for name, value in webhook.headers.items() if name != "x-gitea-signature"}

    with pytest.raises(BadSignature, match="missing"):
        Gitea().authenticate(Webhook(headers, webhook.body), [GITEA])


def test_a_form_of_gitea_is_told_which_content_type_to_set() -> None:
    """The form is one of two choices when a webhook is added."""
    webhook = from_gitea(b"payload=%7B%7D", content_type="application/x-www-form-urlencoded")

    with pytest.raises(MalformedRequest, match="application/json"):
        Gitea().authenticate(webhook, [GITEA])
