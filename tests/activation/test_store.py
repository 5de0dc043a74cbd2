from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from wsss.activation.store import MapStore, sum_full_size
from wsss.errors import DataError
from wsss.types import ActivationMaps


def some_maps(size: tuple[int, int] = (6, 8), ids: tuple[int, ...] = (2, 5)) -> ActivationMaps:
    generator = torch.Generator().manual_seed(0)
    return ActivationMaps(torch.tensor(ids), torch.rand(len(ids), *size, generator=generator))


def test_stored_maps_come_back(tmp_path: Path) -> None:
    store, maps = MapStore(tmp_path), some_maps()
    store.write("a/b", maps, image_size=(6, 8))
    assert "a/b" in store
    assert "b" not in store
    assert store.ids() == ("a/b",)
    read = store.read("a/b")
    assert torch.equal(read.class_ids, maps.class_ids)
    assert torch.allclose(read.scores, maps.scores, atol=2.5e-4)
    assert read.background is None


def test_files_hold_what_the_documentation_says(tmp_path: Path) -> None:
    store = MapStore(tmp_path)
    store.write("a", some_maps(), image_size=(21, 30), per_scale=[torch.rand(2, 2, 3), torch.rand(2, 4, 5)])
    with np.load(store.path("a"), allow_pickle=False) as file:
        kinds = {name: (file[name].dtype.name, file[name].shape) for name in file.files}
    assert kinds == {
        "class_ids": ("int16", (2,)),
        "scores": ("float16", (2, 6, 8)),
        "image_size": ("int32", (2,)),
        "peaks": ("float32", (2,)),
        "scale_0": ("float16", (2, 2, 3)),
        "scale_1": ("float16", (2, 4, 5)),
    }


@pytest.mark.parametrize("factor", [1e-9, 1.0, 1e6])
def test_full_size_maps_are_recomputed_from_the_scales_whatever_their_height(
    tmp_path: Path, factor: float
) -> None:
    per_scale = [factor * torch.rand(2, 3, 4), factor * torch.rand(2, 6, 7)]
    store = MapStore(tmp_path)
    store.write("a", some_maps(), image_size=(21, 30), per_scale=per_scale)
    expected = ActivationMaps.from_present_cams(sum_full_size(per_scale, (21, 30)), torch.tensor([2, 5]))
    assert torch.allclose(store.read("a").scores, expected.scores, rtol=2e-3, atol=1e-9)
    assert store.read("a", full_size=False).size == (6, 8)


def test_maps_without_scales_are_resized(tmp_path: Path) -> None:
    store, maps = MapStore(tmp_path), some_maps().with_background(0.25)
    store.write("a", maps, image_size=(12, 16))
    read = store.read("a")
    assert read.background is not None
    assert torch.allclose(read.background, torch.full((12, 16), 0.25))
    assert torch.allclose(read.scores, maps.resized(12, 16).scores, atol=5e-4)
    assert store.image_size("a") == (12, 16)


def test_an_image_without_classes_is_stored_too(tmp_path: Path) -> None:
    store = MapStore(tmp_path)
    empty = ActivationMaps(torch.zeros(0, dtype=torch.int64), torch.zeros(0, 3, 4))
    store.write("a", empty, image_size=(12, 16), per_scale=[torch.zeros(0, 1, 1)])
    assert store.read("a").scores.shape == (0, 12, 16)
    assert store.read("a", full_size=False).scores.shape == (0, 3, 4)


def test_a_class_without_any_activation_stays_zero(tmp_path: Path) -> None:
    store = MapStore(tmp_path)
    store.write("a", some_maps(ids=(1,)), image_size=(9, 9), per_scale=[torch.zeros(1, 2, 2)])
    assert not store.read("a").scores.any()


def test_writing_the_same_maps_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = MapStore(tmp_path / "1"), MapStore(tmp_path / "2")
    for store in (first, second):
        store.write("a", some_maps(), image_size=(6, 8), per_scale=[torch.ones(2, 2, 2)])
    assert first.path("a").read_bytes() == second.path("a").read_bytes()


@pytest.mark.parametrize("kept", [0, 1, 100, -30])
def test_a_cut_file_is_named_with_its_mend(tmp_path: Path, kept: int) -> None:
    store = MapStore(tmp_path)
    store.write("a", some_maps(), image_size=(6, 8))
    content = store.path("a").read_bytes()
    store.path("a").write_bytes(content[:kept])
    with pytest.raises(DataError, match=r"a\.npz is no whole maps file .* Delete it and run"):
        store.read("a")


def test_a_changed_byte_is_noticed(tmp_path: Path) -> None:
    store = MapStore(tmp_path)
    store.write("a", some_maps((40, 40)), image_size=(40, 40))
    content = bytearray(store.path("a").read_bytes())
    content[len(content) // 2] ^= 0xFF
    store.path("a").write_bytes(bytes(content))
    with pytest.raises(DataError, match="Delete it"):
        store.read("a")


def test_other_arrays_and_missing_files_are_refused(tmp_path: Path) -> None:
    store = MapStore(tmp_path)
    with pytest.raises(DataError, match="no maps of a"):
        store.read("a")
    np.savez(store.path("a"), something=np.zeros(3))
    with pytest.raises(DataError, match="lacks"):
        store.read("a")
    np.savez(store.path("a"), class_ids=np.array([object()]), scores=np.zeros(1), image_size=np.zeros(2))
    with pytest.raises(DataError, match="Delete it"):
        store.read("a")


def test_temporary_files_are_no_maps(tmp_path: Path) -> None:
    (tmp_path / ".tmp-0123-a.npz").write_bytes(b"half")
    assert MapStore(tmp_path).ids() == ()
    assert MapStore(tmp_path / "nowhere").ids() == ()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"scores": np.zeros((6, 8), np.float16)}, "`scores` must have 3 axes"),
        ({"scores": np.array([[["a"]]])}, "`scores` must have 3 axes of floats"),
        ({"scores": np.full((2, 6, 8), np.nan, np.float16)}, "must lie in"),
        ({"class_ids": np.array([5, 2])}, "must ascend"),
        ({"class_ids": np.array([1])}, "one row per class id"),
        ({"image_size": np.array([6])}, "height and width"),
        ({"image_size": np.array([2**40, 2**40])}, "height and width"),
        ({"stride": np.int32(0)}, "at least 1"),
        ({"peaks": np.ones(2, np.float32)}, "out of range"),
        ({"background": np.zeros((3, 3), np.float16)}, "like the scores"),
        ({"peaks": np.ones(2, np.float32), "scale_0": np.zeros((2, 0, 3), np.float16)}, "has no cells"),
        ({"foreign": np.zeros(1)}, "foreign"),
    ],
)
def test_arrays_of_another_kind_are_refused(
    tmp_path: Path, changes: dict[str, np.ndarray], reason: str
) -> None:
    store = MapStore(tmp_path)
    store.write("a", some_maps(), image_size=(6, 8))
    with np.load(store.path("a")) as file:
        arrays = {name: file[name] for name in file.files}
    np.savez_compressed(store.path("a"), **{**arrays, **changes})
    with pytest.raises(DataError, match=rf"a\.npz is no whole maps file .*{reason}"):
        store.read("a")
