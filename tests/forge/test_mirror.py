"""The mirror, on real repositories: what it reads, what it refuses, and that it never runs anything of theirs."""

import os
import stat
import subprocess
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from deltaci.forge.git_command import GitOutputTooLarge, GitTimedOut, environment, run_git
from deltaci.forge.local import MirrorDamaged, MirrorError, MirrorLimits
from deltaci.forge.mirror import Mirror, Mirrors, basic_authorization, directory_name

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

WHO = {
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "A",
    "GIT_AUTHOR_EMAIL": "a@example.com",
    "GIT_COMMITTER_NAME": "A",
    "GIT_COMMITTER_EMAIL": "a@example.com",
    "GIT_AUTHOR_DATE": "2020-01-01T00:00:00Z",
    "GIT_COMMITTER_DATE": "2020-01-01T00:00:00Z",
}


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Origin:
    """A repository with a work tree, to be mirrored."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        self.git("init", "-q", "-b", "main")

    def git(self, *arguments: str) -> str:
        env = {"PATH": os.environ["PATH"], "HOME": str(self.path), **WHO}
        done = subprocess.run(["git", *arguments], cwd=self.path, env=env, check=True, capture_output=True)
        return done.stdout.decode().strip()

    def commit(self, files: dict[str, str | bytes | None], message: str = "change") -> str:
        for name, content in files.items():
            target = self.path / name
            if content is None:
                target.unlink()
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content.encode() if isinstance(content, str) else content)
        self.git("add", "-A", "--", ".")
        self.git("commit", "-q", "--allow-empty", "-m", message)
        return self.git("rev-parse", "HEAD")


@pytest.fixture
def origin(tmp_path: Path) -> Origin:
    return Origin(tmp_path / "origin")


@pytest.fixture
def mirror(tmp_path: Path, origin: Origin) -> Mirror:
    return a_mirror(tmp_path, origin)


def a_mirror(tmp_path: Path, origin: Origin, limits: MirrorLimits | None = None) -> Mirror:
    return Mirrors(tmp_path / "data", limits=limits).of(repo_id="github:1", clone_url=str(origin.path))


async def test_a_commit_is_fetched_and_its_files_are_read(mirror: Mirror, origin: Origin) -> None:
    """Paths, modes, sizes and the committed bytes."""
    (origin.path / "link").symlink_to("a.txt")
    sha = origin.commit({"a.txt": "hello", "dir/run.sh": "#!/bin/sh\n", "bin": b"\0\xff\n"})

    await mirror.ensure(sha, "refs/heads/main")
    view = mirror.local().view(sha)

    assert [(e.path, e.mode) for e in view.entries()] == [
        ("a.txt", "100644"),
        ("bin", "100644"),
        ("dir/run.sh", "100644"),
        ("link", "120000"),
    ]
    assert view.sizes(["a.txt", "bin", "link", "nothing"]) == {"a.txt": 5, "bin": 3, "link": 5}
    assert view.read_many(["a.txt", "bin", "link"]) == {"a.txt": b"hello", "bin": b"\0\xff\n", "link": b"a.txt"}
    assert view.read("dir/run.sh") == b"#!/bin/sh\n"
    assert view.entry("a.txt") is not None
    assert view.entry("dir") is None


async def test_a_part_of_a_commit_is_read_without_listing_all_of_it(mirror: Mirror, origin: Origin) -> None:
    """The configuration of another commit, a lock file of the one before: a few names, however many files there are."""
    sha = origin.commit({"a": "1", "dir/b": "2", ":(glob)**": "3", "dir2/c": "4"})
    await mirror.ensure(sha, "refs/heads/main")

    part = mirror.local().view(sha, ("dir", "gone", ":(glob)**"))
    whole = mirror.local().view(sha)

    assert [entry.path for entry in part.entries()] == [":(glob)**", "dir/b"]
    assert whole.read_many(["dir/b", ":(glob)**"]) == {"dir/b": b"2", ":(glob)**": b"3"}
    assert [whole.entry(path) for path in ("dir", "../x", "/a", "gone", "")] == [None] * 5


async def test_a_data_directory_may_be_named_by_a_relative_path(
    tmp_path: Path, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--data data`: git works inside the mirror, where the same path would mean another place."""
    sha = origin.commit({"a": "1"})
    monkeypatch.chdir(tmp_path)
    mirror = Mirrors(Path("data")).of(repo_id="github:1", clone_url=str(origin.path))

    await mirror.ensure(sha, "refs/heads/main")

    assert await mirror.has(sha)


