"""The GitHub of the tests: it enforces the official description, rights, rates and limits, and remembers what it shows.

    async with github_server() as github:
        shop = github.add_repo("acme/shop")
        github.add_token("the-token")
        head = shop.commit({"a.py": b"print()"})
        ...
        assert shop.checks_of(head)["deltaci"]["conclusion"] == "success"

Leaving the block fails the test if any request broke the description (`violations`), unless it expects that.
"""

import hashlib
import hmac
import itertools
import ssl
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

import httpx
import msgspec

from tests.forge.servers.description import description
from tests.forge.servers.github_answers import GitHubAnswers, moment
from tests.forge.servers.github_rules import TOKEN_LIFE_MS, Account, App, Limits, Token, app_account
from tests.forge.servers.hosted import HostedRepo
from tests.forge.servers.wire import Answer, Asked, Route, Server, paged, route, serving

STATUSES_MAX = 1_000
FIELD_BYTES_MAX = 64 * 1024
ANNOTATION_TITLE_MAX = 255
KEPT_MS = 3 * 24 * 3_600_000


@dataclass
class Delivery:
    """A webhook that was sent, or was meant to be. `hook_id` None: the app's."""

    id: int
    guid: str
    event: str
    action: str | None
    body: bytes
    repo: HostedRepo | None
    delivered_at_ms: int
    hook_id: int | None
    status_code: int = 0
    is_redelivery: bool = False


