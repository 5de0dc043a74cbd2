"""Kills, full disks, places where nothing can be written, and two runs at once: real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from command_server import CommandServer, Ended, command_server
from export.small_model import noise, save_image, small_model
from killed_stages import END, MIDST
from tiny_recipe import (
    CAM_RECIPE,
    REFINERS,
    qa_recipe,
    random_teacher,
    random_vqa,
    smvwe_recipe,
    training,
    write_recipe,
)
from wsss.data.masks_png import write_mask
from wsss.training.checkpoint import TEMPORARY_PREFIX

pytestmark = pytest.mark.slow

OFTEN = {"checkpoint_seconds": 0, "log_every": 1}
RECORDS = ("stage.json", "log.jsonl", "saliency.json")
"""Files that say when something was made."""


@pytest.fixture(scope="module")
def server() -> Iterator[CommandServer]:
    with command_server() as started:
        yield started


def every_file(stages: Path) -> dict[str, bytes]:
    """Bytes of all files of all stages, but for records of time."""
    paths = [path for path in stages.rglob("*") if path.is_file() and path.name not in RECORDS]
    return {
        path.relative_to(stages).as_posix(): path.read_bytes()
        for path in sorted(paths)
        if ".locks" not in path.parts
    }


def leftovers(place: Path) -> list[Path]:
    return [path for path in place.rglob("*") if path.name.startswith(TEMPORARY_PREFIX)]


def whole_pipeline(place: Path) -> tuple[Path, Path]:
    """QA-CLIMS with questions, all refiners, a network and a CRF; SMVWE with saliency and words."""
    recipe = qa_recipe(random_teacher(place / "teacher"), random_vqa(place / "vqa"))
    recipe["initialise"]["training"] |= OFTEN
    recipe["training"] |= OFTEN
    recipe["refine"] = [
        {**item, **({"training": {**item["training"], **OFTEN}} if "training" in item else {})}
        for item in REFINERS[:3]
    ]
    network = {**training(1), "steps": None, **OFTEN}
    recipe["segmentation"] = {"preset": "scenes", "training": network, "dense_crf": {"iterations": 1}}
    words = {**smvwe_recipe(), "training": {**training(1), **OFTEN}}
    return write_recipe(place / "qa.yaml", recipe), write_recipe(place / "smvwe.yaml", words)


def test_every_stage_is_killed_and_the_bytes_stay_the_same(tmp_path: Path) -> None:
    recipes = whole_pipeline(tmp_path)
    program = Path(__file__).with_name("killed_stages.py")
    done = subprocess.run(
        [sys.executable, program, tmp_path / "peaceful", tmp_path / "killed", *recipes],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=550,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    kills = [json.loads(line) for line in done.stdout.splitlines()]
    assert all(kill["files"] > 0 for kill in kills)
    hit = {moment: {k["stage"] for k in kills if k["moment"] == moment} for moment in (MIDST, END)}
    stages = tmp_path / "killed" / "stages"
    assert hit[END] == {path.parent.name for path in stages.glob("*/stage.json")}
    kinds = {name.rpartition("-")[0] for name in hit[MIDST]}
    assert kinds >= {
        *("data", "ask-questions", "prepare", "train-method", "activate", "refine-dense_crf", "refine-psa"),
        *("refine-irn", "pseudo-masks", "train-segmentation", "predict", "predict-crf"),
        *("detect-saliency", "write-words"),
    }
    expected, found = every_file(tmp_path / "peaceful" / "stages"), every_file(stages)
    assert expected.keys() == found.keys()
    assert [name for name in expected if expected[name] != found[name]] == []
    assert leftovers(tmp_path / "killed") == []


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe, a model, photographs and masks."""
    folder = tmp_path_factory.mktemp("faults")
    small = {
        "training": {**training(2), **OFTEN},
        "segmentation": {"preset": "scenes", "training": training(1)},
    }
    small["segmentation"]["training"] |= {"steps": None}
    write_recipe(folder / "cam.yaml", CAM_RECIPE, **small)
    small_model(test_flip=False).save_pretrained(folder / "model")
    for number in range(40):
        save_image(folder / "photos" / f"{number:02}.png", noise(64, 64, seed=number))
    for number in range(4):
        mask = np.random.default_rng(number).integers(0, 3, (200, 300), dtype=np.uint8)
        write_mask(folder / "masks" / f"{number}.png", mask)
    (folder / "classes.json").write_text('["cat", "dog", "cow"]')
    return folder


@pytest.fixture(scope="module")
def whole(server: CommandServer, place: Path) -> Path:
    """The runs of an undisturbed run."""
    runs = place / "whole"
    ended = server.call(place / "undisturbed", ("run", place / "cam.yaml", "--runs", runs), seconds=200)
    assert ended.status == 0, ended.err
    return runs


LIMITS = (900, 6_000, 40_000, 400_000)
"""Bytes that fit on the disk; each is too little at another stage: pictures, maps, weights of two sizes."""


@pytest.mark.parametrize("largest", LIMITS)
def test_a_run_on_a_full_disk_says_so_and_goes_on_later(
    server: CommandServer, place: Path, whole: Path, tmp_path: Path, largest: int
) -> None:
    runs = tmp_path / "runs"
    command = ("run", place / "cam.yaml", "--runs", runs)
    full = server.call(tmp_path / "full", command, largest=largest, seconds=200)
    assert_is_explained(full)
    assert leftovers(runs) == []
    known = every_file(whole / "stages")
    for name, content in every_file(runs / "stages").items():
        assert name.endswith("checkpoint.safetensors") or content == known[name], name
    later = server.call(tmp_path / "later", command, seconds=200)
    assert later.status == 0, later.err
    assert every_file(runs / "stages") == known


