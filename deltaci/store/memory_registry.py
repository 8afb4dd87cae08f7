"""The part of the memory store that keeps who is known: repositories, tokens, runners."""

from collections.abc import Callable, MutableMapping
from typing import Any

from deltaci.domain.repo import Repo
from deltaci.store.rules import refused
from deltaci.store.writes import ChangeRepo, Runner, SaveRepo, Token

Put = Callable[[MutableMapping[Any, Any], Any, Any], None]


class MemoryRegistry:
    """Repositories and runners by id, tokens by hash; `put` notes how to undo what it does."""

    def __init__(self, put: Put) -> None:
        self._put = put
        self._repos: dict[str, Repo] = {}
        self._tokens: dict[str, Token] = {}
        self._runners: dict[str, Runner] = {}

    def apply(self, write: SaveRepo | ChangeRepo | Token | Runner) -> None:
        """One write; raises what its docstring says."""
        match write:
            case SaveRepo(repo=repo):
                if repo.id in self._repos or self._has_name(repo):
                    raise refused(write)
                self._put(self._repos, repo.id, repo)
            case ChangeRepo(repo=repo):
                stored = self._repos.get(repo.id)
                if stored is None or stored.revision != repo.revision - 1 or self._has_name(repo):
                    raise refused(write)
                self._put(self._repos, repo.id, repo)
            case Token():
                if write.token_hash in self._tokens or any(one.id == write.id for one in self._tokens.values()):
                    raise refused(write)
                self._put(self._tokens, write.token_hash, write)
            case Runner():
                namesake = self.runner_by_name(write.token_id, write.name)
                if namesake is not None and namesake.id != write.id:
                    raise refused(write)
                self._put(self._runners, write.id, write)

    def _has_name(self, repo: Repo) -> bool:
        """Whether another repository has its name."""
        return any(one.name == repo.name and one.id != repo.id for one in self._repos.values())

    def repos(self) -> tuple[Repo, ...]:
        """All repositories by name."""
        return tuple(sorted(self._repos.values(), key=lambda repo: repo.name))

    def repo(self, repo_id: str) -> Repo | None:
        """A repository."""
        return self._repos.get(repo_id)

    def name_of(self, repo_id: str) -> str:
        """A repository's name; empty if there is none."""
        repo = self._repos.get(repo_id)
        return "" if repo is None else repo.name

    def token(self, token_hash: str) -> Token | None:
        """A token by its hash."""
        return self._tokens.get(token_hash)

    def runner(self, runner_id: str) -> Runner | None:
        """A runner."""
        return self._runners.get(runner_id)

    def runner_by_name(self, token_id: str, name: str) -> Runner | None:
        """The runner of a token that has this name."""
        found = (one for one in self._runners.values() if (one.token_id, one.name) == (token_id, name))
        return next(found, None)

    def runners(self) -> tuple[Runner, ...]:
        """All runners by name."""
        return tuple(sorted(self._runners.values(), key=lambda runner: (runner.name, runner.id)))
