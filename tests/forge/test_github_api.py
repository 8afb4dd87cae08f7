"""What GitHub alone has: checks with annotations, deliveries, a budget of writes; and limits that are none of ours."""

from typing import Any

import pytest

from deltaci.domain.errors import ForgeRejected, ForgeUnavailable
from deltaci.forge.api import Status
from tests.forge.asking import START_MS
from tests.forge.github_world import a_world
from tests.forge.hooks import a_repo
from tests.forge.servers.wire import Fault
from tests.forge.test_checks import a_check, an_annotation

pytestmark = pytest.mark.anyio


# ---- checks ----------------------------------------------------------------------------------------------------------


async def test_a_check_is_made_once_and_then_changed() -> None:
    """One line at the commit, from waiting to its end."""
    async with a_world() as world:
        made = await world.api.put_check(world.repo, a_check(head_sha=world.head), remote_id=None)
        running = a_check(head_sha=world.head, status="in_progress", started_at_ms=START_MS)
        same = await world.api.put_check(world.repo, running, remote_id=made)
        ended = a_check(head_sha=world.head, status="completed", conclusion="success", title="Succeeded", text="**ok**")
        await world.api.put_check(world.repo, ended, remote_id=made)

        assert made == same
        assert world.shop.states_of("deltaci/test") == ["queued", "in_progress", "success"]
        (shown,) = world.shop.checks.values()
        assert (shown["external_id"], shown["output"]["title"]) == ("job_1", "Succeeded")


@pytest.mark.parametrize("count", [0, 49, 50, 51, 120])
async def test_every_annotation_is_shown_once_in_order(count: int) -> None:
    """Fifty fit into a request."""
    async with a_world() as world:
        check = a_check(head_sha=world.head, annotations=tuple(an_annotation(number + 1) for number in range(count)))

        await world.api.put_check(world.repo, check, remote_id=None)

        (shown,) = world.shop.checks.values()
        assert [one["start_line"] for one in shown["annotations"]] == list(range(1, count + 1))


@pytest.mark.parametrize("lost", [1, 2, 3])
@pytest.mark.parametrize("is_done", [True, False])
@pytest.mark.parametrize("knows_id", [True, False])
async def test_a_check_that_breaks_off_goes_on_where_it_was(lost: int, is_done: bool, knows_id: bool) -> None:
    """Whatever answer is lost: no second check, and no annotation twice."""
    async with a_world() as world:
        known = (
            await world.api.put_check(world.repo, a_check(head_sha=world.head), remote_id=None) if knows_id else None
        )
        check = a_check(
            head_sha=world.head,
            status="completed",
            conclusion="failure",
            annotations=tuple(an_annotation(number + 1) for number in range(130)),
        )
        writes = 0

        def lose(asked: Any) -> Fault | None:
            nonlocal writes
            writes += asked.method in ("POST", "PATCH") and "check-runs" in asked.path
            is_it = writes == lost and asked.method != "GET"
            return Fault("reset", is_done=is_done) if is_it and "check-runs" in asked.path else None

        world.github.fault_of = lose
        with pytest.raises(ForgeUnavailable):
            await world.api.put_check(world.repo, check, remote_id=known)
        world.github.fault_of = lambda _: None
        await world.api.put_check(world.repo, check, remote_id=known)

        (shown,) = world.shop.checks.values()
        assert [one["start_line"] for one in shown["annotations"]] == list(range(1, 131))
        assert shown["conclusion"] == "failure"


async def test_a_check_that_is_gone_is_made_anew() -> None:
    """Its id is remembered longer than it exists."""
    async with a_world() as world:
        made = await world.api.put_check(world.repo, a_check(head_sha=world.head), remote_id="5")

        assert str(world.shop.checks[int(made)]["id"]) == made
        with pytest.raises(ForgeRejected, match=r"'x/\.\./y' is no id"):
            await world.api.put_check(world.repo, a_check(head_sha=world.head), remote_id="x/../y")


async def test_a_token_makes_statuses_and_no_checks() -> None:
    """Checks are for Apps."""
    async with a_world(is_app=False) as world:
        assert world.api.is_app(world.repo) is False
        with pytest.raises(ForgeRejected, match="Resource not accessible"):
            await world.api.put_check(world.repo, a_check(head_sha=world.head), remote_id=None)


# ---- rates -----------------------------------------------------------------------------------------------------------


