"""What every forge must answer in the same way, however differently it is asked; each against a server of its rules."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from deltaci.domain.errors import ForgeRejected, ForgeUnavailable
from deltaci.domain.pull_request import PullRequest
from deltaci.domain.repo import Repo
from deltaci.forge.api import ForgeApi, Status, StatusState
from deltaci.forge.gitea_api import GiteaApi
from deltaci.forge.github_access import GitHubAccess
from deltaci.forge.github_api import GitHubApi
from deltaci.forge.github_app import GitHubApp
from deltaci.forge.gitlab_api import GitLabApi
from tests.forge.asking import START_MS, VirtualTime, asking
from tests.forge.certificates import app_key, public_pem
from tests.forge.hooks import a_repo
from tests.forge.servers.gitea import gitea_server
from tests.forge.servers.github import github_server
from tests.forge.servers.github_rules import App
from tests.forge.servers.gitlab import gitlab_server
from tests.forge.servers.hosted import HostedRepo, blob_sha
from tests.forge.servers.wire import Fault

pytestmark = pytest.mark.anyio
TOKEN = "the-secret-token"
KINDS = ("github app", "github token", "gitlab", "gitea")
NOBODY = "f" * 40


@dataclass
class World:
    """A forge with the repository `acme/shop`, and what asks it."""

    kind: str
    forge: Any
    api: ForgeApi
    repo: Repo
    shop: HostedRepo
    time: VirtualTime


@asynccontextmanager
async def a_world(kind: str, **settings: Any) -> AsyncIterator[World]:
    time = VirtualTime()
    async with AsyncExitStack() as stack:
        serve = {"gitlab": gitlab_server, "gitea": gitea_server}.get(kind, github_server)
        forge: Any = await stack.enter_async_context(serve(now_ms=time.now_ms))
        client = await stack.enter_async_context(asking(time))
        fields: dict[str, Any] = {"api_token": TOKEN}
        api: ForgeApi
        match kind:
            case "gitlab":
                api = GitLabApi(client, web_url=forge.url, **settings)
            case "gitea":
                api = GiteaApi(client, web_url=forge.url, **settings)
            case "github token":
                api = GitHubApi(GitHubAccess(client, time, api_url=forge.url), **settings)
            case _:
                forge.app = App(public_key=public_pem(app_key()))
                app = GitHubApp(client, time, api_url=forge.url, client_id="4711", private_key=app_key())
                api = GitHubApi(GitHubAccess(client, time, api_url=forge.url, app=app), **settings)
                fields = {"installation_id": 7}
        if "app" not in kind:
            forge.add_token(TOKEN)
        shop = forge.add_repo("acme/shop", **({"installation_id": 7} if "app" in kind else {}))
        repo_kind: Any = kind.split()[0]
        yield World(kind, forge, api, a_repo(forge=repo_kind, **fields), shop, time)


@pytest.fixture(params=KINDS)
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    async with a_world(request.param) as made:
        yield made


# ---- requests, branches, people --------------------------------------------------------------------------------------


async def test_a_pull_request_is_told_as_it_is_now(world: World) -> None:
    """All that an event would have told, for when the event was lost."""
    world.shop.commit({"a": b"1"})
    head = world.shop.commit({"a": b"2"}, branch="feature")
    world.shop.open_pull(12, head, labels=("slow", "api"), author="octocat", is_draft=True, updated_at_ms=START_MS)

    assert await world.api.pull_request(world.repo, 12) == PullRequest(
        repo_id=world.repo.id,
        number=12,
        head_sha=head,
        head_ref="refs/heads/feature",
        base_ref="refs/heads/main",
        base_sha=world.shop.branches["main"],
        is_draft=True,
        author="octocat",
        title="A change",
        labels=("api", "slow"),
        updated_at_ms=START_MS,
    )
    assert await world.api.pull_request(world.repo, 13) is None


async def test_open_pull_requests_are_listed_over_all_pages(world: World) -> None:
    """The 101st counts as well; what is closed does not, and a fork is known for one."""
    head = world.shop.commit({"a": b"1"})
    for number in range(1, 103):
        world.shop.open_pull(number, head, fork="mallory/shop" if number == 102 else "", is_open=number != 50)

    found = await world.api.open_pull_requests(world.repo)

    assert [one.number for one in found] == [number for number in range(1, 103) if number != 50]
    assert [one.number for one in found if one.is_fork] == [102]


async def test_the_heads_of_branches_are_found_by_pattern(world: World) -> None:
    """A name is found exactly, a glob over all pages."""
    first = world.shop.commit({"a": b"1"})
    last = world.shop.commit({"a": b"2"}, branch="release/1.0")
    for number in range(120):
        world.shop.branches[f"wip/{number}"] = first
    world.shop.branches["main2"] = first

    assert await world.api.branch_heads(world.repo, ["main", "release/*"]) == {
        "refs/heads/main": first,
        "refs/heads/release/1.0": last,
    }
    assert len(await world.api.branch_heads(world.repo, ["wip/*", "*0"])) == 121
    assert await world.api.branch_heads(world.repo, ["nothing"]) == {}


@pytest.mark.parametrize("role", ["admin", "write", "read"])
async def test_what_somebody_may_do_is_the_forges_word(world: World, role: str) -> None:
    """Approving and canceling takes a right that an event does not prove; a name that is alike is somebody else."""
    world.shop.is_private = True
    world.shop.people = {"alice": role, "alice2": "admin"}

    assert await world.api.right_of(world.repo, "alice") == role
    assert await world.api.right_of(world.repo, "stranger") == "none"


# ---- contents --------------------------------------------------------------------------------------------------------


async def test_what_changed_between_two_commits_is_both_names_of_what_moved(world: World) -> None:
    """A file that moved touches the project that it left."""
    old = world.shop.commit({"kept": b"0", "changed": b"1", "moved/from": b"2", "gone": b"3"})
    new = world.shop.commit({"changed": b"9", "to": b"2", "new": b"4"}, remove=("moved/from", "gone"))

    changed = await world.api.changed_paths(world.repo, old, new)

    assert changed.paths == ("changed", "gone", "moved/from", "new", "to")
    assert (await world.api.changed_paths(world.repo, new, new)).paths == ()


async def test_what_changed_on_both_sides_of_a_fork_is_all_of_it(world: World) -> None:
    """Two commits are compared, not one with the point where they parted."""
    root = world.shop.commit({"a": b"1", "b": b"1"})
    base = world.shop.commit({"a": b"2"})
    head = world.shop.commit({"b": b"2"}, parent=root, branch="feature")

    assert (await world.api.changed_paths(world.repo, base, head)).paths == ("a", "b")


async def test_more_files_than_a_comparison_shows_are_all_found(world: World) -> None:
    """A comparison that is cut off looks like a small change."""
    world.forge.diffs_max = 300
    old = world.shop.commit({"a": b"1"})
    new = world.shop.commit({f"file-{number:03}": b"%d" % number for number in range(301)})

    changed = await world.api.changed_paths(world.repo, old, new)

    assert changed.paths is not None
    assert len(changed.paths) == 301


async def test_a_commit_that_nobody_knows_leaves_the_difference_unknown(world: World) -> None:
    """Unknown is not "nothing": it makes everything run."""
    head = world.shop.commit({"a": b"1"})

    changed = await world.api.changed_paths(world.repo, NOBODY, head)
    tree = await world.api.tree(world.repo, NOBODY)

    assert (changed.paths, tree.entries) == (None, None)
    assert changed.unknown_because
    assert NOBODY in tree.unknown_because


async def test_a_tree_has_its_files_and_nothing_else(world: World) -> None:
    """Links and submodules by their mode; directories are in the paths."""
    head = world.shop.commit(
        {"a/b/c.py": b"1", "link": b"a", "module": b""}, modes={"link": "120000", "module": "160000"}
    )

    tree = await world.api.tree(world.repo, head)

    assert tree.entries is not None
    assert [(one.path, one.mode) for one in tree.entries] == [
        ("a/b/c.py", "100644"),
        ("link", "120000"),
        ("module", "160000"),
    ]
    assert tree.entries[0].sha == blob_sha(b"1")
    assert tree.entries[0].size in (1, None)


async def test_files_are_read_byte_for_byte_up_to_a_size(world: World) -> None:
    """What is not there, is a directory or is too long is left out."""
    binary = bytes(range(256)) * 5_000
    files = {"a b/ü%.txt": b"\xff\x00\r\n", "empty": b"", "large": binary, "too-large": binary + b"1"}
    head = world.shop.commit(files)
    world.shop.commit({"empty": b"no longer"})

    found = await world.api.read_files(world.repo, head, [*files, "a b", "missing"], bytes_max=len(binary))

    assert found == {path: data for path, data in files.items() if path != "too-large"}


# ---- what we tell ----------------------------------------------------------------------------------------------------


def a_status(state: StatusState = "running", **fields: Any) -> Status:
    return Status(**{"context": "deltaci/test", "state": state, "description": "x" * 300, **fields})


async def test_every_state_can_be_set_and_set_again(world: World) -> None:
    """The last one is what people see; a repeat after a crash is no error."""
    states: list[StatusState] = ["queued", "running", "success", "failure", "error", "canceled", "skipped"]
    for index, state in enumerate(states):
        head = world.shop.commit({"a": b"%d" % index})
        for _ in range(2):
            await world.api.set_status(
                world.repo, head, a_status(state, target_url="https://ci/1", ref="refs/heads/main")
            )

        shown = world.shop.statuses_of(head)["deltaci/test"]
        assert shown["target_url"] == "https://ci/1"
        assert len(shown["description"]) in (140, 255)
    assert world.shop.states_of("deltaci/test")[-1] in ("skipped", "success")


async def test_a_repository_that_is_gone_is_refused_for_good(world: World) -> None:
    """The text says what was asked of which repository; it is not asked for ever."""
    head = world.shop.commit({"a": b"1"})
    world.shop.is_gone = True

    with pytest.raises(ForgeRejected, match=f"set the status deltaci/test to running on acme/shop@{head}|get a token"):
        await world.api.set_status(world.repo, head, a_status())


async def test_a_pull_request_gets_one_comment_whatever_gets_lost(world: World) -> None:
    """Found by its id, then by its marker; an answer that was lost does not make a second one."""
    world.shop.open_pull(1, world.shop.commit({"a": b"1"}))
    world.forge.fail_next(Fault("reset", is_done=True), on="POST /" if "github" in world.kind else "POST /api")
    if world.kind == "github app":
        world.forge.fail_next()
    say = {"marker": "<!-- ours -->"}
    put = world.api.put_comment
    try:
        made = await put(world.repo, 1, "<!-- ours -->one", remote_id=None, **say)
    except ForgeUnavailable:
        made = await put(world.repo, 1, "<!-- ours -->one", remote_id=None, **say)

    same = await put(world.repo, 1, "<!-- ours -->two", remote_id=made, **say)
    again = await put(world.repo, 1, "<!-- ours -->three", remote_id="999999", **say)

    assert {made, same, again} == {made}
    assert [one.body for one in world.shop.comments_on(1)] == ["<!-- ours -->three"]


async def test_a_comment_of_somebody_else_with_our_marker_is_left_alone(world: World) -> None:
    """Copying the hidden line must not get one's words replaced by ours."""
    from tests.forge.servers.hosted import Comment

    world.shop.open_pull(1, world.shop.commit({"a": b"1"}))
    world.shop.comments[5] = Comment(5, 1, "mallory", "<!-- ours --> haha")

    made = await world.api.put_comment(world.repo, 1, "<!-- ours -->one", marker="<!-- ours -->", remote_id=None)

    assert made != "5"
    assert [one.body for one in world.shop.comments_on(1)] == ["<!-- ours --> haha", "<!-- ours -->one"]


