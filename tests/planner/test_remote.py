"""Planning through a forge's API: the same plan as from a clone, or a clone after all."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import msgspec
import pytest

from deltaci.domain.errors import ForgeRejected, ForgeUnavailable
from deltaci.domain.plan import Plan, digest
from deltaci.forge.api import RemoteEntry
from deltaci.forge.local import MirrorLimits
from deltaci.planner import remote
from deltaci.planner.bounds import Bounds
from deltaci.planner.errors import PlanFailed, PlanUnavailable
from deltaci.planner.messages import Reply, Request, Start, Wants, reply_decoder, request_decoder
from deltaci.planner.remote import Asked, NotTold, Reading, differing
from deltaci.planner.rosters import Rosters
from deltaci.planner.service import RepositoryPlanner
from deltaci.planner.worker import Work
from tests.planner.git_api import GitApi, at, with_other_bytes, without_contents
from tests.planner.locks.test_npm import lock, package
from tests.planner.planned import Asker
from tests.planner.repositories import Bare
from tests.planner.test_locks import FILES as WORKSPACE
from tests.planner.test_warm_plans import histories, outcome

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

START = Start(memory_bytes_max=2**31, cache_bytes_max=2**28, jobs_max=500, limits=MirrorLimits())
THROUGH_THE_API = Bounds(source="api", workers_max=1)
GO = {"go.mod": "module x\n", "a.go": "package x\n"}


class InProcess:
    """The process that plans, without a process: what is said still goes through its frames."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.rosters = Rosters()
        self.requests = 0

    async def ask(self, request: Request) -> Reply:
        self.requests += 1
        request = self.rosters.asking(request)
        reply = self.work.reply(request_decoder.decode(msgspec.msgpack.encode(request)))
        return self.rosters.whole(request, reply_decoder.decode(msgspec.msgpack.encode(reply)))

    def close(self) -> None:
        pass


@pytest.fixture
def repository(tmp_path: Path) -> Bare:
    return Bare(tmp_path / "r.git")


@pytest.fixture
def api(repository: Bare) -> GitApi:
    return GitApi(repository.path)


def a_planner(data: Path, bounds: Bounds = THROUGH_THE_API) -> RepositoryPlanner:
    planner = RepositoryPlanner(data, bounds=bounds)
    start = msgspec.structs.replace(START, limits=bounds.of_mirrors())
    planner.workers = InProcess(Work(start))  # type: ignore[misc, assignment]
    return planner


async def plan_of(planner: RepositoryPlanner, repository: Bare, api: GitApi | None, sha: str, **more: Any) -> Plan:
    at_forge = None if api is None else at(api)
    return await planner.plan(
        repo_id="r", clone_url=str(repository.path), commit_sha=sha, ref=None, at_forge=at_forge, **more
    )


def mirrors(data: Path) -> list[Path]:
    return list((data / "mirrors").glob("*"))


@pytest.mark.parametrize("seed", range(1, 5))
async def test_a_plan_is_the_same_whether_a_clone_or_the_api_tells_it(
    tmp_path: Path, repository: Bare, api: GitApi, seed: int
) -> None:
    """Over random histories: pushes, pull requests, forks, rewritten and first commits, with sizes told and not."""
    rng = random.Random(seed)
    api.has_sizes = seed % 3 != 0
    bounds = msgspec.structs.replace(THROUGH_THE_API, api_files_max=10_000)
    planner, shas, outcomes = a_planner(tmp_path / "data", bounds), list[str](), set()
    for number, files in enumerate(histories(rng)):
        if number == 10:
            break
        shas.append(repository.commit(files, *rng.sample(shas, k=min(len(shas), 1))))
        for base_sha in (None, rng.choice(shas), shas[-1]):
            is_pull_request, is_trusted = rng.random() < 0.5, base_sha is None or rng.random() < 0.6
            request = Request(
                number=0,
                directory=str(repository.path),
                repo_id="r",
                commit_sha=shas[-1],
                base_sha=base_sha,
                unknown_because="no base was given" if base_sha is None else None,
                configuration_sha=None if is_trusted else base_sha,
                is_pull_request=is_pull_request,
            )
            try:
                plan = await plan_of(
                    planner,
                    repository,
                    api,
                    shas[-1],
                    base_sha=base_sha,
                    is_pull_request=is_pull_request,
                    is_trusted=is_trusted,
                )
                told = ("plan", digest(plan))
            except PlanFailed as error:
                told = ("failure", error.text)

            assert told == outcome(Asker(START), request), (seed, number, request)
            outcomes.add(told)
    assert len({each for kind, each in outcomes if kind == "plan"}) > 3
    assert mirrors(tmp_path / "data") == []


