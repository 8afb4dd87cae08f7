"""What repositories are cloned with: asked of their forge right before each fetch, for the mirror and for runners.

Rule: an answer is used for one fetch and forgotten; what may be kept for longer, and until when, its forge knows.
"""

from collections.abc import Mapping
from typing import Final

from deltaci.domain.repo import Repo
from deltaci.forge.api import Credential, ForgeApi
from deltaci.forge.mirror import basic_authorization

# A credential is a header; over ssh and on this machine other means decide who may read.
_CARRIED_BY: Final = ("https://", "http://")


class CloneCredentials:
    """Those of all forges that have an API."""

    def __init__(self, apis: Mapping[str, ForgeApi]) -> None:
        """`apis`: by `Repo.forge`."""
        self._apis = apis

    def is_asked(self, repo: Repo) -> bool:
        """Whether there may be one for the repository; asks nobody."""
        return repo.forge in self._apis and repo.clone_url.startswith(_CARRIED_BY)

    async def of(self, repo: Repo) -> Credential | None:
        """What to fetch with now, None if nothing is needed. Raises ForgeUnavailable and ForgeRejected."""
        return await self._apis[repo.forge].credential(repo) if self.is_asked(repo) else None

    async def authorization(self, repo: Repo) -> str | None:
        """The same as the value of an HTTP Authorization header."""
        credential = await self.of(repo)
        return None if credential is None else basic_authorization(credential.username, credential.password)
