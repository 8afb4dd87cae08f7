"""Whose runs are held, what an approval is of, and what a stranger's code is told."""

import msgspec
import pytest

from deltaci.domain import run as runs
from deltaci.domain import trust
from deltaci.domain.events import Trigger
from deltaci.domain.repo import Approval, Repo
from deltaci.domain.requests import Approve
from deltaci.domain.run import Run
from deltaci.domain.trust import Clearance
from tests.domain.builders import A_FORK_KEY, A_FORK_TRIGGER, A_TRIGGER, a_held_run, accepted

HELD = Clearance("approval")
FREE = Clearance()
SHA = "c" * 40


def a_repo(approval: Approval) -> Repo:
    return Repo(
        id="repo_1", name="a/b", forge="github", clone_url="https://x/y", secret="s", created_at_ms=0, approval=approval
    )


def cleared(
    approval: Approval, trigger: Trigger = A_FORK_TRIGGER, *, earlier: Run | None = None, known: bool
) -> object:
    return trust.clearance(a_repo(approval), trigger, earlier=earlier, is_author_known=known)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(
    ("approval", "of_a_stranger", "of_a_known_author"),
    [("none", FREE, FREE), ("first_time", HELD, FREE), ("forks", HELD, HELD)],
)
def test_the_setting_says_whose_forks_are_held(
    approval: Approval, of_a_stranger: Clearance, of_a_known_author: Clearance, known: bool
) -> None:
    """`first_time` asks once an author, `forks` at every commit."""
    assert cleared(approval, known=known) == (of_a_known_author if known else of_a_stranger)


@pytest.mark.parametrize("approval", ["first_time", "forks"])
def test_what_comes_from_the_repository_itself_is_never_held(approval: Approval) -> None:
    """Whoever may push to it needs nobody's approval."""
    ours = msgspec.structs.replace(A_FORK_TRIGGER, is_fork=False)

    assert cleared(approval, A_TRIGGER, known=False) == cleared(approval, ours, known=False) == FREE


def test_nobody_is_known_without_a_name() -> None:
    """What is not known holds."""
    nameless = msgspec.structs.replace(A_FORK_TRIGGER, author="")

    assert cleared("first_time", nameless, known=True) == HELD


@pytest.mark.parametrize("approval", ["first_time", "forks"])
def test_a_commit_that_was_approved_runs_again_and_one_that_was_not_is_held_again(approval: Approval) -> None:
    """Asking again approves nothing; also where the earlier attempt was approved because one before it was."""
    never = a_held_run()
    approved = accepted(runs.step(never, runs.Approve(by="alice"), now_ms=0))
    third = a_held_run(approved_by="alice")

    assert cleared(approval, earlier=never, known=False) == HELD
    assert cleared(approval, earlier=approved, known=False) == Clearance("approval", "alice")
    assert cleared(approval, earlier=third, known=False) == Clearance("approval", "alice")


def test_the_approval_of_another_commit_is_none() -> None:
    """A push after the approval is held again, whoever made it."""
    approved = a_held_run(approved_by="alice")
    pushed = msgspec.structs.replace(A_FORK_TRIGGER, commit_sha="d" * 40)

    assert cleared("forks", pushed, earlier=approved, known=True) == HELD


def test_only_an_approval_makes_an_author_known() -> None:
    """That a run of theirs is there says nothing."""
    assert trust.approved_author(a_held_run()) == ""
    assert trust.approved_author(a_held_run(approved_by="alice")) == "mallory"


def approval(*, commit_sha: str = "", at_ms: int = 0, pr_number: int = 7) -> Approve:
    return Approve(by="alice", right="write", pr_number=pr_number, commit_sha=commit_sha, at_ms=at_ms)


@pytest.mark.parametrize(("at_ms", "is_meant"), [(0, False), (99, False), (100, False), (101, True)])
def test_a_comment_means_only_what_was_there_when_it_was_written(at_ms: int, is_meant: bool) -> None:
    """A push after the reading cannot sneak in; a comment of unknown age approves nothing."""
    held = a_held_run(now_ms=100)

    assert (trust.meant_by(approval(at_ms=at_ms), held) == "") is is_meant


@pytest.mark.parametrize(
    ("commit_sha", "why"),
    [
        (SHA, ""),
        ("d" * 40, f"it is of commit {SHA}"),
        (SHA[:12], f"{SHA[:12]} is not a whole commit id"),
        ("C" * 40, f"{'C' * 40} is not a whole commit id"),
    ],
)
def test_a_commit_that_is_named_is_the_only_one_meant(commit_sha: str, why: str) -> None:
    """Named whole, for a part of an id can be made to fit another commit; then its age does not matter."""
    assert trust.meant_by(approval(commit_sha=commit_sha), a_held_run(now_ms=100)) == why


def test_an_approval_is_of_its_own_pull_request_and_of_what_waits() -> None:
    """Neither of the same commit elsewhere, nor of what goes on already."""
    elsewhere = approval(commit_sha=SHA, pr_number=8)
    going_on = a_held_run(approved_by="bob")

    assert A_FORK_KEY.pr_number == 7
    assert trust.meant_by(elsewhere, a_held_run()) == "it is not one of the pull request that waits"
    assert trust.meant_by(approval(commit_sha=SHA), going_on) == "it is not one of the pull request that waits"


@pytest.mark.parametrize(
    ("clone_url", "told"),
    [
        ("https://user:token@forge.example/a/b.git", "https://forge.example/a/b.git"),
        ("https://token@forge.example:8443/a@b", "https://forge.example:8443/a@b"),
        ("http://forge.example/a@b:c", "http://forge.example/a@b:c"),
        ("https://a:p@ss@forge.example/a", "https://forge.example/a"),
        ("ssh://git:secret@forge.example/a", "ssh://git@forge.example/a"),
        ("ssh://git@forge.example:22/a", "ssh://git@forge.example:22/a"),
        ("git@forge.example:a/b.git", "git@forge.example:a/b.git"),
        ("file:///srv/a@b:c@d", "file:///srv/a@b:c@d"),
    ],
)
def test_an_address_for_strangers_holds_no_credentials(clone_url: str, told: str) -> None:
    """The user of an ssh address is how the forge is reached, and no secret."""
    assert trust.without_password(clone_url) == told
