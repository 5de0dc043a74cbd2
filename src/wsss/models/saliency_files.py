"""Saliency maps as files: one 8-bit grey PNG for each image, named by its id.

Maps of other detectors are read as they are published: 8-bit or 16-bit grey, or RGB as EPS gives PFAN's maps.
True masks of this field are palette images; they are refused, since a mask read as saliency would bring pixel
labels into weakly supervised training.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from wsss.errors import DataError, ShapeError
from wsss.training.checkpoint import atomic_path


def saliency_file(folder: Path, image_id: str) -> Path:
    """Where the map of an image is or will be."""
    return Path(folder) / f"{image_id}.png"


def check_saliency_folder(folder: Path, ids: Sequence[str]) -> None:
    """Make sure that every image has a map; reads none.

    Raises:
        DataError: the folder or maps are missing; says how many and which is the first.
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
            f"{missing[0]}.png. Add them (`wsss saliency IMAGES --out DIR` makes what is missing)."
        )


def read_saliency(path: Path, size: tuple[int, int]) -> np.ndarray:
    """Read one map.

    Colours are averaged; transparency is ignored. A map of another size than its image is resized to it
    (bilinear) before training resizes both.

    Args:
        path: a grey (8 or 16 bits) or RGB(A) PNG file.
        size: (height, width) of the image, pixels.

    Returns:
        Saliency; (H, W), float32 in [0, 1].

    Raises:
        DataError: the file is missing, damaged, or a palette image.

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


def _decoded(path: Path) -> np.ndarray:
    try:
        with Image.open(path, formats=("PNG",)) as image:
            mode, values = image.mode, np.array(image)
    except FileNotFoundError:
        raise DataError(
            f"There is no saliency map {path}. Put it there, or make it with "
            "`wsss saliency IMAGES --out DIR`."
        ) from None
    except Exception as error:  # decoders raise almost anything on damaged files
        raise DataError(
            f"Saliency map {path} is no readable PNG file. Delete it, and have it made again."
        ) from error
    if mode in ("P", "PA"):
        raise DataError(
            f"Saliency map {path} is a palette image, as class masks are. True masks must not serve as "
            "saliency; save grey levels (8-bit grey PNG)."
        )
    if mode in ("RGB", "RGBA"):
        values = values[..., :3].mean(axis=2, dtype=np.float64)
    elif mode == "LA":
        values = values[..., 0]
    largest = 1 if mode == "1" else 65535 if mode.startswith("I") else 255
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
