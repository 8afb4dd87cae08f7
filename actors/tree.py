"""A picture of everything that lives, taken without stopping anything.

Rule: a picture is frozen; reading it, however slowly, never touches an actor.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio

from actors.cell import Cell, Status
from actors.supervisor import Entities, Supervisor

if TYPE_CHECKING:
    from actors.system import ActorSystem

__all__ = ["Node", "picture"]


@dataclass(frozen=True, slots=True)
class Node:
    """One line of the tree. Families below entities appear once something in them is live.

    `kind` is system, supervisor, entities, actor (permanent) or entity; `live` counts the actors at and below the
    node; `age_s` is the time since the start or the activation.
    """

    path: str
    kind: str
    class_name: str = ""
    status: Status = Status.IDLE
    state: str = ""
    mailbox_depth: int = 0
    mailbox_high_water: int = 0
    handled: int = 0
    restarts: int = 0
    last_crash: str | None = None
    age_s: float = 0.0
    live: int = 0
    children: tuple["Node", ...] = ()


def picture(system: "ActorSystem") -> Node:
    """The whole tree, children in start order."""
    return _Picture(system).root()


class _Picture:
    def __init__(self, system: "ActorSystem") -> None:
        self.system = system
        self.now = anyio.current_time()
        self.members: dict[str, dict[str, Cell | None]] = {}  # of a family's path; None is an entity that is not live
        self.families: dict[str, dict[str, None]] = {}  # of an entity's path
        for path, cell in system.cells.items():
            if isinstance(cell.owner, Entities):
                self._file(cell.owner, path, cell)

    def _file(self, owner: Entities, path: str, cell: Cell) -> None:
        family_path = path.rpartition("/")[0]
        self.members.setdefault(family_path, {})[path] = cell
        while (above := owner.entity_above(path)) is not None:
            self.families.setdefault(above, {})[family_path] = None
            family_path = above.rpartition("/")[0]
            self.members.setdefault(family_path, {}).setdefault(above, None)
            path = above

    def root(self) -> Node:
        children = tuple(self._supervisor(supervisor) for supervisor in self.system.supervisors.values())
        return Node(
            path="/",
            kind="system",
            class_name=type(self.system).__name__,
            status=Status.RUNNING if self.system.is_running else Status.STOPPED,
            age_s=self.now - self.system.started_at,
            live=sum(child.live for child in children),
            children=children,
        )

    def _supervisor(self, supervisor: Supervisor) -> Node:
        children = tuple(
            self._supervisor(child)
            if isinstance(child, Supervisor)
            else self._family(child.path)
            if isinstance(child, Entities)
            else self._actor(child.path, child, "actor")
            for child in supervisor.children.values()
        )
        return Node(
            path=supervisor.path,
            kind="supervisor",
            class_name=type(supervisor).__name__,
            status=Status.STOPPED if supervisor.is_stopped else Status.RUNNING,
            state=supervisor.strategy,
            restarts=supervisor.restarts,
            last_crash=supervisor.last_crash,
            live=sum(child.live for child in children),
            children=children,
        )

    def _family(self, path: str) -> Node:
        members = self.members.get(path, {})
        children = tuple(self._actor(member, cell, "entity") for member, cell in members.items())
        return Node(
            path=path,
            kind="entities",
            class_name=Entities.__name__,
            status=Status.RUNNING,
            live=sum(child.live for child in children),
            children=children,
        )

    def _actor(self, path: str, cell: Cell | None, kind: str) -> Node:
        children = tuple(self._family(family) for family in self.families.get(path, {}))
        live = sum(child.live for child in children)
        if cell is None:
            return Node(path=path, kind=kind, status=Status.STOPPED, live=live, children=children)
        return Node(
            path=path,
            kind=kind,
            class_name=type(cell.actor).__name__ if cell.actor is not None else "",
            status=cell.status,
            state=_state_word(cell),
            mailbox_depth=len(cell.mailbox),
            mailbox_high_water=cell.mailbox.high_water,
            handled=cell.handled,
            restarts=cell.restarts,
            last_crash=cell.last_crash,
            age_s=self.now - cell.started_at,
            live=live + (cell.status is not Status.STOPPED),
            children=children,
        )


def _state_word(cell: Cell) -> str:
    if cell.actor is None or not cell.is_restored:
        return ""
    try:
        return cell.actor.describe_state()
    except Exception as failure:  # noqa: BLE001 - an operator needs the tree most when something is broken
        return f"describe_state raised {type(failure).__name__}"
