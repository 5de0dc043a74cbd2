from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import io

from sbd_file import write_sbd
from wsss.data.sbd import read_sbd_boundaries
from wsss.errors import DataError


def test_boundaries_are_the_union_over_classes(tmp_path: Path) -> None:
    maps = np.zeros((20, 11, 14), dtype=bool)
    maps[14, 2:5, 3] = maps[6, 4, 3:9] = True
    found = read_sbd_boundaries(write_sbd(tmp_path / "a.mat", maps))
    assert found.dtype == np.bool_
    assert np.array_equal(found, maps[6] | maps[14])
    rng = np.random.default_rng(0)
    maps = rng.random((20, 9, 7)) < 0.02
    assert np.array_equal(read_sbd_boundaries(write_sbd(tmp_path / "b.mat", maps)), maps.any(axis=0))


def test_an_image_without_boundaries_has_an_empty_map(tmp_path: Path) -> None:
    found = read_sbd_boundaries(write_sbd(tmp_path / "a.mat", np.zeros((20, 5, 6), dtype=bool)))
    assert found.shape == (5, 6)
    assert not found.any()


@pytest.mark.parametrize("damage", ["missing", "empty", "text", "cut", "other"])
def test_files_that_are_no_sbd_files_are_named(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "a.mat"
    if damage == "other":
        io.savemat(path, {"GTinst": np.zeros(3)})
    elif damage == "cut":
        content = write_sbd(path, np.random.default_rng(0).random((20, 40, 40)) < 0.1).read_bytes()
        path.write_bytes(content[: len(content) // 2])
    elif damage != "missing":
        path.write_bytes(b"" if damage == "empty" else b"no matrix" * 40)
    with pytest.raises(DataError, match=r"a\.mat must be a file of SBD"):
        read_sbd_boundaries(path)
