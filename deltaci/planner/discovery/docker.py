"""Images: whether each Dockerfile builds, for what it packs.

Rule 1: an image among the files of other projects owns none of them: it only reads what it copies.
Rule 2: nothing is built that cannot be in a fresh checkout: templates, images of Windows, those whose base is named by
the caller, and those that pack what has to be built first.
Rule 3: which directory is the context is judged by the names of what is copied; in doubt it is the Dockerfile's own.
"""

import json
import re
import shlex
from bisect import bisect_left
from collections.abc import Iterator
from typing import Final

import msgspec

from deltaci.domain.plan import Reason, Step
from deltaci.domain.project import Project, ProjectJob
from deltaci.planner.discovery.native import is_within
from deltaci.planner.discovery.others import Found, Roots
from deltaci.planner.discovery.own_ci import OwnCi
from deltaci.planner.discovery.project import Tree, inside, join, parent
from deltaci.planner.errors import printable
from deltaci.planner.globs import GlobInvalid, Globs

SOURCES: Final[frozenset[str]] = frozenset()
MANIFESTS: Final = ("Dockerfile", "Dockerfile.*", "*.Dockerfile", "*.dockerfile", "Containerfile")
STRUCTURE: Final = (*MANIFESTS, ".dockerignore", "*.dockerignore")
# More projects than this that one image copies count as the whole repository.
PACKED_MAX: Final = 50
SOURCES_MAX: Final = 50
LEVELS_MAX: Final = 6
_NOT_DOCKERFILES: Final = (
    *(".dockerignore", ".j2", ".jinja", ".jinja2", ".tmpl", ".tpl", ".template", ".in", ".erb", ".mustache", ".hbs"),
    *(".orig", ".rej", ".bak", ".old", ".disabled", ".swp", ".md", ".txt", ".sh", ".py", ".yml", ".yaml"),
)
_TEMPLATE_MARKS: Final = ("{{", "{%", "<%")
_INSTRUCTION: Final = re.compile(r"[ \t]*+(FROM|ARG|COPY|ADD|RUN)[ \t]++(.*)", re.IGNORECASE | re.DOTALL)
_HEREDOC: Final = re.compile(r"<<-?[\"']?([A-Za-z_]\w{0,50})")
_MOUNT: Final = re.compile(r"--mount=(\S+)")
_VARIABLE: Final = re.compile(r"\$(?:\{(\w++)(:-)?|(\w++))")
# Arguments that the builder sets by itself.
_PREDEFINED: Final = frozenset(
    f"{where}{what}" for where in ("BUILD", "TARGET") for what in ("PLATFORM", "OS", "ARCH", "VARIANT")
)
_WINDOWS: Final = re.compile(r"windows/|nanoserver|servercore", re.IGNORECASE)
_BUILT_FIRST: Final = re.compile(
    r"(?:target|dist|\.build|_output|\.next|publish|build/(?:libs|distributions|install)|bin/(?:Debug|Release))(?:/|$)"
)
_TRIAL: Final = re.compile(
    r"(?:^|[/_.-])(?:e2e|tests?|testdir|testdata|testing|fixtures?|devtools|devcontainers?|ci)(?:$|[/_.-])",
    re.IGNORECASE,
)
# By its own name.
_ASIDE: Final = re.compile(
    r"(?:^|[_.-])(?:ci|dev|develop|debug|tests?|e2e|bench|fuzz|gitpod|snapcraft|nightly|canary)(?:$|[_.-])",
    re.IGNORECASE,
)
_RUNS_BUILD: Final = re.compile(r"docker|podman|buildah|kaniko|buildx|\bimages?\b|goreleaser|\bbake\b", re.IGNORECASE)
_WILDCARD: Final = re.compile(r"[*?\[]")


class _Dockerfile(msgspec.Struct, frozen=True, kw_only=True):
    """What it copies from its context, as written; or why it cannot be built as it is, as half a sentence."""

    sources: tuple[str, ...] = ()
    why_not: str | None = None


