"""Words about a plan from somebody else, a language model perhaps; off unless an address is set.

Rule 1: an advisor sees a plan that is finished, and can change nothing of it: its words are beside the plan, and the
plan's digest does not know them.
Rule 2: an advisor that fails, is slow or says nothing useful costs its words, never the plan.
"""

from typing import Final, Protocol

import anyio
import httpx
import msgspec
from loguru import logger

from deltaci.domain.plan import Plan

ADVICE_CHARACTERS_MAX: Final = 4_000
ANSWER_BYTES_MAX: Final = 64 * 1024


class Advisor(Protocol):
    """Says something about a plan."""

    async def advise(self, plan: Plan) -> str:
        """A text for the people whose run it is; may raise anything."""
        ...


class _Said(msgspec.Struct):
    text: str


class HttpAdvisor:
    """Posts the plan as JSON to an address of the operator's choice, which answers `{"text": "..."}`."""

    def __init__(self, client: httpx.AsyncClient, url: str) -> None:
        """`client` should follow no redirects: plans hold the commands and names of a repository."""
        self._client = client
        self._url = url

    async def advise(self, plan: Plan) -> str:
        """The text. Raises httpx.HTTPError, msgspec.MsgspecError or ValueError when there is no usable answer."""
        body = msgspec.json.encode(plan, order="deterministic")
        headers = {"content-type": "application/json"}
        async with self._client.stream("POST", self._url, content=body, headers=headers) as response:
            response.raise_for_status()
            got = bytearray()
            async for chunk in response.aiter_raw():  # raw: an answer cannot be a compression bomb
                got += chunk
                if len(got) > ANSWER_BYTES_MAX:
                    raise ValueError(f"the answer has more than {ANSWER_BYTES_MAX} bytes")
        return msgspec.json.decode(bytes(got), type=_Said).text


async def advised(plan: Plan, advisor: Advisor | None, *, within_ms: int) -> Plan:
    """`plan` with the words of `advisor`, cut and cleaned; `plan` itself if there are none within `within_ms`."""
    if advisor is None:
        return plan
    try:
        with anyio.fail_after(within_ms / 1000):
            text = await advisor.advise(plan)
    except Exception as error:  # noqa: BLE001 - words are worth no plan, whatever the other side does
        logger.warning("no advice for commit {}: {}", plan.commit_sha, str(error) or type(error).__name__)
        return plan
    shown = "".join(c if c.isprintable() or c == "\n" else " " for c in text.strip()[:ADVICE_CHARACTERS_MAX])
    return msgspec.structs.replace(plan, advice=shown)
