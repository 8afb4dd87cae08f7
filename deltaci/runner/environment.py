"""What a step sees of the world: an allow-list of the host's variables, the job's own, and what names the attempt."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from protocol.messages import LeaseGranted, Step

ALLOWED: Final = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "USER", "LOGNAME", "SSL_CERT_FILE", "SSL_CERT_DIR")


def step_environment(
    grant: LeaseGranted, step: Step, *, home: Path, temporary: Path, host: Mapping[str, str], passed: tuple[str, ...]
) -> dict[str, str]:
    """The whole environment of `step`. Nothing of the host's gets in that is neither in `ALLOWED` nor in `passed`.

    The step's variables win over the job's, and those over the host's; `CI` and `DELTACI_*` win over all.
    """
    job = grant.job
    return {
        "PATH": os.defpath,
        "LANG": "C.UTF-8",
        **{name: host[name] for name in (*ALLOWED, *passed) if name in host},
        "SHELL": shell()[0],
        "HOME": str(home),
        "TMPDIR": str(temporary),
        "TERM": "dumb",
        **job.env,
        **step.env,
        "CI": "true",
        "DELTACI": "true",
        "DELTACI_RUN_ID": grant.run_id,
        "DELTACI_JOB_ID": grant.job_id,
        "DELTACI_JOB_NAME": job.name,
        "DELTACI_ATTEMPT": str(grant.attempt),
        "DELTACI_COMMIT_SHA": job.commit_sha,
        "DELTACI_REF": job.ref,
        "DELTACI_REPO": job.repo,
    }


def shell() -> tuple[str, ...]:
    """The shell that runs a script file: bash that fails on any failing command or pipe, else plain `sh -e`."""
    bash = shutil.which("bash")
    return (bash, "--noprofile", "--norc", "-eo", "pipefail") if bash else ("/bin/sh", "-e")
