"""The real Nx and Turborepo, asked what a change touches.

Rule: nothing of them stays: no daemon, no cache and no setting outside of the test's own directory.
"""

import functools
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest

HERE: Final = Path(__file__).parent
INSTALLED: Final = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "deltaci" / "agreement"
ASKED_S_MAX: Final = 60


def require_tools() -> None:
    """Skip where the tools are missing, but fail in CI: a comparison with nothing must not look like agreement."""
    missing = _missing()
    if missing is None:
        return
    if os.environ.get("CI") in ("1", "true"):
        pytest.fail(f"{missing}; CI must have it")
    pytest.skip(missing)


@functools.cache
def _missing() -> str | None:
    if shutil.which("node") is None:
        return "needs node (and npm)"
    lock = INSTALLED / "package-lock.json"
    if not lock.is_file() or lock.read_bytes() != (HERE / "package-lock.json").read_bytes():
        return "needs the pinned Nx and Turborepo: make agreement"
    return None


def nx_affected(repository: Path) -> set[str]:
    """The names of the projects that Nx calls affected by the last commit."""
    modules = repository / "node_modules"
    if not modules.exists():
        modules.symlink_to(INSTALLED / "node_modules")
    said = _ask(
        repository,
        [
            str(INSTALLED / "node_modules/nx/bin/nx.js"),
            *("show", "projects", "--affected", "--base=HEAD~1", "--head=HEAD", "--json"),
        ],
    )
    return set(json.loads(said))


def turbo_affected(repository: Path, *, task: str = "build") -> set[str]:
    """The names of the packages that Turborepo selects for the last commit; `//` is the root."""
    said = _ask(
        repository,
        [str(INSTALLED / "node_modules/turbo/bin/turbo"), "run", task, "--filter=...[HEAD~1]", "--dry=json"],
    )
    answer: dict[str, Any] = json.loads(said)
    return set(answer["packages"])


def _ask(repository: Path, command: list[str]) -> str:
    private = repository.parent / "private"
    private.mkdir(exist_ok=True)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(private),
        "TMPDIR": str(private),
        "CI": "true",
        "NX_DAEMON": "false",
        "NX_NO_CLOUD": "true",
        "NX_ISOLATE_PLUGINS": "false",  # else each has a process, and a socket whose path may be too long
        "NX_CACHE_PROJECT_GRAPH": "false",
        "NX_CACHE_DIRECTORY": str(private / "nx"),
        "NX_WORKSPACE_DATA_DIRECTORY": str(private / "nx-data"),
        "TURBO_TELEMETRY_DISABLED": "1",
        "TURBO_CACHE_DIR": str(private / "turbo"),
    }
    run = subprocess.run(
        ["node", *command], cwd=repository, env=environment, capture_output=True, text=True, timeout=ASKED_S_MAX
    )
    assert run.returncode == 0, f"{' '.join(command)} failed in {repository}: {run.stdout}{run.stderr}"
    return run.stdout
