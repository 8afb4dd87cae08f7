"""A git server on a loopback port that lets only those read who bring the right header, and looks at who asks."""

import os
import subprocess
import threading
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil

USER, PASSWORD = "x-access-token", "ghs_hush-hush-0123456789"
HEADER = "Basic " + b64encode(f"{USER}:{PASSWORD}".encode()).decode()


class PrivateGit:
    """Serves the bare repositories below `root`. `command_lines`: of every git that lived during an answered request.

    `authorizations`: the header of each request, None where there was none. `redirect_to`: where it sends everybody.
    """

    def __init__(self, root: Path) -> None:
        self.authorizations: list[str | None] = []
        self.command_lines: set[str] = set()
        self.redirect_to = ""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                authorization = self.headers.get("authorization")
                outer.authorizations.append(authorization)
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                if outer.redirect_to:
                    self._answer(302, [("location", outer.redirect_to + self.path)], b"")
                elif authorization != HEADER:
                    self._answer(401, [("www-authenticate", 'Basic realm="git"')], b"")
                else:
                    outer.command_lines.update(_command_lines_of_git())
                    self._answer(200, *_answer_of_git(root, self, body))

            def do_POST(self) -> None:
                self.do_GET()

            def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
                self.send_response(status)
                for name, value in [*headers, ("content-length", str(len(body)))]:
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"


@contextmanager
def private_git(root: Path) -> Iterator[PrivateGit]:
    served = PrivateGit(root)
    thread = threading.Thread(target=served.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield served
    finally:
        served.server.shutdown()
        thread.join()
        served.server.server_close()


def files_with(secret: str, below: Path) -> list[Path]:
    """The files below a directory that hold a secret, in plain or as git sends it."""
    words = (secret.encode(), HEADER.removeprefix("Basic ").encode())
    files = (path for path in below.rglob("*") if path.is_file() and not path.is_symlink())
    return [path for path in files if any(word in path.read_bytes() for word in words)]


def _answer_of_git(root: Path, request: BaseHTTPRequestHandler, body: bytes) -> tuple[list[tuple[str, str]], bytes]:
    path, _, query = request.path.partition("?")
    environment = {
        "PATH": os.environ["PATH"],
        "GIT_PROJECT_ROOT": str(root),
        "GIT_HTTP_EXPORT_ALL": "1",
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "REQUEST_METHOD": request.command,
        "CONTENT_TYPE": request.headers.get("content-type", ""),
        "HTTP_CONTENT_ENCODING": request.headers.get("content-encoding", ""),
        "GIT_PROTOCOL": request.headers.get("git-protocol", ""),
        "GIT_CONFIG_GLOBAL": os.devnull,
    }
    done = subprocess.run(["git", "http-backend"], env=environment, input=body, capture_output=True, check=True)
    head, _, answer = done.stdout.partition(b"\r\n\r\n")
    headers = [line.partition(": ")[::2] for line in head.decode().split("\r\n")]
    return [(name, value) for name, value in headers if name.lower() != "status"], answer


def _command_lines_of_git() -> Iterator[str]:
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if "git" in process.name():
                yield " ".join(process.cmdline())
