"""How runs, events and actors look in a terminal. What comes from outside is shown as text, never as markup."""

import re
import sys
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.tree import Tree

from deltaci.domain.plan import Plan, PlannedJob
from deltaci.domain.reasons import Node
from deltaci.domain.reasons import tree as plan_tree

NODES_MAX: Final = 200
COLORS: Final = {
    "SUCCEEDED": "green",
    "FAILED": "red",
    "ACTIVE": "green",
    "STALE": "yellow",
    "TIMED_OUT": "red",
    "LOST": "yellow",
    "CANCELED": "yellow",
    "CANCEL_REQUESTED": "yellow",
    "SKIPPED": "bright_black",
    "RUNNING": "cyan",
}

# Control characters but tab, newline and carriage return: a log must not drive the terminal that shows it. Those of
# two bytes (C1 in UTF-8) are escape sequences of one character to some terminals.
_CONTROL: Final = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f]|\xc2[\x80-\x9f]")
# Of the escape sequences only colours pass (SGR): no title, no clipboard, no cursor.
_ESCAPES: Final = re.compile(rb"\x1b(?!\[[0-9;]{0,32}m)")


def safe_bytes(data: bytes) -> bytes:
    """Log bytes for a terminal: colours stay, everything else that would drive it is shown as a mark."""
    return _ESCAPES.sub(b"^[", _CONTROL.sub(b"?", data))


def text(value: Any) -> str:
    """Any value on one line, without control characters, markup escaped."""
    return escape(plain(value))


def state(word: str) -> str:
    """A state in its colour."""
    return f"[{COLORS.get(word, 'white')}]{word}[/]"


def clock(at_ms: int | None) -> str:
    """Local time of day."""
    if at_ms is None:
        return ""
    return datetime.fromtimestamp(at_ms / 1000, UTC).astimezone().strftime("%H:%M:%S")


def moment(at_ms: int) -> str:
    """Local date and time."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def plain(value: Any) -> str:
    """Any value on one line, without control characters."""
    return "".join(c if c.isprintable() else "?" for c in str(value))


def duration(start_ms: int | None, end_ms: int | None) -> str:
    """`12.3 s`, or nothing as long as one end is missing."""
    return "" if start_ms is None or end_ms is None else f"{(end_ms - start_ms) / 1000:.1f} s"


def runs_table(runs: list[dict[str, Any]]) -> Table:
    """Newest first."""
    table = Table(box=None, pad_edge=False)
    for heading in ("run", "repo", "ref", "commit", "state", "why", "took"):
        table.add_column(heading, no_wrap=True)
    table.add_column("title")
    for run in runs:
        table.add_row(
            text(run["id"]),
            text(run["repo"]),
            text(run["ref"].removeprefix("refs/heads/")),
            text(run["commit_sha"][:10]),
            state(run["state"]),
            text(run["end_reason"] or ""),
            duration(run["created_at_ms"], run["ended_at_ms"]),
            text(run["title"][:50]),
        )
    return table


def print_run(console: Console, view: dict[str, Any]) -> None:
    """A run, its plan's reasons, its jobs, and what is known of failures."""
    run = view["run"]
    console.print(f"run [bold]{text(run['id'])}[/] attempt {run['attempt']} of {text(run['repo'])} {text(run['ref'])}")
    console.print(f"commit {text(run['commit_sha'])} {text(run['title'])}")
    console.print(f"state {state(run['state'])} {text(run['end_reason'] or '')} {text(run['text'])}")
    if run["waiting_reason"]:
        console.print(f"waits: {text(run['waiting_reason'])}: {text(run['waiting_detail'])}")
        console.print(f"  let it run with: deltaci run approve {text(run['id'])}")
    elif run["approved_by"]:
        console.print(f"approved by {text(run['approved_by'])} at {clock(run['approved_at_ms'])}")
    report = view.get("report", {})
    if report.get("error"):
        word = "[red]not reported[/]" if report["state"] == "refused" else "not reported yet"
        console.print(f"{word}: {text(report['error'])}")
    plan = view["plan"]
    if plan:
        console.print(f"\nplan from {plan['source']}, digest {text(run['plan_digest'] or '')[:12]}")
        for reason in plan["reasons"]:
            console.print(f"  {_reason(reason)}")
        if plan.get("advice"):
            console.print("  an advisor says, deciding nothing:")
            for line in plan["advice"].splitlines():
                console.print(f"    {text(line)}")
    reasons = {job["name"]: job["reasons"] for job in plan["jobs"]} if plan else {}
    tree = Tree("jobs")
    for job in view["jobs"]:
        branch = tree.add(_job_line(job))
        for reason in reasons.get(job["name"], ()):
            branch.add(f"[bright_black]{_reason(reason)}[/]")
        for attempt in job["attempts"]:
            explanation = attempt["explanation"]
            if explanation:
                why = branch.add(f"{text(explanation['category'])}: {text(explanation['summary'])}")
                for line in explanation["evidence"]:
                    why.add(f"[red]{text(line)}[/]")
                why.add(f"next: {text(explanation['next_step'])}")
    console.print(tree)


