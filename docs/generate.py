"""Writes the pages that are made from the code, so that page and code cannot disagree.

`python -m docs.generate` writes them; with `--check` it writes nothing and exits 1 if one is out of date.
"""

import inspect
import sys
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import msgspec

from deltaci.domain import attempt, job, lease, run
from deltaci.domain.machine import Move
from deltaci.domain.states import AttemptState, JobState, LeaseState, RunState
from deltaci.forge.client import HttpSettings
from deltaci.forge.settings import GiteaSettings, GitHubSettings, GitLabSettings
from deltaci.gateway.house import Limits
from deltaci.invariants import catalogue
from deltaci.notifier.channels import Notifications
from deltaci.orchestrator.ports import Policy
from deltaci.planner.bounds import Bounds
from deltaci.planner.configuration import json_schema
from deltaci.settings import PREFIX, Settings

HERE: Final = Path(__file__).parent


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """A machine of the domain: its module's docstring has the rules, its tables all the rest."""

    name: str
    module: ModuleType
    states: type[StrEnum]
    first: tuple[StrEnum, ...]
    moves: Mapping[str, Move[Any]]
    legal_in: Mapping[type[Any], frozenset[Any]] = {}


# Tables of which the names do not say enough
FORGE_PREFIXES: Final = frozenset({"github_", "gitlab_", "gitea_", "http_"})

MACHINES: Final = (
    Machine(
        name="run",
        module=run,
        states=RunState,
        first=(RunState.CREATED,),
        moves=run.MOVES,
        legal_in=run.LEGAL_IN,
    ),
    Machine(
        name="job",
        module=job,
        states=JobState,
        first=(JobState.BLOCKED, JobState.QUEUED, JobState.SKIPPED),
        moves=job.MOVES,
        legal_in=job.LEGAL_IN,
    ),
    Machine(
        name="attempt",
        module=attempt,
        states=AttemptState,
        first=(AttemptState.QUEUED,),
        moves=attempt.MOVES,
    ),
    Machine(
        name="lease",
        module=lease,
        states=LeaseState,
        first=(LeaseState.GRANTED,),
        moves=lease.MOVES,
    ),
)


def states_page(machines: Sequence[Machine] = MACHINES) -> str:
    """`states.md`: for each machine its rules, its diagram, its moves and its commands."""
    names = ", ".join(f"[{machine.name}](#{machine.name})" for machine in machines)
    lines = [
        "# States",
        "",
        "Made by `make docs` from the tables in `deltaci/domain/`: change those, not this page.",
        "",
        f"{names}. A final state is never left.",
        "",
        "A command asks, and the machine's `step` decides what becomes of it: in a state in which it is not legal it",
        "is refused with `illegal_move` and changes nothing. What a runner sends is legal in every state, so that it",
        "always gets an answer, but only the holder of the current lease changes anything: all others are refused with",
        "`stale_lease`.",
    ]
    for machine in machines:
        lines += ["", *_section(machine)]
    return "\n".join(lines) + "\n"


def settings_page() -> str:
    """`settings.md`: every setting with its variable and default."""
    lines = [
        "# Settings",
        "",
        "Made by `make docs` from `deltaci/settings.py`: change that, not this page.",
        "",
        "From `--config FILE` (TOML) and from the environment, which wins. Durations are in milliseconds (`_ms`) or",
        "seconds (`_s`), sizes in bytes.",
    ]
    tables = (
        ("top level", "", Settings),
        ("`[policy]`", "policy_", Policy),
        ("`[planner]`", "planner_", Bounds),
        ("`[limits]`", "limits_", Limits),
        ("`[notifications]`", "notifications_", Notifications),
        ("`[github]`", "github_", GitHubSettings),
        ("`[gitlab]`", "gitlab_", GitLabSettings),
        ("`[gitea]`", "gitea_", GiteaSettings),
        ("`[http]`", "http_", HttpSettings),
    )
    for title, prefix, kind in tables:
        lines += ["", f"## {title}", ""]
        if prefix in FORGE_PREFIXES:
            lines += [*inspect.cleandoc(kind.__doc__ or "").splitlines(), ""]
        lines += ["| setting | environment | default |", "|---|---|---|"]
        for field in msgspec.structs.fields(kind):
            if isinstance(field.default, msgspec.Struct):
                continue
            default = msgspec.json.encode(field.default).decode()
            lines.append(f"| `{field.name}` | `{PREFIX}{prefix.upper()}{field.name.upper()}` | `{default}` |")
    return "\n".join(lines) + "\n"


