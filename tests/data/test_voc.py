import shutil
from pathlib import Path

import numpy as np
import pytest

from sbd_file import write_sbd
from wsss.data import Dataset, FolderConfig, VocConfig, occurring_classes, open_dataset, tagged_ids
from wsss.data.dataset import WithoutMasks, ids_with_boundaries, true_boundaries
from wsss.data.masks_png import write_mask
from wsss.data.voc import VOC_CLASSES
from wsss.errors import DataError


@pytest.fixture
def tree(tmp_path: Path, tiny_tree: Path) -> Path:
    return Path(shutil.copytree(tiny_tree, tmp_path / "voc"))


def annotate(tree: Path, image_id: str, *objects: str) -> None:
    body = "".join(f"<object>{item}</object>" for item in objects)
    (tree / "Annotations" / f"{image_id}.xml").write_text(f"<annotation>{body}</annotation>")


def first_id(tree: Path) -> str:
    return (tree / "ImageSets" / "Segmentation" / "train.txt").read_text().split()[0]


def test_a_tree_gives_splits_labels_and_masks(tree: Path) -> None:
    dataset = open_dataset(VocConfig(root=tree, classes="classes.yaml"))
    assert isinstance(dataset, Dataset)
    assert (len(dataset.ids("train")), len(dataset.ids("val")), len(dataset.ids("trainval"))) == (12, 6, 18)
    assert dataset.has_masks("trainval")
    for image_id in dataset.ids("trainval"):
        sample = dataset.sample(image_id, with_mask=True)
        shown = set(np.unique(sample.mask).tolist()) - {0, 255}
        assert shown <= set((np.flatnonzero(sample.image_labels) + 1).tolist())
        assert dataset.image_size(image_id) == sample.image.shape[:2] == (64, 64)
    assert occurring_classes(dataset, dataset.ids("train")).sum() >= 12


def test_the_default_classes_are_those_of_voc() -> None:
    assert len(VOC_CLASSES) == 20
    assert list(VOC_CLASSES) == sorted(VOC_CLASSES)
    assert VOC_CLASSES[14] == "person"


def test_labels_are_all_object_names_difficult_ones_too_but_no_parts(tree: Path) -> None:
    image_id = first_id(tree)
    annotate(
        tree,
        image_id,
        "<name>person</name><part><name>head</name></part><part><name>foot</name></part>",
        "<name>dog</name><difficult>1</difficult>",
        "<name> person </name><truncated>1</truncated>",
    )
    dataset = open_dataset(VocConfig(root=tree))
    present = [dataset.class_names[1 + i] for i in np.flatnonzero(dataset.image_labels(image_id))]
    assert present == ["dog", "person"]


def test_annotations_without_objects_tag_and_missing_ones_do_not(tree: Path) -> None:
    dataset = open_dataset(VocConfig(root=tree))
    empty, missing = dataset.ids("train")[:2]
    annotate(tree, empty)
    (tree / "Annotations" / f"{missing}.xml").unlink()
    assert dataset.is_tagged(empty)
    assert not dataset.image_labels(empty).any()
    assert not dataset.is_tagged(missing)
    assert missing not in tagged_ids(dataset, "train")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "<annotation><object><name>hors</name></object></annotation>",
            r"Unknown class `hors` in .*\.xml.*`horse`",
        ),
        ("<annotation><object></annotation>", r"Annotation .*\.xml can't be read"),
        ("", r"Annotation .*\.xml can't be read"),
        ("<annotation><object/></annotation>", "Unknown class ``"),
    ],
)
def test_wrong_annotations_are_named(tree: Path, text: str, words: str) -> None:
    image_id = first_id(tree)
    (tree / "Annotations" / f"{image_id}.xml").write_text(text)
    with pytest.raises(DataError, match=words):
        open_dataset(VocConfig(root=tree)).image_labels(image_id)


def test_train_aug_reads_the_masks_of_the_folder_that_is_named(tree: Path) -> None:
    (tree / "ImageSets" / "Segmentation" / "train_aug.txt").write_text(f"{first_id(tree)}\n")
    write_mask(tree / "SegmentationClassAug" / f"{first_id(tree)}.png", np.full((64, 64), 7, np.uint8))
    plain = open_dataset(VocConfig(root=tree))
    augmented = open_dataset(
        VocConfig(root=tree, mask_folder="SegmentationClassAug", train_split="train_aug")
    )
    assert augmented.has_masks("train_aug")
    assert not augmented.has_masks("train")
    assert (augmented.sample(first_id(tree), with_mask=True).mask == 7).all()
    assert not (plain.sample(first_id(tree), with_mask=True).mask == 7).all()
    assert plain.mask_fingerprint() != augmented.mask_fingerprint()
    assert plain.fingerprint() == augmented.fingerprint()


def test_a_tree_without_masks_can_be_trained_on(tree: Path) -> None:
    shutil.rmtree(tree / "SegmentationClass")
    dataset = open_dataset(VocConfig(root=tree))
    assert not dataset.has_masks("train")
    with pytest.raises(DataError, match="voc has no masks"):
        dataset.sample(first_id(tree), with_mask=True)


@pytest.mark.parametrize("part", ["JPEGImages", "Annotations", "ImageSets"])
def test_missing_parts_are_named(tree: Path, part: str) -> None:
    shutil.rmtree(tree / part)
    with pytest.raises(DataError, match=part):
        open_dataset(VocConfig(root=tree))


