"""The cable itself: it must not leave behind what the next test would be blamed for."""

import gc
import socket
import sys
from typing import Any

import pytest

from tests.faults.proxy import Proxy, proxied
from tests.scenarios.support import wait_for

PIECE = b"\0" * 60_000  # less than makes the proxy stop reading at its other end


def has_unsent(proxy: Proxy) -> bool:
    """Whether bytes for the server are left that nobody takes."""
    return any(far.transport.get_write_buffer_size() > 0 for _, far in proxy._links)


def break_off(target: socket.socket) -> None:
    """A client leaves while bytes are under way to a server that reads nothing: that end cannot close by itself."""
    with proxied(target.getsockname()[1]) as proxy:
        with socket.create_connection(("127.0.0.1", proxy.port)):
            far, _ = target.accept()
            while not has_unsent(proxy):
                wait_for("the link", lambda: proxy.babble(PIECE, to_server=True))
        wait_for("the link to be given up", lambda: proxy.babble(b"", to_server=False) == 0)
    far.close()


def test_a_proxy_leaves_no_socket_of_a_connection_that_is_still_closing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever collects it would be warned of it."""
    warned: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", warned.append)
    with socket.create_server(("127.0.0.1", 0)) as target:
        break_off(target)
    gc.collect()
    assert warned == []
