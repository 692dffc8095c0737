"""Escapes user-supplied text for Markdown, LaTeX and spreadsheets.

Names of studies, networks, modules and labels are free text. Each function returns text that a
reader of its format shows literally, without markup, HTML, images, links, mathematics or formulas.
"""

import re

from dse.plain_text import one_line

_MARKDOWN = {
    **{letter: f"\\{letter}" for letter in "\\`*_[]|#~!"},
    # GitHub parses mathematics before backslash escapes, so the dollar needs an entity.
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
    # After the end of a table row, LaTeX would parse these as arguments of `\\`.
    "[": "{[}",
    "*": "{*}",
    "±": r"$\pm$",
    "\N{MULTIPLICATION SIGN}": r"$\times$",
    "\N{MINUS SIGN}": r"$-$",
    "≤": r"$\le$",
    "\N{EN DASH}": "--",
    "…": r"\dots{}",
}
# What T1 fonts have besides ASCII: Latin letters with their accents, and some signs of TS1.
_T1_BLOCKS = tuple(
    range(first, last + 1)
    for first, last in (
        (0xA0, 0xB7),
        (0xB9, 0x125),
        (0x128, 0x131),
        (0x134, 0x137),
        (0x139, 0x13E),
        (0x141, 0x148),
        (0x14A, 0x17E),
        (0x218, 0x21B),
    )
)
_T1_SIGNS = frozenset("\u2018\u2019\u201a\u201c\u201d\u201e\u2020\u2021\u2022\u2030\u20ac\u2122")
GLYPH_COMMAND = (
    r"\providecommand{\dseglyph}[2]{\ifdefined\Umathchar#1\else{[}U+#2]\fi}"
    "  % letters that only XeTeX and LuaTeX know"
)
"""Defines the command for letters that T1 fonts lack; `latex_escaped` uses it."""
_FORMULA_STARTS = (
    *"=+-@\t\r\n",
    "\N{FULLWIDTH EQUALS SIGN}",
    "\N{FULLWIDTH PLUS SIGN}",
    "\N{FULLWIDTH HYPHEN-MINUS}",
    "\N{FULLWIDTH COMMERCIAL AT}",
)


def markdown_escaped(text: str) -> str:
    """Return the text so that Markdown, including GitHub's, shows it literally."""
    escaped = "".join(_MARKDOWN.get(letter, letter) for letter in one_line(text))
    # At the start of a paragraph these would start a list, a rule or a heading.
    escaped = re.sub(r"^([-+=])", r"\\\1", escaped)
    escaped = re.sub(r"^(\d+)([.)])(?=\s|$)", r"\1\\\2", escaped)
    # GitHub turns bare addresses into links.
    escaped = escaped.replace("://", "&#58;//")
    return re.sub(r"\b(www)\.", r"\1&#46;", escaped, flags=re.IGNORECASE)


def latex_escaped(text: str) -> str:
    r"""Return the text so that LaTeX with T1 fonts prints it literally.

    Letters that T1 fonts lack become `\dseglyph{letter}{code point}` (see `GLYPH_COMMAND`), which
    prints the code point where the letter can't be printed.
    """
    line = one_line(text)
    return "".join(
        # LaTeX joins a pair of these into a dash or a quotation mark.
        f"{letter}{{}}" if letter in "-'," and letter == after else _latex_letter(letter)
        for letter, after in zip(line, line[1:] + " ", strict=False)
    )


def _latex_letter(letter: str) -> str:
    code = ord(letter)
    if letter in _LATEX:
        return _LATEX[letter]
    if letter.isascii() or letter in _T1_SIGNS or any(code in block for block in _T1_BLOCKS):
        return letter
    return rf"\dseglyph{{{letter}}}{{{code:04X}}}"


def csv_text(text: str) -> str:
    """Return the text so that a spreadsheet doesn't evaluate it as a formula.

    Text that would be evaluated gets a leading apostrophe. Characters that UTF-8 can't encode
    become question marks.
    """
    encodable = text.encode("utf-8", "replace").decode("utf-8")
    return f"'{encodable}" if encodable.startswith(_FORMULA_STARTS) else encodable
