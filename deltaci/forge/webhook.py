"""What a webhook is, and what every forge that sends some has to answer about it.

Rule 1: the signature covers the raw bytes, and nothing in them is looked at before it holds.
Rule 2: whoever cannot sign learns nothing: an unknown repository and a wrong signature get the same answer.
Rule 3: signed does not mean well-formed: what is read is bounded, typed and refused as `MalformedRequest`.
"""

import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from typing import Final, Protocol, TypeVar

import msgspec

from deltaci.domain.errors import BadSignature, MalformedRequest
from deltaci.domain.events import Trigger
from deltaci.domain.pull_request import PullRequest
from deltaci.domain.repo import Repo
from deltaci.domain.requests import Request

TITLE_CHARACTERS_MAX: Final = 200
AUTHOR_CHARACTERS_MAX: Final = 100
REF_CHARACTERS_MAX: Final = 1_024

_SIGNATURE: Final = re.compile(r"sha256=([0-9a-fA-F]{64})", re.ASCII)
_SHA: Final = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?", re.ASCII)
_DELIVERY: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,99}", re.ASCII)
_EVENT: Final = re.compile(r"[A-Za-z0-9_]{1,64}", re.ASCII)

T = TypeVar("T")


class Webhook(msgspec.Struct, frozen=True):
    """A request as it came: header names in lower case, and the body byte for byte."""

    headers: Mapping[str, str]
    body: bytes


class Received(msgspec.Struct, frozen=True, kw_only=True):
    """What a webhook says: a trigger, a request, or why neither (`ignored`, for people). Exactly one of them is set.

    `pull_request`: what the event tells of one, whatever else it says; to be kept.
    """

    delivery_id: str
    event: str
    trigger: Trigger | None = None
    request: Request | None = None
    ignored: str | None = None
    pull_request: PullRequest | None = None

    def __post_init__(self) -> None:
        if (self.trigger is not None) + (self.request is not None) + (self.ignored is not None) != 1:
            raise ValueError(f"delivery {self.delivery_id} needs a trigger, a request, or a reason why it has neither")


class WebhookForge(Protocol):
    """A kind of forge that calls us."""

    @property
    def name(self) -> str:
        """As in `Repo.forge`, and in the address its webhooks are sent to."""
        ...

    def authenticate(self, webhook: Webhook, repos: Sequence[Repo]) -> Repo | None:
        """The repository whose secret signed the webhook, and which it is about.

        Args:
            repos: all registered repositories; those of other forges are passed over. One HMAC over the body is
                computed for each distinct secret that may have signed it.
        Raises:
            BadSignature: it is missing, malformed, no SHA-256, or made with no secret that we know for this.
            NotFound: it holds, and the repository is not registered with that secret.
            MalformedRequest: it holds, and the body does not say which repository it is about.
        """
        ...

    def read(self, webhook: Webhook, repo: Repo | None) -> Received:
        """What an authenticated webhook says, about `repo` if there is one; raises `MalformedRequest`."""
        ...


# ---- signatures --------------------------------------------------------------------------------------------------


def signature(secret: str, body: bytes) -> str:
    """`sha256=<hex>`: the HMAC-SHA256 of the raw body."""
    return "sha256=" + hmac.digest(secret.encode(), body, hashlib.sha256).hex()


def claimed_digest(webhook: Webhook, header: str) -> bytes:
    """The HMAC that `header` claims; raises `BadSignature` when there is none of the only form that counts."""
    claimed = webhook.headers.get(header)
    if claimed is None:
        raise BadSignature(f"the header {header} is missing: set a secret on the sending side")
    match = _SIGNATURE.fullmatch(claimed.strip())
    if match is None:
        raise BadSignature(f"the header {header} is not of the form sha256=<64 hexadecimal digits>")
    return bytes.fromhex(match[1])


def is_signed(secret: str, body: bytes, claimed: bytes) -> bool:
    """Whether `secret` signed `body`, in a time that tells nothing about `claimed`; an empty secret never did."""
    return hmac.compare_digest(hmac.digest(secret.encode(), body, hashlib.sha256), claimed) and secret != ""


# ---- reading -----------------------------------------------------------------------------------------------------


def decoded(body: bytes, shape: type[T]) -> T:
    """The JSON in `body` as `shape`; whatever is wrong with it, `MalformedRequest` says so."""
    try:
        body.decode("utf-8")  # the decoder skips strings that no field asks for without looking at their bytes
        return msgspec.json.decode(body, type=shape)
    except UnicodeDecodeError as error:
        raise MalformedRequest(f"the body is not UTF-8: {error.reason} at byte {error.start}") from error
    except RecursionError as error:
        raise MalformedRequest("the body is nested too deeply") from error
    except msgspec.DecodeError as error:
        raise MalformedRequest(f"the body is not what this webhook carries: {error}") from error


def required_header(webhook: Webhook, name: str, *, is_event: bool = False) -> str:
    """A required header that names an event or, otherwise, a delivery; raises `MalformedRequest`."""
    value = webhook.headers.get(name, "")
    if (_EVENT if is_event else _DELIVERY).fullmatch(value) is None:
        raise MalformedRequest(f"the header {name} is missing, or holds more than letters, digits and . _ : -")
    return value


def object_id_or_none(value: str, field: str) -> str | None:
    """A full object id, or None when it is git's all-zero id for "nothing"; raises `MalformedRequest`."""
    if _SHA.fullmatch(value) is None:
        raise MalformedRequest(f"{field} is not a full lower-case object id: {one_line(value, 80)!r}")
    return None if value.strip("0") == "" else value


def object_id(value: str, field: str) -> str:
    """A full object id of something that exists; raises `MalformedRequest`."""
    found = object_id_or_none(value, field)
    if found is None:
        raise MalformedRequest(f"{field} is all zeros, so there is no commit to look at")
    return found


def full_ref(value: str) -> str:
    """A full ref name, fit to be stored and shown; raises `MalformedRequest`."""
    has_room = 0 < len(value) <= REF_CHARACTERS_MAX
    if not has_room or not value.startswith("refs/") or not value.isprintable() or " " in value:
        raise MalformedRequest(f"ref is not a full ref name: {one_line(value, 80)!r}")
    return value


def one_line(text: str, characters_max: int) -> str:
    """The first line of `text` without control and formatting characters, cut to `characters_max`."""
    first, *_ = text[: 4 * characters_max].strip().splitlines() or [""]
    printable = "".join(character for character in first if character.isprintable())
    return printable if len(printable) <= characters_max else printable[: characters_max - 1] + "…"


def push_stream(ref: str) -> str | None:
    """What a newer push of the same ref makes superfluous; None for a ref that is neither branch nor tag."""
    for prefix, kind in (("refs/heads/", "branch"), ("refs/tags/", "tag")):
        if ref.startswith(prefix) and len(ref) > len(prefix):
            return f"{kind}:{ref.removeprefix(prefix)}"
    return None
