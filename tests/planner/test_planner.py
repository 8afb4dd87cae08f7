"""Plans: which jobs, in which order, for which reasons; always the same ones."""

import random
from collections.abc import Mapping

import pytest

from deltaci.domain.plan import Plan, digest
from deltaci.planner.errors import ConfigurationInvalid, PlanFailed
from tests.planner.memory_view import MemoryView, changed
from tests.planner.planned import planned

pytestmark = pytest.mark.anyio

CONFIGURATION = """
version: 1
jobs:
  release: {steps: [ship], needs: [test, docs]}
  test: {steps: [pytest], paths: ["src/**", "!*.txt"], needs: build}
  build: {steps: [make], paths: [src/native/**], artifacts: [{name: lib, paths: [out]}]}
  docs: {steps: [mkdocs], paths: [docs/**], allow_failure: true}
  slow: {steps: [soak], paths_ignore: ["*.md", docs/**]}
"""
FILES = {"deltaci.yaml": CONFIGURATION, "src/a.py": "1", "docs/a.md": "2"}


async def plan_of(files: Mapping[str, str | bytes], *paths: str, base: str | None = "b" * 40) -> Plan:
    changes = changed(*paths) if base is not None else None
    return planned(MemoryView(files), changes, base_sha=base)


def skipped(plan: Plan) -> dict[str, bool]:
    return {job.name: job.is_skipped for job in plan.jobs}


def rules(plan: Plan) -> dict[str, list[tuple[str, str | None]]]:
    return {job.name: [(reason.rule, reason.file) for reason in job.reasons] for job in plan.jobs}


async def test_jobs_come_after_what_they_need() -> None:
    """A reader, and a scheduler, can go through the list once."""
    plan = await plan_of(FILES, "src/a.py")

    names = [job.name for job in plan.jobs]

    assert names == ["build", "test", "docs", "release", "slow"]


async def test_path_filters_run_what_the_change_touches_and_say_why() -> None:
    """Each job names the rule and the file; a job with artifacts runs because its consumer does."""
    plan = await plan_of(FILES, "src/a.py")

    assert skipped(plan) == {"build": False, "test": False, "docs": True, "release": False, "slow": False}
    assert rules(plan) == {
        "build": [("artifacts-needed", None)],
        "test": [("paths", "src/a.py")],
        "docs": [("paths", "src/a.py")],
        "release": [("configured", "deltaci.yaml")],
        "slow": [("paths-ignore", "src/a.py")],
    }
    assert plan.jobs[1].reasons[0].text == "src/a.py changed and matches 'src/**'"
    assert (plan.source, plan.changed_files_count, plan.base_sha) == ("configuration", 1, "b" * 40)


async def test_ignored_paths_alone_run_nothing_that_ignores_them() -> None:
    """The plain use of paths_ignore: no tests for a typo in the manual."""
    plan = await plan_of(FILES, "docs/a.md", "README.md")

    assert skipped(plan) == {"build": True, "test": True, "docs": False, "release": False, "slow": True}


async def test_a_rename_counts_for_both_of_its_paths() -> None:
    """What moved out of a directory changed that directory."""
    change = changed("attic/a.py")[0]
    moved = type(change)(path=change.path, old_path="src/a.py", kind="renamed")

    plan = planned(MemoryView(FILES), [moved], base_sha="b" * 40)

    assert rules(plan)["test"] == [("paths", "src/a.py")]


@pytest.mark.parametrize(
    ("paths", "base", "rule"),
    [
        ((), None, "base-unknown"),
        ((), "b" * 40, "empty-difference"),
        (("deltaci.yaml",), "b" * 40, "configuration-changed"),
    ],
)
async def test_whatever_is_uncertain_runs_everything(paths: tuple[str, ...], base: str | None, rule: str) -> None:
    """An unknown base, a run without a change, a changed configuration: no filter can be trusted to skip."""
    plan = await plan_of(FILES, *paths, base=base)

    assert not any(skipped(plan).values())
    assert rules(plan)["docs"][0][0] == rule


