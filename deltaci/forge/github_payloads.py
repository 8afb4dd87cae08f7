"""The fields that we read of GitHub's payloads, and nothing else."""

from deltaci.forge.payloads import Label, Number, Payload


class Named(Payload, frozen=True, kw_only=True):
    """A repository by its name, with where it can be cloned from."""

    full_name: str = ""
    clone_url: str = ""
    ssh_url: str = ""


class AnyEvent(Payload, frozen=True, kw_only=True):
    """What an event is about, if it is about a repository."""

    repository: Named | None = None


class Person(Payload, frozen=True, kw_only=True):
    """An account (`login`), or the author of a commit (`name`, `username`). `type`: `User`, `Bot`, ..."""

    login: str | None = None
    name: str | None = None
    username: str | None = None
    type: str | None = None


# ---- code --------------------------------------------------------------------------------------------------------


class Commit(Payload, frozen=True, kw_only=True):
    """The commit at the head of a push."""

    id: str
    message: str | None = None
    author: Person | None = None


class Push(Payload, frozen=True, kw_only=True):
    """`push`."""

    ref: str
    before: str
    after: str
    deleted: bool = False
    forced: bool = False
    head_commit: Commit | None = None
    pusher: Person | None = None


class DeleteEvent(Payload, frozen=True, kw_only=True):
    """`delete`: `ref` is a short name."""

    ref: str
    ref_type: str


class MergeGroup(Payload, frozen=True, kw_only=True):
    """What the merge queue made of some pull requests. Both refs are full names."""

    head_sha: str
    head_ref: str
    base_sha: str
    base_ref: str
    head_commit: Commit | None = None


class MergeGroupEvent(Payload, frozen=True, kw_only=True):
    """`merge_group`. `reason`: why it was destroyed."""

    action: str
    merge_group: MergeGroup
    reason: str | None = None


class Side(Payload, frozen=True, kw_only=True):
    """The head or the base of a pull request. `ref` is a short name; `repo` is null when the fork was deleted."""

    sha: str
    ref: str
    repo: Named | None = None


class PullRequest(Payload, frozen=True, kw_only=True):
    """A pull request."""

    head: Side
    base: Side
    labels: list[Label] | None = None
    title: str | None = None
    user: Person | None = None
    state: str = "open"
    draft: bool = False
    merged: bool | None = None
    updated_at: str | None = None


class Changes(Payload, frozen=True, kw_only=True):
    """What an edit changed; `base`: another base branch."""

    base: dict[str, object] | None = None


class PullRequestEvent(Payload, frozen=True, kw_only=True):
    """`pull_request`."""

    repository: Named
    action: str
    number: Number
    pull_request: PullRequest
    changes: Changes | None = None


# ---- what people ask for -----------------------------------------------------------------------------------------


class App(Payload, frozen=True, kw_only=True):
    """The app that a check is of."""

    id: int = 0
    client_id: str | None = None

    def is_called(self, app_id: str) -> bool:
        """Whether `app_id` is its id or its client id; any is if that is empty."""
        return not app_id or app_id in (str(self.id), self.client_id)


class Numbered(Payload, frozen=True, kw_only=True):
    """A pull request by its number."""

    number: Number


class Check(Payload, frozen=True, kw_only=True):
    """A check run. `external_id` is what its app calls it."""

    head_sha: str
    external_id: str | None = None
    app: App | None = None
    pull_requests: list[Numbered] = []


class RequestedAction(Payload, frozen=True, kw_only=True):
    """The button that was pressed."""

    identifier: str = ""


class CheckRunEvent(Payload, frozen=True, kw_only=True):
    """`check_run`."""

    action: str
    check_run: Check
    requested_action: RequestedAction | None = None
    sender: Person | None = None


class CheckSuite(Payload, frozen=True, kw_only=True):
    """All checks of an app at a commit."""

    head_sha: str
    app: App | None = None


class CheckSuiteEvent(Payload, frozen=True, kw_only=True):
    """`check_suite`."""

    action: str
    check_suite: CheckSuite
    sender: Person | None = None


class Issue(Payload, frozen=True, kw_only=True):
    """An issue, or a pull request if `pull_request` is there, in any shape."""

    number: Number
    pull_request: object = None


class Comment(Payload, frozen=True, kw_only=True):
    """A comment. `performed_via_github_app`: the app that wrote it, in any shape."""

    body: str | None = None
    user: Person | None = None
    created_at: str | None = None
    performed_via_github_app: object = None


class CommentEvent(Payload, frozen=True, kw_only=True):
    """`issue_comment`."""

    action: str
    issue: Issue
    comment: Comment


# ---- repositories and installations ------------------------------------------------------------------------------


class From(Payload, frozen=True, kw_only=True, rename={"old": "from"}):
    """What a name was before."""

    old: str = ""


class RenamedTo(Payload, frozen=True, kw_only=True):
    """The change of a repository's name."""

    name: From | None = None


class FromOwner(Payload, frozen=True, kw_only=True):
    """Whose a repository was."""

    user: Person | None = None
    organization: Person | None = None


class OwnerChange(Payload, frozen=True, kw_only=True, rename={"old": "from"}):
    """The change of a repository's owner."""

    old: FromOwner | None = None


class Moved(Payload, frozen=True, kw_only=True):
    """What a repository's event changed."""

    repository: RenamedTo | None = None
    owner: OwnerChange | None = None

    @property
    def old_name(self) -> str:
        """Its short name before; empty if that did not change."""
        return self.repository.name.old if self.repository is not None and self.repository.name is not None else ""

    @property
    def old_owner(self) -> str:
        """The login of its owner before; empty if that did not change."""
        before = self.owner.old if self.owner is not None else None
        owner = None if before is None else before.user or before.organization
        return "" if owner is None else owner.login or ""


class RepositoryEvent(Payload, frozen=True, kw_only=True):
    """`repository`."""

    action: str
    repository: Named
    changes: Moved | None = None


class Installation(Payload, frozen=True, kw_only=True):
    """Our app in an account."""

    id: Number


class Installable(Payload, frozen=True, kw_only=True):
    """A repository that an installation sees."""

    full_name: str
    private: bool = False


class InstallationEvent(Payload, frozen=True, kw_only=True):
    """`installation` and `installation_repositories`."""

    action: str
    installation: Installation
    repositories: list[Installable] | None = None
    repositories_added: list[Installable] | None = None
    repositories_removed: list[Installable] | None = None
