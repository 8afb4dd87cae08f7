"""When everything runs, whatever changed: what the author asked for, against what brought the run about."""

from collections.abc import Sequence
from typing import Final

import msgspec

from deltaci.domain.plan import NotifyRule, Reason
from deltaci.planner.configuration.shape import FullRun, Notification
from deltaci.planner.errors import printable
from deltaci.planner.globs import Globs

BRANCH: Final = "refs/heads/"


class Occasion(msgspec.Struct, frozen=True, kw_only=True):
    """What brought a run about: `kind` as in `Trigger`, the ref it is about, the labels of its pull request."""

    kind: str = "push"
    ref: str = ""
    labels: tuple[str, ...] = ()


NO_OCCASION: Final = Occasion()


def full_run(rules: FullRun, occasion: Occasion) -> Reason | None:
    """Why everything runs on this occasion, or None if what changed decides."""
    if occasion.kind == "schedule" and rules.is_scheduled:
        return Reason(rule="full-run", text="everything runs: this is a scheduled run")
    for label in occasion.labels:
        if label in rules.labels:
            return Reason(rule="full-run", text=f"everything runs: the pull request has the label {printable(label)!r}")
    pattern = _matching(rules.branches, occasion)
    if pattern is not None:
        branch = occasion.ref.removeprefix(BRANCH)
        text = f"everything runs: it is on the branch {printable(branch)}, which matches {pattern!r}"
        return Reason(rule="full-run", text=text)
    return None


def notify_rules(notifications: Sequence[Notification], occasion: Occasion) -> tuple[NotifyRule, ...]:
    """Who is told how a run ends that is made on this occasion, in the order of the file."""
    return tuple(
        NotifyRule(channel=one.channel, on=one.on)
        for one in notifications
        if one.branches is None or _matching(one.branches, occasion) is not None
    )


def _matching(branches: Sequence[str], occasion: Occasion) -> str | None:
    """The pattern that matches the branch of the occasion; None also if it is about no branch."""
    if occasion.kind == "pull_request" or not occasion.ref.startswith(BRANCH):
        return None
    pattern = Globs([f"/{one.removeprefix('/')}" for one in branches]).match(occasion.ref.removeprefix(BRANCH))
    return None if pattern is None else pattern[1:]
