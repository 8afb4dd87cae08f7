"""A forge's API over a git repository on this disk: what planning without a clone asks, and faults to plant."""

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from deltaci.domain.repo import Repo
from deltaci.forge.api import RemoteEntry, RemoteTree
from deltaci.forge.local import SUBMODULE, LocalRepository
from deltaci.planner.remote import AtForge


class GitApi:
    """Answers from the repository at `path`. `asked` counts calls, `read` the files whose contents were asked for.

    `has_sizes`: whether lists of files tell them. `before`: awaited before each answer, to fail or to hang.
    """

    def __init__(self, path: Path) -> None:
        self.repository = LocalRepository(path, repo_id="r")
        self.asked: list[str] = []
        self.read: list[str] = []
        self.has_sizes = True
        self.truncated: set[str] = set()
        self.knows_merge_bases = True
        self.spoil: Callable[[dict[str, bytes]], dict[str, bytes]] = lambda contents: contents
        self.before: Callable[[], Awaitable[None]] | None = None

    async def tree(self, repo: Repo, commit_sha: str) -> RemoteTree:
        await self._answer("tree")
        if commit_sha in self.truncated:
            return RemoteTree(entries=None, unknown_because="the answer was truncated")
        view = self.repository.view(commit_sha)
        sizes = view.sizes(entry.path for entry in view.entries()) if self.has_sizes else {}
        # In another order than git's: no answer of a forge has to be sorted.
        return RemoteTree(
            entries=tuple(
                RemoteEntry(path=each.path, mode=each.mode, sha=each.sha, size=sizes.get(each.path))
                for each in reversed(view.entries())
            )
        )

    async def merge_base(self, repo: Repo, base_sha: str, head_sha: str) -> str | None:
        await self._answer("merge_base")
        return self.repository.merge_base(base_sha, head_sha) if self.knows_merge_bases else None

    async def read_files(
        self, repo: Repo, commit_sha: str, paths: Sequence[str], *, bytes_max: int
    ) -> dict[str, bytes]:
        await self._answer("read_files")
        self.read += paths
        view = self.repository.view(commit_sha)
        there = {each.path for each in view.entries() if each.mode != SUBMODULE}
        fitting = [path for path, size in view.sizes(there & set(paths)).items() if size <= bytes_max]
        return self.spoil(view.read_many(fitting))

    async def _answer(self, what: str) -> None:
        self.asked.append(what)
        if self.before is not None:
            await self.before()


def at(api: GitApi) -> AtForge:
    """The repository as planning takes it."""
    repo = Repo(id="r", name="r", forge="github", clone_url="/", secret="s", created_at_ms=1)
    return AtForge(api, repo)  # type: ignore[arg-type]  # the part of the port that planning uses


def without_contents(contents: dict[str, bytes]) -> dict[str, bytes]:
    """As if all of them were too large."""
    return {}


def with_other_bytes(contents: dict[str, bytes]) -> dict[str, bytes]:
    """As if the forge converted the ends of lines."""
    return {path: data + b"\r" for path, data in contents.items()}
