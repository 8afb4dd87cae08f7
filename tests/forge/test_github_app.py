"""The GitHub App: who it says it is, and tokens that are narrow, fresh, fetched once, and kept out of sight."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat

from deltaci.domain.errors import ConfigError, ForgeRejected, ForgeUnavailable
from deltaci.domain.repo import Repo
from deltaci.forge.github_access import GitHubAccess
from deltaci.forge.github_api import GitHubApi
from deltaci.forge.github_app import CHECKS, CONTENTS, STATUSES, GitHubApp, load_private_key
from tests.forge.asking import START_MS, VirtualTime, asking
from tests.forge.certificates import app_key, pem_of, public_pem
from tests.forge.hooks import a_repo
from tests.forge.servers.github import GitHubServer, github_server
from tests.forge.servers.github_rules import App
from tests.forge.servers.wire import Fault

pytestmark = pytest.mark.anyio
TOKENS = "POST /app/installations/7/access_tokens"
HOUR_MS = 3_600_000


@asynccontextmanager
async def an_app(time: VirtualTime, *, ahead_ms: int = 0) -> AsyncIterator[tuple[GitHubServer, GitHubApp, Repo]]:
    """An App that is installed on `acme/shop`; our clock is `ahead_ms` before GitHub's."""
    async with github_server(now_ms=lambda: time.at_ms - ahead_ms) as github, asking(time) as client:
        github.app = App(public_key=public_pem(app_key()))
        github.add_repo("acme/shop", installation_id=7)
        app = GitHubApp(client, time, api_url=github.url, client_id="4711", private_key=app_key())
        yield github, app, a_repo(installation_id=7)


async def test_a_token_is_for_one_repository_and_one_purpose_and_kept() -> None:
    """One that leaks may do little; one for each request would spend the rate."""
    async with an_app(VirtualTime()) as (github, app, repo):
        tokens = [await app.token(repo, permissions) for permissions in (CHECKS, CHECKS, CONTENTS)]

        assert tokens[0] == tokens[1] != tokens[2]
        assert tokens[0].expires_at_ms == START_MS + HOUR_MS
        assert [one.json() for one in github.asked_for(TOKENS)] == [
            {"repositories": ["shop"], "permissions": {"checks": "write"}},
            {"repositories": ["shop"], "permissions": {"contents": "read"}},
        ]


async def test_a_token_is_renewed_ten_minutes_before_its_end() -> None:
    """Whoever gets one can use it for that long."""
    time = VirtualTime()
    async with an_app(time) as (_, app, repo):
        first = await app.token(repo, CHECKS)
        time.at_ms += HOUR_MS - 600_000
        same = await app.token(repo, CHECKS)
        time.at_ms += 1
        renewed = await app.token(repo, CHECKS)

        assert (first == same, first == renewed) == (True, False)
        assert renewed.expires_at_ms > time.at_ms + 600_000


async def test_a_token_that_cannot_be_renewed_is_used_to_its_end() -> None:
    """An outage of ten minutes is not noticed."""
    time = VirtualTime()
    async with an_app(time) as (github, app, repo):
        first = await app.token(repo, CHECKS)
        github.fault_of = lambda asked: Fault(status=503, headers={"retry-after": "60"})
        time.at_ms += HOUR_MS - 300_000

        assert await app.token(repo, CHECKS) == first
        time.at_ms += 300_000
        with pytest.raises(ForgeUnavailable, match="get a token for acme/shop of the installation 7"):
            await app.token(repo, CHECKS)


async def test_a_hundred_who_need_a_token_at_once_fetch_one() -> None:
    """A run of a hundred jobs starts like that."""
    async with an_app(VirtualTime()) as (github, app, repo):
        found = set()

        async def get() -> None:
            found.add((await app.token(repo, CHECKS)).secret)

        async with anyio.create_task_group() as group:
            for _ in range(100):
                group.start_soon(get)

        assert (len(found), len(github.asked_for(TOKENS))) == (1, 1)