def test_a_tags_file_may_stand_in_for_annotations(tree: Path) -> None:
    shutil.rmtree(tree / "Annotations")
    (tree / "tags.csv").write_text(f"image,labels,scene\n{first_id(tree)}.jpg,Dining Table,wall\n")
    dataset = open_dataset(VocConfig(root=tree, tags="tags.csv"))
    assert np.flatnonzero(dataset.image_labels(first_id(tree))).tolist() == [VOC_CLASSES.index("diningtable")]
    assert dataset.scene_words(first_id(tree)) == ("wall",)
    assert tagged_ids(dataset, "train") == (first_id(tree),)


def test_the_fingerprint_follows_annotations_and_lists(tree: Path) -> None:
    def fingerprint() -> str:
        return open_dataset(VocConfig(root=tree)).fingerprint()

    seen = [fingerprint()]
    assert fingerprint() == seen[0]
    annotate(tree, first_id(tree), "<name>dog</name>")
    seen.append(fingerprint())
    (tree / "ImageSets" / "Segmentation" / "train.txt").write_text(f"{first_id(tree)}\n")
    seen.append(fingerprint())
    assert len(set(seen)) == 3


@pytest.mark.data
def test_the_photographs_open_as_a_tree_and_as_a_folder(photographs: Path) -> None:
    tree = open_dataset(VocConfig(root=photographs, classes="classes.json", tags="image_labels.csv"))
    folder = open_dataset(
        FolderConfig(
            root=photographs,
            images="JPEGImages",
            tags="image_labels.csv",
            masks="SegmentationClass",
            classes="classes.json",
            splits="ImageSets/Segmentation",
        )
    )
    for dataset in (tree, folder):
        assert dataset.name == "msrc_v2"
        assert len(dataset.class_names) == 17
        assert dataset.classes[0].background_texts[0] == "building"
        train, val = dataset.ids("train"), dataset.ids("val")
        assert (len(train), len(val)) == (276, 78)
        assert dataset.has_masks("train")
        assert dataset.has_masks("val")
        assert sum(not dataset.image_labels(i).any() for i in (*train, *val)) == 53
        assert occurring_classes(dataset, train)[dataset.class_names.index("horse") - 1] == 1
        assert sum(dataset.image_size(i) != (213, 320) for i in (*train, *val)) == 89
        assert "grass" in dataset.scene_words("1_24")
    for image_id in folder.ids("val")[:20]:
        sample = folder.sample(image_id, with_mask=True)
        shown = np.setdiff1d(np.unique(sample.mask), [0, 255])
        assert np.array_equal(shown, np.flatnonzero(sample.image_labels) + 1)
        assert np.array_equal(tree.sample(image_id, with_mask=True).mask, sample.mask)
    assert tree.fingerprint() == folder.fingerprint()
    assert tree.mask_fingerprint() == folder.mask_fingerprint()


def test_boundaries_of_sbd_are_read_where_they_are(tree: Path) -> None:
    first, second = open_dataset(VocConfig(root=tree)).ids("train")[:2]
    before = open_dataset(VocConfig(root=tree))
    assert true_boundaries(before, first) is None
    assert ids_with_boundaries(before, (first, second)) == ()
    maps = np.random.default_rng(0).random((20, 64, 64)) < 0.01
    write_sbd(tree / "SBD" / "cls" / f"{first}.mat", maps)
    dataset = open_dataset(VocConfig(root=tree))
    assert np.array_equal(true_boundaries(dataset, first), maps.any(axis=0))
    assert true_boundaries(dataset, second) is None
    assert ids_with_boundaries(dataset, (second, first)) == (first,)
    assert dataset.fingerprint() == before.fingerprint()
    fingerprint = dataset.mask_fingerprint()
    assert fingerprint != before.mask_fingerprint()  # scores must be made anew
    write_sbd(tree / "SBD" / "cls" / f"{first}.mat", ~maps)
    assert open_dataset(VocConfig(root=tree)).mask_fingerprint() != fingerprint
    write_sbd(tree / "SBD" / "cls" / f"{second}.mat", maps[:, :60])
    with pytest.raises(DataError, match=rf"{second}\.mat must be 64 x 64 .* got 60 x 64"):
        true_boundaries(dataset, second)


def test_training_reads_no_boundaries(tree: Path) -> None:
    image_id = first_id(tree)
    write_sbd(tree / "SBD" / "cls" / f"{image_id}.mat", np.ones((20, 64, 64), dtype=bool))
    dataset = open_dataset(VocConfig(root=tree))
    assert true_boundaries(dataset, image_id) is not None
    assert true_boundaries(WithoutMasks(dataset), image_id) is None
    assert ids_with_boundaries(dataset, (image_id,)) == (image_id,)
    assert ids_with_boundaries(WithoutMasks(dataset), (image_id,)) == ()
    assert not hasattr(WithoutMasks(dataset), "boundaries")


def test_which_images_have_boundaries_is_known_without_reading_any(tree: Path) -> None:
    image_id = first_id(tree)
    (tree / "SBD" / "cls").mkdir(parents=True)
    (tree / "SBD" / "cls" / f"{image_id}.mat").write_bytes(b"no matrix")
    dataset = open_dataset(VocConfig(root=tree))
    assert ids_with_boundaries(dataset, dataset.ids("train")) == (image_id,)
    with pytest.raises(DataError, match="must be a file of SBD"):
        true_boundaries(dataset, image_id)


def test_all_folders_of_masks_are_known_as_such(tree: Path) -> None:
    for name in ("SegmentationClassAug", "SegmentationObject"):
        (tree / name).mkdir()
    dataset = open_dataset(VocConfig(root=tree))
    assert {path.name for path in dataset.mask_folders} >= {
        "SegmentationClass",
        "SegmentationClassAug",
        "SegmentationObject",
    }
