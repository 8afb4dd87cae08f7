"""What a secret looks like when nobody told us its value: a table of shapes.

Rule 1: every expression is linear. No repetition stands inside another one; one without an upper bound never gives back
        what it took, or is the last thing, where nothing can fail after it; all others are bounded.
Rule 2: what must stay readable is in the group `keep`, in front of the secret; all the rest is masked.
Rule 3: masking is idempotent: a mask is never taken for a secret that needs another one.
"""

import re
from typing import Final, NamedTuple

MASK: Final = "***"


class Pattern(NamedTuple):
    """A kind of secret, and the expression that finds it.

    `is_certain`: its shape is that of a credential and of nothing else, whatever stands around it.
    """

    name: str
    expression: re.Pattern[str]
    is_certain: bool = False


def _pattern(name: str, expression: str) -> Pattern:
    return Pattern(name, re.compile(expression, re.ASCII))


def _certain(name: str, expression: str) -> Pattern:
    return Pattern(name, re.compile(expression, re.ASCII), is_certain=True)


_KEY: Final = (
    r"(?:pass(?:word|wd|phrase)|pwd|secret|token|credentials?"
    r"|(?:api|access|account|private|auth|signing|encryption)[_-]?key)"
)
_KEYED_VALUE: Final = r"(?:\"[^\"\n]{1,400}\"|'[^'\n]{1,400}'|[^\s\"'&,;]{3,})"

PATTERNS: Final[tuple[Pattern, ...]] = (
    _certain("github", r"(?:gh[pousr]_|github_pat_)[A-Za-z0-9_]{20,}"),
    _certain("gitlab", r"gl(?:pat|dt|rt|cbt|ptt|ft|imt|agent|soat|ffct|oas)-[A-Za-z0-9_.-]{16,}"),
    _certain("aws key id", r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}"),
    _certain("slack", r"xox[abeoprs](?:\.xox[bp])?-[A-Za-z0-9-]{10,}"),
    _certain("slack webhook", r"(?P<keep>\bhooks\.slack\.com/(?:services|workflows|triggers)/)[A-Za-z0-9/_-]{8,}"),
    _pattern("json web token", r"\beyJ[A-Za-z0-9_.=-]{20,}"),
    _certain("npm", r"npm_[A-Za-z0-9]{30,}"),
    _pattern("npmrc", r"(?P<keep>:_(?:authToken|auth|password)[ \t]{0,8}=[ \t]{0,8})[^\s]{4,}"),
    _certain("pypi", r"pypi-[A-Za-z0-9_-]{16,}"),
    _certain("crates", r"\bcio[A-Za-z0-9]{32,}"),
    _certain("docker", r"dckr_(?:pat|oat)_[A-Za-z0-9_-]{20,}"),
    _certain("stripe", r"[rs]k_(?:live|test)_[A-Za-z0-9]{16,}"),
    _certain("google", r"AIza[A-Za-z0-9_-]{35}"),
    _certain("google oauth", r"ya29\.[A-Za-z0-9_.-]{20,}"),
    _certain("sendgrid", r"\bSG\.[A-Za-z0-9_.-]{20,}"),
    _certain("digitalocean", r"do[opr]_v1_[a-f0-9]{40,}"),
    _certain("vault", r"\bhv[bs]\.[A-Za-z0-9_-]{20,}"),
    _certain("hugging face", r"\bhf_[A-Za-z0-9]{30,}"),
    _pattern("sk-", r"\bsk-[A-Za-z0-9_-]{20,}"),
    _pattern("url", r"(?P<keep>://[^\s/@:?#\"']{0,100}:)[^\s/@\"']{1,400}(?=@)"),
    _pattern("url token", r"(?P<keep>://)[^\s/@:?#\"'*]{16,400}(?=@)"),
    _pattern(
        "authorization",
        r"(?P<keep>(?i:\bauthorization)[\"']?[ \t]{0,8}[:=][ \t]{0,8}[\"']?"
        r"(?:(?i:basic|bearer|token|digest)[ \t]{1,8})?)[^\s\"']{3,}",
    ),
    _pattern("bearer", r"(?P<keep>\b(?i:bearer)[ \t]{1,8})[A-Za-z0-9._~+/=-]{12,}"),
    _pattern("basic", r"(?P<keep>\b(?i:basic)[ \t]{1,8})[A-Za-z0-9+/]{20,}"),
    _pattern("netrc", r"(?P<keep>\blogin[ \t]{1,8}[^\s]{1,100}[ \t]{1,8}password[ \t]{1,8})[^\s]{1,}"),
    _pattern(
        "key = value",
        rf"(?P<keep>(?i:{_KEY})[A-Za-z0-9_]{{0,20}}[\"']?[ \t]{{0,8}}(?:=>|:=|=|:)[ \t]{{0,8}}){_KEYED_VALUE}",
    ),
    _pattern("option", rf"(?P<keep>--[a-z-]{{0,30}}(?i:{_KEY})[ \t]{{1,8}}){_KEYED_VALUE}"),
)

PRIVATE_KEY_MARK: Final = re.compile(r"-----(?P<edge>BEGIN|END) [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----", re.ASCII)
PRIVATE_KEY_LINES_MAX: Final = 400
PRIVATE_KEY_RUN: Final = re.compile(r"[A-Za-z0-9+/=]{20}", re.ASCII)
PRIVATE_KEY_BODY: Final = re.compile(r"\s{0,40}(?:[A-Za-z0-9+/=]{8,}+|[A-Za-z-]{1,40}: [^\n]{0,200})\s{0,8}", re.ASCII)


CERTAIN: Final = tuple(pattern for pattern in PATTERNS if pattern.is_certain)


def masked(text: str) -> str:
    """`text` without what is certainly a credential, for messages that quote what somebody wrote."""
    for pattern in CERTAIN:
        text = pattern.expression.sub(lambda match: (match.groupdict().get("keep") or "") + MASK, text)
    return text
