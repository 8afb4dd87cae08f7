"""The hook, run by git itself, against a real server."""

import os
import subprocess
from pathlib import Path

import pytest

from deltaci.domain.errors import ConfigError
from deltaci.domain.repo import Repo
from deltaci.domain.requests import EndStream
from deltaci.forge.git import PlainGit, install_hook, post_receive_hook
from deltaci.forge.webhook import Received, Webhook
from tests.forge.hooks import a_repo
from tests.forge.loopback import Asked, Loopback, Say, serving

REPO: Repo = a_repo("team/shop \"'$x", forge="git", secret="top secret")
RUN = Say(202, body=b'{"run_id": "run_1"}')


class Checkout:
    """A clone whose origin is a bare repository with our hook."""

    def __init__(self, root: Path) -> None:
        self.bare, self.work, self.secret = root / "shop.git", root / "work", root / "secret file"
        self.secret.write_text(REPO.secret + "\n")
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(root),
            "GIT_CONFIG_NOSYSTEM": "1",
            **{f"GIT_{who}_{what}": "mona" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
        }
        self.git("init", "-q", "--bare", "-b", "main", str(self.bare), cwd=root)
        self.git("init", "-q", "-b", "main", str(self.work), cwd=root)
        self.git("remote", "add", "origin", str(self.bare))

    def git(self, *arguments: str, cwd: Path | None = None) -> str:
        done = subprocess.run(
            ["git", *arguments], cwd=cwd or self.work, env=self.environment, capture_output=True, text=True, check=True
        )
        return done.stdout.strip() + done.stderr

    def commit(self, title: str) -> str:
        self.git("commit", "-q", "--allow-empty", "-m", title)
        return self.git("rev-parse", "HEAD")

    def hook_to(self, server: Loopback | str) -> None:
        url = server if isinstance(server, str) else server.url
        install_hook(self.bare, post_receive_hook(url, REPO.name, self.secret))


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def received(asked: Asked) -> Received:
    webhook = Webhook(asked.headers, asked.body)
    return PlainGit().read(webhook, PlainGit().authenticate(webhook, [REPO]))


@pytest.mark.slow
def test_a_push_arrives_signed_and_the_pusher_reads_the_run(checkout: Checkout) -> None:
    """The whole way: git runs the hook, the hook signs, the forge reads, the pusher is told."""
    sha = checkout.commit("Add a cart")
    with serving(RUN) as server:
        checkout.hook_to(server)
        told = checkout.git("push", "origin", "main")

    (asked,) = server.asked
    assert asked.path == "/api/v1/webhooks/git"
    assert "remote: Delta CI: refs/heads/main: run run_1" in told
    trigger = received(asked).trigger
    assert trigger is not None
    assert (trigger.commit_sha, trigger.base_sha, trigger.title, trigger.author) == (sha, None, "Add a cart", "mona")


@pytest.mark.slow
def test_a_retry_is_the_same_delivery(checkout: Checkout) -> None:
    """A server that restarts under the push gets it again, and can tell that it is the same."""
    checkout.commit("one")
    with serving(Say(503), Say(503, headers={"Retry-After": "0"}), RUN) as server:
        checkout.hook_to(server)
        told = checkout.git("push", "origin", "main")

    assert "run run_1" in told
    assert len(server.asked) == 3
    assert len({(asked.body, asked.headers["x-deltaci-delivery"]) for asked in server.asked}) == 1


@pytest.mark.slow
def test_pushing_back_and_forth_gives_new_deliveries_each_time(checkout: Checkout) -> None:
    """A to B, back to A, and to B again: the third push looks like the first and is none of its repeats."""
    first, second = checkout.commit("A"), checkout.commit("B")
    with serving(RUN) as server:
        checkout.git("push", "-q", "origin", f"{first}:refs/heads/main")
        checkout.hook_to(server)
        for sha in (second, first, second):
            checkout.git("push", "-q", "--force", "origin", f"{sha}:refs/heads/main")

    triggers = [received(asked).trigger for asked in server.asked]
    assert [(second, False), (first, True), (second, False)] == [
        (trigger.commit_sha, trigger.is_forced) for trigger in triggers if trigger is not None
    ]
    assert len({asked.headers["x-deltaci-delivery"] for asked in server.asked}) == 3
    assert len({asked.body for asked in server.asked}) == 3


