"""A recipe written down as a configuration: loaded again, it does the same, and never less."""

import random
from collections.abc import Sequence

import msgspec
import pytest

from deltaci.domain.blueprint import Blueprint
from deltaci.domain.plan import PlannedJob, Step
from deltaci.domain.project import CacheRule, Project, ProjectJob
from deltaci.domain.recipe import Kept
from deltaci.planner.configuration import ConfiguredJob, load
from deltaci.planner.construction import jobs_of
from deltaci.planner.export import NotExportable, configuration_of
from deltaci.planner.graph import ProjectGraph
from deltaci.planner.impact import Difference, of_configured, of_projects
from deltaci.planner.repository import Files
from tests.builders import a_project
from tests.planner.memory_view import MemoryView
from tests.planner.test_recipes import kept

NOTHING = Files(())


def exported(*projects: Project) -> str:
    return configuration_of(kept(Blueprint(fingerprint="f", projects=projects)), "team/shop")


def loaded(*projects: Project, files: Files = NOTHING) -> list[ConfiguredJob]:
    return list(load(exported(*projects).encode(), files))


def a_job(*scripts: str, **more: object) -> ProjectJob:
    steps = tuple(Step(name=f"Step {index}", run=script) for index, script in enumerate(scripts))
    return msgspec.structs.replace(ProjectJob(check="test", steps=steps), **more)


def at(root: str, **more: object) -> Project:
    """A project with a test, at `root`."""
    job = a_job("make", steps=(Step(name="Test", run="make", workdir=root),))
    values = {"ecosystem": "go", "root": root, "manifest": f"{root}/go.mod".removeprefix("./"), "jobs": (job,)}
    return Project(**(values | more))  # type: ignore[arg-type]


def test_a_job_comes_back_with_everything_it_does() -> None:
    """Commands, directories, environment, caches with their inputs, artifacts."""
    project = a_project(tools={"go": ">=1.22 <2"})
    files = Files(MemoryView({"services/api/go.sum": "1"}).entries())
    other = Files(MemoryView({"services/api/go.sum": "2"}).entries())

    (job,) = [each.job for each in loaded(project, files=files)]
    (changed,) = [each.job for each in loaded(project, files=other)]

    (planned,) = project.jobs
    assert job.name == "go-test:services/api"
    assert (planned.steps, planned.env, planned.artifacts) == (job.steps, job.env, job.artifacts)
    assert [rule.paths for rule in planned.caches] == [cache.paths for cache in job.caches]
    assert (PlannedJob(name="", steps=()).timeout_ms, "required") == (job.timeout_ms, job.policy)
    assert job.caches[0].key.startswith("go-")
    assert job.caches[0].key != changed.caches[0].key


@pytest.mark.parametrize(
    "script",
    [
        "echo a: b # c",
        "echo ${{ matrix.x }}",
        "echo $${{ x }} $$${{",
        "echo ${{${{",
        "first\nsecond: x\n  third\n\nfourth",
        "ends with a break\n",
        "ends with two\n\n",
        "  begins with blanks\nx",
        "trailing blanks   \nx\t\ny",
        "'single' \"double\" \\back",
        "no",
        "~",
        "null",
        "1.0",
        "<<",
        "=",
        "- x",
        "%TAG",
        "\u00fcber \u2192 \U0001f600",
        "\u2028 line separator\nx",
        "tab\there",
        "\x1b[1mcolour",
        "windows\r\nlines\r\n",
        "x" * 3_000 + " " + "y" * 3_000,
        "  # a comment alone\nmake",
        "jobs:\n  other:\n    steps: [x]\nfoo",
    ],
)
def test_every_text_comes_back_as_it_was(script: str) -> None:
    """YAML has many ways to read something else than what was meant, and expressions one more."""
    step = Step(name="Test it", run=script, env={"VALUE": script})
    job = a_job(steps=(step,), env={"OTHER": script})

    (found,) = loaded(at("a", jobs=(job,)))

    assert ((step,), job.env) == (found.job.steps, found.job.env)


def test_names_that_a_configuration_refuses_become_others_and_none_is_doubled() -> None:
    """Two that look alike stay apart, and so do two that are cut."""
    roots = ["a b", "a(b", "a)b", "\u00fc", "x" * 200, "x" * 199 + "y", "it's: ${{ x }}", "a[b]*?"]

    jobs = loaded(*(at(root) for root in roots))

    assert roots == [each.job.steps[0].workdir for each in jobs]
    assert len({each.job.name for each in jobs}) == len(roots)


def test_equal_projects_are_written_out_in_full() -> None:
    """The reader of configurations refuses references."""
    job = a_job("make", env={"A": "1"})

    text = exported(at("a", jobs=(job,)), at("b", jobs=(job,)), at("c", jobs=(job,)))

    assert "&id" not in text
    assert text.count("A: '1'") == 3


def test_the_proposal_says_where_it_comes_from_and_which_project_a_job_is_of() -> None:
    """A comment cannot be ended by a name."""
    project = at("a\njobs: x", jobs=(a_job("make", reports=("a/report.xml",)),), manifest="a\njobs: x/go.mod")

    text = exported(project)

    comments = [line.strip() for line in text.splitlines() if line.strip().startswith("#")]
    assert "version 3 of the recipe of team/shop" in comments[0]
    assert "run_made" in comments[1]
    assert "# a\\njobs: x/go.mod; JUnit reports: a/report.xml" in comments


