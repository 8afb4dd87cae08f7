"""What a commit is compared with, in the words of a plan: the same ones whether a clone or the API of a forge tells it.

Rule: nothing here depends on where or when it was found out: equal commits have equal plans.
"""

from collections.abc import Mapping
from typing import Final

from deltaci.planner.configuration import FILE, MISNAMED

# What may be a configuration, or was meant to be one.
CONFIGURATION_NAMES: Final = (FILE, *MISNAMED)
_NO_COMMIT: Final[Mapping[str, str]] = {
    "": "no base was given",
    "0" * 40: "this is the first push",
    "0" * 64: "this is the first push",
}


def no_base(base_sha: str | None) -> str | None:
    """Why `base_sha` names no commit, as half a sentence; None if it names one."""
    return _NO_COMMIT.get(base_sha or "")


def rewritten(base_sha: str, commit_sha: str) -> str:
    """Why a push is not compared with the commit before it."""
    return f"history was rewritten: {base_sha} is not an ancestor of {commit_sha}"


def too_many_changes(changes_max: int) -> str:
    """Why changes are not looked at one by one."""
    return f"more than {changes_max} files changed"
