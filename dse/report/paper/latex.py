r"""LaTeX of a paper's parts: floats for its figures and tables, and a document that shows them."""

import re
from collections.abc import Sequence

from dse.report.escape import GLYPH_COMMAND, latex_escaped

_BREAK = r"\allowbreak{}"
PREAMBLE = r"""\documentclass[twocolumn]{article}
\usepackage[T1]{fontenc}
\usepackage[utf8]{inputenc}
\usepackage[margin=18mm,columnsep=6mm]{geometry}
\usepackage{booktabs}
\usepackage{graphicx}
\usepackage{url}
"""


def figure_float(name: str, caption: str, *, wide: bool) -> str:
    """Return a float with a picture of one width.

    Args:
        name: name of the picture.
        caption: plain text.
        wide: whether it takes the page's width, not a column's.
    """
    kind, width = ("figure*", "page") if wide else ("figure", "column")
    return "\n".join(
        [
            rf"\begin{{{kind}}}",
            r"  \centering",
            rf"  \includegraphics[width=\linewidth]{{figures/{name}-{width}}}",
            rf"  \caption{{{latex_escaped(caption)}}}",
            rf"  \label{{fig:dse-{name}}}",
            rf"\end{{{kind}}}",
        ]
    )


def table_float(name: str, caption: str) -> str:
    """Return a float of the page's width with a table, which is shrunk if it is wider.

    Args:
        name: name of the table.
        caption: plain text.
    """
    fitted = r"\ifdim\width>\textwidth\textwidth\else\width\fi"
    return "\n".join(
        [
            r"\begin{table*}",
            r"  \centering\footnotesize",
            rf"  \caption{{{latex_escaped(caption)}}}",
            rf"  \label{{tab:dse-{name}}}",
            r"  \vspace{1ex}",
            rf"  \resizebox{{{fitted}}}{{!}}{{\input{{tables/{name}}}}}",
            r"\end{table*}",
        ]
    )


def code(name: str) -> str:
    """Return a name in typewriter letters that may break after its dots, colons and dashes."""
    parts = map(latex_escaped, re.split(r"(?<=[.:/_-])", name))
    return rf"\texttt{{{_BREAK.join(parts)}}}"


def with_glyphs(parts: Sequence[str]) -> str:
    """Return parts of a document, with the command for letters that T1 fonts lack above them."""
    return "\n\n".join([GLYPH_COMMAND, *parts]) + "\n"


def sample_document(title: str) -> str:
    """Return a document that shows everything.

    Args:
        title: plain text.
    """
    return "\n".join(
        [
            r"% pdflatex sample; bibtex sample; pdflatex sample; pdflatex sample",
            PREAMBLE.rstrip(),
            r"\extrafloats{100}",
            GLYPH_COMMAND,
            rf"\title{{{latex_escaped(title)}}}",
            r"\author{}\date{}",
            r"\sloppy  % long names",
            r"\begin{document}",
            r"\maketitle",
            r"\input{method}",
            r"\input{figures}",
            r"\input{tables}",
            r"\bibliographystyle{plain}",
            r"\bibliography{references}",
            r"\end{document}",
            "",
        ]
    )
