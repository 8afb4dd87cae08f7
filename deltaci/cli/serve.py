"""`deltaci serve`: the server process."""

import gc
import os
import resource
import signal
import sys
from pathlib import Path

import anyio
import click
import msgspec

from deltaci import settings as configuration
from deltaci import wiring
from deltaci.domain.errors import DeltaError
from deltaci.gateway import server
from deltaci.gateway.app import create_app
from deltaci.settings import Settings
from deltaci.store import directory

LOOPBACK = ("127.0.0.1", "::1", "localhost")
DESCRIPTORS_MAX = 65_536


@click.command()
@click.option(
    "--data", type=click.Path(path_type=Path, file_okay=False), required=True, help="Everything is kept here."
)
@click.option("--host", help="Address to listen on (127.0.0.1).")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on (8080); 0 takes a free one.")
@click.option("--config", type=click.Path(path_type=Path, dir_okay=False), help="Settings in TOML.")
def serve(data: Path, host: str | None, port: int | None, config: Path | None) -> None:
    """Start the server; prints one line with its URL when it is ready."""
    try:
        settings = configuration.load(config, os.environ)
        given = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
        settings = msgspec.structs.replace(settings, **given)
        if settings.host not in LOOPBACK and not settings.allow_public:
            raise click.ClickException(
                f"--host {settings.host} is reachable from outside, and this server speaks plain HTTP: put it behind a "
                "TLS proxy and set allow_public = true (DELTACI_ALLOW_PUBLIC=true)"
            )
        wiring.configure_logs(settings)
        _raise_descriptor_limit()
        # The writer thread comes back from the disk and wants the interpreter: at the default of 5 ms it waits behind
        # a busy loop so long that commits pile up (58 to 10,000 a second beside a spinning loop; from 9,600 at 0.5).
        sys.setswitchinterval(0.0005)
        anyio.run(_serve, data, settings, backend="asyncio", backend_options={"use_uvloop": _has_uvloop()})
    except DeltaError as error:
        raise click.ClickException(str(error)) from error
    except BaseExceptionGroup as group:
        # What failed inside a task group comes wrapped; with an error of the house at the bottom, it is still that.
        cause = _only(group)
        if isinstance(cause, click.ClickException):
            raise cause from group
        if isinstance(cause, DeltaError):
            raise click.ClickException(str(cause)) from group
        raise


def _only(error: BaseException) -> BaseException:
    """What is wrapped in groups of one."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _has_uvloop() -> bool:
    try:
        import uvloop  # noqa: F401 - an optional extra
    except ImportError:
        return False
    return True


async def _serve(data: Path, settings: Settings) -> None:
    try:
        listening = server.bind(settings.host, settings.port)
    except OSError as error:
        raise click.ClickException(
            f"cannot listen on {settings.host}:{settings.port}: {error.strerror}; choose another --port"
        ) from error
    with listening:
        host, port = listening.getsockname()[:2]
        url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        stopping = anyio.Event()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_watch_signals, stopping)
            with directory.held(data):
                async with wiring.opened(data, settings, base_url=url) as house:
                    _settle_memory()
                    listening.listen(1024)
                    sys.stdout.write(f"Delta CI is ready at {url}\n")
                    sys.stdout.flush()
                    await server.serve_until(
                        create_app(house), house, listening, stopping.wait, graceful_s=settings.shutdown_within_s
                    )
            tasks.cancel_scope.cancel()


def _raise_descriptor_limit() -> None:
    """As many sockets as the system lets us have: the usual soft limit of 1,024 is for programs that use select."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS_MAX if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS_MAX)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _settle_memory() -> None:
    """Keep the collector from walking over everything that stays: what is loaded now, and every live job.

    With the defaults it took a tenth of the processor under load, in full collections of 60 ms with 10,000 live jobs.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 1_000)


async def _watch_signals(stopping: anyio.Event) -> None:
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            stopping.set()
