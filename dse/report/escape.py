"""Text that a user wrote, made harmless for Markdown, LaTeX and spreadsheets.

Names of studies, networks, modules and labels are free text. Each function returns text that the
reader of its format shows literally: no markup, HTML, image, link, mathematics or formula.
"""

import re
import unicodedata

_MARKDOWN = {
    **{letter: f"\\{letter}" for letter in "\\`*_[]|#~!"},
    # GitHub reads mathematics before backslashes, hence an entity for the dollar.
    "&": "&amp;",
    "<": "&lt;",
    ">": "&gt;",
    "$": "&#36;",
    "@": "&#64;",
}
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
    "`": r"\textasciigrave{}",
    # After the end of a table's row LaTeX takes these for arguments of `\\`.
    "[": "{[}",
    "*": "{*}",
    "±": r"$\pm$",
    "\N{MULTIPLICATION SIGN}": r"$\times$",
    "\N{MINUS SIGN}": r"$-$",
    "≤": r"$\le$",
    "\N{EN DASH}": "--",
    "…": r"\dots{}",
}
_FORMULA_STARTS = (
    *"=+-@\t\r\n",
    "\N{FULLWIDTH EQUALS SIGN}",
    "\N{FULLWIDTH PLUS SIGN}",
    "\N{FULLWIDTH HYPHEN-MINUS}",
    "\N{FULLWIDTH COMMERCIAL AT}",
)
_BIDIRECTIONAL = frozenset(
    "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
)


def one_line(text: str) -> str:
    """Return the text as one line of printable characters.

    Line breaks and control characters become spaces. Marks that change the direction of writing
    are dropped, since they can show a name as another one. What UTF-8 can't encode (a surrogate,
    from a file's name) becomes a question mark.
    """
    letters = []
    for letter in text:
        category = unicodedata.category(letter)
        if category == "Cs":
            letters.append("?")
        elif category in {"Cc", "Zl", "Zp"}:
            letters.append(" ")
        elif letter not in _BIDIRECTIONAL:
            letters.append(letter)
    return "".join(letters).strip()


def markdown_escaped(text: str) -> str:
    """Return the text so that a Markdown reader, GitHub's included, shows it literally."""
    escaped = "".join(_MARKDOWN.get(letter, letter) for letter in one_line(text))
    # At the start of a paragraph these would begin a list, a rule or a heading.
    escaped = re.sub(r"^([-+=])", r"\\\1", escaped)
    escaped = re.sub(r"^(\d+)([.)])(?=\s|$)", r"\1\\\2", escaped)
    # GitHub makes links of bare addresses.
    escaped = escaped.replace("://", "&#58;//")
    return re.sub(r"\b(www)\.", r"\1&#46;", escaped, flags=re.IGNORECASE)


def latex_escaped(text: str) -> str:
    """Return the text so that LaTeX, with T1 fonts, prints it literally."""
    line = one_line(text)
    return "".join(
        # Twice the same, these are joined into a dash or a quotation mark.
        f"{letter}{{}}" if letter in "-'," and letter == after else _LATEX.get(letter, letter)
        for letter, after in zip(line, line[1:] + " ", strict=False)
    )


def csv_text(text: str) -> str:
    """Return the text so that a spreadsheet doesn't run it as a formula.

    Where it would, an apostrophe is put in front. What UTF-8 can't encode becomes a question mark.
    """
    encodable = text.encode("utf-8", "replace").decode("utf-8")
    return f"'{encodable}" if encodable.startswith(_FORMULA_STARTS) else encodable
