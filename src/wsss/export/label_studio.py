"""Masks for Label Studio: tasks with brush regions as predictions, and the labelling set-up that fits them.

Label Studio packs a region as run lengths of bits: 32 bits say how many values there are, 5 bits how wide
one is, and 4 times 4 bits how wide the four kinds of run length are (each less 1). Then come blocks: a bit
(1: one value repeated; 0: values as they are), 2 bits for the kind, the length less 1, and the value or
values. The values are those of an RGBA picture, row by row: each pixel stands there four times, 0 or 255.

Pixels of 255 (ignore) belong to no region.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt

from wsss.errors import DataError
from wsss.export.json_items import DAMAGE, write_items
from wsss.export.mask_source import MaskSource, checked_size
from wsss.export.target_file import check_target_file
from wsss.training.checkpoint import atomic_path, write_atomically

LENGTH_BITS: Final = (3, 4, 8, 16)  # the four kinds of run length; the longest run is 2**16
VALUE_BITS: Final = 8
CHANNELS: Final = 4
EXAMPLE: Final = "tasks.json"  # for messages
_SETUP_HEAD: Final = b"<View"
_CONTROL, _IMAGE = "tag", "image"  # names in the labelling set-up

Mask = npt.NDArray[np.uint8]
Inside = npt.NDArray[np.bool_]


def encode_rle(inside: Inside) -> list[int]:
    """Pack a region as Label Studio does.

    Args:
        inside: (H, W), bool.

    Returns:
        Bytes, 0-255.
    """
    flat = inside.ravel()
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    lengths = np.diff(np.append(starts, flat.size)) * CHANNELS
    bits = [f"{flat.size * CHANNELS:032b}", f"{VALUE_BITS - 1:05b}", *(f"{b - 1:04b}" for b in LENGTH_BITS)]
    for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
        value = "1" * VALUE_BITS if flat[start] else "0" * VALUE_BITS
        bits += _blocks(length, value)
    text = "".join(bits)
    return np.packbits(np.frombuffer(text.encode("ascii"), np.uint8) - ord("0")).tolist()  # type: ignore[no-any-return]


def decode_rle(packed: Sequence[int], size: tuple[int, int]) -> Inside:
    """Unpack a region, of this library or of Label Studio's own brush; (H, W), bool.

    Args:
        packed: bytes, 0-255.
        size: (H, W).

    Raises:
        DataError: the bytes are damaged, or of another size.
    """
    try:
        bits = np.unpackbits(np.asarray(packed, np.uint8))
        values = _unpacked(bits.tobytes().translate(bytes.maketrans(b"\0\1", b"01")).decode("ascii"), size)
    except (ValueError, OverflowError, TypeError) as error:
        raise DataError(f"A brush region can't be unpacked ({error}). Export it again.") from error
    return values.reshape(*size, CHANNELS)[..., -1] > 0  # where the paint is opaque


def write_label_studio(source: MaskSource, path: Path, *, prefix: str = "") -> int:
    """Write tasks to import into Label Studio, and `<name>.xml` beside them, the labelling set-up.

    Args:
        source: masks; their images' names become the tasks' images.
        path: the JSON file, complete or absent.
        prefix: put before images' names, such as `/data/local-files/?d=photos/`.

    Returns:
        The number of regions.

    Raises:
        DataError: the set-up would replace the tasks or a file that is none, or there can be no such file.
    """
    check_target_file(path, EXAMPLE)
    setup = _setup_path(path)
    regions = 0

    def tasks() -> Iterator[dict[str, Any]]:
        nonlocal regions
        for name in source.names:
            results = [
                _result(f"{number}", inside, source.class_names[number])
                for number, inside in source.class_masks(name)
            ]
            regions += len(results)
            yield {
                "data": {_IMAGE: prefix + source.image_name(name)},
                "predictions": [{"model_version": "wsss", "result": results}],
            }

    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
        write_items(stream, tasks())
        stream.write("\n")
    write_atomically(setup, labelling_setup(source).encode())
    return regions


def read_label_studio(path: Path, class_names: Sequence[str]) -> Iterator[tuple[str, Mask]]:
    """Masks from tasks, predicted or annotated; where regions overlap, the later one wins.

    An annotated task's first annotation counts, else its first prediction. A task without any region has no
    size, so no mask is given.

    Args:
        path: JSON file of tasks.
        class_names: K + 1 names, the first "background".

    Yields:
        The task's image and its mask; (H, W), uint8.

    Raises:
        DataError: the file can't be understood, or names an unknown class.
    """
    try:
        for task in json.loads(path.read_text(encoding="utf-8")):
            answers = task.get("annotations") or task.get("predictions") or [{"result": []}]
            mask: Mask | None = None
            for region in answers[0]["result"]:
                size = checked_size(region["original_height"], region["original_width"])
                mask = np.zeros(size, np.uint8) if mask is None else mask
                number = class_names.index(region["value"]["brushlabels"][0])
                mask[decode_rle(region["value"]["rle"], size)] = number
            if mask is not None:
                yield task["data"][_IMAGE], mask
    except DAMAGE as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{path} is no list of Label Studio tasks with brush regions of these classes "
            f"({type(error).__name__}: {error}). Export it again, or correct the classes."
        ) from error


def labelling_setup(source: MaskSource) -> str:
    """The labelling set-up (XML) in which the regions have their classes and colours."""
    view = ElementTree.Element("View")
    ElementTree.SubElement(view, "Image", name=_IMAGE, value=f"${_IMAGE}")
    labels = ElementTree.SubElement(view, "BrushLabels", name=_CONTROL, toName=_IMAGE)
    for name, (red, green, blue) in list(zip(source.class_names, source.colours.tolist(), strict=True))[1:]:
        ElementTree.SubElement(labels, "Label", value=name, background=f"#{red:02x}{green:02x}{blue:02x}")
    ElementTree.indent(view)
    return ElementTree.tostring(view, encoding="unicode") + "\n"


def _setup_path(path: Path) -> Path:
    """Where the set-up of the tasks in `path` goes, which must be free or hold a set-up."""
    setup = path.with_suffix(".xml")
    if setup.name.casefold() == path.name.casefold():  # the same file, on some systems
        raise DataError(
            f"The tasks are JSON, and {setup} beside them is the labelling set-up; got {path} for the tasks. "
            "Give a name that ends in .json."
        )
    if setup.exists():
        is_setup = False
        if setup.is_file():
            with setup.open("rb") as file:
                is_setup = file.read(len(_SETUP_HEAD)) == _SETUP_HEAD
        if not is_setup:
            raise DataError(
                f"{setup}, where the labelling set-up goes, holds something else. "
                "Give the tasks another name."
            )
    return setup


def _result(region: str, inside: Inside, name: str) -> dict[str, Any]:
    height, width = inside.shape
    return {
        "id": region,
        "from_name": _CONTROL,
        "to_name": _IMAGE,
        "type": "brushlabels",
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "value": {"format": "rle", "rle": encode_rle(inside), "brushlabels": [name]},
    }


def _blocks(length: int, value: str) -> Iterator[str]:
    """Blocks of repeated values that make a run of `length`."""
    while length:
        part = min(length, 2 ** LENGTH_BITS[-1])
        kind = next(kind for kind, bits in enumerate(LENGTH_BITS) if part <= 2**bits)
        yield f"1{kind:02b}{part - 1:0{LENGTH_BITS[kind]}b}{value}"
        length -= part


def _unpacked(bits: str, size: tuple[int, int]) -> npt.NDArray[np.int64]:
    """The values of packed bits, given as text of 0 and 1; they must fill `size`."""
    place = 0

    def read(count: int) -> int:
        nonlocal place
        place += count
        if place > len(bits):
            raise ValueError("it ends too early")
        return int(bits[place - count : place], 2)

    total, width = read(32), read(5) + 1
    kinds = [read(4) + 1 for _ in LENGTH_BITS]
    if total != size[0] * size[1] * CHANNELS:
        raise ValueError(f"it holds {total} values, and not those of {size[0]} x {size[1]} pixels")
    values = np.empty(total, np.int64)
    done = 0
    while done < total:
        is_repeated = read(1)
        stop = min(done + read(kinds[read(2)]) + 1, total)
        if is_repeated:
            values[done:stop] = read(width)
        else:
            values[done:stop] = [read(width) for _ in range(stop - done)]
        done = stop
    return values
