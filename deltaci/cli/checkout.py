"""A repository on this machine, and which two of its commits are to be compared."""

from pathlib import Path
from typing import Final

import anyio
import click
import msgspec

from deltaci.forge.git_command import GitError, GitResult, run_git

GIT_MS: Final = 60_000
OUTPUT_BYTES_MAX: Final = 1024 * 1024


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """What is compared. `base_sha` is None if there is nothing to compare with; `because` says how it was chosen.

    `is_branch_itself`: `head_sha` is on the default branch, and nobody said what to compare with. `work_tree`: its
    files as they are now are compared, on top of `head_sha`; None if `head_sha` itself is.
    """

    git_dir: Path
    head_sha: str
    base_sha: str | None
    because: str
    is_branch_itself: bool = False
    work_tree: Path | None = None


def compare(
    directory: Path, base: str | None, head: str, *, is_full: bool = False, is_uncommitted: bool = False
) -> Comparison:
    """Find the repository that `directory` is in, and the commits of `base` and `head`.

    Without `base`: where HEAD left the default branch (that of `origin`, or main or master), or, on that branch itself,
    the commit before; if what is not committed counts as well, HEAD. With `is_full` there is no base. Where HEAD left
    the branch is not told by a clone that is too shallow: then the base is the branch, of which a plan will say that
    there is no history in common, and everything runs.

    Raises:
        click.ClickException: no repository, or no such commit in it; or options that exclude each other.
    """
    if is_full and base is not None:
        raise click.UsageError("--base and --full exclude each other")
    if is_uncommitted and head != "HEAD":
        raise click.UsageError("--uncommitted is about the files on top of HEAD: --head cannot be another commit")
    if not is_uncommitted:
        return anyio.run(_compare, directory.resolve(), base, head, is_full)
    return anyio.run(_compare_work_tree, directory.resolve(), base, is_full)


async def _compare_work_tree(directory: Path, base: str | None, is_full: bool) -> Comparison:
    compared = await _compare(directory, base, "HEAD", is_full)
    found = await _git(["rev-parse", "--show-toplevel"], directory)
    if found.exit_code:
        raise click.ClickException(f"{directory} is in no work tree, and --uncommitted is about its files")
    root = Path(found.stdout.decode().rstrip("\n"))
    if compared.is_branch_itself:
        # On the default branch the last commit is done: what is new is what is not committed.
        compared = msgspec.structs.replace(compared, base_sha=compared.head_sha, because="the last commit")
    return msgspec.structs.replace(compared, work_tree=root)


async def _compare(directory: Path, base: str | None, head: str, is_full: bool) -> Comparison:
    found = await _git(["rev-parse", "--absolute-git-dir"], directory)
    if found.exit_code:
        raise click.ClickException(f"{directory} is in no git repository: {found.stderr.strip()}")
    git_dir = Path(found.stdout.decode().rstrip("\n"))
    head_sha = await _commit(git_dir, head)
    if head_sha is None:
        raise click.ClickException(f"{git_dir} has no commit {head!r} (--head)")
    if is_full:
        return Comparison(git_dir=git_dir, head_sha=head_sha, base_sha=None, because="--full")
    if base is not None:
        base_sha = await _commit(git_dir, base)
        if base_sha is None:
            raise click.ClickException(f"{git_dir} has no commit {base!r} (--base)")
        return Comparison(git_dir=git_dir, head_sha=head_sha, base_sha=base_sha, because=f"--base {base}")
    start, because = await _fork_point(git_dir, head_sha)
    if start is not None:
        return Comparison(git_dir=git_dir, head_sha=head_sha, base_sha=start, because=because)
    before = await _commit(git_dir, f"{head_sha}^")
    if before is not None:
        because = "the commit before"
    elif await _is_cut_off(git_dir, head_sha):
        because = "the commit before is not in this shallow clone"
    else:
        because = "there is no commit before"
    return Comparison(git_dir=git_dir, head_sha=head_sha, base_sha=before, because=because, is_branch_itself=True)


async def _fork_point(git_dir: Path, head_sha: str) -> tuple[str | None, str]:
    """Where a commit left the default branch, None if it did not; the branch itself if that is not known here."""
    for branch in ("refs/remotes/origin/HEAD", "refs/heads/main", "refs/heads/master"):
        tip = await _commit(git_dir, branch)
        if tip is None:
            continue
        found = await _git(["merge-base", "--end-of-options", tip, head_sha], git_dir, git_dir=git_dir)
        name = branch.removeprefix("refs/").removeprefix("heads/")
        if found.exit_code:
            # The commit before would be a guess, and one that leaves out what the branch did earlier.
            return tip, f"{name}, with which it has no history in common here"
        start = found.stdout.decode().strip()
        if start != head_sha:
            return start, f"where it left {name}"
        break
    return None, ""


async def _is_cut_off(git_dir: Path, head_sha: str) -> bool:
    """Whether a commit names a parent that the repository, being shallow, does not have."""
    found = await _git(["cat-file", "commit", head_sha], git_dir, git_dir=git_dir)
    return found.stdout.partition(b"\n\n")[0].find(b"\nparent ") >= 0


async def _commit(git_dir: Path, revision: str) -> str | None:
    """The commit that a revision means, or None."""
    asked = ["rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}"]
    found = await _git(asked, git_dir, git_dir=git_dir)
    return found.stdout.decode().strip() if found.exit_code == 0 else None


async def _git(arguments: list[str], cwd: Path, *, git_dir: Path | None = None) -> GitResult:
    try:
        return await run_git(arguments, git_dir=git_dir, cwd=cwd, timeout_ms=GIT_MS, output_bytes_max=OUTPUT_BYTES_MAX)
    except GitError as error:
        raise click.ClickException(f"git {arguments[0]} in {cwd}: {error}") from error
