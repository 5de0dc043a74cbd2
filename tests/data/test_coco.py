"""COCO against hand-made truths: polygons, run lengths, crowds, order of painting, splits."""

from __future__ import annotations

import io
import json
import pickle
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from data.tiny_trees import (
    COCO_TRAIN,
    COCO_VAL,
    SIZE,
    annotation,
    coco_document,
    coco_id,
    crowd_mask,
    rectangle,
    runs,
    write_coco,
)
from wsss.data import CocoConfig, Dataset, open_dataset, tagged_ids
from wsss.data.classes import named_classes
from wsss.data.coco import COCO_CLASSES
from wsss.data.coco_annotations import CocoObject, read_objects
from wsss.data.coco_masks import draw_mask
from wsss.data.dataset import WithoutMasks
from wsss.errors import DataError
from wsss.layers.class_texts import published_texts

CLASSES = named_classes(COCO_CLASSES, "COCO")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return write_coco(tmp_path / "coco")


def opened(tree: Path, **settings: Any) -> Dataset:
    return open_dataset(CocoConfig(root=tree, **settings))


def rewrite(tree: Path, part: str = "train", **changes: Any) -> Path:
    """The annotation file of a part with other sections."""
    path = tree / "annotations" / f"instances_{part}2014.json"
    path.write_text(json.dumps({**coco_document(part), **changes}))
    return path


def names_of(dataset: Dataset, image_id: str) -> list[str]:
    return [dataset.class_names[1 + i] for i in np.flatnonzero(dataset.image_labels(image_id))]


def test_the_classes_are_the_published_ones_in_the_order_of_their_ids() -> None:
    assert len(COCO_CLASSES) == len(set(COCO_CLASSES)) == 80
    assert tuple(published_texts("coco_qa").prompts) == COCO_CLASSES
    assert tuple(published_texts("coco_improved").prompts) == COCO_CLASSES
    assert published_texts("coco_improved").prompts["person"] == "player"


def test_splits_are_all_images_or_those_with_annotations_in_the_order_of_their_ids(tree: Path) -> None:
    dataset = opened(tree)
    assert isinstance(dataset, Dataset)
    assert dataset.ids("train") == tuple(coco_id("train", n) for n in COCO_TRAIN)
    assert dataset.ids("train_labelled") == tuple(coco_id("train", n) for n in (9, 25, 30, 36))
    assert dataset.ids("val") == tuple(coco_id("val", n) for n in (42, 73))
    assert dataset.ids("val_all") == tuple(coco_id("val", n) for n in COCO_VAL)
    assert dataset.ids("train_first_2") == dataset.ids("train")[:2]
    assert tagged_ids(dataset, "train") == dataset.ids("train")  # one of them with no class at all
    assert not dataset.image_labels(coco_id("train", 34)).any()


def test_labels_count_crowds_and_masks_do_not(tree: Path) -> None:
    dataset, image_id = opened(tree), coco_id("train", COCO_TRAIN[0])
    assert names_of(dataset, image_id) == ["person", "boat", "cow"]  # in the order of their ids
    mask = dataset.sample(image_id, with_mask=True).mask
    assert mask is not None
    values = {name: dataset.class_names.index(name) for name in ("person", "boat")}
    expected = np.zeros(SIZE, dtype=np.uint8)
    expected[8:30, 10:40] = values["boat"]
    expected[10:40, 30:50] = expected[0:4, 0:4] = values["person"]  # painted last
    assert (mask == expected).all()
    assert values == {"person": 1, "boat": 9}


def test_category_ids_are_compacted_in_their_order(tree: Path) -> None:
    last = annotation(9, "toothbrush", [rectangle(0, 0, 10, 10)])
    assert last["category_id"] == 90
    rewrite(tree, annotations=[last])
    dataset = opened(tree)
    assert dataset.sample(coco_id("train", 9), with_mask=True).mask[5, 5] == 80


def test_a_grey_image_is_read_as_colours(tree: Path) -> None:
    image = opened(tree).sample(coco_id("train", COCO_TRAIN[1])).image
    assert image.shape == (*SIZE, 3)
    assert (image[..., 0] == image[..., 2]).all()


def painted_slowly(path: Path, number: int, size: tuple[int, int]) -> np.ndarray:
    """What pycocotools' own reader gives, pixel by pixel in the order of the file."""
    with redirect_stdout(io.StringIO()):
        coco = COCO(path)
    values = {category: place + 1 for place, category in enumerate(sorted(coco.cats))}
    mask = np.zeros(size, dtype=np.uint8)
    for item in json.loads(path.read_text())["annotations"]:
        if item["image_id"] == number and not item["iscrowd"]:
            inside = coco.annToMask(item)
            for row, column in np.argwhere(inside):
                mask[row, column] = values[item["category_id"]]
    return mask


