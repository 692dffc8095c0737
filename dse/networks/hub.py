"""The Hugging Face hub: reached without retries where there is no network."""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

_PROXIES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")


@contextmanager
def quick_failure(constants: Any) -> Iterator[None]:
    """Look at files on this machine alone where the hub's host has no address.

    Otherwise its client would try for half a minute, and print each try.

    Args:
        constants: `huggingface_hub.constants`.
    """
    before, log = constants.HF_HUB_OFFLINE, logging.getLogger("huggingface_hub")
    level = log.level
    if not _has_address(constants.ENDPOINT):
        constants.HF_HUB_OFFLINE = True
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
        log.setLevel(level)


def _has_address(endpoint: str) -> bool:
    if any(os.environ.get(one) for one in _PROXIES):
        return True  # the proxy looks the host up
    try:
        socket.getaddrinfo(urlparse(endpoint).hostname, 443)
    except OSError:
        return False
    return True


def cached(hub: Any, repository: str, files: tuple[str, ...]) -> Path | None:
    """Return the first of some files of a repository that was downloaded before.

    Args:
        hub: the module `huggingface_hub`.
        repository: name on the hub.
        files: names of files, the preferred one first.
    """
    for file in files:
        found = hub.try_to_load_from_cache(repository, file)
        if isinstance(found, str):
            return Path(found)
    return None
