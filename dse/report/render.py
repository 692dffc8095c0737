"""A table as CSV for machines, and as Markdown and LaTeX for people."""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Cell = str | int | float | None
Row = Mapping[str, Cell]

_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "±": r"$\pm$",
    "\N{MULTIPLICATION SIGN}": r"$\times$",
    "\N{MINUS SIGN}": r"$-$",
    "≤": r"$\le$",
    "\N{EN DASH}": "--",
    "…": r"\dots{}",
}
_MARKDOWN = {"\\": "\\\\", "|": "\\|", "*": "\\*", "_": "\\_", "`": "\\`", "<": "&lt;", "\n": " "}


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column as people see it.

    Attributes:
        title: its head.
        show: the text of one row's cell.
        align: numbers stand right.
    """

    title: str
    show: Callable[[Row], str]
    align: Literal["left", "right"] = "right"


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows, and how to show them.

    Attributes:
        name: of its files.
        fields: columns of the CSV, in order; what a row doesn't have stays empty.
        rows: the cells by field.
        columns: what Markdown and LaTeX show.
        rule_before: row numbers that a line sets apart from those above.
    """

    name: str
    fields: Sequence[str]
    rows: Sequence[Row]
    columns: Sequence[Column] = ()
    rule_before: frozenset[int] = frozenset()


def to_csv(table: Table) -> str:
    """Write raw values, with a head, lines ending in one line feed."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=table.fields, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(table.rows)
    return text.getvalue()


def to_markdown(table: Table) -> str:
    """Write what people see as a GitHub table."""
    heads = [_markdown(column.title) for column in table.columns]
    marks = ["---:" if column.align == "right" else ":---" for column in table.columns]
    body = [[_markdown(column.show(row)) for column in table.columns] for row in table.rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (heads, marks, *body))


def to_latex(table: Table) -> str:
    r"""Write what people see as a `tabular`, to be read with `\input` inside a `table`."""
    places = "".join("r" if column.align == "right" else "l" for column in table.columns)
    lines = [
        r"% needs \usepackage{booktabs} and an encoding that knows the names' letters (UTF-8)",
        rf"\begin{{tabular}}{{{places}}}",
        r"\toprule",
        _latex_row([column.title for column in table.columns]),
        r"\midrule",
    ]
    for number, row in enumerate(table.rows):
        if number in table.rule_before:
            lines.append(r"\midrule")
        lines.append(_latex_row([column.show(row) for column in table.columns]))
    lines += [r"\bottomrule", r"\end{tabular}"]
    return "\n".join(lines) + "\n"


def latex_escaped(text: str) -> str:
    """Write a text so that LaTeX prints it and nothing else."""
    return "".join(_LATEX.get(letter, letter) for letter in text.replace("\n", " "))


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(map(latex_escaped, cells)) + r" \\"


def _markdown(text: str) -> str:
    return "".join(_MARKDOWN.get(letter, letter) for letter in text)
