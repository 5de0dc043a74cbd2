from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_parts import NAMES, MemoryDataset

import oracle_masks
from wsss.activation.scoring import evaluate_folders, score_maps, score_masks
from wsss.activation.seeds import write_pseudo_masks
from wsss.activation.store import MapStore
from wsss.data.masks_png import write_mask
from wsss.errors import DataError, ShapeError
from wsss.metrics.boundaries import Boundaries, TrueEdges, mask_edges
from wsss.metrics.confusion import Confusion
from wsss.metrics.cooccurrence import Cooccurrence, count_context
from wsss.metrics.curves import THRESHOLDS
from wsss.metrics.per_image import load_per_image
from wsss.types import IGNORE, ActivationMaps

SIZES = [(9, 11), (12, 10), (9, 11), (8, 8)]
LABELS = [[1, 2], [2], [], [3, 1]]
CONTEXTS = {1: "water", 2: "rail"}


@pytest.fixture
def dataset() -> MemoryDataset:
    dataset, rng = MemoryDataset(SIZES, LABELS), np.random.default_rng(5)
    dataset.context_names = CONTEXTS
    for name, labels in zip(dataset.names, LABELS, strict=True):
        size = dataset.image_size(name)
        mask = rng.choice([0, 0, *labels], size).astype(np.uint8)
        mask[rng.random(size) < 0.1] = IGNORE
        dataset.masks[name] = mask
        dataset.contexts[name] = np.where(mask == 0, rng.integers(0, 3, size), 0).astype(np.uint8)
    del dataset.contexts["image_3"]
    return dataset


@pytest.fixture
def store(dataset: MemoryDataset, tmp_path: Path) -> MapStore:
    store, rng = MapStore(tmp_path / "maps"), np.random.default_rng(6)
    for name, labels in zip(dataset.names, LABELS, strict=True):
        size = dataset.image_size(name)
        scores = [0.6 * rng.random(size) + 0.39 * (dataset.masks[name] == label) for label in sorted(labels)]
        maps = ActivationMaps(
            torch.tensor(sorted(labels), dtype=torch.int64),
            torch.from_numpy(np.array(scores, dtype=np.float32).reshape(len(labels), *size)),
        )
        store.write(name, maps, image_size=size)
    return store


def expected_at(store: MapStore, dataset: MemoryDataset, score: float) -> Confusion:
    counts = sum(
        oracle_masks.confusion(dataset.masks[name], store.read(name).to_mask(score).numpy(), len(NAMES))
        for name in dataset.names
    )
    return Confusion(counts)


def test_entries_equal_one_evaluation_per_score(
    store: MapStore, dataset: MemoryDataset, tmp_path: Path
) -> None:
    scores = score_maps(store, dataset, dataset.names, fixed=0.15, automatic=0.473)
    assert [entry["background_score_source"] for entry in scores["entries"]] == [
        "fixed",
        "oracle",
        "automatic",
    ]
    mious = [expected_at(store, dataset, score).miou() for score in THRESHOLDS]
    assert scores["curve"]["miou"] == pytest.approx(mious)
    assert scores["curve"]["background_scores"] == list(THRESHOLDS)
    by_source = {entry["background_score_source"]: entry for entry in scores["entries"]}
    assert by_source["oracle"]["background_score"] == THRESHOLDS[int(np.argmax(mious))]
    assert by_source["automatic"]["background_score"] == 0.473
    for entry in scores["entries"]:
        expected = expected_at(store, dataset, entry["background_score"])
        assert entry["confusion"] == expected.counts.tolist()
        assert entry["miou"] == pytest.approx(expected.miou())
        assert list(entry["iou"].values()) == pytest.approx(expected.iou().tolist())
        assert entry["recall"]["cat"] == pytest.approx(1 - entry["under_activation"]["cat"])
        assert entry["precision"]["cat"] == pytest.approx(1 - entry["over_activation"]["cat"])
    assert scores["images"] == 4
    json.dumps(scores, allow_nan=False)


