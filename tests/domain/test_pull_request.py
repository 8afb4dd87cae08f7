"""What is kept of a pull request when an event tells less, or something older."""

from typing import Any

import msgspec

from deltaci.domain.pull_request import PullRequest, newer


def told_of(**more: Any) -> PullRequest:
    fields: dict[str, Any] = {
        "repo_id": "repo_1",
        "number": 7,
        "head_sha": "a" * 40,
        "head_ref": "refs/heads/topic",
        "base_ref": "refs/heads/main",
        "base_sha": "b" * 40,
    }
    return PullRequest(**fields | more)


def test_what_an_event_leaves_out_of_a_pull_request_stays_as_it_was_known() -> None:
    """GitLab tells neither the author nor the head of the target branch in every event."""
    known = told_of(author="mona", head_at_ms=3, updated_at_ms=5)
    told = told_of(author="", base_sha="", title="Add a cart", updated_at_ms=6)
    retargeted = msgspec.structs.replace(told, base_ref="refs/heads/next")

    assert newer(known, told) == msgspec.structs.replace(known, title="Add a cart", updated_at_ms=6)
    assert newer(known, retargeted) == msgspec.structs.replace(
        known, title="Add a cart", updated_at_ms=6, base_ref="refs/heads/next", base_sha=""
    )
    assert newer(known, msgspec.structs.replace(told, updated_at_ms=4)) is None
