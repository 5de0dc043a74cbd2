from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from fake_parts import MemoryDataset
from scipy import ndimage

from wsss.activation.background_score import choose_background_score, explained_colour
from wsss.activation.store import MapStore
from wsss.data.dataset import Dataset, WithoutMasks
from wsss.errors import DataError, StageError
from wsss.metrics.curves import THRESHOLDS
from wsss.types import ActivationMaps

SIZE = (40, 48)


def oracle(image: np.ndarray, maps: ActivationMaps, score: float) -> float:
    """R² by its definition: 1 - variance within the sides / variance."""
    colours = image.reshape(-1, 3).astype(float)
    side = maps.to_mask(score).numpy().ravel() > 0
    if side.all() or not side.any():
        return 0.0
    within = sum(((colours[side == s] - colours[side == s].mean(axis=0)) ** 2).sum() for s in (True, False))
    return 1 - within / ((colours - colours.mean(axis=0)) ** 2).sum()


def world(count: int = 12, blur: float = 3.0) -> tuple[MemoryDataset, dict[str, ActivationMaps]]:
    """Discs in a colour of their own on noise, and maps that are the discs blurred, with a faint haze."""
    rng = np.random.default_rng(1)
    dataset = MemoryDataset([SIZE] * count, [[1]] * count)
    yy, xx = np.mgrid[: SIZE[0], : SIZE[1]]
    maps = {}
    for name in dataset.names:
        centre, radius = rng.integers(12, 28, 2), rng.integers(6, 12)
        disc = ((yy - centre[0]) ** 2 + (xx - centre[1]) ** 2) < radius**2
        colours = rng.integers(0, 256, (2, 3))
        image = np.where(disc[..., None], colours[0], colours[1]) + rng.normal(0, 25, (*SIZE, 3))
        dataset.images[name] = image.clip(0, 255).astype(np.uint8)
        dataset.masks[name] = disc.astype(np.uint8)
        haze = ndimage.gaussian_filter(rng.random(SIZE), 4)
        cam = ndimage.gaussian_filter(disc.astype(float), blur) + 0.4 * haze
        maps[name] = ActivationMaps(torch.tensor([1]), torch.from_numpy(cam / cam.max()).float()[None])
    return dataset, maps


def stored(folder: Path, maps: dict[str, ActivationMaps]) -> MapStore:
    store = MapStore(folder)
    for name, value in maps.items():
        store.write(name, value, image_size=SIZE)
    return store


def iou_at(dataset: MemoryDataset, maps: dict[str, ActivationMaps], score: float) -> float:
    both = either = 0
    for name, value in maps.items():
        predicted, true = value.to_mask(score).numpy() > 0, dataset.masks[name] > 0
        both, either = both + (predicted & true).sum(), either + (predicted | true).sum()
    return both / either


def test_one_pass_equals_the_definition() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (*SIZE, 3)).astype(np.uint8)
    scores = torch.from_numpy(rng.random((2, *SIZE)).astype(np.float32))
    maps = ActivationMaps(torch.tensor([1, 3]), scores * 0.8)
    expected = [oracle(image, maps, score) for score in THRESHOLDS]
    assert explained_colour(image, maps) == pytest.approx(expected, abs=1e-9)


def test_the_split_along_the_object_explains_all_of_two_colours() -> None:
    image = np.zeros((*SIZE, 3), dtype=np.uint8)
    image[10:20, 10:30] = (200, 30, 90)
    scores = torch.full((1, *SIZE), 0.35)
    scores[:, 10:20, 10:30] = 0.62
    explained = explained_colour(image, ActivationMaps(torch.tensor([2]), scores))
    assert explained[35:62] == pytest.approx(1.0)
    assert not explained[:35].any()
    assert not explained[62:].any()


def test_all_images_have_the_same_say(tmp_path: Path) -> None:
    """Two faint images outvote a glaring one."""
    dataset = MemoryDataset([SIZE] * 3, [[1]] * 3)
    maps = {}
    for name, colour, low, high in (
        ("image_0", 255, 0.1, 0.4),
        ("image_1", 5, 0.5, 0.8),
        ("image_2", 5, 0.6, 0.9),
    ):
        rng = np.random.default_rng(0)
        dataset.images[name] = rng.integers(0, 20, (*SIZE, 3)).astype(np.uint8)
        dataset.images[name][10:20, 10:30] += np.uint8(min(colour, 235))
        scores = torch.full((1, *SIZE), low)
        scores[:, 10:20, 10:30] = high
        maps[name] = ActivationMaps(torch.tensor([1]), scores)
    chosen = choose_background_score(stored(tmp_path, maps), dataset.names, dataset)
    assert 0.6 <= chosen.value < 0.8
    assert chosen.details["agreement"][65] == pytest.approx(2 / 3)


def test_an_image_of_one_colour_says_nothing() -> None:
    maps = ActivationMaps(torch.tensor([1]), torch.rand(1, *SIZE))
    assert not explained_colour(np.full((*SIZE, 3), 77, dtype=np.uint8), maps).any()


@pytest.mark.parametrize("power", [1.0, 0.3, 3.0], ids=["linear", "high floor", "low floor"])
def test_the_choice_is_near_the_best_one_whatever_the_height_of_the_scores(
    tmp_path: Path, power: float
) -> None:
    dataset, maps = world()
    maps = {name: ActivationMaps(value.class_ids, value.scores**power) for name, value in maps.items()}
    chosen = choose_background_score(stored(tmp_path, maps), dataset.names, dataset)
    best = max(iou_at(dataset, maps, score) for score in THRESHOLDS[::5])
    assert iou_at(dataset, maps, chosen.value) > best - 0.03


def test_the_choice_reads_no_mask_and_is_repeatable(tmp_path: Path) -> None:
    dataset, maps = world()
    store = stored(tmp_path, maps)
    first = choose_background_score(store, dataset.names, guarded(dataset))
    dataset.masks.clear()
    second = choose_background_score(store, dataset.names[::-1], guarded(dataset))
    assert first.value == second.value
    assert first.source == "automatic"
    assert first.as_dict()["details"]["images"] == len(dataset.names)
    assert first.details["agreement"] == pytest.approx(second.details["agreement"])


def guarded(dataset: MemoryDataset) -> Dataset:
    dataset.is_tagged = lambda image_id: True  # type: ignore[attr-defined]
    return WithoutMasks(dataset)  # type: ignore[arg-type]


def test_images_without_classes_are_passed_over(tmp_path: Path) -> None:
    dataset, maps = world(4)
    maps["image_2"] = ActivationMaps(torch.zeros(0, dtype=torch.int64), torch.zeros(0, *SIZE))
    store, calls = stored(tmp_path, maps), []
    chosen = choose_background_score(store, dataset.names, dataset, progress=lambda *call: calls.append(call))
    assert chosen.details["images"] == 3
    assert calls[-1] == (4, 4, "images")
    with pytest.raises(StageError, match="none of 1 images has a class"):
        choose_background_score(store, ("image_2",), dataset)


def test_maps_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    dataset, maps = world(2)
    store = stored(tmp_path, maps)
    dataset.images["image_1"] = dataset.images["image_1"][:-1]
    with pytest.raises(DataError, match="40 x 48"):
        choose_background_score(store, dataset.names, dataset)
    store.write("image_0", maps["image_0"].with_background(0.5), image_size=SIZE)
    with pytest.raises(StageError, match="background of their own"):
        choose_background_score(store, dataset.names, dataset)
