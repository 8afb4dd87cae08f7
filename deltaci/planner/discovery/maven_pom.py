"""What discovery takes from one pom.xml: coordinates, parent, modules, properties, and whatever it depends on.

Rule 1: a pom is data; what is inherited is put together by `chain`, never by copying.
Rule 2: what only sets versions (`dependencyManagement`, `pluginManagement`) is no dependency, except what is imported
or used by a managed plugin. Everything else with coordinates is one, whatever element it is in.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec

from deltaci.planner.discovery.project import MANIFEST_BYTES_MAX, Tree, inside, parent
from deltaci.planner.discovery.xml_document import Element, parse_xml, unfit

CHAIN_MAX: Final = 32
_PLUGIN_GROUP: Final = "org.apache.maven.plugins"
_VARIABLE: Final = re.compile(r"\$\{([^${}]{1,200})\}")
_RESOLVED_CHARACTERS_MAX: Final = 500
_MANAGED: Final = frozenset({"dependencyManagement", "pluginManagement"})
_JAVA: Final = ("maven.compiler.release", "java.version", "maven.compiler.source", "maven.compiler.target")


class Coordinates(msgspec.Struct, frozen=True):
    """A group and an artifact as they are written, properties and all."""

    group: str
    artifact: str


class Module(msgspec.Struct, frozen=True):
    """A module that a pom declares: the path of its pom, and the profile that it is declared in, if any."""

    path: str
    profile: str | None
    is_default: bool  # declared in no profile, or in one that is active by default


class Pom(msgspec.Struct, frozen=True, kw_only=True):
    """One pom.xml. `parent_path` is where its parent is looked for first; None if in repositories only."""

    path: str
    root: str
    group: str
    artifact: str
    parent: Coordinates | None
    parent_path: str | None
    packaging: str
    modules: tuple[Module, ...]
    has_unseen_modules: bool  # it declares some that are not here, or whose names are computed
    properties: Mapping[str, str]
    uses: frozenset[Coordinates]
    signs: frozenset[str]  # the profiles that sign artifacts
    has_variable_version: bool
    release: str  # of the compiler plugin; empty if it says nothing


def parse_pom(tree: Tree, path: str) -> Pom:
    """A pom that was read. Raises PlanFailed if it is no pom."""
    if tree.files.size(path) > MANIFEST_BYTES_MAX:
        raise unfit(path, 1, f"a pom has at most {MANIFEST_BYTES_MAX} bytes, this has more")
    document = parse_xml(tree.data(path), path)
    if document.tag != "project":
        raise unfit(path, document.line, f"a pom has one <project>, this has <{document.tag[:50]}>")
    root = parent(path)
    above = document.all("parent")
    coordinates = Coordinates(above[0].value("groupId"), above[0].value("artifactId")) if above else None
    versions = [document.value("version"), above[0].value("version") if above else ""]
    group = document.value("groupId")
    places = [document, *document.all("profiles", "profile")]
    properties = {
        each.tag: each.text for place in places for table in place.all("properties") for each in table.children
    }
    declared = list(_modules(tree, root, document))
    return Pom(
        path=path,
        root=root,
        group=group or (coordinates.group if coordinates is not None else ""),
        artifact=document.value("artifactId"),
        parent=coordinates,
        parent_path=_parent_path(tree, root, above[0]) if above else None,
        packaging=document.value("packaging") or "jar",
        modules=tuple(dict.fromkeys(module for module in declared if module is not None)),
        has_unseen_modules=None in declared,
        properties=properties,
        uses=frozenset(_uses(document)),
        signs=frozenset(_signing(document)),
        has_variable_version=any("${" in version for version in versions),
        release=_release(document),
    )


def _parent_path(tree: Tree, root: str, above: Element) -> str | None:
    written = above.all("relativePath")
    target = written[0].text if written else "../pom.xml"
    return _pom_at(tree, root, target) if target else None


def _pom_at(tree: Tree, root: str, target: str) -> str | None:
    """The pom that a relative path means: a file, or the pom.xml of a directory."""
    if "\0" in target or "${" in target:
        return None
    path = inside(root, target.replace("\\", "/"))
    if path is None:
        return None
    if tree.files.is_file(path):
        return path
    path = "pom.xml" if path == "." else f"{path}/pom.xml"
    return path if tree.files.is_file(path) else None


def _modules(tree: Tree, root: str, document: Element) -> Iterator[Module | None]:
    """The modules that a pom declares; None for one that is not here."""
    for place in (document, *document.all("profiles", "profile")):
        profile = place.value("id") if place is not document else None
        is_default = profile is None or place.value("activation", "activeByDefault") == "true"
        for element in (*place.all("modules", "module"), *place.all("subprojects", "subproject")):
            path = _pom_at(tree, root, element.text) if element.text else None
            yield None if path is None else Module(path, profile, is_default)


def _uses(document: Element) -> set[Coordinates]:
    """Everything that has coordinates and is more than a version to choose."""
    found: set[Coordinates] = set()
    waiting: list[tuple[Element, str]] = [(child, "") for child in document.children if child.tag != "parent"]
    while waiting:
        element, managed_by = waiting.pop()
        artifact = element.value("artifactId")
        if artifact and not _only_sets_a_version(element, managed_by):
            group = element.value("groupId") or (_PLUGIN_GROUP if element.tag == "plugin" else "")
            found.add(Coordinates(group, artifact))
        below = element.tag if element.tag in _MANAGED else managed_by
        waiting += [(child, below) for child in element.children if child.tag != "exclusions"]
    return found


def _only_sets_a_version(element: Element, managed_by: str) -> bool:
    if managed_by == "dependencyManagement":
        return element.value("scope") != "import"
    return managed_by == "pluginManagement" and element.tag == "plugin"


def _signing(document: Element) -> list[str]:
    profiles = document.all("profiles", "profile")
    return [
        profile.value("id")
        for profile in profiles
        if any(each.text == "maven-gpg-plugin" for each in profile.all("build", "plugins", "plugin", "artifactId"))
    ]


def _release(document: Element) -> str:
    for plugins in (("build", "plugins"), ("build", "pluginManagement", "plugins")):
        for plugin in document.all(*plugins, "plugin"):
            if plugin.value("artifactId") == "maven-compiler-plugin":
                configured = [plugin.value("configuration", name) for name in ("release", "source")]
                return next((value for value in configured if value), "")
    return ""


# ---- inheritance -------------------------------------------------------------------------------------------------


def chain(pom: Pom, poms: Mapping[str, Pom], by_coordinates: Mapping[Coordinates, Sequence[str]]) -> list[Pom] | None:
    """A pom with its parents as far as they are in the repository, nearest first; None if it has too many or a loop."""
    found = [pom]
    while found[-1].parent is not None:
        child, wanted = found[-1], found[-1].parent
        assert wanted is not None
        above = poms.get(child.parent_path or "")
        if above is None or above.artifact != wanted.artifact:
            paths = by_coordinates.get(wanted, ())
            above = poms[paths[0]] if paths else None
        if above is None:
            return found
        if len(found) == CHAIN_MAX or any(pom.path == above.path for pom in found):
            return None
        found.append(above)
    return found


def resolved(text: str, poms: Sequence[Pom]) -> str | None:
    """`text` with the properties of a chain filled in; None if one is not known."""
    own = poms[0]
    for _ in range(5):
        if "${" not in text:
            return text
        text = _VARIABLE.sub(lambda match: _property(match[1], own, poms), text)[: _RESOLVED_CHARACTERS_MAX + 1]
        if len(text) > _RESOLVED_CHARACTERS_MAX:
            return None
    return None if "${" in text else text


def _property(name: str, own: Pom, poms: Sequence[Pom]) -> str:
    short = name.removeprefix("project.").removeprefix("pom.")
    if short == "groupId":
        return own.group
    if short == "artifactId":
        return own.artifact
    if short == "parent.groupId" and own.parent is not None:
        return own.parent.group
    for pom in poms:
        if name in pom.properties:
            return pom.properties[name][: _RESOLVED_CHARACTERS_MAX + 1]
    return f"${{{name}}}"


def java_release(poms: Sequence[Pom]) -> str | None:
    """The version of Java that a chain compiles for, if it says so in plain words."""
    written = [f"${{{name}}}" for name in _JAVA if any(name in pom.properties for pom in poms)]
    written = [*(pom.release for pom in poms if pom.release), *written]
    return resolved(written[0], poms) if written else None