async def test_a_commit_that_no_branch_points_to_any_more_is_found(mirror: Mirror, origin: Origin) -> None:
    """A force push between webhook and fetch: the commit is asked for by its id."""
    origin.git("config", "uploadpack.allowAnySHA1InWant", "true")
    first = origin.commit({"a": "1"})
    origin.git("commit", "-q", "--amend", "-m", "rewritten")

    await mirror.ensure(first, "refs/heads/gone")

    assert await mirror.has(first)


async def test_a_pull_request_head_is_found_without_its_ref(mirror: Mirror, origin: Origin) -> None:
    """Forges keep heads of forks under refs of their own."""
    origin.commit({"a": "1"})
    origin.git("checkout", "-q", "-b", "work")
    sha = origin.commit({"a": "2"})
    origin.git("update-ref", "refs/pull/7/head", sha)
    origin.git("checkout", "-q", "main")
    origin.git("branch", "-q", "-D", "work")

    await mirror.ensure(sha, None)

    assert await mirror.has(sha)


async def test_the_tip_of_a_branch_is_the_one_that_the_remote_has_now(mirror: Mirror, origin: Origin) -> None:
    """Also after a force push; and what is no ref of the remote is an error, not an old answer."""
    first = origin.commit({"a": "1"})
    tips = [await mirror.tip("refs/heads/main")]
    origin.git("commit", "-q", "--amend", "-m", "another")
    tips.append(await mirror.tip("refs/heads/main"))
    origin.git("tag", "-a", "v1", "-m", "first")
    tips.append(await mirror.tip("refs/tags/v1"))
    origin.git("branch", "-q", "-m", "main", "trunk")

    second = origin.git("rev-parse", "HEAD")
    assert tips == [first, second, second]
    assert await mirror.has(second)
    for ref in ("refs/heads/main", "--upload-pack=x"):
        with pytest.raises(MirrorError):
            await mirror.tip(ref)


async def test_a_branch_that_became_a_directory_of_branches_is_no_obstacle(mirror: Mirror, origin: Origin) -> None:
    """`a` deleted, `a/b` made: names of refs collide where they are files."""
    first = origin.commit({"a": "1"})
    origin.git("branch", "topic")
    await mirror.ensure(first, None)
    origin.git("branch", "-D", "topic")
    origin.git("branch", "topic/more")
    second = origin.commit({"a": "2"})

    await mirror.ensure(second, None)

    assert await mirror.has(second)


async def test_concurrent_fetches_of_one_mirror_wait_for_each_other(mirror: Mirror, origin: Origin) -> None:
    """Ten webhooks at once: no lost lock, no damaged mirror."""
    shas = [origin.commit({"a": str(n)}) for n in range(10)]

    async with anyio.create_task_group() as tasks:
        for sha in shas:
            tasks.start_soon(mirror.ensure, sha, "refs/heads/main")

    assert all([await mirror.has(sha) for sha in shas])


async def test_a_lock_left_by_a_crash_does_not_stop_later_fetches(tmp_path: Path, origin: Origin) -> None:
    """A killed server leaves locks that nobody holds."""
    first = origin.commit({"a": "1"})
    before = a_mirror(tmp_path, origin)
    await before.ensure(first, "refs/heads/main")
    ref = next((before.directory / "refs/delta").iterdir())
    ref.with_name(f"{ref.name}.lock").touch()
    (before.directory / "packed-refs.lock").touch()
    second = origin.commit({"a": "2"})

    await a_mirror(tmp_path, origin).ensure(second, "refs/heads/main")

    assert await before.has(second)


async def test_a_difference_names_every_changed_file_and_both_sides_of_a_rename(mirror: Mirror, origin: Origin) -> None:
    """Kinds, sorted paths; a rename is a file that went and one that came."""
    body = "line\n" * 50
    base = origin.commit({"mod": "1", "gone": "bye", "old/name": body})
    head = origin.commit({"mod": "2", "gone": None, "old/name": None, "new/name": body, "added": "hello"})
    await mirror.ensure(head, "refs/heads/main")

    changes = mirror.local().diff(base, head)

    assert changes is not None
    assert [(change.path, change.kind) for change in changes] == [
        ("added", "added"),
        ("gone", "deleted"),
        ("mod", "modified"),
        ("new/name", "added"),
        ("old/name", "deleted"),
    ]
    assert [None if change.entry is None else change.entry.mode for change in changes][:2] == ["100644", None]
    assert mirror.local().diff(head, head) == ()


