"""Settings: from a file and the environment, and an error that names what is wrong and what would be right."""

from pathlib import Path

import pytest

from deltaci.domain.errors import ConfigError
from deltaci.settings import Settings, load


def test_without_anything_the_defaults_hold() -> None:
    """A server starts from one command."""
    settings = load(None, {"PATH": "/bin", "DELTACI_URL": "x", "DELTACI_TOKEN": "y"})

    assert settings == Settings()


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    """The file is for the installation, the environment for this one start."""
    file = tmp_path / "config.toml"
    tables = '[policy]\nlease_ttl_ms = 60000\n[limits]\npage_size_max = 7\n[planner]\nsource = "api"\n'
    file.write_text(f'port = 1\nhost = "::1"\n{tables}')

    settings = load(file, {"DELTACI_PORT": "2", "DELTACI_POLICY_LEASE_TTL_MS": "70000"})

    assert (settings.port, settings.host, settings.policy.lease_ttl_ms) == (2, "::1", 70_000)
    assert (settings.limits.page_size_max, settings.planner.source) == (7, "api")


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
        ('[planner]\nsource = "both"', "planner.source"),
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
