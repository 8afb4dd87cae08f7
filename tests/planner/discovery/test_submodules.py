"""Submodules: where they are brought, and for whom."""

import pytest

from tests.planner.discovered import projects_of, runs_of

BRING = "git submodule update --init --recursive"
MODULES = '[submodule "a"]\n\tpath = vendor/a\n\turl = https://example.com/a\n'
FILES = {"go.mod": "module x\n", "tool/go.mod": "module y\n"}


def ci(text: str) -> dict[str, str]:
    return {".github/workflows/ci.yml": f"jobs:\n  a:\n    steps:\n      - uses: checkout\n        {text}\n"}


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, True),  # nobody to ask: a build that needs it must not fail
        (ci("with: {}\n      - run: go test ./..."), False),
        (ci("with:\n          submodules: recursive"), True),
        (ci("with: {submodules: 'true'}"), True),
        (ci("with:\n          submodules: false"), False),
        (ci("- run: git submodule update --init"), True),
        ({".gitlab-ci.yml": "x:\n  script:\n    - git clone --recursive y\n"}, True),
    ],
)
def test_they_are_brought_where_the_own_ci_brings_them(more: dict[str, str], expected: bool) -> None:
    """Before all else, in the jobs of the projects around them and in no others."""
    projects = projects_of(FILES | {".gitmodules": MODULES} | more, "go")

    assert (runs_of(projects["."], "test")[0] == BRING) is expected
    assert runs_of(projects["tool"], "test")[0] != BRING


@pytest.mark.parametrize("text", ["", "path\n", "path = ../../up\n", "[submodule]\npath = \0\n", "path = /\n" * 1_000])
def test_a_file_that_names_no_place_inside_brings_nothing(text: str) -> None:
    """Its places are only compared with the roots of projects."""
    project = projects_of(FILES | {".gitmodules": text}, "go")["tool"]

    assert BRING not in runs_of(project, "test")
