"""What an event of a forge asks for, where it is more than "run this commit". Acted on after it is in the ledger.

Rule 1: a request says who asks and what right that takes; whether they have it is asked of the forge, not of the event.
Rule 2: acting on a request again changes nothing: it is fenced by what is stored, or by the key of its delivery.
"""

from typing import Final, Literal, TypeAlias, assert_never

import msgspec

Right: TypeAlias = Literal["none", "read", "write", "admin"]
RIGHTS: Final[tuple[Right, ...]] = ("none", "read", "write", "admin")
# How an outcome begins that changed nothing: the request may be acted on once more, when somebody asks for that.
REFUSED: Final = "refused: "


class _Request(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type", tag=True):
    pass


class EndStream(_Request, frozen=True, kw_only=True):
    """What the runs of `stream` are for is gone: a pull request was closed, a branch deleted, a queue entry left.

    `because` is half a sentence for people: "pull request 12 was closed".
    """

    stream: str
    because: str


class RunAgain(_Request, frozen=True, kw_only=True):
    """Somebody asks for a new attempt: by a check's button, or `/retest`.

    Exactly one of `run_id`, `commit_sha` and `pr_number` says of what: the run of a check of ours, every newest run of
    a commit, or the newest run of a pull request's head. `job_id`: only that job, and what depends on it.
    """

    by: str
    right: Right
    is_failed_only: bool = False
    run_id: str = ""
    job_id: str = ""
    commit_sha: str = ""
    pr_number: int | None = None


class CancelRuns(_Request, frozen=True, kw_only=True):
    """Somebody asks to stop: the run of a check of ours, or all live runs of a pull request (`/cancel`)."""

    by: str
    right: Right
    run_id: str = ""
    pr_number: int | None = None


class Approve(_Request, frozen=True, kw_only=True):
    """Somebody lets the held run of a pull request go on: of `commit_sha` alone, or of the head if that is empty.

    A comment names no commit: then `at_ms` (when it was written) keeps a commit that came later from being approved.
    A check of ours names its run: the forge does not tell the pull request of a fork's commit, so `pr_number` may then
    be 0 for "that of `run_id`".
    """

    by: str
    right: Right
    pr_number: int = 0
    commit_sha: str = ""
    at_ms: int = 0
    run_id: str = ""


class RenameRepo(_Request, frozen=True, kw_only=True):
    """The repository has another name or address now."""

    name: str
    clone_url: str = ""


class RemoveRepo(_Request, frozen=True, kw_only=True):
    """The repository is gone, or we may not see it any more. `because` is half a sentence for people."""

    because: str


class AddRepos(_Request, frozen=True, kw_only=True):
    """An installation of our app may see these repositories now; those it saw before if `repos` is empty."""

    installation_id: int
    repos: tuple["InstalledRepo", ...]


class RemoveRepos(_Request, frozen=True, kw_only=True):
    """An installation of our app may not see these any more; all of its repositories if `names` is None."""

    installation_id: int
    names: tuple[str, ...] | None
    because: str


class InstalledRepo(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an installation event tells of a repository."""

    name: str
    is_private: bool = False


Request: TypeAlias = EndStream | RunAgain | CancelRuns | Approve | RenameRepo | RemoveRepo | AddRepos | RemoveRepos


def is_enough(has: Right, needed: Right) -> bool:
    """Whether somebody with the right `has` may do what takes `needed`."""
    return RIGHTS.index(has) >= RIGHTS.index(needed)


def is_done(outcome: str | None) -> bool:
    """Whether a request with this outcome was acted on: then it never is again."""
    return outcome is not None and not outcome.startswith(REFUSED)


def in_words(request: Request) -> str:
    """What is asked, for people: half a sentence that never changes, for it is the answer to the delivery."""
    match request:
        case EndStream():
            return f"end what runs: {request.because}"
        case RunAgain():
            jobs = "what failed of " if request.is_failed_only else f"{request.job_id} of " if request.job_id else ""
            return f"run {jobs}{_of_what(request)} again, for {request.by}"
        case CancelRuns():
            return f"cancel {_of_what(request)}, for {request.by}"
        case Approve():
            return f"let pull request {request.pr_number} run at {request.commit_sha or 'its head'}, for {request.by}"
        case RenameRepo():
            return f"call the repository {request.name}"
        case RemoveRepo():
            return f"build the repository no more: {request.because}"
        case AddRepos():
            return f"register {', '.join(repo.name for repo in request.repos) or 'nothing'}"
        case RemoveRepos():
            names = "all of an installation" if request.names is None else ", ".join(request.names) or "nothing"
            return f"build no more: {names}; {request.because}"
        case _:
            assert_never(request)


def _of_what(request: RunAgain | CancelRuns) -> str:
    if request.run_id:
        return f"run {request.run_id}"
    if request.pr_number is not None:
        return f"pull request {request.pr_number}"
    return f"commit {request.commit_sha}" if isinstance(request, RunAgain) and request.commit_sha else "its run"
