"""Plain git: a bare repository whose `post-receive` hook signs and posts every push, and results written where told.

Rule 1: the hook names its repository in a header; the secret of that repository, and of no other, must have signed.
Rule 2: a hook that somebody else wrote is never overwritten.
Rule 3: a result in a file is whole or not there: readers never see half a document.
"""

import errno
import fcntl
import os
import re
import stat
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Final

import anyio.to_thread
import msgspec

from deltaci.domain.errors import (
    BadSignature,
    ConfigError,
    ForgeRejected,
    ForgeUnavailable,
    MalformedRequest,
)
from deltaci.domain.events import Trigger
from deltaci.domain.repo import Repo
from deltaci.forge.client import Ask, ForgeClient
from deltaci.forge.webhook import (
    AUTHOR_CHARACTERS_MAX,
    TITLE_CHARACTERS_MAX,
    Received,
    Webhook,
    claimed_digest,
    decoded,
    full_ref,
    is_signed,
    object_id_or_none,
    one_line,
    push_stream,
    required_header,
    signature,
)

REPO_HEADER: Final = "x-deltaci-repo"
EVENT_HEADER: Final = "x-deltaci-event"
DELIVERY_HEADER: Final = "x-deltaci-delivery"
SIGNATURE_HEADER: Final = "x-deltaci-signature"

HOOK_MARKER: Final = "# delta-ci post-receive hook"
_NOBODYS_SECRET: Final = "\x00 signs nothing \x00"  # so that an unknown repository costs the time of a known one
_SHELL_SAFE: Final = re.compile(r"/[^\"'`$\\\n\x00]+")
_PASSING_ERRORS: Final = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.EBUSY, errno.ESTALE}
)
_SHA: Final = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?", re.ASCII)

# ---- webhooks in -------------------------------------------------------------------------------------------------


class _Push(msgspec.Struct, frozen=True, kw_only=True):
    repository: str
    ref: str
    before: str
    after: str
    author: str = ""
    title: str = ""
    forced: bool = False
    push: str = ""  # drawn once a push, so that pushing the same commits again is not taken for a repeat


class PlainGit:
    """Reads what the hook posts."""

    name: Final = "git"

    def authenticate(self, webhook: Webhook, repos: Sequence[Repo]) -> Repo:
        """See `WebhookForge`. Never raises `NotFound`: an unknown repository has no secret to have signed with."""
        claimed = claimed_digest(webhook, SIGNATURE_HEADER)
        wanted = webhook.headers.get(REPO_HEADER, "")
        found = next((repo for repo in repos if repo.forge == self.name and repo.name == wanted), None)
        is_good = is_signed(_NOBODYS_SECRET if found is None else found.secret, webhook.body, claimed)
        if found is None or not is_good:
            raise BadSignature(f"the signature in {SIGNATURE_HEADER} was not made with the secret of that repository")
        return found

    def read(self, webhook: Webhook, repo: Repo) -> Received:
        """See `WebhookForge`."""
        delivery_id = required_header(webhook, DELIVERY_HEADER)
        event = required_header(webhook, EVENT_HEADER, is_event=True)
        if event != "push":
            return Received(delivery_id=delivery_id, event=event, ignored=f"the event {event} starts no run")
        push = decoded(webhook.body, _Push)
        if push.repository != repo.name:
            raise MalformedRequest(f"the body is not about the repository {repo.name}")
        name = full_ref(push.ref)
        before, after = object_id_or_none(push.before, "before"), object_id_or_none(push.after, "after")
        stream = push_stream(name)
        if stream is None:
            return Received(delivery_id=delivery_id, event=event, ignored=f"{name} is neither a branch nor a tag")
        if after is None:
            return Received(delivery_id=delivery_id, event=event, ignored=f"{name} was deleted")
        trigger = Trigger(
            kind="push",
            ref=name,
            commit_sha=after,
            base_sha=None if stream.startswith("tag:") else before,
            stream=stream,
            is_forced=push.forced,
            title=one_line(push.title, TITLE_CHARACTERS_MAX),
            author=one_line(push.author, AUTHOR_CHARACTERS_MAX),
        )
        return Received(delivery_id=delivery_id, event=event, trigger=trigger)


# ---- the hook ----------------------------------------------------------------------------------------------------


