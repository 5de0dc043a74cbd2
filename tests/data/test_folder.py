import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import TypeAdapter, ValidationError

from wsss.data import (
    DataConfig,
    Dataset,
    FolderConfig,
    WithoutMasks,
    occurring_classes,
    open_dataset,
    tagged_ids,
)
from wsss.data.masks_png import write_mask
from wsss.errors import DataError

SIZES = {
    "1.jpg": (20, 30),
    "sub/2.png": (24, 16),
    "sub/deep/3.webp": (10, 10),
    "4.bmp": (8, 12),
    "5.jpg": (9, 9),
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Five images; 4 has no class, 5 no row."""
    root = tmp_path / "my data"
    for number, (name, (height, width)) in enumerate(SIZES.items()):
        path = root / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (width, height), (number * 40, 0, 0)).save(path)
    (root / "tags.csv").write_text("image,labels,scene\n1,dog|cat,grass\nsub/2.png,cat,\n3,dog,\n4,,\n")
    return root


def opened(tree: Path, **settings):
    return open_dataset(FolderConfig(**{"root": tree, "images": "images", **settings}))


def test_a_folder_with_tags_alone_is_a_data_set(tree: Path) -> None:
    dataset = opened(tree)
    assert isinstance(dataset, Dataset)
    assert dataset.name == "my-data"
    assert dataset.class_names == ("background", "cat", "dog")
    assert dataset.ids("train") == ("1", "4", "2", "3")  # everything tagged; 5 is not
    assert dataset.ids("all") == ("1", "4", "5", "2", "3")
    assert dataset.image_labels("1").tolist() == [True, True]
    assert dataset.image_labels("2").tolist() == [True, False]
    assert dataset.image_labels("1").dtype == np.bool_
    assert dataset.scene_words("1") == ("grass",)
    assert not dataset.has_masks("train")
    assert dataset.context("1") is None
    assert dataset.context_names == {}


def test_empty_means_no_class_and_missing_means_untagged(tree: Path) -> None:
    dataset = opened(tree)
    assert dataset.is_tagged("4")
    assert not dataset.image_labels("4").any()
    assert not dataset.is_tagged("5")
    assert not dataset.image_labels("5").any()
    assert tagged_ids(dataset, "all") == ("1", "4", "2", "3")


def test_sizes_agree_with_samples(tree: Path) -> None:
    dataset = opened(tree)
    for name, size in SIZES.items():
        image_id = Path(name).stem
        assert dataset.image_size(image_id) == dataset.sample(image_id).image.shape[:2] == size
    assert dataset.sample("1").mask is None


def test_a_caller_may_write_into_what_it_gets(tree: Path) -> None:
    dataset = opened(tree)
    dataset.image_labels("1")[:] = False
    dataset.sample("1").image[:] = 7
    assert dataset.image_labels("1").all()
    assert not (dataset.sample("1").image == 7).all()


def test_a_class_that_never_occurs_is_allowed(tree: Path) -> None:
    dataset = opened(tree, class_names=["dog", "unicorn", "cat"])
    assert dataset.class_names == ("background", "dog", "unicorn", "cat")
    assert occurring_classes(dataset, dataset.ids("train")).tolist() == [2, 0, 2]


def test_a_classes_file_gives_order_texts_and_synonyms(tree: Path) -> None:
    (tree / "tags.csv").write_text("image,labels\n1,hound\n")
    (tree / "classes.yaml").write_text("[{name: dog, synonyms: [hound], prompt: big dog}, cat]")
    dataset = opened(tree, classes="classes.yaml")
    assert dataset.image_labels("1").tolist() == [True, False]
    assert dataset.classes[0].prompt == "big dog"
    (tree / "tags.csv").write_text("image,labels\n1,bird\n")
    with pytest.raises(DataError, match=r"Unknown class `bird` in .*tags\.csv, line 2"):
        opened(tree, classes="classes.yaml")


def test_splits_come_from_a_folder_or_single_files(tree: Path) -> None:
    (tree / "lists").mkdir()
    (tree / "lists" / "train.txt").write_text("1\n2.png\n5\n")
    (tree / "lists" / "test.txt").write_text("sub/deep/3.webp\n")
    for splits in ("lists", {"train": "lists/train.txt", "test": tree / "lists" / "test.txt"}):
        dataset = opened(tree, splits=splits)
        assert dataset.ids("train") == ("1", "2", "5")
        assert dataset.ids("test") == ("3",)
        assert dataset.split_names == ("all", "test", "train")
        assert tagged_ids(dataset, "train") == ("1", "2")
        with pytest.raises(DataError, match="no split `val`"):
            dataset.ids("val")


def test_a_fraction_is_drawn_for_validation(tree: Path) -> None:
    dataset = opened(tree, val_fraction=0.5, val_split="held_out")
    assert len(dataset.ids("held_out")) == 2
    assert sorted((*dataset.ids("train"), *dataset.ids("held_out"))) == ["1", "2", "3", "4"]
    assert opened(tree, val_fraction=0.5, val_split="held_out").ids("held_out") == dataset.ids("held_out")


def masked(tree: Path, values: dict[str, int], **settings):
    for name, value in values.items():
        height, width = SIZES[name]
        mask = np.full((height, width), value, np.uint8)
        mask[0] = 255
        write_mask(tree / "masks" / f"{Path(name).with_suffix('')}.png", mask)
    return opened(tree, masks="masks", **settings)


def test_masks_are_found_by_path_or_id_and_read_on_request_only(tree: Path) -> None:
    dataset = masked(tree, {"1.jpg": 1, "sub/2.png": 2, "sub/deep/3.webp": 0, "4.bmp": 1})
    (tree / "masks" / "sub" / "deep" / "3.png").rename(tree / "masks" / "3.png")
    assert dataset.has_masks("train")
    assert not dataset.has_masks("all")
    assert dataset.sample("1").mask is None
    assert dataset.sample("2", with_mask=True).mask[5, 5] == 2
    assert dataset.sample("3", with_mask=True).mask[5, 5] == 0
    with pytest.raises(DataError, match=r"There is no mask .*5\.png"):
        dataset.sample("5", with_mask=True)


def test_the_places_of_masks_are_told_by_the_data_set_alone(tree: Path) -> None:
    write_mask(tree / "context" / "3.png", np.zeros((10, 10), np.uint8))
    (tree / "context.json").write_text('{"1": "sky"}')
    with_context = {"context": "context", "context_names": "context.json"}
    dataset = masked(tree, {"1.jpg": 1, "sub/deep/3.webp": 0}, **with_context)
    masks, context = tree / "masks", tree / "context"
    assert dataset.mask_folders == (masks, context)
    assert dataset.mask_files("1") == (masks / "1.png",)
    assert dataset.mask_files("3") == (masks / "sub" / "deep" / "3.png", context / "3.png")
    assert dataset.mask_files("4") == ()
    assert opened(tree).mask_folders == opened(tree).mask_files("1") == ()
    guarded = WithoutMasks(dataset)
    assert not hasattr(guarded, "mask_folders")
    assert not hasattr(guarded, "mask_files")


def test_masks_below_the_images_are_no_images(tree: Path) -> None:
    (tree / "tags.csv").write_text("image,labels\n1,cat\nimages/sub/2.png,dog\n")
    dataset = masked(tree, {"1.jpg": 1}, images=".")
    assert dataset.sample("1", with_mask=True).mask[5, 5] == 1
    assert all(dataset.image_path(i).is_relative_to(tree / "images") for i in dataset.ids("all"))
    assert len(dataset.ids("all")) == 5


def test_training_never_gets_a_mask(tree: Path) -> None:
    guarded = WithoutMasks(masked(tree, {"1.jpg": 1}))
    assert isinstance(guarded, Dataset)
    with pytest.raises(DataError, match="Only evaluation reads masks"):
        guarded.sample("1", with_mask=True)
    with pytest.raises(DataError, match="Only evaluation reads masks"):
        guarded.mask_fingerprint()


def test_masks_of_another_size_or_class_list_are_named(tree: Path) -> None:
    dataset = masked(tree, {"1.jpg": 3})
    with pytest.raises(DataError, match=r"1\.png must hold 0-2 .* and 255 \(ignored\); got 3"):
        dataset.sample("1", with_mask=True)
    write_mask(tree / "masks" / "1.png", np.zeros((30, 20), np.uint8))
    with pytest.raises(DataError, match=r"1\.png must be 20 x 30 .* got 30 x 20 \(turned; EXIF"):
        dataset.sample("1", with_mask=True)
    Image.new("RGB", (30, 20)).save(tree / "masks" / "1.png")
    with pytest.raises(DataError, match=r"1\.png must be an indexed"):
        dataset.sample("1", with_mask=True)
    with pytest.raises(DataError, match="has no masks"):
        opened(tree).sample("1", with_mask=True)


def test_context_maps_keep_named_values_only(tree: Path) -> None:
    values = np.zeros((20, 30), np.uint8)
    values[5:10], values[10:15] = 3, 9
    write_mask(tree / "context" / "1.png", values)
    (tree / "context.json").write_text(json.dumps({"0": "object", "3": "sky"}))
    dataset = opened(tree, context="context", context_names="context.json")
    assert dataset.context_names == {3: "sky"}
    found = dataset.context("1")
    assert found.dtype == np.uint8
    assert np.array_equal(found, np.where(values == 3, 3, 0))
    assert dataset.context("2") is None
    write_mask(tree / "context" / "2.png", values)
    with pytest.raises(DataError, match=r"2\.png must be 24 x 16"):
        dataset.context("2")
    assert WithoutMasks(dataset).context("1") is None


@pytest.mark.parametrize("text", ["[]", '{"sky": 3}', '{"300": "sky"}', "{"])
def test_context_names_must_be_a_mapping_from_values(tree: Path, text: str) -> None:
    (tree / "context.json").write_text(text)
    (tree / "context").mkdir()
    with pytest.raises(DataError, match=r"context\.json must"):
        opened(tree, context="context", context_names="context.json")


def test_damaged_images_are_named_when_read(tree: Path) -> None:
    dataset = opened(tree)
    (tree / "images" / "1.jpg").write_bytes(b"")
    for read in (dataset.sample, dataset.image_size):
        with pytest.raises(DataError, match=r"images/1\.jpg is empty"):
            read("1")
    with pytest.raises(DataError, match="at most 50 pixels"):
        opened(tree, max_pixels=50).sample("2")


def test_unknown_ids_are_errors_everywhere(tree: Path) -> None:
    dataset = opened(tree)
    for use in (dataset.sample, dataset.image_size, dataset.image_labels, dataset.is_tagged):
        for image_id in ("7", "../tags", "1.jpg"):
            with pytest.raises(DataError, match="There is no image"):
                use(image_id)


@pytest.mark.parametrize("key", ["images", "tags", "masks", "classes"])
def test_every_missing_path_is_named(tree: Path, key: str) -> None:
    with pytest.raises(DataError, match=r"There is no .*gone"):
        opened(tree, **{key: "gone.json"})


def test_the_root_is_relative_to_a_given_folder(tree: Path, monkeypatch) -> None:
    config = FolderConfig(root=tree.name, images="images", name="a/b c")
    assert open_dataset(config, root=tree.parent).name == "a-b-c"
    monkeypatch.chdir(tree.parent)
    assert len(open_dataset(config).ids("train")) == 4
    with pytest.raises(DataError, match="There is no data folder"):
        open_dataset(config, root=tree)


def test_without_tags_images_can_only_be_predicted(tree: Path) -> None:
    dataset = opened(tree, tags=None, class_names=["cat"])
    assert dataset.ids("train") == ()
    assert len(dataset.ids("all")) == 5
    with pytest.raises(DataError, match="Give `classes` or `class_names`"):
        opened(tree, tags=None)


def test_the_configuration_is_checked_and_round_trips() -> None:
    adapter = TypeAdapter(DataConfig)
    config = adapter.validate_python({"kind": "folder", "root": "x", "splits": {"train": "a.txt"}})
    assert adapter.validate_python(config.model_dump(mode="json")) == config
    for wrong in (
        {"kind": "folder", "imges": "x"},
        {"kind": "foldr"},
        {"kind": "folder", "classes": "a.json", "class_names": ["cat"]},
        {"kind": "folder", "splits": "lists", "val_fraction": 0.1},
        {"kind": "folder", "val_split": "train", "val_fraction": 0.1},
        {"kind": "folder", "context": "x"},
    ):
        with pytest.raises(ValidationError):
            adapter.validate_python(wrong)


def test_the_fingerprint_follows_everything_a_stage_reads(tree: Path) -> None:
    masked(tree, {"1.jpg": 1})
    (tree / "classes.yaml").write_text("[cat, dog]")
    settings = {"masks": "masks", "classes": "classes.yaml"}
    seen = [opened(tree, **settings).fingerprint()]
    assert opened(tree, **settings).fingerprint() == seen[0]

    def expect_change() -> None:
        seen.append(opened(tree, **settings).fingerprint())
        assert seen[-1] not in seen[:-1]

    (tree / "tags.csv").write_text("image,labels\n1,dog\n2,cat\n")
    expect_change()
    (tree / "classes.yaml").write_text("[{name: cat, prompt: kitten}, dog]")
    expect_change()
    Image.new("RGB", (50, 50)).save(tree / "images" / "1.jpg")
    expect_change()
    Image.new("RGB", (5, 5)).save(tree / "images" / "6.jpg")
    expect_change()
    settings["val_fraction"] = 0.5
    expect_change()


def test_pixels_replaced_by_a_file_of_equal_size_change_the_fingerprint(tree: Path) -> None:
    path, before = tree / "images" / "4.bmp", opened(tree).fingerprint()
    size = path.stat().st_size
    Image.new("RGB", (12, 8), (1, 2, 3)).save(path)
    assert path.stat().st_size == size
    assert opened(tree).fingerprint() != before


def test_masks_have_a_fingerprint_of_their_own(tree: Path) -> None:
    dataset = masked(tree, {"1.jpg": 1})
    images, seen = dataset.fingerprint(), [opened(tree).mask_fingerprint(), dataset.mask_fingerprint()]
    for name, value in (("1.jpg", 2), ("sub/2.png", 2)):  # one corrected, at the same size, and one more
        seen.append(masked(tree, {name: value}).mask_fingerprint())
    assert len(set(seen)) == len(seen)
    Image.new("RGB", (12, 8), (1, 2, 3)).save(tree / "images" / "4.bmp")
    assert opened(tree, masks="masks").mask_fingerprint() == seen[-1]
    (tree / "images" / "4.bmp").unlink()
    Image.new("RGB", (12, 8), (120, 0, 0)).save(tree / "images" / "4.bmp")  # as it was
    assert opened(tree, masks="masks").fingerprint() == opened(tree).fingerprint() == images


def test_a_fingerprint_reads_each_file_once(tree: Path) -> None:
    dataset = masked(tree, {"1.jpg": 1})
    before = dataset.fingerprint(), dataset.mask_fingerprint()
    (tree / "images" / "1.jpg").unlink()
    (tree / "masks" / "1.png").unlink()
    assert (dataset.fingerprint(), dataset.mask_fingerprint()) == before


def test_missing_masks_are_named_in_order(tree: Path) -> None:
    dataset = masked(tree, {"1.jpg": 1, "sub/2.png": 2})
    assert dataset.missing_masks(("1", "2")) == ()
    assert dataset.missing_masks(("4", "1", "3")) == (tree / "masks" / "4.png", tree / "masks" / "3.png")
    assert len(opened(tree).missing_masks(("1", "2"))) == 2
    assert len(WithoutMasks(dataset).missing_masks(("1", "2"))) == 2


def test_the_fingerprint_does_not_depend_on_the_place(tree: Path) -> None:
    before = opened(tree).fingerprint()
    moved = tree.parent / "elsewhere" / tree.name
    moved.parent.mkdir()
    tree.rename(moved)
    assert opened(moved).fingerprint() == before
