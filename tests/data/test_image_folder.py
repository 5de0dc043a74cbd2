from pathlib import Path

import pytest

from wsss.data.image_folder import ImageFolder
from wsss.errors import DataError


def filled(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def test_images_are_found_anywhere_and_other_files_are_not(tmp_path: Path) -> None:
    filled(
        tmp_path,
        "a.jpg",
        "x/b.PNG",
        "x/y/c.webp",
        "d.bmp",
        "e.jpeg",
        "f.txt",
        ".hidden.jpg",
        ".git/g.jpg",
        "h",
    )
    images = ImageFolder(tmp_path)
    assert images.ids == ("a", "d", "e", "b", "c")
    assert images.path("c") == tmp_path / "x" / "y" / "c.webp"
    assert "c" in images
    assert "g" not in images


def test_colliding_names_become_paths_and_others_stay_short(tmp_path: Path) -> None:
    images = ImageFolder(filled(tmp_path, "one/1.jpg", "two/1.jpg", "two/2.jpg", "1.png"))
    assert images.ids == ("1", "one/1", "two/1", "2")
    assert images.relative("two/1") == "two/1.jpg"


def test_the_same_name_twice_in_one_folder_is_refused(tmp_path: Path) -> None:
    filled(tmp_path, "x/1.jpg", "x/1.png")
    with pytest.raises(DataError, match=r"1\.jpg and .*1\.png would have the same id `x/1`"):
        ImageFolder(tmp_path)


def test_folders_of_masks_inside_are_left_out(tmp_path: Path) -> None:
    filled(tmp_path, "photos/1.jpg", "masks/1.png")
    assert ImageFolder(tmp_path, without=[tmp_path / "masks"]).ids == ("1",)


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("2", "2"),
        ("2.jpg", "2"),
        ("two/2.jpg", "2"),
        ("two/2", "2"),
        ("./two/2.jpg", "2"),
        ("two\\2.jpg", "2"),
        ("2.JPG", "2"),
        ("2.png", "2"),
        ("one/1", "one/1"),
        ("one/1.jpg", "one/1"),
        ("v1.2", "v1.2"),
        ("v1.2.jpg", "v1.2"),
        ("v1", None),
        ("3", None),
        ("three/2.jpg", None),
    ],
)
def test_ids_are_found_with_or_without_folder_and_extension(
    tmp_path: Path, written: str, found: str | None
) -> None:
    images = ImageFolder(filled(tmp_path, "one/1.jpg", "two/1.jpg", "two/2.jpg", "v1.2.jpg"))
    assert images.find(written, "tags.csv, line 2") == found


def test_an_ambiguous_name_is_refused(tmp_path: Path) -> None:
    images = ImageFolder(filled(tmp_path, "one/1.jpg", "two/1.jpg"))
    for written in ("1", "1.jpg"):
        with pytest.raises(DataError, match=r"tags.csv, line 5 may be one/1.jpg or two/1.jpg"):
            images.find(written, "tags.csv, line 5")


@pytest.mark.parametrize(
    "written", ["../a", "x/../../a", "/etc/passwd", "..\\a.jpg", "C:\\a.jpg", "C:/a.jpg"]
)
def test_no_id_leads_out_of_the_folder(tmp_path: Path, written: str) -> None:
    filled(tmp_path, "a.jpg", "in/a.jpg", "in/b.jpg")
    with pytest.raises(DataError, match=r"in tags.csv, line 2 leads out of the data folder"):
        ImageFolder(tmp_path / "in").find(written, "tags.csv, line 2")


def test_ids_never_hold_a_step_upwards_or_control_characters(tmp_path: Path) -> None:
    assert ImageFolder(filled(tmp_path / "a", "..x.jpg", "ok.jpg")).ids == ("ok",)
    with pytest.raises(DataError, match="Rename it"):
        ImageFolder(filled(tmp_path / "b", "line\nbreak.jpg"))
    with pytest.raises(DataError, match="Rename it"):
        ImageFolder(filled(tmp_path / "c", "..\\x.jpg", "\\.jpg", "x\\y.jpg"))


def test_links_are_followed_once(tmp_path: Path) -> None:
    filled(tmp_path, "data/1.jpg", "elsewhere/2.jpg")
    (tmp_path / "data" / "again").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "more").symlink_to(tmp_path / "elsewhere")
    assert ImageFolder(tmp_path / "data").ids == ("1", "2")


def test_missing_and_empty_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"There is no image folder .*gone"):
        ImageFolder(tmp_path / "gone")
    with pytest.raises(DataError, match=f"There is no JPEG, PNG, BMP or WebP image under {tmp_path}"):
        ImageFolder(tmp_path)


def test_an_unknown_id_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="There is no image `2` under"):
        ImageFolder(filled(tmp_path, "1.jpg")).path("2")
