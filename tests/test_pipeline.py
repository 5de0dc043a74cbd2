"""All stages on a dozen generated images: they run, are shared, go on after a kill, and see no mask."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tiny_recipe import (
    CAM_RECIPE,
    REFINERS,
    Recorder,
    clims_recipe,
    random_teacher,
    training,
    write_recipe,
)
from wsss.activation.store import MapStore
from wsss.data.file_dataset import FileDataset
from wsss.data.masks_png import read_mask
from wsss.engine.measurements import finished_run
from wsss.engine.run import RunResult, read_run, run
from wsss.errors import CollapseError
from wsss.models import weights
from wsss.report.page import write_report

KILLS_AT_LEAST = 5


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pipeline")
    recipe = clims_recipe(random_teacher(folder / "teacher"))
    write_recipe(folder / "cam.yaml", CAM_RECIPE)
    write_recipe(folder / "clims.yaml", recipe)
    write_recipe(folder / "refined.yaml", CAM_RECIPE, refine=REFINERS)
    write_recipe(
        folder / "supervised.yaml",
        {key: value for key, value in CAM_RECIPE.items() if key in ("about", "data")},
        segmentation={**CAM_RECIPE["segmentation"], "target": "masks"},
    )
    return folder


@pytest.fixture(scope="module")
def finished(place: Path) -> RunResult:
    return run(place / "clims.yaml", runs=place / "runs")


def contents(run_folder: Path) -> dict[str, bytes]:
    """Bytes of everything that a run made, but for records of time and place."""
    found = {}
    for stage in read_run(run_folder)["stages"]:
        folder = (run_folder / stage["folder"]).resolve()
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path.suffix in (".png", ".npz", ".safetensors", ".jpg"):
                found[f"{stage['name']}/{path.relative_to(folder)}"] = path.read_bytes()
    return found


def test_every_stage_leaves_what_the_next_needs(finished: RunResult):
    record = read_run(finished.folder)
    names = [stage["name"] for stage in record["stages"]]
    assert names == [
        "data",
        "initialise",
        "train-method",
        "activate",
        "pseudo-masks",
        "train-segmentation",
        "predict",
    ]
    folders = {stage["name"]: (finished.folder / stage["folder"]).resolve() for stage in record["stages"]}
    assert len(MapStore(folders["activate"] / "maps").ids()) == 12
    masks = sorted((folders["pseudo-masks"] / "pseudo_masks").glob("*.png"))
    assert len(masks) == 12
    assert read_mask(masks[0]).shape == (64, 64)
    assert len(list((folders["predict"] / "predictions").glob("*.png"))) == 6
    assert record["supervision"] == "I+L"
    assert len(record["weights"]["teacher"]) == 64
    assert record["data"]["data_version"] == "v1-w7-12+6-64px"


def test_every_scored_stage_has_scores_and_per_image_counts(finished: RunResult):
    assert list(finished.scores) == ["maps", "pseudo_masks", "segmentation"]
    sources = [entry["background_score_source"] for entry in finished.scores["maps"]["entries"]]
    assert sources == ["fixed", "oracle", "automatic"]
    run_ = finished_run(finished.folder)
    for stage, scores in finished.scores.items():
        path = run_.per_image(stage)
        assert path is not None
        assert path.is_file()
        for entry in scores["entries"]:
            pixels = int(np.sum(entry["confusion"]))
            assert 0 < pixels <= scores["images"] * 64 * 64
    automatic = next(
        e for e in finished.scores["maps"]["entries"] if e["background_score_source"] == "automatic"
    )
    pseudo = finished.scores["pseudo_masks"]["entries"][0]
    assert pseudo["background_score_source"] == "automatic"  # and never oracle
    assert pseudo["miou"] == pytest.approx(automatic["miou"])
    assert finished.scores["segmentation"]["images"] == 6


def test_a_second_run_skips_everything_and_changes_nothing(finished: RunResult, place: Path):
    before, listener = contents(finished.folder), Recorder()
    record = (finished.folder / "run.json").read_bytes()
    again = run(place / "clims.yaml", runs=place / "runs", progress=listener)
    assert listener.started_titles == []
    assert len(listener.skipped_titles) == 11
    assert again.scores == finished.scores
    assert contents(again.folder) == before
    assert (again.folder / "run.json").read_bytes() == record


def test_a_run_up_to_a_stage_keeps_what_is_known_of_the_others(finished: RunResult, place: Path):
    record = (finished.folder / "run.json").read_bytes()
    result = run(place / "clims.yaml", runs=place / "runs", until="activate")
    assert list(result.scores) == ["maps"]
    assert (finished.folder / "run.json").read_bytes() == record


def test_cam_takes_over_the_training_that_clims_started_from(finished: RunResult, place: Path):
    listener = Recorder()
    run(place / "cam.yaml", runs=place / "runs", until="activate", progress=listener)
    assert listener.skipped_titles == ["Generate the data", "Train cam"]


def test_the_report_of_a_finished_run_is_written(finished: RunResult, tmp_path: Path):
    page = write_report([finished.folder], tmp_path)
    assert page.stat().st_size > 10_000


@pytest.mark.parametrize("name", ["clims", "refined", "supervised"])
def test_masks_reach_scoring_and_supervised_training_only(
    name: str, place: Path, tmp_path: Path, monkeypatch
):
    """Every reading of a true mask or context map is recorded with the stage that asked for it."""
    listener, readers = Recorder(), set()
    for method in ("_true_mask", "context"):
        original = getattr(FileDataset, method)

        def recorded(self, *args, original=original):
            readers.add(listener.current)
            return original(self, *args)

        monkeypatch.setattr(FileDataset, method, recorded)
    run(place / f"{name}.yaml", runs=tmp_path / "runs", progress=listener)
    scoring = {title for title in listener.started_titles if title.startswith("Score ")}
    supervised = {"Train the segmentation network on true masks"} if name == "supervised" else set()
    assert readers == scoring | supervised


def test_images_without_masks_are_trained_on_and_not_scored(finished: RunResult, place: Path, tmp_path: Path):
    tree = (finished.folder / read_run(finished.folder)["data_root"]).resolve()
    data = {
        "kind": "voc",
        "root": str(tree),
        "name": "unmasked",
        "mask_folder": "nowhere",
        "classes": "classes.yaml",
    }
    recipe = write_recipe(tmp_path / "unmasked.yaml", CAM_RECIPE, data=data)
    listener = Recorder()
    result = run(recipe, runs=tmp_path / "runs", progress=listener)
    assert result.scores == {}
    assert listener.notes == [
        "Splits train and val of unmasked have no masks, so maps, pseudo masks and predicted masks are not "
        "scored."
    ]
    assert all(stage["scores"] is None for stage in read_run(result.folder)["stages"])


def test_a_method_from_a_file_runs_like_any_other(place: Path, tmp_path: Path):
    (tmp_path / "upside_down.py").write_text(
        "from wsss.methods.cam import Cam\n\n\nclass UpsideDown(Cam):\n    '''CAM under another name.'''\n"
    )
    recipe = write_recipe(tmp_path / "mine.yaml", CAM_RECIPE, training=training(1), segmentation=None)
    result = run_with(recipe, place, f"method.name={tmp_path / 'upside_down.py'}")
    assert read_run(result.folder)["method"] == "upside_down"
    assert list(result.scores) == ["maps", "pseudo_masks"]


def run_with(recipe: Path, place: Path, *overrides: str) -> RunResult:
    from wsss.engine.recipe import load_recipe

    return run(load_recipe(recipe, overrides), runs=place / "runs")


def test_a_method_finds_what_it_prepared(place: Path, tmp_path: Path):
    (tmp_path / "ready.py").write_text(
        "from wsss.methods.cam import Cam\n\n\n"
        "class Ready(Cam):\n    '''Asks once.'''\n\n"
        "    def prepare(self, dataset, ids, cache_dir, *, progress=None):\n"
        "        if not cache_dir.is_dir():\n            cache_dir.mkdir(parents=True)\n"
        "            (cache_dir / 'answers.txt').write_text(' '.join(ids))\n"
        "        self.answers = (cache_dir / 'answers.txt').read_text()\n\n"
        "    def losses(self, batch):\n"
        "        assert set(batch.image_ids) <= set(self.answers.split())\n"
        "        return super().losses(batch)\n"
    )
    recipe = write_recipe(tmp_path / "ready.yaml", CAM_RECIPE, training=training(1), segmentation=None)
    result = run_with(recipe, place, f"method.name={tmp_path / 'ready.py'}")
    assert [stage["name"] for stage in read_run(result.folder)["stages"]][:3] == [
        "data",
        "prepare",
        "train-method",
    ]


def test_refined_maps_are_scored_and_become_the_pseudo_masks(place: Path, tmp_path: Path):
    (tmp_path / "fade.py").write_text(
        "from wsss.refiners.base import Refiner, RefinerConfig\n"
        "from wsss.types import ActivationMaps\n\n\n"
        "class FadeConfig(RefinerConfig):\n    factor: float = 1.0\n\n\n"
        "class Fade(Refiner):\n    '''Halve the scores and know the background.'''\n\n"
        "    Config = FadeConfig\n\n"
        "    def refine(self, sample, maps):\n"
        "        assert sample.mask is None\n"
        "        faded = ActivationMaps(maps.class_ids, maps.scores * self.config.factor)\n"
        "        return faded.with_background(0.25)\n"
    )
    refined = [{"name": str(tmp_path / "fade.py"), "factor": 0.5}]
    recipe = write_recipe(tmp_path / "refined.yaml", CAM_RECIPE, segmentation=None, refine=refined)
    result = run(recipe, runs=place / "runs")
    assert list(result.scores) == ["maps", "refined-fade", "pseudo_masks"]
    (own,) = result.scores["refined-fade"]["entries"]
    (pseudo,) = result.scores["pseudo_masks"]["entries"]
    assert own["background_score_source"] == pseudo["background_score_source"] == "none"
    assert own["miou"] == pytest.approx(pseudo["miou"])
    stages = {stage["name"]: stage for stage in read_run(result.folder)["stages"]}
    assert stages["refine-0-fade"]["score_stage"] == "refined-fade"


def test_refiners_chain_and_each_step_is_scored(place: Path):
    result = run(place / "refined.yaml", runs=place / "runs")
    assert list(result.scores) == [
        "maps",
        "refined-dense_crf",
        "refined-psa",
        "refined-irn",
        "refined-dense_crf-2",
        "pseudo_masks",
        "segmentation",
    ]
    sources = {
        stage: [entry["background_score_source"] for entry in scores["entries"]]
        for stage, scores in result.scores.items()
    }
    assert (
        sources["refined-psa"] == sources["refined-dense_crf"] == sources["refined-dense_crf-2"] == ["none"]
    )
    assert sources["refined-irn"] == ["fixed", "oracle", "automatic"]
    (last,), (pseudo,) = (result.scores[name]["entries"] for name in ("refined-dense_crf-2", "pseudo_masks"))
    assert last["miou"] == pytest.approx(pseudo["miou"])
    folders = {s["name"]: (result.folder / s["folder"]).resolve() for s in read_run(result.folder)["stages"]}
    assert len(MapStore(folders["refine-2-irn"] / "maps").ids()) == 12
    assert len(list((folders["refine-2-irn"] / "fit" / "labels").glob("*.png"))) == 12
    listener = Recorder()
    run(place / "refined.yaml", runs=place / "runs", progress=listener)
    assert listener.started_titles == []


def test_a_changed_crf_setting_redoes_only_what_depends_on_it(place: Path, tmp_path: Path):
    run(place / "refined.yaml", runs=place / "runs")
    changed = [*REFINERS[:3], {**REFINERS[3], "certainty": 0.8}]
    listener = Recorder()
    recipe = write_recipe(tmp_path / "refined.yaml", CAM_RECIPE, refine=changed, segmentation=None)
    run(recipe, runs=place / "runs", progress=listener)
    assert listener.started_titles[0] == "Refine the maps (dense_crf)"
    assert [title for title in listener.started_titles if title.startswith(("Train", "Refine"))] == [
        "Refine the maps (dense_crf)"
    ]


def test_an_image_that_fails_is_reported_and_alone_retried(place: Path, tmp_path: Path):
    recipe = write_recipe(
        tmp_path / "crf.yaml", CAM_RECIPE, refine=[{"name": "dense_crf"}], segmentation=None
    )
    program = [sys.executable, "-m", "wsss", "run", str(recipe), "--runs", str(tmp_path / "runs")]
    activated = subprocess.run([*program, "--until", "activate"], capture_output=True, text=True)
    assert activated.returncode == 0, activated.stderr
    (folder,) = (tmp_path / "runs" / "stages").glob("activate-*")
    given = MapStore(folder / "maps")
    image_id = given.ids()[5]
    whole = given.path(image_id).read_bytes()
    given.path(image_id).write_bytes(whole[:100])
    # the score is given, or the choice of it would be the first to read the damaged file
    fixed = [*program, "--set", "refine.0.background_score=0.2", "--set", "name=crf"]
    failed = subprocess.run(fixed, capture_output=True, text=True)
    assert failed.returncode == 1
    (refined,) = (tmp_path / "runs" / "stages").glob("refine-dense_crf-*")
    store = MapStore(refined / "maps")
    assert len(store.ids()) == 11
    assert image_id not in store
    assert " ".join(failed.stderr.split()).count(
        f"1 of 12 images has no refined maps; the first is {image_id}"
    )
    times = {path: path.stat().st_mtime_ns for path in map(store.path, store.ids())}
    given.path(image_id).write_bytes(whole)
    mended = subprocess.run(fixed, capture_output=True, text=True)
    assert mended.returncode == 0, mended.stderr
    assert len(store.ids()) == 12
    assert times == {path: path.stat().st_mtime_ns for path in times}


def test_flat_maps_stop_the_run_and_name_loss_step_and_weights(place: Path, tmp_path: Path):
    (tmp_path / "flat.py").write_text(
        "import torch\nfrom wsss.methods.cam import Cam\n\n\n"
        "class Flat(Cam):\n    '''Maps that say nothing.'''\n\n"
        "    def cams(self, images):\n        return torch.ones_like(super().cams(images))\n"
    )
    recipe = write_recipe(tmp_path / "flat.yaml", CAM_RECIPE, training={**training(4), "log_every": 1})
    with pytest.raises(
        CollapseError, match=r"foreground everywhere.*`classification`.*step \d+ of 12.*checkpoint"
    ):
        run_with(recipe, place, f"method.name={tmp_path / 'flat.py'}")


def test_a_teacher_trained_in_the_recipe_and_a_tag_classifier_are_stages_of_their_own(
    place: Path, tmp_path: Path
):
    recipe = clims_recipe(place / "teacher")
    small = {"steps": 2, "batch_size": 8}
    without = {key: value for key, value in recipe["method"].items() if key != "teacher"}
    own = write_recipe(
        tmp_path / "own.yaml", recipe, method=without, segmentation=None, train_teacher={"training": small}
    )
    names = [stage["name"] for stage in read_run(run(own, runs=place / "runs").folder)["stages"]]
    assert names[:4] == ["data", "train-teacher", "initialise", "train-method"]
    method = {**recipe["method"], "evaluator": "tag_classifier"}
    judged = write_recipe(
        tmp_path / "judged.yaml",
        recipe,
        method=method,
        segmentation=None,
        tag_classifier={"training": training(1)},
    )
    names = [stage["name"] for stage in read_run(run(judged, runs=place / "runs").folder)["stages"]]
    assert names[:4] == ["data", "train-tag-classifier", "initialise", "train-method"]


def test_a_teacher_fine_tuned_in_the_recipe_is_the_one_that_the_method_uses(
    finished: RunResult, place: Path, tmp_path: Path
):
    settings = {"training": {"epochs": 1, "batch_size": 4, "augmentation": {"crop_size": 64}}}
    tuned = write_recipe(
        tmp_path / "tuned.yaml",
        clims_recipe(place / "teacher"),
        segmentation=None,
        finetune_teacher=settings,
    )
    found = run(tuned, runs=place / "runs", until="train-method").folder
    folders = {s["name"]: (found / s["folder"]).resolve() for s in read_run(found)["stages"]}
    assert list(folders)[:4] == ["data", "finetune-teacher", "initialise", "train-method"]
    tuned_teacher = folders["finetune-teacher"] / "teacher"
    assert weights.sha256(tuned_teacher) != weights.sha256(place / "teacher")
    by_start = {
        s["name"]: (finished.folder / s["folder"]).resolve() for s in read_run(finished.folder)["stages"]
    }
    assert folders["initialise"] == by_start["initialise"]
    trained = [place["train-method"] / "model.safetensors" for place in (folders, by_start)]
    assert trained[0].read_bytes() != trained[1].read_bytes()


@pytest.mark.slow
def test_killed_again_and_again_the_same_command_ends_with_the_same_bytes(place: Path, tmp_path: Path):
    often = {"checkpoint_seconds": 0, "log_every": 1}
    recipe = clims_recipe(place / "teacher")
    recipe["initialise"]["training"] |= often
    recipe["training"] |= often
    recipe["segmentation"]["training"] |= often
    refined = [{**item, "training": {**item["training"], **often}} for item in REFINERS[1:3]]
    path = write_recipe(tmp_path / "killed.yaml", recipe, refine=refined)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    program = Path(__file__).with_name("killed_runs.py")
    subprocess.run([sys.executable, program, path, whole, "never"], check=True, env=environment, timeout=200)
    done = subprocess.run(
        [sys.executable, program, path, killed, "0"],
        env=environment,
        timeout=300,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= KILLS_AT_LEAST
    expected, found = contents(whole / "killed-seed0"), contents(killed / "killed-seed0")
    assert expected.keys() == found.keys()
    assert [name for name in expected if expected[name] != found[name]] == []
    scores = [
        json.loads(next(folder.glob("stages/score-segmentation-*/scores.json")).read_text())
        for folder in (whole, killed)
    ]
    assert scores[0] == scores[1]
