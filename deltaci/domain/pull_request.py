"""A pull or merge request as the forge told of it last."""

import msgspec


class PullRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One row a request, replaced whenever an event or a look at the forge tells something newer.

    `head_ref` is a full ref name in the repository that the change comes from, which is another one if `is_fork`.
    `base_sha` and `author` are empty where the forge does not tell them. `updated_at_ms` is the forge's: an event that
    is older than the row changes nothing. `approved_sha`: the commit that somebody with the right let run, empty for
    none.
    """

    repo_id: str
    number: int
    head_sha: str
    head_ref: str
    base_ref: str
    base_sha: str
    is_open: bool = True
    is_fork: bool = False
    is_draft: bool = False
    author: str = ""
    title: str = ""
    labels: tuple[str, ...] = ()
    updated_at_ms: int = 0
    approved_sha: str = ""


def newer(known: PullRequest | None, told: PullRequest) -> PullRequest | None:
    """What to store of `told`; None if `known` is as new. An approval stays with its commit.

    What was known stays where an event leaves it out: the author, and the head of the base branch if it is the same.
    """
    if known is None:
        return told
    told = msgspec.structs.replace(
        told,
        approved_sha=known.approved_sha,
        author=told.author or known.author,
        base_sha=told.base_sha or (known.base_sha if told.base_ref == known.base_ref else ""),
    )
    if told.updated_at_ms < known.updated_at_ms or told == known:
        return None
    return told
