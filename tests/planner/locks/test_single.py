"""Locks of one project: everything in them is installed, and what they were made from is not."""

import pytest

from deltaci.planner.locks.formats import differences, resolutions
from tests.planner.locks.compare import members, touched

WHO = members("app")
POETRY = """[[package]]
name = "click"
version = "8.1.0"
files = [{file = "click.whl", hash = "sha256:abc"}]

[metadata]
lock-version = "2.1"
python-versions = ">=3.11"
content-hash = "one"
"""
PDM = POETRY.replace('lock-version = "2.1"', 'lock_version = "4.5.0"').replace("content-hash", "content_hash")
PIPENV = """{"_meta": {"hash": {"sha256": "one"}, "pipfile-spec": 6, "requires": {"python_version": ">=3.11"}},
 "default": {"click": {"hashes": ["sha256:abc"], "version": "==8.1.0"}}, "develop": {}}"""
NUGET = """{"version": 1, "dependencies": {"net8.0": {
  "click": {"type": "Direct", "requested": "[8.1.0, )", "resolved": "8.1.0", "contentHash": "sha256:abc"}}}}"""
GO = "example.com/click v8.1.0 h1:sha256:abc\nexample.com/click v8.1.0/go.mod h1:mod\n"
GRADLE = "# Generated\ncom.example:click:8.1.0=compileClasspath,runtimeClasspath\nempty=annotations\n"
PIP = "# made by pip-compile\n--index-url https://example.com\nclick==8.1.0 \\\n    --hash=sha256:abc\n    # via app\n"
ALL = {
    "poetry.lock": POETRY,
    "pdm.lock": PDM,
    "Pipfile.lock": PIPENV,
    "packages.lock.json": NUGET,
    "go.sum": GO,
    "go.work.sum": GO,
    "gradle.lockfile": GRADLE,
    "requirements.txt": PIP,
    "requirements-dev.txt": PIP,
}


@pytest.mark.parametrize("name", ALL)
def test_another_version_concerns_the_project_and_is_named(name: str) -> None:
    """The plainest update there is."""
    other = ALL[name].replace("8.1.0", "8.2.0")

    found = differences(name, ALL[name].encode(), other.encode(), WHO)

    assert found["app"].startswith("resolves otherwise for this project: ")
    assert found["app"].endswith("click 8.1.0 -> 8.2.0") or "v8.1.0 -> v8.2.0" in found["app"]


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("poetry.lock", '"one"', '"two"'),
        ("poetry.lock", "[[package]]", "# by another version\n[[package]]"),
        ("pdm.lock", '"one"', '"two"'),
        ("Pipfile.lock", '"one"', '"two"'),
        ("packages.lock.json", "  ", " "),
        ("go.sum", "h1:mod\n", "h1:mod\n\n"),
        ("gradle.lockfile", "compileClasspath,runtimeClasspath", "runtimeClasspath,compileClasspath"),
        ("requirements.txt", "# via app", "# via something else"),
        ("requirements.txt", " \\\n    ", "  \\\n  "),
    ],
)
def test_what_it_was_made_from_is_no_change(name: str, old: str, new: str) -> None:
    """Hashes of the manifest, comments, order and spaces install nothing else."""
    changed = ALL[name].replace(old, new)

    assert changed != ALL[name]
    assert touched(name, ALL[name], changed, WHO) == set()


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("poetry.lock", '">=3.11"', '">=3.12"'),
        ("poetry.lock", "abc", "def"),
        ("Pipfile.lock", '">=3.11"', '">=3.12"'),
        ("go.sum", "h1:mod", "h1:other"),
        ("gradle.lockfile", "empty=", "empty=more,"),
        ("requirements.txt", "https://example.com", "https://example.org"),
        ("requirements.txt", "abc", "def"),
    ],
)
def test_everything_else_is_a_change(name: str, old: str, new: str) -> None:
    """Hashes, Python versions, where packages come from."""
    assert touched(name, ALL[name], ALL[name].replace(old, new), WHO) == {"app"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("poetry.lock", POETRY.replace("2.1", "3.0")),
        ("pdm.lock", PDM.replace("4.5.0", "5.0")),
        ("Pipfile.lock", PIPENV.replace("6", "7")),
        ("packages.lock.json", NUGET.replace('"version": 1', '"version": 3')),
        ("go.sum", "<<<<<<< HEAD\n"),
        ("gradle.lockfile", "something else\n"),
        ("requirements.txt", PIP + "-r other.txt\n"),
        ("requirements.txt", PIP + "--constraint=other.txt\n"),
        ("requirements.txt", PIP + "../local\n"),
        ("composer.lock", "{}"),
    ],
)
def test_what_is_not_known_is_not_told(name: str, text: str) -> None:
    """A version from the future, a conflict left in the file, other files that it includes, another format."""
    assert resolutions(name, text.encode(), WHO) is None
