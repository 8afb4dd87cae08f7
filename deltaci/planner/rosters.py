"""What a process that plans has told of rosters, as the server keeps it: what is known is not told again.

Rule: the server says what it has, the process leaves out that and nothing else. Neither remembers what the other knows.
"""

from collections import OrderedDict
from typing import Final

import msgspec

from deltaci.domain.plan import PlannedJob
from deltaci.planner.messages import Planned, Reply, Request
from deltaci.planner.roster import put_together

# Measured: a job takes 3 KB.
JOBS_MAX: Final = 10_000


class Rosters:
    """The last roster of each repository that one process told, as far as there is room."""

    def __init__(self, jobs_max: int = JOBS_MAX) -> None:
        """`jobs_max`: how many jobs are kept in all; the newest roster is kept whatever it has."""
        self._jobs_max = jobs_max
        self._kept: OrderedDict[str, tuple[int, tuple[PlannedJob, ...]]] = OrderedDict()

    def asking(self, request: Request) -> Request:
        """`request`, which says what need not be told."""
        number, _ = self._kept.get(request.directory, (None, ()))
        return msgspec.structs.replace(request, roster=number)

    def whole(self, request: Request, reply: Reply) -> Reply:
        """The reply to what `asking` answered, a plan with all its jobs.

        Raises:
            ValueError: it is of a roster that was not told, or does not fit it.
        """
        if not isinstance(reply, Planned) or reply.rest is None:
            return reply
        number, jobs = self._kept.pop(request.directory, (None, ()))
        if reply.jobs is not None:
            number, jobs = reply.rest.number, reply.jobs
        if number != reply.rest.number:
            raise ValueError(f"roster {reply.rest.number} was not told; the last one is {number}")
        self._kept[request.directory] = (number, jobs)
        self._forget()
        return Planned(number=reply.number, plan=put_together(reply.plan, reply.rest, jobs))

    def _forget(self) -> None:
        total = sum(len(jobs) for _, jobs in self._kept.values())
        while total > self._jobs_max and len(self._kept) > 1:
            _, (_, forgotten) = self._kept.popitem(last=False)
            total -= len(forgotten)
