"""A repository as a forge of the tests hosts it: commits with files, branches, requests, people, and what was reported.

The same for all forges; each server says it in its own words.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

EMPTY = "0" * 40


@dataclass(frozen=True)
class Commit:
    """`files` are all of the tree; `modes` of those that are no plain files."""

    sha: str
    parent: str | None
    files: Mapping[str, bytes]
    modes: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Pull:
    """A pull or merge request. `head_repo` is another repository's name if it comes from a fork."""

    number: int
    head_sha: str
    head_branch: str
    base_branch: str
    title: str
    author: str
    head_repo: str
    labels: tuple[str, ...] = ()
    is_open: bool = True
    is_draft: bool = False
    updated_at_ms: int = 0


@dataclass
class Comment:
    """`app_id` is that of the app that wrote it, if one did."""

    id: int
    number: int
    author: str
    body: str
    app_id: int | None = None


@dataclass(frozen=True)
class Shown:
    """What people saw from `at_ms` on: `kind` is `check` or `status`, `state` in the forge's own words."""

    at_ms: int
    kind: Literal["check", "status"]
    sha: str
    name: str
    state: str
    id: int


@dataclass
class HostedRepo:
    """`people` maps logins to `admin`, `write` or `read`; `statuses` and `checks` are all that were ever made.

    `history` is every change that people could see of a check or status, in order.
    """

    name: str
    id: int
    is_private: bool = False
    installation_id: int = 0
    default_branch: str = "main"
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    pulls: dict[int, Pull] = field(default_factory=dict)
    people: dict[str, str] = field(default_factory=dict)
    comments: dict[int, Comment] = field(default_factory=dict)
    statuses: list[dict[str, Any]] = field(default_factory=list)
    checks: dict[int, dict[str, Any]] = field(default_factory=dict)
    history: list[Shown] = field(default_factory=list)
    hooks: list[dict[str, Any]] = field(default_factory=list)
    is_gone: bool = False

    def commit(
        self,
        files: Mapping[str, bytes] | None = None,
        *,
        parent: str | None = None,
        branch: str | None = "main",
        remove: tuple[str, ...] = (),
        modes: Mapping[str, str] | None = None,
    ) -> str:
        """Make a commit of `files` over those of `parent` (the head of `branch` unless given); its sha."""
        before = parent if parent is not None else self.branches.get(branch or "")
        kept = dict(self.commits[before].files) if before else {}
        kept_modes = dict(self.commits[before].modes) if before else {}
        tree = {path: data for path, data in {**kept, **(files or {})}.items() if path not in remove}
        sha = hashlib.sha1(f"{self.name} {len(self.commits)} {before} {branch}".encode()).hexdigest()
        self.commits[sha] = Commit(sha, before, tree, {**kept_modes, **(modes or {})})
        if branch is not None:
            self.branches[branch] = sha
        return sha

    def open_pull(
        self,
        number: int,
        head_sha: str,
        *,
        base: str = "main",
        branch: str = "feature",
        author: str = "octocat",
        title: str = "A change",
        fork: str = "",
        **fields: Any,
    ) -> Pull:
        """Open a request; `fork` names the repository that it comes from."""
        pull = Pull(
            number=number,
            head_sha=head_sha,
            head_branch=branch,
            base_branch=base,
            title=title,
            author=author,
            head_repo=fork or self.name,
            **fields,
        )
        self.pulls[number] = pull
        return pull

    # ---- what was reported ---------------------------------------------------------------------------------------

    def statuses_of(self, sha: str) -> dict[str, dict[str, Any]]:
        """The newest status of each context at a commit."""
        return {one["context"]: one for one in self.statuses if one["sha"] == sha}

    def checks_of(self, sha: str) -> dict[str, dict[str, Any]]:
        """The newest check of each name at a commit, which is the one that counts."""
        return {one["name"]: one for one in self.checks.values() if one["head_sha"] == sha}

    def states_of(self, name: str) -> list[str]:
        """What was seen of a check or status, in order, without repeats in a row."""
        seen: list[str] = []
        for one in self.history:
            if one.name == name and seen[-1:] != [one.state]:
                seen.append(one.state)
        return seen

    def comments_on(self, number: int) -> list[Comment]:
        """The comments of a request, oldest first."""
        return [one for one in self.comments.values() if one.number == number]

    # ---- what git knows ------------------------------------------------------------------------------------------

    def resolve(self, name: str) -> Commit | None:
        """The commit that a sha or a branch name stands for."""
        return self.commits.get(self.branches.get(name.removeprefix("refs/heads/"), name))

    def ancestry(self, sha: str | None) -> Iterator[str]:
        """The commit and those before it, newest first."""
        while sha is not None:
            yield sha
            sha = self.commits[sha].parent

    def merge_base(self, one: str, other: str) -> str | None:
        """The newest common ancestor."""
        known = set(self.ancestry(one))
        return next((sha for sha in self.ancestry(other) if sha in known), None)

    def differences(self, old: str, new: str) -> list[tuple[str, str, str]]:
        """`(status, path, previous path)` of each file that differs; a file moved unchanged is a rename."""
        before, after = self.commits[old], self.commits[new]
        gone = {path: blob_sha(data) for path, data in before.files.items() if path not in after.files}
        found = []
        for path, data in sorted(after.files.items()):
            if path in before.files:
                if (before.files[path], before.modes.get(path)) != (data, after.modes.get(path)):
                    found.append(("modified", path, ""))
                continue
            previous = next((name for name, sha in gone.items() if sha == blob_sha(data)), "")
            gone.pop(previous, None)
            found.append(("renamed" if previous else "added", path, previous))
        return sorted(found + [("removed", path, "") for path in gone], key=lambda one: one[1])


def blob_sha(data: bytes) -> str:
    """What git calls the content."""
    return hashlib.sha1(b"blob %d\x00" % len(data) + data).hexdigest()


def trees_of(commit: Commit) -> set[str]:
    """The directories of a commit."""
    return {path.rsplit("/", n)[0] for path in commit.files for n in range(1, path.count("/") + 1)}
