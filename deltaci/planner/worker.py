"""`python -m deltaci.planner.worker`: the process that plans, one commit after the other, for the server at its pipes.

Rule 1: it has nothing to lose: no secret, no network, a bound on memory; the server ends it, with every git that it
started, when a plan takes too long.
Rule 2: it ends by itself as soon as the server does, whatever it is doing.
Rule 3: what is no fault of the commit ends the process, with an exit code that says why: the next plan gets a new one.
"""

import ctypes
import gc
import os
import queue
import resource
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import IO, Final, NoReturn

import msgspec

from deltaci.forge.api import RemoteEntry
from deltaci.forge.git_command import GitError
from deltaci.forge.local import Change, LocalRepository, MirrorDamaged, MirrorError
from deltaci.planner.difference import CONFIGURATION_NAMES, rewritten, too_many_changes
from deltaci.planner.errors import ConfigurationInvalid, PlanFailed, printable
from deltaci.planner.messages import (
    EXIT_CRASHED,
    EXIT_MEMORY,
    EXIT_RECURSION,
    REPLY_BYTES_MAX,
    REQUEST_BYTES_MAX,
    BadFrame,
    Failed,
    Planned,
    Remote,
    Reply,
    Request,
    Start,
    Unreadable,
    Wants,
    framed,
    read_frame,
    request_decoder,
    start_decoder,
)
from deltaci.planner.planner import BaseView, Planner
from deltaci.planner.remote_view import Missing, RemoteView
from deltaci.planner.repository import RepositoryView
from deltaci.planner.survey import Survey, Surveys
from deltaci.planner.working_copy import WorkingCopy

DESCRIPTORS_MAX: Final = 256
PR_SET_PDEATHSIG: Final = 1
# A plan makes hundreds of thousands of small objects that stay: looking through them again and again finds nothing.
_COLLECT_AFTER: Final = 100_000


class Work:
    """Plans what is asked, with what is kept from one plan to the next."""

    def __init__(self, start: Start) -> None:
        self._start = start
        self._planner = Planner(jobs_max=start.jobs_max)
        self._surveys = Surveys(start.cache_bytes_max)

    def reply(self, request: Request) -> Reply:
        """The plan, or why there is none, or what it takes to make it."""
        try:
            return self._plan(request)
        except PlanFailed as error:
            return Failed(
                number=request.number,
                text=error.text,
                problems=error.problems,
                is_configuration=isinstance(error, ConfigurationInvalid),
            )
        except Missing as missing:
            return Wants(
                number=request.number,
                commit_sha=missing.commit_sha,
                paths=missing.paths,
                bytes_max=missing.bytes_max,
            )
        except MirrorError as error:
            return Unreadable(
                number=request.number,
                text=str(error),
                is_retryable=error.is_retryable,
                is_damaged=isinstance(error, MirrorDamaged),
            )
        except (GitError, OSError) as error:  # no descriptors, no space for what goes into git: not the commit's fault
            text = f"could not read commit {request.commit_sha} of repository {request.repo_id}: {error}"
            return Unreadable(number=request.number, text=text, is_retryable=True)

    def _plan(self, request: Request) -> Planned:
        seen = self._on_disk(request) if request.remote is None else self._at_the_forge(request, request.remote)
        try:
            plan, rest, roster = self._planner.make(
                seen.survey,
                seen.changes,
                base_sha=seen.base_sha,
                unknown_because=seen.unknown_because,
                configuration_view=seen.configuration_view,
                base_view=seen.base_view,
                recipe=request.recipe,
                has_a_say=request.has_a_say,
                occasion=request.occasion,
            )
        finally:
            self._surveys.keep(seen.survey)
        told = None if roster is None or roster.number == request.roster else roster.jobs
        return Planned(number=request.number, plan=plan, rest=rest, jobs=told)

    def _on_disk(self, request: Request) -> "_Seen":
        repository = LocalRepository(Path(request.directory), repo_id=request.repo_id, limits=self._start.limits)
        start, changes, unknown_because = difference(repository, request)
        only = request.configuration_sha
        if request.work_tree is None:
            survey = self._surveys.of(repository.view(request.commit_sha))
        else:
            now = WorkingCopy(repository, Path(request.work_tree), request.commit_sha)
            survey = Survey(now)
            changes = None if start is None or changes is None else now.changes(start)
        return _Seen(
            survey=survey,
            changes=changes,
            base_sha=start,
            unknown_because=unknown_because,
            configuration_view=None if only is None else repository.view(only, CONFIGURATION_NAMES),
            base_view=None if start is None else partial(repository.view, start),
        )

    def _at_the_forge(self, request: Request, remote: Remote) -> "_Seen":
        """Raises Missing, as everything that looks at what this answers."""

        def view(commit_sha: str, entries: tuple[RemoteEntry, ...]) -> RemoteView:
            place = f"api:{request.directory}"
            return RemoteView(commit_sha, entries, remote.blobs, place=place, limits=self._start.limits)

        here, start, only = view(request.commit_sha, remote.entries), request.base_sha, request.configuration_sha
        return _Seen(
            survey=self._surveys.of(here),
            changes=None if remote.changed is None else here.changes(remote.changed),
            base_sha=start,
            unknown_because=request.unknown_because,
            configuration_view=None if only is None else view(only, remote.configuration_entries),
            base_view=None if start is None else lambda _paths: view(start, remote.base_entries),
        )


