"""What GitHub publishes of itself: installed by `make facts`, once a machine, outside of the checkout."""

import functools
import os
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

HERE: Final = Path(__file__).parent / "facts"
INSTALLED: Final = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "deltaci" / "facts"
EXAMPLES: Final = INSTALLED / "node_modules/@octokit/webhooks-examples/api.github.com/index.json"


def require_facts() -> None:
    """Skip where they are missing, but fail in CI: a test against nothing must not look like agreement."""
    lock = INSTALLED / "package-lock.json"
    if lock.is_file() and lock.read_bytes() == (HERE / "package-lock.json").read_bytes():
        return
    if os.environ.get("CI") in ("1", "true"):
        pytest.fail("needs GitHub's examples of its webhooks: make facts; CI must have them")
    pytest.skip("needs GitHub's examples of its webhooks: make facts")


@functools.cache
def webhook_examples() -> dict[str, list[dict[str, Any]]]:
    """All example payloads, by event."""
    told = msgspec.json.decode(EXAMPLES.read_bytes())
    return {event["name"]: event["examples"] for event in told}
