"""GitHub, asked over its REST API: as our App where it is installed, with the repository's token otherwise.

Rule 1: what GitHub cuts off (300 files of a comparison, a truncated tree) is found out another way, or is unknown.
Rule 2: writing again changes nothing that people see: a check is found by its external id, a comment by its marker.
Rule 3: `gidgethub` is not used: it reads the clock itself, cannot narrow a token, bounds no answer and follows the
        links of an answer to any host; what is left of it is thinner than the client that all forges share.
"""

import binascii
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from fnmatch import fnmatchcase
from functools import partial
from typing import Final

import msgspec

from deltaci.domain.errors import ForgeRejected, ForgeUnavailable
from deltaci.domain.missed import RemoteDelivery
from deltaci.domain.pull_request import PullRequest
from deltaci.domain.repo import Repo
from deltaci.domain.requests import Right
from deltaci.forge import checks
from deltaci.forge import github_shapes as shapes
from deltaci.forge.access import literal_beginning, named
from deltaci.forge.answers import Answer, AnswerTooLong, read
from deltaci.forge.api import Changed, Credential, Finding, RemoteEntry, RemoteTree, Status, StatusState
from deltaci.forge.checks import CheckRun
from deltaci.forge.client import Ask, all_of, found_among
from deltaci.forge.github_access import GitHubAccess
from deltaci.forge.github_app import (
    CHECKS,
    COMMENTS,
    CONTENTS,
    METADATA,
    PULL_REQUESTS,
    STATUSES,
    Permissions,
)
from deltaci.forge.github_deliveries import GitHubDeliveries
from deltaci.forge.github_examine import examined
from deltaci.forge.trees import differing
from deltaci.forge.webhook import one_line

DESCRIPTION_CHARACTERS_MAX: Final = 140
COMMENT_CHARACTERS_MAX: Final = 65_535
COMPARED_FILES_MAX: Final = 300
COMPARED_BYTES_MAX: Final = 16 * 1024 * 1024
TREE_BYTES_MAX: Final = 32 * 1024 * 1024
REFS_BYTES_MAX: Final = 16 * 1024 * 1024
# What encoding as Base64 with line breaks makes of a byte, and the rest of the answer
BASE64_FACTOR: Final = 1.4
JSON_BYTES: Final = 64 * 1024

STATES: Final[Mapping[StatusState, str]] = {
    "queued": "pending",
    "running": "pending",
    "success": "success",
    "skipped": "success",
    "failure": "failure",
    "error": "error",
    "canceled": "error",
}
RIGHTS: Final[Mapping[str, Right]] = {"admin": "admin", "write": "write", "read": "read"}


