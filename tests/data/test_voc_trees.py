"""A VOC tree as users have it: SBD's masks, train_aug without a list, a test split, PASCAL-Context."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import io

from data.tiny_trees import (
    BOAT,
    LISTS,
    SBD_LISTS,
    SBD_ONLY,
    SIZE,
    number_of,
    scene,
    with_ignored_band,
    write_context,
    write_voc,
)
from wsss.data import VocConfig, open_dataset
from wsss.data.dataset import WithoutMasks, ids_with_boundaries
from wsss.data.file_dataset import FileDataset
from wsss.data.masks_png import write_mask
from wsss.data.sbd import read_sbd_mask
from wsss.data.voc import VocDataset
from wsss.errors import DataError

CONTEXT = {"context": "Context", "context_names": "labels.txt"}
TRAIN_AUG = tuple(sorted({*LISTS["train"], *SBD_ONLY}))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return write_voc(tmp_path / "voc")


def opened(tree: Path, **settings: Any) -> FileDataset:
    dataset = open_dataset(VocConfig(root=tree, **settings))
    assert isinstance(dataset, VocDataset)
    return dataset


def true_mask(dataset: FileDataset, image_id: str) -> np.ndarray:
    mask = dataset.sample(image_id, with_mask=True).mask
    assert mask is not None
    return mask


def test_train_aug_is_train_and_all_of_sbd_without_val(tree: Path) -> None:
    assert opened(tree, train_split="train_aug").ids("train_aug") == TRAIN_AUG
    shutil.rmtree(tree / "SBD" / "cls")
    for split, listed in SBD_LISTS.items():  # SBD's own lists stand in for its files
        (tree / "SBD" / f"{split}.txt").write_text("\n".join(listed))
    assert opened(tree, train_split="train_aug").ids("train_aug") == TRAIN_AUG


def test_train_aug_may_come_from_png_files_too(tmp_path: Path) -> None:
    tree = write_voc(tmp_path / "voc", png_aug=True)
    dataset = opened(tree, train_split="train_aug", mask_folder="SegmentationClassAug")
    assert dataset.ids("train_aug") == TRAIN_AUG
    assert np.array_equal(true_mask(dataset, SBD_ONLY[0]), scene(number_of(SBD_ONLY[0]))[1])


def test_a_list_of_train_aug_comes_first(tree: Path) -> None:
    (tree / "ImageSets" / "Segmentation" / "train_aug.txt").write_text(f"{SBD_ONLY[1]}\n")
    assert opened(tree, train_split="train_aug").ids("train_aug") == (SBD_ONLY[1],)


def test_what_train_aug_is_made_of_decides_the_training_that_uses_it(tree: Path) -> None:
    def fingerprints() -> tuple[str, str]:
        return opened(tree).fingerprint(), opened(tree, train_split="train_aug").fingerprint()

    plain, augmented = fingerprints()
    (tree / "SBD" / "cls" / f"{SBD_ONLY[0]}.mat").unlink()
    assert fingerprints()[0] == plain
    assert fingerprints()[1] != augmented


def test_train_aug_without_sbd_says_what_is_missing(tree: Path) -> None:
    shutil.rmtree(tree / "SBD")
    with pytest.raises(DataError, match=r"no split `train_aug`\. It is derived from `train`, `val` and SBD"):
        opened(tree, train_split="train_aug").ids("train_aug")


def test_an_incomplete_sbd_is_reported(
    tree: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("wsss.data.voc.VOC_TRAIN_IMAGES", len(LISTS["train"]))
    with caplog.at_level(logging.WARNING):
        opened(tree, train_split="train_aug")
    assert "train_aug has 6 images in place of 10,582" in caplog.text


def test_masks_are_vocs_where_there_are_any_and_else_sbds(tree: Path) -> None:
    dataset = opened(tree, train_split="train_aug")
    assert dataset.has_masks("train_aug")
    both, only = SBD_LISTS["train"][0], SBD_ONLY[0]
    assert np.array_equal(true_mask(dataset, both), with_ignored_band(scene(number_of(both))[1]))
    assert np.array_equal(true_mask(dataset, only), scene(number_of(only))[1])
    shutil.rmtree(tree / "SegmentationClass")
    dataset = opened(tree, train_split="train_aug")
    assert not dataset.has_masks("train")
    assert np.array_equal(true_mask(dataset, both), scene(number_of(both))[1])
    missing = [path.name for path in dataset.missing_masks(LISTS["train"])]
    assert missing == ["2007_000003.mat", "2007_000004.mat"]


def test_sbd_may_lie_elsewhere(tree: Path, tmp_path: Path) -> None:
    moved = Path(shutil.move(tree / "SBD", tmp_path / "benchmark"))
    dataset = opened(tree, sbd=moved, train_split="train_aug")
    assert dataset.ids("train_aug") == TRAIN_AUG
    assert ids_with_boundaries(dataset, TRAIN_AUG) == ("2007_000001", "2007_000002", *SBD_ONLY)
    assert moved / "cls" in dataset.mask_folders


def test_a_changed_mask_of_sbd_changes_scores_and_no_training(tree: Path) -> None:
    before = opened(tree)
    seen = before.fingerprint(), before.mask_fingerprint()
    path = tree / "SBD" / "cls" / f"{SBD_ONLY[0]}.mat"
    struct = io.loadmat(path)["GTcls"]
    struct["Segmentation"][0, 0][0, 0] = BOAT
    io.savemat(path, {"GTcls": struct})
    assert true_mask(opened(tree), SBD_ONLY[0])[0, 0] == BOAT
    assert opened(tree).fingerprint() == seen[0]
    assert opened(tree).mask_fingerprint() != seen[1]


@pytest.mark.parametrize(
    "segmentation", [np.full((3, 4, 5), 1), np.full(SIZE, 0.5), np.full(SIZE, -1), np.full(SIZE, 300)]
)
def test_what_is_no_mask_of_sbd_is_named(tmp_path: Path, segmentation: np.ndarray) -> None:
    path = tmp_path / "a.mat"
    io.savemat(path, {"GTcls": {"Segmentation": segmentation}})
    with pytest.raises(DataError, match=r"`GTcls\.Segmentation` in .*a\.mat must be \(H, W\) whole numbers"):
        read_sbd_mask(path)


@pytest.mark.parametrize("cut", [0, 50, 200])
def test_damaged_files_of_sbd_and_context_give_one_clear_error(tree: Path, cut: int) -> None:
    dataset = opened(tree, **CONTEXT)
    for path, read in (
        (tree / "SBD" / "cls" / f"{SBD_ONLY[0]}.mat", lambda: true_mask(dataset, SBD_ONLY[0])),
        (tree / "Context" / f"{SBD_ONLY[0]}.mat", lambda: dataset.context(SBD_ONLY[0])),
    ):
        path.write_bytes(path.read_bytes()[:cut])
        with pytest.raises(DataError, match=rf"{path.name} must be a file of"):
            read()


def test_test_images_have_neither_labels_nor_masks(tree: Path) -> None:
    dataset = opened(tree, val_split="test")
    ids = dataset.ids("test")
    assert ids == LISTS["test"]
    assert not any(dataset.is_tagged(image_id) for image_id in ids)
    assert not dataset.has_masks("test")
    assert len(dataset.missing_masks(ids)) == 2
    assert dataset.sample(ids[0]).image.shape == (*SIZE, 3)


def test_context_is_told_by_the_chosen_names_alone(tree: Path) -> None:
    dataset = opened(tree, **CONTEXT)
    assert dataset.context_names == {1: "water", 2: "track", 3: "platform"}
    for image_id in LISTS["train"]:
        _, mask, labels = scene(number_of(image_id))
        expected = np.select([labels == 443, labels == 420], [1, 2], 0)
        expected[mask > 0] = 0
        assert np.array_equal(dataset.context(image_id), expected)
    other = opened(tree, **CONTEXT, context_classes=("grass",))
    assert other.context_names == {1: "grass"}
    assert dataset.context(LISTS["test"][0]) is None
    with pytest.raises(DataError, match=r"`context_classes` names `gras`.*Did you mean `grass`"):
        opened(tree, **CONTEXT, context_classes=("gras",))


def test_context_of_59_classes_is_read_from_png_files(tree: Path) -> None:
    first = LISTS["train"][0]
    write_mask(tree / "Context59" / f"{first}.png", np.full(SIZE, 57, np.uint8))
    (tree / "59_labels.txt").write_text("1: aeroplane\n54:track\n57: water\n\n40: platform\n")
    dataset = opened(tree, context="Context59", context_names="59_labels.txt")
    found = dataset.context(first)
    assert found is not None
    assert (found == 1).all()
    assert dataset.context_names[1] == "water"


def test_context_is_for_scoring_only(tree: Path) -> None:
    before, dataset = opened(tree), opened(tree, **CONTEXT)
    first = LISTS["train"][0]
    assert dataset.fingerprint() == before.fingerprint()
    assert dataset.mask_fingerprint() != before.mask_fingerprint()
    assert tree / "Context" in dataset.mask_folders
    files = {path.relative_to(tree).as_posix() for path in dataset.mask_files(first)}
    assert files == {f"SegmentationClass/{first}.png", f"SBD/cls/{first}.mat", f"Context/{first}.mat"}
    guarded = WithoutMasks(dataset)
    assert guarded.context(first) is None
    assert guarded.context_names == {}
    seen = dataset.mask_fingerprint()
    write_context(tree / "Context" / f"{first}.mat", np.zeros(SIZE, np.uint16))
    assert opened(tree, **CONTEXT).mask_fingerprint() != seen
    chosen = opened(tree, **CONTEXT, context_classes=("water",))
    assert chosen.mask_fingerprint() != opened(tree, **CONTEXT).mask_fingerprint()


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("water\n", "line 1, must be `value: name`"),
        ("1: water\n2\n", "line 2, must be `value: name`"),
        ("1: water\n2: water\n", "line 2, repeats"),
        ("1: water\n1: track\n", "line 2, repeats"),
        ("70000: water\n", "line 1, must be `value: name`"),
    ],
)
def test_wrong_lists_of_context_names_are_named(tree: Path, lines: str, words: str) -> None:
    (tree / "labels.txt").write_text(lines)
    with pytest.raises(DataError, match=words):
        opened(tree, **CONTEXT)


def test_a_context_of_another_size_is_named(tree: Path) -> None:
    first = LISTS["train"][0]
    write_context(tree / "Context" / f"{first}.mat", np.zeros((10, 10), np.uint16))
    with pytest.raises(DataError, match=rf"{first}\.mat must be 48 x 64"):
        opened(tree, **CONTEXT).context(first)
