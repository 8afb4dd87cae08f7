"""The one comment at a pull request: whether there should be one, and what it says. Pure.

Rule 1: it is written when it helps: something failed. When all is well again it says so, and it is never taken away.
Rule 2: only a run that is over has a word, and only the newest commit's: of two the older would have the last one.
"""

from typing import Final, Literal, TypeAlias

from deltaci.domain.states import RunState
from deltaci.reporter.ports import Snapshot
from deltaci.reporter.summary import Shown, of_comment
from deltaci.reporter.tellings import COMMENT, Rank, Telling, digest_of

# When a comment is written: never, when it helps, at the end of every run of a pull request.
Comments: TypeAlias = Literal["never", "helpful", "always"]
OVER: Final = frozenset({RunState.SUCCEEDED, RunState.FAILED, RunState.TIMED_OUT})


def marker(repo_id: str, number: int) -> str:
    """The hidden line that our comment is found by."""
    return f"<!-- deltaci {repo_id} {number} -->"


def comment_key(number: int) -> str:
    """Under which the forge's id of the comment is kept."""
    return f"comment:{number}"


def comment(snapshot: Snapshot, shown: Shown, comments: Comments) -> tuple[Telling, ...]:
    """The comment as it should be, or nothing to say."""
    run, known = snapshot.run, snapshot.pull_request
    number = run.trigger.pr_number
    if comments == "never" or run.trigger.kind != "pull_request" or number is None or run.state not in OVER:
        return ()
    if known is not None and known.head_sha != run.trigger.commit_sha:
        return ()
    is_open = known is None or known.is_open
    is_wanted = is_open and (comments == "always" or run.state is not RunState.SUCCEEDED)
    if not is_wanted and not snapshot.comment_id:
        return ()
    body = of_comment(shown, marker(snapshot.repo.id, number))
    return (
        Telling(
            check=COMMENT,
            state=shown.checks[-1].state,
            words=digest_of(body),
            is_final=True,
            rank=Rank.COMMENT,
            body=body,
        ),
    )
