"""Reads `.caffemodel` files without caffe or protobuf: layers with their names, types and arrays.

The file is a message of protocol buffers, `NetParameter`. Only the fields that hold weights are read, by
their numbers; all others are skipped. Both generations are known: layers in field 100 with types as text, and
layers in field 2 with types as numbers (V1).

Source: caffe's src/caffe/proto/caffe.proto (BSD 2-clause) and the wire format of protocol buffers,
https://protobuf.dev/programming-guides/encoding: facts of the formats alone.
Differs: layers of the oldest generation (V0, a layer inside a layer) are refused.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from wsss.errors import WeightsError
from wsss.models.mapped_file import map_file

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types
LAYER: Final = {100: (1, 2, 7), 2: (4, 5, 6)}  # field of a layer: fields of its name, type and blobs
V0_LAYER: Final = 1  # in a layer of field 2
V1_TYPES: Final = {4: "Convolution", 14: "InnerProduct", 39: "Deconvolution"}  # those with weights
SHAPE, DIMENSIONS = 7, 1  # of a blob, and of its shape
FLOATS, DOUBLES = 5, 8  # of a blob
LEGACY_SHAPE: Final = (1, 2, 3, 4)  # of a blob: num, channels, height, width
_LARGEST_SIZE: Final = 2**31
_UNPACKED_KEY: Final = FLOATS << 3 | FIXED32
_UNPACKED_BYTES: Final = 5  # key and value
_MOST_DIMENSIONS: Final = 32

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class CaffeLayer:
    """A layer that has weights.

    Attributes:
        name: such as "conv1_1".
        type: such as "Convolution"; of V1 files, "type N" where it is none of `V1_TYPES`.
        blobs: weight, bias and the like, float32 or float64, each with its own memory.
    """

    name: str
    type: str
    blobs: tuple[Array, ...]


class _Field(NamedTuple):
    number: int
    wire: int
    value: int  # of a varint; 0 for the other wire types
    data: memoryview  # the bytes of the value
    end: int  # place behind it, in the message


def read_caffe_model(path: Path) -> tuple[CaffeLayer, ...]:
    """Layers with weights of a `.caffemodel` file, in its order.

    The file is mapped, so that it is in memory once besides the arrays.

    Args:
        path: the file.

    Returns:
        Layers; those without weights (pooling, losses) are left out.

    Raises:
        WeightsError: no such file, another kind of file, a damaged one, or one without weights.
    """
    message = map_file(path)
    try:
        found = [_layer(field) for field in _fields(message) if field.number in LAYER]
    except _Damaged as problem:
        raise WeightsError(
            f"{path} is no readable `.caffemodel` file: {problem} Fetch it again, or use another copy."
        ) from None
    layers = tuple(layer for layer in found if layer.blobs)
    if not layers:
        raise WeightsError(
            f"{path} must hold layers with weights; got {len(found)} layers, none with any. "
            "Use the `.caffemodel` file, not the network's description."
        )
    return layers


class _Damaged(Exception):  # noqa: N818  (never leaves this file)
    """What is wrong, as a sentence."""


def _fields(message: memoryview) -> Iterator[_Field]:
    """The fields of one message, in order."""
    at = 0
    while at < len(message):
        field = _field(message, at)
        yield field
        at = field.end


def _field(message: memoryview, start: int) -> _Field:
    """The field that begins at `start`; sizes never lead beyond the message's end."""
    key, at = _varint(message, start)
    number, wire = key >> 3, key & 7
    value, size = 0, {FIXED64: 8, FIXED32: 4}.get(wire, 0)
    begin = at
    if wire == VARINT:
        value, at = _varint(message, at)
        size = at - begin
    elif wire == BYTES:
        size, begin = _varint(message, at)
    elif wire not in (FIXED64, FIXED32):
        raise _Damaged(f"a field must have wire type 0, 1, 2 or 5; got {wire}.")
    if number == 0:
        raise _Damaged("fields must have numbers from 1 on; got 0.")
    end = begin + size
    if end > len(message):
        raise _Damaged(f"a field of {size:,} bytes goes {end - len(message):,} bytes beyond its end.")
    return _Field(number, wire, value, message[begin:end], end)


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """A number of 7 bits a byte, the lowest first, and the place behind it."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            raise _Damaged("it ends within a number.")
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, at
    raise _Damaged("a number has more than 10 bytes.")


def _expect(field: _Field, wire: int, what: str) -> None:
    if field.wire != wire:
        raise _Damaged(f"{what} must have wire type {wire}; got {field.wire}.")


def _layer(field: _Field) -> CaffeLayer:
    _expect(field, BYTES, "a layer")
    name_field, type_field, blob_field = LAYER[field.number]
    name, kind, blobs = "", "", []
    for part in _fields(field.data):
        if part.number == name_field:
            name = _text(part, "a layer's name")
        elif part.number == type_field:
            is_text = part.wire == BYTES
            kind = _text(part, "a type") if is_text else V1_TYPES.get(part.value, f"type {part.value}")
        elif part.number == blob_field:
            _expect(part, BYTES, "a blob")
            blobs.append(_blob(part.data, name))
        elif field.number == 2 and part.number == V0_LAYER and part.wire == BYTES:
            raise _Damaged("its layers are of the oldest kind (V0); caffe's upgrade_net_proto_binary helps.")
    if blobs and not name:
        raise _Damaged("a layer with weights has no name.")
    return CaffeLayer(name, kind, tuple(blobs))


def _text(field: _Field, what: str) -> str:
    _expect(field, BYTES, what)
    try:
        return bytes(field.data).decode("utf-8")
    except UnicodeDecodeError:
        raise _Damaged(f"{what} must be UTF-8.") from None


def _blob(message: memoryview, layer: str) -> Array:
    """One array; what it says of its shape must be what it holds."""
    shape: list[int] | None = None
    legacy: dict[int, int] = {}
    pieces: dict[int, list[Array]] = {FLOATS: [], DOUBLES: []}
    at = 0
    while at < len(message):
        field, start = _field(message, at), at
        at = field.end
        if field.number == SHAPE:
            _expect(field, BYTES, "a shape")
            shape = [*(shape or ()), *_sizes(field.data)]
        elif field.number in LEGACY_SHAPE:
            _expect(field, VARINT, "a size")
            legacy[field.number] = field.value
        elif message[start] == _UNPACKED_KEY:
            run = _unpacked_floats(message, start)
            pieces[FLOATS].append(run)
            at = start + _UNPACKED_BYTES * len(run)
        elif field.number in pieces:
            pieces[field.number].append(_numbers(field))
    if shape is None:
        shape = [legacy.get(number, 0) for number in LEGACY_SHAPE] if legacy else []
    return _shaped(pieces[FLOATS] or pieces[DOUBLES], tuple(shape), layer)


def _sizes(message: memoryview) -> list[int]:
    """Dimensions of a shape, packed or one by one."""
    found: list[int] = []
    for field in _fields(message):
        if field.number != DIMENSIONS:
            continue
        if field.wire == VARINT:
            found.append(field.value)
            continue
        _expect(field, BYTES, "sizes")
        at = 0
        while at < len(field.data):
            value, at = _varint(field.data, at)
            found.append(value)
    return found


def _numbers(field: _Field) -> Array:
    """Packed numbers, or a single one; a view of the file."""
    dtype = np.dtype("<f4" if field.number == FLOATS else "<f8")
    if field.wire != (FIXED32 if field.number == FLOATS else FIXED64):
        _expect(field, BYTES, "numbers")
    if len(field.data) % dtype.itemsize:
        raise _Damaged(f"{len(field.data):,} bytes are no whole numbers of type {dtype}.")
    return np.frombuffer(field.data, dtype)


def _unpacked_floats(message: memoryview, start: int) -> Array:
    """The run of single floats that begins at `start`, all at once: each is the same key and 4 bytes."""
    count = (len(message) - start) // _UNPACKED_BYTES
    records = np.frombuffer(message, np.uint8, count * _UNPACKED_BYTES, start).reshape(count, -1)
    others = np.flatnonzero(records[:, 0] != _UNPACKED_KEY)
    length = int(others[0]) if len(others) else count
    return np.ascontiguousarray(records[:length, 1:]).view("<f4")[:, 0]


def _shaped(pieces: list[Array], sizes: tuple[int, ...], layer: str) -> Array:
    """One array of the pieces, copied into memory of its own."""
    if len(sizes) > _MOST_DIMENSIONS or any(size >= _LARGEST_SIZE for size in sizes):
        raise _Damaged(f"layer {layer!r} has an impossible shape {sizes[:8]}.")
    count = sum(len(piece) for piece in pieces)
    if count != math.prod(sizes):
        raise _Damaged(f"layer {layer!r} must hold {math.prod(sizes):,} numbers of {sizes}; got {count:,}.")
    dtype = pieces[0].dtype.newbyteorder("=") if pieces else np.dtype(np.float32)
    values = np.empty(count, dtype)
    at = 0
    for piece in pieces:
        values[at : at + len(piece)] = piece
        at += len(piece)
    return values.reshape(sizes)
