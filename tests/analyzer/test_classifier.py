"""From real-looking logs to why they failed: one case a tool, and the rules for choosing between them."""

import re
import string
from pathlib import Path
from textwrap import dedent
from typing import NamedTuple

import pytest

from deltaci.analyzer.classifier import (
    EVIDENCE_CHARACTERS_MAX,
    EVIDENCE_LINES_MAX,
    SUMMARY_CHARACTERS_MAX,
    Classification,
    classify,
)
from deltaci.analyzer.rules import CATEGORIES, EXIT_CODES, RULES, TOLD
from deltaci.domain.states import EndReason


def said(
    log: str, *, exit_code: int | None = 1, end_reason: EndReason | None = EndReason.STEP_FAILED
) -> Classification:
    return classify(end_reason, exit_code, dedent(log).strip("\n").split("\n"))


class Case(NamedTuple):
    """One failure of `failures.txt`, where `>` marks the line that must be in the evidence."""

    name: str
    category: str
    exit_code: int
    log: str
    marked: str


def cases() -> list[Case]:
    found = []
    corpus = (Path(__file__).parent / "failures.txt").read_text(encoding="utf-8")
    for block in corpus.split("### ")[1:]:
        head, *lines = block.rstrip("\n").split("\n")
        name, category, code = re.fullmatch(r"(.+): (\S+), exit code (\d+)", head).groups()
        (marked,) = [line[2:] for line in lines if line.startswith(">")]
        found.append(Case(name, category, int(code), "\n".join(line[2:] for line in lines), marked))
    return found


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_each_tool_is_recognised_by_the_line_that_tells(case: Case) -> None:
    """The category says whose turn it is, the evidence why we think so."""
    why = classify(EndReason.STEP_FAILED, case.exit_code, case.log.split("\n"))

    assert case.category == why.category
    assert case.marked in why.evidence


REASONS = (
    (EndReason.JOB_TIMEOUT, "timeout"),
    (EndReason.RUN_TIMEOUT, "timeout"),
    (EndReason.USER_CANCELED, "canceled"),
    (EndReason.CANCEL_DEADLINE, "canceled"),
    (EndReason.SUPERSEDED, "superseded"),
    (EndReason.CLOSED, "canceled"),
    (EndReason.RUNNER_LOST, "infrastructure.runner_lost"),
    (EndReason.NEVER_ACKNOWLEDGED, "infrastructure.runner_lost"),
    (EndReason.RUNNER_STOPPED, "infrastructure.runner_lost"),
    (EndReason.RESTORED, "infrastructure.runner_lost"),
)


@pytest.mark.parametrize(("reason", "category"), REASONS)
def test_an_end_reason_that_tells_everything_beats_the_log(reason: EndReason, category: str) -> None:
    """A job that was stopped prints failures, too; they are not why it ended."""
    why = said("FAILED tests/test_a.py::test_b - assert 1 == 2\nlast words", end_reason=reason, exit_code=None)

    assert (category, 1.0) == (why.category, why.confidence)
    assert why.evidence[-1] == "last words"


@pytest.mark.parametrize(
    ("reason", "log", "category"),
    [
        (EndReason.CHECKOUT_FAILED, "fatal: Could not resolve host: git.example.com", "infrastructure.dns"),
        (EndReason.CHECKOUT_FAILED, "fatal: Authentication failed for 'x'", "tooling.permission"),
        (EndReason.CHECKOUT_FAILED, "", "infrastructure.network"),
        (EndReason.RUNNER_ERROR, "OSError: [Errno 28] No space left on device", "infrastructure.disk"),
        (EndReason.RUNNER_ERROR, "ValueError: x", "infrastructure.runner_lost"),
        (EndReason.RUNNER_ERROR, "FAILED tests/test_a.py::test_b - x", "infrastructure.runner_lost"),
    ],
)
def test_what_failed_before_the_change_had_a_say_is_never_its_fault(reason: EndReason, log: str, category: str) -> None:
    """The author must not be sent looking for a bug in the change."""
    assert category == said(log, end_reason=reason, exit_code=None).category


@pytest.mark.parametrize(
    ("exit_code", "category"),
    [
        (137, "infrastructure.oom"),
        (127, "tooling.missing_command"),
        (126, "tooling.permission"),
        (124, "timeout"),
        (139, "unknown"),
        (1, "unknown"),
        (None, "unknown"),
        (-1, "unknown"),
        (2**40, "unknown"),
    ],
)
def test_without_a_telling_line_the_exit_code_is_all_there_is(exit_code: int | None, category: str) -> None:
    """And the confidence says how little that is."""
    why = said("doing things\n", exit_code=exit_code)

    assert category == why.category
    assert why.confidence <= 0.6
    assert why.evidence == ("doing things",)


