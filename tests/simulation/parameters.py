"""What makes one simulated world different from the next, all of it drawn from the seed.

Rule: a rate that is zero in a third of all worlds keeps one fault from hiding what another one would have shown.
"""

import random
from collections.abc import Callable
from typing import Final

import msgspec

from deltaci.orchestrator.ports import Policy

NEVER: Final = 0.0
HEARTBEATS_A_TTL: Final = 4


class Faults(msgspec.Struct, frozen=True, kw_only=True):
    """How often what goes wrong. `..._every_s`: mean seconds between two, 0 for never; the others: probabilities."""

    # the server's process
    kill_every_s: float
    stop_every_s: float
    kill_before_commit: float
    kill_in_commit: float
    kill_after_commit: float
    down_s: float
    clock_jump: float  # of a start: the wall clock is set by up to `clock_jump_s` while the server is down
    clock_jump_s: float
    # its actors and what they tell each other
    actor_crash_before: float
    actor_crash_after: float
    actor_crash_loading: float
    poison_every_s: float  # one job crashes its owner at every touch, for a while
    poison_s: float
    notification_lost: float
    notification_doubled: float
    # its disk
    commit_error_before: float
    commit_error_after: float
    read_error: float
    disk_full_every_s: float
    disk_held_every_s: float
    disk_trouble_s: float
    io_error: float
    # the network
    message_lost: float
    message_doubled: float
    message_late: float
    late_s: float
    cut_every_s: float
    cut_s: float
    # runners
    stall: float
    death: float
    lie: float
    slow_job: float
    ignored_cancel: float
    # planner and forge
    planner_bug: float
    repository_away: float
    forge_away: float
    forge_refuses: float


class Parameters(msgspec.Struct, frozen=True, kw_only=True):
    """One world: its size, its times and its faults. Durations in seconds where the name says so."""

    seed: int
    fault_s: float
    repos: int
    runners: int
    slots: int
    users: int
    maintainers: int
    push_every_s: float
    approve_every_s: float
    user_acts_every_s: float
    burst: int
    jobs_max: int
    job_s: float
    log_chunks: int
    disk_s: float
    network_s: float
    policy: Policy
    faults: Faults


def draw(seed: int, *, hours: float) -> Parameters:
    """The world of `seed`, with faults for `hours` before everything is mended."""
    chance = random.Random(f"parameters:{seed}")

    def rate(low: float, high: float) -> float:
        return NEVER if chance.random() < 1 / 3 else _between(chance, low, high)

    fault_s = hours * 3600
    approvals = random.Random(f"approvals:{seed}")
    return Parameters(
        seed=seed,
        fault_s=fault_s,
        repos=chance.choice((1, 1, 2, 3)),
        runners=chance.choice((1, 2, 3, 3, 4, 6, 10, 20)),
        slots=chance.choice((1, 1, 2, 4)),
        users=chance.choice((0, 1, 2)),
        maintainers=approvals.choice((0, 1, 1, 2)),
        approve_every_s=_between(approvals, 20, 300),
        push_every_s=_between(chance, 40, 240),
        user_acts_every_s=_between(chance, 60, 600),
        burst=chance.choice((1, 1, 1, 5, 20)),
        jobs_max=chance.choice((1, 3, 6, 6, 12)),
        job_s=_between(chance, 2, 200),
        log_chunks=chance.choice((0, 1, 4)),
        disk_s=chance.choice((0.0002, 0.002, 0.02)),
        network_s=chance.choice((0.001, 0.02, 0.2)),
        policy=msgspec.structs.replace(
            _policy(chance), approval_within_ms=approvals.choice((60_000, 300_000, 900_000))
        ),
        faults=_faults(chance, rate),
    )


def _faults(chance: random.Random, rate: Callable[[float, float], float]) -> Faults:
    return Faults(
        kill_every_s=rate(60, 1200),
        stop_every_s=rate(600, 3600),
        kill_before_commit=rate(0.0001, 0.003),
        kill_in_commit=rate(0.0001, 0.003),
        kill_after_commit=rate(0.0001, 0.003),
        down_s=_between(chance, 0.2, 60),
        clock_jump=rate(0.05, 0.5),
        clock_jump_s=_between(chance, 10, 20_000),
        actor_crash_before=rate(0.001, 0.02),
        actor_crash_after=rate(0.001, 0.02),
        actor_crash_loading=rate(0.001, 0.01),
        poison_every_s=rate(300, 3600),
        poison_s=_between(chance, 20, 300),
        notification_lost=rate(0.001, 0.2),
        notification_doubled=rate(0.001, 0.1),
        commit_error_before=rate(0.001, 0.02),
        commit_error_after=rate(0.001, 0.02),
        read_error=rate(0.0001, 0.003),
        disk_full_every_s=rate(900, 7200),
        disk_held_every_s=rate(900, 7200),
        disk_trouble_s=_between(chance, 1, 200),
        io_error=rate(0.00005, 0.0005),
        message_lost=rate(0.005, 0.15),
        message_doubled=rate(0.005, 0.15),
        message_late=rate(0.002, 0.05),
        late_s=_between(chance, 5, 300),
        cut_every_s=rate(600, 3600),
        cut_s=_between(chance, 5, 400),
        stall=rate(0.01, 0.15),
        death=rate(0.01, 0.1),
        lie=rate(0.01, 0.3),
        slow_job=rate(0.02, 0.3),
        ignored_cancel=rate(0.05, 0.5),
        planner_bug=rate(0.01, 0.2),
        repository_away=rate(0.01, 0.3),
        forge_away=rate(0.01, 0.4),
        forge_refuses=rate(0.001, 0.05),
    )


def _policy(chance: random.Random) -> Policy:
    ttl_ms = int(_between(chance, 15, 180) * 1000)
    return Policy(
        lease_ttl_ms=ttl_ms,
        heartbeat_ms=ttl_ms // HEARTBEATS_A_TTL,
        ack_within_ms=int(_between(chance, 10, 60) * 1000),
        cancel_within_ms=int(_between(chance, 5, 60) * 1000),
        lease_wait_ms=chance.choice((0, 5_000, 20_000, 60_000)),
        timer_tick_ms=chance.choice((500, 1_000, 3_000)),
        reconcile_every_ms=chance.choice((2_000, 5_000, 20_000)),
        effect_retry_max_ms=chance.choice((5_000, 60_000)),
        plan_within_ms=60_000,
        plans_at_once=chance.choice((1, 4)),
        reports_at_once=chance.choice((1, 8)),
        log_bytes_max=4_096,
        log_chunk_bytes_max=2_048,
        mailbox_size=chance.choice((3, 20, 2_000)),
        passivate_after_ms=chance.choice((5_000, 60_000)),
        ask_timeout_ms=chance.choice((2_000, 20_000)),
        store_patience_ms=chance.choice((30_000, 300_000)),
    )


def _between(chance: random.Random, low: float, high: float) -> float:
    """Log-uniform: as many worlds near the low end as near the high one."""
    return float(low * (high / low) ** chance.random())
