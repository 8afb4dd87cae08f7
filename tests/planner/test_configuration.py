"""deltaci.yaml: what is accepted, and what each mistake is told."""

import textwrap
from pathlib import Path

import pytest

from deltaci.domain.plan import JOBS_MAX, MATRIX_MAX, PlannedJob
from deltaci.planner.configuration import FILE, NEEDS_MAX, is_present, load
from deltaci.planner.errors import PROBLEMS_MAX, ConfigurationInvalid, Problem
from deltaci.planner.repository import Files
from deltaci.planner.yaml_nodes import BYTES_MAX, DEPTH_MAX
from tests.planner.memory_view import MemoryView

NO_FILES = Files(())


def jobs_of(text: str, files: Files = NO_FILES) -> dict[str, PlannedJob]:
    return {each.job.name: each.job for each in load(textwrap.dedent(text).encode(), files)}


def problems_of(data: str | bytes, files: Files = NO_FILES) -> tuple[Problem, ...]:
    raw = textwrap.dedent(data).encode() if isinstance(data, str) else data
    with pytest.raises(ConfigurationInvalid) as caught:
        load(raw, files)
    return caught.value.problems


def with_jobs(*lines: str) -> str:
    return "version: 1\njobs:\n" + "".join(f"  {line}\n" for line in lines)


def test_every_field_of_a_job_arrives_in_the_plan() -> None:
    """One example with everything: a field that is read and dropped would be the worst kind of support."""
    text = """
        version: 1
        env: {LEVEL: top, SHARED: 1}
        defaults: {labels: [linux], timeout: 20m, retries: 1, workdir: app}
        jobs:
          build:
            steps:
              - make
              - {name: Pack, run: make pack, env: {FAST: true}, workdir: dist}
            env: {LEVEL: job}
            timeout: 1h30m
            retries: 2
            priority: -5
            allow_failure: true
            artifacts: [{name: wheel, paths: ["dist/*.whl"]}]
            caches: [{key: build-1, paths: .cache}]
          test:
            needs: build
            steps: pytest
    """.replace("steps: pytest", "steps: [pytest]")

    jobs = jobs_of(text)

    build, test = jobs["build"], jobs["test"]
    assert [(s.name, s.run, s.env, s.workdir) for s in build.steps] == [
        ("make", "make", {}, "app"),
        ("Pack", "make pack", {"FAST": "true"}, "dist"),
    ]
    assert build.env == {"LEVEL": "job", "SHARED": "1"}
    assert (build.timeout_ms, build.retries, build.priority, build.policy) == (5_400_000, 2, -5, "allow_failure")
    assert [(a.name, a.paths) for a in build.artifacts] == [("wheel", ("dist/*.whl",))]
    assert [(c.key, c.paths) for c in build.caches] == [("build-1", (".cache",))]
    assert (test.needs, test.labels, test.timeout_ms, test.retries) == (("build",), ("linux",), 1_200_000, 1)


def test_a_version_number_stays_as_it_was_written() -> None:
    """YAML reads 3.10 as 3.1 and `no` as false; nobody who writes a matrix means that."""
    text = with_jobs("t:", "  steps: [x]", "  matrix: {python: [3.9, 3.10], flag: [no]}")

    jobs = jobs_of(text)

    assert list(jobs) == ["t (python=3.9, flag=no)", "t (python=3.10, flag=no)"]


def test_a_matrix_fills_in_names_scripts_environments_labels_and_caches() -> None:
    """Each place that the reference names, and the variables that scripts can use instead."""
    files = Files(MemoryView({"requirements.txt": "a", "x.py": ""}).entries())
    text = """
        version: 1
        jobs:
          test:
            matrix: {python: ["3.11"], os: [linux]}
            labels: ["${{ matrix.os }}"]
            env: {PY: "python${{matrix.python}}"}
            steps: [{name: "On ${{ matrix.os }}", run: "py${{ matrix.python }} $${{ kept }}"}]
            artifacts: [{name: "report-${{ matrix.python }}", paths: ["out/${{ matrix.os }}"]}]
            caches: [{key: "pip-${{ matrix.os }}-${{ hash('requirements*.txt', \\"*.lock\\") }}", paths: [.cache]}]
    """.replace('\\"', "''")

    job = jobs_of(text.replace("''*.lock''", "'*.lock'"), files)["test (python=3.11, os=linux)"]

    assert job.labels == ("linux",)
    assert job.env == {"MATRIX_PYTHON": "3.11", "MATRIX_OS": "linux", "PY": "python3.11"}
    assert (job.steps[0].name, job.steps[0].run) == ("On linux", "py3.11 ${{ kept }}")
    assert (job.artifacts[0].name, job.artifacts[0].paths) == ("report-3.11", ("out/linux",))
    assert job.caches[0].key == f"pip-linux-{files.hash_of(['requirements*.txt', '*.lock'])}"
    assert job.matrix == {"python": "3.11", "os": "linux"}