class GitHubServer(GitHubAnswers, Server):
    """`app` may be set, to be attached as a GitHub App. `redelivered` is what was asked for again, by delivery id.

    `hook_url` and `hook_secret`: where webhooks go that `deliver` sends, or that somebody asks for again.
    """

    LONG_PARAMETERS = frozenset({"path", "ref", "basehead"})

    def __init__(self, now_ms: Callable[[], int]) -> None:
        super().__init__(now_ms)
        self.description = description()
        self.limits = Limits()
        self.app: App | None = None
        self.repos: dict[str, HostedRepo] = {}
        self.tokens: dict[str, Token] = {}
        self.installations: set[int] = set()
        self.deliveries: list[Delivery] = []
        self.redelivered: list[int] = []
        self.hook_url = ""
        self.hook_secret = ""
        self.ids = itertools.count(1_001)
        self._valid_answers: set[tuple[str, str, int]] = set()

    # ---- for tests -----------------------------------------------------------------------------------------------

    def add_repo(self, name: str, **fields: Any) -> HostedRepo:
        """A repository; `installation_id` says which installation of the app may see it."""
        made = self.repos[name.casefold()] = HostedRepo(name=name, id=next(self.ids), **fields)
        if made.installation_id:
            self.installations.add(made.installation_id)
        return made

    def add_token(self, token: str, *, login: str = "delta-bot", permissions: dict[str, str] | None = None) -> None:
        """A personal access token; without `permissions` it may do everything that tokens may."""
        self.tokens[token] = Token(Account("token", login, permissions=permissions))

    def revoke_tokens(self) -> None:
        """Forget every installation token given out."""
        self.tokens = {key: one for key, one in self.tokens.items() if one.account.kind == "token"}

    def record(
        self,
        event: str,
        payload: Mapping[str, Any],
        repo: HostedRepo | None = None,
        *,
        hook_id: int | None = None,
        status_code: int = 0,
        guid: str = "",
    ) -> Delivery:
        """Note a webhook of the app, or of the repository's hook, that arrived (`status_code` 2xx) or got lost."""
        number = next(self.ids)
        made = Delivery(
            id=number,
            guid=guid or f"00000000-0000-4000-8000-{number:012d}",
            event=event,
            action=payload.get("action"),
            body=msgspec.json.encode(payload),
            repo=repo,
            delivered_at_ms=self.now_ms(),
            hook_id=hook_id,
            status_code=status_code,
        )
        self.deliveries.append(made)
        return made

    async def deliver(self, delivery: Delivery) -> int:
        """Send a recorded webhook to `hook_url`, signed; the status of the answer, which is noted."""
        digest = hmac.digest(self.hook_secret.encode(), delivery.body, hashlib.sha256).hex()
        headers = {
            "content-type": "application/json",
            "x-github-event": delivery.event,
            "x-github-delivery": delivery.guid,
            "x-hub-signature-256": f"sha256={digest}",
        }
        # Loopback, without TLS: reading all authorities for each would take longer than all else.
        async with httpx.AsyncClient(trust_env=False, verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)) as client:
            answer = await client.post(self.hook_url, content=delivery.body, headers=headers)
        delivery.status_code = answer.status_code
        return answer.status_code

    async def deliver_again(self) -> None:
        """Send everything that was asked for again and not sent yet."""
        for delivery in [one for one in self.deliveries if one.is_redelivery and not one.status_code]:
            await self.deliver(delivery)

    # ---- what holds for every request ----------------------------------------------------------------------------

    def answer(self, asked: Asked) -> Answer:
        """See `Server`. The date is that of the server's own clock."""
        made = super().answer(asked)
        made.headers["date"] = format_datetime(datetime.fromtimestamp(self.now_ms() / 1000, UTC), usegmt=True)
        return made

    def routed(self, route: Route, asked: Asked) -> Answer:
        """Authenticate, count, validate, answer, and validate that."""
        account = self._account(asked)
        if isinstance(account, str):
            return Answer(401, {"message": account, "documentation_url": "https://docs.github.com/rest"})
        refusal = self.limits.refusal(account, asked)
        if refusal is not None:
            return refusal
        made = self._checked(route, asked, account)
        made.headers.update(self.limits.headers(account, asked.at_ms))
        if asked.method == "GET" and made.status == 200:
            tag = f'W/"{hashlib.sha256(made.encoded()).hexdigest()}"'
            made.headers["etag"] = tag
            if asked.headers.get("if-none-match") == tag:
                self.limits.give_back(account)
                return Answer(304, None, {**self.limits.headers(account, asked.at_ms), "etag": tag})
        return made

    def _checked(self, route: Route, asked: Asked, account: Account) -> Answer:
        repo = self._repo(asked, account)
        if "repo" in asked.params and repo is None:
            return Answer(404, {"message": "Not Found"})
        if not account.may(route.needs):
            return Answer(403, {"message": "Resource not accessible by integration"})
        is_body = asked.method in ("POST", "PATCH", "PUT") and asked.body
        try:
            body = asked.json() if is_body else None
        except msgspec.DecodeError:
            body = "not JSON"
        wrong = self.description.wrong_request(asked.method, route.template, asked.params, asked.query, body)
        if wrong:
            self.violations += [f"{asked.method} {asked.path}: {text}" for text in wrong]
            return Answer(422, {"message": "Validation Failed", "errors": [{"message": text} for text in wrong]})
        self._asker, self._asked_repo = account, repo
        made = route.handler(self, asked)
        if made.status < 300 and made.body is not None:
            self._complete(route, made)
        return made

    def _complete(self, route: Route, made: Answer) -> None:
        """Fill in what every answer has, and look once at each kind of them whether it is GitHub's."""
        made.body = self.description.completed(route.method, route.template, made.status, made.body)
        kind = (route.method, route.template, made.status)
        if kind not in self._valid_answers:
            wrong = self.description.wrong_answer(*kind, msgspec.json.decode(msgspec.json.encode(made.body)))
            assert wrong == [], f"the GitHub of the tests answers wrongly to {kind}: {wrong}"
            self._valid_answers.add(kind)

    def _account(self, asked: Asked) -> Account | str:
        kind, _, secret = asked.headers.get("authorization", "").partition(" ")
        if kind.lower() not in ("bearer", "token"):
            return "Requires authentication"
        if secret.count(".") == 2:
            return app_account(self.app, secret, self.now_ms)
        token = self.tokens.get(secret)
        if token is None or (token.expires_at_ms is not None and token.expires_at_ms <= asked.at_ms):
            return "Bad credentials"
        return token.account

    def _repo(self, asked: Asked, account: Account) -> HostedRepo | None:
        if "owner" not in asked.params:
            return None
        repo = self.repos.get(f"{asked.params['owner']}/{asked.params['repo']}".casefold())
        if repo is None or repo.is_gone:
            return None
        if account.kind == "installation" and repo.installation_id != account.installation_id:
            return None
        return repo if account.repos is None or repo.name in account.repos else None

    # ---- the app -------------------------------------------------------------------------------------------------

    @route("GET", "/app", "app")
    def get_app(self, asked: Asked) -> Answer:
        app = self._app()
        named = {"id": app.id, "slug": app.slug, "name": "Delta CI", "client_id": app.client_id}
        return Answer(200, {**named, "permissions": app.permissions, "events": list(app.events)})

    @route("GET", "/app/hook/config", "app")
    def get_hook_config(self, asked: Asked) -> Answer:
        return Answer(200, {"url": self._app().hook_url, "content_type": "json", "insecure_ssl": "0"})

    @route("GET", "/repos/{owner}/{repo}/installation", "app")
    def get_repo_installation(self, asked: Asked) -> Answer:
        repo = self._asked_repo
        if repo is None or not repo.installation_id:
            return Answer(404, {"message": "Not Found"})
        return Answer(200, self.installation(repo.installation_id, self._app()))

    @route("GET", "/app/installations/{installation_id}", "app")
    def get_installation(self, asked: Asked) -> Answer:
        number = int(asked.params["installation_id"])
        if number not in self.installations:
            return Answer(404, {"message": "Not Found"})
        return Answer(200, self.installation(number, self._app()))

    @route("POST", "/app/installations/{installation_id}/access_tokens", "app")
    def make_token(self, asked: Asked) -> Answer:
        number, wanted, app = int(asked.params["installation_id"]), asked.json(), self._app()
        if number not in self.installations:
            return Answer(404, {"message": "Not Found"})
        granted = {**wanted.get("permissions", app.permissions), "metadata": "read"}
        account = Account("installation", f"installation:{number}", permissions=app.permissions)
        if not all(account.may(f"{name}:{level}") for name, level in granted.items()):
            return Answer(422, {"message": "The permissions requested are not granted to this installation."})
        known = {one.name.split("/")[1]: one.name for one in self.repos.values() if one.installation_id == number}
        repos = None
        if "repositories" in wanted:
            if not set(wanted["repositories"]) <= set(known):
                return Answer(422, {"message": "There is at least one repository that does not exist"})
            repos = frozenset(known[name] for name in wanted["repositories"])
        secret = f"ghs_{next(self.ids)}{'x' * 60}"
        expires_at_ms = asked.at_ms // 1000 * 1000 + TOKEN_LIFE_MS
        made = Account("installation", f"installation:{number}", repos, granted, number)
        self.tokens[secret] = Token(made, expires_at_ms)
        return Answer(201, {"token": secret, "expires_at": moment(expires_at_ms), "permissions": granted})

    def _app(self) -> App:
        assert self.app is not None, "only an app may ask for this"
        return self.app

    # ---- deliveries ----------------------------------------------------------------------------------------------

    @route("GET", "/app/hook/deliveries", "app")
    def list_deliveries(self, asked: Asked) -> Answer:
        return self._deliveries(asked, None)

    @route("GET", "/repos/{owner}/{repo}/hooks/{hook_id}/deliveries", "token")
    def list_repo_deliveries(self, asked: Asked) -> Answer:
        return self._deliveries(asked, int(asked.params["hook_id"]))

    def _deliveries(self, asked: Asked, hook_id: int | None) -> Answer:
        kept = [one for one in self.deliveries if one.hook_id == hook_id]
        kept = [one for one in reversed(kept) if one.delivered_at_ms > asked.at_ms - KEPT_MS]
        size = min(100, int(asked.query.get("per_page", 30)))
        cursor = asked.query.get("cursor", "")
        start = next((index for index, one in enumerate(kept) if f"v1_{one.id}" == cursor), 0)
        headers = {}
        if len(kept) > start + size:
            after = f"v1_{kept[start + size].id}"
            headers["link"] = f'<{self.url}{asked.path}?per_page={size}&cursor={after}>; rel="next"'
        return Answer(200, [self.delivery(one) for one in kept[start : start + size]], headers)

    @route("POST", "/app/hook/deliveries/{delivery_id}/attempts", "app")
    def redeliver(self, asked: Asked) -> Answer:
        return self._redeliver(int(asked.params["delivery_id"]))

    @route("POST", "/repos/{owner}/{repo}/hooks/{hook_id}/deliveries/{delivery_id}/attempts", "token")
    def redeliver_of_repo(self, asked: Asked) -> Answer:
        return self._redeliver(int(asked.params["delivery_id"]))

    def _redeliver(self, number: int) -> Answer:
        found = next((one for one in self.deliveries if one.id == number), None)
        if found is None:
            return Answer(422, {"message": "Validation Failed"})
        self.redelivered.append(number)
        again = {"id": next(self.ids), "delivered_at_ms": self.now_ms(), "status_code": 0, "is_redelivery": True}
        self.deliveries.append(Delivery(**{**found.__dict__, **again}))
        return Answer(202, {})

    # ---- statuses and checks -------------------------------------------------------------------------------------

    @route("POST", "/repos/{owner}/{repo}/statuses/{sha}", "statuses:write")
    def set_status(self, asked: Asked) -> Answer:
        repo, sha, wanted = self._here(), asked.params["sha"], asked.json()
        if sha not in repo.commits:
            return Answer(422, {"message": f"No commit found for SHA: {sha}"})
        context = wanted.get("context", "default")
        if len(wanted.get("description") or "") > 140:
            return self._invalid(asked, "description is too long (maximum is 140 characters)")
        if sum((one["sha"], one["context"]) == (sha, context) for one in repo.statuses) >= STATUSES_MAX:
            return Answer(422, {"message": "This SHA and context has reached the maximum number of statuses."})
        made = {"id": next(self.ids), "sha": sha, "context": context, "state": wanted["state"]}
        made |= {"description": wanted.get("description"), "target_url": wanted.get("target_url")}
        repo.statuses.append(made)
        self.show(repo, "status", made, sha, context, wanted["state"])
        return Answer(201, {key: value for key, value in made.items() if key != "sha"})

    @route("POST", "/repos/{owner}/{repo}/check-runs", "checks:write")
    def create_check(self, asked: Asked) -> Answer:
        repo, wanted = self._here(), asked.json()
        if wanted["head_sha"] not in repo.commits:
            return Answer(422, {"message": f"No commit found for SHA: {wanted['head_sha']}"})
        blank = {"status": "queued", "conclusion": None, "started_at": None, "completed_at": None, "external_id": ""}
        made = {"id": next(self.ids), **blank, "details_url": None, "annotations": [], "actions": []}
        return self._change_check(asked, repo, made, 201)

    @route("PATCH", "/repos/{owner}/{repo}/check-runs/{check_run_id}", "checks:write")
    def update_check(self, asked: Asked) -> Answer:
        repo = self._here()
        found = repo.checks.get(int(asked.params["check_run_id"]))
        return Answer(404, {"message": "Not Found"}) if found is None else self._change_check(asked, repo, found, 200)

    def _change_check(self, asked: Asked, repo: HostedRepo, check: dict[str, Any], status: int) -> Answer:
        wanted = asked.json()
        output = wanted.pop("output", None)
        added = (output or {}).pop("annotations", [])
        for one in added:
            too_long = [name for name in ("message", "raw_details") if len(one.get(name, "")) > FIELD_BYTES_MAX]
            too_long += ["title"] if len(one.get("title", "")) > ANNOTATION_TITLE_MAX else []
            if too_long or one["start_line"] < 1 or one["end_line"] < one["start_line"]:
                return self._invalid(asked, f"annotations: {too_long or 'lines'} are not acceptable")
        if output is not None:
            check["output"] = output
        check["annotations"] = [*check["annotations"], *added]
        check.update(wanted)
        if wanted.get("conclusion"):
            check["status"] = "completed"
        repo.checks[check["id"]] = check
        self.show(repo, "check", check, check["head_sha"], check["name"], check["conclusion"] or check["status"])
        return Answer(status, self.check(check, self._app()))

    @route("GET", "/repos/{owner}/{repo}/check-runs/{check_run_id}", "checks:read")
    def get_check(self, asked: Asked) -> Answer:
        found = self._here().checks.get(int(asked.params["check_run_id"]))
        return Answer(404, {"message": "Not Found"}) if found is None else Answer(200, self.check(found, self._app()))

    @route("GET", "/repos/{owner}/{repo}/commits/{ref}/check-runs", "checks:read")
    def list_checks(self, asked: Asked) -> Answer:
        repo, name = self._here(), asked.query.get("check_name")
        every = [one for one in repo.checks.values() if one["head_sha"] == asked.params["ref"]]
        newest = {one["name"]: one["id"] for one in every}
        is_all = asked.query.get("filter") == "all"
        some = [one for one in every if name in (None, one["name"]) and (is_all or newest[one["name"]] == one["id"])]
        shown, headers = paged([self.check(one, self._app()) for one in some], asked, self.url)
        return Answer(200, {"total_count": len(some), "check_runs": shown}, headers)

    def _invalid(self, asked: Asked, text: str) -> Answer:
        self.violations.append(f"{asked.method} {asked.path}: {text}")
        return Answer(422, {"message": "Validation Failed", "errors": [{"message": text}]})

    # ---- comments, people, hooks ---------------------------------------------------------------------------------

    @route("GET", "/repos/{owner}/{repo}/issues/{issue_number}/comments", "pull_requests:read")
    def list_comments(self, asked: Asked) -> Answer:
        some = self._here().comments_on(int(asked.params["issue_number"]))
        shown, headers = paged([self.comment(one) for one in some], asked, self.url)
        return Answer(200, shown, headers)

    @route("POST", "/repos/{owner}/{repo}/issues/{issue_number}/comments", "pull_requests:write")
    def create_comment(self, asked: Asked) -> Answer:
        repo, number = self._here(), int(asked.params["issue_number"])
        if number not in repo.pulls:
            return Answer(404, {"message": "Not Found"})
        return self.wrote(asked, repo, next(self.ids), number, 201)

    @route("PATCH", "/repos/{owner}/{repo}/issues/comments/{comment_id}", "pull_requests:write")
    def update_comment(self, asked: Asked) -> Answer:
        repo, number = self._here(), int(asked.params["comment_id"])
        if number not in repo.comments:
            return Answer(404, {"message": "Not Found"})
        return self.wrote(asked, repo, number, repo.comments[number].number, 200)

    @route("GET", "/user", "token")
    def get_user(self, asked: Asked) -> Answer:
        return Answer(200, {**self.user(self._asker.name), "user_view_type": "private"})

    @route("GET", "/repos/{owner}/{repo}/collaborators/{username}/permission", "metadata:read")
    def get_permission(self, asked: Asked) -> Answer:
        repo, login = self._here(), asked.params["username"]
        role = repo.people.get(login, "none" if repo.is_private else "read")
        plain = {"maintain": "write", "triage": "read"}.get(role, role)
        return Answer(200, {"permission": plain, "role_name": role, "user": self.collaborator(login)})

    @route("GET", "/repos/{owner}/{repo}/hooks", "token")
    def list_hooks(self, asked: Asked) -> Answer:
        shown, headers = paged(self._here().hooks, asked, self.url)
        return Answer(200, shown, headers)

    # ---- contents ------------------------------------------------------------------------------------------------

    @route("GET", "/repos/{owner}/{repo}", "metadata:read")
    def get_repo(self, asked: Asked) -> Answer:
        return Answer(200, self.repository(self._here(), self._asker))

    @route("GET", "/repos/{owner}/{repo}/git/matching-refs/{ref}", "contents:read")
    def matching_refs(self, asked: Asked) -> Answer:
        wanted = f"refs/{asked.params['ref']}"
        refs = {f"refs/heads/{name}": sha for name, sha in sorted(self._here().branches.items())}
        return Answer(200, [self.ref(name, sha) for name, sha in refs.items() if name.startswith(wanted)])

    @route("GET", "/repos/{owner}/{repo}/pulls", "pull_requests:read")
    def list_pulls(self, asked: Asked) -> Answer:
        repo, state = self._here(), asked.query.get("state", "open")
        some = [one for one in repo.pulls.values() if state == "all" or one.is_open == (state == "open")]
        shown, headers = paged([self.pull(repo, one) for one in some], asked, self.url)
        return Answer(200, shown, headers)

    @route("GET", "/repos/{owner}/{repo}/pulls/{pull_number}", "pull_requests:read")
    def get_pull(self, asked: Asked) -> Answer:
        repo = self._here()
        found = repo.pulls.get(int(asked.params["pull_number"]))
        return Answer(404, {"message": "Not Found"}) if found is None else Answer(200, self.pull(repo, found))

    @route("GET", "/repos/{owner}/{repo}/compare/{basehead}", "contents:read")
    def compare(self, asked: Asked) -> Answer:
        old, _, new = asked.params["basehead"].partition("...")
        return self.comparison(self._here(), old, new)

    @route("GET", "/repos/{owner}/{repo}/git/trees/{tree_sha}", "contents:read")
    def get_tree(self, asked: Asked) -> Answer:
        return self.tree(self._here(), asked.params["tree_sha"])

    @route("GET", "/repos/{owner}/{repo}/contents/{path}", "contents:read")
    def get_contents(self, asked: Asked) -> Answer:
        return self.contents(self._here(), asked.query.get("ref", "main"), asked.params["path"])

    @route("GET", "/repos/{owner}/{repo}/git/blobs/{file_sha}", "contents:read")
    def get_blob(self, asked: Asked) -> Answer:
        return self.blob(self._here(), asked.params["file_sha"], b64encode)

    def _here(self) -> HostedRepo:
        assert self._asked_repo is not None, "the route has a repository"
        return self._asked_repo


@asynccontextmanager
async def github_server(
    *,
    now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    tls: ssl.SSLContext | None = None,
    expects_violations: bool = False,
) -> AsyncIterator[GitHubServer]:
    """A GitHub at `url`, as empty as a new one; skips the test where its description is not installed."""
    server = GitHubServer(now_ms)
    for one in server.routes:
        server.description.operation(one.method, one.template)  # no route that GitHub does not have
    async with serving(server, tls=tls, expects_violations=expects_violations):
        yield server
