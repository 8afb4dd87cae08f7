"""Lines that tools print, and the lines of files that they are about."""

import gzip
import io
import tarfile

import pytest

from deltaci.reporter import junit
from deltaci.reporter.annotations import ANNOTATIONS_MAX, merged, of_lines

TOOLS: tuple[tuple[str, str, tuple[str, int, str, str]], ...] = (
    (
        "gcc",
        "src/main.c:12:5: error: expected ';' before '}'",
        ("src/main.c", 12, "failure", "expected ';' before '}'"),
    ),
    ("clang", "src/main.c:3:1: warning: unused variable", ("src/main.c", 3, "warning", "unused variable")),
    ("gcc, a note", "./src/a.h:7: note: declared here", ("src/a.h", 7, "notice", "declared here")),
    ("gcc, fatal", "a.c:1:10: fatal error: x.h: No such file", ("a.c", 1, "failure", "x.h: No such file")),
    (
        "javac",
        "src/main/java/App.java:9: error: ';' expected",
        ("src/main/java/App.java", 9, "failure", "';' expected"),
    ),
    (
        "mypy",
        "deltaci/a.py:4: error: Incompatible types  [arg-type]",
        ("deltaci/a.py", 4, "failure", "Incompatible types  [arg-type]"),
    ),
    (
        "ruff",
        "deltaci/a.py:1:8: F401 `os` imported but unused",
        ("deltaci/a.py", 1, "failure", "F401 `os` imported but unused"),
    ),
    (
        "golangci-lint",
        "cmd/x.go:31:2: SA4006: value never used (staticcheck)",
        ("cmd/x.go", 31, "failure", "SA4006: value never used (staticcheck)"),
    ),
    ("go build", "./main.go:6:2: undefined: fmt", ("main.go", 6, "failure", "undefined: fmt")),
    ("tsc", "src/app.ts(3,7): error TS2322: Type 'string'", ("src/app.ts", 3, "failure", "TS2322: Type 'string'")),
    (
        "tsc, pretty",
        "src/app.ts:3:7 - error TS2322: Type 'string'",
        ("src/app.ts", 3, "failure", "TS2322: Type 'string'"),
    ),
    (
        "msbuild",
        "Lib/A.cs(10,17): error CS1002: ; expected [/x/Lib.csproj]",
        ("Lib/A.cs", 10, "failure", "CS1002: ; expected [/x/Lib.csproj]"),
    ),
    ("pytest", "tests/test_a.py:12: AssertionError", ("tests/test_a.py", 12, "failure", "AssertionError")),
    (
        "eslint, unix",
        "src/a.js:2:1: Unexpected var. [Error/no-var]",
        ("src/a.js", 2, "failure", "Unexpected var. [Error/no-var]"),
    ),
    (
        "a checkout elsewhere",
        "/var/lib/runner/slots/0/checkout/src/a.c:5:1: error: no",
        ("src/a.c", 5, "failure", "no"),
    ),
    ("Windows", r"C:\r\slots\0\checkout\src\a.c:5:1: error: no", ("src/a.c", 5, "failure", "no")),
    ("with the time", "2024-05-01T10:00:00Z src/a.c:5:1: error: no", ("src/a.c", 5, "failure", "no")),
    ("make", "Makefile:12: error: missing separator.", ("Makefile", 12, "failure", "missing separator.")),
    (
        "jest",
        "    at Object.toBe (src/sum.test.js:5:19)",
        ("src/sum.test.js", 5, "failure", "at Object.toBe (src/sum.test.js:5:19)"),
    ),
)


@pytest.mark.parametrize(("line", "told"), [one[1:] for one in TOOLS], ids=[one[0] for one in TOOLS])
def test_what_a_tool_prints_is_found_at_its_line(line: str, told: tuple[str, int, str, str]) -> None:
    """Each in the form that this tool has."""
    (one,) = of_lines([line], title="lint")

    assert told == (one.path, one.start_line, one.level, one.message)
    assert (one.end_line, one.title) == (one.start_line, "lint")


@pytest.mark.parametrize(
    "line",
    [
        "connect to https://example.com:443: refused",
        "listening on 127.0.0.1:8080: error: in use",
        "image python:3.11: error: not found",
        "/usr/lib/python3.11/ssl.py:12: error: no",
        "/etc/passwd:1:1: error: no",
        "../secret/a.py:3:1: error: no",
        "src/../../a.py:3:1: error: no",
        "src/a.py:0:1: error: lines count from 1",
        "src/a.py:99999999:1: error: no file is so long",
        "node_modules/x/a.js:1:1: error: not theirs",
        ".venv/lib/a.py:1:1: error: not theirs",
        "12:30:15: error: that was a time",
        "Process completed with exit code 1",
        "",
    ],
)
def test_what_is_no_place_of_the_repository_is_left_out(line: str) -> None:
    """A mark at a wrong line misleads; none is only missed."""
    assert of_lines([line], title="lint") == ()


