"""What we ask of a forge over its API, whatever its kind; GitHub, GitLab and Gitea each answer in a file of their own.

Rule 1: every call raises `ForgeUnavailable` (ask again later, not before `retry_after_ms`) or `ForgeRejected` (never
        like this), and nothing else; the text says what was asked of which repository.
Rule 2: what a forge cuts off at one of its limits is not an answer: it is None with a reason; the caller expands.
Rule 3: only the address that is configured is ever asked: no redirect is followed, and no link to another host.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol, TypeAlias

import msgspec

from deltaci.domain.clone_credential import Credential as Credential
from deltaci.domain.pull_request import PullRequest
from deltaci.domain.repo import Repo
from deltaci.domain.requests import Right

# What a commit status may say, in our words; each forge has words of its own for them.
StatusState: TypeAlias = Literal["queued", "running", "success", "failure", "error", "canceled", "skipped"]


class _Answer(msgspec.Struct, frozen=True, kw_only=True):
    pass


class Changed(_Answer, frozen=True, kw_only=True):
    """The paths that differ between two commits, both names of a renamed file; None with why they are not known."""

    paths: tuple[str, ...] | None
    unknown_because: str = ""


class RemoteEntry(_Answer, frozen=True, kw_only=True):
    """A file of a commit. `mode` is git's (`100644`, `120000`, `160000`); `size` in bytes, None if not told."""

    path: str
    mode: str
    sha: str
    size: int | None = None


class RemoteTree(_Answer, frozen=True, kw_only=True):
    """All files of a commit; None with why they are not known."""

    entries: tuple[RemoteEntry, ...] | None
    unknown_because: str = ""


class Status(_Answer, frozen=True, kw_only=True):
    """One line that a forge shows at a commit. `context` names it; setting the same context again replaces it."""

    context: str
    state: StatusState
    description: str
    target_url: str = ""
    ref: str = ""


class Finding(_Answer, frozen=True, kw_only=True):
    """One thing that `deltaci doctor` looked at. `advice` says what to do when it is not as it should be."""

    what: str
    is_good: bool
    detail: str = ""
    advice: str = ""


class ForgeApi(Protocol):
    """One kind of forge, asked about one repository at a time."""

    async def pull_request(self, repo: Repo, number: int) -> PullRequest | None:
        """A pull or merge request as it is now; None if there is no such one."""
        ...

    async def open_pull_requests(self, repo: Repo) -> tuple[PullRequest, ...]:
        """All that are open now, over all pages, by number."""
        ...

    async def branch_heads(self, repo: Repo, patterns: Sequence[str]) -> Mapping[str, str]:
        """The commits of the branches that match one of `patterns` (globs of short names), by full ref name."""
        ...

    async def right_of(self, repo: Repo, login: str) -> Right:
        """What a person may do in the repository, by the forge's own rules."""
        ...

    async def changed_paths(self, repo: Repo, base_sha: str, head_sha: str) -> Changed:
        """What differs between two commits, without the history of either."""
        ...

    async def merge_base(self, repo: Repo, base_sha: str, head_sha: str) -> str | None:
        """The best common ancestor of two commits; None if there is none, or the forge does not say."""
        ...

    async def tree(self, repo: Repo, commit_sha: str) -> RemoteTree:
        """All files of a commit."""
        ...

    async def read_files(
        self, repo: Repo, commit_sha: str, paths: Sequence[str], *, bytes_max: int
    ) -> dict[str, bytes]:
        """The contents of those files that exist and are at most `bytes_max` long."""
        ...

    async def set_status(self, repo: Repo, commit_sha: str, status: Status) -> None:
        """Set a commit status; setting it again to the same changes nothing that people see."""
        ...

    async def put_comment(self, repo: Repo, number: int, body: str, *, marker: str, remote_id: str | None) -> str:
        """Write or rewrite our one comment at a pull request; its id.

        Args:
            marker: a hidden line that `body` holds: finds the comment when `remote_id` is not known or gone.
        """
        ...

    async def credential(self, repo: Repo) -> Credential | None:
        """What to clone with, made now if it does not last for ten minutes more; None for a public repository."""
        ...

    async def examine(self, repo: Repo) -> tuple[Finding, ...]:
        """Whether address, credentials, rights and webhook are what we need. Raises nothing: a failure is a finding."""
        ...
