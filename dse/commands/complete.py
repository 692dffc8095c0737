"""What a shell offers for an argument; read from tables alone, so that no key waits for torch."""

from collections.abc import Callable, Iterable, Mapping

from dse.shipped import shipped

Offer = tuple[str, str]
Complete = Callable[[str], list[Offer]]


def words_of(table: Mapping[str, str] | Iterable[tuple[str, str]]) -> Complete:
    """Make what completes the words of a closed set; those that name a module aren't offered.

    Args:
        table: each word with its line of explanation.
    """
    known = dict(table)

    def complete(incomplete: str) -> list[Offer]:
        return [
            (word, line)
            for word, line in known.items()
            if word.startswith(incomplete) and ":" not in word
        ]

    return complete


def studies(incomplete: str) -> list[Offer]:
    """Complete the names of shipped studies; where none fits, the shell offers files."""
    return [(name, "a shipped study") for name in shipped("studies") if name.startswith(incomplete)]