def test_the_curve_of_powers_equals_one_evaluation_per_power(store: MapStore, dataset: MemoryDataset) -> None:
    curve = score_maps(store, dataset, dataset.names)["curve"]
    assert curve["background_powers"] == list(range(1, 11))
    for power, miou in zip(curve["background_powers"], curve["power_miou"], strict=True):
        confusion = Confusion.empty(len(NAMES))
        for name in dataset.names:
            predicted = store.read(name).with_background_power(power).to_mask().numpy()
            confusion.add(dataset.masks[name], predicted)
        assert miou == pytest.approx(confusion.miou())


def test_co_occurrence_equals_counting_the_masks(store: MapStore, dataset: MemoryDataset) -> None:
    scores = score_maps(store, dataset, dataset.names, fixed=0.3)
    counts = Cooccurrence(len(NAMES), 3)
    for name in dataset.names[:3]:  # the last has no context map
        mask, predicted = dataset.masks[name], store.read(name).to_mask(0.3).numpy()
        table = count_context(dataset.contexts[name], mask, predicted, num_contexts=3, num_classes=len(NAMES))
        counts.add(oracle_masks.confusion(mask, predicted, len(NAMES)), table)
    assert scores["entries"][0]["cooccurrence"] == counts.summary(NAMES, CONTEXTS)
    assert set(scores["entries"][0]["cooccurrence"]) == {"cat/water", "cat/rail", "dog/water", "dog/rail"}


def edge_scores(dataset: MemoryDataset, masks: dict[str, np.ndarray]) -> dict[str, dict[str, float | None]]:
    """Boundary scores of masks against the true ones, image by image."""
    counts = Boundaries()
    for name in dataset.names:
        counts.add(TrueEdges.of_mask(dataset.masks[name]), masks[name])
    return counts.summary()


def test_boundaries_equal_those_of_the_masks_at_each_score(store: MapStore, dataset: MemoryDataset) -> None:
    entries = score_maps(store, dataset, dataset.names, fixed=0.15, automatic=0.473)["entries"]
    assert len({entry["background_score"] for entry in entries}) == 3
    for entry in entries:
        score = entry["background_score"]
        masks = {name: store.read(name).to_mask(score).numpy() for name in dataset.names}
        assert entry["boundary"] == edge_scores(dataset, masks)
        assert list(entry["boundary"]) == ["0", "0.0075", "0.02"]
        assert (entry["boundary_source"], entry["boundary_images"]) == ("masks", 4)
    assert len({entry["boundary"]["0"]["f1"] for entry in entries}) == 3


class MemoryWithBoundaries(MemoryDataset):
    """Boundaries one pixel below the edges of the masks; remembers what was read."""

    def __init__(self, like: MemoryDataset, without: tuple[str, ...]) -> None:
        super().__init__(SIZES, LABELS)
        self.masks, self.contexts, self.without = like.masks, like.contexts, without
        self.boundaries_read: list[str] = []

    def has_boundaries(self, image_id: str) -> bool:
        return image_id not in self.without

    def boundaries(self, image_id: str) -> np.ndarray | None:
        self.boundaries_read.append(image_id)
        if image_id in self.without:
            return None
        return np.roll(
            mask_edges(np.where(self.masks[image_id] == IGNORE, 0, self.masks[image_id])), 1, axis=0
        )


EVERY_IMAGE = tuple(f"image_{number}" for number in range(len(SIZES)))


@pytest.mark.parametrize(
    "without",
    [(), ("image_2",), EVERY_IMAGE[1:], EVERY_IMAGE],
    ids=["all images", "all but one", "one", "none"],
)
def test_known_boundaries_count_of_the_images_that_have_them(
    store: MapStore, dataset: MemoryDataset, tmp_path: Path, without: tuple[str, ...]
) -> None:
    known = MemoryWithBoundaries(dataset, without)
    counted = [name for name in EVERY_IMAGE if name not in without] or list(EVERY_IMAGE)
    counts = Boundaries()
    for name in counted:
        truth = (
            TrueEdges.of_mask(known.masks[name])
            if without == EVERY_IMAGE
            else TrueEdges.of_boundaries(known.boundaries(name))
        )
        counts.add(truth, store.read(name).to_mask(0.2).numpy())
    write_pseudo_masks(store, known.names, tmp_path / "masks", background_score=0.2)
    for score in (
        lambda: score_maps(store, known, known.names, fixed=0.2),
        lambda: score_masks(tmp_path / "masks", known, known.names),
    ):
        known.boundaries_read.clear()
        scores = score()
        entry = scores["entries"][0]
        assert entry["boundary"] == counts.summary()
        assert entry["boundary_source"] == ("masks" if without == EVERY_IMAGE else "sbd")
        assert (entry["boundary_images"], scores["images"]) == (len(counted), 4)
        assert len(known.boundaries_read) == len(set(known.boundaries_read))  # none twice