async def test_a_changed_lock_file_is_read_before_and_after(tmp_path: Path, repository: Bare, api: GitApi) -> None:
    """Only the member runs that resolves otherwise, as from a clone; through real processes."""
    before = repository.commit({**WORKSPACE, "package-lock.json": lock()})
    after = {**WORKSPACE, "package-lock.json": lock(packages={"node_modules/z": package("2.0.0")})}
    head = repository.commit(after, before)
    planner, cloning = (RepositoryPlanner(tmp_path / each.source, bounds=each) for each in (THROUGH_THE_API, Bounds()))
    try:
        plan = await plan_of(planner, repository, api, head, base_sha=before)
        cloned = await plan_of(cloning, repository, None, head, base_sha=before)
    finally:
        planner.close()
        cloning.close()

    assert digest(plan) == digest(cloned)
    assert {each.id: each.reason.rule for each in plan.projects}["node:packages/c"] == "lock-changed"
    assert api.read.count("package-lock.json") == 2
    assert mirrors(tmp_path / "api") == []


async def test_what_is_known_of_the_commit_before_is_not_read_again(
    tmp_path: Path, repository: Bare, api: GitApi
) -> None:
    """Contents are remembered by their object id, as for clones."""
    files = {f"p{n}/go.mod": f"module m{n}\n" for n in range(20)}
    first = repository.commit(files)
    second = repository.commit({**files, "p3/go.mod": "module changed\n"}, first)
    planner = a_planner(tmp_path / "data")
    await plan_of(planner, repository, api, first)
    read_first = sorted(api.read)
    api.read.clear()

    await plan_of(planner, repository, api, second, base_sha=first)

    assert read_first == sorted(files)
    assert api.read == ["p3/go.mod"]


def truncated(api: GitApi, head: str, base: str) -> Bounds:
    api.truncated = {base}
    return THROUGH_THE_API


def head_truncated(api: GitApi, head: str, base: str) -> Bounds:
    api.truncated = {head}
    return THROUGH_THE_API


def no_merge_base(api: GitApi, head: str, base: str) -> Bounds:
    api.knows_merge_bases = False
    return THROUGH_THE_API


def too_large_for_it(api: GitApi, head: str, base: str) -> Bounds:
    api.spoil = without_contents
    return THROUGH_THE_API


def converted(api: GitApi, head: str, base: str) -> Bounds:
    api.spoil = with_other_bytes
    return THROUGH_THE_API


def unavailable(api: GitApi, head: str, base: str) -> Bounds:
    async def fail() -> None:
        raise ForgeUnavailable("the forge is away")

    api.before = fail
    return THROUGH_THE_API


def rejected(api: GitApi, head: str, base: str) -> Bounds:
    async def fail() -> None:
        if "read_files" in api.asked:
            raise ForgeRejected("not for you")

    api.before = fail
    return THROUGH_THE_API


def silent(api: GitApi, head: str, base: str) -> Bounds:
    api.before = anyio.sleep_forever
    return msgspec.structs.replace(THROUGH_THE_API, api_ms=20)


def many_files(api: GitApi, head: str, base: str) -> Bounds:
    return msgspec.structs.replace(THROUGH_THE_API, api_files_max=1)


