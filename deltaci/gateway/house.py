"""What the gateway's routes can reach, in one struct that the application carries."""

from collections.abc import Callable, Mapping
from typing import Protocol

import anyio
import msgspec
from quart import Request

from deltaci.forge.api import ForgeApi
from deltaci.forge.webhook import WebhookForge
from deltaci.gateway.refusals import Refusals
from deltaci.orchestrator.orchestrator import Orchestrator
from deltaci.store.artifacts import ArtifactFiles
from deltaci.store.port import Store


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds on what may come in; each is a setting."""

    webhook_bytes_max: int = 25 * 1024 * 1024
    body_bytes_max: int = 1024 * 1024
    bodies_bytes_max: int = 256 * 1024 * 1024
    body_timeout_s: int = 30
    idle_timeout_s: int = 75
    page_size_max: int = 500
    log_read_bytes_max: int = 4 * 1024 * 1024
    frames_under_way_max: int = 256


class Metrics(Protocol):
    """Renders what is counted, in the text format of Prometheus."""

    async def render(self) -> bytes:
        """One exposition."""
        ...


async def raw_body(request: Request) -> bytes:
    """The body byte for byte; Quart answers 413 when it is too large and 408 when it is too slow."""
    data = await request.get_data(as_text=False)
    return data if isinstance(data, bytes) else data.encode()


class House(msgspec.Struct, kw_only=True):
    """Everything behind the door. `draining` is set when the process is asked to end: finish, accept nothing new.

    For those who ask what is missing: `apis` of the forges by `Repo.forge`, the `public_url` of the settings, and the
    `secret_files` that they name, by setting.
    """

    orchestrator: Orchestrator
    store: Store
    forges: Mapping[str, WebhookForge]
    artifacts: ArtifactFiles
    metrics: Metrics
    limits: Limits
    make_token: Callable[[], str]
    draining: anyio.Event
    refusals: Refusals = msgspec.field(default_factory=Refusals)
    apis: Mapping[str, ForgeApi] = {}
    public_url: str = ""
    secret_files: Mapping[str, str] = {}

    def drain(self) -> None:
        """The process was asked to end: finish what was accepted, give no more leases."""
        self.draining.set()
        self.orchestrator.desk.close()
