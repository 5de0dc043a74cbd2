"""Reads the `.params` files of mxnet without mxnet: named arrays, little endian.

The ImageNet weights of WideResNet-38 are published so. What a file says of itself is checked against its
size before anything is read or allocated, so a damaged file gives a message and never a large allocation.

Source: mxnet's serialisation of NDArray (src/ndarray/ndarray.cc, Apache-2.0): facts of the format alone.
Differs: sparse arrays, and the arrays of NumPy semantics that mxnet 1.6 and later can write, are refused.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from wsss.errors import WeightsError
from wsss.models.mapped_file import map_file

MAGIC: Final = 0x112  # a list of arrays
TAG_WITH_STORAGE: Final = 0xF993FAC9  # storage type, number of dimensions, dimensions of 8 bytes
TAG_LONG_SHAPE: Final = 0xF993FAC8  # number of dimensions, dimensions of 8 bytes
TAG_NUMPY: Final = 0xF993FACA
MAX_DIMENSIONS: Final = 32  # without a tag, the first number is that of dimensions, then those of 4 bytes
DTYPES: Final = ("<f4", "<f8", "<f2", "|u1", "<i4", "|i1", "<i8")
_SMALLEST_ARRAY: Final = 4  # bytes: a tag
_SMALLEST_NAME: Final = 8  # bytes: a length

Array = npt.NDArray[Any]


def is_mxnet(first_bytes: bytes) -> bool:
    """Whether a file that begins so is a list of mxnet's arrays."""
    return first_bytes[:8] == struct.pack("<Q", MAGIC)


def read_mxnet_params(path: Path) -> dict[str, Array]:
    """Named arrays of a `.params` file, each with its own memory, in the file's order.

    The file is mapped, so that it is in memory once besides the arrays.

    Args:
        path: the file.

    Returns:
        Arrays under their names in the file, such as `arg:conv1a_weight`; float32, float64, float16, uint8,
        int32, int8 or int64. Names without an array (mxnet's "none") are left out.

    Raises:
        WeightsError: no such file, another kind of file, a damaged one, or sparse arrays.
    """
    reader = _Reader(Path(path))
    if reader.number("<Q") != MAGIC:
        raise reader.error(
            f"must begin with the number {MAGIC:#x}", "something else", "Use a `.params` file."
        )
    reader.number("<Q")  # reserved
    arrays = [reader.array() for _ in range(reader.count("arrays", _SMALLEST_ARRAY))]
    names = [reader.name() for _ in range(reader.count("names", _SMALLEST_NAME))]
    if len(names) != len(arrays) or len(set(names)) != len(names):
        raise reader.error(
            "must have one name of its own for each array",
            f"{len(set(names))} different names for {len(arrays)} arrays",
            "Save a dictionary, not a list.",
        )
    if reader.left:
        raise reader.error("must end behind its names", f"{reader.left} more bytes", "Fetch it again.")
    return {name: array for name, array in zip(names, arrays, strict=True) if array is not None}


class _Reader:
    """Walks through a mapped file and never beyond its end."""

    def __init__(self, path: Path) -> None:
        self._path, self._at = path, 0
        self._bytes = map_file(path)

    @property
    def left(self) -> int:
        """Bytes that are not read yet."""
        return len(self._bytes) - self._at

    def error(self, expected: str, got: str, advice: str) -> WeightsError:
        """The message for this file, with the place where it went wrong."""
        return WeightsError(
            f"{self._path} is no readable file of mxnet: it {expected}; got {got} (byte {self._at:,}). "
            f"{advice}"
        )

    def take(self, size: int, what: str) -> memoryview:
        """The next `size` bytes, uncopied."""
        if size > self.left:
            raise self.error(
                f"must hold {size:,} bytes of {what} here", f"{self.left:,} before its end", "Fetch it again."
            )
        self._at += size
        return self._bytes[self._at - size : self._at]

    def number(self, kind: str) -> int:
        """One integer, as `struct` describes it."""
        return int(struct.unpack(kind, self.take(struct.calcsize(kind), "a number"))[0])

    def count(self, what: str, smallest: int) -> int:
        """How many entries follow; no more than there is room for."""
        count = self.number("<Q")
        if count * smallest > self.left:
            raise self.error(
                f"must have room for its {what}", f"{count:,} in {self.left:,} bytes", "Fetch it again."
            )
        return count

    def name(self) -> str:
        """A length and as many bytes of text."""
        try:
            return bytes(self.take(self.number("<Q"), "a name")).decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.error("must have names in UTF-8", str(error.reason), "Fetch it again.") from error

    def shape(self) -> tuple[int, ...]:
        """Tag and dimensions of the next array; () where mxnet saved none."""
        tag = self.number("<I")
        if tag == TAG_NUMPY:
            raise self.error(
                "must hold arrays of mxnet's own semantics",
                "those of NumPy",
                "Save it again without `npx.set_np()`.",
            )
        if tag == TAG_WITH_STORAGE and (storage := self.number("<i")) != 0:
            raise self.error(
                "must hold dense arrays",
                f"storage type {storage}",
                "Save it again with `tostype('default')`.",
            )
        is_long = tag in (TAG_WITH_STORAGE, TAG_LONG_SHAPE)
        dimensions = self.number("<I") if is_long else tag
        if dimensions > MAX_DIMENSIONS:
            raise self.error(
                f"must have arrays of at most {MAX_DIMENSIONS} dimensions",
                f"{dimensions:,}",
                "Fetch it again.",
            )
        shape = tuple(self.number("<q" if is_long else "<I") for _ in range(dimensions))
        if any(size < 0 for size in shape):
            raise self.error("must have sizes of at least 0", f"shape {shape}", "Fetch it again.")
        return shape

    def array(self) -> Array | None:
        """Shape, device, type of number and numbers of the next array; a copy in the machine's byte order."""
        shape = self.shape()
        if not shape:
            return None
        self.take(8, "a device")
        kind = self.number("<i")
        if not 0 <= kind < len(DTYPES):
            raise self.error(
                f"must have numbers of a kind in 0…{len(DTYPES) - 1}", f"kind {kind}", "Save it as float32."
            )
        dtype = np.dtype(DTYPES[kind])
        data = self.take(math.prod(shape) * dtype.itemsize, f"an array {shape}")
        values = np.frombuffer(data, dtype).reshape(shape)
        return values.astype(dtype.newbyteorder("="), copy=True)
