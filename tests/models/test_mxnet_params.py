"""Files of mxnet: what was written comes back, and nothing damaged is believed."""

from __future__ import annotations

import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from models.weight_files import mxnet_array, mxnet_file, write_mxnet
from wsss.errors import WeightsError
from wsss.models.mxnet_params import is_mxnet, read_mxnet_params


def arrays() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {
        "arg:a_weight": generator.normal(size=(2, 3, 3, 3)).astype(np.float32),
        "arg:b": generator.normal(size=(5,)),
        "arg:half": generator.normal(size=(3, 1)).astype(np.float16),
        "aux:bytes": generator.integers(0, 256, (3, 3)).astype(np.uint8),  # what follows is not aligned
        "aux:int": generator.integers(-9, 9, (2, 2)).astype(np.int32),
        "aux:signed": generator.integers(-9, 9, (3,)).astype(np.int8),
        "größe": generator.integers(-(2**40), 2**40, (2, 1, 2)),
    }


@pytest.mark.parametrize("form", ["storage", "long", "legacy"])
def test_arrays_of_every_form_and_kind_come_back(tmp_path: Path, form: str) -> None:
    written = arrays()
    path = write_mxnet(tmp_path / "net.params", written, form)
    found = read_mxnet_params(path)
    assert list(found) == list(written)
    for name, array in written.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        assert np.array_equal(found[name], array), name
        assert found[name].flags.aligned
        assert found[name].flags.writeable
    assert is_mxnet(path.read_bytes()[:8])


def test_forms_may_be_mixed_and_an_array_that_mxnet_never_made_is_left_out(tmp_path: Path) -> None:
    one = np.ones((2, 2), np.float32)
    none = struct.pack("<IiI", 0xF993FAC9, 0, 0)
    parts = [mxnet_array(one, "legacy"), none, mxnet_array(2 * one, "long")]
    (tmp_path / "net.params").write_bytes(mxnet_file(parts, ["a", "b", "c"]))
    found = read_mxnet_params(tmp_path / "net.params")
    assert list(found) == ["a", "c"]
    assert found["a"].sum() == 4
    assert found["c"].sum() == 8


def test_a_file_that_is_cut_anywhere_is_refused(tmp_path: Path) -> None:
    whole = write_mxnet(tmp_path / "net.params", {"a": np.ones((2, 2), np.float32)}).read_bytes()
    for length in range(len(whole)):
        (tmp_path / "cut.params").write_bytes(whole[:length])
        with pytest.raises(WeightsError, match=r"cut\.params is no readable file of mxnet.*got .*\.$"):
            read_mxnet_params(tmp_path / "cut.params")


def test_any_changed_byte_of_the_frame_gives_arrays_or_a_message(tmp_path: Path) -> None:
    whole = write_mxnet(tmp_path / "net.params", {"a": np.ones((2, 2), np.float32)}).read_bytes()
    for place in range(len(whole)):
        for value in (1, 0xFF):
            (tmp_path / "bad.params").write_bytes(whole[:place] + bytes([value]) + whole[place + 1 :])
            try:
                found = read_mxnet_params(tmp_path / "bad.params")
            except WeightsError:
                continue
            assert sum(array.nbytes for array in found.values()) <= len(whole)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\x03\x04 and more", "must begin with the number 0x112; got something else"),
        (mxnet_file([], []) + b"\0\0", r"must end behind its names; got 2 more bytes .*Fetch it again"),
        (
            struct.pack("<QQQ", 0x112, 0, 2**60),
            "must have room for its arrays; got 1,152,921,504,606,846,976",
        ),
        (mxnet_file([], [])[:-8] + struct.pack("<Q", 2**61), "must have room for its names"),
        (
            mxnet_file([struct.pack("<Ii", 0xF993FAC9, 1)], ["a"]),
            r"must hold dense arrays; got storage type 1",
        ),
        (mxnet_file([struct.pack("<I", 0xF993FACA)], ["a"]), "of mxnet's own semantics; got those of NumPy"),
        (mxnet_file([struct.pack("<I", 10**6)], ["a"]), "at most 32 dimensions; got 1,000,000"),
        (
            mxnet_file([struct.pack("<IIqiii", 0xF993FAC8, 1, 2**62, 1, 0, 0)], ["a"]),
            "must hold 18,446,744,073,709,551,616 bytes of an array",
        ),
        (mxnet_file([struct.pack("<IIqiii", 0xF993FAC8, 1, -1, 1, 0, 0)], ["a"]), r"got shape \(-1,\)"),
        (mxnet_file([struct.pack("<IIqiii", 0xF993FAC8, 1, 1, 1, 0, 7)], ["a"]), "kind in 0…6; got kind 7"),
        (mxnet_file([mxnet_array(np.ones(1, np.float32))], []), "one name of its own for each array; got 0"),
        (mxnet_file([mxnet_array(np.ones(1, np.float32))] * 2, ["a", "a"]), "got 1 different names for 2"),
        (b"", "must hold 8 bytes of a number here; got 0 before its end"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "net.params").write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        read_mxnet_params(tmp_path / "net.params")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"There is no weights file .*absent\.params"):
        read_mxnet_params(tmp_path / "absent.params")


def test_reading_takes_no_more_memory_than_the_arrays(tmp_path: Path) -> None:
    size = 4 << 20
    path = write_mxnet(tmp_path / "net.params", {n: np.zeros(size // 8, np.float32) for n in "ab"})
    tracemalloc.start()
    found = read_mxnet_params(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sum(array.nbytes for array in found.values()) == size
    assert peak < 1.1 * size
