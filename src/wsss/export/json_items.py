"""JSON documents: lists too long for memory, written item by item, and what damaged ones raise."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final, TextIO

DAMAGE: Final = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)
"""What reading a damaged document raises, whichever of its parts is wrong."""


def write_items(stream: TextIO, items: Iterable[Any]) -> int:
    """Write a JSON list, one item a line; how many there were.

    Example:
        >>> import io
        >>> stream = io.StringIO()
        >>> write_items(stream, ({"id": number} for number in (1, 2)))
        2
        >>> json.loads(stream.getvalue())
        [{'id': 1}, {'id': 2}]
    """
    count = 0
    stream.write("[")
    for item in items:
        stream.write("\n" if count == 0 else ",\n")
        stream.write(json.dumps(item, ensure_ascii=False, separators=(",", ":")))
        count += 1
    stream.write("\n]" if count else "]")
    return count
