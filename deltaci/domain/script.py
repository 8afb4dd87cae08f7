"""What a job does, whoever planned it: its steps, and the files that it leaves behind."""

import msgspec


class Step(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One shell script of a job; `workdir` is relative to the root of the repository."""

    name: str
    run: str
    env: dict[str, str] = {}
    workdir: str = "."


class Artifact(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Files expected after the job: globs relative to the root of the repository."""

    name: str
    paths: tuple[str, ...]


class Reason(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Why a job is in the plan, or is skipped: the rule that decided, the file it looked at, a sentence for people."""

    rule: str
    text: str
    file: str | None = None
