"""The empty baseline: the same Quart, Hypercorn and loop as the server's, with handlers that do nothing.

`POST /empty` reads the body and answers 202; `/echo` decodes each msgpack frame and sends it back.
"""

import sys
from types import SimpleNamespace
from typing import Any

import anyio
import msgspec
from quart import Quart, Response, request, websocket

from deltaci.cli.serve import _has_uvloop, _watch_signals
from deltaci.gateway import server
from deltaci.gateway.house import Limits

ANSWER = msgspec.json.encode({"run_id": "run_0000000000000000000", "duplicate": False})


def create_app() -> Quart:
    """Two empty handlers."""
    app = Quart("baseline", static_folder=None)

    @app.post("/empty")
    async def _empty() -> Response:
        await request.get_data(as_text=False)
        return Response(ANSWER, 202, content_type="application/json")

    @app.websocket("/echo")
    async def _echo() -> None:
        socket: Any = websocket._get_current_object()  # type: ignore[attr-defined]  # noqa: SLF001 - as the server does
        decoder, encoder = msgspec.msgpack.Decoder(), msgspec.msgpack.Encoder()
        while True:
            await socket.send(encoder.encode(decoder.decode(await socket.receive())))

    return app


async def _serve() -> None:
    listening = server.bind("127.0.0.1", 0)
    stopping = anyio.Event()
    house: Any = SimpleNamespace(draining=anyio.Event(), limits=Limits())
    with listening:
        listening.listen(1024)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_watch_signals, stopping)
            sys.stdout.write(f"empty at http://127.0.0.1:{listening.getsockname()[1]}\n")
            sys.stdout.flush()
            await server.serve_until(create_app(), house, listening, stopping.wait, graceful_s=0.2)
            tasks.cancel_scope.cancel()


if __name__ == "__main__":
    anyio.run(_serve, backend="asyncio", backend_options={"use_uvloop": _has_uvloop()})
