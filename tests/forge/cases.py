"""What each event of each forge becomes: one table, which the tests read payloads against, and a page is made of."""

from typing import Any, NamedTuple

from deltaci.domain.events import Trigger
from deltaci.domain.requests import (
    AddRepos,
    Approve,
    CancelRuns,
    EndStream,
    RemoveRepo,
    RemoveRepos,
    RenameRepo,
    Request,
    RunAgain,
)
from deltaci.forge.webhook import Received

# In the words of docs/webhooks.md
WORDS: dict[type, str] = {
    Trigger: "a run",
    EndStream: "its runs are canceled",
    RunAgain: "a new attempt",
    CancelRuns: "its runs are canceled",
    Approve: "its held run goes on",
    RenameRepo: "the repository is renamed",
    RemoveRepo: "the repository is removed",
    AddRepos: "repositories are added",
    RemoveRepos: "repositories are removed",
    str: "nothing",
}


class Case(NamedTuple):
    """`what`: which of such events, for the page; `becomes`: the very outcome, or a part of the reason for none.

    `is_kept`: whether the pull request's row is told as well.
    """

    event: str
    what: str
    body: dict[str, Any]
    becomes: Trigger | Request | str
    is_kept: bool = False

    def check(self, received: Received) -> None:
        """Assert that it became what it should."""
        if isinstance(self.becomes, str):
            assert self.becomes in (received.ignored or ""), received
        else:
            assert self.becomes == (received.trigger or received.request)
        assert self.is_kept == (received.pull_request is not None)


def named(case: Case) -> str:
    """The name of a parametrized test."""
    return f"{case.event}-{case.what}".replace(" ", "_")