async def test_an_unknown_base_gives_no_difference_rather_than_an_empty_one(mirror: Mirror, origin: Origin) -> None:
    """None and () mean opposite things to the planner."""
    head = origin.commit({"a": "1"})
    await mirror.ensure(head, "refs/heads/main")

    assert mirror.local().diff("1" * 40, head) is None
    assert mirror.local().diff(None, head) is None


async def test_a_merge_base_is_found_or_there_is_none(mirror: Mirror, origin: Origin) -> None:
    """Unrelated histories and missing commits are normal answers."""
    root = origin.commit({"a": "1"})
    main = origin.commit({"a": "2"})
    origin.git("checkout", "-q", "-b", "topic", root)
    topic = origin.commit({"b": "1"})
    origin.git("checkout", "-q", "--orphan", "alone")
    alone = origin.commit({"c": "1"})
    for sha in (main, alone, topic):
        await mirror.ensure(sha, None)

    assert mirror.local().merge_base(main, topic) == root
    assert mirror.local().merge_base(main, alone) is None
    assert mirror.local().merge_base(main, "1" * 40) is None


async def test_awkward_file_names_are_read_as_they_are(mirror: Mirror, origin: Origin) -> None:
    """Options, line breaks, tabs, quotes, another encoding: names are data."""
    names = ["-rf", "--output=x", "a\nb", "t\tab", 'q"uote', "ümlaut", ":(glob)**", " "]
    sha = origin.commit({**dict.fromkeys(names, "x"), os.fsdecode(b"latin-\xe9"): "y"})

    await mirror.ensure(sha, "refs/heads/main")
    view = mirror.local().view(sha)

    assert {entry.path for entry in view.entries()} == {*names, "latin-\\xe9"}
    assert set((view.read_many([*names, "latin-\\xe9"])).values()) == {b"x", b"y"}


async def test_a_submodule_is_an_entry_that_is_neither_fetched_nor_read(mirror: Mirror, origin: Origin) -> None:
    """Its URL is somebody else's choice."""
    origin.commit({".gitmodules": '[submodule "s"]\n\tpath = s\n\turl = ext::touch /tmp/never\n'})
    origin.git("update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},s")
    origin.git("commit", "-q", "-m", "submodule")
    sha = origin.git("rev-parse", "HEAD")

    await mirror.ensure(sha, "refs/heads/main")
    view = mirror.local().view(sha)

    assert [(e.path, e.mode, e.size) for e in view.entries()][-1] == ("s", "160000", 0)
    assert view.sizes(["s"]) == {}
    with pytest.raises(MirrorError, match="no such file"):
        view.read("s")


async def test_attributes_filters_and_hooks_of_a_repository_run_nothing(
    mirror: Mirror, origin: Origin, tmp_path: Path
) -> None:
    """Contents are read as committed, whatever the repository asks for."""
    marker = tmp_path / "ran"
    base = origin.commit({".gitattributes": "* filter=evil diff=evil ident\n", "a": "$Id$ 1\n"})
    sha = origin.commit({"a": "$Id$ 2\n"})
    await mirror.ensure(base, "refs/heads/main")
    hook = mirror.directory / "hooks/reference-transaction"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch {marker}\n")
    hook.chmod(hook.stat().st_mode | stat.S_IXUSR)
    with (mirror.directory / "config").open("a") as config:
        config.write(f'[filter "evil"]\n\tsmudge = touch {marker}\n[diff "evil"]\n\ttextconv = touch {marker}\n')
        config.write(f"\tcommand = touch {marker}\n[core]\n\tfsmonitor = touch {marker}\n")
    newest = origin.commit({"b": "1"})

    await mirror.ensure(newest, "refs/heads/main")
    changes = mirror.local().diff(base, sha)
    content = mirror.local().view(sha).read("a")

    assert changes is not None
    assert [(change.path, change.kind) for change in changes] == [("a", "modified")]
    assert content == b"$Id$ 2\n"
    assert not marker.exists()


