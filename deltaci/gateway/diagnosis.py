"""What `deltaci doctor` says of this server: from what was seen of it, one finding a look. Pure.

Rule 1: a finding that is bad says what to do; one that is good says what was seen.
Rule 2: no finding holds a secret.
"""

import ipaddress
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final
from urllib.parse import urlsplit

import msgspec

from deltaci.domain.repo import Repo
from deltaci.forge.api import Finding
from deltaci.store.port import Owed, QueuedJob
from deltaci.store.writes import Delivery

LISTED_MAX: Final = 10
# A debt that was tried so often is no hiccup.
TRIES_MIN: Final = 5
HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS
OPEN_MODE: Final = 0o077


class RefusedWebhook(msgspec.Struct, frozen=True, kw_only=True):
    """A webhook that was not accepted: which forge's address it came to, from whom, and why it did not count."""

    forge: str
    sender: str
    text: str
    at_ms: int


def of_address(public_url: str, repos: Sequence[Repo]) -> Finding:
    """Whether forges can reach this server, and people follow its links."""
    what = "public address"
    remote = sorted({repo.forge for repo in repos if repo.forge != "git"})
    advice = "set public_url to the https address at which forges and people reach this server"
    if not public_url:
        detail = f"public_url is not set, and {', '.join(remote)} must reach this server" if remote else "none is set"
        return Finding(what=what, is_good=not remote, detail=detail, advice=advice if remote else "")
    if remote and _is_loopback(public_url):
        detail = f"{public_url} leads nowhere from another machine, and {', '.join(remote)} must reach this server"
        return Finding(what=what, is_good=False, detail=detail, advice=advice)
    if remote and urlsplit(public_url).scheme != "https":
        detail = f"{public_url} is not https: tokens and webhooks can be read on the way"
        return Finding(what=what, is_good=False, detail=detail, advice="put a TLS proxy in front, and " + advice)
    return Finding(what=what, is_good=True, detail=public_url)


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def of_secret_files(modes: Mapping[str, int | None]) -> Iterator[Finding]:
    """Files of secrets that the settings name, by setting, with their modes; None: it cannot be read any more."""
    for setting, mode in sorted(modes.items()):
        if mode is None:
            detail, advice = "its file cannot be read any more", "put it back before the next start"
        elif mode & OPEN_MODE:
            detail, advice = f"its file is open to others (mode {mode & 0o777:04o})", "chmod 600 the file"
        else:
            detail, advice = "", ""
        yield Finding(what=setting, is_good=not detail, detail=detail, advice=advice)


def of_disk(has_room: bool, reserve_bytes: int) -> Finding:
    """Whether logs and artifacts are still accepted."""
    reserve = f"{reserve_bytes // 1024**2} MiB"
    if has_room:
        return Finding(what="disk", is_good=True, detail=f"more than {reserve} are free")
    detail = f"less than {reserve} are free: logs and artifacts have to wait"
    return Finding(what="disk", is_good=False, detail=detail, advice="make room on the disk of the data directory")


def of_runners(online: Sequence[Collection[str]], queued: Sequence[QueuedJob], now_ms: int) -> Iterator[Finding]:
    """Whether somebody executes jobs, and all that wait.

    Args:
        online: the labels of each runner that is online.
    """
    count = f"{len(online)} online" if online else "none is online"
    advice = "start one: `deltaci runner-token create`, then `deltaci runner`" if not online else ""
    yield Finding(what="runners", is_good=bool(online), detail=count, advice=advice)
    if not online:
        return
    waiting: dict[tuple[str, ...], list[QueuedJob]] = {}
    for job in queued:
        if not any(set(job.labels) <= set(labels) for labels in online):
            waiting.setdefault(tuple(sorted(job.labels)), []).append(job)
    for labels, jobs in sorted(waiting.items())[:LISTED_MAX]:
        since = age(now_ms - min(job.queued_at_ms for job in jobs))
        jobs_wait = f"{len(jobs)} job waits" if len(jobs) == 1 else f"{len(jobs)} jobs wait"
        yield Finding(
            what="labels",
            is_good=False,
            detail=f"{jobs_wait}, the oldest for {since}, and no runner that is online has all of {', '.join(labels)}",
            advice="start a runner with these labels, or change those of the jobs",
        )


