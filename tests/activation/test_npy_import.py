from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from wsss.activation.npy_import import import_npy, read_npy
from wsss.activation.store import MapStore
from wsss.errors import DataError

LOW, FULL = torch.rand(2, 5, 7), np.random.default_rng(0).random((2, 18, 27)).astype(np.float32)


def improved() -> dict[str, Any]:
    return {"keys": torch.tensor([3, 14]), "cam": LOW, "high_res": FULL}


def camera_ready() -> dict[str, Any]:
    return {"keys": np.array([0, 4, 15]), "cam": LOW, "hr_cam": FULL}


def save(folder: Path, content: object, name: str = "2007_000032") -> Path:
    np.save(folder / f"{name}.npy", content, allow_pickle=True)  # type: ignore[arg-type]
    return folder / f"{name}.npy"


@pytest.mark.parametrize("content", [improved(), camera_ready()], ids=["improved", "camera_ready"])
def test_both_dialects_mean_the_same_classes(tmp_path: Path, content: dict[str, Any]) -> None:
    maps = read_npy(save(tmp_path, content), allow_pickle=True)
    for read, scores in ((maps.low_resolution, LOW), (maps.full_size, torch.from_numpy(FULL))):
        assert read.class_ids.tolist() == [4, 15]
        assert torch.equal(read.scores, scores)


def test_an_image_without_classes_is_read(tmp_path: Path) -> None:
    content = {"keys": torch.zeros(0, dtype=torch.int64), "cam": LOW[:0], "high_res": FULL[:0]}
    assert len(read_npy(save(tmp_path, content), allow_pickle=True).full_size.class_ids) == 0


def test_classes_in_another_order_are_sorted(tmp_path: Path) -> None:
    content = {**improved(), "keys": torch.tensor([14, 3])}
    maps = read_npy(save(tmp_path, content), allow_pickle=True).low_resolution
    assert maps.class_ids.tolist() == [4, 15]
    assert torch.equal(maps.scores, LOW.flip(0))


def test_reading_a_pickle_needs_the_opt_in(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="allow_pickle=True"):
        read_npy(save(tmp_path, improved()))


class Attack:
    def __init__(self, call: Any, *arguments: Any) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> Any:
        return self.call, self.arguments


def test_no_code_runs(tmp_path: Path) -> None:
    target = tmp_path / "pwned"
    content = {**improved(), "more": Attack(os.system, f"touch {target}")}
    with pytest.raises(DataError, match="no array"):
        read_npy(save(tmp_path, content), allow_pickle=True)
    assert not target.exists()


def test_no_code_runs_inside_tensor_storages(tmp_path: Path) -> None:
    target = tmp_path / "pwned"
    buffer = io.BytesIO()
    torch.save(Attack(os.system, f"touch {target}"), buffer)
    content = {**improved(), "cam": Attack(torch.storage._load_from_bytes, buffer.getvalue())}
    with pytest.raises(DataError, match="no maps file"):
        read_npy(save(tmp_path, content), allow_pickle=True)
    assert not target.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (np.zeros((2, 2)), "no maps file"),
        (None, "must hold `keys`"),
        ({"keys": np.array([1]), "cam": LOW}, "must hold `keys`"),
        ({**improved(), "keys": torch.tensor([3])}, "don't fit"),
        ({**camera_ready(), "keys": np.array([4, 15])}, "don't fit"),
        ({**improved(), "high_res": FULL * 40}, r"lie in \[0, 1\]"),
        ({**improved(), "keys": torch.tensor([3, 300])}, "must ascend"),
    ],
)
def test_other_contents_are_refused_by_name(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read_npy(save(tmp_path, content), allow_pickle=True)
    assert "2007_000032.npy" in str(caught.value)


def test_a_cut_file_is_named(tmp_path: Path) -> None:
    path = save(tmp_path, improved())
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"2007_000032\.npy"):
        read_npy(path, allow_pickle=True)


def test_a_folder_becomes_a_store_in_both_resolutions(tmp_path: Path) -> None:
    save(tmp_path, improved(), "a")
    save(tmp_path, camera_ready(), "b")
    store = MapStore(tmp_path / "maps")
    assert import_npy(tmp_path, store, allow_pickle=True) == ("a", "b")
    for image_id in ("a", "b"):
        assert torch.allclose(store.read(image_id).scores, torch.from_numpy(FULL), atol=2.5e-4)
        assert torch.allclose(store.read(image_id, full_size=False).scores, LOW, atol=2.5e-4)
    with pytest.raises(DataError, match=r"no \.npy files"):
        import_npy(tmp_path / "maps", store, allow_pickle=True)
