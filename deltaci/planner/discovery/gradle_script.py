"""What can be told from a Gradle script without running it, in Groovy or Kotlin.

Rule 1: a script is cut into tokens in one linear pass; no grammar is parsed beyond calls, blocks and lists.
Rule 2: what is computed is reported as computed (`is_dynamic`), never guessed: the caller then assumes the most.
"""

import re
from collections.abc import Iterator
from typing import Final

import msgspec

_TOKEN: Final = re.compile(
    r'''
      (?P<skip>\s+|//[^\n]*|/\*(?:[^*]|\*(?!/))*+(?:\*/)?)
    | (?P<block>"""(?:[^"\\]|\\.|"(?!""))*+(?:""")?|\'\'\'(?:[^'\\]|\\.|'(?!''))*+(?:\'\'\')?)
    | (?P<text>"(?:[^"\\\n]|\\.)*+"?|'(?:[^'\\\n]|\\.)*+'?)
    | (?P<name>[A-Za-z_$][\w$]*)
    | (?P<sign>.)
    ''',
    re.VERBOSE | re.DOTALL | re.ASCII,
)
_ROOT_DIRECTORY: Final = re.compile(r"^\$(?:\{)?(?:rootDir|settingsDir|rootProject\.projectDir|projectDir)\}?/")
_OPEN: Final = "([{"
_CLOSE: Final = ")]}"
# A block of one of these is about other projects than the one that the script belongs to.
_EVERYBODY: Final = frozenset({"subprojects", "allprojects", "configure"})
_BARE: Final = frozenset({"java", "application", "base", "groovy", "scala", "war"})
TOKENS_MAX: Final = 100_000
_ENVIRONMENT: Final = frozenset({"getenv", "environmentVariable"})
_CONDITION_TOKENS_MAX: Final = 60
_CALL_TOKENS_MAX: Final = 16  # of a call that names one thing: what is longer is computed


class Token(msgspec.Struct, frozen=True):
    """A name, a sign, or a string; `is_plain` is false for a string that something is filled into."""

    kind: str
    value: str
    is_plain: bool = True

    def is_sign(self, *signs: str) -> bool:
        """Whether it is one of these signs."""
        return self.kind == "sign" and self.value in signs


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """A settings script. `included` are project paths with a leading colon, in order, each once.

    Args:
        directories: project path -> directory as written, relative to the settings, for those that say so.
        builds: directories of included builds.
        uncertain: those of `included` that are there only if the machine has something, as the SDK of Android.
        is_dynamic: something is included, or moved, that cannot be read here.
        plugins: what it applies.
    """

    included: tuple[str, ...] = ()
    flat: tuple[str, ...] = ()
    uncertain: frozenset[str] = frozenset()
    directories: dict[str, str] = {}
    builds: tuple[str, ...] = ()
    is_dynamic: bool = False
    has_computed_builds: bool = False
    plugins: frozenset[str] = frozenset()


class Script(msgspec.Struct, frozen=True, kw_only=True):
    """A build script: what it names for itself, for single other projects, and for many.

    Args:
        paths: strings that may name a project or a task of one, as they are written.
        accessors: `a.b` for each `projects.a.b`.
        for_others: project path -> what a block about it names.
        for_all: what blocks about many projects name.
        is_dynamic: a project is named by something computed.
        plugins: identifiers of plugins that it applies, also to others; those with `apply false` are not among them.
    """

    paths: frozenset[str] = frozenset()
    accessors: frozenset[str] = frozenset()
    for_others: dict[str, frozenset[str]] = {}
    for_all: frozenset[str] = frozenset()
    configures_others: bool = False
    configures_itself_with_others: bool = False
    is_dynamic: bool = False
    is_dynamic_for_all: bool = False
    plugins: frozenset[str] = frozenset()
    applies: bool = False
    java: str | None = None


def tokens(text: str) -> list[Token]:
    """The tokens of a script without spaces and comments; at most `TOKENS_MAX`, what is beyond is not looked at."""
    found: list[Token] = []
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup
        if kind == "skip":
            continue
        if kind in ("text", "block"):
            raw = match[0]
            width = 3 if kind == "block" else 1
            is_single = raw.startswith("'")
            body = raw[width:-width] if len(raw) >= 2 * width and raw.endswith(raw[:width]) else raw[width:]
            body = _ROOT_DIRECTORY.sub("", body)
            found.append(Token("string", body.replace("\\\\", "\\"), is_single or "$" not in body))
        else:
            found.append(Token(kind or "sign", match[0]))
        if len(found) >= TOKENS_MAX:
            break
    return found


