"""Recipes from push to export, with a real server and runner: kept, used, marked, and found again."""

from pathlib import Path
from typing import Any

import pytest

from deltaci.planner.configuration import load
from deltaci.planner.repository import Files
from tests.scenarios.support import Server, running, wait_for

pytestmark = pytest.mark.slow

# Nothing is installed from anywhere: the standard library tests it.
FILES = {
    "requirements.txt": "",
    "test_shop.py": "import unittest, shop\n\nclass Shop(unittest.TestCase):\n"
    "    def test_answer(self):\n        self.assertEqual(42, shop.ANSWER)\n",
    "shop.py": "ANSWER = 42\n",
}


def versions(server: Server) -> list[tuple[int, str]]:
    return [(one["version"], one["state"]) for one in server.get("/repos/shop/recipes")["recipes"]]


def source(view: Any) -> str:
    return str(view["plan"]["source"])


def test_a_recipe_lives_from_push_to_push(tmp_path: Path) -> None:
    """The first push discovers and keeps, the second uses, a failure marks, the next discovers; export says it all."""
    with running(tmp_path) as (server, project, _):
        first = server.run_until(project.push(FILES))
        wait_for("version 1", lambda: versions(server) == [(1, "ACTIVE")])
        second = server.run_until(project.push({"shop.py": "ANSWER = 6 * 7\n"}))
        listed = server.cli("recipe", "list", "shop")
        shown = server.cli("recipe", "show", "shop")
        feature = server.run_until(project.push({"shop.py": "ANSWER = 41\n"}, branch="feature"))
        unmarked = versions(server)
        third = server.run_until(project.push({"shop.py": "ANSWER = 43\n"}))
        wait_for("the mark", lambda: versions(server) == [(1, "STALE")])
        stale = server.get("/repos/shop/recipes/1")["recipe"]
        fourth = server.run_until(project.push({"shop.py": "ANSWER = 42\n"}))
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
