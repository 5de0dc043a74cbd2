"""Saliency maps as files: one 8-bit grey PNG for each image, named by its id.

Maps of other detectors are read as they are published: 8-bit or 16-bit grey, or RGB as EPS gives PFAN's maps.
True masks of this field are palette images or grey images of few bits; they are refused, since a mask read as
saliency would bring pixel labels into weakly supervised training.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from wsss.errors import DataError, ShapeError
from wsss.training.checkpoint import atomic_path

_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_HEADER_BYTES: Final = 26  # signature, then length, name, width and height; last, bit depth and colour type
_GREY, _INDEXED = 0, 3  # colour types of the PNG specification


def saliency_file(folder: Path, image_id: str) -> Path:
    """Where the map of an image is or will be."""
    return Path(folder) / f"{image_id}.png"


def check_saliency_folder(folder: Path, ids: Sequence[str]) -> None:
    """Make sure that every image has a map of a kind that is read; decodes none.

    Raises:
        DataError: the folder or maps are missing (says how many and which is the first), or a map is no PNG
            file, or a palette image or grey image of few bits, as true masks are.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(
            f"There is no folder {folder} of saliency maps. Correct the path, or make them with "
            "`wsss saliency IMAGES --out DIR`."
        )
    missing = [image_id for image_id in ids if not saliency_file(folder, image_id).is_file()]
    if missing:
        raise DataError(
            f"{len(missing):,} of {len(ids):,} images have no saliency map in {folder}; the first is "
            f"{missing[0]}.png. Add them, made by the detector that made the others; `wsss saliency` "
            "completes only a folder of its own."
        )
    for image_id in ids:
        _check_kind(saliency_file(folder, image_id))


def read_saliency(path: Path, size: tuple[int, int]) -> np.ndarray:
    """Read one map.

    Colours are averaged; transparency is ignored. A map of another size than its image is resized to it
    (bilinear) before training resizes both.

    Args:
        path: a grey (8 or 16 bits, with or without transparency) or RGB(A) PNG file.
        size: (height, width) of the image, pixels.

    Returns:
        Saliency; (H, W), float32 in [0, 1].

    Raises:
        DataError: the file is missing, damaged, a palette image, or grey of less than 8 bits.

    Source: EPS, Lee et al., CVPR 2021 (`to RGB`, then the mean of three channels; grey levels are kept).
    Differs: EPS resizes maps of any size straight to the training size (bicubic).
    """
    values = _decoded(Path(path))  # (h, w), float32 in [0, 1]
    if values.shape == tuple(size):
        return values
    height, width = size
    resized = Image.fromarray(values).resize((width, height), Image.Resampling.BILINEAR)
    found: np.ndarray = np.asarray(resized, np.float32).clip(0.0, 1.0)
    return found


def _check_kind(path: Path) -> None:
    """Refuse the kinds of true masks; the header says it, while Pillow stretches few bits to 8 silently."""
    try:
        with path.open("rb") as file:
            header = file.read(_HEADER_BYTES)
    except FileNotFoundError:
        raise DataError(
            f"There is no saliency map {path}. Put it there, made by the detector that made the others."
        ) from None
    except OSError as error:
        raise _unreadable(path) from error
    if len(header) < _HEADER_BYTES or not header.startswith(_SIGNATURE):
        raise _unreadable(path)
    depth, colour_type = header[-2:]
    if colour_type == _INDEXED or (colour_type == _GREY and depth < 8):
        found = "a palette image" if colour_type == _INDEXED else f"a grey image of {depth} bit"
        raise DataError(
            f"Saliency map {path} must be a grey PNG of 8 or 16 bits, or RGB(A); got {found}, as class masks "
            "are. True masks must not serve as saliency; save a detector's grey levels (8-bit grey PNG)."
        )


def _unreadable(path: Path) -> DataError:
    return DataError(f"Saliency map {path} is no readable PNG file. Delete it, and have it made again.")


def _decoded(path: Path) -> np.ndarray:
    _check_kind(path)
    try:
        with Image.open(path, formats=("PNG",)) as image:
            mode, values = image.mode, np.array(image)
    except Exception as error:  # decoders raise almost anything on damaged files
        raise _unreadable(path) from error
    if mode in ("RGB", "RGBA"):
        values = values[..., :3].mean(axis=2, dtype=np.float64)
    elif mode == "LA":
        values = values[..., 0]
    largest = 65535 if mode.startswith("I") else 255
    levels: np.ndarray = (values.astype(np.float64) / largest).clip(0.0, 1.0).astype(np.float32)
    return levels


def write_saliency(folder: Path, image_id: str, saliency: np.ndarray) -> None:
    """Write one map as an 8-bit grey PNG; the file is complete or absent.

    Args:
        folder: made where missing; ids with slashes become folders below it.
        image_id: the image's id.
        saliency: (H, W), float in [0, 1].

    Raises:
        ShapeError: another shape or range.
    """
    saliency = np.asarray(saliency)
    if saliency.ndim != 2 or saliency.size == 0 or not (saliency.min() >= 0 and saliency.max() <= 1):
        raise ShapeError(
            f"`saliency` of {image_id} must be (H, W) in [0, 1] with at least one pixel; got "
            f"{saliency.shape} {saliency.dtype}. Scale the detector's output."
        )
    levels = np.floor(saliency.astype(np.float64) * 255 + 0.5).astype(np.uint8)
    with atomic_path(saliency_file(folder, image_id)) as temporary:
        Image.fromarray(levels).save(temporary, format="PNG")
