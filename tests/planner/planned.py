"""The plan of a commit whose files are in memory."""

from collections.abc import Sequence
from typing import Any

from deltaci.domain.plan import Plan
from deltaci.planner.planner import Planner
from deltaci.planner.repository import Change, RepositoryView
from deltaci.planner.survey import Survey


def planned(view: RepositoryView, changes: Sequence[Change] | None, **more: Any) -> Plan:
    """What `Planner.make` answers for `view` and what changed in it; `more` is passed on."""
    return Planner().make(Survey(view), changes, **more)
