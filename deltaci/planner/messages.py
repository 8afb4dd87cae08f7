"""What the server and the process that plans say to each other: frames of msgpack over two pipes.

Rule: each request has one reply with its number; whatever else comes is no reply, and ends the process.
A frame is its length, four bytes, the most significant first, and so many bytes.
"""

import struct
from typing import IO, Final, TypeAlias, TypeVar

import msgspec

from deltaci.domain.plan import Plan, PlannedJob
from deltaci.domain.recipe import Recipe
from deltaci.forge.api import RemoteEntry
from deltaci.forge.local import MirrorLimits
from deltaci.planner.errors import Problem
from deltaci.planner.occasion import NO_OCCASION, Occasion
from deltaci.planner.roster import Rest

# A list of 100,000 files has 13 MiB; contents of files come to `api_bytes_max`.
REQUEST_BYTES_MAX: Final = 128 * 1024 * 1024
REPLY_BYTES_MAX: Final = 64 * 1024 * 1024
# Exit codes of the process that say why it ended; the shell and signals use neither of the last two.
EXIT_CRASHED: Final = 1
EXIT_MEMORY: Final = 86
EXIT_RECURSION: Final = 87
_LENGTH: Final = struct.Struct(">I")
T = TypeVar("T")


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """The first frame: what holds for all plans of this process. Sizes are bytes."""

    memory_bytes_max: int
    cache_bytes_max: int
    jobs_max: int
    limits: MirrorLimits


class Remote(msgspec.Struct, frozen=True, kw_only=True):
    """What the API of a forge told of a commit, for want of a clone.

    `changed`: the paths that differ from the base, None if that is unknown. `base_entries`: what was there in the base.
    `configuration_entries`: what may be the configuration, in the commit that it is taken from if not from this one.
    `blobs`: contents by object id, as far as they were asked for with `Wants`.
    """

    entries: tuple[RemoteEntry, ...]
    changed: tuple[str, ...] | None = None
    base_entries: tuple[RemoteEntry, ...] = ()
    configuration_entries: tuple[RemoteEntry, ...] = ()
    blobs: dict[str, bytes] = {}


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """Plan a commit of a repository on this disk, or of what a forge told of it.

    `base_sha` is there, or None with `unknown_because`; `configuration_sha`: where `deltaci.yaml` is taken from, if
    not from `commit_sha`; `work_tree`: plan its files as they are now, on top of `commit_sha`, of which `directory` is
    the `.git`; `recipe`: the newest one of the repository; `has_a_say`: whether the run may make one; `roster`: the
    number of the one that was told of it and is kept, so that it need not be told again. With `remote`,
    nothing is read from `directory`, and `base_sha` is the very commit to compare with.
    """

    number: int
    directory: str
    repo_id: str
    commit_sha: str
    base_sha: str | None = None
    unknown_because: str | None = None
    configuration_sha: str | None = None
    is_pull_request: bool = False
    work_tree: str | None = None
    remote: Remote | None = None
    recipe: Recipe | None = None
    has_a_say: bool = False
    occasion: Occasion = NO_OCCASION
    roster: int | None = None


class Planned(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The plan; with `rest`, only what it does not have from that roster, whose `jobs` are there unless known."""

    number: int
    plan: Plan
    rest: Rest | None = None
    jobs: tuple[PlannedJob, ...] | None = None


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """There is no plan, for what is in the commit; `is_configuration`: it is `deltaci.yaml` that has the problems."""

    number: int
    text: str
    problems: tuple[Problem, ...] = ()
    is_configuration: bool = False


class Unreadable(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The repository could not be read: `is_damaged` if it should be fetched anew."""

    number: int
    text: str
    is_retryable: bool
    is_damaged: bool = False


class Wants(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Of a `remote` request: ask again with the contents of these files of a commit, each of at most `bytes_max`."""

    number: int
    commit_sha: str
    paths: tuple[str, ...]
    bytes_max: int


Reply: TypeAlias = Planned | Failed | Unreadable | Wants

start_decoder: Final = msgspec.msgpack.Decoder(Start)
request_decoder: Final = msgspec.msgpack.Decoder(Request)
reply_decoder: Final[msgspec.msgpack.Decoder[Reply]] = msgspec.msgpack.Decoder(Reply)


class BadFrame(Exception):
    """What came is not a frame of ours."""


def framed(message: msgspec.Struct) -> bytes:
    """A message as a frame. Raises UnicodeEncodeError if one of its texts has no encoding."""
    data = msgspec.msgpack.encode(message)
    return _LENGTH.pack(len(data)) + data


def write_frame(stream: IO[bytes], message: msgspec.Struct) -> None:
    """Send a message. Raises OSError if nobody reads any more."""
    stream.write(framed(message))
    stream.flush()


def read_frame(stream: IO[bytes], decoder: msgspec.msgpack.Decoder[T], *, bytes_max: int) -> T | None:
    """The next message, None if the stream ended before one. Raises BadFrame."""
    head = stream.read(_LENGTH.size)
    if not head:
        return None
    if len(head) < _LENGTH.size:
        raise BadFrame("the stream ended within a length")
    (length,) = _LENGTH.unpack(head)
    if length > bytes_max:
        raise BadFrame(f"a frame of {length} bytes, at most {bytes_max} are accepted")
    data = stream.read(length)
    if len(data) < length:
        raise BadFrame("the stream ended within a frame")
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadFrame(str(error)) from error
