"""The picture of everything that lives."""

import anyio
import pytest

from actors import Intensity, Node, Status
from tests.actors.support import QUICK, Boom, Crash, Pause, Probe, World, a_system, until

pytestmark = pytest.mark.anyio


def find(node: Node, path: str) -> Node:
    if node.path == path:
        return node
    for child in node.children:
        if path == child.path or path.startswith(f"{child.path}/"):
            return find(child, path)
    raise LookupError(path)


async def test_the_tree_shows_what_an_operator_asks_for() -> None:
    """Path, class, state, mailbox, messages handled, restarts, last crash, age: taken while a handler is at work."""
    async with a_system() as system:
        ref = system.supervisor("/s", backoff=QUICK).start("a", World().build)
        ref.tell(Crash())
        await ref.ask("hello", timeout=5)
        pause = Pause()
        ref.tell(pause)
        await pause.entered.wait()
        ref.tell("one")
        ref.tell("two")
        await anyio.sleep(0.01)

        node = find(system.tree(), "/s/a")
        pause.go.set()

    assert (node.kind, node.class_name, node.state, node.status) == ("actor", "Probe", "1 words", Status.RUNNING)
    assert (node.mailbox_depth, node.mailbox_high_water, node.handled) == (2, 2, 1)
    assert (node.restarts, node.last_crash) == (1, "Boom: handle")
    assert node.age_s >= 0.01


async def test_the_tree_follows_the_structure() -> None:
    """Families below entities appear with their first live member, below a parent that may not be live itself."""
    async with a_system() as system:
        supervisor = system.supervisor("/s")
        supervisor.start("a", World().build)
        runs = supervisor.entities("runs", World().build)
        jobs = runs.nested("jobs", World().build)
        supervisor.supervisor("deeper").start("b", World().build)
        for ref in (jobs.ref("r1", "j1"), runs.ref("r2"), jobs.ref("r2", "j2"), jobs.ref("r1", "j3")):
            await ref.ask("hello", timeout=5)

        tree = system.tree()

    def shape(node: Node) -> tuple[str, list[object]]:
        return node.path, [shape(child) for child in node.children]

    assert shape(tree) == (
        "/",
        [
            (
                "/s",
                [
                    ("/s/a", []),
                    (
                        "/s/runs",
                        [
                            (
                                "/s/runs/r1",
                                [
                                    (
                                        "/s/runs/r1/jobs",
                                        [("/s/runs/r1/jobs/j1", []), ("/s/runs/r1/jobs/j3", [])],
                                    )
                                ],
                            ),
                            ("/s/runs/r2", [("/s/runs/r2/jobs", [("/s/runs/r2/jobs/j2", [])])]),
                        ],
                    ),
                    ("/s/deeper", [("/s/deeper/b", [])]),
                ],
            )
        ],
    )
    assert (tree.live, find(tree, "/s/runs/r1").status) == (6, Status.STOPPED)


async def test_the_tree_can_be_read_in_every_status() -> None:
    """An operator needs it most when something is broken."""

    class Mute(Probe):
        def describe_state(self) -> str:
            raise Boom("describe")

    async with a_system() as system:
        supervisor = system.supervisor("/s")
        things = supervisor.entities("things", World().build, intensity=Intensity(0, 60))
        things.ref("sick").tell(Crash())
        await until(lambda: not things.ref("sick").is_alive())
        supervisor.start("mute", lambda: Mute(World()))
        await system.ref("/s/mute").ask("hello", timeout=5)
        supervisor.start("gone", World().build)
        await system.stop("/s/gone")
        supervisor.start("fresh", World().build)

        tree = system.tree()

    assert Status.QUARANTINED is find(tree, "/s/things/sick").status
    assert find(tree, "/s/mute").state == "describe_state raised Boom"
    assert Status.STOPPED is find(tree, "/s/gone").status
    assert (find(tree, "/s/fresh").status, find(tree, "/s/fresh").state) == (Status.RUNNING, "")
    assert Status.STOPPED is system.tree().status
