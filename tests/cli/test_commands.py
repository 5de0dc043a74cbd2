from __future__ import annotations

import errno
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

import wsss
from tiny_recipe import CAM_RECIPE, training, write_recipe
from wsss.cli import runs as run_commands
from wsss.cli.main import app
from wsss.cli.runs import parse_seeds
from wsss.data.masks_png import write_mask
from wsss.errors import CollapseError, RecipeError
from wsss.models.offline import is_offline, set_offline


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="wsss")


def plain(text: str) -> str:
    return " ".join(text.split())


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    write_recipe(folder / "cam.yaml", CAM_RECIPE, training=training(1), segmentation=None)
    return folder


def test_version_and_help():
    assert call("--version").stdout.strip() == wsss.__version__
    listed = call("--help").stdout
    for command in (
        "run",
        "compare",
        "report",
        "evaluate",
        "list",
        "show",
        "data",
        "embedded",
        "teacher",
        "weights",
        "questions",
        "demo",
    ):
        assert re.search(rf"\b{command}\b", listed), command


def test_the_version_is_the_one_in_pyproject():
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    assert f'version = "{wsss.__version__}"' in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "scenes/climms"], "Did you mean `scenes/clims`?"),
        (["run", "scenes/cam", "--set", "method.backbon=x"], "Unknown key `method.backbon`"),
        (["show", "methods/climms"], "Did you mean `clims`?"),
        (["list", "method"], "Did you mean `methods`?"),
        (["evaluate"], "needs a recipe, or both"),
        (["compare", "scenes/cam", "--seeds", "0,x"], "takes numbers separated by commas"),
        (["report", "no/such/run"], "no finished run"),
        (["embedded", "train", "blip"], "Did you mean `clip`?"),
    ],
)
def test_a_mistake_is_one_message_without_traceback(arguments, message):
    result = call(*arguments)
    assert result.exit_code in (1, 2)
    assert message in plain(result.stderr)
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_exit_statuses_tell_mistakes_failures_and_interruptions_apart(monkeypatch, place: Path):
    def fails(error):
        def run_stage(*_, **__):
            raise error

        monkeypatch.setattr(run_commands, "run_stage", run_stage)
        return call("run", place / "cam.yaml")

    assert fails(RecipeError("wrong")).exit_code == 2
    assert fails(CollapseError("flat")).exit_code == 1
    assert fails(OSError("disk full")).exit_code == 1
    interrupted = fails(KeyboardInterrupt())
    assert interrupted.exit_code == 130
    assert "Run the same command again to continue." in interrupted.stderr


def test_errors_of_the_system_say_what_to_do_and_long_messages_are_cut(monkeypatch, place: Path):
    def fails(error):
        def run_stage(*_, **__):
            raise error

        monkeypatch.setattr(run_commands, "run_stage", run_stage)
        return plain(call("run", place / "cam.yaml").stderr)

    assert "No space left" in fails(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "x"))
    assert "Free some space, then run the same command" in fails(OSError(errno.ENOSPC, "full", "x"))
    assert "Give a folder" in fails(NotADirectoryError(errno.ENOTDIR, "no folder", "x"))
    cut = fails(RecipeError("begin" + "x" * 100_000 + "end."))
    assert cut.startswith("Error: beginxx")
    assert cut.endswith("xxend.")
    assert len(cut) < 2_100


def test_debug_shows_where_an_error_came_from_wherever_it_stands():
    for arguments in (["--debug", "run", "nowhere"], ["run", "nowhere", "--debug"]):
        result = call(*arguments)
        assert result.exit_code == 2
        assert "Traceback" in result.stderr


