"""What git may fetch a repository with, and who may have it.

Rule 1: it is made right before it is used, and kept nowhere: not stored, not logged, not in an address.
Rule 2: a runner that executes what strangers wrote gets only what soon ends by itself.
"""

import msgspec


class Credential(msgspec.Struct, frozen=True, kw_only=True):
    """What git may clone a repository with over https, and until when. Never stored or logged, never in an address.

    `expires_at_ms` is None for what holds until somebody takes it back.
    """

    username: str
    password: str
    expires_at_ms: int | None = None

    def __repr__(self) -> str:
        """Without the password, wherever it may be printed."""
        return f"Credential(username={self.username!r}, password=***, expires_at_ms={self.expires_at_ms})"


def withheld_because(credential: Credential, *, is_fork: bool) -> str:
    """Why a runner does not get `credential`, for people; empty if it does.

    A fork's run needs to read the repository as every other does, and whoever made the fork could read it already. But
    it executes what a stranger wrote, beside the git that holds the credential: one that lasts, and may be able to do
    more than read, is not brought there. A public repository needs none.
    """
    if not is_fork or credential.expires_at_ms is not None:
        return ""
    return (
        "the run is of a fork, and the only credential for this repository is a token that does not expire: "
        "use a GitHub App, or give the runner credentials of its own (--git-config)"
    )
