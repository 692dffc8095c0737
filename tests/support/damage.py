"""Damaged documents: bytes and values of a sound file changed at random, for fuzzing."""

import json
import signal
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random
from types import FrameType
from typing import Any

import tomli_w

TOKENS = (
    b"", b"\n", b"\x00", b"\xff\xfe", b'"', b"'", b"[", b"]", b"{", b"}", b"=", b"#", b"nan",
    b"1e999", b"-1", b"null", b"true", b"[" * 300, b'{"a":' * 300, b"a." * 900, b"9" * 400, b"\r",
    b"\\u0000", "\u202e".encode(), "é".encode(), b"2020-01-01", b"0x", b'"""',
)  # fmt: skip
LEAVES = (
    True, False, 0, -1, 1, 3, 2**31, 2**63, 2**64, 10**30, 0.5, -0.0, 1e300, float("nan"),
    float("inf"), "", "*", "a", "é\n", "full", "none", "pretrain", "from:features", "os:system",
    "torchvision:resnet18", "../x", "/dev/zero", "1 MiB", "-1 B", "1e400 GiB", "a" * 500,
    ".".join("a" * 900), "\x00",
)  # fmt: skip


def value(rng: Random, depth: int = 2) -> Any:
    """Make a value."""
    kind = rng.random()
    if depth and kind < 0.15:
        return [value(rng, depth - 1) for _ in range(rng.randrange(4))]
    if depth and kind < 0.3:
        return {str(rng.choice(LEAVES))[:8]: value(rng, depth - 1) for _ in range(rng.randrange(3))}
    return rng.choice(LEAVES)


def spliced(sound: bytes, rng: Random) -> bytes:
    """Replace some pieces of a file."""
    for _ in range(rng.randint(1, 4)):
        start = rng.randrange(len(sound) + 1)
        removed = rng.choice((0, 1, 1, 5, 60))
        added = rng.choice(TOKENS) if rng.random() < 0.7 else rng.randbytes(rng.randrange(12))
        sound = sound[:start] + added + sound[start + removed :]
    return sound


def edited(sound: Any, rng: Random) -> Any:
    """Change some values of a document."""
    document = json.loads(json.dumps(sound))
    for _ in range(rng.randint(1, 3)):
        slots = list(_slots(document))
        if not slots:
            break
        holder, key = rng.choice(slots)
        how = rng.choice(("set", "set", "add", "drop", "swap"))
        if how == "drop":
            del holder[key]
        elif how == "swap":
            other, name = rng.choice(slots)
            holder[key] = json.loads(json.dumps(other[name]))
        elif how == "add" and isinstance(holder, dict):
            holder[str(rng.choice(LEAVES))[:20]] = value(rng)
        else:
            holder[key] = value(rng)
    return document


def _slots(document: Any) -> Iterator[tuple[Any, Any]]:
    """All places of a document that hold a value."""
    if isinstance(document, dict | list):
        for key in list(document) if isinstance(document, dict) else range(len(document)):
            yield document, key
            yield from _slots(document[key])


def damaged_toml(sound: bytes, rng: Random) -> bytes:
    """Damage a TOML file, by bytes or by values."""
    if rng.random() < 0.5:
        return spliced(sound, rng)
    return tomli_w.dumps(edited(tomllib.loads(sound.decode()), rng)).encode()


def damaged_json(sound: bytes, rng: Random) -> bytes:
    """Damage a JSON file, by bytes or by values."""
    if rng.random() < 0.5:
        return spliced(sound, rng)
    return json.dumps(edited(json.loads(sound), rng)).encode()


class HangError(BaseException):
    """Something took too long. No code under test catches it, as it might an Exception."""


@contextmanager
def no_hang(seconds: int = 20) -> Iterator[None]:
    """Fail if the block takes longer, also where it hangs."""

    def late(_number: int, _frame: FrameType | None) -> None:
        raise HangError(f"took more than {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def one_line(action: Callable[[], object], errors: type[Exception]) -> None:
    """Run what may refuse its input: in one line of bounded length, and in bounded time."""
    text = ""
    with no_hang():
        try:
            action()
        except errors as error:
            text = str(error)
    assert "\n" not in text
    assert len(text) < 4000, len(text)
