"""Who is told how runs end: what may be written, what is stored with a plan, and what is wrong with a rule."""

import textwrap
from typing import Any

import pytest

from deltaci.domain.plan import NotifyRule, Plan, digest
from deltaci.planner.configuration import configure
from deltaci.planner.errors import ConfigurationInvalid
from deltaci.planner.occasion import Occasion
from deltaci.planner.repository import Files
from tests.planner.memory_view import MemoryView
from tests.planner.planned import planned

FILE = """
    version: 1
    jobs: {a: {steps: [t]}}
    notify:
      - channel: team
      - {channel: ops.night-shift, on: failed, branches: [main, "release/*"]}
      - {channel: all, on: [succeeded, canceled], branches: main}
"""
TEAM = NotifyRule(channel="team", on=("failed", "recovered"))
OPS = NotifyRule(channel="ops.night-shift", on=("failed",))
ALL = NotifyRule(channel="all", on=("succeeded", "canceled"))


async def plan_of(text: str, **occasion: Any) -> Plan:
    view = MemoryView({"deltaci.yaml": textwrap.dedent(text)})
    return planned(view, (), base_sha="b" * 40, occasion=Occasion(**occasion))


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("occasion", "rules"),
    [
        ({"ref": "refs/heads/main"}, (TEAM, OPS, ALL)),
        ({"ref": "refs/heads/main", "kind": "schedule"}, (TEAM, OPS, ALL)),
        ({"ref": "refs/heads/release/1"}, (TEAM, OPS)),
        ({"ref": "refs/heads/feature/main"}, (TEAM,)),
        ({"ref": "refs/tags/main"}, (TEAM,)),
        ({"ref": "refs/heads/main", "kind": "pull_request"}, (TEAM,)),
        ({"ref": "refs/pull/7/head", "kind": "pull_request"}, (TEAM,)),
    ],
)
async def test_a_plan_has_the_rules_that_are_about_its_branch(
    occasion: dict[str, Any], rules: tuple[NotifyRule, ...]
) -> None:
    """A rule with branches is about pushes to them, one without is about everything."""
    assert rules == (await plan_of(FILE, **occasion)).notify


@pytest.mark.anyio
async def test_a_plan_without_rules_has_the_digest_that_it_always_had() -> None:
    """Digests that are stored must hold; rules are part of what a plan is."""
    without = await plan_of("version: 1\njobs: {a: {steps: [t]}}\n")
    other = await plan_of("version: 1\njobs: {a: {steps: [t]}}\nnotify: [{channel: x, branches: y}]\n")
    ruled = await plan_of(FILE)

    assert without.notify == other.notify == ()
    assert digest(without) == digest(other) != digest(ruled)
    assert digest(without) == "c2ecad81c589275b82f442a8932bff349a5927e16473bdf18f5b1fbef02b9c0d"


@pytest.mark.parametrize(
    ("text", "line", "column", "key", "part"),
    [
        ("notify: ops", 3, 9, "notify", "a list of mappings with 'channel'"),
        ("notify: []", 3, 9, "notify", "tells nobody"),
        ("notify: [ops]", 3, 10, "notify[0]", "a mapping with 'channel'"),
        ("notify: [{on: failed}]", 3, 10, "notify[0].channel", "missing"),
        ("notify: [{channel: ''}]", 3, 20, "notify[0].channel", "1 to 64 letters"),
        ("notify: [{channel: 'https://chat.example.org/x'}]", 3, 20, "notify[0].channel", "a file of the server"),
        ("notify: [{channel: a, on: []}]", 3, 27, "notify[0].on", "name some of failed, recovered"),
        ("notify: [{channel: a, on: [fail]}]", 3, 28, "notify[0].on[0]", "did you mean 'failed'?"),
        ("notify: [{channel: a, when: failed}]", 3, 23, "notify[0].when", "accepted: channel, on, branches"),
        ("notify: [{channel: a, branches: []}]", 3, 33, "notify[0].branches", "tells nobody"),
        ("notify: [{channel: a, branches: ['!x']}]", 3, 34, "notify[0].branches[0]", "without '!'"),
        (f"notify: [{', '.join(['{channel: a}'] * 51)}]", 3, 9, "notify", "51 rules; at most 50"),
    ],
)
def test_what_is_wrong_with_a_rule_is_told_at_its_place(text: str, line: int, column: int, key: str, part: str) -> None:
    """As with every other key: all of it at once, and nothing of a bad file runs."""
    with pytest.raises(ConfigurationInvalid) as caught:
        configure(f"version: 1\njobs: {{a: {{steps: [t]}}}}\n{text}\n".encode(), Files(()))

    (problem,) = caught.value.problems
    assert (line, column, key) == (problem.line, problem.column, problem.key)
    assert part in problem.text
