"""What `deltaci doctor` is told of a forge: each look is a finding, and a look that fails is one too."""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from deltaci.domain.errors import ForgeError
from deltaci.forge.api import Finding
from deltaci.forge.webhook import one_line

DETAIL_CHARACTERS_MAX = 400

T = TypeVar("T")


async def look(call: Callable[[], Awaitable[T]], *, what: str, advice: str) -> tuple[T | None, Finding]:
    """What `call` returns, with a good finding; None with a bad one if the forge does not do it."""
    try:
        found = await call()
    except ForgeError as error:
        return None, Finding(
            what=what, is_good=False, detail=one_line(str(error), DETAIL_CHARACTERS_MAX), advice=advice
        )
    return found, Finding(what=what, is_good=True)


def having(what: str, missing: Sequence[str], *, advice: str) -> Finding:
    """Good if nothing is missing."""
    detail = f"missing: {', '.join(missing)}" if missing else ""
    return Finding(what=what, is_good=not missing, detail=detail, advice=advice if missing else "")


def webhook(found: bool, *, wrong: Sequence[str], hook_url: str) -> Finding:
    """What the forge's webhook to us is like; `wrong` says in half sentences what of it is not as it should be."""
    if not found:
        text = f"nothing leads to {hook_url}" if hook_url else "nothing leads to this server"
        return Finding(what="webhook", is_good=False, detail=text, advice="add a webhook to this server's address")
    advice = "change the webhook" if wrong else ""
    return Finding(what="webhook", is_good=not wrong, detail="; ".join(wrong), advice=advice)