def many_bytes(api: GitApi, head: str, base: str) -> Bounds:
    return msgspec.structs.replace(THROUGH_THE_API, api_bytes_max=10)


def many_bytes_of_unknown_size(api: GitApi, head: str, base: str) -> Bounds:
    api.has_sizes = False
    return msgspec.structs.replace(THROUGH_THE_API, api_bytes_max=10)


@pytest.mark.parametrize(
    "plant",
    [
        truncated,
        head_truncated,
        no_merge_base,
        too_large_for_it,
        converted,
        unavailable,
        rejected,
        silent,
        many_files,
        many_bytes,
        many_bytes_of_unknown_size,
    ],
)
async def test_what_the_api_does_not_tell_is_read_from_a_clone(
    tmp_path: Path, repository: Bare, api: GitApi, plant: Callable[[GitApi, str, str], Bounds]
) -> None:
    """Every limit and every failure ends in the plan that the clone gives; from then on the mirror is used."""
    files = {**GO, "b/go.mod": "module b\n", "b/b.go": ""}
    base = repository.commit(files)
    head = repository.commit({**files, "b/b.go": "package b\n"}, base)
    planner = a_planner(tmp_path / "data", plant(api, head, base))

    plan = await plan_of(planner, repository, api, head, base_sha=base)
    asked = len(api.asked)
    again = await plan_of(planner, repository, api, head, base_sha=base)

    expected = digest(await plan_of(a_planner(tmp_path / "clone", Bounds()), repository, None, head, base_sha=base))
    assert [digest(plan), digest(again)] == [expected] * 2
    assert asked > 0
    assert len(api.asked) == asked
    assert len(mirrors(tmp_path / "data")) == 1


async def test_more_changes_than_are_looked_at_are_unknown(tmp_path: Path, repository: Bare, api: GitApi) -> None:
    """In the words that a clone has for it."""
    base = repository.commit(GO)
    head = repository.commit({**GO, "README.md": "", "docs/a.md": ""}, base)
    few, cloning = (Bounds(source=source, changes_max=1) for source in ("api", "clone"))

    plan = await plan_of(a_planner(tmp_path / "data", few), repository, api, head, base_sha=base)
    cloned = await plan_of(a_planner(tmp_path / "clone", cloning), repository, None, head, base_sha=base)

    assert digest(plan) == digest(cloned)
    assert [job.is_skipped for job in plan.jobs] == [False]