def test_needing_a_matrix_job_means_all_its_combinations() -> None:
    """A release must wait for every one of them."""
    text = with_jobs("t:", "  steps: [x]", "  matrix: {a: [1, 2]}", "r: {steps: [y], needs: t}")

    jobs = jobs_of(text)

    assert jobs["r"].needs == ("t (a=1)", "t (a=2)")


def test_exclude_takes_combinations_away_and_include_adds_whole_ones() -> None:
    """The two escapes from the full product."""
    text = with_jobs(
        "t:",
        "  steps: [x]",
        "  matrix: {a: [1, 2], b: [x, y], exclude: [{a: 1, b: x}], include: [{a: 3, c: z}, {a: 2, b: y}]}",
    )

    jobs = jobs_of(text)

    assert list(jobs) == ["t (a=1, b=y)", "t (a=2, b=x)", "t (a=2, b=y)", "t (a=3, c=z)"]


def test_a_cache_key_follows_the_contents_of_its_files_and_nothing_else() -> None:
    """Same lock file, same cache; an unrelated commit must not throw it away."""
    text = with_jobs("t:", "  steps: [x]", "  caches: [{key: \"k-${{ hash('*.lock') }}\", paths: [c]}]")

    def key(files: dict[str, str]) -> str:
        return jobs_of(text, Files(MemoryView(files).entries()))["t"].caches[0].key

    assert key({"a.lock": "1", "x.py": "1"}) == key({"x.py": "2", "a.lock": "1"})
    assert len({key({"a.lock": "1"}), key({"a.lock": "2"}), key({"b.lock": "1"}), key({})}) == 4


