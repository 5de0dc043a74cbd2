"""A weights file as read-only memory, so that readers of foreign formats hold no copy of the whole."""

from __future__ import annotations

import mmap
from pathlib import Path

from wsss.errors import WeightsError


def map_file(path: Path) -> memoryview:
    """The bytes of a file, mapped; they stay as long as something refers to them.

    Raises:
        WeightsError: there is no such file.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"There is no weights file {path}. Correct the path.")
    if path.stat().st_size == 0:  # which can't be mapped
        return memoryview(b"")
    with path.open("rb") as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
