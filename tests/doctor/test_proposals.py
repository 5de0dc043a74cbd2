"""What the doctor proposes is read back by what will use it."""

from __future__ import annotations

from pathlib import Path

import pytest

from doctor.small_folder import clean_rows, write_folder, write_image, write_tags
from wsss.data import open_dataset
from wsss.data.classes import read_classes
from wsss.doctor.doctor import diagnose
from wsss.doctor.proposals import Proposal, readable, write_proposal
from wsss.engine.fit import check_images
from wsss.engine.folder_recipe import METHODS
from wsss.engine.recipe import load_recipe
from wsss.errors import DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "parts")


def proposed(folder: Path, method: str = "smvwe") -> Proposal:
    proposal = diagnose(folder, method=method, with_estimate=False).proposal
    assert proposal is not None
    return proposal


@pytest.mark.parametrize("method", METHODS)
def test_every_proposal_loads_and_opens_its_data(folder: Path, tmp_path: Path, method: str):
    classes, recipe = write_proposal(proposed(folder, method), tmp_path / "out")
    assert [info.name for info in read_classes(classes).infos] == ["blisk", "rotor"]
    loaded = load_recipe(recipe)
    assert (loaded.name, loaded.method_name) == (f"parts-{method}", method)
    dataset = open_dataset(loaded.data)
    assert dataset.class_names == ("background", "blisk", "rotor")
    assert len(dataset.ids("train")) == 38
    assert len(dataset.ids("val")) == 10
    assert dataset.classes[0].background_texts == ("bench", "cloth", "tray")
    assert loaded.training is not None
    assert loaded.training.augmentation.crop_size == 32  # three quarters of 48, in steps of 16


def test_spellings_become_synonyms_so_that_the_data_open(folder: Path, tmp_path: Path):
    for name in ("a", "b", "c"):
        write_image(folder / "images" / f"{name}.png")
    more = [("a", ("Blisk",), ()), ("b", ("blisks",), ()), ("c", ("rotro",), ())]
    write_tags(folder / "tags.csv", [*clean_rows(), *more])
    classes, recipe = write_proposal(proposed(folder), tmp_path)
    infos = read_classes(classes).infos
    assert [(info.name, info.synonyms) for info in infos] == [
        ("blisk", ("Blisk", "blisks")),
        ("rotor", ("rotro",)),
    ]
    dataset = open_dataset(load_recipe(recipe).data)
    assert [dataset.image_labels(name).tolist() for name in ("a", "b", "c")] == [
        [True, False],
        [True, False],
        [False, True],
    ]


def test_a_given_classes_file_is_kept_and_completed(folder: Path, tmp_path: Path):
    (folder / "classes.yaml").write_text(
        "classes: [{name: rotor, prompt: turbine rotor, background_texts: [shaft]}, fan_blade, blisk]\n"
    )
    classes, _ = write_proposal(proposed(folder), tmp_path)
    infos = read_classes(classes).infos
    assert [info.name for info in infos] == [
        "rotor",
        "fan_blade",
        "blisk",
    ]  # its order is that of mask values
    assert [info.prompt for info in infos] == ["turbine rotor", "fan blade", ""]
    assert infos[0].background_texts == ("shaft",)
    assert infos[2].background_texts == ("bench", "cloth", "tray")


def test_files_are_never_replaced_unasked(folder: Path, tmp_path: Path):
    proposal = proposed(folder)
    (tmp_path / "recipe.yaml").write_text("mine")
    with pytest.raises(DataError, match="is there already and is not replaced"):
        write_proposal(proposal, tmp_path)
    assert (tmp_path / "recipe.yaml").read_text() == "mine"
    assert not (tmp_path / "classes.yaml").exists()
    write_proposal(proposal, tmp_path, overwrite=True)
    assert load_recipe(tmp_path / "recipe.yaml").method_name == "smvwe"


def test_masks_of_some_images_alone_are_left_out_of_the_recipe(folder: Path, tmp_path: Path):
    import numpy as np

    from wsss.data.masks_png import write_mask

    mask = np.zeros((48, 64), np.uint8)
    write_mask(folder / "masks" / "000.png", mask)
    assert "masks" not in proposed(folder).recipe["data"]
    for name, _, _ in clean_rows():
        write_mask(folder / "masks" / f"{name}.png", mask)
    assert proposed(folder).recipe["data"]["masks"] == "masks"


def test_names_become_words():
    assert [readable(name) for name in ("leaf-spot", "Rust", "XRay_tube")] == [
        "leaf spot",
        "rust",
        "xray tube",
    ]


@pytest.mark.parametrize("listed", [0, 7])
def test_batches_fit_the_images_that_are_trained_on(tmp_path: Path, listed: int):
    folder = write_folder(tmp_path / "few", 18)
    if listed:
        lists = folder / "ImageSets" / "Segmentation"
        lists.mkdir(parents=True)
        (lists / "train.txt").write_text("".join(f"{n:03d}\n" for n in range(listed)))
        (lists / "val.txt").write_text("017\n")
    _, path = write_proposal(proposed(folder), tmp_path / "out")
    recipe = load_recipe(path)
    dataset = open_dataset(recipe.data)
    images = listed or 14  # a fifth of 18, four, are kept for testing
    assert len(dataset.ids("train")) == images
    assert recipe.training is not None
    assert recipe.training.batch_size == images
    check_images(recipe, dataset)  # what `wsss run` checks
