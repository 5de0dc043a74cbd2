"""Corrected masks: which are refused, and that they reach the network and nothing before it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as rle

from fuzz.correction_cases import run_text
from tiny_recipe import CAM_RECIPE, Recorder, training, write_recipe
from wsss.data.masks_png import read_mask, write_mask
from wsss.engine.compare import compare_runs
from wsss.engine.corrections import CORRECTED, CorrectionsSection, check_given_masks
from wsss.engine.given_masks import open_given_masks
from wsss.engine.measurements import finished_run
from wsss.engine.passport import passports_of
from wsss.engine.plan import plan
from wsss.engine.recipe import load_recipe
from wsss.engine.run import RunResult, read_run, run
from wsss.engine.stages import Silence, Workspace
from wsss.errors import DataError, RecipeError, StageError

SIZE = (64, 64)
MADE_ANEW = {"Put corrected masks in place", "Train the segmentation network", "Predict masks"}


def drawn(value: int) -> np.ndarray:
    mask = np.zeros(SIZE, np.uint8)
    mask[8:40, 12:50] = value
    mask[0] = 255
    return mask


def coco(path: Path, masks: dict[str, np.ndarray], names: list[str], **changes: Any) -> Path:
    """A COCO file whose categories have numbers of their own; values index `names`, 255 is `ignore`."""
    numbers = {name: 70 - place for place, name in enumerate((*names[1:], "ignore"))}
    images, annotations = [], []
    for number, (name, mask) in enumerate(masks.items(), start=40):
        images.append({"id": number, "file_name": name, "height": mask.shape[0], "width": mask.shape[1]})
        for value in (value for value in np.unique(mask).tolist() if value):
            encoded = rle.encode(np.asfortranarray(mask == value, dtype=np.uint8))
            encoded["counts"] = encoded["counts"].decode()
            category = numbers["ignore" if value == 255 else names[value]]
            annotations.append({"image_id": number, "category_id": category, "segmentation": encoded})
    categories = [{"id": number, "name": name} for name, number in numbers.items()]
    document = {"images": images, "annotations": annotations, "categories": categories, **changes}
    path.write_text(json.dumps(document))
    return path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corrections")
    write_recipe(folder / "cam.yaml", CAM_RECIPE, training=training(2))
    return folder


@pytest.fixture(scope="module")
def plain(place: Path) -> RunResult:
    return run(place / "cam.yaml", runs=place / "runs")


@pytest.fixture(scope="module")
def given(place: Path, plain: RunResult, tiny_scenes: Any) -> dict[str, np.ndarray]:
    ids = tiny_scenes.ids("train")
    masks = {ids[1]: drawn(3), ids[4]: drawn(8)}
    for image_id, mask in masks.items():
        write_mask(place / "given" / f"{image_id}.png", mask)
    return masks


@pytest.fixture(scope="module")
def corrected(place: Path, given: dict[str, np.ndarray]) -> tuple[RunResult, Recorder]:
    recorder = Recorder()
    recipe = load_recipe(place / "cam.yaml", [f"corrections.folder={place / 'given'}"])
    return run(recipe, runs=place / "runs", progress=recorder), recorder


def stage_folder(result: RunResult, name: str) -> Path:
    entry = next(stage for stage in read_run(result.folder)["stages"] if stage["name"] == name)
    return (result.folder / entry["folder"]).resolve()


def test_given_masks_take_the_place_of_pseudo_masks_and_no_other_changes(plain, corrected, given):
    result, _ = corrected
    before = stage_folder(plain, "pseudo-masks") / "pseudo_masks"
    after = stage_folder(result, "correct-masks") / "pseudo_masks"
    names = sorted(path.name for path in before.glob("*.png"))
    assert sorted(path.name for path in after.glob("*.png")) == names
    assert len(names) == 12
    for name in names:
        image_id = name.removesuffix(".png")
        if image_id in given:
            assert (read_mask(after / name) == given[image_id]).all()
            assert (read_mask(before / name) != given[image_id]).any()
        else:
            assert (after / name).read_bytes() == (before / name).read_bytes()
    assert json.loads((after.parent / CORRECTED).read_text()) == sorted(given)


def test_only_the_network_is_trained_anew(plain, corrected):
    result, recorder = corrected
    assert {title for title in recorder.started_titles if not title.startswith("Score")} == MADE_ANEW
    for name in ("activate", "pseudo-masks"):
        assert stage_folder(result, name) == stage_folder(plain, name)
    assert stage_folder(result, "train-segmentation") != stage_folder(plain, "train-segmentation")


def test_the_network_learns_from_the_given_masks(place, plain, corrected):
    weights = [
        (stage_folder(result, "train-segmentation") / "model.safetensors").read_bytes()
        for result in (plain, corrected[0])
    ]
    assert weights[0] != weights[1]


def test_passports_and_comparison_say_what_corrections_brought(plain, corrected):
    result, _ = corrected
    assert read_run(plain.folder)["supervision"] == "I"
    passports = passports_of(finished_run(result.folder))
    assert {passport.supervision for passport in passports} == {"I+M(2)"}
    segmentation = next(passport for passport in passports if passport.stage == "segmentation")
    assert segmentation.background_score_source == "automatic"
    comparison = compare_runs([plain.folder, result.folder])
    gains = {gain.stage: gain for gain in comparison.gains}
    networks = [r.scores["segmentation"]["entries"][0]["miou"] for r in (plain, result)]
    assert gains["segmentation"].mean == pytest.approx(100 * (networks[1] - networks[0]), abs=1e-9)
    assert gains["pseudo_masks"].mean == 0


def test_a_finished_corrected_run_is_not_redone(place, corrected):
    again = Recorder()
    recipe = load_recipe(place / "cam.yaml", [f"corrections.folder={place / 'given'}"])
    run(recipe, runs=place / "runs", progress=again)
    assert not again.started_titles


def test_another_pixel_makes_another_stage(place, plain, given):
    copied = place / "copied"
    shutil.copytree(place / "given", copied)

    def fingerprint(where: Path) -> str:
        recipe = load_recipe(place / "cam.yaml", [f"corrections.folder={where}"])
        workspace = Workspace(place / "runs", recipe.data, torch.device("cpu"), Silence())
        return next(s for s in plan(recipe, 0, workspace) if s.name == "correct-masks").fingerprint

    assert fingerprint(copied) == fingerprint(place / "given")
    image_id, mask = next(iter(given.items()))
    changed = mask.copy()
    changed[50, 50] = 1
    write_mask(copied / f"{image_id}.png", changed)
    assert fingerprint(copied) != fingerprint(place / "given")


def test_coco_gives_the_same_masks_as_pngs(tmp_path, tiny_scenes, given):
    names = list(tiny_scenes.class_names)
    path = coco(tmp_path / "masks.json", {f"images/{i}.jpg": mask for i, mask in given.items()}, names)
    for named in (path, tmp_path):
        found = open_given_masks(named)
        by_id = check_given_masks(found, tiny_scenes, "train")
        assert set(by_id) == set(given)
        for image_id, name in by_id.items():
            assert (found.read(name, names) == given[image_id]).all()


def test_polygons_are_painted_in_their_order(tmp_path, tiny_scenes):
    names = list(tiny_scenes.class_names)
    image_id = tiny_scenes.ids("train")[0]
    square = {"image_id": 1, "segmentation": [[10, 10, 30, 10, 30, 30, 10, 30]], "category_id": 1}
    inner = {"image_id": 1, "segmentation": [[15, 15, 20, 15, 20, 20, 15, 20]], "category_id": 2}
    path = coco(
        tmp_path / "polygons.json",
        {},
        names,
        images=[{"id": 1, "file_name": f"{image_id}.png", "height": 64, "width": 64}],
        annotations=[square, inner],
        categories=[{"id": 1, "name": names[5]}, {"id": 2, "name": names[2]}],
    )
    expected = np.zeros(SIZE, np.uint8)
    expected[10:30, 10:30] = 5
    expected[15:20, 15:20] = 2
    assert (open_given_masks(path).read(image_id, names) == expected).all()


def refused(place: Path, dataset: Any) -> str:
    with pytest.raises(DataError) as caught:
        check_given_masks(open_given_masks(place), dataset, "train")
    assert str(caught.value).endswith(".")
    return str(caught.value)


def test_masks_of_other_images_are_refused(tmp_path, tiny_scenes):
    ids = tiny_scenes.ids("train")
    for name in (ids[0], tiny_scenes.ids("val")[0], "nowhere"):
        write_mask(tmp_path / f"{name}.png", drawn(1))
    message = refused(tmp_path, tiny_scenes)
    assert "2 of 3 corrected masks" in message
    assert "split train" in message


def test_another_size_is_refused(tmp_path, tiny_scenes):
    write_mask(tmp_path / f"{tiny_scenes.ids('train')[0]}.png", drawn(1)[:32])
    assert "must be 64 x 64 (height x width) like its image; got 32 x 64" in refused(tmp_path, tiny_scenes)


def test_a_value_that_is_no_class_is_refused(tmp_path, tiny_scenes):
    write_mask(tmp_path / f"{tiny_scenes.ids('train')[0]}.png", drawn(9))
    assert "must hold 0-8 and 255; got 9" in refused(tmp_path, tiny_scenes)


def test_colours_instead_of_numbers_are_refused(tmp_path, tiny_scenes):
    Image.new("RGB", SIZE).save(tmp_path / f"{tiny_scenes.ids('train')[0]}.png")
    assert "got mode RGB" in refused(tmp_path, tiny_scenes)


def test_two_masks_of_one_image_are_refused(tmp_path, tiny_scenes):
    image_id = tiny_scenes.ids("train")[0]
    for folder in (tmp_path, tmp_path / "old"):
        write_mask(folder / f"{image_id}.png", drawn(1))
    assert "Two corrected masks" in refused(tmp_path, tiny_scenes)


def test_extensions_count_in_any_case(tmp_path):
    write_mask(tmp_path / "a.png", drawn(1))
    write_mask(tmp_path / "b.png", drawn(2))
    (tmp_path / "b.png").rename(tmp_path / "b.PNG")
    given = open_given_masks(tmp_path)
    assert given.names == ("a", "b")
    assert np.array_equal(given.read("b", ()), drawn(2))


def test_an_unknown_category_is_refused(tmp_path, tiny_scenes):
    names = list(tiny_scenes.class_names)
    image_id = tiny_scenes.ids("train")[0]
    coco(tmp_path / "m.json", {f"{image_id}.jpg": drawn(3)}, [*names[:3], "bort", *names[4:]])
    assert f"Did you mean `{names[3]}`?" in refused(tmp_path, tiny_scenes)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"images": [], "annotations": [], "categories": []}', '{"images": 3}', "[" * 9999],
)
def test_what_is_no_coco_file_is_refused(tmp_path, text):
    path = tmp_path / "m.json"
    path.write_text(text)
    with pytest.raises(DataError, match="Export it again"):
        open_given_masks(path)


def test_an_empty_or_missing_place_is_refused(tmp_path):
    with pytest.raises(DataError, match="it has no PNG and 0 JSON files"):
        open_given_masks(tmp_path)
    with pytest.raises(DataError, match="There is no folder or file"):
        open_given_masks(tmp_path / "gone")


def test_wrong_masks_stop_the_run_before_anything_is_done(place, plain, tmp_path):
    write_mask(tmp_path / "unknown.png", drawn(1))
    recorder = Recorder()
    recipe = load_recipe(place / "cam.yaml", [f"corrections.folder={tmp_path}"])
    with pytest.raises(DataError, match="1 of 1 corrected masks"):
        run(recipe, runs=place / "runs", progress=recorder)
    assert not recorder.started_titles + recorder.skipped_titles


def test_corrections_without_a_network_are_refused(place):
    with pytest.raises(RecipeError, match="trains none"):
        load_recipe(place / "cam.yaml", ["corrections.folder=x", "segmentation=null"])


def test_a_recipe_with_corrections_is_read_back(place, given):
    recipe = load_recipe(place / "cam.yaml", [f"corrections.folder={place / 'given'}"])
    (place / "again.yaml").write_text(recipe.to_yaml())
    assert load_recipe(place / "again.yaml").corrections == recipe.corrections


def square_of(image_id: str, names: list[str], **changes: Any) -> dict[str, Any]:
    """A COCO document of one square of the first class; changed."""
    return {
        "images": [{"id": 1, "file_name": f"{image_id}.png", "height": 64, "width": 64}],
        "annotations": [
            {"image_id": 1, "category_id": 1, "segmentation": [[10, 10, 30, 10, 30, 30, 10, 30]]}
        ],
        "categories": [{"id": 1, "name": names[1]}],
        **changes,
    }


def test_numbers_that_two_share_or_nobody_has_are_refused(tmp_path, tiny_scenes):
    names, ids = list(tiny_scenes.class_names), tiny_scenes.ids("train")
    path, whole = tmp_path / "a.json", square_of(ids[0], list(tiny_scenes.class_names))
    other = {**whole["images"][0], "file_name": f"{ids[1]}.png"}
    for changes, words in (
        ({"images": [whole["images"][0], other]}, "image 1 is listed twice"),
        ({"categories": [{"id": 1, "name": name} for name in names[1:3]]}, "category 1 is listed twice"),
        ({"categories": [{"id": 2, "name": names[1]}]}, "names category 1, which is not listed"),
        ({"images": [{**other, "id": 5}]}, "names image 1, which is not listed"),
    ):
        path.write_text(json.dumps({**whole, **changes}))
        assert words in refused(path, tiny_scenes)


def test_runs_whose_sum_overflows_are_refused_and_not_drawn(tmp_path, tiny_scenes):
    """Drawn, four runs of 2**62 pixels would sum to nothing, and NumPy would write beyond its memory."""
    image_id, names = tiny_scenes.ids("train")[0], list(tiny_scenes.class_names)
    path = tmp_path / "a.json"
    for counts in ([*[2**62] * 4, 4096], run_text([0, *[2**53] * 2048, 4096]), [5000, -904]):
        shape = {"size": [64, 64], "counts": counts}
        found = [{"image_id": 1, "category_id": 1, "segmentation": shape}]
        path.write_text(json.dumps(square_of(image_id, names, annotations=found)))
        message = refused(path, tiny_scenes)
        assert f"An annotation of {image_id} in {path} must be polygons or run lengths" in message
        assert "(its runs don't add up to the image). Export it again." in message
    counts = [100, 50, 4096 - 150]
    whole = np.repeat([False, True, False], counts).reshape(64, 64).T
    for given in (counts, run_text(counts)):
        found[0]["segmentation"] = {"size": [64, 64], "counts": given}
        path.write_text(json.dumps(square_of(image_id, names, annotations=found)))
        assert (open_given_masks(path).read(image_id, names) == whole).all()


def test_no_mask_is_missed_in_silence(tmp_path, tiny_scenes):
    ids, folder = tiny_scenes.ids("train"), tmp_path / "given"
    write_mask(folder / f"{ids[0]}.png", drawn(1))
    write_mask(tmp_path / "more" / f"{ids[1]}.png", drawn(1))
    for name, target in (("more", tmp_path / "more"), (f"{ids[1]}.png", tmp_path / "gone"), ("up", folder)):
        (folder / name).symlink_to(target)
        assert f"{folder / name} must be a folder or a mask; got a link" in refused(folder, tiny_scenes)
        (folder / name).unlink()
    (folder / f"{ids[1]}.png").symlink_to(tmp_path / "more" / f"{ids[1]}.png")  # to a mask: that one counts
    assert set(check_given_masks(open_given_masks(folder), tiny_scenes, "train")) == set(ids[:2])
    for text in (json.dumps(square_of(ids[2], list(tiny_scenes.class_names))), "{ cut"):
        (folder / "a.json").write_text(text)
        assert "must hold either PNG masks or one COCO JSON file; got PNGs and a.json" in refused(
            folder, tiny_scenes
        )
    (folder / "a.json").write_text('{"format": "wsss predictions"}')  # as `wsss predict` leaves it
    assert len(open_given_masks(folder).names) == 2


def test_a_damaged_pseudo_mask_is_not_handed_on(tmp_path, place, plain, given):
    shutil.copytree(place / "runs", tmp_path / "runs")
    pseudo = next((tmp_path / "runs" / "stages").glob("pseudo-masks-*/chosen_score.json")).parent
    path = min(path for path in pseudo.glob("pseudo_masks/*.png") if path.stem not in given)
    for done in (tmp_path / "runs" / "stages").glob("pseudo-masks-*/corrected.json"):
        shutil.rmtree(done.parent)
    recipe = load_recipe(place / "cam.yaml", [f"corrections.folder={place / 'given'}"])
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(StageError, match=rf"{path} is missing or damaged\. Delete the folder {pseudo.name}"):
        run(recipe, runs=tmp_path / "runs", until="correct-masks")


def test_a_home_that_nobody_has_is_named():
    with pytest.raises(DataError, match="There is no home folder for ~nobody-of-this-name"):
        _ = CorrectionsSection(folder="~nobody-of-this-name/x").place
