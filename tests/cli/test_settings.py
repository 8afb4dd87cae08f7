"""Settings: from a file and the environment, and an error that names what is wrong and what would be right."""

from pathlib import Path

import pytest

from deltaci.domain.errors import ConfigError
from deltaci.forge.settings import GitHubSettings, webhook_secrets
from deltaci.settings import Settings, load


def test_without_anything_the_defaults_hold() -> None:
    """A server starts from one command."""
    settings = load(None, {"PATH": "/bin", "DELTACI_URL": "x", "DELTACI_TOKEN": "y"})

    assert settings == Settings()


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    """The file is for the installation, the environment for this one start."""
    file = tmp_path / "config.toml"
    file.write_text('port = 1\nhost = "::1"\n[policy]\nlease_ttl_ms = 60000\n[limits]\npage_size_max = 7\n')

    settings = load(file, {"DELTACI_PORT": "2", "DELTACI_POLICY_LEASE_TTL_MS": "70000"})

    assert (settings.port, settings.host, settings.policy.lease_ttl_ms) == (2, "::1", 70_000)
    assert settings.limits.page_size_max == 7


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("port = ", "config.toml"),
        ("\x00", "config.toml"),
        ("prot = 1", "prot"),
        ('port = "soon"', "port"),
        ("port = 65536", "port is 65536; give a number from 0 to 65535"),
        ("shutdown_within_s = -1", "shutdown_within_s"),
        ("shutdown_within_s = nan", "shutdown_within_s"),
        ("policy = 3", "policy is a table of settings, not 3"),
        ("[policy]\nlease_ttl = 1", "policy.lease_ttl: no such setting; there are lease_ttl_ms"),
        ("[limits]\nbody_max = 1", "limits.body_max: no such setting"),
        ("[policy]\ntimer_tick_ms = 0", "policy.timer_tick_ms is 0"),
        ("[policy]\nmailbox_size = -5", "policy.mailbox_size is -5"),
        ("[limits]\nbody_bytes_max = 9223372036854775807", "limits.body_bytes_max"),
        ("[policy]\nlease_ttl_ms = 30000", "at most half of it"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, text: str, says: str) -> None:
    """A misspelt limit that is ignored in silence is no limit."""
    file = tmp_path / "config.toml"
    file.write_text(text)

    with pytest.raises(ConfigError) as refused:
        load(file, {})

    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("DELTACI_PROT", "1", "DELTACI_PROT: no such setting; there are host, port"),
        ("DELTACI_POLICY", "1", "DELTACI_POLICY: no such setting"),
        ("DELTACI_POLICY_LEASE_TTL", "1", "no such setting"),
        ("DELTACI_PORT", "eighty", "port"),
        ("DELTACI_LOG_LEVEL", "LOUD", "log_level"),
    ],
)
def test_a_wrong_variable_is_refused(name: str, value: str, says: str) -> None:
    """Whatever begins with our prefix is meant for us."""
    with pytest.raises(ConfigError) as refused:
        load(None, {name: value})

    assert says in str(refused.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """Not a default in its place: somebody wanted those settings."""
    with pytest.raises(ConfigError, match=r"nowhere\.toml"):
        load(tmp_path / "nowhere.toml", {})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[github]\napi_url = "ftp://x"', "github.api_url is not an address"),
        ('[github]\napi_url = "https://me:secret@host"', "github.api_url is not an address"),
        ('[github]\napi_url = ""', "github.api_url is empty"),
        ("[github]\napp_id = 5", "github.app_id and github.private_key_file belong together"),
        ('[github]\nprivate_key_file = "x"', "github.app_id and github.private_key_file belong together"),
        ('[github]\ntoken = "x"', "github.token: no such setting"),
        ('[gitea]\nweb_url = "gitea"', "gitea.web_url is not an address"),
        ('[http]\nproxy = "socks"', "http.proxy is not an address"),
    ],
)
def test_a_forge_that_cannot_be_asked_is_told_at_the_start(tmp_path: Path, text: str, says: str) -> None:
    """Not when the first webhook comes; and nothing of a secret that somebody put there."""
    file = tmp_path / "config.toml"
    file.write_text(text)

    with pytest.raises(ConfigError) as refused:
        load(file, {})

    assert says in str(refused.value)
    assert "secret" not in str(refused.value).replace("webhook_secret_file", "")


def test_the_app_may_be_named_by_number_or_client_id(tmp_path: Path) -> None:
    """GitHub shows both, and takes both."""
    file = tmp_path / "config.toml"
    file.write_text('[github]\napp_id = 5\nprivate_key_file = "k"\n')

    assert load(file, {}).github.app_id == 5
    assert load(file, {"DELTACI_GITHUB_APP_ID": "Iv1.x"}).github.app_id == "Iv1.x"


@pytest.mark.parametrize(
    ("content", "secrets"),
    [("a" * 16, ("a" * 16,)), (f"{'a' * 16}\n\n{'b' * 16}\n", ("a" * 16, "b" * 16))],
)
def test_the_secret_of_webhooks_is_read_from_its_file(tmp_path: Path, content: str, secrets: tuple[str, ...]) -> None:
    """Two lines hold while it is being changed."""
    file = tmp_path / "secret"
    file.write_text(content)

    assert webhook_secrets(GitHubSettings(webhook_secret_file=str(file))) == secrets
    assert webhook_secrets(GitHubSettings()) == ()


@pytest.mark.parametrize("content", [b"", b"short-secret", b"a" * 16 + b"\n" + b"b" * 16 + b"\n" + b"c" * 16, b"\xff"])
def test_a_file_that_holds_no_secret_is_told_at_the_start(tmp_path: Path, content: bytes) -> None:
    """An empty secret would sign everybody's webhooks; what the file holds is not shown."""
    file = tmp_path / "hook"
    file.write_bytes(content)

    with pytest.raises(ConfigError, match=r"github\.webhook_secret_file is") as refused:
        webhook_secrets(GitHubSettings(webhook_secret_file=str(file)))

    assert "short-secret" not in str(refused.value)
    with pytest.raises(ConfigError, match="No such file"):
        webhook_secrets(GitHubSettings(webhook_secret_file=str(tmp_path / "none")))
