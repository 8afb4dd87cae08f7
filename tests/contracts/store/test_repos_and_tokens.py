"""What every store promises of repositories, tokens, runners and counts."""

import msgspec
import pytest

from deltaci.domain import run as runs
from deltaci.domain.errors import DuplicateKey
from deltaci.store.port import Store
from deltaci.store.writes import Owe, Runner, SaveRepo, Token
from tests.builders import (
    a_created_run,
    a_repo,
    add_job,
    save_run,
    stepped,
)
from tests.contracts.store.support import REPORT, outcomes

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("values", [{"id": "repo_1", "name": "other"}, {"id": "repo_2", "name": "team/project"}])
async def test_a_repository_exists_once_by_id_and_by_name(store: Store, values: dict[str, str]) -> None:
    """Otherwise webhooks of one would start runs of the other."""
    await store.commit([SaveRepo(repo=a_repo())])

    with pytest.raises(DuplicateKey) as caught:
        await store.commit([SaveRepo(repo=a_repo(**values))])

    assert ("repo", (a_repo(),)) == (caught.value.table, await store.repos())


async def test_repositories_come_by_name(store: Store) -> None:
    """Every setting is kept."""
    first, second = a_repo(id="repo_2", name="a", running_max=3), a_repo(name="b", is_superseding=False)
    await store.commit([SaveRepo(repo=second), SaveRepo(repo=first)])

    assert (first, second) == await store.repos()
    assert second == await store.load_repo("repo_1")


async def test_a_token_is_found_by_its_hash(store: Store) -> None:
    """The token itself is stored nowhere, and neither its id nor its hash can be taken again."""
    token = Token(id="tok_1", token_hash="h1", scope="runner", label="ci", created_at_ms=1)
    await store.commit([token])

    answers = await outcomes(
        store,
        [[msgspec.structs.replace(token, token_hash="h2")], [msgspec.structs.replace(token, id="tok_2")]],
    )

    assert [answer.table for answer in answers if isinstance(answer, DuplicateKey)] == ["token", "token"]
    assert token == await store.token("h1")


def a_runner(**more: object) -> Runner:
    values = {
        "id": "runner_1",
        "token_id": "tok_1",
        "name": "host",
        "labels": ("linux",),
        "slots": 2,
        "version": "1",
        "platform": "linux",
        "registered_at_ms": 1,
    }
    return Runner(**(values | more))  # type: ignore[arg-type]


async def test_a_runner_is_kept_as_it_registered_last(store: Store) -> None:
    """One row a runner, found by id and by the name its token gave it."""
    later = a_runner(labels=("linux", "gpu"), registered_at_ms=2)
    await store.commit([a_runner()])

    await store.commit([later, a_runner(id="runner_2", name="other")])

    assert (later, later) == (await store.runner("runner_1"), await store.runner_by_name("tok_1", "host"))
    assert [later, a_runner(id="runner_2", name="other")] == list(await store.runners())


async def test_a_name_belongs_to_one_runner_of_a_token(store: Store) -> None:
    """Two registrations at once: the second one learns the id of the first."""
    await store.commit([a_runner(), a_runner(id="runner_2", name="other")])

    answers = await outcomes(store, [[a_runner(id="runner_3")], [a_runner(id="runner_2", name="host")]])

    assert [answer.table for answer in answers if isinstance(answer, DuplicateKey)] == ["runner", "runner"]
    assert len(await store.runners()) == 2


async def test_rows_are_counted_by_state(store: Store) -> None:
    """What metrics show."""
    await store.commit([save_run(a_created_run(1)), save_run(a_created_run(2)), Owe(effect=REPORT, due_at_ms=0)])
    await store.commit([add_job(), save_run(stepped(a_created_run(2).state, runs.StartPlanning()))])

    assert await store.counts() == {
        "run": {"CREATED": 1, "PLANNING": 1},
        "job": {"QUEUED": 1},
        "outbox": {"owed": 1, "refused": 0},
        "journal": {"entries": 4},
    }