BAD = [
    # (configuration, line, column, key, part of the text)
    ("", 1, 1, "", "the file is empty"),
    ("[]", 1, 1, "", "expected a mapping with 'version'"),
    ("version: 1\n", 1, 1, "jobs", "missing"),
    ("jobs: {a: {steps: [x]}}", 1, 1, "version", "write 'version: 1'"),
    ("version: 2\njobs: {a: {steps: [x]}}", 1, 10, "version", "only version 1"),
    ("version: 1\njobs: {}", 2, 7, "jobs", "at least one job"),
    ("version: 1\njobs:\n", 2, 6, "jobs", "found nothing"),
    ("version: 1\njob: {a: {steps: [x]}}\njobs: {a: {steps: [x]}}", 2, 1, "job", "did you mean 'jobs'?"),
    (with_jobs("a: make"), 3, 6, "jobs.a", "found the text 'make'"),
    (with_jobs("a: {}"), 3, 6, "jobs.a.steps", "missing"),
    (with_jobs("a: {steps: []}"), 3, 14, "jobs.a.steps", "at least one step"),
    (with_jobs("a: {steps: [' ']}"), 3, 15, "jobs.a.steps[0]", "empty script"),
    (with_jobs("a: {steps: [[x]]}"), 3, 15, "jobs.a.steps[0]", "found a list"),
    (with_jobs("a: {steps: [{name: x}]}"), 3, 15, "jobs.a.steps[0].run", "missing"),
    (with_jobs("a: {steps: [{run: x, workdir: ../b}]}"), 3, 33, "jobs.a.steps[0].workdir", "without '..'"),
    (with_jobs("a: {steps: [{run: x, wokdir: b}]}"), 3, 24, "jobs.a.steps[0].wokdir", "did you mean 'workdir'?"),
    (with_jobs("a:", "  steps: [x]", "  tiemout: 5"), 5, 5, "jobs.a.tiemout", "did you mean 'timeout'?"),
    (with_jobs("a: {steps: [x], timeout: soon}"), 3, 28, "jobs.a.timeout", "'soon' is not a time"),
    (with_jobs("a: {steps: [x], timeout: 25h}"), 3, 28, "jobs.a.timeout", "between 1s and 24h"),
    (with_jobs("a: {steps: [x], timeout: 0}"), 3, 28, "jobs.a.timeout", "between 1s and 24h"),
    (with_jobs("a: {steps: [x], timeout: ٣}"), 3, 28, "jobs.a.timeout", "is not a time"),
    (with_jobs("a: {steps: [x], retries: 11}"), 3, 28, "jobs.a.retries", "from 0 to 10"),
    (with_jobs("a: {steps: [x], retries: -1}"), 3, 28, "jobs.a.retries", "from 0 to 10"),
    (with_jobs("a: {steps: [x], priority: high}"), 3, 29, "jobs.a.priority", "from -100 to 100"),
    (with_jobs("a: {steps: [x], policy: optional}"), 3, 27, "jobs.a.policy", "'required' or 'allow_failure'"),
    (with_jobs("a: {steps: [x], allow_failure: yes}"), 3, 34, "jobs.a.allow_failure", "true or false"),
    (with_jobs("a: {steps: [x], policy: required, allow_failure: true}"), 3, 52, "jobs.a.allow_failure", "keep one"),
    (with_jobs("a: {steps: [x], labels: [a b]}"), 3, 28, "jobs.a.labels[0]", "no white space"),
    (with_jobs("a: {steps: [x], env: [A]}"), 3, 24, "jobs.a.env", "found a list"),
    (with_jobs("a: {steps: [x], env: {1A: x}}"), 3, 25, "jobs.a.env.1A", "variable is named"),
    (with_jobs("a: {steps: [x], env: {A: }}"), 3, 28, "jobs.a.env.A", "found nothing"),
    (with_jobs("a: {steps: [x], paths: []}"), 3, 26, "jobs.a.paths", "empty list"),
    (with_jobs("a: {steps: [x], paths: ['!b']}"), 3, 26, "jobs.a.paths", "only '!'"),
    (with_jobs("a: {steps: [x], paths: ['../b']}"), 3, 27, "jobs.a.paths[0]", "relative to the root"),
    (with_jobs("a: {steps: [x], paths: ['[b']}"), 3, 27, "jobs.a.paths[0]", "no ']' closes"),
    (with_jobs("a: {steps: [x], artifacts: [{name: n}]}"), 3, 31, "jobs.a.artifacts[0].paths", "missing"),
    (with_jobs("a: {steps: [x], artifacts: [{name: ../n, paths: p}]}"), 3, 38, "jobs.a.artifacts[0].name", "no slash"),
    (with_jobs("a: {steps: [x], artifacts: [{name: n, paths: /etc}]}"), 3, 48, "jobs.a.artifacts[0].paths", "relative"),
    (with_jobs("a: {steps: [x], caches: [{key: k, paths: ~/.m2}]}"), 3, 44, "jobs.a.caches[0].paths", "relative"),
    (with_jobs("a: {steps: [x], caches: [{key: a b, paths: c}]}"), 3, 34, "jobs.a.caches[0].key", "no white space"),
    (with_jobs("a: {steps: [x], needs: [b]}", "bb: {steps: [x]}"), 3, 27, "jobs.a.needs[0]", "did you mean 'bb'?"),
    (with_jobs("a: {steps: [x], needs: a}"), 3, 26, "jobs.a.needs", "a -> a"),
    (with_jobs("a: {steps: [x], needs: b}", "b: {steps: [x], needs: [a]}"), 3, 26, "jobs.a.needs", "a -> b -> a"),
    (with_jobs("a\\b: {steps: [x]}"), 3, 3, "jobs.a\\b", "a job name has"),
    (with_jobs("a: {steps: [x], matrix: {}}"), 3, 27, "jobs.a.matrix", "name an axis"),
    (with_jobs("a: {steps: [x], matrix: {p: []}}"), 3, 31, "jobs.a.matrix.p", "at least one value"),
    (with_jobs("a: {steps: [x], matrix: {p: [1, 1]}}"), 3, 35, "jobs.a.matrix.p[1]", "twice"),
    (with_jobs("a: {steps: [x], matrix: {p-q: [1]}}"), 3, 28, "jobs.a.matrix.p-q", "axis is named"),
    (with_jobs("a: {steps: [x], matrix: {p: [1], P: [1]}}"), 3, 27, "jobs.a.matrix", "only in case"),
    (with_jobs("a: {steps: [x], matrix: {p: [1], exclude: [{p: 1}]}}"), 3, 27, "jobs.a.matrix", "no combination"),
    (
        with_jobs("a: {steps: [x], matrix: {p: [1], exclude: [{q: 1}]}}"),
        3,
        47,
        "jobs.a.matrix.exclude[0].q",
        "unknown key",
    ),
    (with_jobs("a: {steps: ['${{ matrix.q }}'], matrix: {p: [1]}}"), 3, 15, "jobs.a.steps[0]", "the axes are p"),
    (
        with_jobs("a: {steps: ['${{ matrix.pyhton }}'], matrix: {python: [1]}}"),
        3,
        15,
        "jobs.a.steps[0]",
        "did you mean 'python'?",
    ),
    (with_jobs("a: {steps: ['${{ secrets.X }}']}"), 3, 15, "jobs.a.steps[0]", "accepted: matrix.<axis>"),
    (with_jobs("a: {steps: [\"${{ hash('x') }}\"]}"), 3, 15, "jobs.a.steps[0]", "in cache keys only"),
    (with_jobs("a: {steps: ['${{ matrix.p']}"), 3, 15, "jobs.a.steps[0]", "without '}}'"),
    (with_jobs("a: {steps: [x], caches: [{key: '${{ hash() }}', paths: c}]}"), 3, 34, "jobs.a.caches[0].key", "quoted"),
    ("version: 1\nversion: 1", 2, 1, "version", "already on line 1"),
    ("a: &x 1\nb: *x", 1, 4, "", "anchors (&x)"),
    ("b: *x", 1, 4, "", "aliases"),
    ("a: !!python/object/apply:os.system [id]", 1, 4, "", "tags"),
    ("a: 1\n---\nb: 1", 2, 1, "", "second document"),
    ("a: {<<: {b: 1}}", 1, 5, "", "merge keys"),
    ("? [a]\n: 1", 1, 3, "", "a key is a text"),
    ("a: [", 2, 1, "", "not YAML"),
    ("a:\n\t- b", 2, 1, "", "not YAML"),
    ("ok: 1\nbad: \xff".encode("latin-1"), 2, 6, "", "byte 0xff is not UTF-8"),
    ("ok: 1\nbäd: é\x1b", 2, 7, "", "U+001B is not accepted"),
]