def test_boundaries_of_images_that_are_not_scored_decide_nothing(
    store: MapStore, dataset: MemoryDataset
) -> None:
    known = MemoryWithBoundaries(dataset, EVERY_IMAGE[:2])
    known.context_names = CONTEXTS
    entry = score_maps(store, known, EVERY_IMAGE[:2], fixed=0.2)["entries"][0]
    assert entry == score_maps(store, dataset, EVERY_IMAGE[:2], fixed=0.2)["entries"][0]
    assert (entry["boundary_source"], entry["boundary_images"]) == ("masks", 2)


def test_per_image_counts_add_up_to_the_scores(
    store: MapStore, dataset: MemoryDataset, tmp_path: Path
) -> None:
    scores = score_maps(store, dataset, dataset.names, automatic=0.4, per_image=tmp_path / "per_image.npz")
    loaded = load_per_image(tmp_path / "per_image.npz")
    for entry in scores["entries"]:
        side = loaded[entry["background_score_source"]]
        assert side.ids == dataset.names
        assert side.miou()[0] == pytest.approx(entry["miou"])


def test_pseudo_masks_score_as_the_maps_they_come_from(
    store: MapStore, dataset: MemoryDataset, tmp_path: Path
) -> None:
    folder = tmp_path / "masks"
    write_pseudo_masks(store, dataset.names, folder, background_score=0.35)
    masks = score_masks(folder, dataset, dataset.names, source="automatic", background_score=0.35)["entries"]
    maps = score_maps(store, dataset, dataset.names, automatic=0.35)["entries"]
    assert {**masks[0], "unsure_share": 0.0} == maps[2]


def test_maps_with_a_background_of_their_own_get_one_entry(store: MapStore, dataset: MemoryDataset) -> None:
    expected = score_maps(store, dataset, dataset.names, fixed=0.25)["entries"][0]
    for name in dataset.names:
        store.write(name, store.read(name).with_background(0.25), image_size=dataset.image_size(name))
    scores = score_maps(store, dataset, dataset.names)
    assert scores["curve"] is None
    (entry,) = scores["entries"]
    assert (entry["background_score_source"], entry["background_score"]) == ("none", None)
    assert entry["confusion"] == expected["confusion"]
    assert entry["boundary"] == expected["boundary"]
    store.write("image_0", ActivationMaps(torch.tensor([1]), torch.zeros(1, 9, 11)), image_size=(9, 11))
    with pytest.raises(DataError, match="Only some maps"):
        score_maps(store, dataset, dataset.names)


def test_unsure_pixels_count_as_background(dataset: MemoryDataset, tmp_path: Path) -> None:
    for name in dataset.names:
        write_mask(
            tmp_path / f"{name}.png", dataset.masks[name]
        )  # right, with 255 where the truth is ignored
    perfect = score_masks(tmp_path, dataset, dataset.names)["entries"][0]
    assert (perfect["miou"], perfect["unsure_share"]) == (1.0, 0.0)
    assert perfect["boundary"]["0"] == {"recall": 1.0, "precision": 1.0, "f1": 1.0}
    for name in dataset.names:
        unsure = np.where(dataset.masks[name] == 2, IGNORE, dataset.masks[name]).astype(np.uint8)
        write_mask(tmp_path / f"{name}.png", unsure)
    entry = score_masks(tmp_path, dataset, dataset.names)["entries"][0]
    assert entry["recall"]["dog"] == 0.0
    counted = sum((mask != IGNORE).sum() for mask in dataset.masks.values())
    dogs = sum((mask == 2).sum() for mask in dataset.masks.values())
    assert entry["unsure_share"] == pytest.approx(dogs / counted)


