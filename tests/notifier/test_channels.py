"""Channels over real sockets: what is sent, what an answer means, and that an address stays a secret."""

import io
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from deltaci.domain.errors import ConfigError, ForgeRejected, ForgeUnavailable
from deltaci.notifier.channels import Channels, Notifications, load
from deltaci.notifier.message import Message
from tests.forge.loopback import Say, serving
from tests.notifier.services import a_mail_server

pytestmark = [
    pytest.mark.anyio,
    # A module of Python that the library looks at for pictures, which we never send
    pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning"),
]

SECRET = "hunter2-of-the-channel"
MESSAGE = Message(title="shop #12: FAILED", body="1 of 2 jobs failed.\n- test: <b>x</b> & y", kind="failure")


def channels(tmp_path: Path, text: str, *, within_ms: int = 20_000) -> Channels:
    file = tmp_path / "channels.toml"
    file.write_text(text)
    return load(Notifications(channels_file=str(file), within_ms=within_ms))


def at(url: str, path: str = "") -> str:
    return f'ops = "{url.replace("http://", f"json://ci:{SECRET}@")}{path}"\n'


async def test_a_chat_gets_title_text_and_kind(tmp_path: Path) -> None:
    """As they are: what a repository says is text, whatever it looks like."""
    with serving(Say(status=200)) as chat:
        await channels(tmp_path, at(chat.url)).send("ops", MESSAGE)

    (asked,) = chat.asked
    told = asked.json()
    assert (MESSAGE.title, MESSAGE.body, "failure") == (told["title"], told["message"], told["type"])


async def test_a_letter_is_written(tmp_path: Path) -> None:
    """With the title as its subject."""
    with a_mail_server() as mail:
        address = f"mailto://127.0.0.1:{mail.port}?smtp=127.0.0.1&from=ci@example.org&to=team@example.org&format=text"
        await channels(tmp_path, f'team = "{address}"\n').send("team", MESSAGE)

    (letter,) = mail.all
    assert MESSAGE.title == letter["subject"]
    assert "team@example.org" in letter["to"]
    assert MESSAGE.body.split() == letter.get_content().split()


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (302, ForgeRejected),
        (401, ForgeRejected),
        (404, ForgeRejected),
        (408, ForgeUnavailable),
        (429, ForgeUnavailable),
        (503, ForgeUnavailable),
    ],
)
async def test_what_will_not_change_is_refused_and_all_else_tried_again(
    tmp_path: Path, status: int, kind: type[Exception]
) -> None:
    """A redirect is not followed: it could carry the secret to somebody else."""
    answer = Say(status=status, body=SECRET.encode(), headers={"location": "/elsewhere"})
    with serving(answer) as chat, pytest.raises(kind) as caught:
        await channels(tmp_path, at(chat.url)).send("ops", MESSAGE)

    assert len(chat.asked) == 1
    assert f"channel 'ops': its service answered {status}" in str(caught.value)


@pytest.fixture
def root_log() -> Iterator[io.StringIO]:
    """What a handler of the whole process writes; pytest's own listens also where nothing is passed on."""
    text, root = io.StringIO(), logging.getLogger()
    handler, level = logging.StreamHandler(text), root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield text
    root.removeHandler(handler)
    root.setLevel(level)


async def test_an_address_is_in_no_error_and_no_log(tmp_path: Path, root_log: io.StringIO) -> None:
    """Whatever goes wrong with it, at the start or later."""
    errors = []
    for text in (f'ops = "slack://{SECRET}"', f'ops = "{SECRET}', f'ops = "nothing://{SECRET}"'):
        with pytest.raises(ConfigError) as caught:
            channels(tmp_path, text)
        errors.append(caught.value)
    with serving(Say(status=404, body=SECRET.encode())) as chat:
        for address in (at(chat.url), at("http://127.0.0.1:1")):
            with pytest.raises((ForgeRejected, ForgeUnavailable)) as failed:
                await channels(tmp_path, address).send("ops", MESSAGE)
            errors.append(failed.value)

    said = [str(error) for error in errors]
    assert all("ops" in one or "is not TOML" in one for one in said)
    assert not any(SECRET in one for one in (*said, root_log.getvalue()))


async def test_a_service_that_never_answers_is_left(tmp_path: Path) -> None:
    """The debt is put off; the thread ends with the socket's own limit."""
    with serving(Say(hangs=True)) as chat:
        with pytest.raises(ForgeUnavailable, match="no answer within 100 ms"):
            await channels(tmp_path, at(chat.url), within_ms=100).send("ops", MESSAGE)

        chat.is_over.set()


async def test_a_channel_that_nobody_named_is_refused(tmp_path: Path) -> None:
    """A misspelt channel that is ignored in silence is none; those that there are help to see the mistake."""
    known = channels(tmp_path, 'ops = "json://127.0.0.1:1"\nteam = ["json://127.0.0.1:1", "json://127.0.0.1:2"]\n')

    with pytest.raises(ForgeRejected, match="no such channel; it has ops, team"):
        await known.send("opps", MESSAGE)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('"a b" = "json://x"', "1 to 64 letters"),
        ("ops = 3", 'give "address"'),
        ("ops = []", 'give "address"'),
        ('ops = ["json://x", "nope://y"]', "address 2 is of no known kind"),
    ],
)
def test_a_wrong_file_is_refused_at_the_start(tmp_path: Path, text: str, says: str) -> None:
    """And not weeks later, when a run fails."""
    with pytest.raises(ConfigError, match=says):
        channels(tmp_path, text)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """With the setting that names it."""
    with pytest.raises(ConfigError, match=r"notifications.channels_file .*gone: No such file"):
        load(Notifications(channels_file=str(tmp_path / "gone")))
