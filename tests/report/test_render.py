"""Tables as CSV, Markdown and LaTeX."""

import csv
import io
import re

from dse.report.render import Column, Table, to_csv, to_latex, to_markdown

AWKWARD = 'a_b & 50 % of $x$ #1 {c} ~d ^e \\f <g> | "h" ± i'


def table(*names: str) -> Table:
    return Table(
        name="some",
        fields=("name", "size", "missing"),
        rows=[{"name": name, "size": 2.5, "missing": None} for name in names],
        columns=[
            Column(title="Name_of it", show=lambda row: str(row["name"]), align="left"),
            Column(title="Size (%)", show=lambda row: f"{row['size']} ± 0"),
        ],
        rule_before=frozenset({1}),
    )


def test_csv_gives_back_what_it_got() -> None:
    text = to_csv(table(AWKWARD, "two\nlines, and a comma"))
    assert "\r" not in text
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["name"] for row in rows] == [AWKWARD, "two\nlines, and a comma"]
    assert rows[0]["size"] == "2.5"
    assert rows[0]["missing"] == ""


def test_no_cell_or_head_is_a_formula() -> None:
    rows = [{"=1": f"{start}1+1", "b": -2.5} for start in "=+-@\t"]
    text = to_csv(Table(name="some", fields=("=1", "b"), rows=rows))
    for line in csv.reader(io.StringIO(text)):
        assert line[0].startswith("'")
        assert line[1] in {"b", "-2.5"}


def test_markdown_has_one_line_a_row_and_no_stray_bars() -> None:
    lines = to_markdown(table(AWKWARD, "two\nlines")).splitlines()
    assert len(lines) == 4
    assert lines[1] == "| :--- | ---: |"
    for line in lines:
        assert len(re.findall(r"(?<!\\)\|", line)) == 3
    assert "a\\_b" in lines[2]


def test_latex_is_a_booktabs_tabular() -> None:
    text = to_latex(table("one", AWKWARD))
    assert r"\begin{tabular}{lr}" in text
    assert r"Name\_of it & Size (\%) \\" in text
    assert r"one & 2.5 $\pm$ 0 \\" in text
    assert text.index(r"\toprule") < text.index("one") < text.rindex(r"\midrule")
    assert text.rindex(r"\midrule") < text.index("a\\_b") < text.index(r"\bottomrule")
