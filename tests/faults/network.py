"""Two hosts on one machine with a cable between them that can be cut: network namespaces, veth and nftables.

The namespaces have no names: they live in descriptors and processes of the test, and are gone when those are, whatever
ends the test. The test itself moves into the server's host, so that all it starts and asks is there.
"""

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Literal

CLONE_NEWNET: Final = 0x40000000
SERVER_ADDRESS: Final = "10.77.0.1"
RUNNER_ADDRESS: Final = "10.77.0.2"
TOOLS: Final = ("ip", "nft", "nsenter")
CABLE: Final = "cable"

RULES: Final = f"""\
add table inet fault
add chain inet fault arriving {{{{ type filter hook input priority 0; }}}}
add rule inet fault arriving iifname {CABLE} {{verdict}}
"""

Fault = Literal["cut both ways", "nothing reaches the runner", "nothing reaches the server", "reset"]

_libc: Final = ctypes.CDLL(None, use_errno=True)


class Network:
    """The two hosts, as descriptors of their namespaces."""

    def __init__(self, server: int, runner: int) -> None:
        self._server = server
        self._runner = runner

    def on_runner(self) -> tuple[str, ...]:
        """Words before a command that is to run on the runner's host."""
        return ("nsenter", f"--net=/proc/{os.getpid()}/fd/{self._runner}")

    @contextmanager
    def broken(self, fault: Fault) -> Iterator[None]:
        """The cable is at fault; it is whole again at the end."""
        # A reset must not be answered by a reset, or none would arrive.
        verdict = "tcp flags & rst == 0 reject with tcp reset" if fault == "reset" else "meta l4proto tcp drop"
        hosts = {
            "nothing reaches the runner": (self._runner,),
            "nothing reaches the server": (self._server,),
        }.get(fault, (self._server, self._runner))
        try:
            for host in hosts:
                _run_on(host, "nft", RULES.format(verdict=verdict))
            yield
        finally:
            for host in hosts:
                _run_on(host, "nft", "flush ruleset")


@contextmanager
def network() -> Iterator[Network]:
    """Two hosts, and this thread on the server's; it comes home at the end."""
    home = _here()
    hosts: list[int] = []
    try:
        for _ in range(2):
            _check(_libc.unshare(CLONE_NEWNET))
            hosts.append(_here())
            _run("ip", "link", "set", "lo", "up")
        server, runner = hosts
        peer = ("peer", "name", CABLE, "netns", f"/proc/{os.getpid()}/fd/{server}")
        _run_on(runner, "ip", "link", "add", CABLE, "type", "veth", *peer)
        for host, address in ((server, SERVER_ADDRESS), (runner, RUNNER_ADDRESS)):
            _run_on(host, "ip", "address", "add", f"{address}/24", "dev", CABLE)
            _run_on(host, "ip", "link", "set", CABLE, "up")
        _enter(server)
        yield Network(server, runner)
    finally:
        _enter(home)
        for descriptor in (home, *hosts):
            os.close(descriptor)


def _here() -> int:
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _enter(host: int) -> None:
    _check(_libc.setns(host, CLONE_NEWNET))


def _run_on(host: int, *command: str) -> None:
    home = _here()
    try:
        _enter(host)
        _run(*command)
    finally:
        _enter(home)
        os.close(home)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, f"{command}: {done.stderr}"


def _check(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
