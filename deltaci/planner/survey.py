"""What a plan needs to know of one commit: its files, and the projects that discovery finds in them.

Rule 1: nothing is read before it is asked for; a commit with a configuration needs no discovery.
Rule 2: what is known of a commit that was planned before is used as far as the difference leaves it, and never changes
what is found: a survey from memory and one from nothing are equal.
"""

from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Final

import msgspec

from deltaci.domain.blueprint import Blueprint, digest
from deltaci.forge.local import Change, CommitView, MirrorError, TreeEntry
from deltaci.planner.discovery.discover import discover, fingerprint, is_structural, structure, wanted
from deltaci.planner.discovery.project import MANIFEST_BYTES_MAX
from deltaci.planner.graph import ProjectGraph
from deltaci.planner.remote_view import RemoteView
from deltaci.planner.repository import Entry, Files, RepositoryView
from deltaci.planner.roster import Roster, roster_of

CACHE_BYTES_DEFAULT: Final = 256 * 1024 * 1024
# Measured: an entry with its path, id and places in the index; a project with its edges, and jobs here and in a roster.
_BYTES_A_FILE: Final = 400
_BYTES_A_PROJECT: Final = 9_500
# How a name that is not UTF-8 is shown, and then perhaps like another one.
_INEXACT: Final = "\\x"


class Discovered:
    """What discovery found, and the graph of it."""

    def __init__(self, blueprint: Blueprint) -> None:
        self.blueprint: Final = blueprint
        self.graph: Final = ProjectGraph(blueprint.projects)

    @cached_property
    def digest(self) -> str:
        """That of the blueprint."""
        return digest(self.blueprint)


class Structure(msgspec.Struct, frozen=True):
    """The projects of a commit. `seen` are the files that discovery may look at, with sizes; `read` those it read."""

    seen: Files
    read: frozenset[str]
    discovered: Discovered


class Survey:
    """One commit, as far as it was looked at."""

    def __init__(self, view: RepositoryView) -> None:
        """Nothing is read yet."""
        self.view: Final = view
        self.known_files: Files | None = None
        self.known_seen: Files | None = None
        self.known_structure: Structure | None = None
        self.known_roster: Roster | None = None
        self.blobs: Mapping[str, bytes] = {}

    def files(self) -> Files:
        """Every file of the commit."""
        if self.known_files is None:
            self.known_files = Files(self.view.entries())
        return self.known_files

    def structure(self) -> Structure:
        """The projects. Raises PlanFailed if a manifest cannot be used."""
        if self.known_structure is None:
            if self.known_seen is None:
                self.known_seen = measured(self.view, structure(self.files()))
            seen = self.known_seen
            paths = wanted(seen)
            found = discover(seen, self._read(seen, paths))
            blueprint = Blueprint(fingerprint=fingerprint(seen, paths), projects=found.projects, reasons=found.reasons)
            self.known_structure = Structure(seen, frozenset(paths), Discovered(blueprint))
        return self.known_structure

    def roster(self) -> Roster:
        """The jobs of the projects. Raises as `structure`."""
        if self.known_roster is None:
            self.known_roster = roster_of(self.structure().discovered.graph, self.files())
        return self.known_roster

    def _read(self, seen: Files, paths: Sequence[str]) -> dict[str, bytes]:
        """Contents by path; only of blobs that were not read for the commit before."""
        missing = [path for path in paths if seen.sha(path) not in self.blobs]
        lend(self.view, seen, missing)
        read = self.view.read_many(missing, bytes_max=MANIFEST_BYTES_MAX)
        blobs = {**self.blobs, **{seen.sha(path): data for path, data in read.items()}}
        self.blobs = {seen.sha(path): blobs[seen.sha(path)] for path in paths}
        return {path: self.blobs[seen.sha(path)] for path in paths}


def measured(view: RepositoryView, files: Files) -> Files:
    """`files` with their sizes."""
    lend(view, files, files.paths)
    sizes = view.sizes(files.paths)
    return Files(_sized(entry, sizes.get(entry.path, 0)) for entry in files.entries())


def _sized(entry: Entry, size: int) -> TreeEntry:
    return TreeEntry(path=entry.path, mode=entry.mode, sha=entry.sha, size=size)


def lend(view: RepositoryView, files: Files, paths: Iterable[str]) -> None:
    """Tell a view what is at `paths`, so that it need not list its commit to read them."""
    if isinstance(view, CommitView):
        entries = (files.entry(path) for path in paths)
        view.adopt(TreeEntry(path=e.path, mode=e.mode, sha=e.sha) for e in entries if e is not None)


