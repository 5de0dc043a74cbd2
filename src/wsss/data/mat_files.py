"""Reads MATLAB files of version 5, in which SBD and PASCAL-Context are published.

A damaged file must give a message: its parts are checked for completeness, compressed ones by their
checksums, before SciPy reads it, since SciPy's reader can bring the program down where data are cut short.
"""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any, Final

from scipy import io as scipy_io

UNREADABLE: Final = (
    *(OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, NotImplementedError),
    *(OverflowError, MemoryError, struct.error, zlib.error, scipy_io.matlab.MatReadError),
)
"""What reading a damaged file, or one of another layout, may raise."""

_HEADER_BYTES: Final = 128
_ORDERS: Final = {b"\x00\x01IM": "<", b"\x01\x00MI": ">"}  # version and byte order, at the header's end
_COMPRESSED: Final = 15  # type of an element that holds another one
_LARGEST: Final = 1 << 28  # bytes of one unpacked element; those of a 1,000 x 1,000 image take a few MB


def read_variable(path: Path | str, name: str) -> Any:
    """The variable `name` of a MATLAB file, as SciPy gives it.

    Raises:
        one of `UNREADABLE`: the file is missing, damaged, of another version, or has no such variable.
    """
    content = Path(path).read_bytes()
    _check(content)
    return scipy_io.loadmat(io.BytesIO(content), variable_names=[name])[name]


def _check(content: bytes) -> None:
    """Raise `ValueError` where an element is not whole, or a compressed one not what was packed."""
    order = _ORDERS.get(content[_HEADER_BYTES - 4 : _HEADER_BYTES])
    if order is None:
        raise ValueError("it is no MATLAB file of version 5")
    place = _HEADER_BYTES
    while place < len(content):
        kind, size = struct.unpack_from(f"{order}II", content, place)
        place += 8
        if place + size > len(content):
            raise ValueError("it is cut short")
        if kind == _COMPRESSED:
            unpacking = zlib.decompressobj()
            unpacking.decompress(content[place : place + size], _LARGEST)
            if not unpacking.eof:
                raise ValueError("a part of it is cut short or far too large")
        place += size
