"""Renders a table as CSV with raw values, and as Markdown and LaTeX for readers."""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from dse.report.escape import GLYPH_COMMAND, csv_text, latex_escaped, markdown_escaped

Cell = str | int | float | None
Row = Mapping[str, Cell]

NOTHING = "\N{EN DASH}"
"""What a cell without a value shows."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column as it is displayed.

    Attributes:
        title: header.
        show: returns the text of a row's cell.
        align: alignment; numbers are right-aligned.
    """

    title: str
    show: Callable[[Row], str]
    align: Literal["left", "right"] = "right"


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows, and how to display them.

    Attributes:
        name: stem of its files.
        fields: columns of the CSV in order; missing cells stay empty.
        rows: cells by field.
        columns: columns that Markdown and LaTeX show.
        rule_before: indices of rows above which a rule is drawn.
        most_shown: maximum number of rows that Markdown and LaTeX show; all if None.
    """

    name: str
    fields: Sequence[str]
    rows: Sequence[Row]
    columns: Sequence[Column] = ()
    rule_before: frozenset[int] = frozenset()
    most_shown: int | None = None

    @property
    def shown(self) -> Sequence[Row]:
        """The rows that Markdown and LaTeX show."""
        return self.rows[: self.most_shown]


def to_csv(table: Table) -> str:
    """Return raw values under a header row, with line feeds as line ends.

    Text that a spreadsheet would evaluate as a formula gets a leading apostrophe.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([csv_text(name) for name in table.fields])
    for row in table.rows:
        cells = [row.get(name, "") for name in table.fields]
        writer.writerow([csv_text(cell) if isinstance(cell, str) else cell for cell in cells])
    return text.getvalue()


def to_markdown(table: Table) -> str:
    """Return the displayed columns as a GitHub table."""
    heads = [markdown_escaped(column.title) for column in table.columns]
    marks = ["---:" if column.align == "right" else ":---" for column in table.columns]
    body = [[markdown_escaped(column.show(row)) for column in table.columns] for row in table.shown]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (heads, marks, *body))


def to_latex(table: Table) -> str:
    r"""Return the displayed columns as a `tabular`, for use with `\input` inside a `table`."""
    places = "".join("r" if column.align == "right" else "l" for column in table.columns)
    lines = [
        r"% needs \usepackage{booktabs} and \usepackage[T1]{fontenc}",
        GLYPH_COMMAND,
        rf"\begin{{tabular}}{{{places}}}",
        r"\toprule",
        _latex_row([column.title for column in table.columns]),
        r"\midrule",
    ]
    for number, row in enumerate(table.shown):
        if number in table.rule_before:
            lines.append(r"\midrule")
        lines.append(_latex_row([column.show(row) for column in table.columns]))
    lines += [r"\bottomrule", r"\end{tabular}"]
    return "\n".join(lines) + "\n"


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(map(latex_escaped, cells)) + r" \\"