async def test_a_replaced_object_is_not_believed(mirror: Mirror, origin: Origin) -> None:
    """A commit id means its contents; replace refs would say otherwise."""
    first = origin.commit({"a": "1"})
    second = origin.commit({"a": "2"})
    await mirror.ensure(second, "refs/heads/main")
    (mirror.directory / "refs/replace").mkdir(parents=True)
    (mirror.directory / "refs/replace" / second).write_text(first + "\n")

    content = mirror.local().view(second).read("a")

    assert content == b"2"


@pytest.mark.parametrize(
    "sha", ["", "-h", "HEAD", "a" * 39, "A" * 40, "a" * 40 + "\n", "a" * 40 + "^{tree}", "--upload-pack=x"]
)
async def test_what_is_not_a_commit_id_never_reaches_git(mirror: Mirror, sha: str) -> None:
    """A revision is 40 or 64 hex digits and nothing else."""
    with pytest.raises(MirrorError, match="hex digits"):
        await mirror.ensure(sha, None)
    with pytest.raises(MirrorError, match="hex digits"):
        mirror.local().view(sha)
    with pytest.raises(MirrorError, match="hex digits"):
        mirror.local().diff("a" * 40, sha)


@pytest.mark.parametrize(
    "ref",
    [
        "",
        "-f",
        "--upload-pack=touch x",
        "+a",
        "a:b",
        "a..b",
        "a b",
        "a\n",
        "^a",
        "a*",
        "/a",
        "a/",
        "a@{1}",
        "x.lock",
        "@",
    ],
)
async def test_what_is_not_a_plain_ref_never_reaches_git(mirror: Mirror, ref: str) -> None:
    """Branch names come from strangers."""
    with pytest.raises(MirrorError, match="plain name"):
        await mirror.ensure("a" * 40, ref)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "-u",
        "--upload-pack=touch x",
        "relative",
        "ext::sh -c x",
        "ext::sh",
        "ssh://-oProxyCommand=x/y",
        "a@-h:x",
        "http://a/\nb",
    ],
)
def test_what_is_not_a_plain_url_never_reaches_git(url: str, tmp_path: Path) -> None:
    """Clone URLs come from payloads."""
    with pytest.raises(MirrorError, match="clone URL"):
        Mirror(repo_id="r", clone_url=url, directory=tmp_path)


def test_a_password_in_a_url_is_refused_and_not_repeated(tmp_path: Path) -> None:
    """Errors are stored and shown; tokens must not be in them."""
    with pytest.raises(MirrorError, match="authorization") as caught:
        Mirror(repo_id="r", clone_url="https://bot:s3cret@example.com/x.git", directory=tmp_path)

    assert "s3cret" not in str(caught.value)


async def test_a_transport_that_is_not_allowed_is_refused_by_git(tmp_path: Path, origin: Origin) -> None:
    """Where strangers choose URLs, `file` is left out of the list."""
    sha = origin.commit({"a": "1"})
    mirror = Mirrors(tmp_path / "data", protocols="https:ssh").of(repo_id="r", clone_url=str(origin.path))

    with pytest.raises(MirrorError, match="transport 'file' not allowed"):
        await mirror.ensure(sha, "refs/heads/main")


async def test_a_commit_that_is_nowhere_is_an_error_that_says_so(mirror: Mirror, origin: Origin) -> None:
    """What was asked, of which repository, and what to check."""
    origin.commit({"a": "1"})

    with pytest.raises(MirrorError) as caught:
        await mirror.ensure("1" * 40, "refs/heads/main")

    assert f"could not fetch commit {'1' * 40} of repository github:1" in str(caught.value)
    assert caught.value.is_retryable


async def test_a_repository_that_is_gone_is_an_error_that_says_so(tmp_path: Path) -> None:
    """Git's own words are in the text."""
    mirror = Mirrors(tmp_path / "data").of(repo_id="r", clone_url=str(tmp_path / "nothing"))

    with pytest.raises(MirrorError, match="does not appear to be a git repository"):
        await mirror.ensure("1" * 40, "refs/heads/main")


