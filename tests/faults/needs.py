"""What a fault needs of the machine: where it is missing the test is skipped with the reason, but in CI it fails."""

import os
import shutil

import pytest


def require_root() -> None:
    """Only root may do this."""
    if os.geteuid() != 0:
        _miss("needs root")


def require_tools(*names: str) -> None:
    """Programs on the path, from the Debian packages that `.ci/run` installs."""
    missing = [name for name in names if shutil.which(name) is None]
    if missing:
        _miss(f"needs {', '.join(missing)}")


def _miss(text: str) -> None:
    if os.environ.get("CI") == "1":
        pytest.fail(f"{text}; CI must have it")
    pytest.skip(text)
