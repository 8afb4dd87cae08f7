"""Who is let in: signatures over the raw body, before anything in it is looked at."""

import hashlib
import hmac

import pytest

from deltaci.domain.errors import BadSignature, MalformedRequest, NotFound
from deltaci.domain.repo import Repo
from deltaci.forge.git import PlainGit
from deltaci.forge.github_webhooks import GitHub
from deltaci.forge.webhook import Webhook, WebhookForge, signature
from tests.forge.hooks import a_git_push, a_push, a_repo, from_git, from_github

SHOP = a_repo()
PLAIN = a_repo("shop", forge="git")
FORGES: tuple[tuple[WebhookForge, Repo, Webhook, str], ...] = (
    (GitHub(), SHOP, from_github(a_push()), "x-hub-signature-256"),
    (PlainGit(), PLAIN, from_git(a_git_push()), "x-deltaci-signature"),
)
each_forge = pytest.mark.parametrize(("forge", "repo", "webhook", "header"), FORGES, ids=("github", "git"))


def with_header(webhook: Webhook, name: str, value: str | None) -> Webhook:
    headers = {key: kept for key, kept in webhook.headers.items() if key != name}
    return Webhook(headers if value is None else {**headers, name: value}, webhook.body)


@each_forge
def test_the_repository_whose_secret_signed_is_found(
    forge: WebhookForge, repo: Repo, webhook: Webhook, header: str
) -> None:
    """The way in for everything that is right."""
    others = [a_repo("acme/other", secret="x"), a_repo("other", secret="x", forge="git")]

    found = forge.authenticate(webhook, [*others, repo])

    assert found == repo


@each_forge
@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        "sha256=",
        "sha256=" + "0" * 63,
        "sha256=" + "0" * 64,
        "sha256=" + "0" * 65,
        "sha256=" + "g" * 64,
        "sha1=" + "0" * 40,
        "0" * 64,
        "sha256=" + "é" * 64,
        "sha256=" + "٣" * 64,
        "sha256=" + "0" * 64 + ", sha256=" + "1" * 64,
    ],
)
def test_a_missing_or_malformed_signature_is_refused(
    forge: WebhookForge, repo: Repo, webhook: Webhook, header: str, value: str | None
) -> None:
    """Nothing but a SHA-256 of the right length counts, and odd characters must not become a crash."""
    forged = with_header(webhook, header, value)

    with pytest.raises(BadSignature):
        forge.authenticate(forged, [repo])


@each_forge
def test_a_sha1_signature_alone_is_refused(forge: WebhookForge, repo: Repo, webhook: Webhook, header: str) -> None:
    """Old senders offer SHA-1 under another name: accepting it would be a way around SHA-256."""
    sha1 = "sha1=" + hmac.new(repo.secret.encode(), webhook.body, hashlib.sha1).hexdigest()
    forged = with_header(with_header(webhook, header, None), "x-hub-signature", sha1)

    with pytest.raises(BadSignature):
        forge.authenticate(forged, [repo])


@each_forge
def test_one_changed_byte_breaks_the_signature(forge: WebhookForge, repo: Repo, webhook: Webhook, header: str) -> None:
    """The signature is over the raw bytes: even a blank that JSON does not see counts."""
    changed = Webhook(webhook.headers, webhook.body + b" ")

    with pytest.raises(BadSignature):
        forge.authenticate(changed, [repo])


@each_forge
def test_a_body_is_not_parsed_before_its_signature_holds(
    forge: WebhookForge, repo: Repo, webhook: Webhook, header: str
) -> None:
    """Strangers must not reach the parser: what they send is a bad signature, whatever is in it."""
    nonsense = Webhook(webhook.headers, b"[" * 1_000_000)

    with pytest.raises(BadSignature):
        forge.authenticate(nonsense, [repo])


@each_forge
def test_an_unknown_repository_and_a_wrong_signature_get_the_same_answer(
    forge: WebhookForge, repo: Repo, webhook: Webhook, header: str
) -> None:
    """Otherwise anybody could find out which repositories are registered."""
    wrong = with_header(webhook, header, "sha256=" + "0" * 64)

    with pytest.raises(BadSignature) as of_a_known_one:
        forge.authenticate(wrong, [repo])
    with pytest.raises(BadSignature) as of_an_unknown_one:
        forge.authenticate(wrong, [])

    assert str(of_a_known_one.value) == str(of_an_unknown_one.value)


@each_forge
def test_an_empty_secret_signs_nothing(forge: WebhookForge, repo: Repo, webhook: Webhook, header: str) -> None:
    """A repository without a secret would be open to anybody who knows the algorithm."""
    unsafe = a_repo(repo.name, secret="", forge=repo.forge)
    signed = with_header(webhook, header, signature("", webhook.body))

    with pytest.raises(BadSignature):
        forge.authenticate(signed, [unsafe])


@each_forge
def test_a_repository_of_another_forge_is_passed_over(
    forge: WebhookForge, repo: Repo, webhook: Webhook, header: str
) -> None:
    """The same name and secret under another forge is another repository."""
    elsewhere = a_repo(repo.name, forge="git" if repo.forge == "github" else "github")

    with pytest.raises(BadSignature):
        forge.authenticate(webhook, [elsewhere])


def test_github_names_are_compared_without_regard_to_case() -> None:
    """GitHub's names are case-insensitive, and people type them as they like."""
    found = GitHub().authenticate(from_github(a_push()), [a_repo("Acme/Shop")])

    assert found.name == "Acme/Shop"


def test_a_signed_webhook_of_an_unregistered_repository_is_not_found() -> None:
    """Whoever knows a secret may be told what is missing."""
    webhook = from_github(a_push(repository={"full_name": "acme/new"}))

    with pytest.raises(NotFound, match="acme/new"):
        GitHub().authenticate(webhook, [SHOP])


def test_a_secret_of_one_repository_does_not_open_another() -> None:
    """Signed with the secret of `acme/a`, about `acme/shop`: the secret decides, not the body."""
    forged = from_github(a_push(), secret="secret of a")

    with pytest.raises(NotFound):
        GitHub().authenticate(forged, [SHOP, a_repo("acme/a", secret="secret of a")])


def test_one_secret_may_sign_for_many_repositories() -> None:
    """An organisation's hook has one secret; the body tells which repository it is about."""
    repos = [a_repo(f"acme/{name}", secret="shared") for name in ("a", "b", "c")]
    webhook = from_github(a_push(repository={"full_name": "acme/b"}), secret="shared")

    found = GitHub().authenticate(webhook, repos)

    assert found.name == "acme/b"


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"repository": null}', b'{"repository": {"full_name": 7}}', b"[" * 200_000, b"\xff"]
)
def test_a_signed_body_that_names_no_repository_is_malformed(body: bytes) -> None:
    """A signature says who wrote it, not that it makes sense."""
    with pytest.raises(MalformedRequest):
        GitHub().authenticate(from_github(body), [SHOP])


def test_a_form_encoded_webhook_is_told_which_content_type_to_set() -> None:
    """It is GitHub's default when a webhook is added by hand, so the answer must say what to change."""
    webhook = from_github(b"payload=%7B%7D", content_type="application/x-www-form-urlencoded")

    with pytest.raises(MalformedRequest, match="application/json"):
        GitHub().authenticate(webhook, [SHOP])
