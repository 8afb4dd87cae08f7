"""A configuration that is wrong: the run fails with a text that names file, line and key."""

from pathlib import Path

import pytest

from tests.scenarios.support import Project, Server

pytestmark = pytest.mark.slow

CYCLE = """\
version: 1
jobs:
  a:
    needs: [b]
    steps: [echo a]
  b:
    needs: [a]
    steps: [echo b]
"""
UNKNOWN_KEY = """\
version: 1
jobs:
  test:
    step:
      - echo one
    steps:
      - echo one
"""
ALIASES = """\
version: 1
jobs:
  a: &job
    steps: [echo a]
  b: *job
"""
BOMB = "version: 1\na: &a [x, x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [*{chr(97 + n)}, *{chr(97 + n)}]\n" for n in range(20)
)


def test_a_wrong_configuration_fails_the_run_and_names_the_place(tmp_path: Path) -> None:
    """Whoever pushed it must find the line without reading the server's log."""
    with Server(tmp_path) as server:
        project = Project(server)
        views, shown = {}, {}
        for name, text in (("cycle", CYCLE), ("unknown", UNKNOWN_KEY), ("alias", ALIASES), ("bomb", BOMB)):
            run_id = project.push({"deltaci.yaml": text}, name)
            views[name] = server.run_until(run_id)["run"]
            shown[name] = server.cli("run", "show", run_id)
        watched = server.cli("run", "watch", views["cycle"]["id"], code=1)
        server.assert_sound()

    for name, place, word in (
        ("cycle", "deltaci.yaml:4:", "a -> b -> a"),
        ("unknown", "deltaci.yaml:4:", "step"),
        ("alias", "deltaci.yaml:3:6", "anchors (&job)"),
        ("bomb", "deltaci.yaml:2:4", "anchors (&a)"),
    ):
        run = views[name]
        assert (run["state"], run["end_reason"]) == ("FAILED", "plan_failed")
        assert place in run["text"], run["text"]
        assert word in run["text"], run["text"]
        assert place in shown[name]
    assert "plan_failed" in watched
