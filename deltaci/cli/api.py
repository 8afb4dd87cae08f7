"""The command line's side of the API: finds server and token, asks, and turns errors into sentences."""

import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click
import httpx

Command = Callable[..., Any]


class Api:
    """A server and the right to ask it."""

    def __init__(self, server: str, token: str) -> None:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.server = server.rstrip("/")
        self._client = httpx.Client(base_url=self.server, headers=headers, timeout=30)

    def get(self, path: str, **parameters: Any) -> Any:
        """The JSON answer; raises `click.ClickException` on anything but 2xx."""
        return self.raw("GET", path, params={k: v for k, v in parameters.items() if v is not None}).json()

    def post(self, path: str, body: Any = None) -> Any:
        """The JSON answer; raises `click.ClickException` on anything but 2xx."""
        return self.raw("POST", path, json=body or {}).json()

    def raw(self, method: str, path: str, **options: Any) -> httpx.Response:
        """The response, which is 2xx; raises `click.ClickException` otherwise."""
        try:
            response = self._client.request(method, f"/api/v1{path}", **options)
        except httpx.HTTPError as error:
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


def with_api(command: Command) -> Command:
    """Give the command `--server` and `--token-file`, and an `Api` as first argument."""

    @click.option("--server", help="URL of the server (DELTACI_URL, http://127.0.0.1:8080).")
    @click.option("--token-file", type=click.Path(path_type=Path, dir_okay=False), help="A file (or DELTACI_TOKEN).")
    @wraps(command)
    def wrapped(*args: Any, server: str | None, token_file: Path | None, **options: Any) -> Any:
        if token_file is not None:
            try:
                token = token_file.read_text(encoding="utf-8").strip()
            except OSError as error:
                raise click.ClickException(f"--token-file {token_file}: {error.strerror}") from error
        else:
            token = os.environ.get("DELTACI_TOKEN", "")
        api = Api(server or os.environ.get("DELTACI_URL", "http://127.0.0.1:8080"), token)
        return command(api, *args, **options)

    return wrapped
