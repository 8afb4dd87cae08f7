"""What a run says of itself at length: below its check, and in the comment."""

import re
from pathlib import Path

import msgspec
from markdown_it import MarkdownIt

from deltaci.domain.plan import Plan, PlannedJob, Reason, Step
from deltaci.domain.states import EndReason, JobState, RunState
from deltaci.reporter.desired import desired
from deltaci.reporter.summary import SUMMARY_BYTES_MAX, Shown, of_comment, of_job, of_run
from deltaci.store.writes import Explanation
from tests.reporter.runs import SHA, a_job, a_run, failed, refs, succeeded

URL = "https://ci.example.com"
PAGE = Path(__file__).parents[2] / "docs" / "reporting.md"
RENDER = MarkdownIt("commonmark").enable("table")
BASE = "4be1c8d2f0a94be1c8d2f0a94be1c8d2f0a9aaaa"


def planned(name: str, reason: str, file: str | None = None, **fields: object) -> PlannedJob:
    reasons = (Reason(rule="impact", text=reason, file=file),)
    return PlannedJob(name=name, steps=(Step(name="x", run="x"),), reasons=reasons, **fields)  # type: ignore[arg-type]


def an_example() -> Shown:
    """A run as they come: one failure that is explained, one that is allowed, one that did not run for it, one skip."""
    jobs = (
        succeeded("api: lint", took_ms=12_000),
        failed("api: test", took_ms=83_000),
        a_job("api: image", JobState.SKIPPED, EndReason.NEEDS_FAILED, attempts=0, end_detail="api: test"),
        failed("api: audit", is_required=False, took_ms=4_000),
        a_job("web: test", JobState.SKIPPED, EndReason.NOT_AFFECTED, attempts=0),
    )
    run = a_run(RunState.FAILED, EndReason.JOBS_FAILED, jobs=refs(*jobs), id="run_01hv3k9t2m")
    plan = Plan(
        commit_sha=SHA,
        base_sha=BASE,
        source="configuration",
        changed_files_count=3,
        reasons=(Reason(rule="configuration", text="deltaci.yaml of the commit decides", file="deltaci.yaml"),),
        jobs=(
            planned("api: lint", "the project is touched", "services/api/app.py"),
            planned("api: test", "the project is touched", "services/api/app.py"),
            planned("api: image", "it needs api: test"),
            planned("api: audit", "the project is touched", "services/api/app.py", policy="allow_failure"),
            planned("web: test", "nothing below web/ changed", is_skipped=True),
        ),
    )
    why = Explanation(
        job_id=jobs[1].id,
        attempt=1,
        category="user.test",
        confidence=0.9,
        summary="The test tests/test_prices.py::test_rounding failed.",
        evidence=(
            "tests/test_prices.py:41: AssertionError",
            "FAILED tests/test_prices.py::test_rounding - assert Decimal('9.99') == Decimal('10.00')",
        ),
        next_step="Run that test alone on your machine; it failed the same way in both attempts.",
        at_ms=0,
    )
    checks = desired(run, jobs, (why,), plan, URL)
    return Shown(run=run, jobs=jobs, checks=checks, explanations=(why,), plan=plan, base_url=URL)


def test_a_run_tells_what_failed_then_all_jobs_then_why_these() -> None:
    """What people open it for comes first."""
    text = of_run(an_example())

    places = [
        text.index(part) for part in ("**Failed:", "### ", "AssertionError", "| Job |", "Planned from", "Run [`run_")
    ]
    assert places == sorted(places)
    rows = re.findall(r"^\| `([^`]+)` \| (.*?) \|", text, re.MULTILINE)
    assert rows == [
        ("api: test", "❌ failed"),
        ("api: image", "❌ never ran"),
        ("api: audit", "⚠️ failed, which is allowed"),
        ("api: lint", "✅ succeeded"),
        ("web: test", "⏭️ skipped"),
    ]
    assert "nothing below web/ changed" in text


def test_the_page_about_it_shows_what_is_really_said() -> None:
    """The example of the documentation is made here: when this changes, put what it says into the page."""
    page, shown = PAGE.read_text(encoding="utf-8"), an_example()

    assert "> " + of_run(shown).replace("\n", "\n> ").replace("> \n", ">\n") in page
    assert "> " + of_comment(shown, "<!-- x -->").split("\n", 1)[1].replace("\n", "\n> ").replace("> \n", ">\n") in page


def test_a_job_tells_why_it_ran_and_why_it_failed() -> None:
    """Below its own check, with the way to its log."""
    shown = an_example()
    plan = shown.planned()

    text = of_job(shown, 1, shown.explanations[0], plan["api: test"])
    skipped = of_job(shown, 4, None, plan["web: test"])
    allowed = of_job(shown, 3, None, plan["api: audit"])

    assert "The test tests/test\\_prices.py::test\\_rounding failed." in text
    assert "`impact`: the project is touched (`services/api/app.py`)" in text
    assert "/runs/run_01hv3k9t2m#job_x_api:%20test" in text
    assert "Why it is skipped" in skipped
    assert "It is allowed to fail." in allowed


def test_a_large_run_fits() -> None:
    """A thousand jobs with names and reasons of strangers, all failed and explained: cut, and well formed still."""
    names = [f"{number} " + "ü|`<b>@team" * 8 for number in range(1_000)]
    jobs = tuple(failed(name, id=f"job_{number}") for number, name in enumerate(names))
    whys = tuple(
        Explanation(
            job_id=job.id,
            attempt=1,
            category="user.test",
            confidence=1.0,
            summary="</td>|" * 50,
            evidence=("```", "x" * 490) * 4,
            next_step="`" * 100,
            at_ms=0,
        )
        for job in jobs
    )
    run = a_run(RunState.FAILED, EndReason.JOBS_FAILED, jobs=refs(*jobs))
    shown = Shown(
        run=run, jobs=jobs, checks=desired(run, jobs, whys, None, URL), explanations=whys, plan=None, base_url=URL
    )

    for text in (of_run(shown), of_comment(shown, "<!-- x -->"), of_job(shown, 0, whys[0], None)):
        assert len(text.encode()) <= SUMMARY_BYTES_MAX
        tags = set(re.findall(r"</?(\w+)", RENDER.render(text.removeprefix("<!-- x -->\n"))))
        assert {"p", "strong", "h3", "a", "code", "pre", "table", "thead", "tbody", "tr", "th", "td"} >= tags
    assert "There is more at" in of_run(shown)


def test_nothing_but_the_marker_is_hidden() -> None:
    """It is found by its marker: a job's words must not be taken for one."""
    shown = an_example()
    why = msgspec.structs.replace(shown.explanations[0], summary="<!-- deltaci repo_1 12 -->", evidence=("<!-- x -->",))

    text = of_comment(msgspec.structs.replace(shown, explanations=(why,)), "<!-- x -->")

    assert re.findall("<!--.*?-->", RENDER.render(text)) == ["<!-- x -->"]
