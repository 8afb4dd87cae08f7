"""Repositories for tests that need a real one, made with git's plumbing: any name, mode and shape, no work tree."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

WHO = {
    "PATH": os.environ["PATH"],
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "A",
    "GIT_AUTHOR_EMAIL": "a@example.com",
    "GIT_COMMITTER_NAME": "A",
    "GIT_COMMITTER_EMAIL": "a@example.com",
    "GIT_AUTHOR_DATE": "2020-01-01T00:00:00Z",
    "GIT_COMMITTER_DATE": "2020-01-01T00:00:00Z",
}
EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"


class Bare:
    """A bare repository."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True)
        self.git("init", "-q", "--bare", "-b", "main", "--template=")

    def git(self, *arguments: str, stdin: bytes = b"") -> str:
        # What a test puts into `hooks` is for the planner not to run; the test does not run it either.
        done = subprocess.run(
            ["git", "-c", "core.hooksPath=/dev/null", *arguments],
            cwd=self.path,
            env=WHO,
            input=stdin,
            check=True,
            capture_output=True,
        )
        return done.stdout.decode("utf-8", "replace").strip()

    def blob(self, data: bytes) -> str:
        return self.git("hash-object", "-w", "--stdin", stdin=data)

    def tree(self, *entries: tuple[str, str, bytes]) -> str:
        """A tree object of (mode, id, name), written as it is, also where git would refuse the name."""
        ordered = sorted(entries, key=lambda entry: entry[2] + (b"/" if entry[0] == "40000" else b""))
        data = b"".join(mode.encode() + b" " + name + b"\0" + bytes.fromhex(sha) for mode, sha, name in ordered)
        return self.git("hash-object", "-w", "--literally", "-t", "tree", "--stdin", stdin=data)

    def commit_tree(self, tree: str, *parents: str, message: str = "change") -> str:
        options = [option for parent in parents for option in ("-p", parent)]
        sha = self.git("commit-tree", tree, *options, stdin=message.encode())
        self.git("update-ref", "refs/heads/main", sha)
        return sha

    def commit(self, files: Mapping[str, bytes | str | tuple[str, str]], *parents: str) -> str:
        """A commit with exactly these files: contents, or (mode, contents), or ("160000", commit id)."""
        stream = [f"commit refs/heads/main\ncommitter A <a@example.com> {len(parents)} +0000\ndata 0\n".encode()]
        stream += [f"{'from' if n == 0 else 'merge'} {parent}\n".encode() for n, parent in enumerate(parents)]
        stream.append(b"deleteall\n")
        for path, what in files.items():
            mode, data = what if isinstance(what, tuple) else ("100644", what)
            raw = data.encode() if isinstance(data, str) else data
            quoted = '"' + path.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
            if mode == "160000":
                stream.append(f"M {mode} {raw.decode()} {quoted}\n".encode())
            else:
                stream.append(f"M {mode} inline {quoted}\ndata {len(raw)}\n".encode() + raw + b"\n")
        if not parents:
            stream.insert(0, b"reset refs/heads/main\n")
        self.git("fast-import", "--quiet", "--force", stdin=b"".join(stream) + b"done\n")
        return self.git("rev-parse", "refs/heads/main")
