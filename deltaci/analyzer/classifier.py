"""From how an attempt ended and what it printed to why it failed. Pure.

Rule 1: an end reason that tells everything beats the log; the log beats the exit code; the exit code beats nothing.
Rule 2: evidence is lines of the log, word for word, and lines that close every failed log are none.
"""

import string
from collections.abc import Sequence
from typing import Final

import msgspec

from deltaci.analyzer.rules import EXIT_CODES, NETWORK, NOISE, PREFIX, RULES, RUNNER_LOST, TOLD, UNKNOWN, Rule, Told
from deltaci.domain.states import EndReason

EVIDENCE_LINES_MAX: Final = 8
EVIDENCE_CHARACTERS_MAX: Final = 500
SUMMARY_CHARACTERS_MAX: Final = 300
LINE_CHARACTERS_MAX: Final = 2_000
TAIL_LINES: Final = 3

# When these are the reason, what the change itself did wrong is not looked for: it had no say yet.
_NOT_BY_THE_CHANGE: Final = {
    EndReason.CHECKOUT_FAILED: Told(
        NETWORK,
        0.6,
        "The commit could not be fetched.",
        "Run the job again; if it stays like this, check the clone URL and the runner's credentials.",
    ),
    EndReason.RUNNER_ERROR: Told(
        RUNNER_LOST, 0.6, "The runner itself failed.", "Look at the runner's own log; the job is run again by itself."
    ),
}


UPSHOT_LINES_MAX: Final = 200
"""How far below a match its traceback may end."""


class Classification(msgspec.Struct, frozen=True, kw_only=True):
    """Why an attempt failed, as far as can be told. `confidence` is between 0 and 1."""

    category: str
    confidence: float
    summary: str
    evidence: tuple[str, ...]
    next_step: str


def classify(end_reason: EndReason | None, exit_code: int | None, lines: Sequence[str]) -> Classification:
    """Why an attempt failed that ended for `end_reason` with `exit_code` and printed `lines`.

    Args:
        lines: the end of the sanitized log; of each no more than 2,000 characters are looked at.
    """
    said = [line[:LINE_CHARACTERS_MAX] for line in lines]
    heard = [PREFIX.sub("", line, count=1) for line in said]
    # Blanked instead of taken out, so that the places of all others stay what they are.
    heard = ["" if any(noise.search(line) for noise in NOISE) else line for line in heard]
    if end_reason is not None and end_reason in TOLD:
        return _from_told(TOLD[end_reason], said, heard)
    if end_reason in _NOT_BY_THE_CHANGE:
        rules: Sequence[Rule] = [rule for rule in RULES if not rule.category.startswith("user.")]
        fallback = _NOT_BY_THE_CHANGE[end_reason]
    else:
        rules = RULES
        fallback = EXIT_CODES.get(exit_code or 0, _nothing(exit_code))
    found = _first_rule(rules, exit_code, heard)
    if found is None:
        return _from_told(fallback, said, heard)
    rule, index = found
    if rule.confidence < fallback.confidence:
        return _from_told(fallback, said, heard)
    return _from_rule(rule, index, said, heard)


def _nothing(exit_code: int | None) -> Told:
    how = "It failed" if exit_code is None else f"It failed with exit code {exit_code}"
    return Told(UNKNOWN, 0.1, f"{how}, and nothing in its log says why.", "Read the end of the log.")


def _first_rule(rules: Sequence[Rule], exit_code: int | None, heard: Sequence[str]) -> tuple[Rule, int] | None:
    for rule in rules:
        if rule.exit_codes and exit_code not in rule.exit_codes:
            continue
        for index in range(len(heard) - 1, -1, -1):
            if heard[index] and rule.expression.search(heard[index]):
                return rule, index
    return None


def _from_rule(rule: Rule, index: int, said: Sequence[str], heard: Sequence[str]) -> Classification:
    match = rule.expression.search(heard[index])
    assert match is not None, "the rule was chosen for this line"
    first = index
    # Matches that follow each other are one list of failures: tell its end, not only its last line.
    while first > 0 and index - first < EVIDENCE_LINES_MAX - 1 and rule.expression.search(heard[first - 1]):
        first -= 1
    near = range(max(0, first - rule.before), min(len(said), index + rule.after + 1))
    chosen = [number for number in near if heard[number]]
    chosen += _upshot(rule, index, heard)
    while len(chosen) > EVIDENCE_LINES_MAX:
        chosen.pop(0 if chosen[0] < index else -1)
    return Classification(
        category=rule.category,
        confidence=rule.confidence,
        summary=_shortened(_filled(rule.summary, match.groupdict()), SUMMARY_CHARACTERS_MAX),
        evidence=_evidence(said, chosen),
        next_step=rule.next_step,
    )


def _upshot(rule: Rule, index: int, heard: Sequence[str]) -> list[int]:
    if rule.upshot is None:
        return []
    for number in range(index + 1, min(len(heard), index + UPSHOT_LINES_MAX)):
        if rule.upshot.search(heard[number]):
            return [one for one in (number - 1, number) if one > index and heard[one]]
    return []


def _from_told(told: Told, said: Sequence[str], heard: Sequence[str]) -> Classification:
    chosen = [number for number in range(len(heard)) if heard[number]][-TAIL_LINES:]
    return Classification(
        category=told.category,
        confidence=told.confidence,
        summary=told.summary,
        evidence=_evidence(said, chosen),
        next_step=told.next_step,
    )


def _filled(template: str, groups: dict[str, str | None]) -> str:
    filled = string.Formatter().vformat(template, (), {name: value or "" for name, value in groups.items()})
    return " ".join(filled.split())


def _evidence(said: Sequence[str], numbers: Sequence[int]) -> tuple[str, ...]:
    return tuple(_shortened(said[number], EVIDENCE_CHARACTERS_MAX) for number in numbers)


def _shortened(text: str, characters_max: int) -> str:
    return text if len(text) <= characters_max else text[: characters_max - 1] + "…"