@pytest.mark.parametrize(("text", "line", "column", "key", "part"), BAD)
def test_a_mistake_is_told_with_its_line_column_and_key(
    text: str | bytes, line: int, column: int, key: str, part: str
) -> None:
    """The author sees where to look and what to write, without reading our source."""
    data = text.encode() if isinstance(text, str) else text

    problems = problems_of(data)

    first = problems[0]
    assert (FILE, line, column, key) == (first.file, first.line, first.column, first.key)
    assert part in first.text


def test_all_mistakes_are_told_at_once() -> None:
    """One push for each mistake would be one push too many."""
    text = with_jobs("a:", "  steps: []", "  retries: x", "b:", "  step: [x]", "  needs: c")

    problems = problems_of(text)

    assert [p.line for p in problems] == [4, 5, 7, 7, 8]


def test_a_mistake_is_told_once_however_many_combinations_have_it() -> None:
    """The same line nine times would hide the mistake after it, and a label that was not filled in is no second one."""
    text = with_jobs(
        "a: {steps: [x], labels: ['${{ matrix.pp }}'], matrix: {p: [1, 2, 3], q: [1, 2, 3]}}",
        "b: {steps: [x], caches: [{key: '${{ hash(x) }}', paths: c}]}",
    )

    problems = problems_of(text)

    assert [p.key for p in problems] == ["jobs.a.labels[0]", "jobs.b.caches[0].key"]
    assert "unknown axis" in problems[0].text
    assert "quoted patterns" in problems[1].text


def test_a_file_full_of_mistakes_is_told_in_part() -> None:
    """The report stays readable, and computing suggestions stays cheap."""
    text = with_jobs(*(f"job{n}: {{steps: [x], needs: [jb{n}], x{n}: 1}}" for n in range(JOBS_MAX)))

    problems = problems_of(text)

    assert len(problems) == PROBLEMS_MAX


def test_the_error_text_shows_file_line_column_and_key() -> None:
    """What ends up in the status of the run."""
    with pytest.raises(ConfigurationInvalid) as caught:
        load(with_jobs("a: {steps: [x], retries: 11}").encode(), NO_FILES)

    assert str(caught.value) == "deltaci.yaml:3:28: jobs.a.retries: '11' is not a whole number from 0 to 10"


def test_the_largest_matrix_is_accepted_and_one_more_is_not() -> None:
    """The limit holds for combinations, whatever axes make them."""

    def text(count: int) -> str:
        return with_jobs("a:", "  steps: [x]", f"  matrix: {{p: {list(range(count))}}}")

    jobs = jobs_of(text(MATRIX_MAX))

    assert len(jobs) == MATRIX_MAX
    assert f"at most {MATRIX_MAX}" in problems_of(text(MATRIX_MAX + 1))[0].text


