"""GitHub: commit statuses out. Its webhooks come in through `github_webhooks.py`."""

import re
from typing import Final
from urllib.parse import quote

import httpx
import msgspec

from deltaci.domain.clock import Clock
from deltaci.domain.errors import ForgeRejected
from deltaci.domain.repo import Repo
from deltaci.forge.post import DEFAULT_TIMEOUT_MS, post_json
from deltaci.forge.webhook import one_line

DESCRIPTION_CHARACTERS_MAX: Final = 140

_FULL_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,100}/[A-Za-z0-9_.-]{1,100}", re.ASCII)


class GitHubStatuses:
    """Sets commit statuses, one request each, with the repository's own token."""

    def __init__(self, client: httpx.AsyncClient, clock: Clock, *, timeout_ms: int = DEFAULT_TIMEOUT_MS) -> None:
        self._client = client
        self._clock = clock
        self._timeout_ms = timeout_ms

    async def set_status(
        self, repo: Repo, commit_sha: str, *, state: str, context: str, description: str, target_url: str = ""
    ) -> None:
        """Set the status `context` of a commit; setting it again to the same changes nothing that people see.

        Args:
            state: `pending`, `success`, `failure` or `error`.
            description: cut to 140 characters, which is what GitHub takes.
        Raises:
            ForgeUnavailable: GitHub does not answer or asks to wait (`retry_after_ms`); try again later.
            ForgeRejected: it will never work like this: no right, no such repository or commit, a wrong request.
        """
        asked = f"set the status {context} to {state} on {one_line(repo.name, 200)}@{commit_sha}"
        if _FULL_NAME.fullmatch(repo.name) is None or {".", ".."} & set(repo.name.split("/")):
            raise ForgeRejected(f"cannot {asked}: the repository's name is not of the form owner/name")
        if not repo.api_token:
            raise ForgeRejected(f"cannot {asked}: the repository has no API token; add one that may write statuses")
        body = {
            "state": state,
            "context": context,
            "description": one_line(description, DESCRIPTION_CHARACTERS_MAX),
        } | ({"target_url": target_url} if target_url else {})
        await post_json(
            self._client,
            f"{repo.report_to.rstrip('/')}/repos/{repo.name}/statuses/{quote(commit_sha, safe='')}",
            msgspec.json.encode(body),
            headers={
                "authorization": f"Bearer {repo.api_token}",
                "accept": "application/vnd.github+json",
                "x-github-api-version": "2022-11-28",
            },
            asked=asked,
            timeout_ms=self._timeout_ms,
            now_ms=self._clock.now_ms,
        )