def test_masks_equal_those_of_the_reference_reader(tree: Path) -> None:
    """Random polygons with broken coordinates, partly outside, and run lengths in both forms."""
    rng, size = np.random.default_rng(0), SIZE
    blob = rng.random(size) < 0.3
    packed = coco_mask.encode(np.asfortranarray(blob.astype(np.uint8)))
    items = [
        annotation(9, COCO_CLASSES[n], [np.round(rng.uniform(-5, 70, 2 * k), 2).tolist()], key=n + 1)
        for n, k in enumerate((3, 4, 5, 9, 30, 3, 17))
    ]
    items.insert(3, annotation(9, "zebra", runs(blob), key=50))
    items.insert(1, annotation(9, "kite", {"size": list(size), "counts": packed["counts"].decode()}, key=51))
    path = rewrite(tree, annotations=items)
    expected = painted_slowly(path, 9, size)
    assert len(np.unique(expected)) > 5
    assert np.array_equal(opened(tree).sample(coco_id("train", 9), with_mask=True).mask, expected)


def test_run_lengths_as_text_are_read_as_the_reference_does() -> None:
    for density in (0.001, 0.02, 0.5, 0.98):
        blob = np.random.default_rng(1).random(SIZE) < density
        packed = coco_mask.encode(np.asfortranarray(blob.astype(np.uint8)))
        item = CocoObject(1, {"size": list(SIZE), "counts": packed["counts"].decode()})
        assert np.array_equal(draw_mask([item], SIZE, "x"), blob)


def test_run_lengths_whose_sum_wraps_are_refused() -> None:
    shape = {"size": list(SIZE), "counts": [*[2**62] * 4, SIZE[0] * SIZE[1]]}
    with pytest.raises(DataError, match="don't add up"):
        draw_mask([CocoObject(1, shape)], SIZE, "x")


def test_coordinates_are_kept_exactly(tree: Path) -> None:
    """Half of a fifth of a pixel decides: single precision draws some of these otherwise."""
    corners = [[x / 100, y / 100] for x, y in ((1070, 1030), (3110, 1290), (2950, 3330))]
    shape = [[value for corner in corners for value in corner]]
    path = rewrite(tree, annotations=[annotation(9, "kite", shape)])
    (item,) = read_objects(path, CLASSES)[coco_id("train", 9)]
    assert np.array_equal(draw_mask([item], SIZE, "x"), painted_slowly(path, 9, SIZE))
    assert item.shape is not None
    assert list(item.shape[0]) == shape[0]


