"""What we read of GitHub's answers, and nothing else."""

from datetime import datetime

import msgspec

from deltaci.domain.pull_request import PullRequest
from deltaci.domain.repo import Repo
from deltaci.forge.webhook import AUTHOR_CHARACTERS_MAX, TITLE_CHARACTERS_MAX, one_line


class _Shape(msgspec.Struct, frozen=True, kw_only=True):
    pass


class Named(_Shape, frozen=True, kw_only=True):
    """A label or the like."""

    name: str = ""


class Person(_Shape, frozen=True, kw_only=True):
    """Somebody."""

    login: str


class Full(_Shape, frozen=True, kw_only=True):
    """A repository, inside of something."""

    full_name: str


class Side(_Shape, frozen=True, kw_only=True):
    """Head or base of a pull request; `repo` is null when the fork was deleted."""

    ref: str
    sha: str
    repo: Full | None = None


class Pull(_Shape, frozen=True, kw_only=True):
    """A pull request."""

    number: int
    state: str
    head: Side
    base: Side
    updated_at: datetime
    title: str = ""
    draft: bool = False
    user: Person | None = None
    labels: list[Named] = []


class Pointed(_Shape, frozen=True, kw_only=True):
    """What a ref points to."""

    sha: str


class Ref(_Shape, frozen=True, kw_only=True):
    """A branch."""

    ref: str
    object: Pointed


class Permission(_Shape, frozen=True, kw_only=True):
    """What somebody may do."""

    permission: str


class ComparedFile(_Shape, frozen=True, kw_only=True):
    """A file that differs."""

    filename: str
    previous_filename: str | None = None


class Compared(_Shape, frozen=True, kw_only=True):
    """A comparison with the point where both sides parted."""

    merge_base_commit: Pointed
    files: list[ComparedFile] = []


class TreeEntry(_Shape, frozen=True, kw_only=True):
    """A file, directory or submodule."""

    path: str
    mode: str
    type: str
    sha: str
    size: int | None = None


class Tree(_Shape, frozen=True, kw_only=True):
    """A recursive tree."""

    tree: list[TreeEntry]
    truncated: bool


class Contents(_Shape, frozen=True, kw_only=True):
    """A file; longer ones come without their content."""

    type: str
    sha: str
    size: int
    encoding: str = ""
    content: str = ""


class Blob(_Shape, frozen=True, kw_only=True):
    """The content of a file."""

    encoding: str
    content: str


class Output(_Shape, frozen=True, kw_only=True):
    """What a check shows."""

    annotations_count: int = 0


class Check(_Shape, frozen=True, kw_only=True):
    """A check run."""

    id: int
    external_id: str | None = None
    output: Output = Output()


class Checks(_Shape, frozen=True, kw_only=True):
    """A page of check runs."""

    check_runs: list[Check]


class Comment(_Shape, frozen=True, kw_only=True):
    """A comment at a pull request."""

    id: int
    body: str | None = None
    user: Person | None = None


class Hook(_Shape, frozen=True, kw_only=True):
    """A webhook of a repository."""

    id: int
    active: bool = True
    events: list[str] = []
    config: "HookConfig"


class HookConfig(_Shape, frozen=True, kw_only=True):
    """Where a webhook goes, and as what."""

    url: str = ""
    content_type: str = ""


class Delivery(_Shape, frozen=True, kw_only=True):
    """A webhook that was sent."""

    id: int
    guid: str
    delivered_at: datetime
    redelivery: bool
    status_code: int
    event: str
    action: str | None = None
    installation_id: int | None = None
    repository_id: int | None = None


class AppView(_Shape, frozen=True, kw_only=True):
    """The App, or an installation of it."""

    id: int
    permissions: dict[str, str] = {}
    events: list[str] = []
    slug: str = ""
    suspended_at: datetime | None = None


class RepositoryView(_Shape, frozen=True, kw_only=True):
    """A repository, as the asker sees it."""

    full_name: str
    private: bool = False
    permissions: dict[str, bool] = {}


def millis(at: datetime) -> int:
    """Milliseconds since the epoch."""
    return int(at.timestamp() * 1000)


def pull_request(repo: Repo, pull: Pull) -> PullRequest:
    """The pull request in our words."""
    head, base = pull.head, pull.base
    base_name = base.repo.full_name if base.repo is not None else repo.name
    labels = sorted(one_line(label.name, 100) for label in pull.labels if label.name)
    return PullRequest(
        repo_id=repo.id,
        number=pull.number,
        head_sha=head.sha,
        head_ref=f"refs/heads/{head.ref}",
        base_ref=f"refs/heads/{base.ref}",
        base_sha=base.sha,
        is_open=pull.state == "open",
        is_fork=head.repo is None or head.repo.full_name.casefold() != base_name.casefold(),
        is_draft=pull.draft,
        author=one_line(pull.user.login, AUTHOR_CHARACTERS_MAX) if pull.user is not None else "",
        title=one_line(pull.title, TITLE_CHARACTERS_MAX),
        labels=tuple(labels),
        updated_at_ms=millis(pull.updated_at),
    )
