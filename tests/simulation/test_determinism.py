"""A seed is all there is: the same one gives the same world, on any machine, in any process."""

import os
import subprocess
import sys
from pathlib import Path

import anyio
import pytest
import trio
from trio._core import _run as scheduler

from tests.simulation.scheduler import run_deterministically
from tests.simulation.simulate import simulate

ROOT = Path(__file__).parents[2]
HOURS = 0.15


async def _order(tasks_count: int) -> list[int]:
    """In which order tasks run that all become ready at the same time."""
    order: list[int] = []

    async def note(number: int) -> None:
        await anyio.sleep(1)
        order.append(number)

    async with anyio.create_task_group() as tasks:
        for number in range(tasks_count):
            tasks.start_soon(note, number)
    return order


def test_the_scheduler_is_the_one_whose_private_names_are_known() -> None:
    """Trio is pinned for these two: with another release they may be gone, or do nothing."""
    assert scheduler._ALLOW_DETERMINISTIC_SCHEDULING is False
    assert hasattr(scheduler._r, "seed")


def test_equal_seeds_give_equal_orders_and_different_ones_differ() -> None:
    """The order of tasks that are ready at once is chance, and chance is the seed."""
    once = run_deterministically(_order, 30, seed=1)
    again = run_deterministically(_order, 30, seed=1)
    other = run_deterministically(_order, 30, seed=2)

    assert once == again
    assert once != other
    assert sorted(once) == sorted(other) == list(range(30))


def test_waiting_is_free() -> None:
    """The clock jumps to the next thing to do."""

    async def wait() -> float:
        await anyio.sleep(80_000)
        return trio.current_time()

    assert run_deterministically(wait, seed=1) == 80_000


@pytest.mark.slow
@pytest.mark.parametrize("seed", [3, 22])
def test_a_seed_is_one_world_over_processes_and_hash_seeds(seed: int) -> None:
    """Whatever is iterated in hash order, or asks the machine for time or chance, would show here."""
    here = simulate(seed, hours=HOURS)

    hashes = {_trace_in_a_process(seed, hash_seed) for hash_seed in ("1", "77")}

    assert hashes == {here.trace_hash}


@pytest.mark.slow
def test_different_seeds_are_different_worlds() -> None:
    """A trace hash that is always the same would prove nothing."""
    traces = {simulate(seed, hours=HOURS).trace_hash for seed in (1, 2)}

    assert len(traces) == 2


def _trace_in_a_process(seed: int, hash_seed: str) -> str:
    command = (sys.executable, "-m", "tests.simulation", "--seed", str(seed), "--hours", str(HOURS))
    output = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": hash_seed}, capture_output=True, text=True, check=True
    ).stdout
    (line,) = (line for line in output.splitlines() if line.startswith("trace "))
    return line.removeprefix("trace ")
