"""A run fails and the next one mends it: a chat and a mailbox hear of both, once, whatever happens to the server."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.forge.loopback import Say, serving
from tests.notifier.services import a_mail_server
from tests.scenarios.support import Server, running, step, wait_for

pytestmark = pytest.mark.slow

SECRET = "hunter2-of-the-channel"


def owed(server: Server) -> int:
    """How many notifications are owed, refused ones included."""
    with closing(sqlite3.connect(f"file:{server.data / 'deltaci.db'}?mode=ro", uri=True)) as database:
        found: int = database.execute("SELECT count(*) FROM outbox WHERE key LIKE 'notify:%'").fetchone()[0]
        return found


def test_a_chat_and_a_mailbox_hear_of_a_failure_and_of_its_end(tmp_path: Path) -> None:
    """With the explanation. A kill in between doubles nothing, and the secret of the chat is only in its file."""
    with serving(Say(status=503), Say(status=200)) as chat, a_mail_server() as mail:
        channels = tmp_path / "channels.toml"
        mail_to = f"mailto://127.0.0.1:{mail.port}?smtp=127.0.0.1&from=ci@example.org&to=team@example.org&format=text"
        chat_at = chat.url.replace("http://", f"json://ci:{SECRET}@")
        channels.write_text(f'chat = "{chat_at}"\nteam = "{mail_to}"\n')
        settings = {
            "DELTACI_NOTIFICATIONS_CHANNELS_FILE": str(channels),
            "DELTACI_PUBLIC_URL": "https://ci.example.org",
        }
        with running(tmp_path, **settings) as (server, project, _):
            notify = [{"channel": "chat"}, {"channel": "team", "branches": ["main"]}]
            jobs = {"test": {"steps": [step("sh app.sh")]}}
            broken = project.push(
                {
                    "deltaci.yaml": json.dumps({"version": 1, "jobs": jobs, "notify": notify}),
                    "app.sh": "echo 'assertion failed: 1 is not 2' >&2; exit 3\n",
                }
            )
            server.run_until(broken)
            wait_for("the first news", lambda: len(chat.asked) == 2 and len(mail.all) == 1 and owed(server) == 0)
            server.kill()
            server.start()
            mended = project.push({"app.sh": "echo fine\n"}, "Mend it")
            server.run_until(mended)
            wait_for("the second news", lambda: len(chat.asked) == 3 and len(mail.all) == 2 and owed(server) == 0)
            log = server.log.read_text()
            server.assert_sound()

    told = [asked.json() for asked in chat.asked]
    assert [one["title"] for one in told] == ["shop main: FAILED", "shop main: FAILED", "shop main: RECOVERED"]
    assert [letter["subject"] for letter in mail.all] == ["shop main: FAILED", "shop main: RECOVERED"]
    assert "- test: It failed with exit code 3" in told[1]["message"]
    assert told[1]["message"].splitlines()[-1] == f"https://ci.example.org/runs/{broken}"
    assert "Mend it" in mail.all[1].get_content()
    assert SECRET not in log
