"""Shell completion, from tables that load without torch, so that it responds immediately."""

from collections.abc import Callable, Iterable, Mapping

from dse.shipped import shipped

Offer = tuple[str, str]
Complete = Callable[[str], list[Offer]]


def words_of(table: Mapping[str, str] | Iterable[tuple[str, str]]) -> Complete:
    """Return a completer for the words of a closed set; words that contain ":" aren't offered.

    Args:
        table: each word with its explanation.
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
    """Complete the names of shipped studies; if none matches, the shell completes files."""
    return [(name, "a shipped study") for name in shipped("studies") if name.startswith(incomplete)]


def devices(incomplete: str) -> list[Offer]:
    """Complete the names of devices; none while a file of them is broken."""
    from dse.deploy.devices import known_devices
    from dse.errors import ConfigError

    try:
        known = known_devices()
    except ConfigError:
        return []
    return [(name, one.title) for name, one in known.items() if name.startswith(incomplete)]