class _Image(msgspec.Struct, frozen=True, kw_only=True):
    """A Dockerfile with the directory that is its context, and what it reads, from the root of the repository."""

    path: str
    context: str
    reads: frozenset[str]


def wanted(_tree: Tree, manifests: list[str]) -> list[str]:
    """The files to read before `find` can tell."""
    ignored = [join(parent(path), ".dockerignore") for path in manifests]
    return [*(path for path in manifests if _is_dockerfile(path)), *ignored, ".dockerignore"]


def find(tree: Tree, manifests: list[str], roots: Roots) -> Found:
    """One project for each directory with Dockerfiles that can be built."""
    ci = OwnCi(tree)
    is_built_elsewhere = bool(roots) and not ci.is_empty and not ci.runs(_RUNS_BUILD)
    images: dict[str, list[_Image]] = {}
    unused: list[tuple[str, str]] = []
    for path in manifests:
        if not _is_dockerfile(path):
            continue
        is_aside = _TRIAL.search(parent(path)) is not None or _ASIDE.search(path.rpartition("/")[2]) is not None
        read = _Dockerfile(why_not="it is there to develop or test with") if is_aside else _read(tree.text(path))
        if read.why_not is None and not read.sources and _is_aside(parent(path), roots):
            read = _Dockerfile(why_not="it packs nothing of the repository")
        if read.why_not is None and is_built_elsewhere:
            read = _Dockerfile(why_not="the repository's own CI builds none")
        if read.why_not is None:
            images.setdefault(parent(path), []).append(_image(tree, path, read.sources, roots))
        else:
            unused.append((path, read.why_not))
    projects = tuple(_project(tree, root, found, roots) for root, found in sorted(images.items()))
    return Found(projects=projects, reasons=tuple(_told(unused)))


def _is_aside(directory: str, roots: Roots) -> bool:
    """Whether a directory is in no project but the root's, where there are projects: images there are to build in."""
    return bool(roots) and directory != "." and roots.nearest(directory) in (None, ".")


def _told(unused: list[tuple[str, str]]) -> Iterator[Reason]:
    by_why: dict[str, list[str]] = {}
    for path, why in unused:
        by_why.setdefault(why, []).append(path)
    for why, paths in sorted(by_why.items()):
        shown = ", ".join(printable(path) for path in paths[:3]) + (", ..." if len(paths) > 3 else "")
        text = f"no image is built of {shown} ({len(paths)} in all): {why}"
        yield Reason(rule="image-unused", file=paths[0], text=text)


def _is_dockerfile(path: str) -> bool:
    return not path.endswith(_NOT_DOCKERFILES)


# ---- what a Dockerfile says ----------------------------------------------------------------------------------------


def _read(text: str) -> _Dockerfile:
    if any(mark in text for mark in _TEMPLATE_MARKS):
        return _Dockerfile(why_not="it looks like a template")
    defaults: dict[str, str] = dict.fromkeys(_PREDEFINED, "")
    values: dict[str, str] = {}
    sources: dict[str, None] = {}
    has_base = False
    for instruction, arguments in _instructions(text):
        if instruction == "ARG":
            given = dict(each.partition("=")[::2] for each in arguments.split() if "=" in each)
            (values if has_base else defaults).update(given)
        elif instruction == "FROM":
            has_base = True
            image = next((word for word in arguments.split() if not word.startswith("--")), "")
            for variable in _VARIABLE.finditer(image):
                if not variable[2] and (variable[1] or variable[3]) not in defaults:
                    return _Dockerfile(why_not="its base is an argument without a default")
            if _WINDOWS.search(image) is not None:
                return _Dockerfile(why_not="it needs Windows")
        elif instruction in ("COPY", "ADD"):
            sources.update(dict.fromkeys(_valued(source, values) for source in _copied(arguments)))
        elif instruction == "RUN":
            sources.update(dict.fromkeys(_mounted(arguments)))
    if not has_base:
        return _Dockerfile(why_not="it has no FROM")
    if any(_BUILT_FIRST.match(source.removeprefix("./").lstrip("/")) is not None for source in sources):
        return _Dockerfile(why_not="it copies what has to be built first")
    # Each source is looked for in each directory above: beyond this many, all is taken to be copied.
    return _Dockerfile(sources=tuple(sources) if len(sources) <= SOURCES_MAX else (".",))