def _arguments(stream: list[Token], start: int, limit: int = _CALL_TOKENS_MAX) -> tuple[list[Token], int]:
    """The tokens of a call that opens at `start`, or follows without parentheses, and the position behind it.

    At most `limit` of them, so that calls inside each other cost no more than their number.
    """
    if start < len(stream) and stream[start].is_sign("("):
        depth = 0
        end = min(len(stream), start + limit)
        for index in range(start, end):
            if stream[index].is_sign(*_OPEN):
                depth += 1
            elif stream[index].is_sign(*_CLOSE):
                depth -= 1
                if depth == 0:
                    return stream[start + 1 : index], index + 1
        return stream[start + 1 : end], end
    index = start  # Groovy: include 'a', 'b'
    while index < min(len(stream), start + limit) and (stream[index].kind == "string" or stream[index].is_sign(",")):
        if index > start and stream[index].kind == "string" and stream[index - 1].kind == "string":
            break
        index += 1
    return stream[start:index], index


def _strings(arguments: list[Token]) -> list[str] | None:
    """The plain strings of arguments that are nothing else, lists of strings included; None if there is more."""
    if any(not (each.kind == "string" and each.is_plain) and not each.is_sign(",", "[", "]") for each in arguments):
        return None
    return [each.value for each in arguments if each.kind == "string"]


def read_settings(text: str) -> Settings:
    """What a settings script says."""
    stream = tokens(text)
    included: dict[str, None] = {}
    flat: dict[str, None] = {}
    builds: dict[str, None] = {}
    directories: dict[str, str] = {}
    certain: set[str] = set()
    uncertain: set[str] = set()
    hanging = _hanging(stream)
    is_dynamic, has_computed_builds = len(stream) == TOKENS_MAX, False
    behind = 0
    for index, token in enumerate(stream):
        if token.kind != "name" or index < behind:
            continue
        is_member = index > 0 and stream[index - 1].is_sign(".") and not _is_settings(stream, index)
        if token.value == "includeBuild":
            arguments, _ = _arguments(stream, index + 1)
            if arguments and arguments[0].kind == "string" and arguments[0].is_plain:
                builds[arguments[0].value] = None
            else:
                has_computed_builds = True
        elif token.value in ("include", "includeFlat") and not is_member:
            arguments, behind = _arguments(stream, index + 1, TOKENS_MAX)
            named = _strings(arguments)
            if not named or any("*" in path for path in named):
                is_dynamic = True
            else:
                (included if token.value == "include" else flat).update(dict.fromkeys(named))
                (uncertain if index in hanging else certain).update(_colon(path) for path in named)
        elif token.value == "projectDir":
            moved = _moved(stream, index)
            if moved is None:
                is_dynamic = is_dynamic or _is_assigned(stream, index)
            else:
                directories[_colon(moved[0])] = moved[1]
        elif token.value == "apply" and index + 1 < len(stream):
            is_dynamic = is_dynamic or _applies_script(stream, index)
    return Settings(
        included=tuple(dict.fromkeys(_colon(path) for path in included)),
        flat=tuple(flat),
        uncertain=frozenset(uncertain - certain),
        directories=directories,
        builds=tuple(builds),
        is_dynamic=is_dynamic,
        has_computed_builds=has_computed_builds,
        plugins=frozenset(_plugins(stream)),
    )


def _hanging(stream: list[Token]) -> frozenset[int]:
    """The positions of names in blocks that an environment variable opens: `if (System.getenv("X") != null) { ... }`.

    That of all CI systems is set here as well.
    """
    found: set[int] = set()
    blocks: list[bool] = []
    for index, token in enumerate(stream):
        if token.is_sign("{"):
            blocks.append(any(blocks[-1:]) or _asks_environment(stream, index))
        elif token.is_sign("}") and blocks:
            blocks.pop()
        elif token.kind == "name" and any(blocks[-1:]):
            found.add(index)
    return frozenset(found)


def _asks_environment(stream: list[Token], brace: int) -> bool:
    """Whether `if (...)` stands before a brace, and asks for a variable other than `CI`."""
    depth = 0
    for index in range(brace - 1, max(-1, brace - _CONDITION_TOKENS_MAX), -1):
        if stream[index].is_sign(")"):
            depth += 1
        elif stream[index].is_sign("("):
            depth -= 1
        if depth <= 0:
            condition = stream[index:brace]
            is_if = depth == 0 and index > 0 and stream[index - 1].value == "if" and len(condition) > 1
            return is_if and any(
                each.value in _ENVIRONMENT and not any(after.value == "CI" for after in condition[at : at + 4])
                for at, each in enumerate(condition)
            )
    return False


