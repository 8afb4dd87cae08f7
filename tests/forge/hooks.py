"""Signed webhooks, and the repositories they are about."""

from typing import Any

import msgspec

from deltaci.domain.repo import Forge, Repo
from deltaci.forge.webhook import Webhook, signature

ZERO = "0" * 40
OLD = "a" * 40
NEW = "b" * 40
TAG_OBJECT = "c" * 40


def a_repo(name: str = "acme/shop", *, secret: str = "s3cret", forge: Forge = "github", **fields: Any) -> Repo:
    return Repo(
        id=f"repo_{forge}_{name}", name=name, forge=forge, clone_url="", secret=secret, created_at_ms=0, **fields
    )


def from_github(
    body: bytes | dict[str, Any], *, event: str = "push", secret: str = "s3cret", **headers: str
) -> Webhook:
    raw = body if isinstance(body, bytes) else msgspec.json.encode(body)
    return Webhook(
        {
            "content-type": "application/json",
            "x-github-event": event,
            "x-github-delivery": "6f0e0f0a-0000-11ee-8000-000000000001",
            "x-hub-signature-256": signature(secret, raw),
            **{name.replace("_", "-"): value for name, value in headers.items()},
        },
        raw,
    )


def from_git(body: bytes | dict[str, Any], *, repo: str = "shop", secret: str = "s3cret", **headers: str) -> Webhook:
    raw = body if isinstance(body, bytes) else msgspec.json.encode(body)
    return Webhook(
        {
            "x-deltaci-repo": repo,
            "x-deltaci-event": "push",
            "x-deltaci-delivery": "d1",
            "x-deltaci-signature": signature(secret, raw),
            **{name.replace("_", "-"): value for name, value in headers.items()},
        },
        raw,
    )


def a_push(**fields: Any) -> dict[str, Any]:
    return {
        "ref": "refs/heads/main",
        "before": OLD,
        "after": NEW,
        "created": False,
        "deleted": False,
        "forced": False,
        "repository": {"id": 1, "full_name": "acme/shop"},
        "pusher": {"name": "mona"},
        "head_commit": {"id": NEW, "message": "Add a cart\n\nBecause.", "author": {"name": "Mona", "username": "mona"}},
        **fields,
    }


def a_pull_request(action: str = "opened", **fields: Any) -> dict[str, Any]:
    return {
        "action": action,
        "number": 12,
        "repository": {"full_name": "acme/shop"},
        "pull_request": {
            "draft": False,
            "title": "Add a cart",
            "user": {"login": "mona"},
            "head": {"sha": NEW, "ref": "cart", "repo": {"full_name": "acme/shop"}},
            "base": {"sha": OLD, "ref": "main", "repo": {"full_name": "acme/shop"}},
            **fields,
        },
    }


def a_git_push(**fields: Any) -> dict[str, Any]:
    return {
        "repository": "shop",
        "ref": "refs/heads/main",
        "before": OLD,
        "after": NEW,
        "author": "Mona",
        "title": "Add a cart",
        **fields,
    }


# ---- other forges ------------------------------------------------------------------------------------------------


def from_gitlab(
    body: bytes | dict[str, Any], *, event: str = "Push Hook", token: str = "s3cret", **headers: str
) -> Webhook:
    raw = body if isinstance(body, bytes) else msgspec.json.encode(body)
    return Webhook(
        {
            "content-type": "application/json",
            "x-gitlab-event": event,
            "x-gitlab-token": token,
            "x-gitlab-instance": "https://gitlab.example.com",
            "x-gitlab-webhook-uuid": "5f0e6d3c-2e1a-4a6e-8c47-3f6f7f2f9b10",
            "x-gitlab-event-uuid": "13792a34-cac6-4fda-95a8-c58e00a3954e",
            "idempotency-key": "f5e57ebe-07c4-11ee-8000-000000000002",
            **{name.replace("_", "-"): value for name, value in headers.items()},
        },
        raw,
    )


def from_gitea(
    body: bytes | dict[str, Any],
    *,
    event: str = "push",
    secret: str = "s3cret",
    is_forgejo: bool = False,
    **headers: str,
) -> Webhook:
    raw = body if isinstance(body, bytes) else msgspec.json.encode(body)
    digest = signature(secret, raw).removeprefix("sha256=")
    sent = {"content-type": "application/json", "x-hub-signature-256": f"sha256={digest}"}
    for prefix in ("x-forgejo", "x-gitea", "x-gogs") if is_forgejo else ("x-gitea", "x-gogs"):
        sent |= {
            f"{prefix}-delivery": "f6266f16-1bf3-46a5-9ea4-602e06ead473",
            f"{prefix}-event": event,
            f"{prefix}-event-type": event,
            f"{prefix}-signature": digest,
        }
    return Webhook(sent | {name.replace("_", "-"): value for name, value in headers.items()}, raw)
