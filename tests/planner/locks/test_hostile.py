"""Whatever is in a lock file, reading it ends, soon, with an answer."""

import json
import random

import pytest

from deltaci.planner.locks.formats import FORMATS, differences, resolutions
from deltaci.planner.locks.lock import Member
from deltaci.planner.locks.reading import BYTES_MAX, DEPTH_MAX, Odd, read_json, read_text, read_toml, read_yaml
from tests.planner.locks.compare import members
from tests.planner.locks.test_bun import TEXT as BUN
from tests.planner.locks.test_cargo import TEXT as CARGO
from tests.planner.locks.test_npm import lock as npm_lock
from tests.planner.locks.test_pnpm import FIVE, NINE, SIX
from tests.planner.locks.test_single import ALL
from tests.planner.locks.test_uv import TEXT as UV
from tests.planner.locks.test_yarn import CLASSIC, MODERN

NAMES = [*(name for name in FORMATS if "*" not in name), "requirements.txt"]
SOUND = [
    ("package-lock.json", npm_lock()),
    *(("pnpm-lock.yaml", text) for text in (FIVE, SIX, NINE)),
    *(("yarn.lock", text) for text in (CLASSIC, MODERN)),
    ("bun.lock", BUN),
    ("uv.lock", UV),
    ("Cargo.lock", CARGO),
    *ALL.items(),
]
WHO = members(".", "packages/a", "packages/b", "packages/c", a='{"dependencies": {"x": "^1.0.0"}}')
DEEP = 100_000


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xfe",
        b"\0",
        b"[]",
        b"{}",
        b"null",
        b"__metadata:",
        b"[" * DEEP,
        b'{"a":' * DEEP,
        b"a: {" * 3000,
        b"- " * 3000,
        b"a = " + b"[" * DEEP,
        b"# yarn lockfile v1\n" + b'"\\' * DEEP,
        b'"\\' * DEEP,
        b"," + b" " * DEEP + b",",
        b"lockfileVersion: '9.0'\nimporters: &a {x: *a}\n",
        b"lockfileVersion: '9.0'\nimporters: !!python/name:os.system {}\n",
        b"lockfileVersion: '9.0'\n---\nlockfileVersion: '9.0'\n",
        b'{"lockfileVersion": 3, "packages": {"' + b"a/" * DEEP + b'": {}}}',
        b'{"lockfileVersion": 1, "packages": {"' + b"a/" * DEEP + b'": ["a@1"]}}',
        b'{"lockfileVersion": ' + b"9" * DEEP + b"}",
    ],
    ids=range(21),
)
def test_nonsense_is_answered(name: str, data: bytes) -> None:
    """None, or, where the notation allows it, some digest: never an exception."""
    found = resolutions(name, data, {".": Member("ws")})

    assert found is None or set(found) == {"."}


def mutated(value: object, random_: random.Random) -> object:
    """A copy in which one place has another type or value."""
    copy = json.loads(json.dumps(value))
    places = []
    waiting = [copy]
    while waiting:
        inner = waiting.pop()
        keys = list(inner) if isinstance(inner, dict) else list(range(len(inner)))
        for key in keys:
            places.append((inner, key))
            if isinstance(inner[key], dict | list):
                waiting.append(inner[key])
    inner, key = random_.choice(places)
    inner[key] = random_.choice([None, True, 7, -1.5, "", "*", "link:..", [], {}, ["x"], {"x": 1}, {"version": []}])
    return copy


@pytest.mark.parametrize(("name", "text"), [*SOUND[:4], ("yarn.lock", MODERN), ("Pipfile.lock", ALL["Pipfile.lock"])])
def test_wrong_types_anywhere_are_answered(name: str, text: str) -> None:
    """JSON is YAML, too: each lock with one wrong value, many times."""
    random_ = random.Random(name)
    sound = read_json(text.encode()) if name.endswith("json") or "Pipfile" in name else read_yaml(text.encode())
    if name == "package-lock.json":
        sound = json.loads(text)
    for _ in range(40):
        data = json.dumps(mutated(sound, random_), indent=1).encode()

        found = differences(name, text.encode(), data, WHO)

        assert set(found) <= set(WHO)


@pytest.mark.parametrize(("name", "text"), SOUND)
def test_broken_bytes_anywhere_are_answered(name: str, text: str) -> None:
    """Cut off, with lines lost, twice or swapped, and with bytes turned into others."""
    random_ = random.Random(name)
    for _ in range(60):
        lines = text.encode().splitlines(keepends=True)
        first, second = (random_.randrange(len(lines)) for _ in range(2))
        choice = random_.randrange(4)
        if choice == 0:
            del lines[first]
        elif choice == 1:
            lines.insert(second, lines[first])
        elif choice == 2:
            lines[first], lines[second] = lines[second], lines[first]
        data = bytearray(b"".join(lines))
        if choice == 3:
            for _ in range(3):
                data[random_.randrange(len(data))] = random_.choice(b"{}[]:,\"'\\\n -=*&!#\x00\xffa1")

        found = differences(name, text.encode(), bytes(data), WHO)

        assert set(found) <= set(WHO)


@pytest.mark.parametrize("old", [None, b"{"])
def test_nothing_to_compare_with_concerns_all(old: bytes | None) -> None:
    """A lock that is new, too large, or was broken."""
    found = differences("package-lock.json", old, npm_lock().encode(), WHO)

    assert set(found) == set(WHO)
    assert set(differences("package-lock.json", npm_lock().encode(), old, WHO)) == set(WHO)


def test_a_key_twice_is_odd() -> None:
    """Which of the two counts depends on who reads."""
    for read, data in ((read_json, b'{"a": 1, "a": 1}'), (read_toml, b"a = 1\na = 1"), (read_yaml, b"a: 1\na: 1")):
        with pytest.raises(Odd):
            read(data)


def test_depth_and_size_are_bounded() -> None:
    """At the limit, and one past it."""
    nested = "x"
    for _ in range(DEPTH_MAX):
        nested = f"{{a: {nested}}}"

    assert read_yaml(nested.encode())
    with pytest.raises(Odd):
        read_yaml(f"{{a: {nested}}}".encode())
    assert read_text(bytes(BYTES_MAX))
    with pytest.raises(Odd):
        read_text(bytes(BYTES_MAX + 1))


def test_a_key_of_too_many_parts_is_odd() -> None:
    """The reader takes the square of their number; no line of a lock has that many dots."""
    assert read_toml(".".join(["a"] * 65).encode() + b"=1")
    with pytest.raises(Odd):
        read_toml(".".join(["a"] * 66).encode() + b"=1")
