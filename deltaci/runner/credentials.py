"""How git gets to know a credential: in its environment, for one address, for one call.

Rule: not in its arguments, which everybody on the host can read; not in the address, which git keeps; not in a file.
"""

import base64
from collections.abc import Mapping

from deltaci.runner.git import without_credentials
from protocol.messages import CredentialGiven


def environment_for(clone_url: str, credential: CredentialGiven | None) -> Mapping[str, str]:
    """What makes git send `credential` to `clone_url` and to nothing else; nothing if there is none, or no http(s)."""
    if credential is None or not credential.password or not clone_url.startswith(("https://", "http://")):
        return {}
    user = f"{credential.username}:{credential.password}"
    return {
        "GIT_CONFIG_COUNT": "2",
        "GIT_CONFIG_KEY_0": f"http.{without_credentials(clone_url)}.extraHeader",
        "GIT_CONFIG_VALUE_0": f"Authorization: Basic {base64.b64encode(user.encode()).decode('ascii')}",
        # A redirect would carry it to an address that nobody checked.
        "GIT_CONFIG_KEY_1": "http.followRedirects",
        "GIT_CONFIG_VALUE_1": "false",
    }
