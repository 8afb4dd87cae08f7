"""What is owed to the world once a state is stored. Delivered at least once, under a key the receiver can deduplicate.

Rule: owing the same key again before it was delivered is one debt: receivers read the committed state, not the effect.
"""

from typing import TypeAlias

import msgspec

from deltaci.domain.events import Cause
from deltaci.domain.states import EndReason


class _Effect(msgspec.Struct, frozen=True, tag_field="kind", tag=True):
    pass


class PlanRun(_Effect, frozen=True):
    """Make a plan for the run and tell it."""

    run_id: str

    @property
    def key(self) -> str:
        """Unique among all debts."""
        return f"plan:{self.run_id}"


class AnalyzeAttempt(_Effect, frozen=True):
    """Explain why the attempt failed."""

    job_id: str
    attempt: int

    @property
    def key(self) -> str:
        """Unique among all debts."""
        return f"analyze:{self.job_id}:{self.attempt}"


class ReportRun(_Effect, frozen=True):
    """Bring the forge to what is committed for the run and its jobs."""

    run_id: str

    @property
    def key(self) -> str:
        """Unique among all debts."""
        return f"report:{self.run_id}"


class KeepRecipe(_Effect, frozen=True):
    """Let the end of the run count for the recipe of its repository."""

    run_id: str

    @property
    def key(self) -> str:
        """Unique among all debts."""
        return f"recipe:{self.run_id}"


class ActOnDelivery(_Effect, frozen=True):
    """Do what the request of a delivery asks for, if whoever asks may."""

    repo_id: str
    delivery_id: str

    @property
    def key(self) -> str:
        """Unique among all debts."""
        return f"delivery:{self.repo_id}:{self.delivery_id}"


class CancelRun(_Effect, frozen=True):
    """Ask the run to stop, because of `cause`; after its end it changes nothing."""

    run_id: str
    reason: EndReason
    detail: str
    cause: Cause

    @property
    def key(self) -> str:
        """Unique among all debts."""
        return f"cancel:{self.run_id}"


class Notify(_Effect, frozen=True):
    """Tell the people who want to know that the run is over."""

    run_id: str

    @property
    def key(self) -> str:
        """Unique among all debts."""
        return f"notify:{self.run_id}"


Effect: TypeAlias = PlanRun | AnalyzeAttempt | ReportRun | KeepRecipe | ActOnDelivery | CancelRun | Notify