def _is_settings(stream: list[Token], index: int) -> bool:
    return index > 1 and stream[index - 2].value in ("settings", "this")


def _applies_script(stream: list[Token], index: int) -> bool:
    """Whether another script is applied: it may include what it likes."""
    return any(each.value == "from" for each in stream[index + 1 : index + 4])


def _is_assigned(stream: list[Token], index: int) -> bool:
    return index + 1 < len(stream) and stream[index + 1].is_sign("=")


def _moved(stream: list[Token], index: int) -> tuple[str, str] | None:
    """`project(":a").projectDir = <an expression with one string>`: the project and the string."""
    head = stream[max(0, index - 5) : index]
    if len(head) < 4 or not _is_assigned(stream, index):
        return None
    named = next((each for each in head if each.kind == "string" and each.is_plain), None)
    if named is None or head[-1].value != "." or not any(each.value in ("project", "findProject") for each in head):
        return None
    strings, depth = list[Token](), 0
    for each in stream[index + 2 : index + 20]:
        if each.is_sign(*_OPEN):
            depth += 1
        elif each.is_sign(*_CLOSE):
            depth -= 1
        elif each.kind == "string":
            strings.append(each)
        if depth <= 0 and strings:
            break
    if len(strings) != 1 or not strings[0].is_plain:
        return None
    return named.value, strings[0].value


def _colon(path: str) -> str:
    return ":" + path.strip(":").replace("/", ":") if not path.startswith(":") else path.rstrip(":")


def _plugins(stream: list[Token]) -> Iterator[str]:
    """Plugins by `id "x"`, `id("x")`, `kotlin("jvm")`, `` `java-library` ``, `apply plugin: "x"`, `alias(libs.x)`."""
    for index, token in enumerate(stream):
        found: str | None = None
        end = index + 1
        if token.kind == "name" and token.value in ("id", "kotlin", "alias", "plugin", "apply"):
            arguments, end = _arguments(stream, index + 1)
            if token.value == "alias":
                named = ".".join(each.value for each in arguments if each.kind == "name")
                found = named or _chain(stream, index) or None
            elif token.value == "plugin":
                following = stream[index + 1 : index + 3]
                found = next((each.value for each in following if each.kind == "string"), None)
            elif arguments and arguments[0].kind == "string":
                found = f"org.jetbrains.kotlin.{arguments[0].value}" if token.value == "kotlin" else arguments[0].value
        elif token.is_sign("`") and index + 1 < len(stream) and stream[index + 1].kind == "name":
            close = next((i for i in range(index + 1, min(index + 12, len(stream))) if stream[i].is_sign("`")), None)
            if close is not None:
                found = "".join(each.value for each in stream[index + 1 : close])
                end = close + 1
        elif token.kind == "name" and token.value in _BARE and _stands_alone(stream, index):
            # `plugins { java }`; as the name of a block it comes with the plugin as well
            found = token.value
        if found is not None and not _is_not_applied(stream, end):
            yield found


def _stands_alone(stream: list[Token], index: int) -> bool:
    """Whether a word is a plugin or a block, and not a package or a variable."""
    before = stream[index - 1] if index else None
    after = stream[index + 1] if index + 1 < len(stream) else None
    if before is not None and (before.is_sign(".", "=", "(", ",") or before.value in ("import", "val", "def")):
        return False
    return after is None or not after.is_sign(".", "=", ",", ":", ")")


def _is_not_applied(stream: list[Token], end: int) -> bool:
    """Whether `apply false` follows, with a version before it or not."""
    following = stream[end : end + 8]
    for index, each in enumerate(following[:-1]):
        if each.value == "apply" and any(after.value == "false" for after in following[index + 1 : index + 3]):
            return True
        if each.value in ("id", "alias", "kotlin", "}") or each.is_sign("`"):
            return False
    return False


# ---- build scripts -----------------------------------------------------------------------------------------------


