"""Silences warnings while images are decoded, by several threads at a time."""

import threading
import warnings


class _Quiet:
    """Silences warnings while any thread decodes, because Python's filters aren't per thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._filters = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                self._filters = warnings.catch_warnings()
                self._filters.__enter__()
                warnings.simplefilter("ignore")

    def __exit__(self, *_error: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._filters.__exit__(None, None, None)


# Pillow warns about intact images too: about size, odd metadata or transparent palettes.
quiet = _Quiet()
