"""Plans as tests ask for them: of files in memory, and of requests, without a process of their own."""

from collections.abc import Sequence
from typing import Any

from deltaci.domain.plan import Plan
from deltaci.planner.messages import Reply, Request, Start
from deltaci.planner.planner import Planner
from deltaci.planner.repository import Change, RepositoryView
from deltaci.planner.roster import put_together
from deltaci.planner.rosters import Rosters
from deltaci.planner.survey import Survey
from deltaci.planner.worker import Work


def planned(view: RepositoryView, changes: Sequence[Change] | None, **more: Any) -> Plan:
    """What `Planner.make` answers for `view` and what changed in it, put together; `more` is passed on."""
    plan, rest, roster = Planner().make(Survey(view), changes, **more)
    return plan if rest is None or roster is None else put_together(plan, rest, roster.jobs)


class Asker:
    """Asks for plans as the server does, without a process in between: what is known is not told again."""

    def __init__(self, start: Start) -> None:
        self.work = Work(start)
        self.rosters = Rosters()

    def reply(self, request: Request) -> Reply:
        """The reply, plans with all their jobs."""
        return self.rosters.whole(request, self.work.reply(self.rosters.asking(request)))
