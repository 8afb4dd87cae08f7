"""Credentials in a configuration: whoever may read the repository may read them, and git never forgets one.

Rule: what is found is named by its kind and its place, and never repeated.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator
from typing import Final

from deltaci.domain.credentials import CERTAIN, PRIVATE_KEY_MARK
from deltaci.planner.configuration.problems import Problems
from deltaci.planner.configuration.shape import At
from deltaci.planner.yaml_nodes import Fields, Items, Node, Scalar

ADVICE: Final = (
    "whoever may read the repository may read it: revoke it, and give the new one to the job through the environment "
    "of its runner"
)
_TOKEN: Final = re.compile(r"[A-Za-z0-9+/=_-]{32,500}", re.ASCII)
_NAMED_TOKEN: Final = re.compile(r"[A-Za-z0-9+/=_.~-]{20,500}", re.ASCII)
_SECRET_NAME: Final = re.compile(r"(?:TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?|PRIVATE_KEY|API_?KEY|ACCESS_?KEY)$")
_DIGEST: Final = re.compile(r"sha(?:1|256|384|512)[-:=]")
# Bits a character. Names and paths seldom have 4; of 32 random characters of base64, and of 20 lower-case letters and
# digits, one in a thousand has less than these.
_TOKEN_BITS_MIN: Final = 4.1
_NAMED_BITS_MIN: Final = 3.2


def check_for_credentials(root: Node, problems: Problems) -> None:
    """Note every value (and key) of the file that looks like a credential."""
    for key, scalar, name in _scalars(root, ""):
        kind = kind_of(scalar.text, variable=name)
        if kind is not None:
            place = At(scalar.line, scalar.column, key)
            problems.add(place, f"this looks like a credential ({kind}); {ADVICE}")


def kind_of(text: str, *, variable: str | None = None) -> str | None:
    """What kind of credential `text` has in it, or None; `variable`: the name of the environment variable it is for."""
    if PRIVATE_KEY_MARK.search(text):
        return "private key"
    for pattern in CERTAIN:
        if pattern.expression.search(text):
            return pattern.name
    if variable is None or _DIGEST.match(text) or text.startswith("/"):
        return None
    has_all = any(c.islower() for c in text) and any(c.isupper() for c in text) and any(c.isdigit() for c in text)
    if _TOKEN.fullmatch(text) and has_all and _bits(text) >= _TOKEN_BITS_MIN:
        return "random token"
    is_named = _SECRET_NAME.search(variable.upper()) is not None
    has_digit = any(c.isdigit() for c in text)
    if is_named and has_digit and _NAMED_TOKEN.fullmatch(text) and _bits(text) >= _NAMED_BITS_MIN:
        return "value of a variable for secrets"
    return None


def _bits(text: str) -> float:
    """Shannon entropy, bits a character."""
    return -sum(count / len(text) * math.log2(count / len(text)) for count in Counter(text).values())


def _scalars(node: Node, key: str, variable: str | None = None) -> Iterator[tuple[str, Scalar, str | None]]:
    """Every scalar with its key, and the name of the environment variable whose value it is."""
    match node:
        case Scalar():
            yield key, node, variable
        case Items():
            for index, item in enumerate(node.items):
                yield from _scalars(item, f"{key}[{index}]")
        case Fields():
            is_env = key == "env" or key.endswith(".env")
            for name, value in node.fields:
                where = f"{key}.{name.text}" if key else name.text
                yield where, name, None
                yield from _scalars(value, where, name.text if is_env else None)