class GitHubApi:
    """See `ForgeApi`; checks and deliveries are GitHub's own."""

    def __init__(self, access: GitHubAccess, *, hook_url: str = "") -> None:
        """`hook_url`: where GitHub should send its webhooks, to find ours among those of a repository."""
        self._access = access
        self._hook_url = hook_url
        self._deliveries = GitHubDeliveries(access, hook_url)
        self._logins: dict[str, str] = {}

    @property
    def has_app(self) -> bool:
        """Whether we are an App there, whose deliveries can be listed."""
        return self._access.app is not None

    def is_app(self, repo: Repo) -> bool:
        """Whether the repository's results are checks (our App is installed) or statuses (a token)."""
        return self._access.is_app(repo)

    def account(self, repo: Repo) -> str:
        """What the repository's writes are counted for in the `WriteBudget`."""
        return self._access.account(repo)

    # ---- requests and branches -----------------------------------------------------------------------------------

    async def pull_request(self, repo: Repo, number: int) -> PullRequest | None:
        """See `ForgeApi`."""
        ask = self._ask(repo, f"look at pull request {number} of {named(repo)}", "pulls", number, accepts={404})
        answer = await self._access.send(repo, ask, PULL_REQUESTS)
        if answer.status == 404:
            return None
        return shapes.pull_request(repo, read(answer, shapes.Pull, asked=ask.asked))

    async def open_pull_requests(self, repo: Repo) -> tuple[PullRequest, ...]:
        """See `ForgeApi`."""
        query = {"state": "open", "sort": "created", "direction": "asc", "per_page": "100"}
        ask = self._ask(repo, f"list the open pull requests of {named(repo)}", "pulls", query=query)
        pages = self._access.pages(repo, ask, PULL_REQUESTS, list[shapes.Pull])
        found = {one.number: shapes.pull_request(repo, one) async for page in pages for one in page}
        return tuple(found[number] for number in sorted(found))

    async def branch_heads(self, repo: Repo, patterns: Sequence[str]) -> Mapping[str, str]:
        """See `ForgeApi`."""
        heads = {}
        for prefix in sorted({literal_beginning(pattern) for pattern in patterns}):
            asked = f"list the branches of {named(repo)}"
            segments = [segment for segment in prefix.split("/") if segment]
            ask = self._ask(repo, asked, "git", "matching-refs", "heads", *segments, bytes_max=REFS_BYTES_MAX)
            async for page in self._access.pages(repo, ask, CONTENTS, list[shapes.Ref]):
                heads.update({one.ref: one.object.sha for one in page if one.ref.startswith("refs/heads/")})
        return {
            ref: sha
            for ref, sha in sorted(heads.items())
            if any(fnmatchcase(ref.removeprefix("refs/heads/"), pattern) for pattern in patterns)
        }

    async def right_of(self, repo: Repo, login: str) -> Right:
        """See `ForgeApi`. Roles made by an organisation count as what they are built on."""
        asked = f"look at what {one_line(login, 100)} may do in {named(repo)}"
        ask = self._ask(repo, asked, "collaborators", login, "permission", accepts={404})
        answer = await self._access.send(repo, ask, METADATA)
        if answer.status == 404:
            return "none"
        return RIGHTS.get(read(answer, shapes.Permission, asked=asked).permission, "none")

    # ---- contents ------------------------------------------------------------------------------------------------

    async def changed_paths(self, repo: Repo, base_sha: str, head_sha: str) -> Changed:
        """See `ForgeApi`. By comparison where that is all of it, otherwise by both trees."""
        compared = await self._compared(repo, base_sha, head_sha)
        # A comparison is with the commit where both parted: if that is not the base, it lacks the changes of the base.
        is_whole = compared is not None and compared.merge_base_commit.sha == base_sha
        if compared is not None and is_whole and len(compared.files) < COMPARED_FILES_MAX:
            names = {name for one in compared.files for name in (one.filename, one.previous_filename) if name}
            return Changed(paths=tuple(sorted(names)))
        old, new = await all_of([partial(self.tree, repo, sha) for sha in (base_sha, head_sha)])
        return differing(old, new)

    async def merge_base(self, repo: Repo, base_sha: str, head_sha: str) -> str | None:
        """The newest commit that both have in their history; None if GitHub does not say."""
        compared = await self._compared(repo, base_sha, head_sha)
        return None if compared is None else compared.merge_base_commit.sha

    async def _compared(self, repo: Repo, base_sha: str, head_sha: str) -> shapes.Compared | None:
        """The comparison; None if GitHub has none, or none that we would read."""
        asked = f"compare {base_sha} with {head_sha} of {named(repo)}"
        ask = self._ask(
            repo,
            asked,
            "compare",
            f"{base_sha}...{head_sha}",
            query={"per_page": "1"},
            accepts={404},
            bytes_max=COMPARED_BYTES_MAX,
        )
        try:
            answer = await self._access.send(repo, ask, CONTENTS)
        except AnswerTooLong:
            return None
        return None if answer.status == 404 else read(answer, shapes.Compared, asked=asked)

    async def tree(self, repo: Repo, commit_sha: str) -> RemoteTree:
        """See `ForgeApi`."""
        asked = f"list the files of {named(repo)}@{commit_sha}"
        query = {"recursive": "1"}
        ask = self._ask(
            repo, asked, "git", "trees", commit_sha, query=query, accepts={404, 409}, bytes_max=TREE_BYTES_MAX
        )
        try:
            answer = await self._access.send(repo, ask, CONTENTS)
        except AnswerTooLong:
            return RemoteTree(entries=None, unknown_because=f"the tree of {commit_sha} is larger than we would read")
        if answer.status in (404, 409):
            return RemoteTree(entries=None, unknown_because=f"GitHub knows no commit {commit_sha}")
        tree = read(answer, shapes.Tree, asked=asked)
        if tree.truncated:
            return RemoteTree(entries=None, unknown_because=f"GitHub cuts off the tree of {commit_sha}")
        files = (entry for entry in tree.tree if entry.type != "tree")
        entries = (RemoteEntry(path=one.path, mode=one.mode, sha=one.sha, size=one.size) for one in files)
        return RemoteTree(entries=tuple(entries))

    async def read_files(
        self, repo: Repo, commit_sha: str, paths: Sequence[str], *, bytes_max: int
    ) -> dict[str, bytes]:
        """See `ForgeApi`. A link is read as what it leads to."""
        return await found_among(paths, lambda path: self._read_file(repo, commit_sha, path, bytes_max))

    async def _read_file(self, repo: Repo, commit_sha: str, path: str, bytes_max: int) -> bytes | None:
        asked = f"read {one_line(path, 200)} of {named(repo)}@{commit_sha}"
        ask = self._ask(
            repo,
            asked,
            "contents",
            *path.split("/"),
            query={"ref": commit_sha},
            accepts={404},
            bytes_max=int(bytes_max * BASE64_FACTOR) + JSON_BYTES,
        )
        try:
            answer = await self._access.send(repo, ask, CONTENTS)
            if answer.status == 404 or answer.body.lstrip()[:1] == b"[":  # a list: it is a directory
                return None
            contents = read(answer, shapes.Contents, asked=asked)
            if contents.type != "file" or contents.size > bytes_max:
                return None
            if contents.encoding != "base64":
                blob = self._ask(repo, asked, "git", "blobs", contents.sha, bytes_max=ask.bytes_max)
                given = read(await self._access.send(repo, blob, CONTENTS), shapes.Blob, asked=asked)
                return _from_base64(given.content, asked)
            return _from_base64(contents.content, asked)
        except AnswerTooLong:
            return None

    # ---- what we tell --------------------------------------------------------------------------------------------

    async def set_status(self, repo: Repo, commit_sha: str, status: Status) -> None:
        """See `ForgeApi`. GitHub takes 1,000 of a commit and context."""
        asked = f"set the status {status.context} to {status.state} on {named(repo)}@{commit_sha}"
        body = {
            "state": STATES[status.state],
            "context": status.context,
            "description": one_line(status.description, DESCRIPTION_CHARACTERS_MAX),
        } | ({"target_url": status.target_url} if status.target_url else {})
        await self._write(repo, asked, "statuses", commit_sha, body=body, permissions=STATUSES, is_repeatable=True)

    async def put_check(self, repo: Repo, check: CheckRun, *, remote_id: str | None) -> str:
        """Create the check, or make the one that `remote_id` names this one; its id.

        Called again after an error it goes on where it was: no second check, no annotation twice.

        Raises:
            ForgeUnavailable: try again later; some annotations may be there already.
            ForgeRejected: it will never work like this.
        """
        asked = f"set the check {check.name} to {check.conclusion or check.status} on {named(repo)}@{check.head_sha}"
        shown = await self._shown(repo, check, remote_id, asked)
        if shown is not None:
            count = shown.output.annotations_count
            rest = check.annotations[count : count + checks.ANNOTATIONS_A_REQUEST]
            shown = await self._change(repo, shown.id, checks.changed(check, rest), asked, is_repeatable=not rest)
        if shown is None:
            answer = await self._write(repo, asked, "check-runs", body=checks.created(check), permissions=CHECKS)
            shown = read(answer, shapes.Check, asked=asked)
        while (body := checks.appended(check, shown.output.annotations_count)) is not None:
            before, shown = shown, await self._change(repo, shown.id, body, asked, is_repeatable=False)
            if shown is None or shown.output.annotations_count <= before.output.annotations_count:
                raise ForgeUnavailable(f"cannot {asked}: GitHub does not take its annotations")
        return str(shown.id)

    async def _shown(self, repo: Repo, check: CheckRun, remote_id: str | None, asked: str) -> shapes.Check | None:
        """The check as GitHub shows it, with the number of its annotations if it matters; None if there is none."""
        if remote_id is not None and not check.annotations:
            return shapes.Check(id=_number(remote_id, asked))
        if remote_id is not None:
            ask = self._ask(repo, asked, "check-runs", _number(remote_id, asked), accepts={404})
            answer = await self._access.send(repo, ask, CHECKS)
            return None if answer.status == 404 else read(answer, shapes.Check, asked=asked)
        # An earlier try may have made it without our hearing of it.
        query = {"check_name": check.name, "filter": "latest"}
        ask = self._ask(repo, asked, "commits", check.head_sha, "check-runs", query=query)
        listed = read(await self._access.send(repo, ask, CHECKS), shapes.Checks, asked=asked).check_runs
        return next((one for one in listed if one.external_id == check.external_id), None)

    async def _change(
        self, repo: Repo, check_id: int, body: object, asked: str, *, is_repeatable: bool
    ) -> shapes.Check | None:
        answer = await self._write(
            repo,
            asked,
            "check-runs",
            check_id,
            method="PATCH",
            body=body,
            permissions=CHECKS,
            accepts={404},
            is_repeatable=is_repeatable,
        )
        return None if answer.status == 404 else read(answer, shapes.Check, asked=asked)

    async def put_comment(self, repo: Repo, number: int, body: str, *, marker: str, remote_id: str | None) -> str:
        """See `ForgeApi`. Only a comment of our own is rewritten, whoever copies the marker."""
        asked = f"comment on pull request {number} of {named(repo)}"
        text = {"body": body[:COMMENT_CHARACTERS_MAX]}
        known = _number(remote_id, asked) if remote_id is not None else None
        for comment_id in (known, None):
            found = comment_id if comment_id is not None else await self._own_comment(repo, number, marker, asked)
            if found is None:
                break
            answer = await self._write(
                repo,
                asked,
                "issues",
                "comments",
                found,
                method="PATCH",
                body=text,
                permissions=COMMENTS,
                accepts={404},
                is_repeatable=True,
            )
            if answer.status != 404:
                return str(found)
        answer = await self._write(repo, asked, "issues", number, "comments", body=text, permissions=COMMENTS)
        return str(read(answer, shapes.Comment, asked=asked).id)

    async def _own_comment(self, repo: Repo, number: int, marker: str, asked: str) -> int | None:
        ask = self._ask(repo, asked, "issues", number, "comments", query={"per_page": "100"})
        me = await self._login(repo)
        async with aclosing(self._access.pages(repo, ask, COMMENTS, list[shapes.Comment])) as pages:
            async for page in pages:
                for one in page:
                    is_ours = me is None or (one.user is not None and one.user.login.casefold() == me)
                    if is_ours and marker in (one.body or ""):
                        return one.id
        return None

    async def _login(self, repo: Repo) -> str | None:
        """Under which name we write; None if the token may not know."""
        account = self._access.account(repo)
        if account in self._logins:
            return self._logins[account]
        asked = f"look at who writes to {named(repo)}"
        if self.is_app(repo) and self._access.app is not None:
            answer = await self._access.app.send(Ask(path="/app", asked=asked))
            login = f"{read(answer, shapes.AppView, asked=asked).slug}[bot]"
        else:
            try:
                answer = await self._access.send(repo, Ask(path="/user", asked=asked), METADATA)
            except ForgeRejected:
                return None
            login = read(answer, shapes.Person, asked=asked).login
        self._logins[account] = login.casefold()
        return login.casefold()

    # ---- credentials, deliveries, doctor -------------------------------------------------------------------------

    async def credential(self, repo: Repo) -> Credential | None:
        """See `ForgeApi`."""
        return await self._access.credential(repo)

    async def deliveries(self, repo: Repo | None, since_ms: int) -> tuple[RemoteDelivery, ...]:
        """The webhooks that GitHub sent or tried to send since then, newest first: the App's, or those of a repository.

        GitHub keeps them for three days.

        Raises:
            ForgeUnavailable: try again later.
            ForgeRejected: there is no App, or the repository has no webhook that leads here.
        """
        return await self._deliveries.since(repo, since_ms)

    async def redeliver(self, repo: Repo | None, delivery_id: int) -> None:
        """Have GitHub send a webhook again, under the same GUID; raises as `deliveries`."""
        await self._deliveries.again(repo, delivery_id)

    async def examine(self, repo: Repo) -> tuple[Finding, ...]:
        """See `ForgeApi`."""
        return await examined(self._access, repo, self._hook_url)

    # ---- asking --------------------------------------------------------------------------------------------------

    def _ask(
        self,
        repo: Repo,
        asked: str,
        *segments: str | int,
        query: Mapping[str, str] | None = None,
        accepts: set[int] | None = None,
        bytes_max: int | None = None,
    ) -> Ask:
        ask = Ask(
            path=self._access.path(repo, *segments, asked=asked),
            asked=asked,
            query=query or {},
            accepts=frozenset(accepts or ()),
        )
        return ask if bytes_max is None else msgspec.structs.replace(ask, bytes_max=bytes_max)

    async def _write(
        self,
        repo: Repo,
        asked: str,
        *segments: str | int,
        body: object,
        permissions: Permissions,
        method: str = "POST",
        accepts: set[int] | None = None,
        is_repeatable: bool = False,
    ) -> Answer:
        ask = msgspec.structs.replace(
            self._ask(repo, asked, *segments, accepts=accepts),
            method=method,
            body=msgspec.json.encode(body),
            is_repeatable=is_repeatable,
        )
        return await self._access.send(repo, ask, permissions)


def _number(remote_id: str, asked: str) -> int:
    if not (remote_id.isascii() and remote_id.isdigit()):
        raise ForgeRejected(f"cannot {asked}: {remote_id!r} is no id of GitHub")
    return int(remote_id)


def _from_base64(text: str, asked: str) -> bytes:
    try:
        return binascii.a2b_base64(text.encode("ascii"))
    except (binascii.Error, UnicodeEncodeError) as error:
        raise ForgeUnavailable(f"cannot {asked}: the content is not Base64") from error
