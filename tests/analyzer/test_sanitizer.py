"""What the sanitizer lets through: text, and no secret, in whatever form and wherever it stands."""

import base64
import html
import json
import random
import urllib.parse

import pytest

from deltaci.analyzer.sanitizer import Sanitizer, variants
from deltaci.domain.credentials import MASK

SECRET = "p@ss\"w/rd+<é>'\\7%x"
PEM_LINES = [
    "-----BEGIN RSA PRIVATE KEY-----",
    *("MIIEow" + "Ab1/" * 14 + str(n) for n in range(4)),
    "-----END RSA PRIVATE KEY-----",
]


def clean(text: str | bytes, *secrets: str) -> str:
    return Sanitizer(secrets).clean(text if isinstance(text, bytes) else text.encode())


FORMS = {
    "plain": SECRET,
    "base64": base64.b64encode(SECRET.encode()).decode(),
    "base64 of a pair": base64.b64encode(f"user:{SECRET}".encode()).decode(),
    "base64 of a longer pair": base64.b64encode(f"users:{SECRET}\n".encode()).decode(),
    "base64 for URLs": base64.urlsafe_b64encode(f"us:{SECRET}".encode()).decode(),
    "hex": SECRET.encode().hex(),
    "HEX": SECRET.encode().hex().upper(),
    "url": urllib.parse.quote(SECRET, safe=""),
    "url path": urllib.parse.quote(SECRET),
    "url form": urllib.parse.quote_plus(SECRET),
    "url in lower case": urllib.parse.quote(SECRET, safe="").replace("%2F", "%2f").replace("%3C", "%3c").lower(),
    "json": json.dumps({"x": SECRET}),
    "json in json": json.dumps(json.dumps({"x": SECRET})),
    "json with escaped slashes": json.dumps(SECRET).replace("/", "\\/"),
    "json without ASCII": json.dumps(SECRET, ensure_ascii=False),
    "html": html.escape(SECRET),
    "repr": repr(SECRET),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_known_secret_is_masked_in_every_form_tools_print(form: str) -> None:
    """Authorization headers, URLs, JSON dumps, error pages: nobody prints a secret as it is."""
    cleaned = clean(f"before {FORMS[form]} after", SECRET)

    assert MASK in cleaned
    assert all(one not in cleaned for one in variants(SECRET))
    assert cleaned.startswith("before ")
    assert cleaned.endswith(" after")


def test_no_form_survives_any_surroundings() -> None:
    """Seeded noise around every form, on one line or wrapped at any column: no form is ever left."""
    rng = random.Random(20)  # a seed, not a secret
    noise = ["a", "bc ", "=", "\t", "\x1b[31m", "\x1b]0;t\x07", "\r", "\u200b", "\x00", "é", "{", '"', "'", "\xff"]
    for _ in range(300):
        form = FORMS[rng.choice(list(FORMS))]
        left = "".join(rng.choices(noise, k=rng.randrange(20)))
        right = "".join(rng.choices(noise, k=rng.randrange(20)))
        if rng.random() < 0.5:
            cut = rng.randrange(1, len(form))
            form = form[:cut] + rng.choice(("\n", "\r\n", "\x1b[0m", "\u200b")) + form[cut:]

        cleaned = clean(left + form + right, SECRET)

        joined = cleaned.replace("\n", "")
        assert MASK in cleaned
        assert SECRET not in joined
        assert base64.b64encode(SECRET.encode()).decode() not in joined


@pytest.mark.parametrize("escape", ["\x1b", "\x1b[", "\x1b]0;", "\x9b3", "\x1b("])
def test_an_escape_in_front_of_a_secret_does_not_save_the_rest_of_it(escape: str) -> None:
    """It takes the first character along, and what is left would be no known value any more."""
    cleaned = clean(f"a {escape}correct-horse b", "correct-horse")

    assert "orrect-horse" not in cleaned


def test_each_line_of_a_secret_of_many_lines_is_masked() -> None:
    """A key printed line by line, each with a prefix."""
    secret = "first line of it\nsecond line of it\r\nthird line of it"

    cleaned = clean("1> first line of it\n2> second line of it\n3> third line of it", secret)

    assert cleaned == "1> ***\n2> ***\n3> ***"


def test_overlapping_secrets_leave_nothing_of_either() -> None:
    """Masking one first would leave the rest of the other."""
    assert clean("x abcdefgh y", "abcdef", "defgh") == "x *** y"
    assert clean("x abcabcabc y", "abcabc") == "x *** y"


def test_a_value_too_short_to_mask_is_left_alone() -> None:
    """Masking every `1` or `on` would destroy the log and hide nothing."""
    assert clean("on and on", "on", "") == "on and on"


TOKENS = {
    "github": "ghp_" + "a1B2" * 9,
    "github fine": "github_pat_" + "a1B2_" * 16,
    "gitlab": "glpat-" + "x1Y2" * 5,
    "aws": "AKIA" + "ABCD1234" * 2,
    "slack": "xoxb-" + "1234567890-" * 2 + "abcdef",
    "jwt": "eyJ" + "hbGciOiJI" * 3 + "." + "eyJzdWIi" * 3 + "." + "c2ln" * 5,
    "npm": "npm_" + "a1B2" * 9,
    "pypi": "pypi-" + "AgEI" * 10,
    "stripe": "sk_live_" + "a1B2" * 6,
    "google": "AIza" + "a1B2c" * 7,
    "openai": "sk-" + "a1B2" * 8,
    "vault": "hvs." + "a1B2" * 8,
    "docker": "dckr_pat_" + "a1B2" * 7,
}


@pytest.mark.parametrize("kind", TOKENS)
@pytest.mark.parametrize("around", ["{}", "x={} y", "'{}'", " \x1b[1m{}\x1b[0m.", "https://h/?q={}&r=1"])
def test_a_token_of_a_known_shape_is_masked(kind: str, around: str) -> None:
    """Nobody told us these values."""
    cleaned = clean(around.replace("{}", TOKENS[kind]))

    assert TOKENS[kind] not in cleaned
    assert TOKENS[kind][-12:] not in cleaned
    assert MASK in cleaned


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Authorization: Basic dXNlcjpwYXNz", "Authorization: Basic ***"),
        ("authorization: token abcdefgh", "authorization: token ***"),
        ('"Authorization": "Bearer abc.def"', '"Authorization": "Bearer ***"'),
        ("> Bearer abcdefghijklmnop", "> Bearer ***"),
        ("git clone https://user:hunter2@host/r.git", "git clone https://user:***@host/r.git"),
        ("git clone https://0123456789abcdef0123@host/r", "git clone https://***@host/r"),
        ("ssh://git@host/r.git", "ssh://git@host/r.git"),
        ("postgres://app:p:w@db/x", "postgres://app:***@db/x"),
        ("password=hunter2", "password=***"),
        ("DB_PASSWORD: hunter2", "DB_PASSWORD: ***"),
        ('{"client_secret": "a b c", "x": 1}', '{"client_secret": "***", "x": 1}'),
        ("export API_KEY='a b'", "export API_KEY='***'"),
        ("?token=abcdef&page=2", "?token=***&page=2"),
        ("mysql --password hunter2 -h db", "mysql --password *** -h db"),
        ("machine h login me password hunter2", "machine h login me password ***"),
        ("//registry.example.org/:_authToken=abcdef", "//registry.example.org/:_authToken=***"),
        ("AccountKey=abc/def==;Suffix=x", "AccountKey=***;Suffix=x"),
        ("https://hooks.slack.com/services/T0/B0/abcdef", "https://hooks.slack.com/services/***"),
    ],
)
def test_what_is_named_as_a_secret_is_masked_and_the_rest_can_be_read(text: str, expected: str) -> None:
    """The name says which secret it was; people need that to change it."""
    assert expected == clean(text)


