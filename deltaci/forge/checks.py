"""A check run as GitHub's Checks API takes it, within its limits: what is too long is cut, never refused. Pure.

Rule 1: a request carries at most 50 annotations; further ones are appended by further requests, in the order given.
Rule 2: GitHub appends what it is sent: how many it has already says where to go on, so that none is shown twice.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Literal, TypeAlias

import msgspec

from deltaci.forge.webhook import one_line

CheckStatus: TypeAlias = Literal["queued", "in_progress", "completed"]
Conclusion: TypeAlias = Literal["action_required", "cancelled", "failure", "neutral", "success", "skipped", "timed_out"]
AnnotationLevel: TypeAlias = Literal["notice", "warning", "failure"]

ANNOTATIONS_A_REQUEST: Final = 50
ACTIONS_MAX: Final = 3
TEXT_CHARACTERS_MAX: Final = 65_535
TITLE_CHARACTERS_MAX: Final = 255
MESSAGE_BYTES_MAX: Final = 64 * 1024
LABEL_CHARACTERS_MAX: Final = 20
ACTION_TEXT_CHARACTERS_MAX: Final = 40
CUT: Final = "\n… (cut: GitHub shows no more)"


class _Part(msgspec.Struct, frozen=True, kw_only=True):
    pass


class Annotation(_Part, frozen=True, kw_only=True):
    """A remark at lines of a file, counted from 1; columns only if both lines are the same."""

    path: str
    start_line: int
    end_line: int
    level: AnnotationLevel
    message: str
    title: str = ""
    raw_details: str = ""
    start_column: int | None = None
    end_column: int | None = None


class CheckAction(_Part, frozen=True, kw_only=True):
    """A button; pressing it sends `identifier` back to us."""

    label: str
    description: str
    identifier: str


class CheckRun(_Part, frozen=True, kw_only=True):
    """One check of a commit. `conclusion` is set if and only if the status is `completed`; texts are Markdown.

    `external_id` is ours: the id of the run, or of the job.
    """

    name: str
    head_sha: str
    status: CheckStatus
    external_id: str
    title: str
    summary: str
    conclusion: Conclusion | None = None
    details_url: str = ""
    started_at_ms: int | None = None
    completed_at_ms: int | None = None
    text: str = ""
    annotations: tuple[Annotation, ...] = ()
    actions: tuple[CheckAction, ...] = ()

    def __post_init__(self) -> None:
        if (self.conclusion is not None) != (self.status == "completed"):
            raise ValueError(f"the check {self.name} is {self.status} with the conclusion {self.conclusion}")


def created(check: CheckRun) -> dict[str, Any]:
    """The body that creates the check, with the first annotations."""
    return {"head_sha": check.head_sha, **changed(check, check.annotations[:ANNOTATIONS_A_REQUEST])}


def changed(check: CheckRun, annotations: Sequence[Annotation] = ()) -> dict[str, Any]:
    """The body that makes an existing check this one and appends `annotations`, at most 50."""
    body: dict[str, Any] = {"name": check.name, "status": check.status, "external_id": check.external_id}
    if check.details_url:
        body["details_url"] = check.details_url
    if check.conclusion is not None:
        body["conclusion"] = check.conclusion
    for name, at_ms in (("started_at", check.started_at_ms), ("completed_at", check.completed_at_ms)):
        if at_ms is not None:
            body[name] = _moment(at_ms)
    if check.actions:
        body["actions"] = [_action(one) for one in check.actions[:ACTIONS_MAX]]
    return {**body, "output": _output(check, annotations)}


def appended(check: CheckRun, count: int) -> dict[str, Any] | None:
    """The body that appends what follows the first `count` annotations; None if nothing does."""
    following = check.annotations[count : count + ANNOTATIONS_A_REQUEST]
    return {"output": _output(check, following)} if following else None


def _output(check: CheckRun, annotations: Sequence[Annotation]) -> dict[str, Any]:
    output: dict[str, Any] = {
        "title": one_line(check.title, TITLE_CHARACTERS_MAX) or check.name,
        "summary": _cut(check.summary),
    }
    if check.text:
        output["text"] = _cut(check.text)
    if annotations:
        output["annotations"] = [_annotation(one) for one in annotations]
    return output


def _annotation(one: Annotation) -> dict[str, Any]:
    start = max(1, one.start_line)
    body: dict[str, Any] = {
        "path": one.path,
        "start_line": start,
        "end_line": max(start, one.end_line),
        "annotation_level": one.level,
        "message": _cut_bytes(one.message) or one.level,
    }
    optional: Mapping[str, str] = {
        "title": one_line(one.title, TITLE_CHARACTERS_MAX),
        "raw_details": _cut_bytes(one.raw_details),
    }
    body.update({name: text for name, text in optional.items() if text})
    if body["start_line"] == body["end_line"] and one.start_column is not None and one.end_column is not None:
        body["start_column"] = max(1, one.start_column)
        body["end_column"] = max(body["start_column"], one.end_column)
    return body


def _action(one: CheckAction) -> dict[str, str]:
    return {
        "label": one_line(one.label, LABEL_CHARACTERS_MAX),
        "description": one_line(one.description, ACTION_TEXT_CHARACTERS_MAX),
        "identifier": one.identifier[:LABEL_CHARACTERS_MAX],
    }


def _cut(text: str) -> str:
    return text if len(text) <= TEXT_CHARACTERS_MAX else text[: TEXT_CHARACTERS_MAX - len(CUT)] + CUT


def _cut_bytes(text: str) -> str:
    return text.encode("utf-8", "replace")[:MESSAGE_BYTES_MAX].decode("utf-8", "ignore")


def _moment(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
