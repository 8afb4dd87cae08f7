"""What the checks of a run are called at a commit. Pure.

Rule 1: `deltaci` is the run of a pull request, and of the merge queue that it goes through: this is the one name that a
        branch is protected by, whatever its jobs are called.
Rule 2: a push, a schedule and a person may run the same commit as a pull request does, with another plan: their names
        say so, and never take the place of the pull request's.
Rule 3: a new attempt of a run has the names of the one before.
"""

import hashlib
from typing import Final

from deltaci.domain.events import Trigger

OURS: Final = "deltaci"
CONTEXT_CHARACTERS_MAX: Final = 200
# Those that decide whether a change may be merged
_GATES: Final = frozenset({"pull_request", "merge_group"})


def context(trigger: Trigger, job_name: str = "") -> str:
    """`deltaci` for the run, `deltaci/<job>` for a job; `deltaci (push)` and `deltaci (push)/<job>` for a push.

    Of a name that is too long: its beginning and a digest.
    """
    own = OURS if trigger.kind in _GATES else f"{OURS} ({trigger.kind})"
    if not job_name:
        return own
    full = f"{own}/{job_name}"
    if len(full) <= CONTEXT_CHARACTERS_MAX:
        return full
    return f"{full[: CONTEXT_CHARACTERS_MAX - 9]}~{hashlib.sha256(job_name.encode()).hexdigest()[:8]}"
