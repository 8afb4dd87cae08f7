"""Words of strangers in markdown: shown, and without any effect."""

import re
from html import unescape

import pytest
from markdown_it import MarkdownIt

from deltaci.reporter.markdown import CUT, block, cell, code, joined, link, words

NASTY = (
    "<script>alert(1)</script>",
    "<!-- deltaci repo_1 12 -->",
    "![x](https://evil.example/x.png)",
    "[click](https://evil.example)",
    "[click]: https://evil.example",
    "*bold* _so_ **so** __so__ ~~gone~~ `code` ``code``",
    "# heading",
    "- item",
    "+ item",
    "* item",
    "12. item",
    "1) item",
    "> quotation",
    "| a | b |",
    "---",
    "===",
    "```",
    "~~~",
    "    indented",
    "a\n\n# heading\r\n- item",
    "&lt;b&gt; &#64;team",
    "\\*not escaped\\*",
    "<https://evil.example>",
    "\u202egnp.exe\u200b\x1b[31m",
)
RENDER = MarkdownIt("commonmark").enable("table").enable("strikethrough")


def shown(page: str) -> str:
    """The text of a page, as people read it."""
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]*>", "", page))).strip()


@pytest.mark.parametrize("text", NASTY)
def test_words_of_strangers_are_one_paragraph_of_text(text: str) -> None:
    """No tag but the paragraph's: neither a link nor an image, a heading, a list, a comment or HTML."""
    html = RENDER.render(words(text))

    assert {"p"} == set(re.findall(r"</?(\w+)", html)), html
    assert "<!--" not in html


@pytest.mark.parametrize("text", NASTY)
def test_words_and_code_stay_in_their_cell(text: str) -> None:
    """A bar would end it, a line break the row."""
    html = RENDER.render(f"| a | b | c |\n| - | - | - |\n| {cell(text)} | {words(text)} | last |")

    assert html.count("<td>") == 3, html
    assert "<td>last</td>" in html
    assert {"table", "thead", "tbody", "tr", "th", "td", "code"} >= set(re.findall(r"</?(\w+)", html)), html


@pytest.mark.parametrize("text", [*NASTY, "`````", "````` five", "` one", "two ``", "`"])
def test_code_holds_whatever_it_is_given(text: str) -> None:
    """Nothing of it closes the code, in a line or in a block."""
    inline, lines = RENDER.render(f"x {code(text)} y"), RENDER.render(block([text, text]) + "\n\nafter")

    assert {"p", "code"} == set(re.findall(r"</?(\w+)", inline)), inline
    assert {"pre", "code", "p"} == set(re.findall(r"</?(\w+)", lines)), lines
    assert "<p>after</p>" in lines


@pytest.mark.parametrize(
    "text", ["@acme/team", "fixes #12", "acme/shop#12", "GH-12", "!12", "~bug", "$5", "%v1", "&9", "www.evil.example"]
)
def test_nobody_is_called_and_nothing_is_referred_to(text: str) -> None:
    """Forges look for names and numbers in what is shown, after the markup is gone: none is left there in one piece."""
    seen = shown(RENDER.render(words(f"see {text} now")))

    assert text not in seen
    assert f"see {text} now" == seen.replace("\u200b", "")


def test_an_address_is_no_link() -> None:
    """Forges make links of bare addresses as well."""
    assert not re.search(r"\w://", words("see https://evil.example and HTTP://evil.example"))


def test_plain_words_are_left_as_they_are() -> None:
    """Whoever reads the mail of a forge sees the source."""
    assert (
        words("Failed in 1 min 5 s: tests/test_a.py (2 of 30).").replace("\\", "")
        == "Failed in 1 min 5 s: tests/test_a.py (2 of 30)."
    )
    assert words("Failed in 1 min 5 s: a, b") == "Failed in 1 min 5 s: a, b"


def test_a_link_leads_where_it_says() -> None:
    """Its text is anybody's, its address ours: a bracket in either ends nothing."""
    html = RENDER.render(link("a](http://evil.example) [b", "https://ci.example.com/runs/run_1#job_(x)"))

    assert re.findall(r'href="([^"]*)"', html) == ["https://ci.example.com/runs/run_1#job_%28x%29"]


def test_what_does_not_fit_is_left_out_by_whole_parts() -> None:
    """Half a block of code would swallow the rest of the page; the bound is met to the byte."""
    parts = ["é" * 10, "b" * 20, "c" * 30]

    assert "\n\n".join(parts) == joined(parts, 74, "more")
    assert f"{parts[0]}\n\n{parts[1]}\n\nmore" == joined(parts, 73, "more")
    assert joined(parts, 25, "more") == "more"
    for room in range(10, 80):
        assert room >= len(joined(parts, room, "more").encode())


def test_long_words_are_cut() -> None:
    """With a sign that they are."""
    assert words("a" * 9, 5) == "aaaa" + CUT
