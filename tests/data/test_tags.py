import logging
from pathlib import Path

import pytest

from wsss.data.classes import ClassList
from wsss.data.image_folder import ImageFolder
from wsss.data.tags import TagRow, labels_of_rows, read_tag_rows, tag_table
from wsss.errors import DataError
from wsss.types import ClassInfo

CLASSES = ClassList((ClassInfo("cat", synonyms=("kitty",)), ClassInfo("dog")), "classes.yaml")


@pytest.fixture
def images(tmp_path: Path) -> ImageFolder:
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("1.jpg", "2.jpg", "3.jpg"):
        (folder / name).touch()
    return ImageFolder(folder)


def tags(folder: Path, content: str | bytes) -> Path:
    path = folder / "tags.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def table(folder: Path, images: ImageFolder, content: str, **options):
    path = tags(folder, content)
    return tag_table(read_tag_rows(path), path, images, CLASSES, **options)


@pytest.mark.parametrize(
    "content",
    [
        "image,labels,scene\n1.jpg,cat|dog,grass|sky\n2,,\n",
        "\ufeffimage,labels,scene\r\n1.jpg,cat|dog,grass|sky\r\n\r\n2,,\r\n",
        'Image , Labels,scene\n"1.jpg"," cat | dog|cat|", grass|sky \n2,"",\n\n',
        "labels,scene,image\ncat|dog,grass|sky,1.jpg\n,,2",
    ],
)
def test_rows_are_read_whatever_the_line_ends_marks_quotes_and_columns(tmp_path: Path, content: str) -> None:
    first, second = read_tag_rows(tags(tmp_path, content))
    assert (first.image, first.labels, first.scene) == ("1.jpg", ("cat", "dog"), ("grass", "sky"))
    assert (second.image, second.labels, second.scene) == ("2", (), ())


def test_rows_know_their_lines_and_the_scene_may_be_left_out(tmp_path: Path) -> None:
    rows = read_tag_rows(tags(tmp_path, "image,labels,scene\n1,cat\n\n2,dog|cat,sky\n"))
    assert rows == (TagRow(2, "1", ("cat",), ()), TagRow(4, "2", ("dog", "cat"), ("sky",)))
    assert labels_of_rows(rows) == {"cat": 2, "dog": 4}


def test_unused_columns_are_reported_not_lost_silently(tmp_path: Path, caplog) -> None:
    with caplog.at_level(logging.WARNING):
        assert len(read_tag_rows(tags(tmp_path, "image,labels,scenes\n1,cat,sky\n"))) == 1
    assert "column `scenes` is not used. Did you mean `scene`?" in caplog.text


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("image;labels\n1.jpg;cat|dog\n", "by semicolons; expected commas"),
        ("image\tlabels\n1.jpg\tcat\n", "by tabs; expected commas"),
        ("1.jpg,cat\n2.jpg,dog\n", "must begin with a line of column names.*got `1.jpg,cat`"),
        ("image,label\n1,cat\n", "must begin with a line of column names"),
        ("image,labels,image\n1,cat,2\n", "once each"),
        ("", "must begin with a line of column names"),
        ("image,labels\n1,cat,dog\n", "line 2, must have 2 cells.*got 3.*labels by `|`"),
        ("image,labels\n1,cat\n2\n", "line 3, must have 2 cells.*got 1.*keep its comma"),
        ("image,labels\n,cat\n", "line 2, names no image"),
        ('image,labels\n1,"cat\n', "no valid CSV"),
        (b"image,labels\n1,caf\xe9\n", "is not UTF-8 text"),
        (b"\xff\xfei\x00m\x00", "is not UTF-8 text"),
    ],
)
def test_other_files_end_in_one_clear_line(tmp_path: Path, content: str | bytes, words: str) -> None:
    path = tags(tmp_path, content)
    with pytest.raises(DataError, match=words) as caught:
        read_tag_rows(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named_with_its_key(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"There is no tags file .*gone.csv. Correct `tags`"):
        read_tag_rows(tmp_path / "gone.csv")
    with pytest.raises(DataError, match="can't be read"):
        read_tag_rows(tmp_path)


def test_images_and_synonyms_are_looked_up(tmp_path: Path, images) -> None:
    found = table(tmp_path, images, "image,labels,scene\n2,Dog|kitty|cat,sky\n1.jpg,,\n")
    assert found.classes_of("2") == (0, 1)
    assert found.scene_words("2") == ("sky",)
    assert found.classes_of("1") == ()  # tagged: no class is present
    assert found.classes_of("3") is None  # untagged
    assert found.scene_words("3") == ()


def test_an_unknown_label_names_file_line_and_nearest_class(tmp_path: Path, images) -> None:
    with pytest.raises(DataError, match=r"Unknown class `kat` in .*tags\.csv, line 3\. Did you mean `cat`\?"):
        table(tmp_path, images, "image,labels\n1,dog\n2,kat\n")


def test_tags_for_missing_images_are_an_error_or_skipped(tmp_path: Path, images, caplog) -> None:
    content = "image,labels\n1,dog\n7.jpg,cat\n8,cat\n"
    with pytest.raises(
        DataError, match=r"tags\.csv, line 3, names the image `7\.jpg` \(and 1 more\).*`missing_images: skip`"
    ):
        table(tmp_path, images, content)
    with caplog.at_level(logging.WARNING):
        found = table(tmp_path, images, content, missing_images="skip")
    assert found.labels == {"1": (1,)}
    assert "names 2 images" in caplog.text


def test_an_image_outside_is_an_error_even_when_missing_ones_are_skipped(tmp_path: Path, images) -> None:
    with pytest.raises(DataError, match="leads out of the data folder"):
        table(tmp_path, images, "image,labels\n../tags,cat\n", missing_images="skip")


def test_repeated_rows_must_agree(tmp_path: Path, images) -> None:
    found = table(tmp_path, images, "image,labels\n1,cat|dog\n1.jpg,dog|kitty\n")
    assert found.labels == {"1": (0, 1)}
    with pytest.raises(DataError, match=r"tags `1` differently in lines 2 and 4.*one row"):
        table(tmp_path, images, "image,labels\n1,cat\n2,cat\n1.jpg,dog\n")


def test_the_digest_follows_meaning_not_spelling(tmp_path: Path, images) -> None:
    first = table(tmp_path, images, "image,labels\n1,cat|dog\n2,\n").digest()
    assert table(tmp_path, images, "\ufefflabels,image\r\n,2.jpg\r\nDog|kitty,1\r\n").digest() == first
    assert table(tmp_path, images, "image,labels\n1,cat|dog\n").digest() != first
    assert table(tmp_path, images, "image,labels,scene\n1,cat|dog,sky\n2,,\n").digest() != first