def print_plan(console: Console, plan: Plan, plan_digest: str, *, shows_all: bool = False) -> None:
    """A plan as a tree: causes, the projects that they touch, the jobs that therefore run with their commands."""
    running = sum(not job.is_skipped for job in plan.jobs)
    console.print(
        f"plan from {plan.source}, digest {plan_digest[:12]}: {running} of {len(plan.jobs)} jobs run"
        + (f", {len(plan.projects)} project{'s' if len(plan.projects) > 1 else ''} touched" if plan.projects else "")
    )
    for reason in plan.reasons:
        console.print(f"  {_reason({'rule': reason.rule, 'text': reason.text})}")
    jobs = {job.name: job for job in plan.jobs}
    left = NODES_MAX if not shows_all else sys.maxsize
    for node in plan_tree(plan):
        tree = Tree(_node_line(node))
        left = _hang(tree, node, jobs, left)
        console.print(tree)
        if left <= 0:
            console.print("... (--all shows the rest)")
            return


def _hang(tree: Tree, node: Node, jobs: dict[str, PlannedJob], left: int) -> int:
    """Hang what follows from `node` below `tree`, at most `left` lines; how many are left then."""
    for child in node.follows:
        if left <= 0:
            return left
        branch = tree.add(_node_line(child))
        left -= 1
        if child.kind == "job":
            job = jobs[child.name]
            if not job.is_skipped:
                for step in job.steps:
                    where = "" if step.workdir == "." else f" [bright_black](in {text(step.workdir)})[/]"
                    lines = step.run.strip().splitlines()
                    branch.add(f"[green]$[/] {text(lines[0])}{' ...' if len(lines) > 1 else ''}{where}")
                    left -= 1
        else:
            left = _hang(branch, child, jobs, left)
    return left


def _node_line(node: Node) -> str:
    why = f" [bright_black]{text(node.rule)}[/]" if node.rule else ""
    match node.kind:
        case "cause":
            return f"[yellow]{text(node.name)}[/]"
        case "project":
            return f"[cyan]{text(node.name)}[/]{why}"
        case "skips":
            count = f"{len(node.follows)} job{'s' if len(node.follows) != 1 else ''}"
            return f"{state('SKIPPED')} {count}{why} {text(node.text)}"
        case _:
            return f"job [bold]{text(node.name)}[/]{why}"


def _job_line(job: dict[str, Any]) -> str:
    parts = [state(job["state"]), f"[bold]{text(job['name'])}[/]", text(job["end_reason"] or "")]
    if job["waiting_reason"]:
        parts.append(f"waits: {text(job['waiting_reason'])} {text(job['waiting_detail'])}")
    if job["end_detail"]:
        parts.append(text(job["end_detail"]))
    if not job["is_required"]:
        parts.append("(may fail)")
    if len(job["attempts"]) > 1:
        parts.append(f"{len(job['attempts'])} attempts")
    if job["attempts"]:
        last = job["attempts"][-1]
        parts.append(duration(last["started_at_ms"], last["ended_at_ms"]))
    parts.append(f"[bright_black]{text(job['id'])}[/]")
    return " ".join(part for part in parts if part)


def _reason(reason: dict[str, Any]) -> str:
    file = f" ({text(reason['file'])})" if reason.get("file") else ""
    return f"{text(reason['rule'])}: {text(reason['text'])}{file}"


def recipes_table(recipes: list[dict[str, Any]]) -> Table:
    """Newest first."""
    table = Table(box=None, pad_edge=False)
    for heading in ("version", "state", "projects", "jobs", "made by", "confirmed by", "fingerprint"):
        table.add_column(heading, no_wrap=True)
    table.add_column("why")
    for recipe in recipes:
        table.add_row(
            str(recipe["version"]),
            state(recipe["state"]),
            str(recipe["projects_count"]),
            str(recipe["jobs_count"]),
            text(recipe["made_by"]),
            text(recipe["confirmed_by"] or ""),
            text(recipe["fingerprint"]),
            text(recipe["reason"]),
        )
    return table


