"""Boundaries and masks of the Semantic Boundaries Dataset (SBD), which annotates images of PASCAL VOC.

Source:
    Hariharan et al., "Semantic Contours from Inverse Detectors", ICCV 2011. Each image has a MATLAB file
    `cls/<id>.mat` whose struct `GTcls` holds, as `Boundaries`, one sparse map per class, and, as
    `Segmentation`, the class of every pixel (0 background, 1-20; nothing is ignored).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from wsss.data.mat_files import UNREADABLE, read_variable
from wsss.errors import DataError


def read_sbd_boundaries(path: Path | str) -> npt.NDArray[np.bool_]:
    """Read where any class has a boundary.

    Args:
        path: one of SBD's files `cls/<id>.mat`.

    Returns:
        The union of the classes' boundary maps; (H, W), bool.

    Raises:
        DataError: the file is missing, damaged or laid out otherwise.
    """
    try:
        cells: Any = read_variable(path, "GTcls")["Boundaries"][0, 0]
        maps = [cell.toarray() if sparse.issparse(cell) else np.asarray(cell) for cell in cells.ravel()]
        boundaries: npt.NDArray[np.bool_] = np.any(np.stack(maps) != 0, axis=0)
    except UNREADABLE as error:
        raise DataError(
            f"{path} must be a file of SBD with boundaries in `GTcls.Boundaries`; it can't be read so "
            f"({error}). Replace it, or move the folder away to score against the edges of the masks."
        ) from error
    if boundaries.ndim != 2:
        raise DataError(
            f"{path} must hold one (H, W) map per class; got {boundaries.ndim} dimensions. Replace the file."
        )
    return boundaries


def read_sbd_mask(path: Path | str) -> npt.NDArray[np.uint8]:
    """Read the class of every pixel.

    Args:
        path: one of SBD's files `cls/<id>.mat`.

    Returns:
        Classes, 0 background; (H, W), uint8.

    Raises:
        DataError: the file is missing, damaged or laid out otherwise.
    """
    try:
        values = np.asarray(read_variable(path, "GTcls")["Segmentation"][0, 0])
        mask: npt.NDArray[np.uint8] = values.astype(np.uint8)
        is_mask = mask.ndim == 2 and np.array_equal(mask, values)
    except UNREADABLE as error:
        raise DataError(
            f"{path} must be a file of SBD with the class of every pixel in `GTcls.Segmentation`; it can't "
            f"be read so ({error}). Replace it, or score a split whose masks are PNG files."
        ) from error
    if not is_mask:
        raise DataError(
            f"`GTcls.Segmentation` in {path} must be (H, W) whole numbers; got {values.dtype} "
            f"{values.shape}. Replace the file."
        )
    return mask