@pytest.mark.slow
def test_every_branch_and_tag_of_a_push_is_a_delivery(checkout: Checkout) -> None:
    """An annotated tag is told by the commit behind it; notes start nothing, and deletions end what runs."""
    sha = checkout.commit("one")
    checkout.git("tag", "-a", "v1", "-m", "first")
    checkout.git("notes", "add", "-m", "a note")
    checkout.git("branch", "old")
    with serving(RUN) as server:
        checkout.git("push", "-q", "origin", "old")
        checkout.hook_to(server)
        checkout.git("push", "origin", "main", "v1", "refs/notes/commits", ":old")

    by_ref = {asked.json()["ref"]: received(asked) for asked in server.asked}
    assert {"refs/heads/main", "refs/heads/old", "refs/tags/v1"} == by_ref.keys()
    assert by_ref["refs/heads/old"].request == EndStream(stream="branch:old", because="the branch old was deleted")
    tag = by_ref["refs/tags/v1"].trigger
    assert tag is not None
    assert (tag.commit_sha, tag.stream) == (sha, "tag:v1")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("say", "told"),
    [
        (
            Say(401, body=b'{"error": {"code": "bad_signature", "message": "bad signature", "details": {}}}'),
            "was refused: bad signature (401)",
        ),
        (Say(302, headers={"Location": "http://127.0.0.1:1/"}), "was refused: the server answered (302)"),
        (Say(202, body=b'{"ignored": "no jobs"}'), "no run: no jobs"),
        (Say(200, body=b"[" * 60_000), "no run: accepted"),
        (Say(202, body=b'{"run_id": "run_1\\u001b[31m\\nx"}'), "run run_1[31mx"),
    ],
)
def test_a_push_never_fails_and_the_pusher_reads_why(checkout: Checkout, say: Say, told: str) -> None:
    """The commits are in the repository already: all that is left is to say what became of them."""
    checkout.commit("one")
    with serving(say) as server:
        checkout.hook_to(server)
        said = checkout.git("push", "origin", "main")

    assert f"remote: Delta CI: refs/heads/main{' ' if told.startswith('was') else ': '}{told}" in said
    assert len(server.asked) == 1


@pytest.mark.slow
def test_a_server_that_is_gone_costs_patience_and_nothing_else(checkout: Checkout) -> None:
    """After the time is up the push ends, and says that nobody knows of it."""
    checkout.commit("one")
    with serving() as server:
        gone = server.url
    text = post_receive_hook(gone, REPO.name, checkout.secret)
    install_hook(checkout.bare, text.replace("PATIENCE_SECONDS = 30.0", "PATIENCE_SECONDS = 0.4"))

    said = checkout.git("push", "origin", "main")

    assert "refs/heads/main was not delivered: ConnectionRefusedError" in said


@pytest.mark.slow
def test_a_secret_that_cannot_be_read_is_reported(checkout: Checkout) -> None:
    """A wrong path must not be found out weeks later."""
    checkout.commit("one")
    checkout.hook_to("http://127.0.0.1:9")
    checkout.secret.unlink()

    said = checkout.git("push", "origin", "main")

    assert "cannot be read" in said


def test_a_foreign_hook_is_not_overwritten(tmp_path: Path) -> None:
    """Somebody may depend on it."""
    bare = Checkout(tmp_path).bare
    foreign = bare / "hooks" / "post-receive"
    foreign.parent.mkdir(exist_ok=True)
    foreign.write_text("#!/bin/sh\nexit 0\n")

    with pytest.raises(ConfigError, match="was not written by Delta CI"):
        install_hook(bare, post_receive_hook("http://h", "shop", tmp_path / "secret"))

    assert foreign.read_text() == "#!/bin/sh\nexit 0\n"


def test_our_own_hook_is_replaced(tmp_path: Path) -> None:
    """Installing again is how an address or a secret is changed."""
    bare = Checkout(tmp_path).bare
    install_hook(bare, post_receive_hook("http://old", "shop", tmp_path / "secret"))

    hook = install_hook(bare, post_receive_hook("http://new", "shop", tmp_path / "secret"))

    assert "http://new" in hook.read_text()
    assert os.access(hook, os.X_OK)
    assert [hook.name] == [path.name for path in hook.parent.iterdir() if not path.name.endswith(".sample")]


@pytest.mark.parametrize("python", ["python3", "", '/usr/bin/py"thon', "/usr/bin/$(id)", "/usr/bin/py`id`", "/a\nb"])
def test_an_interpreter_that_a_script_cannot_carry_is_refused(python: str) -> None:
    """It is written into a shell script."""
    with pytest.raises(ConfigError):
        post_receive_hook("http://h", "shop", Path("/secret"), python=python)


def test_a_hook_is_only_installed_into_a_bare_repository(tmp_path: Path) -> None:
    """Anywhere else it would never be run."""
    with pytest.raises(ConfigError, match="not a bare git repository"):
        install_hook(tmp_path, "text")


def test_a_relative_secret_file_is_refused() -> None:
    """Git runs hooks from inside the repository."""
    with pytest.raises(ConfigError, match="must be absolute"):
        post_receive_hook("http://h", "shop", Path("secret"))
