"""What a plan was made from: the projects of a repository, and the fingerprint of the structure that shows them.

Rule: equal fingerprints mean that discovery, asked again, would find the same.
"""

import hashlib
from typing import Final

import msgspec

from deltaci.domain.project import Project
from deltaci.domain.script import Reason


class Blueprint(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """The projects that discovery found, with what it had to say.

    `recipe` is the version of the recipe that the projects were taken from; then they are empty here: it has them.
    """

    fingerprint: str
    projects: tuple[Project, ...] = ()
    reasons: tuple[Reason, ...] = ()
    recipe: int | None = None


_encoder: Final = msgspec.json.Encoder(order="deterministic")


def digest(blueprint: Blueprint) -> str:
    """SHA-256 of the canonical JSON, hex: equal blueprints have equal digests on any machine."""
    return hashlib.sha256(_encoder.encode(blueprint)).hexdigest()
