"""What every refiner must do; new refiners are found here without a word."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from wsss.activation.store import MapStore
from wsss.errors import ShapeError
from wsss.refiners.base import Refiner, find_refiner, list_refiners
from wsss.types import ActivationMaps, Sample

NAMES = ("background", "boat", "train", "cat")
SMALL_TRAINING = {
    "epochs": None,
    "steps": 3,
    "batch_size": 2,
    "augmentation": {"crop_size": 32, "scale": [0.9, 1.1]},
}
SMALL: dict[str, dict[str, Any]] = {
    "backbone": "resnet_small",
    "backbone_weights": None,
    "output_stride": None,
    "batch_norm": "live",
    "freeze_until": None,
    "training": SMALL_TRAINING,
}  # fmt: skip
SMALL_GRIDS = {"psa": {"grid_stride": 4, "radius": 4}, "irn": {"radius": 4, "backbone_trains": True}}
REFINERS = list_refiners()


class Discs:
    """Dark images with a bright disc each, whose maps are blurred and too small."""

    name = "discs"
    class_names = NAMES
    size = (40, 56)

    def __init__(self, count: int = 4) -> None:
        self.names = tuple(f"disc{number}" for number in range(count))

    def ids(self, split: str) -> tuple[str, ...]:
        return self.names

    def image_labels(self, image_id: str) -> np.ndarray:
        return np.arange(3) == int(image_id[4:]) % 3

    def image_size(self, image_id: str) -> tuple[int, int]:
        return self.size

    def is_tagged(self, image_id: str) -> bool:
        return True

    def disc(self, image_id: str, radius: float) -> np.ndarray:
        y, x = np.mgrid[: self.size[0], : self.size[1]]
        return np.hypot(y - 20, x - 20 - 3 * int(image_id[4:])) < radius

    def sample(self, image_id: str, *, with_mask: bool = False) -> Sample:
        assert not with_mask
        rng = np.random.default_rng(int(image_id[4:]))
        image = np.where(self.disc(image_id, 13)[:, :, None], (210, 180, 60), (40, 60, 90))
        image = np.clip(image + rng.normal(size=image.shape) * 4, 0, 255).astype(np.uint8)
        return Sample(image_id, image, self.image_labels(image_id))

    def maps(self, image_id: str) -> ActivationMaps:
        """Maps at a quarter of the resolution."""
        near = torch.from_numpy(self.disc(image_id, 8)).float()[None, None]
        score = torch.nn.functional.interpolate(near, size=(10, 14), mode="area")[0]
        class_id = int(self.image_labels(image_id).argmax()) + 1
        return ActivationMaps(torch.tensor([class_id]), (0.1 + 0.9 * score).clamp(0, 1))


def refiner_of(name: str, **values: Any) -> Refiner:
    """The refiner on a network that trains in a second."""
    cls = find_refiner(name)
    known = {key: value for key, value in SMALL.items() if key in cls.Config.model_fields}
    return cls(cls.Config.model_validate({**known, **SMALL_GRIDS.get(name, {}), **values}), NAMES)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> MapStore:
    discs, store = Discs(), MapStore(tmp_path_factory.mktemp("maps"))
    for image_id in discs.names:
        store.write(image_id, discs.maps(image_id), image_size=discs.size)
    return store


@pytest.fixture(scope="module", params=REFINERS)
def fitted(request: pytest.FixtureRequest, stored: MapStore, tmp_path_factory) -> Refiner:
    discs, refiner = Discs(), refiner_of(request.param)
    folder = tmp_path_factory.mktemp(request.param)
    refiner.fit(discs, discs.names, stored, folder, seed=0)
    return refiner


def given(refiner: Refiner, stored: MapStore, image_id: str) -> ActivationMaps:
    return stored.read(image_id, full_size=refiner.reads_full_size)


def full(refiner: Refiner, sample: Sample, maps: ActivationMaps) -> ActivationMaps:
    height, width = sample.image.shape[:2]
    if refiner.stride > 1:
        return maps.enlarged(refiner.stride, height, width)
    return maps if maps.size == (height, width) else maps.resized(height, width)


def labels(refiner: Refiner, sample: Sample, maps: ActivationMaps) -> torch.Tensor:
    found = full(refiner, sample, maps)
    return found.to_mask(None if found.background is not None else 0.4)


def test_there_are_refiners() -> None:
    assert set(REFINERS) == {"dense_crf", "irn", "psa"}


def test_classes_are_kept_and_scores_stay_in_their_range(fitted: Refiner, stored: MapStore) -> None:
    discs = Discs()
    for image_id in discs.names:
        sample, maps = discs.sample(image_id), given(fitted, stored, image_id)
        refined = fitted.refine(sample, maps)
        assert refined.class_ids.tolist() == maps.class_ids.tolist()
        assert (refined.background is not None) == (fitted.background == "set")
        found = full(fitted, sample, refined)
        assert found.size == discs.size
        assert 0 <= float(found.scores.min()) <= float(found.scores.max()) <= 1
        assert set(labels(fitted, sample, refined).unique().tolist()) <= {0, *maps.class_ids.tolist()}


def test_refining_is_repeatable_and_changes_no_input(fitted: Refiner, stored: MapStore) -> None:
    sample, maps = Discs().sample("disc1"), given(fitted, stored, "disc1")
    image, scores = sample.image.copy(), maps.scores.clone()
    first, second = fitted.refine(sample, maps), fitted.refine(sample, maps)
    assert torch.equal(first.scores, second.scores)
    assert np.array_equal(image, sample.image)
    assert torch.equal(scores, maps.scores)


def test_a_batch_gives_what_its_images_give_alone(fitted: Refiner, stored: MapStore) -> None:
    discs = Discs()
    samples = [discs.sample(image_id) for image_id in discs.names]
    maps = [given(fitted, stored, image_id) for image_id in discs.names]
    for sample, own, found in zip(samples, maps, fitted.refine_batch(samples, maps), strict=True):
        torch.testing.assert_close(found.scores, fitted.refine(sample, own).scores, atol=1e-4, rtol=1e-4)


def test_a_mirrored_image_gives_mirrored_maps(fitted: Refiner, stored: MapStore) -> None:
    sample, maps = Discs().sample("disc2"), given(fitted, stored, "disc2")
    mirrored = Sample("m", np.ascontiguousarray(sample.image[:, ::-1]), sample.image_labels)
    flipped = ActivationMaps(maps.class_ids, maps.scores.flip(2))
    found = labels(fitted, sample, fitted.refine(sample, maps))
    other = labels(fitted, mirrored, fitted.refine(mirrored, flipped)).flip(1)
    # a lattice, a displacement and a grid that begins at the left are not exactly symmetric
    assert float((found == other).float().mean()) >= MIRRORED.get(type(fitted).__name__, 0.99)


MIRRORED = {"Psa": 0.95, "Irn": 0.95}


def test_an_image_of_one_class_throughout_stays_that_class(fitted: Refiner) -> None:
    size = (40, 56)
    rng = np.random.default_rng(0)
    image = np.clip(rng.normal(120, 8, (*size, 3)), 0, 255).astype(np.uint8)
    sample = Sample("all", image, np.array([False, True, False]))
    shape = size if fitted.reads_full_size else (10, 14)
    maps = ActivationMaps(torch.tensor([2]), torch.ones(1, *shape))
    assert bool((labels(fitted, sample, fitted.refine(sample, maps)) == 2).all())


def test_an_all_background_map_stays_background(fitted: Refiner, stored: MapStore) -> None:
    sample = Discs().sample("disc0")
    maps = given(fitted, stored, "disc0")
    empty = ActivationMaps(maps.class_ids, torch.zeros_like(maps.scores))
    assert bool((labels(fitted, sample, fitted.refine(sample, empty)) == 0).all())


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (7, 1), (3, 5), (39, 57), (600, 40)])
def test_images_of_any_size_and_without_classes_are_refined(fitted: Refiner, size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    sample = Sample("odd", rng.integers(0, 255, (*size, 3)).astype(np.uint8), np.array([True, False, True]))
    grid = size if fitted.reads_full_size else tuple((side - 1) // 4 + 1 for side in size)
    maps = ActivationMaps(torch.tensor([1, 3]), torch.from_numpy(rng.random((2, *grid))).float())
    found = full(fitted, sample, fitted.refine(sample, maps))
    assert found.scores.shape == (2, *size)
    none = ActivationMaps(torch.zeros(0, dtype=torch.int64), torch.zeros(0, *grid))
    empty = full(fitted, sample, fitted.refine(sample, none))
    assert empty.scores.shape == (0, *size)
    assert bool((labels(fitted, sample, fitted.refine(sample, none)) == 0).all())


@pytest.mark.parametrize("name", REFINERS)
def test_a_large_image_is_seen_shrunk_and_refined_at_its_own_size(
    name, stored: MapStore, tmp_path: Path
) -> None:
    discs, whole, small = Discs(), refiner_of(name), refiner_of(name, max_pixels=700)
    found = []
    for refiner, folder in ((whole, tmp_path / "whole"), (small, tmp_path / "small")):
        refiner.fit(discs, discs.names, stored, folder, seed=0)
        sample = discs.sample("disc1")
        maps = refiner.refine(sample, given(refiner, stored, "disc1"))
        found.append(full(refiner, sample, maps).scores)
    assert found[0].shape == found[1].shape == (1, *discs.size)
    assert 0 < float((found[0] - found[1]).abs().mean()) < 0.2


@pytest.mark.parametrize("colour", [(0, 0, 0), (128, 128, 128), (255, 255, 255), (200, 30, 30)])
def test_an_image_of_one_colour_gives_finite_maps(fitted: Refiner, stored: MapStore, colour) -> None:
    flat = np.full((40, 56, 3), colour, np.uint8)
    sample = Sample("flat", flat, np.array([True, False, False]))
    found = fitted.refine(sample, given(fitted, stored, "disc0"))
    assert bool(torch.isfinite(found.scores).all())


def test_maps_of_an_unknown_class_get_a_clear_error(fitted: Refiner) -> None:
    sample = Discs().sample("disc0")
    maps = ActivationMaps(torch.tensor([9]), torch.ones(1, 40, 56))
    with pytest.raises(ShapeError, match="class 9, but there are only 3"):
        fitted.refine(sample, maps)


@pytest.mark.parametrize("name", REFINERS)
def test_a_second_fit_returns_at_once_with_the_same_result(name, stored: MapStore, tmp_path: Path) -> None:
    discs, first, second = Discs(), refiner_of(name), refiner_of(name)
    first.fit(discs, discs.names, stored, tmp_path, seed=0)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    second.fit(discs, discs.names, stored, tmp_path, seed=0)
    after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert before == after
    sample, maps = discs.sample("disc1"), given(first, stored, "disc1")
    assert torch.equal(first.refine(sample, maps).scores, second.refine(sample, maps).scores)


@pytest.mark.gpu
def test_an_accelerator_refines_like_a_cpu(fitted: Refiner, stored: MapStore) -> None:
    discs = Discs()
    samples = [discs.sample(image_id) for image_id in discs.names]
    maps = [given(fitted, stored, image_id) for image_id in discs.names]
    expected = [fitted.refine(sample, own).scores for sample, own in zip(samples, maps, strict=True)]
    found = fitted.refine_batch(samples, [own.to("cuda") for own in maps])
    for own, other in zip(found, expected, strict=True):
        assert own.scores.device.type == "cuda"
        torch.testing.assert_close(own.scores.cpu(), other, atol=2e-3, rtol=0)


@pytest.mark.parametrize("name", REFINERS)
def test_its_presets_build(name: str) -> None:
    cls = find_refiner(name)
    for preset in ({}, *cls.presets.values()):
        cls.Config.model_validate(preset)


@pytest.mark.parametrize("name", REFINERS)
def test_it_is_documented(name: str) -> None:
    cls = find_refiner(name)
    assert cls.paper.title
    assert cls.paper.url.startswith("https://")
    assert inspect.getdoc(sys.modules[cls.__module__])
    text = inspect.getdoc(cls)
    for section in ("Args:", "Source:", "Differs:"):
        assert section in text, section
    for key, field in cls.Config.model_fields.items():
        assert field.description, key
