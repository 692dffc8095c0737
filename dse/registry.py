"""Registries: what comes in kinds, by the words that studies, flags and messages use."""

from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar

from dse.errors import ConfigError
from dse.names import use

Entry = TypeVar("Entry")


class Registry(Mapping[str, Entry], Generic[Entry]):
    """The entries of one kind, such as optimizers.

    The words and their summaries live in `dse.names`, which the command line reads before torch is
    imported; a registry adds what each word does. A new entry is added to both by `register`.

    Args:
        kind: what messages call an entry, such as "optimizer".
        summaries: the kind's table in `dse.names`.
    """

    def __init__(self, kind: str, summaries: dict[str, str]) -> None:
        self.kind = kind
        self.summaries = summaries
        self._entries: dict[str, Entry] = {}

    def register(self, word: str, entry: Entry, *, summary: str | None = None) -> None:
        """Add an entry.

        Args:
            word: that names it in studies and flags.
            entry: what it does.
            summary: one line for help texts; needed for a word that `dse.names` doesn't have.

        Raises:
            ConfigError: if the word is taken, or lacks a summary.
        """
        if word in self._entries:
            raise ConfigError(f"{self.kind} {word!r} is registered already: choose another word")
        if word not in self.summaries and not summary:
            raise ConfigError(f"{self.kind} {word!r} needs a summary: one line for help texts")
        if summary:
            self.summaries[word] = summary
        self._entries[word] = entry

    def unregister(self, word: str) -> None:
        """Remove an entry that was added, such as a test's."""
        del self._entries[word]
        del self.summaries[word]

    def __getitem__(self, word: str) -> Entry:
        """Return an entry.

        Raises:
            ConfigError: if the word is unknown; it names the nearest one.
        """
        try:
            return self._entries[word]
        except KeyError:
            raise ConfigError(
                f"unknown {self.kind} {word!r}: {use(self._entries, given=word)}"
            ) from None

    def __contains__(self, word: object) -> bool:
        """Whether a word is registered."""
        return word in self._entries

    def __iter__(self) -> Iterator[str]:
        """Go through the words in the order of their registration."""
        return iter(self._entries)

    def __len__(self) -> int:
        """Count the entries."""
        return len(self._entries)