def test_nothing_is_printed_and_nothing_written(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(tree.rglob("*"))
    dataset = opened(tree)
    dataset.sample(dataset.ids("train")[0], with_mask=True)
    assert capsys.readouterr() == ("", "")
    assert sorted(tree.rglob("*")) == before


def test_a_data_set_reaches_worker_processes(tree: Path) -> None:
    dataset, image_id = opened(tree), coco_id("val", 42)
    mask = dataset.sample(image_id, with_mask=True).mask
    moved = pickle.loads(pickle.dumps(dataset))
    assert np.array_equal(moved.sample(image_id, with_mask=True).mask, mask)


def test_training_sees_labels_alone(tree: Path) -> None:
    dataset = opened(tree)
    guarded = WithoutMasks(dataset)
    assert guarded.image_labels(coco_id("train", 9)).sum() == 3
    with pytest.raises(DataError, match="Only evaluation reads masks"):
        guarded.sample(coco_id("train", 9), with_mask=True)
    assert tree / "annotations" in dataset.mask_folders


def test_a_moved_corner_changes_the_masks_alone_and_another_class_the_labels(tree: Path) -> None:
    def fingerprints() -> tuple[str, str]:
        dataset = opened(tree)
        return dataset.fingerprint(), dataset.mask_fingerprint()

    labels, masks = fingerprints()
    items = coco_document("train")["annotations"]
    items[1]["segmentation"] = [rectangle(8, 10, 30, 41)]
    rewrite(tree, annotations=items)
    assert fingerprints()[0] == labels
    assert fingerprints()[1] != masks
    items[1]["category_id"] = 1
    rewrite(tree, annotations=items)
    assert fingerprints()[0] != labels


def test_the_division_of_2017_has_ids_of_numbers_alone(tmp_path: Path) -> None:
    dataset = opened(write_coco(tmp_path / "coco", 2017), year=2017)
    assert dataset.ids("val") == ("000000000042", "000000000073")
    assert dataset.sample("000000000042", with_mask=True).mask.any()


def test_one_part_is_enough_and_the_other_is_named_when_asked_for(tree: Path) -> None:
    (tree / "annotations" / "instances_train2014.json").unlink()
    dataset = opened(tree)
    assert len(dataset.ids("val")) == 2
    assert not dataset.is_tagged(coco_id("train", 9))
    assert dataset.missing_masks([coco_id("train", 9)])
    with pytest.raises(DataError, match=r"no split `train`\. Its images are listed in .*train2014\.json"):
        dataset.ids("train")
    (tree / "annotations" / "instances_val2014.json").unlink()
    with pytest.raises(DataError, match=r"Expected instances_train2014\.json or instances_val2014\.json"):
        opened(tree)


def test_other_folders_beside_the_images_are_no_part_of_them(tree: Path) -> None:
    (tree / "train2014").rename(tree / "kept")
    (tree / "images" / "test2014").mkdir(parents=True)
    (tree / "kept").rename(tree / "images" / "train2014")
    (tree / "val2014").rename(tree / "images" / "val2014")
    image = next((tree / "images" / "val2014").glob("*.jpg"))
    (tree / "images" / "test2014" / "COCO_test2014_000000000001.jpg").write_bytes(image.read_bytes())
    dataset = opened(tree, images="images")
    assert len(dataset.ids("all")) == len(COCO_TRAIN) + len(COCO_VAL)


def test_missing_images_are_an_error_or_left_out(tree: Path) -> None:
    (tree / "train2014" / f"{coco_id('train', 25)}.jpg").unlink()
    with pytest.raises(DataError, match=r"lists 1 images that are not under .*000000000025.*missing_images"):
        opened(tree)
    dataset = opened(tree, missing_images="skip")
    assert coco_id("train", 25) not in dataset.ids("train")
    assert len(dataset.ids("train_labelled")) == 3


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"images": None}, "must be COCO's JSON"),
        ({"annotations": [{"category_id": 1}]}, "must be COCO's JSON .*image_id"),
        ({"annotations": 3}, "must be COCO's JSON"),
        ({"images": []}, "lists no image"),
        ({"annotations": [{"image_id": 77, "category_id": 1}]}, "got image 77, category 1"),
        ({"annotations": [{"image_id": 9, "category_id": 12}]}, "got image 9, category 12"),
        ({"categories": [{"id": 1, "name": "persom"}]}, r"Unknown class `persom` in .*json.*`person`"),
        ({"categories": [{"id": 1, "name": "person"}, {"id": 2, "name": "Person"}]}, "same class"),
    ],
)
def test_wrong_annotations_are_named(tree: Path, changes: dict[str, Any], words: str) -> None:
    rewrite(tree, **changes)
    with pytest.raises(DataError, match=words):
        opened(tree)


def test_an_image_listed_twice_is_named(tree: Path) -> None:
    images = coco_document("train")["images"]
    rewrite(tree, images=[*images, images[0]])
    with pytest.raises(DataError, match="each image once"):
        opened(tree)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe", b'{"images": [', b"[" * 100_000])
def test_damaged_files_give_one_clear_error(tree: Path, content: bytes) -> None:
    path = tree / "annotations" / "instances_val2014.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"instances_val2014\.json .*Replace it"):
        opened(tree)


@pytest.mark.parametrize(
    "shape",
    [
        None,
        [],
        [[1, 2, 3, 4]],
        [[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]],
        [rectangle(0, 0, 9, 9), [float("nan")] * 6],
        [[1e12, 0, 5, 5, 0, 5]],
        {"counts": [5, 5], "size": list(SIZE)},
        {"counts": [-5, 5 + SIZE[0] * SIZE[1]], "size": list(SIZE)},
        {"counts": [SIZE[0] * SIZE[1]], "size": list(SIZE[::-1])},
        {"counts": "zzzzz", "size": list(SIZE)},
        {"counts": "oooooooooooooooooo0", "size": list(SIZE)},
        {"counts": "12o", "size": list(SIZE)},
        {"size": list(SIZE)},
    ],
)
def test_shapes_that_cannot_be_drawn_are_named(tree: Path, shape: Any) -> None:
    rewrite(tree, annotations=[annotation(9, "cow", shape)])
    dataset = opened(tree)
    with pytest.raises(DataError, match=r"image COCO_train2014_000000000009 .* can't be drawn"):
        dataset.sample(coco_id("train", 9), with_mask=True)


def test_an_image_of_another_size_than_its_runs_is_named(tree: Path) -> None:
    rewrite(tree, annotations=[annotation(9, "cow", runs(crowd_mask()[:, :-1]))])
    with pytest.raises(DataError, match="its size is"):
        opened(tree).sample(coco_id("train", 9), with_mask=True)