async def test_writes_stay_below_the_limits_of_github() -> None:
    """The real limits, enforced by the server: nothing is ever refused, and the wait is told."""
    async with a_world(is_app=False) as world:
        status = Status(context="c", state="running", description="")
        sent = 0
        for _ in range(200):
            try:
                await world.api.set_status(world.repo, world.head, status)
                sent += 1
            except ForgeUnavailable as error:
                world.time.at_ms += error.retry_after_ms or 0

        assert world.github.limits.refused == 0
        assert sent >= 197
        assert world.time.at_ms - START_MS >= 120_000


async def test_a_limit_that_others_use_up_is_obeyed() -> None:
    """The same token may be used elsewhere: then GitHub says so first."""
    async with a_world(is_app=False) as world:
        world.github.limits.writes_per_minute = 1
        status = Status(context="c", state="running", description="")
        await world.api.set_status(world.repo, world.head, status)
        for _ in range(3):
            with pytest.raises(ForgeUnavailable) as caught:
                await world.api.set_status(world.repo, world.head, status)

        assert caught.value.retry_after_ms == 60_000
        assert world.github.limits.refused == 1


async def test_looking_again_at_what_has_not_changed_costs_nothing() -> None:
    """Reconciling looks at the same lists all day."""
    async with a_world(is_app=False) as world:
        for _ in range(5):
            await world.api.open_pull_requests(world.repo)

        assert world.github.limits.used("delta-bot") == 1


# ---- limits of what GitHub shows -------------------------------------------------------------------------------------


async def test_a_tree_that_is_cut_off_is_unknown() -> None:
    """Half of a tree looks like a whole one in which much was removed."""
    async with a_world() as world:
        world.github.tree_entries_max = 2
        old = world.head
        new = world.shop.commit({f"{number}": b"1" for number in range(301)})

        tree = await world.api.tree(world.repo, new)
        changed = await world.api.changed_paths(world.repo, old, new)

        assert (tree.entries, changed.paths) == (None, None)
        assert changed.unknown_because == tree.unknown_because == f"GitHub cuts off the tree of {new}"


async def test_where_two_commits_parted_is_told() -> None:
    """What a pull request changes is measured from there."""
    async with a_world() as world:
        root = world.head
        base = world.shop.commit({"a": b"2"})
        head = world.shop.commit({"b": b"2"}, parent=root, branch="feature")

        assert await world.api.merge_base(world.repo, base, head) == root
        assert await world.api.merge_base(world.repo, base, "f" * 40) is None


@pytest.mark.parametrize("name", ["shop", "acme/shop/../../user", "acme/..", "/shop", "acme/"])
async def test_a_name_that_is_none_is_rejected_without_a_request(name: str) -> None:
    """A crafted name must not reach another address."""
    async with a_world() as world:
        with pytest.raises(ForgeRejected, match="not of the form owner/name"):
            await world.api.tree(a_repo(name, installation_id=7), "main")

        assert world.github.asked == []


# ---- deliveries ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_app", [True, False])
async def test_webhooks_that_were_lost_are_found_and_asked_for_again(is_app: bool) -> None:
    """Newest first, over all pages, as far back as was asked."""
    async with a_world(is_app=is_app, hook_url="https://ci.example.org/api/v1/webhooks/github") as world:
        config = {"url": "https://ci.example.org/api/v1/webhooks/github", "content_type": "json"}
        world.shop.hooks += [{"id": 3, "config": {"url": "https://x"}}, {"id": 4, "config": config}]
        hook_id = None if is_app else 4
        for number in range(250):
            world.time.at_ms = START_MS + number * 1_000
            world.github.record(
                "push", {"n": number}, world.shop, hook_id=hook_id, status_code=0 if number == 249 else 200
            )
        where = None if is_app else world.repo

        found = await world.api.deliveries(where, START_MS + 100_000)
        await world.api.redeliver(where, found[0].id)

        assert len(found) == 150
        assert [one.has_arrived for one in found[:2]] == [False, True]
        assert found[0].delivered_at_ms == START_MS + 249_000
        assert found[0].repository_id == world.shop.id
        assert world.github.redelivered == [found[0].id]
        again = await world.api.deliveries(where, START_MS + 249_000)
        assert [(one.guid, one.is_redelivery) for one in again] == [(found[0].guid, True), (found[0].guid, False)]


async def test_without_app_or_webhook_there_are_no_deliveries_to_look_at() -> None:
    """It is told, not taken for "none were sent"."""
    async with a_world(is_app=False) as world:
        with pytest.raises(ForgeRejected, match="no GitHub App is set"):
            await world.api.deliveries(None, 0)
        with pytest.raises(ForgeRejected, match="acme/shop has no webhook to /api/v1/webhooks/github"):
            await world.api.deliveries(world.repo, 0)