def of_debts(debts: Sequence[Owed], names: Mapping[str, str]) -> Iterator[Finding]:
    """What could not be told or done: refused for good, or failing again and again; the newest of many.

    Args:
        debts: the outbox, in order of owing.
        names: what each debt is about, by its key, in words.
    """
    refused = [owed for owed in debts if owed.is_refused]
    failing = [owed for owed in debts if not owed.is_refused and owed.tries >= TRIES_MIN]
    if not refused and not failing:
        yield Finding(what="outbox", is_good=True, detail=f"{len(debts)} owed, none refused or failing for long")
    for owed in reversed(refused[-LISTED_MAX:]):
        yield Finding(
            what=f"refused: {names.get(owed.effect.key, owed.effect.key)}",
            is_good=False,
            detail=owed.error,
            advice="mend the cause for what comes next; this one is not tried again by itself",
        )
    for owed in reversed(failing[-LISTED_MAX:]):
        yield Finding(
            what=f"failing: {names.get(owed.effect.key, owed.effect.key)}",
            is_good=False,
            detail=f"tried {owed.tries} times, at last: {owed.error}",
            advice="mend the cause; it is tried again by itself",
        )
    left = max(0, len(refused) - LISTED_MAX) + max(0, len(failing) - LISTED_MAX)
    if left:
        yield Finding(what="outbox", is_good=False, detail=f"and {left} more", advice="mend these first")


def of_refused_webhooks(refused: Sequence[RefusedWebhook], now_ms: int) -> Iterator[Finding]:
    """Webhooks of the last day that did not count, by forge and reason."""
    lately = [one for one in refused if now_ms - one.at_ms <= DAY_MS]
    if not lately:
        yield Finding(what="refused webhooks", is_good=True, detail="none in the last 24 hours")
        return
    kinds: dict[tuple[str, str], list[RefusedWebhook]] = {}
    for one in lately:
        kinds.setdefault((one.forge, one.text), []).append(one)
    for (forge, text), ones in sorted(kinds.items(), key=lambda kind: -len(kind[1]))[:LISTED_MAX]:
        newest = max(ones, key=lambda one: one.at_ms)
        when = f"the last {age(now_ms - newest.at_ms)} ago from {newest.sender}"
        yield Finding(
            what="refused webhooks",
            is_good=False,
            detail=f"{len(ones)} at {forge} in the last 24 hours, {when}: {text}",
            advice="compare name and secret of the repository with the forge's webhook, unless a stranger sent it",
        )


def of_repo(repo: Repo, newest: Delivery | None, *, is_reported: bool, now_ms: int) -> Iterator[Finding]:
    """What can be said of a repository without asking its forge."""
    if repo.removed_because:
        yield Finding(
            what="registration",
            is_good=False,
            detail=f"it is built no more: {repo.removed_because}",
            advice="`deltaci repo set NAME --bring-back` builds it again",
        )
    if newest is None:
        yield Finding(
            what="webhooks received",
            is_good=False,
            detail="none ever came",
            advice=f"send a test from the forge; how to add a webhook: docs/forges/{repo.forge}.md"
            if repo.forge != "git"
            else "push to it; its hook is written by `deltaci repo add`",
        )
    else:
        detail = f"the last one {age(now_ms - newest.received_at_ms)} ago ({newest.event})"
        yield Finding(what="webhooks received", is_good=True, detail=detail)
    if repo.previous_secret:
        yield Finding(
            what="secret",
            is_good=False,
            detail="two are valid",
            advice="`deltaci repo set NAME --drop-previous-secret`, once the forge signs with the new one",
        )
    advice = "" if is_reported else "give it a token or an installation, or --report-to for plain git"
    detail = "are told" if is_reported else "go nowhere"
    yield Finding(what="results", is_good=is_reported, detail=detail, advice=advice)


def age(length_ms: int) -> str:
    """A length of time in its largest unit: `3 days`, `1 hour`, `0 s`."""
    for unit_ms, name in ((DAY_MS, "day"), (HOUR_MS, "hour"), (60_000, "minute")):
        count = max(0, length_ms) // unit_ms
        if count:
            return f"{count} {name}{'s' if count != 1 else ''}"
    return f"{max(0, length_ms) // 1000} s"
