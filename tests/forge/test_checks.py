"""Checks as GitHub takes them: everything within its limits, whatever a job says."""

from typing import Any

import pytest

from deltaci.forge.checks import (
    CUT,
    MESSAGE_BYTES_MAX,
    TEXT_CHARACTERS_MAX,
    Annotation,
    CheckAction,
    CheckRun,
    appended,
    changed,
    created,
)
from tests.forge.hooks import NEW


def a_check(**fields: Any) -> CheckRun:
    given = {"name": "deltaci/test", "head_sha": NEW, "status": "queued", "external_id": "job_1", "title": "Waiting"}
    return CheckRun(**{**given, "summary": "", **fields})


def an_annotation(number: int = 1, **fields: Any) -> Annotation:
    given = {"path": "a.py", "start_line": number, "end_line": number, "level": "failure", "message": f"no. {number}"}
    return Annotation(**{**given, **fields})


def test_a_check_is_said_with_what_it_has_and_nothing_else() -> None:
    """GitHub takes an empty address or time for a wrong one."""
    assert created(a_check()) == {
        "head_sha": NEW,
        "name": "deltaci/test",
        "status": "queued",
        "external_id": "job_1",
        "output": {"title": "Waiting", "summary": ""},
    }
    ended = a_check(status="completed", conclusion="success", started_at_ms=1_999, completed_at_ms=3_000)
    assert (changed(ended)["started_at"], changed(ended)["completed_at"]) == (
        "1970-01-01T00:00:01Z",
        "1970-01-01T00:00:03Z",
    )


def test_what_is_too_long_is_cut() -> None:
    """A log of a megabyte must not cost the result."""
    check = a_check(
        title="t" * 300,
        summary="s" * 70_000,
        text="x" * 70_000,
        actions=tuple(CheckAction(label="l" * 30, description="d" * 50, identifier="i" * 30) for _ in range(5)),
        annotations=(an_annotation(message="é" * MESSAGE_BYTES_MAX, title="t" * 300, raw_details="r" * 70_000),),
    )

    body = created(check)

    output, (annotation,) = body["output"], body["output"]["annotations"]
    assert (len(output["title"]), len(output["summary"]), len(output["text"])) == (255, TEXT_CHARACTERS_MAX, 65_535)
    assert output["summary"].endswith(CUT)
    assert [[len(text) for text in one.values()] for one in body["actions"]] == [[20, 40, 20]] * 3
    assert len(annotation["message"].encode()) == MESSAGE_BYTES_MAX
    assert (len(annotation["title"]), len(annotation["raw_details"])) == (255, MESSAGE_BYTES_MAX)


def test_lines_and_columns_are_made_such_as_github_takes_them() -> None:
    """A tool that counts from 0, or backwards, is no reason to lose the rest."""
    wild = an_annotation(start_line=0, end_line=-3, start_column=0, end_column=-1)
    long = an_annotation(start_line=3, end_line=5, start_column=1, end_column=2)

    first, second = changed(a_check(), (wild, long))["output"]["annotations"]

    assert [first[name] for name in ("start_line", "end_line", "start_column", "end_column")] == [1, 1, 1, 1]
    assert "start_column" not in second


def test_annotations_go_on_where_they_were() -> None:
    """Fifty at a time, in order, until there are no more."""
    check = a_check(annotations=tuple(an_annotation(number) for number in range(1, 121)))

    batches = [created(check), appended(check, 50), appended(check, 100)]

    lines = [[one["start_line"] for one in body["output"]["annotations"]] for body in batches if body]
    assert lines == [list(range(1, 51)), list(range(51, 101)), list(range(101, 121))]
    assert appended(check, 120) is None


@pytest.mark.parametrize(("status", "conclusion"), [("completed", None), ("queued", "success")])
def test_a_check_has_a_conclusion_when_it_is_over(status: str, conclusion: str | None) -> None:
    """GitHub would make it completed, or refuse it."""
    with pytest.raises(ValueError, match="deltaci/test is"):
        a_check(status=status, conclusion=conclusion)
