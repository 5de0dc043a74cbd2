"""Boundary files in the layout of SBD, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from scipy import io, sparse


def write_sbd(path: Path, maps: np.ndarray) -> Path:
    """Write boundary maps (classes, H, W) as SBD does: a struct with a column of sparse matrices."""
    cells = np.empty((len(maps), 1), dtype=object)
    for number, values in enumerate(maps):
        cells[number, 0] = sparse.csc_matrix(values.astype(np.uint8))
    present = (np.flatnonzero(maps.any(axis=(1, 2))) + 1)[:, None].astype(np.uint8)
    struct: dict[str, Any] = {
        "Segmentation": np.zeros(maps.shape[1:], dtype=np.uint8),
        "Boundaries": cells,
        "CategoriesPresent": present,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    io.savemat(path, {"GTcls": struct}, do_compression=True)
    return path
