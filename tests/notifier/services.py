"""A mail server on a loopback port that takes every letter, and remembers it."""

import email
import email.policy
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import EmailMessage


class Letters:
    """What came in, in order."""

    def __init__(self) -> None:
        self.all: list[EmailMessage] = []
        letters = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                self._say("220 mail ready")
                while line := self.rfile.readline().strip().upper():
                    if line.startswith(b"DATA"):
                        self._say("354 go on")
                        letters.all.append(self._letter())
                    if line.startswith(b"QUIT"):
                        self._say("221 bye")
                        return
                    self._say("250 fine")

            def _letter(self) -> EmailMessage:
                lines = []
                while (line := self.rfile.readline()) not in (b".\r\n", b""):
                    lines.append(line.removeprefix(b".") if line.startswith(b"..") else line)
                return email.message_from_bytes(b"".join(lines), policy=email.policy.default)  # type: ignore[return-value]

            def _say(self, text: str) -> None:
                self.wfile.write(f"{text}\r\n".encode())

        self.server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]


@contextmanager
def a_mail_server() -> Iterator[Letters]:
    letters = Letters()
    thread = threading.Thread(target=letters.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield letters
    finally:
        letters.server.shutdown()
        thread.join()
        letters.server.server_close()
