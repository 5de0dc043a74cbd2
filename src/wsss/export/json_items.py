"""JSON documents too long for memory: lists whose items are written one after the other."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, TextIO


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