def post_receive_hook(server_url: str, repo_name: str, secret_file: Path, *, python: str = sys.executable) -> str:
    """The text of a `post-receive` hook that reports every push of a branch or tag to `server_url`.

    Args:
        secret_file: holds the repository's secret; read by whoever may push, at every push.
        python: the absolute path of a Python 3.11 or newer; the hook needs nothing else but git.
    Raises:
        ConfigError: `python` or `secret_file` is not an absolute path that a script can carry.
    """
    if _SHELL_SAFE.fullmatch(python) is None:
        raise ConfigError(f"{python!r} is not an absolute path to Python without quotes, $, backslashes or backticks")
    if not secret_file.is_absolute():
        raise ConfigError(f"the path of the secret file must be absolute, not {secret_file}: hooks run elsewhere")
    source = resources.files("deltaci.forge").joinpath("post_receive.py").read_text(encoding="utf-8")
    # To sh, the line after the marker runs Python on this file; to Python, it is a string without effect. A `#!` line
    # could not hold a long path or one with blanks.
    return (
        f"#!/bin/sh\n{HOOK_MARKER}: written by Delta CI, replaced by its next installation\n"
        f'"exec" "{python}" "-I" "$0" "$@"\n'
        f"{source}\n\n"
        f"sys.exit(main(server_url={server_url!r}, repository={repo_name!r}, secret_file={str(secret_file)!r}))\n"
    )


def install_hook(bare_repo_path: Path, text: str) -> Path:
    """Write `text` as the executable `post-receive` hook of a bare repository; the path of the hook.

    Raises:
        ConfigError: there is no bare repository, or it has a hook that is not ours. Nothing was changed then.
    """
    if not (bare_repo_path / "HEAD").is_file() or not (bare_repo_path / "objects").is_dir():
        raise ConfigError(f"{bare_repo_path} is not a bare git repository")
    hook = bare_repo_path / "hooks" / "post-receive"
    if os.path.lexists(hook) and not _is_ours(hook):
        raise ConfigError(f"{hook} exists and was not written by Delta CI: move it away, or call our hook from yours")
    hook.parent.mkdir(exist_ok=True)
    _replace(hook, text.encode(), mode=0o755)
    return hook


def _is_ours(hook: Path) -> bool:
    if not hook.is_file():
        return False
    with hook.open("rb") as file:
        return HOOK_MARKER.encode() in file.read(1024)


# ---- results out -------------------------------------------------------------------------------------------------


class GitResults:
    """Writes the result document of a commit to where `Repo.report_to` says.

    - an http(s) address: POST, signed like our own webhooks with the repository's secret;
    - an existing directory, or a path that ends in a slash: `<sha>.json` in it, replaced atomically;
    - any other path: a line of JSON is appended to that file, of which the last one of a commit counts.
    """

    def __init__(self, client: ForgeClient) -> None:
        self._client = client

    async def publish(self, repo: Repo, commit_sha: str, document: bytes, *, key: str) -> None:
        """Publish `document`, a JSON object without line breaks; doing it again does no harm.

        Args:
            key: the same for the same document, so that an endpoint can tell a repeat.
        Raises:
            ForgeUnavailable: no answer, or the disk is full; try again later.
            ForgeRejected: the endpoint refuses, or the path cannot be written.
        """
        if _SHA.fullmatch(commit_sha) is None:
            raise ForgeRejected(f"cannot publish the result of {one_line(repr(commit_sha), 80)}: no full object id")
        asked = f"publish the result of {repo.name}@{commit_sha} to {one_line(repo.report_to, 200)}"
        if repo.report_to.startswith(("http://", "https://")):
            await self._post(repo, document, key, asked)
            return
        write = partial(_write_result, Path(repo.report_to), repo.report_to.endswith("/"), commit_sha, document)
        try:
            await anyio.to_thread.run_sync(write)
        except OSError as error:
            kind = ForgeUnavailable if error.errno in _PASSING_ERRORS else ForgeRejected
            raise kind(f"cannot {asked}: {error.strerror}") from error

    async def _post(self, repo: Repo, document: bytes, key: str, asked: str) -> None:
        scheme, _, rest = repo.report_to.partition("://")
        place, slash, path = rest.partition("/")
        headers = {
            REPO_HEADER: repo.name,
            EVENT_HEADER: "result",
            DELIVERY_HEADER: key,
            SIGNATURE_HEADER: signature(repo.secret, document),
        }
        ask = Ask(method="POST", path=f"{slash}{path}", asked=asked, body=document, headers=headers, is_repeatable=True)
        await self._client.send(f"{scheme}://{place}", ask)


def _write_result(path: Path, is_directory: bool, commit_sha: str, document: bytes) -> None:
    if is_directory:
        path.mkdir(exist_ok=True)
    if path.is_dir():
        _replace(path / f"{commit_sha}.json", document + b"\n", mode=0o644)
    else:
        _append_line(path, document)


def _replace(path: Path, data: bytes, *, mode: int) -> None:
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _append_line(path: Path, line: bytes) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o644)
    try:
        # A pipe or a device would hang or swallow the line.
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise PermissionError(errno.EPERM, "it is not a regular file")
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        size = os.fstat(descriptor).st_size
        # A crash in the middle of a line must not spoil the next one.
        is_torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
        left = memoryview((b"\n" if is_torn else b"") + line + b"\n")
        while left:
            left = left[os.write(descriptor, left) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
