"""The channels of this server: a name, and addresses that messages go to, of any service that apprise speaks to.

Rule 1: an address is a secret: no log, error or answer holds one, nor what a service says when it refuses.
Rule 2: apprise waits for the network with its thread; each sending has a thread of its own and a limit of time.
Rule 3: a redirect is never followed: it could carry a token to somebody else.
"""

import logging
import re
import tomllib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.to_thread
import msgspec

from deltaci.domain.errors import ConfigError, ForgeRejected, ForgeUnavailable
from deltaci.notifier.message import Message

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", re.ASCII)
CHANNELS_MAX: Final = 200
# A sending that hangs keeps its thread until the socket gives up.
THREADS_MAX: Final = 8
STATUS: Final = re.compile(r"\berror=(\d{3})\b", re.ASCII)


class Notifications(msgspec.Struct, frozen=True, kw_only=True):
    """`channels_file`: TOML, `name = "address"`; without one nobody can be told. `within_ms`: for each sending."""

    channels_file: str = ""
    within_ms: int = 30_000


class Channels:
    """Sends messages to channels by name."""

    def __init__(self, services: Mapping[str, Sequence[Any]], *, within_ms: int) -> None:
        """`services`: the apprise services of each channel, see `load`."""
        self._services = services
        self._within_ms = within_ms
        self._threads = anyio.CapacityLimiter(THREADS_MAX)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all channels, sorted."""
        return tuple(sorted(self._services))

    async def send(self, channel: str, message: Message) -> None:
        """Send to every address of `channel`; if only some of them took it, all get it again with the next try.

        Raises:
            ForgeRejected: there is no such channel, or a service refused for good.
            ForgeUnavailable: no answer in time, or one that asks to try again.
        """
        services = self._services.get(channel)
        if services is None:
            known = ", ".join(self.names) or "none"
            raise ForgeRejected(f"cannot tell channel {channel!r}: this server has no such channel; it has {known}")
        try:
            with anyio.fail_after(self._within_ms / 1000):
                for service in services:
                    work = partial(_send, service, message)
                    status = await anyio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=self._threads)
                    if status is not None:
                        raise _failure(channel, status)
        except TimeoutError as error:
            raise ForgeUnavailable(f"cannot tell channel {channel!r}: no answer within {self._within_ms} ms") from error


def load(settings: Notifications) -> Channels:
    """The channels of the file in the settings; raises `ConfigError` naming file and channel, and no address."""
    if not settings.channels_file:
        return Channels({}, within_ms=settings.within_ms)
    file = Path(settings.channels_file)
    try:
        listed = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"notifications.channels_file {file}: {error.strerror}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        # The error's own words may be a piece of an address.
        raise ConfigError(f'notifications.channels_file {file} is not TOML: write name = "address"') from error
    if len(listed) > CHANNELS_MAX:
        raise ConfigError(f"notifications.channels_file {file}: {len(listed)} channels; at most {CHANNELS_MAX}")
    services = {name: tuple(_services(file, name, value)) for name, value in listed.items()}
    return Channels(services, within_ms=settings.within_ms)


def _services(file: Path, name: str, value: Any) -> list[Any]:
    # Hundreds of plugins: only who has channels pays for them.
    from apprise import Apprise, AppriseAsset

    # It logs tokens that do not look right to it.
    logging.getLogger("apprise").propagate = False
    where = f"notifications.channels_file {file}: {name[:64]!r}"
    if not NAME.fullmatch(name):
        raise ConfigError(f"{where}: a channel is named by 1 to 64 letters, digits and _ . -")
    addresses = [value] if isinstance(value, str) else value
    if not isinstance(addresses, list) or not addresses or not all(isinstance(one, str) for one in addresses):
        raise ConfigError(f'{where}: give "address", or ["address", "address"]')
    asset = AppriseAsset(app_id="Delta CI", http_redirects=False, allow_templates=False)
    services = []
    for number, address in enumerate(addresses, 1):
        service = Apprise.instantiate(address, asset=asset)
        if service is None:
            raise ConfigError(
                f"{where}: address {number} is of no known kind, or lacks something; it is written as apprise wants it"
            )
        sender = Apprise(asset=asset)
        sender.add(service)
        services.append(sender)
    return services


def _send(sender: Any, message: Message) -> int | None:
    """None if it was taken; otherwise the status that the service answered, 0 if it is not known."""
    result = sender.notify(title=message.title, body=message.body, body_format="text", notify_type=message.kind)
    if result:
        return None
    logs = [str(entry.message) for one in result.results for attempt in one.attempts for entry in attempt.logs]
    found = [int(status) for log in logs for status in STATUS.findall(log)]
    return found[-1] if found else 0


def _failure(channel: str, status: int) -> ForgeRejected | ForgeUnavailable:
    """What an answer means: that of a client's fault will not change, all others may."""
    if status in (408, 429) or not 300 <= status < 500:
        what = f"answered {status}" if status else "could not be reached, or refused without saying why"
        return ForgeUnavailable(f"cannot tell channel {channel!r}: its service {what}")
    return ForgeRejected(
        f"cannot tell channel {channel!r}: its service answered {status}; see that its address in the channels file is "
        "still right"
    )
