"""Seeded changes of valid files: of their bytes, their text, and the values of JSON documents."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import Any

SPECIAL = (
    "\0",
    '"',
    "'",
    ",",
    "|",
    ":",
    "{",
    "[",
    "&",
    "*",
    "%",
    "\t",
    "\r",
    "\n\n",
    "\u202e",
    "é",
    "../",
    "\\",
)
HOSTILE: tuple[Any, ...] = (
    *(None, True, -1, 0, 2**63, 10**400, 1e308, float("nan"), float("inf"), "", "\0", "x" * 10_000),
    *("../../x", "/etc/passwd", [], {}, [[]], [None], {"": None}, ["x"] * 300, "!!python/object:os.system"),
)
"""Values that no field of a document expects everywhere."""


def changed_bytes(data: bytes, count: int, seed: int) -> Iterator[bytes]:
    """Cut off, flipped, zeroed, filled, repeated or left out bytes, here and there."""
    rng = random.Random(seed)
    for number in range(count):
        start = rng.randrange(len(data))
        end = min(len(data), start + rng.randint(1, max(1, len(data) // 8)))
        noise = rng.randbytes(end - start)
        flipped = bytearray(data)
        for _ in range(rng.randint(1, 12)):
            flipped[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        yield (
            data[:start],
            bytes(flipped),
            data[:start] + bytes(end - start) + data[end:],
            data[:start] + noise + data[end:],
            data[:end] + data[start:],
            data[:start] + data[end:],
            noise + data,
        )[number % 7]


def changed_text(text: str, count: int, seed: int) -> Iterator[bytes]:
    """Special letters, lost, doubled and endless lines, and other encodings."""
    rng = random.Random(seed)
    for number in range(count):
        lines = text.splitlines(keepends=True)
        place, at = rng.randrange(len(lines)), rng.randrange(len(text))
        special = rng.choice(SPECIAL) * rng.choice((1, 1, 3, 500))
        lost, doubled, endless = list(lines), list(lines), list(lines)
        del lost[place]
        doubled[place:place] = [lines[place]] * 3
        endless[place] = lines[place].rstrip("\n") + "x" * 100_000 + "\n"
        yield (
            (text[:at] + special + text[at:]).encode(),
            "".join(lost).encode(),
            "".join(doubled).encode(),
            text.encode("utf-16"),
            "".join(endless).encode(),
            text[:at].encode() + b"\xff\xfe\xe9" + text[at:].encode(),
            text[:at].encode(),
        )[number % 7]


def changed_documents(document: Any, count: int, seed: int) -> Iterator[Any]:
    """Copies of a document with one value replaced, left out or put under another key."""
    rng = random.Random(seed)
    for _ in range(count):
        changed = copy.deepcopy(document)
        holder, key = rng.choice(list(_places(changed)))
        action = rng.random()
        if action < 0.15:
            del holder[key]
        elif action < 0.25 and isinstance(holder, dict):
            holder[f"{key}_"] = holder.pop(key)
        else:
            holder[key] = copy.deepcopy(rng.choice(HOSTILE))
        yield changed


def _places(document: Any) -> Iterator[tuple[Any, Any]]:
    """Every value's holder and key."""
    items = document.items() if isinstance(document, dict) else enumerate(document)
    for key, value in list(items):
        yield document, key
        if isinstance(value, dict | list):
            yield from _places(value)
