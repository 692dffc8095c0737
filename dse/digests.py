"""Digests (SHA-256) of text, JSON, bytes and files, and the seeds that follow from them.

Their values name what runs and caches have stored, so they never change.
"""

import hashlib
import json
from collections.abc import Iterable
from io import BufferedIOBase

LENGTH = 16
WHOLE = 64  # hexadecimal digits of a whole digest


def canonical_json(content: object) -> str:
    """Write a JSON value as text that doesn't depend on the order of an object's keys."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"))


def json_digest(content: object, *, length: int = LENGTH) -> str:
    """Digest a JSON value; the order of an object's keys doesn't matter."""
    return text_digest(canonical_json(content), length=length)


def text_digest(text: str, *, length: int = LENGTH) -> str:
    """Return the first hexadecimal digits of a text's digest."""
    return bytes_digest(text.encode(), length=length)


def bytes_digest(content: bytes, *, length: int = WHOLE) -> str:
    """Return the first hexadecimal digits of the digest of some bytes."""
    return parts_digest([content], length=length)


def parts_digest(parts: Iterable[bytes], *, length: int = WHOLE) -> str:
    """Return the first hexadecimal digits of the digest of bytes that follow one another.

    Args:
        parts: the bytes, held one part at a time if this is a generator.
        length: number of hexadecimal digits.
    """
    hashed = hashlib.sha256()
    for part in parts:
        hashed.update(part)
    return hashed.hexdigest()[:length]


def file_digest(file: BufferedIOBase) -> str:
    """Return the whole digest of an open file, in hexadecimal."""
    return hashlib.file_digest(file, "sha256").hexdigest()


def raw_digest(content: bytes) -> bytes:
    """Return the 32 bytes of the digest of some bytes."""
    return hashlib.sha256(content).digest()


def derived_bytes(*parts: str | int) -> bytes:
    """Return 32 bytes that depend on all parts and nothing else."""
    return raw_digest(":".join(map(str, parts)).encode())


def derived_seed(*parts: str | int, bits: int = 32) -> int:
    """Return a seed below 2**bits that depends on all parts and nothing else.

    Args:
        parts: what the seed is for, such as the study's seed and a purpose.
        bits: a multiple of 8, up to 256.
    """
    return int.from_bytes(derived_bytes(*parts)[: bits // 8], "big")
