"""What the pages tell people to type, to set and to write is there: commands, options, settings, files, links."""

import itertools
import json
import re
import shlex
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click
import pytest

from deltaci.cli import main
from deltaci.cli.forge import app_manifest
from deltaci.cli.runner import runner as pass_on
from deltaci.notifier.channels import Notifications
from deltaci.notifier.channels import load as load_channels
from deltaci.planner.configuration import configure
from deltaci.planner.repository import Files
from deltaci.runner.__main__ import main as run_runner
from deltaci.settings import NOT_SETTINGS, PREFIX, TABLES, Settings, load

ROOT: Final = Path(__file__).parents[2]
PAGES: Final = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
FORGES: Final = tuple(sorted((ROOT / "docs" / "forges").glob("*.md")))
# What the reference runner and the hook read, and what jobs find
OF_OTHERS: Final = re.compile(r"DELTACI_(?:RUN|JOB|ATTEMPT|COMMIT|REF|REPO|SHA|MATRIX|ARTIFACTS|CACHE|RUNNER)\w*")
WORD: Final = re.compile(r"[a-z][a-z-]*")

ids = {"ids": lambda page: page.relative_to(ROOT).as_posix()}


def blocks(page: Path, language: str) -> Iterator[str]:
    """The fenced blocks of a language, those in lists without their indentation."""
    for indent, text in re.findall(rf"^( *)```{language}\n(.*?)^ *```$", page.read_text(), re.DOTALL | re.MULTILINE):
        yield textwrap.dedent(text) if indent else text


def commands(page: Path) -> Iterator[list[str]]:
    """The words of each `deltaci ...` that a block tells to type, without what the shell makes of the rest."""
    for block in blocks(page, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            lexer = shlex.shlex(re.sub(r"\$\([^)]*\)", "X", line), posix=True, punctuation_chars=True)
            lexer.whitespace_split = True
            for is_operator, words in itertools.groupby(lexer, lambda word: set(word) <= set("();<>|&")):
                found = list(words)
                if not is_operator and found[0] == "deltaci":
                    yield found[1:]


def named(text: str) -> Iterator[list[str]]:
    """The words of each `deltaci ...` that stands in a sentence."""
    for found in re.findall(r"`deltaci ([^`|]*)[`|]", text):
        yield found.split()


def resolved(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that `words` begin with, and the rest; a word that is no command of its group fails."""
    command, rest = main, list(words)
    while isinstance(command, click.Group) and rest and WORD.fullmatch(rest[0]):
        below = command.get_command(click.Context(command), rest[0])
        assert below is not None, f"deltaci {' '.join(words)}: there is no {rest[0]!r}"
        command, rest = below, rest[1:]
    if command is pass_on:  # to a program of its own
        command = run_runner
    return command, rest


@pytest.mark.parametrize("page", PAGES, **ids)
def test_every_command_that_a_page_tells_to_type_is_one(page: Path) -> None:
    """Parsed by the command line itself: names, options, values and what must not be left out."""
    for words in commands(page):
        command, rest = resolved(words)
        try:
            command.make_context("deltaci", rest, resilient_parsing=False)
        except click.ClickException as error:
            if "does not exist" in error.message:
                continue  # a directory of the example
            pytest.fail(f"deltaci {' '.join(words)}: {error.format_message()}")


@pytest.mark.parametrize("page", PAGES, **ids)
def test_every_command_that_a_sentence_names_is_one(page: Path) -> None:
    """With the options that are named."""
    for words in named(page.read_text()):
        command, rest = resolved(words)
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        unknown = {word.split("=")[0] for word in rest if word.startswith("--")} - known - {"--help", "--version"}
        assert unknown == set(), f"deltaci {' '.join(words)}"


@pytest.mark.parametrize("page", PAGES, **ids)
def test_every_setting_that_a_page_names_is_one(page: Path) -> None:
    """By its variable, and by its table."""
    fields = {name: set(kind.__struct_fields__) for name, kind in TABLES.items()}
    variables = {f"{PREFIX}{name}".upper() for name in Settings.__struct_fields__ if name not in TABLES}
    variables |= {f"{PREFIX}{table}_{field}".upper() for table, known in fields.items() for field in known}
    text = page.read_text()

    told = {one for one in re.findall(r"DELTACI_[A-Z_]*[A-Z]", text) if not OF_OTHERS.fullmatch(one)}
    settings = re.findall(rf"`({'|'.join(TABLES)})\.(\w+)[` ]", text)

    assert told - variables - NOT_SETTINGS == set()
    assert [f"{table}.{field}" for table, field in settings if field not in fields[table]] == []


@pytest.mark.parametrize("page", PAGES, **ids)
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    """To a file, and to a heading in it."""
    for target, _, heading in re.findall(r"\]\((?!https?:)([^)#\s]*)(#?)([^)\s]*)\)", page.read_text()):
        file = page.parent / target if target else page
        assert file.exists(), f"{page.name} links to {target}"
        if heading:
            headings = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
            assert heading in {re.sub(r"[^\w -]", "", one.lower()).replace(" ", "-") for one in headings}


@pytest.mark.parametrize("page", FORGES, **ids)
def test_the_settings_that_a_forge_takes_are_accepted(page: Path, tmp_path: Path) -> None:
    """As they stand there."""
    found = list(blocks(page, "toml"))
    for number, text in enumerate(found):
        file = tmp_path / f"{number}.toml"
        file.write_text(text)
        load(file, {})

    assert found, f"{page.name} has no settings"


def test_the_manifest_of_the_app_is_the_one_that_is_printed() -> None:
    """Who makes the App by hand gets the same."""
    (text,) = blocks(ROOT / "docs" / "forges" / "github.md", "json")

    assert json.loads(text) == app_manifest("https://ci.example.org", "Delta CI")


@pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")
def test_the_channels_and_rules_of_the_notifications_are_accepted(tmp_path: Path) -> None:
    """And every channel of the rules is one of the file."""
    page = ROOT / "docs" / "notifications.md"
    (channels,), (rules,) = blocks(page, "toml"), blocks(page, "yaml")
    file = tmp_path / "channels.toml"
    file.write_text(channels)

    known = load_channels(Notifications(channels_file=str(file))).names
    configuration = configure(rules.encode(), Files(()))

    assert known == ("ops", "own-program", "team")
    assert [rule.channel for rule in configuration.notify] == ["team", "ops"]
