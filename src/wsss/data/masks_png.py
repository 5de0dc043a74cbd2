"""Masks as the field keeps them: 8-bit indexed PNG with the VOC palette."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from wsss.errors import DataError, ShapeError
from wsss.training.checkpoint import atomic_path
from wsss.types import IGNORE

_HEADER_BYTES: Final = 26  # signature, then length, name, width and height; last, bit depth and colour type
_GREY: Final = 0  # colour type of the PNG specification


@functools.cache
def voc_palette() -> np.ndarray:
    """Colours of PASCAL VOC for the values 0-255; (256, 3), uint8, read-only.

    The bits of a value are dealt to red, green and blue in turn, highest bit of a colour first.

    Example:
        >>> voc_palette()[15].tolist()
        [192, 128, 128]
    """
    values = np.arange(256)
    palette = np.zeros((256, 3), dtype=np.uint8)
    for bit in range(8):
        for channel in range(3):
            palette[:, channel] |= (((values >> (3 * bit + channel)) & 1) << (7 - bit)).astype(np.uint8)
    palette.flags.writeable = False
    return palette


def read_mask(path: Path) -> np.ndarray:
    """Read the values of a mask file, whatever its palette.

    Args:
        path: an indexed or grey PNG file of 1, 2, 4 or 8 bits.

    Returns:
        Values as they stand in the file, 0-255; (H, W), uint8.

    Raises:
        DataError: the file is missing, damaged, or holds colours instead of values.
    """
    mode, values = _decoded(path)
    if mode not in ("P", "L", "1"):
        raise DataError(
            f"Mask {path} must be an indexed (or 8-bit grey) PNG; got mode {mode}. "
            "Save class numbers, not colours: `wsss.data.masks_png.write_mask` does."
        )
    return values


def _decoded(path: Path) -> tuple[str, np.ndarray]:
    """Pillow's mode and the values as they stand in the file."""
    try:
        with path.open("rb") as file:
            header = file.read(_HEADER_BYTES)
            file.seek(0)
            with Image.open(file, formats=("PNG",)) as image:
                return image.mode, _unscaled(np.array(image), *header[-2:])
    except FileNotFoundError:
        raise DataError(
            f"There is no mask {path}. Put it there, or score a split whose masks are complete; "
            "training needs none."
        ) from None
    except Exception as error:  # decoders raise almost anything on damaged files
        is_empty = path.is_file() and path.stat().st_size == 0
        raise DataError(
            f"Mask {path} is {'empty (0 bytes)' if is_empty else 'no readable PNG file'}. Replace it."
        ) from error


def _unscaled(values: np.ndarray, depth: int, colour_type: int) -> np.ndarray:
    """Undo Pillow's scaling of grey values of few bits to 0-255 (of one bit: to False and True)."""
    if values.dtype == np.bool_:
        return values.astype(np.uint8)
    if colour_type == _GREY and depth < 8:
        values //= np.uint8(255 // (2**depth - 1))
    return values


def check_labels(mask: np.ndarray, class_count: int, name: str, mend: str) -> None:
    """Make sure that a mask holds classes and ignored pixels, and nothing else.

    Args:
        mask: (H, W), uint8.
        class_count: classes with the background.
        name: what the mask is called in the message.
        mend: what to do, a sentence.

    Raises:
        DataError: a value is no class.
    """
    highest = int(mask[mask != IGNORE].max(initial=0))
    if highest >= class_count:
        raise DataError(f"{name} must hold 0-{class_count - 1} and {IGNORE}; got {highest}. {mend}")


def write_mask(path: Path, mask: np.ndarray) -> None:
    """Write a mask as an indexed PNG with the VOC palette; the file is complete or absent.

    Args:
        path: where to write; parent folders are made.
        mask: values in the label space; (H, W), uint8.

    Raises:
        ShapeError: `mask` is not (H, W) uint8.
    """
    mask = np.asarray(mask)
    if mask.ndim != 2 or mask.dtype != np.uint8 or mask.size == 0:
        raise ShapeError(
            f"`mask` must be (H, W) uint8 with at least one pixel; got {mask.shape} {mask.dtype}. "
            "Convert class numbers with `astype(np.uint8)`."
        )
    image = Image.fromarray(np.ascontiguousarray(mask))
    image.putpalette(voc_palette().tobytes())  # turns mode L into P
    with atomic_path(path) as temporary:
        image.save(temporary, format="PNG")
