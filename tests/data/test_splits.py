import logging
from pathlib import Path

import pytest

from wsss.data.image_folder import ImageFolder
from wsss.data.splits import Splits, drawn_split, lists_in
from wsss.errors import DataError


@pytest.fixture
def images(tmp_path: Path) -> ImageFolder:
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("a b.jpg", "c.jpg", "d.jpg"):
        (folder / name).touch()
    return ImageFolder(folder)


def listed(folder: Path, content: str, **options) -> dict:
    path = folder / "train.txt"
    path.write_bytes(content.encode())
    return {"lists": {"train": path}, **options}


def test_lists_keep_their_order_and_name_each_image_once(tmp_path: Path, images) -> None:
    splits = Splits(images, **listed(tmp_path, "\ufeffd.jpg\r\n\r\n a b \r\nd\r\n"))
    assert splits.ids("train") == ("d", "a b")
    assert splits.ids("all") == ("a b", "c", "d")
    assert splits.names == ("all", "train")


def test_only_the_first_word_counts_in_voc_lists(tmp_path: Path, images) -> None:
    assert Splits(images, **listed(tmp_path, "c  1\nd -1\n", first_word_only=True)).ids("train") == ("c", "d")


def test_unknown_splits_and_images_are_named(tmp_path: Path, images, caplog) -> None:
    splits = Splits(images, **listed(tmp_path, "c\nx\ny\n"))
    with pytest.raises(DataError, match=r"no split `trian`. Did you mean `train`\?"):
        splits.ids("trian")
    with pytest.raises(DataError, match=r"train\.txt, line 2, names the image `x` \(and 1 more\)"):
        splits.ids("train")
    with caplog.at_level(logging.WARNING):
        assert Splits(images, **listed(tmp_path, "c\nx\n", missing_images="skip")).ids("train") == ("c",)
    assert "names 1 images" in caplog.text
    with pytest.raises(DataError, match="line 1 leads out"):
        Splits(
            images, **listed(tmp_path, "/JPEGImages/c.jpg /SegmentationClass/c.png", first_word_only=True)
        ).ids("train")


def test_empty_missing_and_foreign_lists_are_named(tmp_path: Path, images) -> None:
    with pytest.raises(DataError, match=r"train\.txt names no image"):
        Splits(images, **listed(tmp_path, "\n\n")).ids("train")
    with pytest.raises(DataError, match=r"gone\.txt can't be read"):
        Splits(images, lists={"train": tmp_path / "gone.txt"}).ids("train")
    (tmp_path / "train.txt").write_bytes(b"\xff")
    with pytest.raises(DataError, match="not UTF-8"):
        Splits(images, lists={"train": tmp_path / "train.txt"}).ids("train")


def test_lists_of_a_folder_are_found_by_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"Expected split lists .* in {tmp_path}; got none"):
        lists_in(tmp_path)
    for name in ("val.txt", "train_aug.txt", "notes.md", ".hidden.txt"):
        (tmp_path / name).touch()
    assert lists_in(tmp_path) == {"train_aug": tmp_path / "train_aug.txt", "val": tmp_path / "val.txt"}


def test_a_drawn_split_divides_the_images_by_seed() -> None:
    ids = [f"image{i}" for i in range(50)]
    train, val = drawn_split(ids, 0.2, seed=0)
    assert sorted((*train, *val)) == sorted(ids)
    assert len(val) == 10
    assert list(train) == [i for i in ids if i in train]
    assert drawn_split(ids[::-1], 0.2, seed=0)[1] == val[::-1]
    assert drawn_split(ids, 0.2, seed=1)[1] != val
    assert drawn_split(ids, 0.0, seed=0) == (tuple(ids), ())
    more = set(drawn_split([*ids, "new"], 0.2, seed=0)[1])
    assert len(more ^ set(val)) <= 2  # one more image moves few


def test_the_digest_follows_lists_and_draws(tmp_path: Path, images) -> None:
    first = Splits(images, **listed(tmp_path, "c\n")).digest()
    assert Splits(images, **listed(tmp_path, "c\n")).digest() == first
    assert Splits(images, **listed(tmp_path, "d\n")).digest() != first
    assert (
        Splits(images, drawn={"train": ("c",)}).digest() != Splits(images, drawn={"train": ("d",)}).digest()
    )


def test_the_first_images_of_a_split_are_a_split_whose_name_says_so(tmp_path: Path, images) -> None:
    splits = Splits(images, **listed(tmp_path, "d\nc\na b\n"), drawn={"few": ("c",)})
    names, digest = splits.names, splits.digest()
    assert splits.ids("train_first_2") == ("d", "c")
    assert splits.ids("few_first_1") == ("c",)
    assert splits.ids("all_first_3") == splits.ids("all")
    assert splits.ids("train_first_2_first_1") == ("d",)
    assert (splits.names, splits.digest()) == (names, digest)  # no split of its own
    with pytest.raises(DataError, match=r"`train_first_9` must have 9 images; got 3 in `train`"):
        splits.ids("train_first_9")
    for wrong in ("val_first_2", "train_first_0", "train_first_", "_first_1"):
        with pytest.raises(DataError, match="There is no split"):
            splits.ids(wrong)


def test_a_split_that_could_be_there_comes_with_advice(tmp_path: Path, images) -> None:
    splits = Splits(images, **listed(tmp_path, "c"), advice={"more": "Get it there."})
    with pytest.raises(DataError, match=r"There is no split `more`\. Get it there\."):
        splits.ids("more")