def test_the_last_match_of_the_most_important_rule_is_the_evidence() -> None:
    """Reruns come first, final failures last; network noise inside of tests is what the tests are about."""
    why = said(
        """
        FAILED tests/test_a.py::test_first_try - x
        rerunning
        ConnectionError: connection refused
        FAILED tests/test_a.py::test_one - x
        FAILED tests/test_a.py::test_two - x
        curl: (7) Failed to connect: Connection refused
        """
    )

    assert why.category == "user.test"
    assert why.evidence == ("FAILED tests/test_a.py::test_one - x", "FAILED tests/test_a.py::test_two - x")
    assert why.summary == "Test tests/test_a.py::test_two failed."


NOISE_LINES = (
    "Error: Process completed with exit code 1.",
    "##[error]Process completed with exit code 1.",
    "make: *** [Makefile:3: test] Error 2",
    "make[1]: *** [cart.o] Error 1",
    "npm ERR! code ELIFECYCLE",
    "npm error Lifecycle script `test` failed with error:",
    "error Command failed with exit code 1.",
    "ERROR: Job failed: exit code 1",
    "exit status 1",
    "==> test failed with exit code 1",
    'The command "make" exited with 2.',
    "   ",
)


@pytest.mark.parametrize("noise", NOISE_LINES)
def test_closing_lines_are_never_the_evidence(noise: str) -> None:
    """They stand under every failed log and tell nothing of any."""
    why = said(f"what happened\n{noise}\n")

    assert why.evidence == ("what happened",)
    assert (why.category, why.confidence) == ("unknown", 0.1)


def test_times_in_front_of_lines_do_not_hide_what_they_say_and_stay_in_the_evidence() -> None:
    """Many tools and proxies put them there; evidence is the very line."""
    line = "2026-01-02T03:04:05.678Z FAILED tests/test_a.py::test_b - assert 1 == 2"

    why = said(line)

    assert why.category == "user.test"
    assert why.evidence == (line,)


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [""],
        ["\x00"],
        ["x" * 1_000_000],
        ["FAILED tests/" + "a" * 290 + "::" + "b" * 290],
        ["{command} {0} %s {what.__class__}: command not found"],
        ["error: " + "{" * 1_000],
        ["FAILED tests/t.py::x"] * 5_000,
        ["- " * 1_000] * 200,
        ["a.go:1:1: " * 200] * 50,
        ["= 1 failed " * 180] * 50,
    ],
    ids=range(11),
)
@pytest.mark.parametrize("exit_code", [1, 127, 137])
def test_whatever_is_printed_the_answer_is_small(lines: list[str], exit_code: int) -> None:
    """Explanations are stored and shown; a log must not decide how large they are."""
    why = classify(EndReason.STEP_FAILED, exit_code, lines)

    assert why.category in CATEGORIES
    assert len(why.evidence) <= EVIDENCE_LINES_MAX
    assert all(len(line) <= EVIDENCE_CHARACTERS_MAX for line in why.evidence)
    assert 0 < len(why.summary) <= SUMMARY_CHARACTERS_MAX


def test_every_rule_speaks_the_common_language() -> None:
    """Categories are shown, counted and filtered by; a summary must name groups that its expression has."""
    for rule in RULES:
        named = {field for _, field, _, _ in string.Formatter().parse(rule.summary) if field}
        assert rule.category in CATEGORIES
        assert named <= set(rule.expression.groupindex), rule.summary
        assert 0 < rule.confidence < 1
        assert rule.next_step.endswith(".")
    assert {told.category for told in (*TOLD.values(), *EXIT_CODES.values())} <= CATEGORIES


def test_every_end_reason_of_an_attempt_has_an_explanation() -> None:
    """A reason that was added later must not be a crash."""
    for reason in EndReason:
        assert classify(reason, None, []).summary


def test_the_evidence_of_a_failed_unit_test_is_what_its_traceback_comes_down_to() -> None:
    """Rulers and the head of a traceback say nothing; the assertion does."""
    lines = (
        "=" * 70,
        "FAIL: test_total (tests.test_cart.CartTest.test_total)",
        "-" * 70,
        "Traceback (most recent call last):",
        '  File "tests/test_cart.py", line 8, in test_total',
        "    self.assertEqual(6, total([1, 2, 3]))",
        "AssertionError: 6 != 5",
        "",
        "FAILED (failures=1)",
    )

    why = classify(EndReason.STEP_FAILED, 1, lines)

    assert why.evidence == (lines[1], lines[5], lines[6])
