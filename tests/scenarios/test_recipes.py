"""Recipes from push to export, with a real server and runner: kept, used, marked, and found again."""

import os
from pathlib import Path
from typing import Any

import pytest

from deltaci.planner.configuration import load
from deltaci.planner.repository import Files
from tests.scenarios.support import Project, RunnerProcess, Server, wait_for

pytestmark = pytest.mark.slow

FILES = {"go.mod": "module shop\n", "shop.go": "answer = 42\n"}
# A compiler that takes no time and is there on every machine; it finds the commands that the plan has for it.
GO = '#!/bin/sh\necho "go $*"\n[ "$1" != test ] || grep -q 42 shop.go\n'


def versions(server: Server) -> list[tuple[int, str]]:
    return [(one["version"], one["state"]) for one in server.get("/repos/shop/recipes")["recipes"]]


def source(view: Any) -> str:
    return str(view["plan"]["source"])


def test_a_recipe_lives_from_push_to_push(tmp_path: Path) -> None:
    """The first push discovers and keeps, the second uses, a failure marks, the next discovers; export says it all."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "go").write_text(GO)
    (tools / "go").chmod(0o755)
    before = ("env", f"PATH={tools}:{os.environ['PATH']}")
    with Server(tmp_path) as server, RunnerProcess(server, before=before):
        project = Project(server)
        first = server.run_until(project.push(FILES))
        wait_for("version 1", lambda: versions(server) == [(1, "ACTIVE")])
        second = server.run_until(project.push({"shop.go": "answer = 42 // as before\n"}))
        listed = server.cli("recipe", "list", "shop")
        shown = server.cli("recipe", "show", "shop")
        feature = server.run_until(project.push({"shop.go": "answer = 41\n"}, branch="feature"))
        unmarked = versions(server)
        third = server.run_until(project.push({"shop.go": "answer = 43\n"}))
        wait_for("the mark", lambda: versions(server) == [(1, "STALE")])
        stale = server.get("/repos/shop/recipes/1")["recipe"]
        fourth = server.run_until(project.push({"shop.go": "answer = 42\n"}))
        wait_for("the recipe", lambda: versions(server) == [(1, "ACTIVE")])
        output = tmp_path / "proposal.yaml"
        server.cli("recipe", "export", "shop", "--output", str(output))
        refused = server.cli("recipe", "export", "shop", "--output", str(output), code=1)
        printed = server.cli("recipe", "export", "shop", "--version", "1")
        proposed = server.run_until(project.push({"deltaci.yaml": output.read_text()}))
        unknown = server.cli("recipe", "show", "shop", "--version", "7", code=1)
        server.assert_sound()

    states = [(view["run"]["state"], source(view)) for view in (first, second, feature, third, fourth, proposed)]
    assert states == [
        ("SUCCEEDED", "discovery"),
        ("SUCCEEDED", "recipe"),
        ("FAILED", "recipe"),
        ("FAILED", "recipe"),
        ("SUCCEEDED", "discovery"),
        ("SUCCEEDED", "configuration"),
    ]
    assert unmarked == [(1, "ACTIVE")]
    assert third["run"]["id"] == stale["failed_by"]
    assert third["run"]["id"] in stale["reason"]
    assert "ACTIVE" in listed
    assert second["run"]["id"] in shown
    assert printed == output.read_text()
    assert "is there already" in refused
    assert "no version 7" in unknown
    (job,) = load(output.read_bytes(), Files(()))
    assert [job.job.name] == [one["name"] for one in first["jobs"]] == [one["name"] for one in proposed["jobs"]]
