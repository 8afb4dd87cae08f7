"""What a bare repository runs after a push: tell the control plane, and tell the pusher what came of it.

The server never imports this file: `post_receive_hook` writes its text into the repository's hook, so it uses the
standard library alone.

Rule 1: whatever goes wrong, the push has happened: the exit code is 0 and the pusher reads why.
Rule 2: a retry is the same delivery: same id, same bytes. Another push of the same commits is another delivery.
Rule 3: nobody waits much longer than `PATIENCE_SECONDS`, however many refs were pushed.
"""

import hashlib
import hmac
import http.client
import json
import secrets
import signal
import ssl
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

PATIENCE_SECONDS = 30.0
TRY_SECONDS = 10.0
WAIT_FIRST_SECONDS = 0.25
WAIT_MAX_SECONDS = 8.0
ANSWER_BYTES_MAX = 64 * 1024
WEBHOOK_PATH = "/api/v1/webhooks/git"


class Refused(Exception):
    """The server said no for good."""


class NotNow(Exception):
    """No answer, or one that asks to come again; `wait` is how many seconds it asked for."""

    def __init__(self, text: str, wait: float = 0.0) -> None:
        super().__init__(text)
        self.wait = wait


def main(*, server_url: str, repository: str, secret_file: str, patience: float = PATIENCE_SECONDS) -> int:
    """Deliver every ref update that git lists on the standard input; always 0."""
    # The last resort against a server that answers a byte at a time: the process is gone, and the push stands.
    signal.alarm(int(patience + 2 * TRY_SECONDS))
    deadline = time.monotonic() + patience
    try:
        secret = Path(secret_file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        say(f"the secret in {secret_file} cannot be read ({error}): nothing was delivered")
        return 0
    push = secrets.token_hex(16)
    for line in sys.stdin.buffer:
        name = ""
        try:
            before, after, name = line.decode("utf-8").rstrip("\n").split(" ", 2)
            body = update(repository, before, after, name, push)
            if body is not None:
                say(f"{name}: {deliver(server_url, repository, secret, body, deadline)}")
        except Refused as error:
            say(f"{name} was refused: {error}")
        except NotNow as error:
            say(f"{name} was not delivered: {error}; push again later, or start the run by hand")
        except (ValueError, OSError) as error:
            say(f"{name or 'a ref'} was not delivered: {error}")
    return 0


def update(repository: str, before: str, after: str, name: str, push: str) -> "dict[str, object] | None":
    """The body of one delivery; None for refs that start nothing (notes, replacements, ...)."""
    if not name.startswith(("refs/heads/", "refs/tags/")):
        return None
    body: dict[str, object] = {
        "repository": repository,
        "ref": name,
        "before": before,
        "after": after,
        "push": push,
        "forced": False,
        "author": "",
        "title": "",
    }
    if set(after) != {"0"}:
        # An annotated tag is an object of its own; what can be built is the commit behind it.
        body["after"] = git("rev-parse", "--verify", "--quiet", f"{after}^{{commit}}") or after
        told = git("-c", "i18n.logOutputEncoding=UTF-8", "log", "-1", "--format=%an%n%s", after, "--")
        body["author"], _, body["title"] = told.partition("\n")
        if name.startswith("refs/heads/") and set(before) != {"0"}:
            body["forced"] = git("merge-base", before, after) != before
    return body


def git(*arguments: str) -> str:
    """What git says, without the last line break; empty when it fails."""
    done = subprocess.run(["git", *arguments], capture_output=True, check=False, timeout=TRY_SECONDS)  # noqa: S603, S607  # the hook's own git, and object ids
    return done.stdout.decode("utf-8", "replace").rstrip("\n") if done.returncode == 0 else ""


def deliver(server_url: str, repository: str, secret: str, body: "dict[str, object]", deadline: float) -> str:
    """Post until there is a definite answer or no time left; what to tell the pusher. Raises `Refused`, `NotNow`."""
    data = json.dumps(body).encode()
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "delta-ci-post-receive",
        "X-Deltaci-Repo": repository,
        "X-Deltaci-Event": "push",
        "X-Deltaci-Delivery": delivery_id(body),
        "X-Deltaci-Signature": "sha256=" + hmac.new(secret.encode(), data, hashlib.sha256).hexdigest(),
    }
    wait = WAIT_FIRST_SECONDS
    while True:
        try:
            return post(server_url, headers, data, max(1.0, min(TRY_SECONDS, deadline - time.monotonic())))
        except NotNow as error:
            pause = max(wait, error.wait)
            if time.monotonic() + pause >= deadline:
                raise
            time.sleep(pause)
            wait = min(2 * wait, WAIT_MAX_SECONDS)


def delivery_id(body: "dict[str, object]") -> str:
    """The same for every try of this update, and for nothing else: `push` is drawn once a push."""
    identity = [body["repository"], body["ref"], body["before"], body["after"], body["push"]]
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:40]


def post(server_url: str, headers: "dict[str, str]", data: bytes, timeout: float) -> str:
    """One try."""
    address = urlsplit(server_url)
    if address.hostname is None or address.scheme not in ("http", "https"):
        raise Refused(f"{server_url} is not an http(s) address")
    connection: http.client.HTTPConnection
    if address.scheme == "https":
        context = ssl.create_default_context()
        connection = http.client.HTTPSConnection(address.hostname, address.port, timeout=timeout, context=context)
    else:
        connection = http.client.HTTPConnection(address.hostname, address.port, timeout=timeout)
    try:
        connection.request("POST", address.path.rstrip("/") + WEBHOOK_PATH, body=data, headers=headers)
        response = connection.getresponse()
        answer = response.read(ANSWER_BYTES_MAX)
    except ssl.SSLCertVerificationError as error:
        raise Refused(f"the server's certificate is not trusted: {error.verify_message}") from error
    except (OSError, http.client.HTTPException) as error:
        raise NotNow(f"{type(error).__name__}: {error}") from error
    finally:
        connection.close()
    return meaning(response.status, response.getheader("Retry-After", ""), answer)


def meaning(status: int, retry_after: str, answer: bytes) -> str:
    """What the server's answer means to the pusher; raises `Refused`, `NotNow`."""
    try:
        fields = json.loads(answer)
    except (ValueError, RecursionError):
        fields = {}
    if not isinstance(fields, dict):
        fields = {}
    if 200 <= status < 300:
        if fields.get("run_id"):
            return " ".join(str(part) for part in ("run", fields["run_id"], fields.get("url", "")) if part)
        return f"no run: {fields.get('ignored') or 'accepted'}"
    error = fields.get("error")
    told = error.get("message") if isinstance(error, dict) else None
    text = f"{told or 'the server answered'} ({status})"
    if status in (408, 425, 429) or status >= 500:
        raise NotNow(text, float(retry_after) if retry_after.isdecimal() and len(retry_after) < 4 else 0.0)
    raise Refused(text)


def say(text: str) -> None:
    """A line for the pusher, in printable characters only; nobody may be there to read it."""
    line = "".join(character for character in text if character.isprintable())[:500]
    try:
        sys.stdout.buffer.write(f"Delta CI: {line}\n".encode("utf-8", "replace"))
        sys.stdout.buffer.flush()
    except OSError:
        return