def test_a_compiler_that_says_first_what_and_then_where() -> None:
    """rustc: the message is the line before."""
    (one,) = of_lines(["error[E0308]: mismatched types", "  --> src/main.rs:4:18", "   |"], title="test")

    assert (
        one.path,
        one.start_line,
        one.level,
        one.message,
    ) == ("src/main.rs", 4, "failure", "error[E0308]: mismatched types")


def test_a_traceback_shows_the_line_of_code() -> None:
    """Python prints it below the place."""
    found = of_lines(
        [
            "Traceback (most recent call last):",
            '  File "/home/r/slots/1/checkout/app/main.py", line 7, in run',
            "    return 1 / 0",
            '  File "/usr/lib/python3.11/x.py", line 3, in y',
        ],
        title="test",
    )

    assert [(one.path, one.start_line, one.message) for one in found] == [("app/main.py", 7, "return 1 / 0")]


def test_paths_are_those_of_the_directory_where_the_tool_ran() -> None:
    """A tool in a project below the root knows nothing of the root, unless it says otherwise."""
    said = ["tests/test_a.py:3: AssertionError", "services/api/a.py:4: error: no", "/r/checkout/b.py:5: error: no"]

    found = of_lines(said, title="test", workdir="services/api")

    assert [one.path for one in found] == ["services/api/tests/test_a.py", "services/api/a.py", "b.py"]


def test_the_same_is_said_once_and_the_first_stays_the_first() -> None:
    """What was told before is a beginning of what is told later: GitHub only appends."""
    many = of_lines([f"src/a.c:{number}: error: no" for number in range(1, 300)], title="t")

    assert many[:ANNOTATIONS_MAX] == merged(many[:100], many)
    assert many[:100] == merged(many[:100], many[:50])


def test_a_hostile_line_takes_no_longer_than_others() -> None:
    """Each pattern goes over a line a bounded number of times; otherwise this takes until the timeout of the test."""
    hostile = [
        "a" * 1_000,
        "a." * 500,
        "a/" * 500,
        "at " * 333,
        "(a" * 500,
        " a.b" * 250,
        "at (" * 250,
        "1:" * 500,
        " " * 1_000,
    ]

    assert of_lines([line + "!" for line in hostile for _ in range(20)], title="t") == ()


# ---- reports -----------------------------------------------------------------------------------------------------

REPORT = b"""<?xml version="1.0" encoding="utf-8"?>
<testsuites><testsuite name="pytest" errors="0" failures="2" tests="4">
<testcase classname="tests.test_a" name="test_good"/>
<testcase classname="tests.test_a" name="test_bad"><failure message="assert 1 == 2">def test_bad():
&gt;       assert helper() == 2

tests/test_a.py:12:
tests/helpers.py:3: AssertionError</failure></testcase>
<testcase classname="tests.test_b" name="test_token"><failure message="token s3cret-value">no place</failure></testcase>
<testcase classname="b" name="test_worse" file="tests/test_b.py" line="4">
<error message="token s3cret-value">no place</error></testcase>
</testsuite></testsuites>"""


def archive(**files: bytes) -> bytes:
    """A tar.gz as runners make it."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as packed:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            packed.addfile(info, io.BytesIO(content))
    return data.getvalue()


def redacted(data: bytes) -> str:
    return data.decode().replace("s3cret-value", "***")


def test_failed_tests_are_told_at_their_lines() -> None:
    """At the last place of the traceback, else where the report says; redacted; without a place not at all."""
    found = junit.failures(archive(**{"reports/a.xml": REPORT, "b.txt": b"no"}), redacted)

    assert [(one.path, one.start_line, one.message, one.title) for one in found] == [
        ("tests/helpers.py", 3, "assert 1 == 2", "tests.test_a::test_bad"),
        ("tests/test_b.py", 4, "token ***", "b::test_worse"),
    ]


UNREADABLE = {
    "empty": b"",
    "no archive": b"no archive",
    "broken off": archive(**{"a.xml": REPORT})[:-200],
    "no tar": gzip.compress(b"no tar"),
    "no document": archive(**{"a.xml": b"<a"}),
    "entities": archive(
        **{"a.xml": b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;<testcase><failure>a.c:1: x</failure></testcase></a>'}
    ),
    "encoding": archive(**{"a.xml": b'<?xml version="1.0" encoding="none"?><a/>'}),
    "deep": archive(**{"a.xml": b"<a>" * 50_000}),
}


@pytest.mark.parametrize("data", UNREADABLE.values(), ids=UNREADABLE)
def test_a_report_that_cannot_be_read_is_left_out(data: bytes) -> None:
    """What people see of a run never hangs on what one of its jobs wrote."""
    assert junit.failures(data, redacted) == ()


def test_a_broken_report_does_not_hide_the_others() -> None:
    """Each is a file of its own."""
    assert len(junit.failures(archive(**{"a.xml": b"<a", "b.xml": REPORT}), redacted)) == 2


def test_a_bomb_is_unpacked_as_far_as_is_allowed() -> None:
    """A few kilobytes that become a gigabyte: what lies beyond the bound is not seen."""
    beyond = archive(**{"a.xml": b" " * junit.UNPACKED_BYTES_MAX, "b.xml": REPORT})

    assert len(beyond) < 100_000
    assert junit.failures(beyond, redacted) == ()