def read_script(text: str) -> Script:
    """What a build script says."""
    stream = tokens(text)
    paths: set[str] = set()
    for_all: set[str] = set()
    for_others: dict[str, set[str]] = {}
    accessors: set[str] = set()
    dynamic = {False: False, True: False}
    for index, token, scope in _scoped(stream):
        named = for_all if scope == "" else paths if scope is None else for_others.setdefault(scope, set())
        if token.kind == "string" and token.is_plain and _may_name_a_project(stream, index):
            named.add(token.value)
        elif token.kind != "name":
            continue
        elif token.value == "projects" and index + 1 < len(stream) and stream[index + 1].is_sign("."):
            chain = _chain(stream, index + 1)
            accessors.add(chain) if scope is None else for_all.add(f"projects.{chain}")
        elif (token.value == "project" and _is_computed(stream, index + 1)) or (
            token.value in ("subprojects", "allprojects", "childProjects") and not _opens(stream, index + 1)
        ):
            dynamic[scope is not None] = True
    plugins = frozenset(_plugins(stream))
    return Script(
        paths=frozenset(paths),
        accessors=frozenset(accessors),
        for_others={path: frozenset(named) for path, named in for_others.items()},
        for_all=frozenset(for_all),
        configures_others=any(each.kind == "name" and each.value in _EVERYBODY for each in stream),
        configures_itself_with_others=any(each.kind == "name" and each.value == "allprojects" for each in stream),
        is_dynamic=dynamic[False] or len(stream) == TOKENS_MAX,
        is_dynamic_for_all=dynamic[True],
        plugins=plugins,
        applies=bool(stream),
        java=_java(text),
    )


def _may_name_a_project(stream: list[Token], index: int) -> bool:
    """A string that begins with a colon, or that is what `project` is called with."""
    if stream[index].value.startswith(":"):
        return True
    before = stream[max(0, index - 3) : index]
    return any(each.kind == "name" and each.value in ("project", "findProject") for each in before)


def _scoped(stream: list[Token]) -> Iterator[tuple[int, Token, str | None]]:
    """Each token with whom it is about: None for the project itself, `""` for many, or the path of another one."""
    scopes: list[str | None] = [None]
    pending: str | None = None
    is_pending = False
    for index, token in enumerate(stream):
        if token.kind == "name" and token.value in _EVERYBODY:
            pending, is_pending = "", True
        elif token.kind == "name" and token.value == "project":
            arguments, end = _arguments(stream, index + 1)
            named = _strings(arguments)
            if named and end < len(stream) and stream[end].is_sign("{"):
                pending, is_pending = _colon(named[0]), True
        if token.is_sign("{"):
            scopes.append(pending if is_pending else scopes[-1])
            is_pending = False
        elif token.is_sign("}") and len(scopes) > 1:
            scopes.pop()
        yield index, token, scopes[-1]


def _chain(stream: list[Token], start: int) -> str:
    """`a.b.c` behind a token, with a dot before `a` or without."""
    names = []
    if start + 1 < len(stream) and not stream[start].is_sign(".") and stream[start + 1].kind == "name":
        names.append(stream[start + 1].value)
        start += 2
    while start + 1 < len(stream) and stream[start].is_sign(".") and stream[start + 1].kind == "name":
        names.append(stream[start + 1].value)
        start += 2
    return ".".join(names)


def _is_computed(stream: list[Token], start: int) -> bool:
    """Whether `project(...)` is called with anything but strings: which project that is cannot be told."""
    if start >= len(stream):
        return False
    if not stream[start].is_sign("("):
        return stream[start].kind == "string" and not stream[start].is_plain
    arguments, _ = _arguments(stream, start)
    if not arguments:
        return False
    # project(path: ":a", configuration: "x") and project(path = ":a")
    rest = [each for each in arguments if not each.is_sign(",", ":", "=")]
    strings = [each for each in rest if each.kind == "string"]
    names = {each.value for each in rest if each.kind != "string"}
    return not strings or any(not each.is_plain for each in strings) or bool(names - {"path", "configuration"})


def _opens(stream: list[Token], start: int) -> bool:
    return start < len(stream) and stream[start].is_sign("{")


_JAVA: Final = (
    re.compile(r"jvmToolchain\s{0,4}\(?\s{0,4}(\d{1,2})\b"),
    re.compile(r"JavaLanguageVersion\s{0,4}\.\s{0,4}of\(\s{0,4}['\"]?(\d{1,2})\b"),
    re.compile(
        r"(?:options\.release|sourceCompatibility)[ \t]{0,4}(?:=|\.set\()?[ \t]{0,4}['\"]?(\d{1,2}(?:\.\d{1,2})?)\b"
    ),
    re.compile(r"JavaVersion\.VERSION_(\d{1,2}(?:_\d{1,2})?)\b"),
)


def _java(text: str) -> str | None:
    for pattern in _JAVA:
        found = pattern.search(text)
        if found is not None:
            return found[1].replace("_", ".").removeprefix("1.") if found[1] != "1" else None
    return None