@pytest.fixture
def _switch_restored():
    before = {
        name: os.environ.get(name) for name in ("WSSS_OFFLINE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    }
    yield
    set_offline(False)
    os.environ.update({name: value for name, value in before.items() if value is not None})


@pytest.mark.usefixtures("_switch_restored")
def test_offline_forbids_the_network():
    assert call("list", "recipes", "--offline").exit_code == 0
    assert is_offline()
    result = call("weights", "fetch", "resnet50")
    assert result.exit_code == 2
    assert "network" in result.stderr


def test_lists_and_descriptions():
    assert "scenes/clims" in call("list", "recipes").stdout
    assert "CVPR 2022" in plain(call("list", "methods").stdout)
    assert "CVPR 2019" in plain(call("list", "refiners").stdout)
    assert "Preset clims_camera_ready" in plain(call("show", "refiners/irn").stdout)
    described = plain(call("show", "methods/clims").stdout)
    assert "btm_weight" in described
    assert "Preset camera_ready" in described


def test_a_method_of_this_project_is_not_listed_as_the_paper_that_it_builds_on():
    listed = plain(call("list", "methods").stdout)
    assert listed.count("ACM MM 2023") == 1  # QA-CLIMS
    assert "QA-CLIMS with saliency as feedback of pixels (a method of this project, in no paper)" in listed
    shown = plain(call("show", "methods/qa_clims_saliency").stdout)
    assert shown.startswith(
        "qa_clims_saliency: QA-CLIMS with saliency as feedback of pixels (a method of this"
    )
    assert "project, in no paper) Builds on https://arxiv.org/abs/2401.09883 QA-CLIMS, whose maps" in shown
    assert "CVI-SZU" not in shown


def test_a_shown_recipe_is_complete_and_runs_as_it_is(tmp_path: Path):
    shown = call("show", "scenes/clims", "--set", "method.reg_weight=7")
    path = tmp_path / "shown.yaml"
    path.write_text(shown.stdout)
    assert "reg_weight: 7.0" in shown.stdout
    assert call("show", path).stdout == shown.stdout


def test_data_run_compare_report_and_publication(place: Path):
    runs = place / "runs"
    ran = call("run", place / "cam.yaml", "--runs", runs)
    assert ran.exit_code == 0, ran.stderr
    assert "oracle" in ran.stdout
    assert "Train cam: done" in ran.stderr
    compared = call(
        "compare", runs / "cam-seed0", place / "cam.yaml", "--seeds", "1", "--runs", runs, "--json"
    )
    assert compared.exit_code == 0, compared.stderr
    rows = json.loads(compared.stdout)["rows"]
    maps = [
        r
        for r in rows
        if (r["stage"], r["metric"], r["background_score_source"]) == ("maps", "miou", "fixed")
    ]
    assert sorted(maps[0]["by_seed"]) == ["0", "1"]
    assert "± " in call("compare", runs / "cam-seed0", runs / "cam-seed1").stdout
    reported = call("report", runs / "cam-seed0", "--out", place / "report", "--publish", place / "results")
    assert reported.exit_code == 0, reported.stderr
    assert (place / "report" / "index.html").is_file()
    assert (place / "results" / "scenes.csv").is_file()


def test_one_stage_at_a_time(place: Path):
    runs = place / "runs"
    assert call("train-method", place / "cam.yaml", "--seed", "5", "--runs", runs).exit_code == 0
    assert not list((runs / "cam-seed5").glob("maps"))
    result = call("activate", place / "cam.yaml", "--seed", "5", "--runs", runs)
    assert "Train cam: already done." in result.stderr
    assert "maps" in result.stdout
    assert call("refine", place / "cam.yaml", "--runs", runs).exit_code == 2  # the recipe refines nothing
    assert call("evaluate", place / "cam.yaml", "--seed", "5", "--runs", runs).exit_code == 0


def test_a_changed_run_of_a_recipe_with_a_name_never_replaces_another(tmp_path: Path):
    runs, given = tmp_path / "runs", tmp_path / "corrected"
    write_mask(given / "w7_train_00001.png", np.zeros((64, 64), np.uint8))
    recipe = write_recipe(tmp_path / "recipe.yaml", CAM_RECIPE, name="photos-cam", training=training(1))
    plain_run = ("run", recipe, "--runs", runs, "--until", "data", "--no-estimate")
    assert call(*plain_run).exit_code == 0
    folder = runs / "photos-cam-seed0"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for changes in (
        ("--set", "training.epochs=2"),
        ("--set", "training.epochs=3"),
        ("--corrections", given),
    ):
        ran = call(*plain_run, *changes)
        assert ran.exit_code == 0, ran.stderr
        assert f"{runs}/photos-cam+" in plain(ran.stdout)
    found = {path.name for path in runs.glob("photos-cam*")}
    assert len(found) == 4
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    corrected = [path for path in runs.glob("*/recipe.yaml") if f"folder: {given}" in path.read_text()]
    assert len(corrected) == 1
    again = call("run", corrected[0], *plain_run[2:])  # resumed from its run folder, it stays there
    assert again.exit_code == 0, again.stderr
    assert {path.name for path in runs.glob("photos-cam*")} == found


def test_anybodys_masks_are_scored(tmp_path: Path):
    true = np.zeros((4, 4), np.uint8)
    true[:2] = 1
    predicted = np.zeros((4, 4), np.uint8)
    predicted[:1] = 1
    for name, mask in (("masks", true), ("predictions", predicted)):
        (tmp_path / name).mkdir()
        Image.fromarray(mask).save(tmp_path / name / "a.png")
    (tmp_path / "classes.json").write_text('["cat"]')
    folders = ("--predictions", tmp_path / "predictions", "--masks", tmp_path / "masks")
    scored = call("evaluate", *folders, "--classes", tmp_path / "classes.json", "--json")
    assert scored.exit_code == 0, scored.stderr
    entry = json.loads(scored.stdout)["entries"][0]
    assert entry["iou"] == {"background": pytest.approx(8 / 12), "cat": pytest.approx(0.5)}
    shown = call("evaluate", *folders).stdout
    assert "50.0" in shown
    assert "58.3" in shown  # (66.7 + 50) / 2


def test_scenes_are_written_as_a_tree(tmp_path: Path):
    result = call("data", "scenes", "--out", tmp_path / "tree", "--train", "2", "--val", "1", "--size", "64")
    assert result.exit_code == 0, result.stderr
    assert len(list((tmp_path / "tree" / "JPEGImages").glob("*.jpg"))) == 3


def test_seeds_are_read_from_text():
    assert parse_seeds("0, 1,2") == (0, 1, 2)