def test_classes_without_true_pixels_are_named(dataset: MemoryDataset, tmp_path: Path) -> None:
    name = dataset.names[1]
    write_mask(tmp_path / f"{name}.png", np.where(dataset.masks[name] == 2, 2, 0).astype(np.uint8))
    entry = score_masks(tmp_path, dataset, [name])["entries"][0]
    assert entry["missing_classes"] == ["cat", "cow"]
    assert entry["iou"]["cow"] is None
    assert entry["miou"] == 1.0


def test_missing_predictions_are_counted(dataset: MemoryDataset, tmp_path: Path) -> None:
    write_mask(tmp_path / "image_0.png", dataset.masks["image_0"])
    with pytest.raises(DataError, match=r"3 of 4 predictions are missing in .* the first is image_1\.png"):
        score_masks(tmp_path, dataset, dataset.names)


def test_sizes_and_classes_must_fit(store: MapStore, dataset: MemoryDataset, tmp_path: Path) -> None:
    write_mask(tmp_path / "image_0.png", np.zeros((11, 9), dtype=np.uint8))
    with pytest.raises(
        DataError, match=r"image_0\.png must have the size of the true mask, 9 x 11 .* got 11 x 9"
    ):
        score_masks(tmp_path, dataset, ["image_0"])
    write_mask(tmp_path / "image_0.png", np.full((9, 11), 77, dtype=np.uint8))
    with pytest.raises(ShapeError, match="got 77"):
        score_masks(tmp_path, dataset, ["image_0"])
    dataset.masks["image_0"] = dataset.masks["image_0"][:8]
    dataset.images["image_0"] = dataset.images["image_0"][:8]
    with pytest.raises(DataError, match="the maps of image_0"):
        score_maps(store, dataset, dataset.names)


def test_an_image_without_a_true_mask_is_named(store: MapStore, dataset: MemoryDataset) -> None:
    del dataset.masks["image_1"]
    with pytest.raises(DataError, match="image_1 has no true mask"):
        score_maps(store, dataset, dataset.names)


def test_anybodys_folders_are_scored(dataset: MemoryDataset, tmp_path: Path) -> None:
    masks, predictions = tmp_path / "masks", tmp_path / "predictions"
    for name in dataset.names:
        write_mask(masks / f"{name}.png", dataset.masks[name])
        write_mask(predictions / f"{name}.png", np.where(dataset.masks[name] == 1, 1, 0).astype(np.uint8))
    scores = evaluate_folders(predictions, masks, NAMES)
    expected = score_masks(predictions, dataset, dataset.names)
    assert scores["entries"][0]["iou"] == expected["entries"][0]["iou"]
    assert scores["entries"][0]["boundary"] == expected["entries"][0]["boundary"]
    assert scores["images"] == 4
    assert evaluate_folders(predictions, masks)["class_names"] == ["background", "1", "2", "3"]
    write_mask(predictions / "image_2.png", np.full_like(dataset.masks["image_2"], 99))
    with pytest.raises(DataError, match=r"image_2\.png .*must hold 0…\d; got 99"):
        evaluate_folders(predictions, masks, NAMES)
    (predictions / "image_2.png").unlink()
    with pytest.raises(DataError, match=r"1 of 4 predictions are missing .* image_2\.png"):
        evaluate_folders(predictions, masks, NAMES)
    assert evaluate_folders(predictions, masks, NAMES, ids=["image_0"])["images"] == 1
    with pytest.raises(DataError, match="no PNG masks"):
        evaluate_folders(predictions, tmp_path, NAMES)


def test_progress_is_told(store: MapStore, dataset: MemoryDataset) -> None:
    calls: list[tuple[int, int, str]] = []
    score_maps(store, dataset, dataset.names, progress=lambda *call: calls.append(call))
    passes = ("images", "images, edges")
    assert calls == [(number, 4, note) for note in passes for number in range(1, 5)]


def test_maps_of_an_unknown_class_are_named(store: MapStore, dataset: MemoryDataset) -> None:
    size = dataset.masks["image_1"].shape
    maps = ActivationMaps(torch.tensor([9]), torch.ones(1, *size))
    store.write("image_1", maps, image_size=size)
    with pytest.raises(DataError, match=r"maps of image_1 .* must be of classes 1-3; got \[9\]"):
        score_maps(store, dataset, dataset.names)
