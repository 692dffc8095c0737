"""Text of users, harmless in Markdown, LaTeX and spreadsheets."""

import re
from html import unescape

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from dse.plain_text import one_line
from dse.report.escape import csv_text, latex_escaped, markdown_escaped

MARKDOWN = MarkdownIt("commonmark").enable(["table", "strikethrough"])
MARKUP = st.text(alphabet="\\`*_[]|#~!&<>$@()-+=:/.1w \n", max_size=30) | st.text(max_size=30)


@given(MARKUP)
@example("![i](http://a/b.png) <img src=x> [l](//a) <http://a> &amp; `c` **b** $x$")
@example("1) one\n===\n- two")
@example("http://a.b www.a.b a@b.c @team #1")
def test_markdown_shows_the_text_and_nothing_else(text: str) -> None:
    escaped = markdown_escaped(text)
    shown = re.sub(r"\s+", " ", one_line(text)).strip()
    html = MARKDOWN.render(escaped).strip()
    if shown:
        body = html.removeprefix("<p>").removesuffix("</p>")
        assert "<" not in body
        assert re.sub(r"\s+", " ", unescape(body)).strip() == shown
    assert not re.search(r"://|\bwww\.|[$@]", escaped)  # links, mathematics, mentions of GitHub's


@given(MARKUP)
def test_markdown_stays_in_its_cell(text: str) -> None:
    html = MARKDOWN.render(f"| a | b |\n| :--- | :--- |\n| x {markdown_escaped(text)} | c |\n")
    assert html.count("<td") == 2
    assert html.count("<tr>") == 2


@given(st.text(alphabet="{}&%$#_~^<>|\"\\`[]*-',\n", max_size=20) | st.text(max_size=20))
def test_latex_has_no_live_characters(text: str) -> None:
    escaped = latex_escaped(text)
    for command in (
        *(
            rf"\text{name}{{}}"
            for name in (
                "backslash",
                "asciitilde",
                "asciicircum",
                "less",
                "greater",
                "bar",
                "quotedbl",
                "asciigrave",
            )
        ),
        r"$\pm$",
        r"$\times$",
        r"$-$",
        r"$\le$",
        r"\dots{}",
        "{[}",
        "{*}",
        "-{}",
        "'{}",
        ",{}",
        *(rf"\{letter}" for letter in "{}&%$#_"),
    ):
        escaped = escaped.replace(command, " ")
    escaped = re.sub(r"\\dseglyph\{(.)\}\{([0-9A-F]{4,6})\}", r"\1", escaped, flags=re.DOTALL)
    assert not set(escaped) & set('\\{}&%$#_~^<>|"`[*\n')


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a--b", "a-{}-b"),
        ("[x]", "{[}x]"),
        ("a\x00b\u202ec", "a bc"),
        ("50 % ± 1", r"50 \% $\pm$ 1"),
        ("Łódź é €", "Łódź é €"),
        ("中 🙂", r"\dseglyph{中}{4E2D} \dseglyph{🙂}{1F642}"),
    ],
)
def test_latex_examples(text: str, expected: str) -> None:
    assert latex_escaped(text) == expected


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\uff1d1"])
def test_formulas_become_text(text: str) -> None:
    assert csv_text(text) == f"'{text}"


def test_other_text_of_a_csv_stays() -> None:
    assert csv_text('{"channels": {"a": -1}}') == '{"channels": {"a": -1}}'
    assert csv_text("caf\udce9") == "caf?"
