"""What tsconfig files add: references, extended configurations, paths and includes outside of a project."""

import json

import pytest

from tests.planner.agreement.workspaces import touched
from tests.planner.discovery.node_support import found, package

FILES = {
    "web/package.json": '{"workspaces": ["*"], "scripts": {"test": "x"}}',
    "web/config/ts/base.json": "{}",
    "web/lib/package.json": package("lib"),
    "web/lib/tsconfig.json": "{}",
    "web/app/package.json": package("app"),
    "web/other/package.json": package("other"),
}


def with_config(text: str, **more: str) -> dict[str, str]:
    return FILES | {"web/app/tsconfig.json": text} | more


@pytest.mark.parametrize(
    ("config", "path"),
    [
        ('{"references": [{"path": "../lib"}]}', "web/lib/a.ts"),
        ('{"references": [{"path": "../lib/tsconfig.json"},]} // trailing comma and comment', "web/lib/a.ts"),
        ('{"extends": "../config/ts/base"}', "web/config/ts/base.json"),
        ('{/* more than one */ "extends": ["./own.json", "../config/ts/base.json"]}', "web/config/ts/base.json"),
        ('{"extends": "lib/tsconfig.json"}', "web/lib/tsconfig.json"),
        ('{"compilerOptions": {"paths": {"@l/*": ["../lib/src/*"]}}}', "web/lib/src/a.ts"),
        ('{"compilerOptions": {"baseUrl": "..", "paths": {"@l": ["lib/index.ts"]}}}', "web/lib/index.ts"),
        ('{"compilerOptions": {"rootDirs": ["src", "../generated"]}}', "web/generated/a.ts"),
        ('{"include": ["src", "../shared/**/*.ts"]}', "web/shared/x/a.ts"),
        ('{"files": ["../globals.d.ts"]}', "web/globals.d.ts"),
    ],
)
def test_a_project_is_touched_by_what_its_configuration_names(config: str, path: str) -> None:
    """It is compiled with it."""
    files = with_config(config)

    assert "web/app" in touched(files, [path])
    assert "web/other" not in touched(files, [path])


def test_configurations_are_extended_through_others() -> None:
    """Each of the chain is read, and so is a package that one of them comes from."""
    files = with_config(
        '{"extends": "../tsconfig.middle.json"}',
        **{
            "web/tsconfig.middle.json": '{"extends": ["./config/tsconfig.last.json", "lib/tsconfig"]}',
            "web/config/tsconfig.last.json": '{"extends": "../tsconfig.middle.json"}',
        },
    )

    assert "web/app" in touched(files, ["web/config/tsconfig.last.json"])
    assert "web/app" in touched(files, ["web/lib/a.ts"])


def test_every_configuration_below_a_project_counts() -> None:
    """Tests often have their own."""
    files = FILES | {"web/app/spec/tsconfig.json": '{"references": [{"path": "../../lib"}]}'}

    assert "web/app" in touched(files, ["web/lib/a.ts"])


@pytest.mark.parametrize("text", ['{"extends": ', "[1]", '{"a":' * 100, '{"a": 1e}', "\0"])
def test_a_configuration_that_cannot_be_read_may_mean_any_file_of_the_workspace(text: str) -> None:
    """Uncertainty expands, for this project alone."""
    answer = touched(with_config(text), ["web/somewhere/else.ts"])

    assert answer == {"web", "web/app"}


@pytest.mark.parametrize(
    "config",
    [
        {
            "references": [1, {"path": 2}, {"path": "../../../../etc"}, {"path": "/etc"}],
            "extends": [3, "/etc/x", "../.."],
        },
        {"extends": "./tsconfig.json"},
        {"compilerOptions": {"paths": {"a": "b", "c": [1]}, "baseUrl": 7}, "include": "x", "files": {}},
        {"extends": {"a": 1}, "references": "x", "compilerOptions": []},
        {"include": ["../no\nde/*", "../../node_modules/x"]},
    ],
)
def test_a_configuration_of_an_unexpected_shape_is_no_crash(config: dict[str, object]) -> None:
    """What leads out of the repository leads nowhere."""
    project = found(with_config(json.dumps(config)))["web/app"]

    assert not any("etc" in path or "\n" in path for path in project.reads | project.depends_on_roots)
