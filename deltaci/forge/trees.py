"""The exact difference of two commits from their trees: by blob, without contents and without history. Pure."""

from deltaci.forge.api import Changed, RemoteTree


def differing(old: RemoteTree, new: RemoteTree) -> Changed:
    """The paths whose blob or mode is not the same in both trees, sorted; unknown if one of the trees is."""
    for tree in (old, new):
        if tree.entries is None:
            return Changed(paths=None, unknown_because=tree.unknown_because)
    before = {entry.path: (entry.mode, entry.sha) for entry in old.entries or ()}
    after = {entry.path: (entry.mode, entry.sha) for entry in new.entries or ()}
    paths = (path for path in before.keys() | after.keys() if before.get(path) != after.get(path))
    return Changed(paths=tuple(sorted(paths)))