class _Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What a plan is made from, wherever it comes from; see `Planner.make`."""

    survey: Survey
    changes: Sequence[Change] | None
    base_sha: str | None
    unknown_because: str | None
    configuration_view: RepositoryView | None
    base_view: BaseView | None


def _frame(reply: Reply) -> bytes:
    """What to write; a manifest may have a text, written as escapes, that no encoding knows."""
    try:
        frame = framed(reply)
    except UnicodeEncodeError as error:
        shown = printable(str(error.object)[max(0, error.start - 20) : error.end + 20])
        text = f"a manifest names something with half a character (a lone surrogate), near {shown!r}; correct it"
        return framed(Failed(number=reply.number, text=text))
    if len(frame) > REPLY_BYTES_MAX:
        text = (
            f"the plan has {len(frame)} bytes, at most {REPLY_BYTES_MAX} are accepted; describe fewer or smaller jobs"
        )
        return framed(Failed(number=reply.number, text=text))
    return frame


def difference(
    repository: LocalRepository, request: Request
) -> tuple[str | None, tuple[Change, ...] | None, str | None]:
    """The commit to compare with, what changed since, and why that is unknown.

    A push is compared with the commit before it, if that is an ancestor; a pull request with its merge base.
    """
    if request.base_sha is None:
        return None, None, request.unknown_because
    start = repository.merge_base(request.base_sha, request.commit_sha)
    if start is None:
        return None, None, f"{request.base_sha} and {request.commit_sha} have no history in common"
    if not request.is_pull_request and start != request.base_sha:
        return None, None, rewritten(request.base_sha, request.commit_sha)
    changes = repository.diff_of_known(start, request.commit_sha)
    if changes is None:
        return start, None, too_many_changes(repository.limits.changes_max)
    return start, changes, None


def bound(memory_bytes_max: int) -> None:
    """Hold this process, and every one that it starts, to its limits. A hard limit that is lower already stays."""
    for which, most in (
        (resource.RLIMIT_AS, memory_bytes_max),
        (resource.RLIMIT_NOFILE, DESCRIPTORS_MAX),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(which)
        value = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(which, (value, value))


def end_with_parent() -> None:
    """Where the kernel can do it, have it end this process with the server, also in the middle of a long call."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _end_all() -> NoReturn:
    """End this process and the git that it waits for."""
    if os.getpgrp() == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(1)


def _listen(stream: IO[bytes], requests: "queue.SimpleQueue[Request]") -> None:
    """Pass requests on; when the server is gone, so is whatever it asked for."""
    try:
        while (request := read_frame(stream, request_decoder, bytes_max=REQUEST_BYTES_MAX)) is not None:
            requests.put(request)
    except (BadFrame, OSError):
        pass
    _end_all()


def serve(stdin: IO[bytes], stdout: IO[bytes]) -> None:
    """Plan whatever is asked for; ends only with the process."""
    start = read_frame(stdin, start_decoder, bytes_max=REQUEST_BYTES_MAX)
    if start is None:
        return
    bound(start.memory_bytes_max)
    work = Work(start)
    requests: queue.SimpleQueue[Request] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(stdin, requests), daemon=True).start()
    while True:
        request = requests.get()
        try:
            reply = work.reply(request)
            frame = _frame(reply)
        except MemoryError:
            os._exit(EXIT_MEMORY)
        except RecursionError:
            os._exit(EXIT_RECURSION)
        except Exception:  # noqa: BLE001 - a bug: said to the log, and not taken into the next plan
            traceback.print_exc()
            os._exit(EXIT_CRASHED)
        stdout.write(frame)
        stdout.flush()


def main() -> None:
    """The process. Nothing but replies goes to standard output."""
    end_with_parent()
    gc.set_threshold(_COLLECT_AFTER, 20, 100)
    stdout = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    serve(sys.stdin.buffer, stdout)


if __name__ == "__main__":
    main()
