"""What GitLab and Gitea have of their own."""

import pytest

from deltaci.domain.errors import ForgeRejected
from deltaci.forge.api import Status
from deltaci.forge.gitea_api import GiteaApi
from deltaci.forge.gitlab_api import GitLabApi
from tests.forge.asking import asking
from tests.forge.hooks import a_repo
from tests.forge.servers.gitea import gitea_server
from tests.forge.servers.gitlab import gitlab_server
from tests.forge.servers.wire import Fault

pytestmark = pytest.mark.anyio
TOKEN = "the-secret-token"


@pytest.mark.parametrize(
    ("ref", "sent"),
    [
        ("refs/heads/a/b", "a/b"),
        ("refs/tags/v1", "v1"),
        ("refs/merge-requests/7/head", "refs/merge-requests/7/head"),
        ("", None),
    ],
)
async def test_gitlab_is_told_the_ref_as_it_names_it(ref: str, sent: str | None) -> None:
    """It finds the pipeline that the status belongs to by that."""
    async with gitlab_server() as gitlab, asking() as client:
        gitlab.add_token(TOKEN)
        head = gitlab.add_repo("group/sub/shop").commit({"a": b"1"})
        status = Status(context="c", state="success", description="", ref=ref)

        repo = a_repo("group/sub/shop", forge="gitlab", api_token=TOKEN)
        await GitLabApi(client, web_url=gitlab.url).set_status(repo, head, status)

        assert gitlab.asked[0].json().get("ref") == sent
        assert gitlab.asked[0].path == f"/api/v4/projects/group%2Fsub%2Fshop/statuses/{head}"


async def test_another_400_of_gitlab_is_a_refusal() -> None:
    """Only a state that is there already is no error."""
    async with gitlab_server() as gitlab, asking() as client:
        gitlab.add_token(TOKEN)
        head = gitlab.add_repo("acme/shop").commit({"a": b"1"})
        gitlab.fail_next(Fault(status=400, body=b'{"message": "ref is invalid"}'))
        api, repo = GitLabApi(client, web_url=gitlab.url), a_repo(forge="gitlab", api_token=TOKEN)

        with pytest.raises(ForgeRejected, match=r"answered 400 .*ref is invalid"):
            await api.set_status(repo, head, Status(context="c", state="success", description=""))


async def test_gitlab_tells_where_two_commits_parted() -> None:
    """What a merge request changes is measured from there."""
    async with gitlab_server() as gitlab, asking() as client:
        gitlab.add_token(TOKEN)
        shop = gitlab.add_repo("acme/shop")
        root = shop.commit({"a": b"1"})
        base = shop.commit({"a": b"2"})
        head = shop.commit({"b": b"2"}, parent=root, branch="feature")
        api, repo = GitLabApi(client, web_url=gitlab.url), a_repo(forge="gitlab", api_token=TOKEN)

        assert await api.merge_base(repo, base, head) == root
        assert await api.merge_base(repo, base, "f" * 40) is None


async def test_a_tree_of_gitea_is_read_page_by_page_and_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tree whose pages do not end is unknown, not what was read until then."""
    async with gitea_server() as gitea, asking() as client:
        gitea.add_token(TOKEN)
        head = gitea.add_repo("acme/shop").commit({f"{number}": b"1" for number in range(25)})
        gitea.tree_page = 10
        api, repo = GiteaApi(client, web_url=gitea.url), a_repo(forge="gitea", api_token=TOKEN)

        whole = await api.tree(repo, head)
        monkeypatch.setattr("deltaci.forge.gitea_api.TREE_PAGES_MAX", 2)
        cut = await api.tree(repo, head)

        assert whole.entries is not None
        assert (len(whole.entries), cut.entries) == (25, None)
        assert "larger than we would read" in cut.unknown_because


async def test_a_token_of_gitea_that_may_not_say_whose_it_is_still_keeps_to_one_comment() -> None:
    """Reading the user is a scope of its own."""
    async with gitea_server() as gitea, asking() as client:
        gitea.add_token(TOKEN, can_read_user=False)
        shop = gitea.add_repo("acme/shop")
        shop.open_pull(1, shop.commit({"a": b"1"}))
        api, repo = GiteaApi(client, web_url=gitea.url), a_repo(forge="gitea", api_token=TOKEN)

        ids = [await api.put_comment(repo, 1, f"<!-- m -->{n}", marker="<!-- m -->", remote_id=None) for n in range(2)]

        assert ids[0] == ids[1]
        assert [one.body for one in shop.comments_on(1)] == ["<!-- m -->1"]


async def test_a_gitea_that_nobody_named_is_told() -> None:
    """There is no Gitea that everybody means."""
    async with asking() as client:
        with pytest.raises(ForgeRejected, match=r"set gitea\.web_url, or the repository's report_to"):
            await GiteaApi(client).tree(a_repo(forge="gitea", api_token=TOKEN), "main")