async def test_a_list_that_is_too_long_for_a_request_is_read_from_a_clone(
    tmp_path: Path, repository: Bare, api: GitApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two files of six characters fit; three do not."""
    monkeypatch.setattr(remote, "LIST_BYTES_MAX", 250)
    fitting, longer = repository.commit(GO), repository.commit({**GO, "README": ""})

    await plan_of(a_planner(tmp_path / "fits"), repository, api, fitting)
    await plan_of(a_planner(tmp_path / "longer"), repository, api, longer)

    assert [len(mirrors(tmp_path / name)) for name in ("fits", "longer")] == [0, 1]


async def test_names_that_are_not_utf8_are_read_from_a_clone(tmp_path: Path, repository: Bare, api: GitApi) -> None:
    """JSON has lost the bytes that a clone would show."""
    head = repository.commit(GO)
    api_tree = api.tree

    async def with_a_lost_name(repo: Any, commit_sha: str) -> Any:
        tree = await api_tree(repo, commit_sha)
        odd = RemoteEntry(path="a\ufffd.go", mode="100644", sha="1" * 40, size=1)
        return msgspec.structs.replace(tree, entries=(*tree.entries, odd))

    api.tree = with_a_lost_name  # type: ignore[method-assign]

    await plan_of(a_planner(tmp_path / "data"), repository, api, head)

    assert len(mirrors(tmp_path / "data")) == 1


@pytest.mark.parametrize("is_trusted", [True, False])
async def test_everything_runs_when_neither_tells_what_changed(
    tmp_path: Path, repository: Bare, api: GitApi, is_trusted: bool
) -> None:
    """The clone is too large to be had at all: unknown is not nothing. The configuration is still the base's."""
    files = {**GO, "large": random.Random(1).randbytes(100_000), "deltaci.yaml": "version: 1\njobs: {a: {steps: [x]}}"}
    base = repository.commit(files)
    head = repository.commit({**files, "README.md": "x", "deltaci.yaml": "version: 1\njobs: {b: {steps: [x]}}"}, base)
    api.knows_merge_bases = False
    bounds = msgspec.structs.replace(THROUGH_THE_API, fetch_bytes_max=10_000)

    plan = await plan_of(
        a_planner(tmp_path / "data", bounds),
        repository,
        api,
        head,
        base_sha=base,
        is_pull_request=True,
        is_trusted=is_trusted,
    )

    assert [job.name for job in plan.jobs if not job.is_skipped] == ["b" if is_trusted else "a"]
    assert plan.base_sha is None
    assert f"the forge knows no merge base of {base} and {head}" in plan.reasons[-1].text


async def test_a_clone_that_may_be_had_later_is_waited_for(tmp_path: Path, repository: Bare, api: GitApi) -> None:
    """Running everything would be dear, and the next try is likely to know better."""
    head = repository.commit(GO)
    api.knows_merge_bases = False

    with pytest.raises(PlanUnavailable):
        await a_planner(tmp_path / "data").plan(
            repo_id="r",
            clone_url=str(tmp_path / "away"),
            commit_sha=head,
            ref=None,
            base_sha="1" * 40,
            at_forge=at(api),
        )


async def test_the_api_is_not_asked_unless_the_setting_says_so(tmp_path: Path, repository: Bare, api: GitApi) -> None:
    """The default is a clone."""
    head = repository.commit(GO)

    await plan_of(a_planner(tmp_path / "data", Bounds()), repository, api, head)

    assert api.asked == []


@pytest.mark.parametrize("paths", [("secret",), ("go.mod", "../go.mod")])
async def test_the_process_that_plans_gets_no_file_that_it_was_not_told_of(
    repository: Bare, api: GitApi, paths: tuple[str, ...]
) -> None:
    """It reads what strangers wrote: whatever it asks for, only files of this commit are asked of the forge."""
    head = repository.commit(GO)
    asked = Asked(commit_sha=head, base_sha=None, is_pull_request=False, is_trusted=True)
    reading = Reading(at(api), asked, THROUGH_THE_API)
    await reading.tell()

    for sha in (head, "2" * 40):
        with pytest.raises(NotTold, match="does not know of"):
            await reading.read(Wants(number=1, commit_sha=sha, paths=paths, bytes_max=9))

    assert api.read == []


async def test_the_time_for_one_plan_is_for_all_its_questions(repository: Bare, api: GitApi) -> None:
    """A forge that is slow each time does not hold up a plan for the sum of all its answers."""
    head = repository.commit(GO)
    asked = Asked(commit_sha=head, base_sha=None, is_pull_request=False, is_trusted=True)
    reading = Reading(at(api), asked, msgspec.structs.replace(THROUGH_THE_API, api_ms=20))

    api.before = anyio.sleep_forever
    with pytest.raises(NotTold):
        await reading.tell()
    api.before = anyio.lowlevel.checkpoint  # at once, but there is no time left
    with pytest.raises(NotTold, match=r"longer than 20 ms \(setting planner.api_ms\)"):
        await reading.tell()


def test_a_path_differs_in_contents_mode_or_presence() -> None:
    """And in nothing else: a size that is told once and not the other time is no change."""
    same, old = (RemoteEntry(path="p", mode="100644", sha="1", size=size) for size in (1, None))
    before = {"same": same, "mode": same, "bytes": same, "gone": same}
    after = {
        "same": old,
        "mode": msgspec.structs.replace(same, mode="100755"),
        "bytes": msgspec.structs.replace(same, sha="2"),
        "new": same,
    }

    assert differing(before, after) == ("bytes", "gone", "mode", "new")