def assert_is_explained(ended: Ended) -> None:
    assert ended.status == 1, ended
    assert_is_one_message(ended)
    assert "File too large" in ended.err
    assert "Free some space, then run the same command again" in ended.err


def assert_is_one_message(ended: Ended) -> None:
    assert [line[:7] for line in ended.err.splitlines() if "Error:" in line] == ["Error: "], ended.err
    assert "Traceback" not in ended.err


def commands(place: Path, out: Path) -> dict[str, tuple[str | Path, ...]]:
    """Everything that writes one place from a few files."""
    masks = (place / "masks", "--classes", place / "classes.json", "--out")
    return {
        "predict": ("predict", place / "model", place / "photos", "--out", out / "p", "--scales", "0.5"),
        "saliency": ("saliency", place / "photos", "--out", out / "s"),
        "coco": ("export", "coco", *masks, out / "coco.json"),
        "cvat": ("export", "cvat", *masks, out / "cvat.xml"),
        "label-studio": ("export", "label-studio", *masks, out / "tasks.json"),
        "png": ("export", "png", *masks, out / "png"),
        "data": ("data", "scenes", "--train", "2", "--val", "1", "--out", out / "data"),
    }


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device /dev/full")
def test_output_that_can_not_be_written_is_an_error() -> None:
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "wsss", "show", "scenes/cam"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=200)
    assert done.returncode == 1
    assert_is_one_message(Ended(1, "", done.stderr))
    assert "No space left on device. Free some space" in done.stderr


NAMES = ("predict", "saliency", "coco", "cvat", "label-studio", "png", "data")


@pytest.mark.parametrize("name", NAMES)
def test_other_commands_on_a_full_disk_leave_nothing_half_written(
    server: CommandServer, place: Path, tmp_path: Path, name: str
) -> None:
    good = server.call(tmp_path / "good", commands(place, tmp_path / "a")[name])
    assert good.status == 0, good.err
    full = server.call(tmp_path / "full", commands(place, tmp_path / "b")[name], largest=100)
    assert_is_explained(full)
    assert leftovers(tmp_path / "b") == []
    assert [path for path in (tmp_path / "b").rglob("*.png") if path.stat().st_size == 100] == []
    later = server.call(tmp_path / "later", commands(place, tmp_path / "b")[name])
    assert later.status == 0, later.err
    assert every_file(tmp_path / "a").keys() == every_file(tmp_path / "b").keys()


@pytest.mark.parametrize("name", NAMES)
def test_a_file_in_place_of_the_output_folder_is_an_error(
    server: CommandServer, place: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / "b").write_text("a file")
    ended = server.call(tmp_path / "blocked", commands(place, tmp_path / "b")[name])
    assert ended.status in (1, 2), ended
    assert_is_one_message(ended)
    assert str(tmp_path / "b") in ended.err
    assert (tmp_path / "b").read_text() == "a file"


def test_a_run_into_a_file_is_an_error(server: CommandServer, place: Path, tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    ended = server.call(
        tmp_path / "a", ("run", place / "cam.yaml", "--runs", tmp_path / "runs", "--no-estimate")
    )
    assert ended.status == 1, ended
    assert_is_one_message(ended)
    assert str(tmp_path / "runs") in ended.err


def wait_until(condition: Callable[[], bool], seconds: float = 100) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came so far"
        time.sleep(0.002)


def test_of_two_runs_at_once_the_second_waits(
    server: CommandServer, place: Path, whole: Path, tmp_path: Path
) -> None:
    command = ("run", place / "cam.yaml", "--runs", tmp_path / "runs")
    first = server.start(tmp_path / "first", command)
    wait_until(lambda: bool(list(tmp_path.glob("runs/stages/train-method-*/log.jsonl"))))
    os.kill(first, signal.SIGSTOP)  # in the midst of a stage
    try:
        assert not list(tmp_path.glob("runs/stages/train-method-*/stage.json"))
        second = server.start(tmp_path / "second", command)
        said = tmp_path / "second.stderr.txt"
        wait_until(lambda: said.is_file() and "Another run works in train-method-" in said.read_text())
    finally:
        os.kill(first, signal.SIGCONT)
    ends = [server.wait(process, 200) for process in (first, second)]
    assert [ended.status for ended in ends] == [0, 0], ends
    assert "Train cam: already done." in ends[1].err
    assert every_file(tmp_path / "runs" / "stages") == every_file(whole / "stages")


def test_of_two_predictions_at_once_the_second_is_refused(
    server: CommandServer, place: Path, tmp_path: Path
) -> None:
    command = commands(place, tmp_path)["predict"]
    first = server.start(tmp_path / "first", command)
    wait_until(lambda: bool(list((tmp_path / "p").glob("*.png"))))
    os.kill(first, signal.SIGSTOP)
    try:
        made = sorted((tmp_path / "p").glob("*.png"))
        assert len(made) < 40
        second = server.call(tmp_path / "second", command)
        assert second.status == 1
        assert "Another process writes masks to" in second.err
        assert sorted((tmp_path / "p").glob("*.png")) == made
    finally:
        os.kill(first, signal.SIGCONT)
    assert server.wait(first, 100).status == 0
    again = server.call(tmp_path / "third", command)
    assert again.status == 0
    assert "40 were there already" in " ".join(again.out.split())
