from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from wsss.errors import DataError
from wsss.metrics.confusion import Confusion
from wsss.metrics.per_image import PerImage, load_per_image, save_per_image


def test_saved_counts_come_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    confusions = rng.integers(0, 50, (2, 6, 3, 3)) * (rng.random((2, 6, 3, 3)) < 0.4)
    confusions[0, 2] = 0  # an image without counted pixels
    entries = {"fixed": PerImage(), "oracle": PerImage()}
    for entry, images in zip(entries.values(), confusions, strict=True):
        for counts in images:
            entry.add(counts)
    ids = [f"bild/ä_{number}" for number in range(6)]
    save_per_image(tmp_path / "per_image.npz", ids, entries, 3)
    loaded = load_per_image(tmp_path / "per_image.npz")
    assert list(loaded) == ["fixed", "oracle"]
    for side, images in zip(loaded.values(), confusions, strict=True):
        assert side.ids == tuple(ids)
        assert np.array_equal(side.true_pixels, images.sum(axis=2))
        assert np.array_equal(side.predicted_pixels, images.sum(axis=1))
        assert side.miou()[0] == pytest.approx(Confusion(images.sum(axis=0)).miou())


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "per_image.npz"
    with pytest.raises(DataError, match=r"per_image\.npz"):
        load_per_image(path)
    save_per_image(path, ["a"], {"none": PerImage()}, 2)
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(DataError, match=r"per_image\.npz"):
        load_per_image(path)
