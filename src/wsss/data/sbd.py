"""Class boundaries of the Semantic Boundaries Dataset (SBD), which annotates images of PASCAL VOC.

Source:
    Hariharan et al., "Semantic Contours from Inverse Detectors", ICCV 2011. Each image has a MATLAB file
    `cls/<id>.mat` whose struct `GTcls` holds, as `Boundaries`, one sparse map per class.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy import io, sparse

from wsss.errors import DataError

_UNREADABLE: Final = (
    *(OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, NotImplementedError),
    *(zlib.error, io.matlab.MatReadError),
)


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
        cells: Any = io.loadmat(str(path), variable_names=["GTcls"])["GTcls"]["Boundaries"][0, 0]
        maps = [cell.toarray() if sparse.issparse(cell) else np.asarray(cell) for cell in cells.ravel()]
        boundaries: npt.NDArray[np.bool_] = np.any(np.stack(maps) != 0, axis=0)
    except _UNREADABLE as error:
        raise DataError(
            f"{path} must be a file of SBD with boundaries in `GTcls.Boundaries`; it can't be read so "
            f"({error}). Replace it, or move the folder away to score against the edges of the masks."
        ) from error
    if boundaries.ndim != 2:
        raise DataError(
            f"{path} must hold one (H, W) map per class; got {boundaries.ndim} dimensions. Replace the file."
        )
    return boundaries
