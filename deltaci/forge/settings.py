"""What can be set of each kind of forge, and the secrets that are read from files: once, at the start.

Rule 1: a secret is never a setting: it would be seen in the environment, in a shell's history or in a backup.
Rule 2: what cannot work is said at the start, with the setting's name, and not when the first webhook comes.
"""

from pathlib import Path
from typing import Final

import msgspec

from deltaci.domain.errors import ConfigError, ForgeRejected
from deltaci.forge.client import HttpSettings, base_of
from deltaci.forge.github_access import GITHUB_API_URL
from deltaci.forge.gitlab_api import GITLAB_URL

SECRETS_MAX: Final = 2
SECRET_CHARACTERS_MIN: Final = 16


class GitHubSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`app_id`: the number or client id of our App, whose key is in `private_key_file` (PEM).

    `web_url`: where git clones from, if that is not to be seen from `api_url`. `webhook_secret_file`: the secret of the
    App's webhook; a second line holds the one before, while it is being changed.
    """

    api_url: str = GITHUB_API_URL
    web_url: str = ""
    app_id: str | int = ""
    private_key_file: str = ""
    webhook_secret_file: str = ""


class GitLabSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`web_url`: where people find it; its API is below that."""

    web_url: str = GITLAB_URL


class GiteaSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`web_url`: where people find Gitea or Forgejo; its API is below that."""

    web_url: str = ""


def check(github: GitHubSettings, gitlab: GitLabSettings, gitea: GiteaSettings, http: HttpSettings) -> None:
    """Raise `ConfigError` for what can never work."""
    addresses = {
        "github.api_url": github.api_url,
        "github.web_url": github.web_url,
        "gitlab.web_url": gitlab.web_url,
        "gitea.web_url": gitea.web_url,
    }
    for setting, address in addresses.items():
        try:
            if address:
                base_of(address, asked="start")
        except ForgeRejected as error:
            raise ConfigError(f"{setting} is not an address of the form https://host/path, without a name") from error
    if not github.api_url:
        raise ConfigError(f"github.api_url is empty; give an address, or leave it away for {GITHUB_API_URL}")
    if bool(github.app_id) != bool(github.private_key_file):
        raise ConfigError("github.app_id and github.private_key_file belong together: give both, or neither")
    if http.proxy and not http.proxy.startswith(("http://", "https://")):
        raise ConfigError("http.proxy is not an address of the form http://host:port")


def webhook_secrets(github: GitHubSettings) -> tuple[str, ...]:
    """The secrets that sign the App's webhooks, the current one first; none if no file is set."""
    if not github.webhook_secret_file:
        return ()
    setting = f"github.webhook_secret_file is {github.webhook_secret_file!r}"
    try:
        text = Path(github.webhook_secret_file).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{setting}: {error.strerror}") from error
    except UnicodeDecodeError:
        raise ConfigError(f"{setting}: it is not a text file") from None
    secrets = tuple(line.strip() for line in text.splitlines() if line.strip())
    if not 1 <= len(secrets) <= SECRETS_MAX or any(len(one) < SECRET_CHARACTERS_MIN for one in secrets):
        raise ConfigError(
            f"{setting}: give one line, or two while changing it, of {SECRET_CHARACTERS_MIN} characters or more each"
        )
    return secrets