async def test_as_many_files_as_allowed_are_listed_and_one_more_is_not(tmp_path: Path, origin: Origin) -> None:
    """The limit and one past it."""
    sha = origin.commit({str(n): "x" for n in range(3)})
    at_limit = a_mirror(tmp_path, origin, MirrorLimits(entries_max=3))
    below = a_mirror(tmp_path, origin, MirrorLimits(entries_max=2))
    await at_limit.ensure(sha, None)

    view = at_limit.local().view(sha)

    assert len(view.entries()) == 3
    with pytest.raises(MirrorError, match="more than 2 files"):
        below.local().view(sha).entries()


async def test_a_file_as_large_as_allowed_is_read_and_one_byte_more_is_not(mirror: Mirror, origin: Origin) -> None:
    """Checked by its size, before a byte is read."""
    sha = origin.commit({"a": "x" * 10})
    await mirror.ensure(sha, None)
    view = mirror.local().view(sha)

    content = view.read("a", bytes_max=10)

    assert content == b"x" * 10
    with pytest.raises(MirrorError, match="more than 9 bytes, which is the limit"):
        view.read("a", bytes_max=9)


async def test_more_changes_than_allowed_are_an_unknown_difference(tmp_path: Path, origin: Origin) -> None:
    """Whoever changed so much gets everything run."""
    base = origin.commit({"z": "1"})
    head = origin.commit({str(n): str(n) for n in range(3)})
    mirror = a_mirror(tmp_path, origin, MirrorLimits(changes_max=2))
    await mirror.ensure(head, None)

    assert mirror.local().diff(base, head) is None


async def test_a_git_that_hangs_is_ended_with_its_children(tmp_path: Path) -> None:
    """A remote that never answers must leave neither process behind: the pipe that its transport holds is closed."""
    pipe, hanging = tmp_path / "pipe", tmp_path / "ssh"
    os.mkfifo(pipe)
    hanging.write_text(f"#!/bin/sh\nexec 3>{pipe}\nexec sleep 60\n")
    hanging.chmod(0o755)

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(anyio.to_thread.run_sync, pipe.read_bytes, abandon_on_cancel=True))
            with pytest.raises(GitTimedOut, match="longer than 500 ms"):
                await run_git(
                    ["ls-remote", "--", "ssh://host/x"],
                    git_dir=None,
                    cwd=tmp_path,
                    timeout_ms=500,
                    output_bytes_max=100,
                    extra_environment={"GIT_SSH_COMMAND": str(hanging)},
                )


async def test_a_git_that_writes_too_much_is_ended(mirror: Mirror, origin: Origin) -> None:
    """The limit and one past it; what is read stays within memory that we chose."""
    sha = origin.commit({"a": "x" * 1_000_000})
    await mirror.ensure(sha, None)
    blob = mirror.local().view(sha).entries()[0].sha

    async def size_read(limit: int) -> int:
        result = await run_git(
            ["cat-file", "blob", blob],
            git_dir=mirror.directory,
            cwd=mirror.directory,
            timeout_ms=20_000,
            output_bytes_max=limit,
        )
        return len(result.stdout)

    assert await size_read(1_000_000) == 1_000_000
    with pytest.raises(GitOutputTooLarge, match="more than 999999 bytes"):
        await size_read(999_999)


def test_git_sees_nothing_of_the_servers_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Secrets of the server and GIT_* of whoever started it stay outside."""
    monkeypatch.setenv("DELTACI_DATABASE_PASSWORD", "x")
    monkeypatch.setenv("GIT_DIR", "/elsewhere")
    monkeypatch.setenv("GIT_SSH_COMMAND", "touch x")

    seen = environment(protocols="https")

    assert "DELTACI_DATABASE_PASSWORD" not in seen
    assert "GIT_DIR" not in seen
    assert seen["GIT_SSH_COMMAND"] == "ssh -oBatchMode=yes"
    assert (seen["GIT_ALLOW_PROTOCOL"], seen["GIT_TERMINAL_PROMPT"]) == ("https", "0")


def test_each_repository_has_a_directory_of_its_own() -> None:
    """Names that differ only in characters a file name cannot have do not share a mirror."""
    names = {directory_name(repo_id) for repo_id in ("a/b", "a-b", "a b", "../../etc", "", "é", "\ud800")}

    assert len(names) == 7
    assert all("/" not in name and not name.startswith(".") for name in names)


def test_basic_authorization_is_what_http_wants() -> None:
    """RFC 7617's example."""
    assert basic_authorization("Aladdin", "open sesame") == "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="