WORLD = (
    at(".", ecosystem="python", manifest="pyproject.toml"),
    at("a", ecosystem="go", name="a"),
    at("a/inner", ecosystem="go", name="inner"),
    at("b", ecosystem="node", depends_on_roots=frozenset({"a"}), reads=frozenset({"shared/base.json", "conf"})),
    at("c/[d]*", ecosystem="node", name="d", lock="pnpm-lock.yaml"),
    at("e", ecosystem="node", depends_on_names=frozenset({"d"}), reads=frozenset({"a/inner/x.json"})),
    at("e", ecosystem="go", name="e"),
    at("f/g/h", ecosystem="rust", reads=frozenset({"."})),
)
PARTS = ["a", "b", "c", "[d]*", "[d]x", "e", "f", "g", "h", "inner", "shared", "conf", "docs", ".github", "tests", "x"]
LEAVES = ["x.py", ".py", ".x.go", "main.go", "base.json", "x.json", "go.mod", "README.md", "Makefile", "pnpm-lock.yaml"]


@pytest.mark.parametrize("seed", range(40))
def test_whatever_changes_the_proposal_runs_at_least_what_the_recipe_would(seed: int) -> None:
    """Any subset of the projects, any changed files: no job that the recipe runs is left out."""
    rng = random.Random(seed)
    projects = tuple(project for project in WORLD if seed == 0 or rng.random() < 0.7) or WORLD
    graph = ProjectGraph(projects)
    jobs = loaded(*projects)
    for _ in range(150):
        paths = {
            "/".join([*rng.choices(PARTS, k=rng.randrange(4)), rng.choice(LEAVES)])
            for _ in range(rng.choice((1, 1, 2)))
        }
        difference = Difference(paths=tuple(sorted(paths)))

        touched, skip = of_projects(graph, difference)
        expected = jobs_of(graph, range(len(projects)), touched, skip, NOTHING)
        found = of_configured(jobs, difference)

        missing = [one.name for one, other in zip(found, expected, strict=True) if one.is_skipped > other.is_skipped]
        assert missing == [], paths


def skipped(jobs: Sequence[ConfiguredJob], *paths: str) -> set[str]:
    return {job.name for job in of_configured(jobs, Difference(paths=paths)) if job.is_skipped}


def test_the_proposal_leaves_out_what_is_not_concerned() -> None:
    """Running everything always would be a superset, too."""
    jobs = loaded(*WORLD)

    assert "go-test:a" in skipped(jobs, "b/x.js")
    assert "node-test:b" in skipped(jobs, "e/x.js")
    assert "node-test:b" not in skipped(jobs, "a/x.go")
    assert "node-test:b" not in skipped(jobs, "conf/deep/x")
    assert "go-test:a" in skipped(jobs, "src/x.py")
    assert skipped(jobs, "Makefile") == skipped(jobs, ".github/workflows/x") == set()


def test_too_many_projects_for_patterns_run_on_every_change() -> None:
    """And the proposal says so."""
    projects = [at(f"p/{number}") for number in range(300)]

    text = exported(*projects)

    assert "No job has `paths`" in text
    assert skipped(list(load(text.encode(), NOTHING)), "p/1/x.go") == set()


@pytest.mark.parametrize(
    ("projects", "word"),
    [
        ((), "has no job"),
        ((at("a", jobs=()),), "has no job"),
        ([at(f"p/{number}") for number in range(1_001)], "jobs"),
        ((at("a", jobs=(a_job("x" * 300_000),)),), "bytes"),
        (
            (
                at(
                    "a",
                    jobs=(
                        a_job(
                            "make",
                            steps=(Step(name="x", run="x", workdir=".."),),
                        ),
                    ),
                ),
            ),
            "inside the repository",
        ),
        ((at("a", jobs=(a_job("make", caches=(CacheRule(name="a b", paths=("x",), inputs=()),)),)),), "cache key"),
    ],
    ids=["nothing", "no-jobs", "jobs", "bytes", "outside", "key"],
)
def test_what_a_configuration_cannot_say_is_refused_with_the_reason(projects: Sequence[Project], word: str) -> None:
    """Nobody is handed a proposal that the next push would refuse."""
    with pytest.raises(NotExportable, match=word) as refused:
        exported(*projects)

    assert "version 3 of the recipe of team/shop" in str(refused.value)


def test_many_inputs_are_hashed_in_parts() -> None:
    """One expression takes twenty; names that would end it are matched by a wildcard."""
    inputs = (*(f"in/{number}" for number in range(50)), "it's }}")
    rule = CacheRule(name="many", paths=("x",), inputs=inputs)
    project = at("a", jobs=(a_job("make", caches=(rule,)),))

    def key(*paths: str) -> str:
        return loaded(project, files=Files(MemoryView(dict.fromkeys(paths, "1")).entries()))[0].job.caches[0].key

    keys = {key(), key("in/0"), key("in/49"), key("it's }}")}

    assert len(keys) == 4
    assert key("deep/in/0") == key()


def test_what_is_exported_is_kept_by_nobody() -> None:
    """Equal recipes give equal text."""
    recipe: Kept = kept(Blueprint(fingerprint="f", projects=WORLD))

    assert configuration_of(recipe, "shop") == configuration_of(recipe, "shop")
