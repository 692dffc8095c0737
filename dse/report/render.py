"""A table as CSV for machines, and as Markdown and LaTeX for people."""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from dse.report.escape import csv_text, latex_escaped, markdown_escaped

Cell = str | int | float | None
Row = Mapping[str, Cell]


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
        most_shown: so many rows, from the first on, are shown to people; all if None.
    """

    name: str
    fields: Sequence[str]
    rows: Sequence[Row]
    columns: Sequence[Column] = ()
    rule_before: frozenset[int] = frozenset()
    most_shown: int | None = None

    @property
    def shown(self) -> Sequence[Row]:
        """The rows that people see."""
        return self.rows[: self.most_shown]


def to_csv(table: Table) -> str:
    """Write raw values under a header row, each line ending in one line feed.

    A text that a spreadsheet would run as a formula gets an apostrophe in front.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([csv_text(name) for name in table.fields])
    for row in table.rows:
        cells = [row.get(name, "") for name in table.fields]
        writer.writerow([csv_text(cell) if isinstance(cell, str) else cell for cell in cells])
    return text.getvalue()


def to_markdown(table: Table) -> str:
    """Write what people see as a GitHub table."""
    heads = [markdown_escaped(column.title) for column in table.columns]
    marks = ["---:" if column.align == "right" else ":---" for column in table.columns]
    body = [[markdown_escaped(column.show(row)) for column in table.columns] for row in table.shown]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (heads, marks, *body))


def to_latex(table: Table) -> str:
    r"""Write what people see as a `tabular`, to be read with `\input` inside a `table`."""
    places = "".join("r" if column.align == "right" else "l" for column in table.columns)
    lines = [
        r"% needs \usepackage{booktabs} and \usepackage[T1]{fontenc}",
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
