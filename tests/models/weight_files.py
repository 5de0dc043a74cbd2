"""Writers of foreign weights files for tests, from the descriptions of the formats alone."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

CODES = {"float32": 0, "float64": 1, "float16": 2, "uint8": 3, "int32": 4, "int8": 5, "int64": 6}


# mxnet


def mxnet_array(array: np.ndarray, form: str = "storage") -> bytes:
    """One array; `form` is "storage" (tag …C9), "long" (…C8) or "legacy" (no tag)."""
    if form == "legacy":
        head = struct.pack(f"<I{array.ndim}I", array.ndim, *array.shape)
    else:
        head = struct.pack("<Ii", 0xF993FAC9, 0) if form == "storage" else struct.pack("<I", 0xF993FAC8)
        head += struct.pack(f"<I{array.ndim}q", array.ndim, *array.shape)
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return head + struct.pack("<iii", 1, 0, CODES[array.dtype.name]) + little.tobytes()


def mxnet_file(arrays: Sequence[bytes], names: Sequence[str]) -> bytes:
    head = struct.pack("<QQQ", 0x112, 0, len(arrays))
    texts = b"".join(struct.pack("<Q", len(name.encode())) + name.encode() for name in names)
    return head + b"".join(arrays) + struct.pack("<Q", len(names)) + texts


def write_mxnet(path: Path, arrays: Mapping[str, np.ndarray], form: str = "storage") -> Path:
    path.write_bytes(mxnet_file([mxnet_array(array, form) for array in arrays.values()], list(arrays)))
    return path


# protocol buffers and caffe


def varint(value: int) -> bytes:
    found = b""
    while value >= 0x80:
        found += bytes([value & 0x7F | 0x80])
        value >>= 7
    return found + bytes([value])


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def message(field: int, content: bytes | str) -> bytes:
    data = content.encode() if isinstance(content, str) else content
    return varint(field << 3 | 2) + varint(len(data)) + data


def caffe_blob(array: np.ndarray, *, form: str = "new", packed: bool = True) -> bytes:
    """One blob; `form` "new" has a shape of any length, "legacy" four sizes; float64 goes to field 8."""
    if form == "legacy":
        sizes = (1,) * (4 - array.ndim) + array.shape
        shape = b"".join(number(field, size) for field, size in enumerate(sizes, start=1))
    elif packed:
        shape = message(7, message(1, b"".join(varint(size) for size in array.shape)))
    else:
        shape = message(7, b"".join(number(1, size) for size in array.shape))
    code, field, wire = ("<f8", 8, 1) if array.dtype == np.float64 else ("<f4", 5, 5)
    values = np.ascontiguousarray(array, code)
    if packed:
        return shape + message(field, values.tobytes())
    return shape + b"".join(varint(field << 3 | wire) + value.tobytes() for value in values.ravel())


def caffe_layer(name: str, kind: str, blobs: Iterable[np.ndarray], **options: object) -> bytes:
    """One layer of today's kind, field 100, with fields between that a reader has to skip."""
    parts = [message(1, name), message(2, kind), message(3, "data"), message(4, name), number(10, 1)]
    parts += [message(7, caffe_blob(blob, **options)) for blob in blobs]  # type: ignore[arg-type]
    return message(100, b"".join([*parts, message(106, number(1, 64))]))


def caffe_v1_layer(name: str, kind: int, blobs: Iterable[np.ndarray]) -> bytes:
    """One layer of V1, field 2, whose blobs have four sizes."""
    parts = [message(2, "data"), message(3, name), message(4, name), number(5, kind)]
    parts += [message(6, caffe_blob(blob, form="legacy")) for blob in blobs]
    return message(2, b"".join([*parts, varint(7 << 3 | 5) + struct.pack("<f", 1.0)]))


def write_caffe(path: Path, layers: Iterable[bytes]) -> Path:
    path.write_bytes(message(1, "net") + message(3, "data") + number(5, 1) + b"".join(layers))
    return path
