"""A plan told as a story: from the file that changed to the job that therefore runs."""

from deltaci.domain.plan import Plan, PlannedJob, PlannedProject, Reason, Step
from deltaci.domain.reasons import DEPTH_MAX, Node, chain, mermaid, tree

CHANGED = Reason(rule="project-changed", file="core/a.py", text="core/a.py changed")
DEPENDS = Reason(rule="dependency-changed", file="core/a.py", text="core/a.py touches core")
SKIP = Reason(rule="not-affected", file="core/a.py", text="nothing of it changed")


def a_job(name: str, project: str | None, reason: Reason, *, is_skipped: bool = False) -> PlannedJob:
    steps = (Step(name="x", run="x"),)
    return PlannedJob(name=name, steps=steps, reasons=(reason,), is_skipped=is_skipped, project=project)


def a_plan(projects: list[PlannedProject], *jobs: PlannedJob) -> Plan:
    return Plan(commit_sha="c" * 40, base_sha="b" * 40, source="discovery", jobs=jobs, projects=tuple(projects))


def a_line(length: int) -> list[PlannedProject]:
    """Projects of which each depends on the one before; the first was changed."""
    found = [PlannedProject(id="python:p0", manifest="p0/pyproject.toml", reason=CHANGED)]
    for number in range(1, length):
        via = f"python:p{number - 1}"
        manifest = f"p{number}/pyproject.toml"
        found.append(PlannedProject(id=f"python:p{number}", manifest=manifest, reason=DEPENDS, via=via))
    return found


def test_the_chain_of_a_job_leads_from_the_changed_file_over_each_dependency() -> None:
    """Why does this run? Because of that file, through these projects."""
    plan = a_plan(a_line(3), a_job("test (p2)", "python:p2", DEPENDS), a_job("other", None, SKIP, is_skipped=True))

    reasons = [reason.rule for reason in chain(plan, plan.jobs[0])]

    assert reasons == ["project-changed", "dependency-changed", "dependency-changed"]
    assert chain(plan, plan.jobs[1]) == (SKIP,)


def test_the_tree_hangs_each_project_below_the_one_that_touched_it() -> None:
    """Cause, project, dependent, job; and the skipped ones by the reason that they share."""
    plan = a_plan(
        a_line(2),
        a_job("test (p0)", "python:p0", CHANGED),
        a_job("test (p1)", "python:p1", DEPENDS),
        a_job("test (p8)", "python:p8", SKIP, is_skipped=True),
        a_job("test (p9)", "python:p9", SKIP, is_skipped=True),
    )

    cause, skips = tree(plan)

    inner = Node(
        kind="project",
        name="python:p1",
        rule="dependency-changed",
        text=DEPENDS.text,
        follows=(Node(kind="job", name="test (p1)"),),
    )
    outer = (Node(kind="job", name="test (p0)"), inner)
    first = Node(kind="project", name="python:p0", rule="project-changed", text=CHANGED.text, follows=outer)
    assert cause == Node(kind="cause", name="core/a.py", follows=(first,))
    assert (skips.kind, skips.rule) == ("skips", "not-affected")
    assert [node.name for node in skips.follows] == ["test (p8)", "test (p9)"]


def test_a_very_long_chain_makes_no_deeper_tree_and_loses_no_project() -> None:
    """Whoever shows it recurses, and the stack of an interpreter is not endless."""
    plan = a_plan(a_line(3_000), a_job("last", "python:p2999", DEPENDS))

    depths: list[int] = []
    names: list[str] = []
    waiting = [(node, 1) for node in tree(plan)]
    while waiting:
        node, depth = waiting.pop()
        depths.append(depth)
        names.append(node.name)
        waiting += [(child, depth + 1) for child in node.follows]

    assert len([name for name in names if name.startswith("python:")]) == 3_000
    assert "last" in names
    assert max(depths) <= DEPTH_MAX + 3


def test_a_job_of_no_project_stands_below_what_made_it_run() -> None:
    """A configured job has a pattern and a file, or runs always; a skipped one is among the skips."""
    by_path = a_job("api", None, Reason(rule="paths", file="api/x", text="api/x changed and matches 'api/**'"))
    always = a_job("all", None, Reason(rule="configured", file="deltaci.yaml", text="runs on every change"))

    found = tree(a_plan([], by_path, always))

    assert [(node.name, [job.name for job in node.follows]) for node in found] == [
        ("api/x", ["api"]),
        ("runs on every change", ["all"]),
    ]


def test_the_chart_has_every_edge_and_no_text_that_could_be_markup() -> None:
    """File names come from strangers; a quotation mark would end the label."""
    hostile = Reason(rule="project-changed", file='a"]<script>|x', text="")
    projects = [PlannedProject(id="python:p0", manifest="p0/pyproject.toml", reason=hostile)]

    chart = mermaid(a_plan(projects, a_job("test", "python:p0", hostile)))

    assert chart.splitlines() == [
        "flowchart LR",
        '    n0>"a#34;#93;#60;script#62;#124;x"]',
        '    n1["python:p0"]',
        "    n0 -->|project-changed| n1",
        '    n2(["test"])',
        "    n1 --> n2",
    ]
