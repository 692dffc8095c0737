"""Text of others, such as names in files, as one line that a terminal or page shows safely."""

import unicodedata

_BIDIRECTIONAL = frozenset(
    "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
)


def one_line(text: str) -> str:
    """Return the text as one line of printable characters.

    Line breaks and control characters become spaces. Marks that change the writing direction are
    removed, since they can disguise a name. Characters that UTF-8 can't encode, such as surrogates
    in file names, become question marks.
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