async def test_a_comment_removed_by_somebody_is_written_anew(world: World) -> None:
    """The id that we remember leads nowhere then."""
    world.shop.open_pull(1, world.shop.commit({"a": b"1"}))
    put = world.api.put_comment
    first = await put(world.repo, 1, "<!-- ours -->one", marker="<!-- ours -->", remote_id=None)
    world.shop.comments.clear()

    second = await put(world.repo, 1, "<!-- ours -->two", marker="<!-- ours -->", remote_id=first)

    assert [str(one.id) for one in world.shop.comments_on(1)] == [second]


# ---- credentials, doctor, hostility ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("clone_url", "is_given"),
    [
        ("https://HOST/acme/shop.git", True),
        ("https://HOST.evil/acme/shop.git", False),
        ("https://me@HOST/acme/shop.git", False),
        ("http://HOST/acme/shop.git", False),
        ("ssh://git@HOST/acme/shop.git", False),
        ("/srv/git/shop.git", False),
        ("https://[", False),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
async def test_git_gets_a_credential_for_the_forges_own_host_alone(kind: str, clone_url: str, is_given: bool) -> None:
    """A clone address is data of whoever registered it: a token must not follow it anywhere."""
    async with a_world(kind) as world:
        host = world.forge.url.removeprefix("http://")
        repo = a_repo(
            forge=world.repo.forge, api_token=world.repo.api_token, installation_id=world.repo.installation_id
        )
        repo = Repo(
            **{name: getattr(repo, name) for name in repo.__struct_fields__}
            | {"clone_url": clone_url.replace("HOST", host)}
        )

        credential = await world.api.credential(repo)

        assert (credential is not None) == is_given
        if credential is not None:
            users = {"gitlab": "oauth2", "gitea": "token"}
            assert credential.username == users.get(kind, "x-access-token")
            assert credential.password.startswith("ghs_") == (kind == "github app")
            assert credential.expires_at_ms == (START_MS + 3_600_000 if kind == "github app" else None)


async def test_a_repository_as_it_should_be_has_nothing_to_find(world: World) -> None:
    """What the doctor says when all is well."""
    _add_hook(world, "https://ci.example.org/api/v1/webhooks/" + world.kind.split()[0])

    findings = await world.api.examine(world.repo)

    assert [one for one in findings if not one.is_good] == []
    assert "webhook" in [one.what for one in findings]


async def test_what_is_wrong_is_found_and_never_raised(world: World) -> None:
    """The doctor is asked when things do not work."""
    _add_hook(world, "https://elsewhere.example.org/")
    assert [one.what for one in await world.api.examine(world.repo) if not one.is_good] == ["webhook"]

    world.shop.is_gone = True
    gone = [one for one in await world.api.examine(world.repo) if not one.is_good]
    assert all(one.advice for one in gone)
    assert gone

    world.forge.fault_of = lambda _: Fault(status=200, body=b"<html>")
    assert [one.is_good for one in await world.api.examine(world.repo)] == [False]


def _add_hook(world: World, url: str) -> None:
    if world.kind == "github app":
        world.forge.app.hook_url = url
    events = ["push", "pull_request", "issue_comment"]
    flags = ("push_events", "tag_push_events", "merge_requests_events", "note_events")
    config = {"url": url, "content_type": "json"}
    hook = {"id": 3, "url": url, "active": True, "events": events, "config": config} | dict.fromkeys(flags, True)
    world.shop.hooks.append({key: one for key, one in hook.items() if key not in flags or world.kind == "gitlab"})


@pytest.mark.parametrize("body", [b"<html>", b"[1]", b'{"id": "x"}', b"null", b"\xff"])
async def test_an_answer_that_makes_no_sense_is_never_a_crash(world: World, body: bytes) -> None:
    """Whatever a broken or hostile forge says, it is "again later" or "never"."""
    world.forge.fault_of = lambda _: Fault(status=200, body=body)
    api, repo = world.api, world.repo
    calls = [
        api.pull_request(repo, 1),
        api.open_pull_requests(repo),
        api.branch_heads(repo, ["main"]),
        api.right_of(repo, "alice"),
        api.changed_paths(repo, NOBODY, NOBODY),
        api.tree(repo, NOBODY),
        api.put_comment(repo, 1, "x", marker="x", remote_id=None),
    ]

    for call in calls:
        with pytest.raises((ForgeUnavailable, ForgeRejected)):
            await call
