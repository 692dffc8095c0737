"""Digests of text and JSON, and the seeds that follow from them."""

import hashlib
import json

LENGTH = 16


def text_digest(text: str, *, length: int = LENGTH) -> str:
    """Return the first hexadecimal digits of a text's SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def json_digest(content: object, *, length: int = LENGTH) -> str:
    """Digest a JSON value; the order of an object's keys doesn't matter."""
    return text_digest(json.dumps(content, sort_keys=True, separators=(",", ":")), length=length)


def derived_seed(*parts: str | int) -> int:
    """Return a seed below 2**32 that depends on all parts and nothing else."""
    digest = hashlib.sha256(":".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:4], "big")