@pytest.mark.parametrize(
    "text",
    [
        "tests/test_tokens.py::test_secret_is_kept PASSED",
        "the password must not be empty",
        "basic usage: run make",
        "FAILED tests/test_a.py::test_b - assert 1 == 2",
        "src/main.rs:3:5: error: expected one of `!` or `::`",
        "commit 0123456789abcdef0123456789abcdef01234567",
        "https://example.com/a/b?c=d#e",
        "a-task-running-for-longer-than-expected-today",
        "the bearer of news",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    """A log in which everything is masked explains nothing."""
    assert text == clean(text)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["a", *PEM_LINES, "b"], ["a", MASK, "b"]),
        (["a", *PEM_LINES[:-1]], ["a", MASK]),
        (["a b c", *PEM_LINES[2:], "b"], ["a b c", MASK, "b"]),
        (["k: " + "\\n".join(PEM_LINES), "b"], ["k: " + MASK, "b"]),
        (["grep -----BEGIN PRIVATE KEY----- *", "all is well"], ["grep " + MASK, "all is well"]),
        (["> " + line for line in PEM_LINES], ["> " + MASK]),
    ],
)
def test_private_keys_are_masked_whole_cut_and_quoted(lines: list[str], expected: list[str]) -> None:
    """A tail may begin inside a key; and a marker alone must not hide the rest of the log."""
    assert expected == clean("\n".join(lines)).split("\n")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"\x1b[1;31mred\x1b[0m", "red"),
        (b"\x1b]0;title\x07text", "text"),
        (b"\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x9b31mred".encode(), "red"),
        (b"\x1bPdevice\x1b\\text", "text"),
        (b"\x1b(Btext\x1b=", "text"),
        (b"never ended \x1b]0;abc\nnext", "never ended \nnext"),
        (b"10%\r20%\rdone\r\nnext", "10%\n20%\ndone\nnext"),
        (b"a\x00b\x07c\x08d\x7fe", "abcde"),
        (b"tab\tstays", "tab\tstays"),
        (b"\xff\xfe\xc3(", "\ufffd\ufffd\ufffd("),
        ("x\u202eevil\u200by\ufeff".encode(), "xevily"),
        (b"", ""),
    ],
)
def test_only_text_comes_out(data: bytes, expected: str) -> None:
    """What is shown in a terminal or a page must be what it looks like."""
    assert expected == clean(data)


def test_cleaning_again_changes_nothing_and_any_bytes_are_fine() -> None:
    """Seeded scraps of everything the table knows, glued together in any order."""
    rng = random.Random(7)  # a seed, not a secret
    scraps = [
        *TOKENS.values(),
        *PEM_LINES,
        "password",
        "=",
        ": ",
        " ",
        "'",
        '"',
        "\n",
        "\r",
        "\x1b[",
        "\x1b]0;",
        "://",
        "@",
    ]
    scraps += ["authorization: ", "basic ", "bearer ", "--", MASK, "*", "&", ",", "login a password ", SECRET, "x" * 20]
    sanitizer = Sanitizer([SECRET])
    for _ in range(1_000):
        data = "".join(rng.choices(scraps, k=rng.randrange(1, 12))).encode() + rng.randbytes(rng.randrange(4))

        once = sanitizer.clean(data)

        assert once == sanitizer.clean(once.encode())
        assert all(character.isprintable() or character in "\t\n" for character in once)