async def test_a_fetch_comes_whole_or_not_at_all(mirror: Mirror, origin: Origin) -> None:
    """No loose object is written: cut off by a full disk, the commit would be there and its files would not."""
    sha = origin.commit({"a": "1", "b/c": "2"})

    await mirror.ensure(sha, "refs/heads/main")

    assert {path.name for path in (mirror.directory / "objects").iterdir()} == {"info", "pack"}


@pytest.mark.parametrize("left", [["HEAD"], ["HEAD", "HEAD^{tree}"]])
async def test_a_mirror_that_lacks_objects_of_a_commit_is_fetched_anew(
    mirror: Mirror, origin: Origin, left: list[str]
) -> None:
    """A power cut may damage it in ways that only show when the files are looked for: all of it can be had again."""
    sha = origin.commit({"a": "1", "b/c": "2"})
    await mirror.ensure(sha, "refs/heads/main")
    for pack in (mirror.directory / "objects" / "pack").iterdir():
        pack.unlink()
    for name in left:
        kept = origin.git("rev-parse", name)
        data = (origin.path / ".git" / "objects" / kept[:2] / kept[2:]).read_bytes()
        loose = mirror.directory / "objects" / kept[:2] / kept[2:]
        loose.parent.mkdir()
        loose.write_bytes(data)

    await mirror.ensure(sha, "refs/heads/main")
    with pytest.raises(MirrorDamaged) as caught:
        mirror.local().view(sha).read_many([entry.path for entry in mirror.local().view(sha).entries()])
    await mirror.discard()
    await mirror.ensure(sha, "refs/heads/main")

    assert caught.value.is_retryable
    assert mirror.local().view(sha).read("b/c") == b"2"


async def test_what_the_machine_lacks_for_a_while_is_not_held_against_the_repository(
    mirror: Mirror, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Git cannot be started without descriptors, or fails on a full disk: the same call may succeed later."""
    sha = origin.commit({"a": "1"})
    with monkeypatch.context() as nothing_found:
        nothing_found.setenv("PATH", "")
        with pytest.raises(MirrorError, match="could not be started") as not_started:
            await mirror.ensure(sha, "refs/heads/main")
    blocker = mirror.directory / "objects"
    blocker.write_text("")
    with pytest.raises(MirrorError, match="git init exited") as not_made:
        await mirror.ensure(sha, "refs/heads/main")
    blocker.unlink()

    await mirror.ensure(sha, "refs/heads/main")

    assert (not_started.value.is_retryable, not_made.value.is_retryable) == (True, True)


async def test_compacting_loses_nothing(mirror: Mirror, origin: Origin) -> None:
    """Also not the commits that no branch points to any more."""
    first = origin.commit({"a": "1"})
    await mirror.ensure(first, "refs/heads/main")
    origin.git("commit", "-q", "--amend", "-m", "rewritten")
    second = origin.git("rev-parse", "HEAD")
    await mirror.ensure(second, "refs/heads/main")

    await mirror.compact()

    assert mirror.local().view(first).read("a") == b"1"
    assert mirror.local().view(second).read("a") == b"1"


async def test_a_fetch_that_brings_too_much_is_cut_off_and_leaves_nothing(tmp_path: Path, origin: Origin) -> None:
    """The kernel ends it at the limit, whatever the remote goes on to send; a commit below the limit still comes."""
    large = origin.commit({"a": os.urandom(300_000)})
    mirror = a_mirror(tmp_path, origin, MirrorLimits(fetch_bytes_max=200_000))
    roomy = Mirrors(tmp_path / "roomy", limits=MirrorLimits(fetch_bytes_max=400_000)).of(
        repo_id="github:1", clone_url=str(origin.path)
    )

    with pytest.raises(MirrorError, match=r"more than 200000 bytes \(setting planner.fetch_bytes_max\)") as caught:
        await mirror.ensure(large, "refs/heads/main")
    await roomy.ensure(large, "refs/heads/main")

    assert not caught.value.is_retryable
    assert list((mirror.directory / "objects" / "pack").iterdir()) == []
    assert await roomy.has(large)