async def test_a_token_that_is_refused_is_fetched_anew_once() -> None:
    """Somebody suspended and resumed the App; a second refusal is the answer."""
    time = VirtualTime()
    async with an_app(time) as (github, app, repo):
        access = GitHubAccess(app._client, time, api_url=github.url, app=app)
        api = GitHubApi(access)
        await api.right_of(repo, "alice")
        github.revoke_tokens()

        assert await api.right_of(repo, "alice") == "read"
        assert len(github.asked_for(TOKENS)) == 2
        github.fail_next(*[Fault(status=401, body=b"{}")] * 2, on="GET /repos")
        with pytest.raises(ForgeRejected, match="answered 401"):
            await api.right_of(repo, "alice")
        assert len(github.asked_for(TOKENS)) == 3


@pytest.mark.parametrize("ahead_ms", [5 * HOUR_MS, -5 * HOUR_MS, 0])
async def test_a_clock_that_is_hours_off_is_no_hindrance(ahead_ms: int) -> None:
    """After a start ours may be ahead of the wall; GitHub refuses a proof from another time, and says which it is."""
    time = VirtualTime()
    async with an_app(time, ahead_ms=ahead_ms) as (github, app, repo):
        token = await app.token(repo, CHECKS)

        assert abs(token.expires_at_ms - time.at_ms - HOUR_MS) <= 1_000
        assert len(github.asked_for(TOKENS)) == (2 if ahead_ms else 1)


async def test_a_permission_that_the_app_lacks_is_told_and_keeps_nothing_else() -> None:
    """Tokens of one purpose: what is not granted does not take the rest away."""
    async with an_app(VirtualTime()) as (github, app, repo):
        assert github.app is not None
        del github.app.permissions["statuses"]

        with pytest.raises(ForgeRejected, match="not granted"):
            await app.token(repo, STATUSES)
        assert (await app.token(repo, CHECKS)).secret


async def test_the_apps_tokens_go_to_its_own_address_alone() -> None:
    """A repository may name another one; that is asked with the repository's token, or not at all."""
    time = VirtualTime()
    async with an_app(time) as (github, app, repo), github_server(now_ms=time.now_ms) as other:
        api = GitHubApi(GitHubAccess(app._client, time, api_url=github.url, app=app))
        elsewhere = a_repo(installation_id=7, report_to=other.url)

        assert (api.is_app(repo), api.is_app(elsewhere), api.is_app(a_repo())) == (True, False, False)
        with pytest.raises(ForgeRejected, match="the repository has no API token"):
            await api.right_of(elsewhere, "alice")
        assert other.asked == []


async def test_no_secret_is_in_a_text() -> None:
    """Texts are stored, shown and logged."""
    async with an_app(VirtualTime()) as (github, app, repo):
        token = await app.token(repo, CHECKS)
        github.fault_of = lambda asked: Fault(status=422, body=asked.headers["authorization"].encode())

        with pytest.raises(ForgeRejected) as caught:
            await app.token(repo, CONTENTS)

        assert token.secret not in repr(token)
        assert "Bearer ***" in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        b"no key",
        b"",
        ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        ec.generate_private_key(ec.SECP256R1()).private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")
        ),
    ],
    ids=["text", "empty", "another kind", "passphrase"],
)
def test_a_file_that_holds_no_key_of_github_is_told_at_the_start(tmp_path: Path, content: bytes) -> None:
    """With the setting's name, and nothing of what the file holds."""
    file = tmp_path / "app.pem"
    file.write_bytes(content)

    with pytest.raises(ConfigError, match=r"github\.private_key_file is '.*app\.pem'"):
        load_private_key(file, setting="github.private_key_file")
    with pytest.raises(ConfigError, match="No such file"):
        load_private_key(tmp_path / "none", setting="github.private_key_file")


def test_a_key_of_github_is_read(tmp_path: Path) -> None:
    """As it is downloaded."""
    file = tmp_path / "app.pem"
    file.write_bytes(pem_of(app_key()))

    assert load_private_key(file, setting="x").key_size == 2_048
