"""Each fault of a folder is found as what it is, and a folder without faults is left in peace."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from doctor.small_folder import clean_rows, pixels, write_folder, write_image, write_tags
from wsss.data.masks_png import write_mask
from wsss.doctor.doctor import Diagnosis, diagnose
from wsss.doctor.findings import Finding
from wsss.doctor.inputs import Inputs
from wsss.errors import DataError, RecipeError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "parts")


def look(target: Path | Inputs, **options: object) -> Diagnosis:
    return diagnose(target, with_estimate=False, **options)  # type: ignore[arg-type]


def found(target: Path | Inputs, **options: object) -> dict[str, Finding]:
    findings = look(target, **options).findings
    codes = {finding.code: finding for finding in findings}
    assert len(codes) == len(findings)
    return codes


def only(target: Path | Inputs, code: str, level: str) -> Finding:
    """The one finding of a folder."""
    codes = found(target)
    assert list(codes) == [code]
    assert codes[code].level == level
    return codes[code]


def add(folder: Path, *rows: tuple[str, tuple[str, ...], tuple[str, ...]]) -> None:
    write_tags(folder / "tags.csv", [*clean_rows(), *rows])


def test_nothing_is_found_in_a_clean_folder(folder: Path):
    diagnosis = look(folder)
    assert diagnosis.findings == ()
    assert diagnosis.facts == {
        "images": 48,
        "tagged": 48,
        "without_class": 12,
        "with_scene_words": 48,
        "masks": 0,
        "median_height": 48,
        "median_width": 64,
        "images_of_class": {"blisk": 24, "rotor": 24},
    }


def test_empty_and_truncated_files_and_text_are_unreadable(folder: Path):
    images = folder / "images"
    whole = (images / "002.png").read_bytes()
    (images / "001.png").write_bytes(b"")
    (images / "002.png").write_bytes(whole[: len(whole) // 2])
    (images / "003.png").write_text("no image")
    finding = only(folder, "unreadable-image", "error")
    assert finding.where == ("001.png", "002.png", "003.png")
    assert finding.count == 3
    assert "empty (0 bytes)" in finding.what


def test_a_quick_look_reads_the_headers_of_all_and_the_pixels_of_some(folder: Path, monkeypatch):
    from wsss.doctor import image_checks

    monkeypatch.setattr(image_checks, "DECODED_WHEN_QUICK", 1)
    images = folder / "images"
    for name in ("000.png", "001.png"):  # the first is decoded, the second is not
        whole = (images / name).read_bytes()
        (images / name).write_bytes(whole[: len(whole) // 2])
    (images / "002.png").write_bytes(b"")
    assert found(folder, quick=True)["unreadable-image"].where == ("000.png", "002.png")


def test_content_and_name_that_disagree(folder: Path):
    Image.fromarray(pixels(1)).save(folder / "images" / "001.png", format="JPEG")
    finding = only(folder, "wrong-extension", "warning")
    assert finding.where == ("001.png (is JPEG)",)


def test_a_turned_image_is_named_with_what_becomes_of_it(folder: Path):
    exif = Image.Exif()
    exif[0x0112] = 6
    (folder / "images" / "001.png").unlink()
    Image.fromarray(pixels(1)).save(folder / "images" / "001.jpg", exif=exif)
    finding = only(folder, "exif-rotation", "note")
    assert finding.where == ("001.jpg",)
    assert "turns them" in finding.advice


@pytest.mark.parametrize(
    ("code", "name", "mode"),
    [
        ("sixteen-bit", "001.png", "I;16"),
        ("cmyk", "001.jpg", "CMYK"),
        ("palette", "001.png", "P"),
        ("alpha", "001.png", "RGBA"),
    ],
)
def test_unusual_pixels(folder: Path, code: str, name: str, mode: str):
    image = Image.fromarray(pixels(1))
    if mode == "I;16":
        image = Image.fromarray(pixels(1)[..., 0].astype(np.uint16) << 8)
    (folder / "images" / "001.png").unlink()
    (image if mode == "I;16" else image.convert(mode)).save(folder / "images" / name)
    assert only(folder, code, "note").where == (name,)


def test_an_animation(folder: Path):
    (folder / "images" / "001.png").unlink()
    frames = [Image.fromarray(pixels(n)) for n in range(3)]
    frames[0].save(folder / "images" / "001.webp", save_all=True, append_images=frames[1:])
    assert only(folder, "animated", "note").where == ("001.webp",)


def test_sizes_that_are_too_small_or_large(folder: Path, monkeypatch):
    from wsss.doctor import image_checks

    monkeypatch.setattr(image_checks, "LARGE_PIXELS", 48 * 64)
    write_image(folder / "images" / "001.png", size=(8, 64))
    write_image(folder / "images" / "002.png", size=(49, 64))
    codes = found(folder)
    assert codes["small-image"].where == ("001.png",)
    assert codes["large-image"].where == ("002.png",)
    too_large = Inputs(folder, folder / "images", folder / "tags.csv", max_pixels=48 * 64)
    assert found(too_large)["unreadable-image"].where == ("002.png",)


def test_images_of_the_same_name_and_of_other_formats(folder: Path):
    write_image(folder / "images" / "a" / "x.png")
    write_image(folder / "images" / "b" / "x.png")
    (folder / "images" / "raw.tif").write_bytes(b"II*\0")
    add(folder, ("a/x", ("blisk",), ()), ("b/x", ("rotor",), ()))
    codes = found(folder)
    assert codes["duplicate-name"].where == ("a/x.png = b/x.png",)
    assert codes["unread-format"].where == ("raw.tif",)
    assert set(codes) == {"duplicate-name", "unread-format"}
    add(folder, ("x", ("blisk",), ()))
    assert found(folder)["ambiguous-image"].where == ("x (line 50)",)


def test_two_files_of_one_id(folder: Path):
    write_image(folder / "images" / "001.jpg")
    finding = found(folder)["unusable-images"]
    assert "would have the same id `001`" in finding.what


def test_tags_without_image_and_images_without_tag(folder: Path):
    write_image(folder / "images" / "new.png")
    add(folder, ("gone", ("rotor",), ()))
    codes = found(folder)
    assert codes["tag-without-image"].level == "error"
    assert codes["tag-without-image"].where == ("gone (line 50)",)
    assert codes["image-without-tag"].level == "warning"
    assert codes["image-without-tag"].where == ("new",)
    skipping = Inputs(folder, folder / "images", folder / "tags.csv", missing_images="skip")
    assert found(skipping)["tag-without-image"].level == "warning"


def test_lines_that_disagree(folder: Path):
    add(folder, ("000", ("rotor",), ()))
    assert only(folder, "tagged-twice", "error").where == ("000 (lines 2 and 50)",)


def test_spellings_that_vary_are_one_class(folder: Path):
    write_image(folder / "images" / "new.png")
    add(folder, ("new", ("Blisk",), ()))
    diagnosis = look(folder)
    assert [finding.code for finding in diagnosis.findings] == ["spelling-variants"]
    assert diagnosis.findings[0].where == ("blisk = Blisk",)
    assert diagnosis.facts["images_of_class"] == {"blisk": 25, "rotor": 24}


def test_plurals_and_slips_are_warned_of(folder: Path):
    for n in range(3):
        write_image(folder / "images" / f"new{n}.png")
    add(folder, ("new0", ("blisks",), ()), ("new1", ("rotro",), ()), ("new2", ("motor",), ()))
    finding = found(folder)["similar-labels"]
    assert finding.level == "warning"
    assert finding.where == ("blisks (1) = blisk (24)", "motor (1) = rotor (24)", "rotro (1) = rotor (24)")


def test_labels_that_are_no_class(folder: Path):
    (folder / "classes.yaml").write_text("classes: [blisk, {name: rotors, synonyms: [rootor]}]\n")
    codes = found(folder)
    assert codes["unknown-label"].where == ("rotor (24)",)
    assert "Did you mean `rotors`?" in codes["unknown-label"].what
    assert codes["unused-class"].where == ("rotors",)


def test_files_that_cannot_be_read_at_all(folder: Path, tmp_path: Path):
    (folder / "tags.csv").write_text("image;labels\n000;blisk\n")
    assert "separates its columns by semicolons" in only(folder, "unreadable-tags", "error").what
    (folder / "tags.csv").unlink()
    assert "image,labels" in only(folder, "no-tags", "error").advice
    (tmp_path / "empty").mkdir()
    assert set(found(tmp_path / "empty")) == {"unusable-images", "no-tags"}
    with pytest.raises(DataError, match="Expected a folder of images or a recipe"):
        look(tmp_path / "nowhere")


def test_few_images_and_imbalance(folder: Path):
    for n in range(60):
        write_image(folder / "images" / f"more{n}.png")
    rows = [(f"more{n}", ("blisk",), ()) for n in range(60)]
    rows[0] = ("more0", ("vane", "blisk"), ())
    rows[1] = ("more1", ("vane",), ())
    add(folder, *rows)
    codes = found(folder)
    assert codes["few-images"].where == ("vane (2)",)
    assert codes["imbalance"].what == "`blisk` has 83 tagged images, `vane` 2."
    assert set(codes) == {"few-images", "imbalance"}


def test_classes_that_always_come_together(folder: Path):
    rows = [
        (name, (*labels, "vane") if "rotor" in labels else labels, ()) for name, labels, _ in clean_rows()
    ]
    write_tags(folder / "tags.csv", rows)
    finding = only(folder, "always-together", "warning")
    assert finding.where == ("rotor + vane",)
    assert "can't be separated" in finding.advice


def test_a_class_that_is_never_alone(folder: Path):
    rows = [
        (name, (*labels, "vane") if n < 30 and "rotor" in labels else labels, ())
        for n, (name, labels, _) in enumerate(clean_rows())
    ]
    write_tags(folder / "tags.csv", rows)
    assert found(folder)["never-alone"].where == ("vane only with rotor",)


def test_a_class_that_is_everywhere(folder: Path):
    write_tags(folder / "tags.csv", [(name, (*labels, "disc"), ()) for name, labels, _ in clean_rows()])
    assert found(folder)["in-every-image"].where == ("disc",)


def test_surroundings_that_come_with_a_class(folder: Path):
    rows = [(name, labels, ("oil",) if "rotor" in labels else ()) for name, labels, _ in clean_rows()]
    write_tags(folder / "tags.csv", rows)
    finding = only(folder, "cooccurring-background", "warning")
    assert finding.where == ("rotor with oil (100%, else 0%)",)


def test_masks_are_looked_at_where_there_are_some(folder: Path):
    masks = folder / "masks"
    for n, (name, labels, _) in enumerate(clean_rows()):
        mask = np.zeros((48, 64), np.uint8)
        for place, label in enumerate(("blisk", "rotor")):
            mask[place * 8 : place * 8 + 4] = (place + 1) * (label in labels)
        mask[40:] = 255
        if n < 8:
            write_mask(masks / f"{name}.png", mask)
    assert set(found(folder)) == {"incomplete-masks"}
    assert look(folder).facts["masks"] == 8
    write_mask(masks / "000.png", np.full((48, 64), 9, np.uint8))
    write_mask(masks / "001.png", np.zeros((64, 48), np.uint8))
    Image.fromarray(pixels(1)).save(masks / "002.png")
    write_mask(masks / "003.png", np.ones((48, 64), np.uint8))
    codes = found(folder)
    assert codes["mask-values"].where == ("000 (9)",)
    assert codes["mask-size"].where == ("001 (64 x 48, image 48 x 64)",)
    assert codes["unreadable-mask"].where == ("002",)
    assert codes["mask-against-tags"].where == ("003 (blisk)",)


def test_other_tools_are_named_where_they_serve_better(folder: Path):
    everyday = {"blisk": "cat", "rotor": "dining table"}
    one_each = [
        (name, tuple(everyday[label] for label in labels[:1]) or ("cat",), ())
        for name, labels, _ in clean_rows()
    ]
    write_tags(folder / "tags.csv", one_each)
    for name, labels, _ in one_each:
        write_mask(folder / "masks" / f"{name}.png", np.full((48, 64), 1 + (labels[0] != "cat"), np.uint8))
    codes = found(folder)
    assert {"everyday-classes", "one-class-per-image", "many-masks"} <= set(codes)
    assert all(codes[code].level == "note" for code in ("everyday-classes", "one-class-per-image"))


def test_a_voc_tree_is_read_by_its_annotations(tmp_path: Path):
    for n in range(3):
        write_image(tmp_path / "JPEGImages" / f"{n}.jpg", n)
        names = ("cat", "unicorn")[: n + 1]
        objects = "".join(f"<object><name>{name}</name></object>" for name in names)
        (tmp_path / "Annotations").mkdir(exist_ok=True)
        (tmp_path / "Annotations" / f"{n}.xml").write_text(f"<annotation>{objects}</annotation>")
    (tmp_path / "Annotations" / "2.xml").write_text("<annotation>")
    codes = found(tmp_path)
    assert codes["unreadable-tags"].where == ("2.xml",)
    assert codes["unknown-label"].where == ("unicorn (1)",)
    assert codes["image-without-tag"].where == ("2",)


def test_a_recipe_is_checked_with_its_weights(folder: Path, tmp_path: Path):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(
        f"data: {{kind: folder, root: {folder}, images: images}}\n"
        "method: {name: clims, backbone: resnet_small, teacher: nobody/nothing, background_texts: [bench]}\n"
        "training: {epochs: 1}\n"
    )
    finding = only(recipe, "missing-weights", "error")
    assert "wsss weights fetch nobody/nothing" in finding.what
    assert look(recipe).method == "clims"


def test_a_recipe_that_would_not_run_is_an_error(folder: Path, tmp_path: Path):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(
        f"data: {{kind: folder, root: {folder}, images: images}}\n"
        "method: {name: cam, backbone: resnet_small, backbone_weights: null, batch_norm: live}\n"
        "training: {epochs: 1, batch_size: 64}\n"
    )
    findings = diagnose(recipe).findings
    assert [finding.code for finding in findings] == ["recipe-does-not-run"]
    assert "only 48 tagged images" in findings[0].what
    assert only(recipe, "recipe-does-not-run", "error").what == findings[0].what  # without an estimate too


def test_language_methods_want_words_for_surroundings(folder: Path):
    assert found(folder, method="clims") == {}
    write_tags(folder / "tags.csv", [(name, labels[:1], ()) for name, labels, _ in clean_rows()])
    assert "no-background-words" not in found(folder)  # the default needs none
    assert found(folder, method="clims")["no-background-words"].level == "error"
    with pytest.raises(RecipeError, match="no template for the method `clim`"):
        look(folder, method="clim")


def test_a_public_teacher_in_the_cache_is_used_and_said(folder: Path, monkeypatch):
    from wsss.doctor import machine_checks
    from wsss.engine import folder_recipe

    for module in (folder_recipe, machine_checks):
        monkeypatch.setattr(module, "find_weights", lambda name: Path(name))
    diagnosis = look(folder, method="qa_clims")
    assert [finding.code for finding in diagnosis.findings] == ["public-teacher"]
    assert diagnosis.proposal is not None
    assert diagnosis.proposal.recipe["method"]["teacher"] == folder_recipe.PUBLIC_TEACHER
    assert "train_teacher" not in diagnosis.proposal.recipe


def test_a_folder_that_cannot_be_written_is_an_error(folder: Path, tmp_path: Path):
    (tmp_path / "file").write_text("")
    assert found(folder, out=tmp_path / "file")["unwritable-folder"].level == "error"
    assert found(folder, out=tmp_path / "new" / "folder") == {}


def test_the_machine_alone(tmp_path: Path):
    diagnosis = diagnose(out=tmp_path)
    assert diagnosis.findings == ()
    assert diagnosis.machine.free_disk_bytes > 0


def test_time_memory_and_disk_are_estimated_and_compared(folder: Path, monkeypatch):
    from wsss.doctor import machine_checks
    from wsss.engine.estimate import Estimate, StageEstimate

    needs = Estimate((StageEstimate("Train", 2 * 24 * 3600.0, 5e9),), 1e15, 4e9)
    monkeypatch.setattr(machine_checks, "estimate", lambda recipe, **_: needs)
    diagnosis = diagnose(folder)
    assert [finding.code for finding in diagnosis.findings] == ["full-disk", "little-memory", "long-run"]
    assert diagnosis.estimate is needs
    assert json.loads(json.dumps(diagnosis.as_dict()))["estimate"]["stages"] == {"Train": 2 * 24 * 3600.0}
