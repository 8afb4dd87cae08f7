"""A seeded monorepo of any size, written by `git fast-import`: projects of four ecosystems, with dependencies."""

import os
import random
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

FILES_A_PROJECT = 50
GROUP = 20  # projects that may depend on each other, so that a change touches some and never all
_WHO = "committer Bench <bench@example.com> {} +0000"
_GIT = {"PATH": os.environ["PATH"], "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}
SUFFIXES = {"python": "py", "node": "ts", "go": "go", "rust": "rs"}


def git(directory: Path, *arguments: str, stdin: bytes = b"") -> bytes:
    """What a git command writes."""
    return subprocess.run(
        ["git", *arguments], cwd=directory, env=_GIT, input=stdin, stdout=subprocess.PIPE, check=True
    ).stdout


class Monorepo:
    """A bare repository of `files_count` files. `base` is its first commit; the others are children of it."""

    def __init__(self, directory: Path, files_count: int, seed: int = 1) -> None:
        self.directory = directory
        self._rng = random.Random(seed)
        self.projects = [self._project(number) for number in range(files_count // FILES_A_PROJECT)]
        directory.mkdir(parents=True)
        git(directory, "init", "-q", "--bare", "-b", "main", "--template=")
        self.base = self._commit(self._all())
        git(directory, "repack", "-adq")

    def _project(self, number: int) -> tuple[str, str, int]:
        """(ecosystem, root, number); one of each ecosystem in turn, a few levels deep."""
        ecosystem = ("python", "node", "go", "rust")[number % 4]
        top = "web/packages" if ecosystem == "node" else f"{ecosystem}/area{number // 100:02}"
        return ecosystem, f"{top}/project{number:04}", number

    def _all(self) -> Iterator[tuple[str, str]]:
        yield "README.md", "A monorepo.\n"
        yield "web/package.json", '{"name": "web", "private": true, "workspaces": ["packages/*"]}\n'
        yield "web/package-lock.json", "{}\n"
        for ecosystem, root, number in self.projects:
            manifests = dict(self._manifests(ecosystem, root, number))
            yield from ((f"{root}/{name}", text) for name, text in manifests.items())
            for file in range(FILES_A_PROJECT - len(manifests)):
                folder = f"tests/test_{file}" if file % 5 == 0 else f"src/part{file % 7}/file{file}"
                yield f"{root}/{folder}.{SUFFIXES[ecosystem]}", f"{number} {file} {self._rng.random()}\n"

    def manifest(self, number: int, *, extra: str = "") -> tuple[str, str]:
        """The path and the text of the manifest of a project."""
        ecosystem, root, _ = self.projects[number]
        name, text = self._manifests(ecosystem, root, number)[0]
        return f"{root}/{name}", text + extra

    def _manifests(self, ecosystem: str, root: str, number: int) -> list[tuple[str, str]]:
        first = number - number % GROUP
        others = list(range(first + number % 4, number, 4))[-2:]  # of the same ecosystem, before it
        match ecosystem:
            case "python":
                needs = ", ".join(f'"p{n}"' for n in (*others, "requests>=2", "pydantic"))
                text = f'[project]\nname = "p{number}"\nversion = "1"\ndependencies = [{needs}]\n[tool.ruff]\n'
                return [("pyproject.toml", f"{text}[tool.pytest.ini_options]\n"), ("uv.lock", f"# {number}\n")]
            case "node":
                needs = ", ".join(f'"n{n}": "*"' for n in others)
                scripts = '"test": "vitest", "lint": "eslint .", "build": "tsc"'
                return [
                    ("package.json", f'{{"name": "n{number}", "scripts": {{{scripts}}}, "dependencies": {{{needs}}}}}')
                ]
            case "go":
                replaced = "".join(
                    f"replace example.com/g{n} => {os.path.relpath(self._project(n)[1], root)}\n" for n in others
                )
                return [("go.mod", f"module example.com/g{number}\ngo 1.22\n{replaced}"), ("go.sum", f"{number}\n")]
            case _:
                needs = "".join(f'r{n} = {{ path = "{os.path.relpath(self._project(n)[1], root)}" }}\n' for n in others)
                return [("Cargo.toml", f'[package]\nname = "r{number}"\n[dependencies]\n{needs}'), ("Cargo.lock", "\n")]

    def changed(self, count: int) -> str:
        """A commit in which `count` sources changed, spread over the projects."""
        step = max(1, len(self.projects) // count)
        chosen = [self.projects[(n * step) % len(self.projects)] for n in range(count)]
        files = {}
        for n, (ecosystem, root, _) in enumerate(chosen):
            which = 1 + n // len(self.projects)
            files[f"{root}/src/part{which}/file{which}.{SUFFIXES[ecosystem]}"] = f"{n}\n"
        return self._commit(files.items(), parent=self.base)

    def with_manifest_changed(self) -> str:
        """A commit in which one manifest changed: discovery has to look again."""
        return self._commit([self.manifest(2, extra="\n// changed\n")], parent=self.base)

    def with_lock_changed(self) -> str:
        """A commit in which one lock file changed: cache keys are others."""
        _, root, _ = self.projects[2]
        return self._commit([(f"{root}/go.sum", "changed\n")], parent=self.base)

    def _commit(self, files: Iterable[tuple[str, str]], *, parent: str | None = None) -> str:
        head = f"commit refs/heads/main\n{_WHO.format(0 if parent is None else 1)}\ndata 0\n"
        parts = [head if parent is None else f"reset refs/heads/main\n{head}from {parent}\n"]
        for path, text in files:
            parts.append(f"M 100644 inline {path}\ndata {len(text)}\n{text}\n")
        git(self.directory, "fast-import", "--quiet", "--force", stdin="".join(parts).encode())
        return git(self.directory, "rev-parse", "refs/heads/main").decode().strip()