class _Known(msgspec.Struct, frozen=True, kw_only=True):
    commit_sha: str
    files: Files
    seen: Files | None
    structure: Structure | None
    roster: Roster | None
    blobs: Mapping[str, bytes]
    size: int


def _size(files: Files, structure: Structure | None, blobs: Mapping[str, bytes]) -> int:
    projects = 0 if structure is None else len(structure.discovered.graph.projects)
    return _BYTES_A_FILE * len(files.paths) + _BYTES_A_PROJECT * projects + sum(map(len, blobs.values()))


class Surveys:
    """Surveys of commits, each begun with what is known of the last one of the same repository.

    One commit a repository is kept: the next one, also of another branch, rarely differs by much. The repositories
    that were planned longest ago are forgotten when there is no room for all.
    """

    def __init__(self, bytes_max: int = CACHE_BYTES_DEFAULT) -> None:
        """`bytes_max`: how much is kept, in bytes, by estimate."""
        self._bytes_max = bytes_max
        self._known: OrderedDict[str, _Known] = OrderedDict()

    def of(self, view: CommitView | RemoteView) -> Survey:
        """A survey of a commit, as far as the commit before tells it. Raises as `view.sizes`."""
        survey = Survey(view)
        known = self._known.get(_place(view))
        changes = None if known is None else self._changes(known, view)
        if known is None or changes is None:
            return survey
        entries = {change.path: change.entry for change in changes}
        survey.known_files = known.files.changed(entries) if entries else known.files.fresh()
        survey.blobs = known.blobs
        if known.seen is None:
            return survey
        structural = {path: entry for path, entry in entries.items() if is_structural(path)}
        if not structural:
            survey.known_seen, survey.known_structure = known.seen, known.structure
            survey.known_roster = known.roster and known.roster.after(entries)
            return survey
        there = [path for path, entry in structural.items() if entry is not None]
        lend(view, survey.known_files, there)
        sizes = view.sizes(there)
        sized = {path: e and _sized(e, sizes.get(path, 0)) for path, e in structural.items()}
        survey.known_seen = known.seen.changed(sized)
        if known.structure is not None and _leaves(known.seen, survey.known_seen, known.structure.read, structural):
            survey.known_structure = msgspec.structs.replace(known.structure, seen=survey.known_seen)
            survey.known_roster = known.roster and known.roster.after(entries)
        return survey

    def keep(self, survey: Survey) -> None:
        """Remember what a survey found, also if no plan came of it."""
        view = survey.view
        if not isinstance(view, CommitView | RemoteView) or survey.known_files is None:
            return
        place = _place(view)
        self._known.pop(place, None)
        if isinstance(view, CommitView) and view.is_listed and not view.is_exact:
            return
        known = _Known(
            commit_sha=view.commit_sha,
            files=survey.known_files,
            seen=survey.known_seen,
            structure=survey.known_structure,
            roster=survey.known_roster,
            blobs=survey.blobs,
            size=_size(survey.known_files, survey.known_structure, survey.blobs),
        )
        self._known[place] = known
        total = sum(each.size for each in self._known.values())
        while total > self._bytes_max:
            _, forgotten = self._known.popitem(last=False)
            total -= forgotten.size

    def _changes(self, known: _Known, view: CommitView | RemoteView) -> tuple[Change, ...] | None:
        """From the commit that is known; None if it is cheaper, or safer, to begin with nothing."""
        if known.commit_sha == view.commit_sha:
            return ()
        if isinstance(view, RemoteView):
            return view.changes_from(known.files)
        try:
            changes = view.repository.diff_of_known(known.commit_sha, view.commit_sha)
        except MirrorError:
            return None  # the mirror was fetched anew meanwhile, without that commit
        if changes is None or any(_INEXACT in change.path for change in changes):
            return None
        return changes


def _place(view: CommitView | RemoteView) -> str:
    return view.place if isinstance(view, RemoteView) else str(view.repository.directory)


def _leaves(before: Files, after: Files, read: Collection[str], changed: Mapping[str, object]) -> bool:
    """Whether discovery would find the same: no file came, went or became another kind, nothing read is another."""
    return all(
        before.kind(path) == after.kind(path)
        and before.is_executable(path) == after.is_executable(path)
        and path not in read
        and max(before.size(path), after.size(path)) <= MANIFEST_BYTES_MAX
        for path in changed
    )