def _valued(source: str, values: dict[str, str]) -> str:
    """A source that is one variable as a whole, with the default that the Dockerfile gives it."""
    variable = _VARIABLE.match(source)
    if variable is None or variable[2] or source not in (f"${{{variable[1]}}}", f"${variable[3]}"):
        return source
    return values.get(variable[1] or variable[3], source).strip("\"'")


def _instructions(text: str) -> Iterator[tuple[str, str]]:
    """Instructions with their arguments on one line; comments and the bodies of here-documents are left out."""
    parts: list[str] = []
    heredocs: list[str] = []
    for line in text.split("\n"):
        stripped = line.strip()
        if heredocs:
            if stripped == heredocs[0]:
                heredocs.pop(0)
            continue
        if stripped.startswith("#") or not stripped:
            continue
        is_continued = stripped.endswith("\\")
        parts.append(stripped[:-1] if is_continued else stripped)
        if is_continued:
            continue
        match = _INSTRUCTION.match(" ".join(parts))
        if match is not None:
            if match[1].upper() in ("RUN", "COPY", "ADD"):
                heredocs = _HEREDOC.findall(match[2])[:10]
            yield match[1].upper(), match[2]
        parts = []


def _copied(arguments: str) -> list[str]:
    """The sources of a COPY or ADD that come from the context."""
    words = arguments.split()
    while words and words[0].startswith("--"):
        if words[0].startswith("--from"):
            return []
        words.pop(0)
    if words and words[0].startswith("["):
        try:
            listed = json.loads(" ".join(words))
        except (ValueError, RecursionError):
            return ["."]
        words = [word for word in listed if isinstance(word, str)] if isinstance(listed, list) else []
    sources = (word.strip("\"'") for word in words[:-1])
    return [word for word in sources if "://" not in word and not word.startswith(("<<", "git@"))]


def _mounted(arguments: str) -> Iterator[str]:
    """The sources of bind mounts from the context."""
    for mount in _MOUNT.findall(arguments):
        options = dict(option.partition("=")[::2] for option in mount.split(","))
        if options.get("type") == "bind" and "from" not in options:
            yield options.get("source") or options.get("src") or "."


# ---- where it is built ---------------------------------------------------------------------------------------------


def _image(tree: Tree, path: str, sources: tuple[str, ...], roots: Roots) -> _Image:
    context = _context(tree, parent(path), sources, roots)
    reads = {path}
    for name in (join(context, ".dockerignore"), f"{path}.dockerignore"):
        if tree.files.is_file(name):
            reads.add(name)
    for source in sources:
        reads.add(_directory(context, source))
    return _Image(path=path, context=context, reads=frozenset(reads))


def _directory(context: str, source: str) -> str:
    """What a source means, from the root: with a wildcard or a variable, the directory that it is certainly in."""
    certain = source
    cut = min((index for index in (source.find("$"), _first_wildcard(source)) if index >= 0), default=-1)
    if cut >= 0:
        certain = source[:cut].rpartition("/")[0]
    # A leading slash, as one too many `..`, means the context all the same.
    found = inside(context, certain.lstrip("/") or ".")
    return found if found is not None and is_within(found, context) else context


def _first_wildcard(source: str) -> int:
    match = _WILDCARD.search(source)
    return -1 if match is None else match.start()


def _context(tree: Tree, directory: str, sources: tuple[str, ...], roots: Roots) -> str:
    """The directory, its own or one above, in which most of the sources are; the nearest of those with equally many."""
    candidates = [directory]
    while candidates[-1] != ".":
        candidates.append(parent(candidates[-1]) if len(candidates) < LEVELS_MAX else ".")
    best, best_count = directory, 0
    for candidate in candidates:
        count = sum(_evidence(tree, candidate, directory, source, roots) for source in sources)
        if count > best_count:
            best, best_count = candidate, count
    return best


