"""What `deltaci doctor` and `deltaci forge` print."""

import html
import json
import re
from typing import Any

import click
import pytest
from click.testing import CliRunner

from deltaci.cli import doctor, forge
from deltaci.cli.api import Api
from deltaci.forge.github_examine import APP_EVENTS, LEVELS, PERMISSIONS

GOOD = {"what": "disk", "is_good": True, "detail": "room", "advice": ""}
BAD = {"what": "webhook", "is_good": False, "detail": "none", "advice": "add\x1b[2J one"}


def printed(monkeypatch: pytest.MonkeyPatch, *words: str, **repos: Any) -> Any:
    def get(_: Api, path: str, **parameters: Any) -> Any:
        assert (path, parameters) == ("/doctor", {"repo": None})
        return {"now_ms": doctor.time.time_ns() // 1_000_000, "server": [GOOD], "repos": repos}

    monkeypatch.setattr(Api, "get", get)
    return CliRunner().invoke(doctor.doctor, [*words, "--server", "http://x"], env={"DELTACI_TOKEN": "t"})


def test_what_is_missing_is_told_with_what_to_do_and_exits_1(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a forge says drives no terminal."""
    result = printed(monkeypatch, shop=[GOOD, BAD])

    assert result.exit_code == 1
    lines = [line.strip() for line in result.output.splitlines()]
    assert lines[-4:] == ["ok  disk: room", "BAD webhook: none", "-> add?[2J one", "1 of 4 are not as they should be"]


def test_when_nothing_is_missing_it_exits_0(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a script, with --json as well."""
    plain = printed(monkeypatch, shop=[GOOD])
    as_json = printed(monkeypatch, "--json", shop=[GOOD])

    assert (plain.exit_code, as_json.exit_code) == (0, 0)
    assert "everything is as it should be" in plain.output
    assert [one["what"] for one in json.loads(as_json.output)["server"]] == ["disk", "clock"]


@pytest.mark.parametrize(
    ("server_ms", "is_good"), [(15_500, True), (21_000, True), (5_000, True), (4_999, False), (21_001, False)]
)
def test_clocks_may_differ_by_what_an_answer_takes_and_5_s(server_ms: int, is_good: bool) -> None:
    """GitHub refuses a token from the future."""
    found = doctor.clocks(server_ms, 10_000, 16_000)

    assert found["is_good"] is is_good
    assert bool(found["advice"]) is not is_good


def test_the_manifest_asks_for_all_that_doctor_looks_for() -> None:
    """An App made from it is one of which doctor has nothing to say."""
    result = CliRunner().invoke(forge.forge, ["manifest", "--url", "https://ci.example.org/"])
    made = json.loads(result.output)

    assert made["hook_attributes"]["url"] == "https://ci.example.org/api/v1/webhooks/github"
    assert set(APP_EVENTS) <= set(made["default_events"])
    granted = made["default_permissions"]
    assert all(LEVELS.index(granted[name]) >= LEVELS.index(level) for name, level in PERMISSIONS.items())


def test_the_page_takes_the_same_manifest_to_github() -> None:
    """To the organisation whose App it is to be."""
    words = ["manifest", "--url", "https://ci.example.org", "--name", "A <b> & c"]
    page = CliRunner().invoke(forge.forge, [*words, "--html", "--organization", "acme"]).output
    plain = CliRunner().invoke(forge.forge, words).output

    (text,) = re.findall("<textarea[^>]*>(.*)</textarea>", page, re.DOTALL)
    assert json.loads(plain) == json.loads(html.unescape(text))
    assert "<b>" not in page
    assert 'action="https://github.com/organizations/acme/settings/apps/new"' in page


@pytest.mark.parametrize("url", ["http://ci.example.org", "https://", "https://me@ci", "https://ci/?a", "ci"])
def test_an_address_that_github_cannot_reach_is_refused(url: str) -> None:
    """Before it stands in an App."""
    with pytest.raises(click.BadParameter, match=r"https://ci\.example\.org"):
        forge.app_manifest(url, "Delta CI")
