"""When everything runs, whatever changed: what the author asked for, against what brought the run about."""

from typing import Final

import msgspec

from deltaci.domain.plan import Reason
from deltaci.planner.configuration.shape import FullRun
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
    if occasion.kind != "pull_request" and occasion.ref.startswith(BRANCH):
        branch = occasion.ref.removeprefix(BRANCH)
        pattern = Globs([f"/{one.removeprefix('/')}" for one in rules.branches]).match(branch)
        if pattern is not None:
            text = f"everything runs: it is on the branch {printable(branch)}, which matches {pattern[1:]!r}"
            return Reason(rule="full-run", text=text)
    return None