def invariants_page() -> str:
    """`invariants.md`: each invariant with its rules, and where those that need more are proven."""
    lines = [
        "# Invariants",
        "",
        "Made by `make docs` from `deltaci/invariants/`: change that, not this page.",
        "",
        "What must hold of everything stored, and of everything that runners and clients were told, whatever crashed",
        "and whatever got lost. `deltaci verify --data DIR` checks what can be decided from a database, live or at",
        "rest, and names each violation by its rule, with the run or job and the journal's entries that show it.",
        "",
        "A rule is looked at after each event, in the tables of a run after any commit, in the ledger of webhooks and",
        "the outbox, in what runners and clients saw (which tests and simulations note down), or once there was time",
        "(`deltaci verify --at-rest`).",
    ]
    for number, invariant in catalogue.INVARIANTS.items():
        lines += ["", f"## {number}", "", invariant]
        rows = [
            f"| `{rule.name}` | {rule.text} | {place} |"
            for place, rules in catalogue.RULES_BY_PLACE.items()
            for rule in rules
            if rule.invariant == number
        ]
        if rows:
            lines += ["", "| rule | what it says | looked at in |", "|---|---|---|", *rows]
        if number in catalogue.ELSEWHERE:
            lines += ["", f"Proven by {catalogue.ELSEWHERE[number]}."]
    return "\n".join(lines) + "\n"


def configuration_schema() -> str:
    """`deltaci.schema.json`: what `deltaci.yaml` accepts, for editors."""
    return msgspec.json.format(msgspec.json.encode(json_schema.document()), indent=2).decode() + "\n"


PAGES: Final = {
    "states.md": states_page,
    "settings.md": settings_page,
    "invariants.md": invariants_page,
    "deltaci.schema.json": configuration_schema,
}


def out_of_date(folder: Path = HERE) -> list[str]:
    """The names of the pages in `folder` that are missing or not what the code makes of them."""
    return [
        name
        for name, page in PAGES.items()
        if not (folder / name).exists() or (folder / name).read_text(encoding="utf-8") != page()
    ]


def main(arguments: Sequence[str]) -> int:
    """Write the pages that are out of date, or with `--check` only name them; the exit code."""
    stale = out_of_date()
    if list(arguments) == ["--check"]:
        for name in stale:
            sys.stderr.write(f"docs/{name} is out of date: run `make docs` and commit it\n")
        return 1 if stale else 0
    if arguments:
        sys.stderr.write("usage: python -m docs.generate [--check]\n")
        return 2
    for name in stale:
        (HERE / name).write_text(PAGES[name](), encoding="utf-8")
        sys.stdout.write(f"docs/{name}\n")
    return 0


# ---- sections ----------------------------------------------------------------------------------------------------


def _section(machine: Machine) -> list[str]:
    lines = [f"## {machine.name}", "", *_rules(machine.module), "", "```mermaid", *_diagram(machine), "```", ""]
    lines += ["| move | from | to |", "|---|---|---|"]
    for name, move in machine.moves.items():
        lines.append(f"| `{name}` | {_states(machine, move.sources)} | {move.target} |")
    if machine.legal_in:
        lines += ["", "| command | what it says | legal in |", "|---|---|---|"]
        for command, legal in machine.legal_in.items():
            said = " ".join((inspect.getdoc(command) or "").split("\n\n")[0].split())
            lines.append(f"| `{command.__name__}` | {said.replace('|', chr(92) + '|')} | {_states(machine, legal)} |")
    return lines


def _rules(module: ModuleType) -> list[str]:
    """The module's docstring, its rules as a list."""
    lines: list[str] = []
    for line in inspect.cleandoc(module.__doc__ or "").splitlines():
        if line.startswith("Rule "):
            lines.append(f"- {line}")
        elif line.startswith(" "):
            lines[-1] += f" {line.strip()}"
        else:
            lines.append(line)
    return lines


def _diagram(machine: Machine) -> list[str]:
    lines = ["stateDiagram-v2"]
    lines += [f"    [*] --> {state}" for state in machine.first]
    # One arrow for all moves between the same two states: Mermaid draws parallel ones over each other.
    labels: dict[tuple[StrEnum, StrEnum], list[str]] = {}
    for source in machine.states:
        for name, move in machine.moves.items():
            if source in move.sources:
                labels.setdefault((source, move.target), []).append(name)
    lines += [f"    {source} --> {target}: {', '.join(names)}" for (source, target), names in labels.items()]
    lines += [f"    {state} --> [*]" for state in machine.states if _is_final(machine, state)]
    return lines


def _is_final(machine: Machine, state: StrEnum) -> bool:
    return not any(state in move.sources for move in machine.moves.values())


def _states(machine: Machine, some: frozenset[Any]) -> str:
    """The states in the order of their declaration."""
    everything = list(machine.states)
    if len(some) == len(everything):
        return "every state"
    live = {state for state in everything if not _is_final(machine, state)}
    if some == live:
        return "every state before the end"
    return ", ".join(state for state in everything if state in some)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
