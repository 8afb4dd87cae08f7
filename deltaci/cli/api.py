"""The command line's side of the API: finds server and token, asks, and turns errors into sentences."""

import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click
import httpx

Command = Callable[..., Any]


class Api:
    """A server and the right to ask it."""

    def __init__(self, server: str, token: str) -> None:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.server = server.rstrip("/")
        if not token.isascii() or not token.isprintable():
            raise click.ClickException("the token holds characters that no token has: give the one line that was shown")
        try:
            self._client = httpx.Client(base_url=self.server, headers=headers, timeout=30)
        except httpx.InvalidURL as error:
            raise click.ClickException(f"--server {server}: {error}") from error

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def get(self, path: str, **parameters: Any) -> Any:
        """The JSON answer; raises `click.ClickException` on anything but 2xx."""
        return self._json(self.raw("GET", path, params={k: v for k, v in parameters.items() if v is not None}))

    def post(self, path: str, body: Any = None) -> Any:
        """The JSON answer; raises `click.ClickException` on anything but 2xx."""
        return self._json(self.raw("POST", path, json=body or {}))

    def patch(self, path: str, body: Any) -> Any:
        """The JSON answer; raises `click.ClickException` on anything but 2xx."""
        return self._json(self.raw("PATCH", path, json=body))

    def delete(self, path: str) -> Any:
        """The JSON answer; raises `click.ClickException` on anything but 2xx."""
        return self._json(self.raw("DELETE", path))

    def _json(self, response: httpx.Response) -> Any:
        try:
            return response.json()
        except ValueError as error:
            raise click.ClickException(f"what answers at {self.server} is no Delta CI server") from error

    def raw(self, method: str, path: str, **options: Any) -> httpx.Response:
        """The response, which is 2xx; raises `click.ClickException` otherwise."""
        try:
            response = self._client.request(method, f"/api/v1{path}", **options)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise click.ClickException(
                f"no answer from {self.server} ({error}): is it running? name it by --server or DELTACI_URL"
            ) from error
        if response.is_success:
            return response
        try:
            told = response.json()["error"]
            text = f"{told['message']} [{told['code']}]"
        except (ValueError, KeyError, TypeError):
            text = response.text[:500]
        if response.status_code == httpx.codes.UNAUTHORIZED:
            text += " (token by --token-file or DELTACI_TOKEN; the first start of the server wrote DIR/admin-token)"
        raise click.ClickException(f"{method} {path}: {response.status_code}: {text}")


def read_secret(file: Path, option: str) -> str:
    """The one line in `file`; raises `click.ClickException` naming `option`."""
    try:
        return file.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise click.ClickException(f"{option} {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise click.ClickException(f"{option} {file}: that is no text") from error


def segment(value: str) -> str:
    """An id as one segment of a path, whatever was typed."""
    return quote(value, safe="").replace(".", "%2E")


def with_api(command: Command) -> Command:
    """Give the command `--server` and `--token-file`, and an `Api` as first argument."""

    @click.option("--server", help="URL of the server (DELTACI_URL, http://127.0.0.1:8080).")
    @click.option("--token-file", type=click.Path(path_type=Path, dir_okay=False), help="A file (or DELTACI_TOKEN).")
    @wraps(command)
    def wrapped(*args: Any, server: str | None, token_file: Path | None, **options: Any) -> Any:
        if token_file is not None:
            token = read_secret(token_file, "--token-file")
        else:
            token = os.environ.get("DELTACI_TOKEN", "")
        api = Api(server or os.environ.get("DELTACI_URL", "http://127.0.0.1:8080"), token)
        return command(api, *args, **options)

    return wrapped