def _evidence(tree: Tree, candidate: str, directory: str, source: str, roots: Roots) -> int:
    """2 if a source is known to be in a context, 1 if its name says so. Most files are not known, but manifests are."""
    plain = source.lstrip("/").removeprefix("./").rstrip("/")
    if plain in ("", "."):
        return 2 if candidate in roots else 0
    if "$" in plain:
        return 0
    named = 0
    if directory != candidate:
        # A Dockerfile whose sources are named with the way to it is built from where that way begins.
        way = directory if candidate == "." else directory.removeprefix(candidate + "/")
        named = min(2, way.count("/") + 1) if is_within(plain, way) else 0
    wildcard = _first_wildcard(plain)
    if wildcard >= 0:
        prefix = join(candidate, plain[:wildcard]) if plain[:wildcard].rpartition("/")[2] else ""
        return 2 if prefix and _has_prefix(tree.files.paths, prefix) else named
    path = join(candidate, plain)
    return 2 if tree.files.is_file(path) or _has_prefix(tree.files.paths, f"{path}/") else named


def _has_prefix(paths: tuple[str, ...], prefix: str) -> bool:
    index = bisect_left(paths, prefix)
    return index < len(paths) and paths[index].startswith(prefix)


# ---- the project ---------------------------------------------------------------------------------------------------


def _project(tree: Tree, root: str, images: list[_Image], roots: Roots) -> Project:
    steps = []
    for image in images:
        file = image.path if image.context == "." else image.path.removeprefix(image.context + "/")
        run = f"docker build --file {shlex.quote(file)} ."
        steps.append(Step(name=f"Build {image.path.rpartition('/')[2]}", run=run, workdir=image.context))
    reads = {path for image in images for path in image.reads}
    # A directory that is there for the image alone is its own; else its files stay with those who have them.
    is_guest = root == "." or roots.nearest(root) is not None or roots.has_below(root)
    depends_on = set[str]()
    for image in images:
        packed = _packed(tree, image, roots)
        if packed is None:
            reads.add(".")
        else:
            depends_on |= packed
    return Project(
        ecosystem="docker",
        root=root,
        manifest=images[0].path,
        jobs=(ProjectJob(check="build", steps=tuple(steps)),),
        depends_on_roots=frozenset(depends_on - {root}) if not is_guest else frozenset(depends_on),
        reads=frozenset(reads if is_guest else (path for path in reads if not is_within(path, root))),
        is_guest=is_guest,
    )


def _packed(tree: Tree, image: _Image, roots: Roots) -> set[str] | None:
    """The roots of the projects that an image copies as a whole; None if they are very many.

    What the whole repository is copied into is touched by every file anyway.
    """
    packed: set[str] = set()
    if "." in image.reads:
        return {"."} if "." in roots else packed
    ignored = _ignored(tree, image.context)
    prefix = "" if image.context == "." else image.context + "/"
    for directory in image.reads:
        below = roots.below(directory, count_max=PACKED_MAX + 1)
        packed.update(root for root in below if ignored.match(root.removeprefix(prefix)) is None)
        if directory in roots:
            packed.add(directory)
    return packed if len(packed) <= PACKED_MAX else None


def _ignored(tree: Tree, context: str) -> Globs:
    """What `.dockerignore` leaves out of the context; patterns begin there, unlike those of git."""
    lines = (line.strip() for line in tree.text(join(context, ".dockerignore")).split("\n")[:200])
    patterns = []
    for line in lines:
        pattern = line.removeprefix("!").lstrip("/").removeprefix("./")
        if pattern and not line.startswith("#"):
            patterns.append(f"{'!' if line.startswith('!') else ''}/{pattern}")
    try:
        return Globs(patterns)
    except GlobInvalid:
        return Globs(())