def test_a_matrix_that_explodes_is_refused_before_it_is_expanded() -> None:
    """Ten axes of a hundred values are 10**20 combinations."""
    axes = ", ".join(f"a{n}: {list(range(100))}" for n in range(10))

    problems = problems_of(with_jobs("a:", "  steps: [x]", f"  matrix: {{{axes}}}"))

    assert "combinations" in problems[0].text


def test_as_many_jobs_as_allowed_are_accepted_and_one_more_is_not() -> None:
    """Counted after expanding matrices."""

    def text(count: int) -> str:
        return with_jobs(*(f"j{n}: {{steps: [x]}}" for n in range(count)))

    jobs = jobs_of(text(JOBS_MAX))

    assert len(jobs) == JOBS_MAX
    assert f"at most {JOBS_MAX}" in problems_of(text(JOBS_MAX + 1))[0].text


def test_matrices_that_need_each_other_too_often_are_refused() -> None:
    """256 x 256 needs would be a plan of megabytes; a job in between says the same with 512."""
    values = list(range(MATRIX_MAX))
    text = with_jobs(
        f"a: {{steps: [x], matrix: {{p: {values}}}}}", f"b: {{steps: [x], needs: a, matrix: {{p: {values}}}}}"
    )

    problems = problems_of(text)

    assert f"more than {NEEDS_MAX} needs" in problems[0].text


def test_a_script_that_a_matrix_multiplies_beyond_the_limit_is_refused() -> None:
    """A file within its limit must not become a plan of 64 MiB."""
    text = with_jobs("a:", f"  matrix: {{p: {list(range(250))}}}", f"  steps: ['{'x' * 200_000}']")

    problems = problems_of(text)

    assert ["characters after expanding" in problem.text for problem in problems] == [True]


@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "? "])
def test_deep_nesting_is_refused_without_being_built(opening: str) -> None:
    """A quarter of a megabyte of brackets ends most parsers; here it ends at level 21."""
    data = (opening * (BYTES_MAX // len(opening))).encode()

    problems = problems_of(data)

    assert "nested deeper" in problems[0].text or "a key is a text" in problems[0].text


def test_nesting_up_to_the_limit_is_read() -> None:
    """The limit and one past it."""
    at_limit = "[" * DEPTH_MAX + "]" * DEPTH_MAX

    assert "nested" not in problems_of(at_limit)[0].text
    assert "nested" in problems_of(f"[{at_limit}]")[0].text


def test_an_alias_bomb_is_refused_at_its_first_anchor() -> None:
    """Billion laughs: nine lines that expand to gigabytes."""
    lines = ["a0: &a0 [lol, lol]"] + [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 30)]

    problems = problems_of("\n".join(lines))

    assert problems[0].line == 1
    assert "anchors" in problems[0].text


def test_a_file_of_the_largest_size_is_read_and_one_byte_more_is_not() -> None:
    """The limit and one past it."""
    text = with_jobs("a: {steps: [x]}") + "#"

    assert load(text.ljust(BYTES_MAX, "x").encode(), NO_FILES)
    assert f"more than {BYTES_MAX} bytes" in problems_of(text.ljust(BYTES_MAX + 1, "x").encode())[0].text


@pytest.mark.parametrize(("mode", "part"), [("120000", "symlink"), ("160000", "submodule")])
def test_a_configuration_that_is_not_a_file_is_refused(mode: str, part: str) -> None:
    """A link could point at anything, also at something that a fork may change."""
    files = Files(MemoryView({FILE: "x"}, modes={FILE: mode}).entries())

    with pytest.raises(ConfigurationInvalid, match=part):
        is_present(files)


def test_a_directory_in_place_of_the_configuration_is_refused() -> None:
    """Discovery instead would run something that nobody asked for."""
    files = Files(MemoryView({f"{FILE}/x": ""}).entries())

    with pytest.raises(ConfigurationInvalid, match="directory"):
        is_present(files)


def test_a_misnamed_configuration_is_refused() -> None:
    """deltaci.yml that does nothing would cost somebody an afternoon."""
    files = Files(MemoryView({"deltaci.yml": ""}).entries())

    with pytest.raises(ConfigurationInvalid, match=r"deltaci\.yml: the configuration is named deltaci\.yaml"):
        is_present(files)


def test_the_example_in_the_reference_is_a_good_configuration() -> None:
    """What people copy first has to work."""
    page = (Path(__file__).parents[2] / "docs/configuration.md").read_text(encoding="utf-8")
    example = page.split("```yaml\n", 1)[1].split("```", 1)[0]

    jobs = jobs_of(example)

    assert list(jobs) == ["lint", "test (python=3.11)", "test (python=3.12)", "test (python=3.13)", "docs", "package"]
