from pathlib import Path

import numpy as np
import pytest
from scipy import io

from wsss.data.mat_files import UNREADABLE, read_variable


@pytest.fixture(params=[True, False], ids=["packed", "plain"])
def path(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    file = tmp_path / "a.mat"
    values = np.arange(600, dtype=np.uint16).reshape(20, 30)
    io.savemat(file, {"other": 1.0, "LabelMap": values}, do_compression=request.param)
    return file


def test_a_variable_is_read_whatever_else_is_there(path: Path) -> None:
    assert np.array_equal(read_variable(path, "LabelMap"), np.arange(600).reshape(20, 30))
    with pytest.raises(UNREADABLE):
        read_variable(path, "GTcls")


def test_every_cut_is_found(path: Path) -> None:
    """SciPy alone crashes on some of them."""
    content = path.read_bytes()
    for length in range(0, len(content), 7):
        path.write_bytes(content[:length])
        with pytest.raises(UNREADABLE):
            read_variable(path, "LabelMap")


def test_a_flipped_bit_of_packed_data_is_found_or_changes_nothing(tmp_path: Path) -> None:
    path, values = tmp_path / "a.mat", np.arange(600).reshape(20, 30)
    io.savemat(path, {"LabelMap": values}, do_compression=True)
    content, found = path.read_bytes(), 0
    for place in range(140, len(content), 3):
        damaged = bytearray(content)
        damaged[place] ^= 16
        path.write_bytes(damaged)
        try:
            assert np.array_equal(read_variable(path, "LabelMap"), values)
        except UNREADABLE:
            found += 1
    assert found > 0.9 * len(range(140, len(content), 3))


@pytest.mark.parametrize("content", [b"", b"x" * 500, b"MATLAB 7.3 MAT-file" + b"\0" * 105 + b"\x00\x02IM"])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.mat").write_bytes(content)
    with pytest.raises(ValueError, match="no MATLAB file of version 5"):
        read_variable(tmp_path / "a.mat", "LabelMap")