def print_recipe(console: Console, view: dict[str, Any]) -> None:
    """A version of a recipe with its projects and what they run."""
    recipe = view["recipe"]
    console.print(f"recipe version [bold]{recipe['version']}[/] {state(recipe['state'])} {text(recipe['reason'])}")
    console.print(f"fingerprint {text(recipe['fingerprint'])}, made by {text(recipe['made_by'])}")
    if recipe["confirmed_by"]:
        console.print(f"last confirmed by {text(recipe['confirmed_by'])}")
    tree = Tree("projects")
    for project in view["projects"]:
        branch = tree.add(f"[bold]{text(project['ecosystem'])}[/] {text(project['manifest'])}")
        needs = [*project["depends_on_roots"], *project["depends_on_names"]]
        if needs:
            branch.add(f"[bright_black]depends on {text(', '.join(needs))}[/]")
        for job in project["jobs"]:
            leaf = branch.add(text(job["check"]))
            for step in job["steps"]:
                leaf.add(f"{text(step['name'])}: {text(step['run'])} [bright_black]in {text(step['workdir'])}[/]")
            for cache in job["caches"]:
                leaf.add(f"[bright_black]cache {text(cache['name'])}: {text(', '.join(cache['paths']))}[/]")
            for artifact in job["artifacts"]:
                leaf.add(f"[bright_black]artifact {text(artifact['name'])}: {text(', '.join(artifact['paths']))}[/]")
    console.print(tree)


def event_line(event: dict[str, Any], names: dict[str, str]) -> str | None:
    """One line of `deltaci run watch`, or None for what is of no interest there."""
    data, at = event["data"], clock(event["at_ms"])
    who = f"[bold]{text(names.get(event['entity_id'], 'run'))}[/]"
    match event["type"]:
        case "RunCreated" if data.get("hold") and not data.get("approved_by"):
            what = "waits for approval"
        case "RunApproved":
            what = f"was approved by {text(data['by'])}"
        case "PlanningStarted":
            what = "is being planned"
        case "PlanAdopted":
            what = f"has a plan of {len(data['jobs'])} jobs"
        case "RunRestored":
            what = "came back with a backup; its time counts anew"
        case "AttemptLeased":
            what = f"attempt {data['attempt']} leased to {text(data['runner_id'])}"
        case "LeaseAcknowledged":
            what = f"attempt {data['attempt']} started"
        case "AttemptQueued":
            what = f"attempt {data['attempt']} queued"
        case "JobCancelRequested" | "RunCancelRequested":
            what = f"cancel requested: {text(data['reason'])}"
        case "JobSkipped":
            what = f"{state('SKIPPED')} {text(data['reason'])} {text(data.get('detail', ''))}"
        case "AttemptEnded" if data["state"] == "LOST":
            what = f"attempt {data['attempt']} {state('LOST')} {text(data['reason'])}"
        case "JobEnded" | "RunEnded":
            what = f"{state(data['state'])} {text(data['reason'])} {text(data.get('text', ''))}"
        case _:
            return None
    return f"[bright_black]{at}[/] {who} {what}"


def actor_tree(node: dict[str, Any]) -> Tree:
    """The tree with what is worth knowing of each actor."""
    tree = Tree(_actor_line(node))
    _grow(tree, node)
    return tree


def _grow(tree: Tree, node: dict[str, Any]) -> None:
    for child in node["children"]:
        _grow(tree.add(_actor_line(child)), child)


def _actor_line(node: dict[str, Any]) -> str:
    name = text(node["path"].rpartition("/")[2] or "/")
    if node["class_name"] in ("", None) or node["kind"] in ("system", "supervisor", "entities"):
        return f"[bold]{name}[/] {text(node['kind'])} live={node['live']}"
    facts = [f"[bold]{name}[/]", text(node["class_name"]), text(node["status"]), text(node["state"] or "")]
    facts.append(f"handled={node['handled']}")
    if node["mailbox_depth"]:
        facts.append(f"mailbox={node['mailbox_depth']}")
    if node["restarts"]:
        facts.append(f"[yellow]restarts={node['restarts']} last crash: {text(node['last_crash'])}[/]")
    return " ".join(facts)


def as_json(value: Any) -> str:
    """A value as JSON for people, indented."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
