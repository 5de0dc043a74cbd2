"""Image lists: folders, patterns, list files and paths mean what they say, and names never meet or leave."""

from __future__ import annotations

from pathlib import Path

import pytest

from export.small_model import noise, save_image
from wsss.errors import DataError
from wsss.segmentation.image_list import find_images


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name in ("a.jpg", "b.png", "north/a.jpg", "north/deep/c.v2.webp", "south/a.jpg", ".hidden/x.jpg"):
        save_image(tmp_path / "photos" / name, noise(8, 8))
    (tmp_path / "photos" / "notes.md").write_text("no image")
    return tmp_path / "photos"


def names(*places: object, out: Path = Path("out")) -> list[str]:
    return [image.name for image in find_images([str(place) for place in places], out)]


def test_a_folder_means_all_images_below_it(photos: Path) -> None:
    found = find_images([photos], Path("out"))
    assert [image.name for image in found] == [
        "a.jpg",
        "b.png",
        "north/a.jpg",
        "north/deep/c.v2.webp",
        "south/a.jpg",
    ]
    assert all(image.path == photos / image.name for image in found)
    assert found[3].mask_name == "north/deep/c.v2.png"
    assert len({image.mask_name for image in found}) == 5


def test_masks_inside_the_folder_of_images_are_no_images(photos: Path) -> None:
    save_image(photos / "masks" / "a.png", noise(8, 8))
    assert "masks/a.png" in names(photos)
    assert "masks/a.png" not in names(photos, out=photos / "masks")


def test_a_pattern_names_below_its_fixed_part(photos: Path) -> None:
    assert names(photos / "*" / "a.jpg") == ["north/a.jpg", "south/a.jpg"]
    assert names(photos / "north" / "**" / "*") == ["a.jpg", "deep/c.v2.webp"]
    assert names(photos / "*") == ["a.jpg", "b.png"]  # neither folders nor other files
    with pytest.raises(DataError, match="No JPEG, PNG, BMP or WebP image matches"):
        names(photos / "*.gif")


def test_a_file_whose_name_looks_like_a_pattern_is_itself(photos: Path) -> None:
    save_image(photos / "odd[1].jpg", noise(8, 8))
    assert names(photos / "odd[1].jpg") == ["odd[1].jpg"]


def test_a_place_that_is_not_there_is_named(photos: Path) -> None:
    for gone in (photos / "gone.jpg", photos / "gone", photos / "gone.txt"):
        with pytest.raises(DataError, match=rf"no image, folder or list .*{gone.name}\. Correct the path"):
            names(photos / "b.png", gone)


def test_a_list_file_is_relative_to_itself(photos: Path) -> None:
    listed = photos / "list.txt"
    listed.write_text("\ufeff# which\nsouth/a.jpg\n\n  north/a.jpg  \nmissing.jpg\n", encoding="utf-8")
    assert names(listed) == [
        "missing.jpg",
        "north/a.jpg",
        "south/a.jpg",
    ]  # a missing one fails when it is read
    listed.write_text(f"{photos / 'north' / 'a.jpg'}\n../photos/b.png\n")
    assert names(listed) == ["b.png", "north/a.jpg"]
    elsewhere = photos / "south" / "list.txt"
    elsewhere.write_text("../north/a.jpg\na.jpg\n")
    assert names(elsewhere) == ["north/a.jpg", "south/a.jpg"]  # below the folder that holds both
    listed.write_text("# none\n")
    with pytest.raises(DataError, match="names none"):
        names(listed)
    listed.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="can't be read"):
        names(listed)


def test_several_places_share_a_folder_and_each_image_counts_once(photos: Path) -> None:
    both = names(photos / "north", photos / "south" / "a.jpg", photos / "north" / "a.jpg")
    assert both == ["north/a.jpg", "north/deep/c.v2.webp", "south/a.jpg"]


def test_images_that_would_share_a_mask_are_named(photos: Path) -> None:
    save_image(photos / "a.PNG", noise(8, 8))
    with pytest.raises(DataError, match=r"would have the same mask a\.png"):
        names(photos / "a.jpg", photos / "a.PNG")
    with pytest.raises(DataError, match="in two calls with two output folders"):
        names(photos / "a.jpg", photos / "a.PNG")


def test_a_mask_never_replaces_an_image(photos: Path) -> None:
    with pytest.raises(DataError, match=r"The mask of b\.png would replace an image"):
        names(photos / "a.jpg", photos / "b.png", out=photos)


def test_names_unfit_for_files_are_refused(photos: Path) -> None:
    save_image(photos / "line\nbreak.jpg", noise(8, 8))
    with pytest.raises(DataError, match="can't be used for output files"):
        names(photos / "line\nbreak.jpg", photos / "a.jpg")


@pytest.mark.parametrize("line", ["a\0.png", "x" * 5_000, "a\x1b.png", "/"])
def test_lines_that_are_no_paths_are_named(photos: Path, line: str) -> None:
    (photos / "list.txt").write_text(f"{line}\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"which is no path|can't be used for output"):
        find_images([photos / "list.txt"], photos / "out")


def test_an_overlay_never_replaces_an_image(photos: Path) -> None:
    other = save_image(photos / "overlays" / "a.jpg", noise(8, 8))
    with pytest.raises(DataError, match=r"The overlay of a\.jpg would replace an image"):
        names(photos / "a.jpg", other, out=photos)
    assert names(photos / "a.jpg", other, out=photos / "masks") == ["a.jpg", "overlays/a.jpg"]


def test_names_start_at_the_base(photos: Path) -> None:
    for image in find_images([photos / "north" / "**" / "*"], Path("out")):
        assert Path(image.base) == photos / "north"
        assert Path(image.base) / image.name == image.path