async def test_an_unknown_base_is_explained_in_the_plan() -> None:
    """People ask why everything ran; the answer is in what was stored."""
    plan = planned(MemoryView(FILES), None, base_sha="b" * 40, unknown_because="history was rewritten")

    assert plan.base_sha is None
    assert plan.changed_files_count is None
    assert plan.reasons[-1].text == "everything runs: history was rewritten"


async def test_equal_inputs_give_equal_plans_in_whatever_order_they_come() -> None:
    """Reproducible, byte for byte: the digest names the plan."""
    monorepo = {f"p{n}/pyproject.toml": f'[project]\nname = "p{n}"\ndependencies = ["p{n + 1}"]\n' for n in range(20)}
    for files in (FILES, monorepo):
        paths = [f"p{n}/x.py" for n in range(0, 20, 3)] + ["src/a.py", "docs/a.md"]
        digests = set()
        for seed in range(10):
            shuffled, order = list(files.items()), list(paths)
            random.Random(seed).shuffle(shuffled)
            random.Random(seed).shuffle(order)

            digests.add(digest(await plan_of(dict(shuffled), *order)))

        assert len(digests) == 1


async def test_a_changed_file_changes_no_more_than_it_has_to() -> None:
    """The digest of a plan without hashes does not follow file contents."""
    one = await plan_of({**FILES, "src/a.py": "1"}, "src/a.py")
    other = await plan_of({**FILES, "src/a.py": "2"}, "src/a.py")

    assert digest(one) == digest(other)


async def test_a_repository_where_nothing_is_found_gets_an_empty_plan_that_says_so() -> None:
    """A new repository with a README is no failure: there is nothing to wait for."""
    plan = await plan_of({"README.md": "hello"}, "README.md")

    assert plan.jobs == ()
    assert plan.reasons[0].rule == "nothing-to-run"


async def test_an_untrusted_change_cannot_bring_its_own_configuration() -> None:
    """A fork must not choose labels, and so runners, for itself."""
    fork = MemoryView({**FILES, "deltaci.yaml": "version: 1\njobs: {evil: {steps: [x], labels: [production]}}"})
    base = MemoryView(FILES, commit_sha="d" * 40)

    plan = planned(fork, changed("deltaci.yaml"), base_sha="d" * 40, configuration_view=base)

    assert "evil" not in skipped(plan)
    assert [reason.rule for reason in plan.reasons] == ["configuration", "configuration-from-base"]


async def test_a_bad_configuration_fails_the_plan() -> None:
    """Explicit configuration wins over discovery, also when it is wrong."""
    with pytest.raises(ConfigurationInvalid, match=r"deltaci\.yaml:1:1"):
        await plan_of({"deltaci.yaml": "jobs: {}", "go.mod": "module x", "a.go": ""})


@pytest.mark.slow
async def test_more_patterns_than_can_be_matched_in_time_are_refused() -> None:
    """What would take longer than a plan may is not begun."""
    jobs = "".join(
        f"  j{n}: {{steps: [x], paths: [{', '.join(f'{n}p{m}*' for m in range(30))}]}}\n" for n in range(300)
    )

    with pytest.raises(PlanFailed, match="too many patterns"):
        await plan_of({"deltaci.yaml": f"version: 1\njobs:\n{jobs}"}, *(f"f{n}" for n in range(40_000)))


async def test_names_with_line_breaks_stay_on_one_line_of_a_reason() -> None:
    """A file name is not a way to write into somebody's log."""
    plan = await plan_of(FILES, "src/a\nFAILED\x1b[31m.py")

    reason = next(job for job in plan.jobs if job.name == "test").reasons[0]

    assert reason.file == "src/a\nFAILED\x1b[31m.py"
    assert reason.text == "src/a\\nFAILED\\x1b[31m.py changed and matches 'src/**'"
