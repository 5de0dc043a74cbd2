from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tiny_recipe import made_up_run
from wsss.engine.measurements import finished_run
from wsss.engine.passport import by_supervision, passport_of, passports_of, uses_crf

CONFUSION = [[90, 10], [20, 30]]
STAGES = {
    "maps": {"fixed": [CONFUSION] * 3, "oracle": [CONFUSION] * 3},
    "refined-irn": {"oracle": [CONFUSION] * 3},
    "pseudo_masks": {"automatic": [CONFUSION] * 3},
    "segmentation": {"automatic": [CONFUSION] * 2},
    "segmentation_crf": {"automatic": [CONFUSION] * 2},
}
WEIGHTS = {
    "backbone": "a" * 64,
    "refine 0": "b" * 64,
    "refine 1": "c" * 64,
    "saliency": "d" * 64,
    "segmentation": "e" * 64,
    "teacher": "f" * 64,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = made_up_run(tmp_path, "scenes/cam", 3, STAGES, method="cam", supervision="I+S")
    record = json.loads((folder / "run.json").read_text())
    record["weights"] = WEIGHTS
    record["recipe"]["refine"] = [{"name": "irn"}, {"name": "dense_crf"}]
    record["stages"][0]["commit"] = "def"
    (folder / "run.json").write_text(json.dumps(record))
    return folder


def passport(folder: Path, stage: str, source: str) -> dict[str, Any]:
    (found,) = [
        p
        for p in passports_of(finished_run(folder))
        if (p.stage, p.background_score_source) == (stage, source)
    ]
    return found.to_dict()


def test_a_number_carries_everything_that_stands_behind_it(folder: Path) -> None:
    assert passport(folder, "maps", "fixed") == {
        "recipe": "scenes/cam",
        "method": "cam",
        "seed": 3,
        "run": "scenes-cam-seed3",
        "stage": "maps",
        "data": "toys",
        "data_version": "1",
        "split": "train",
        "images": 3,
        "supervision": "I+S",
        "background_score_source": "fixed",
        "background_score": 0.15,
        "crf": False,
        "test_crf": False,
        "scales": (1.0, 0.5),
        "flip": True,
        "weights": {"backbone": "a" * 64, "saliency": "d" * 64, "teacher": "f" * 64},
        "commit": "def",
        "hardware": "2 CPU cores",
        "minutes": 1.0,
    }


@pytest.mark.parametrize(
    ("stage", "source", "crf", "test_crf", "tested", "weights", "minutes"),
    [
        ("refined-irn", "oracle", True, False, ([1.0, 0.5], True), {"refine 0"}, 2),
        ("pseudo_masks", "automatic", True, False, ([1.0, 0.5], True), {"refine 0", "refine 1"}, 3),
        ("segmentation", "automatic", True, False, ([1.0], False), set(WEIGHTS), 4),
        ("segmentation_crf", "automatic", True, True, ([1.0], False), set(WEIGHTS), 5),
    ],
)
def test_each_stage_has_its_own_test_and_only_the_weights_behind_it(
    folder: Path, stage: str, source: str, crf: bool, test_crf: bool, tested: Any, weights: Any, minutes: int
) -> None:
    found = passport(folder, stage, source)
    assert (found["crf"], found["test_crf"]) == (crf, test_crf)
    assert (list(found["scales"]), found["flip"]) == tested
    assert set(found["weights"]) == weights | {"backbone", "saliency", "teacher"}
    assert found["minutes"] == minutes
    assert found["split"] == ("val" if stage == "segmentation" else "train")


def test_metrics_of_fewer_images_say_of_how_many(folder: Path) -> None:
    (path,) = (folder.parent / "stages").glob("score-maps-*/scores.json")
    scores = json.loads(path.read_text())
    edges = {"0": {"recall": 0.5, "precision": 0.5, "f1": 0.5}}
    scores["entries"][0] |= {"boundary": edges, "boundary_source": "sbd", "boundary_images": 1}
    path.write_text(json.dumps(scores))
    run = finished_run(folder)
    images = {
        m.metric: passport_of(run, m).images
        for m in run.measurements
        if (m.stage, m.background_score_source) == ("maps", "fixed")
    }
    assert images["miou"] == images["iou:cat"] == images["cooccurrence:cat/grass"] == 3
    assert images["boundary_f1@0"] == 1
    assert images["confusion_ratio:cat/grass"] == 2  # the images that hold both


def test_supervisions_stand_in_a_fixed_order_with_words() -> None:
    assert by_supervision(["F", "I+L (oracle)", "I", "I+S", "I+L", "I"]) == [
        ("I", "image tags"),
        ("I+S", "image tags and saliency maps"),
        ("I+L", "image tags and a language teacher"),
        ("I+L (oracle)", "image tags and a language teacher (oracle)"),
        ("F", "true masks"),
    ]
    assert by_supervision(["F", "I+X"]) == [("F", "true masks"), ("I+X", "I+X")]


@pytest.mark.parametrize(
    ("refiners", "stage", "uses"),
    [
        ([], "maps", False),
        (["dense_crf"], "maps", False),
        (["dense_crf"], "words", False),
        (["dense_crf"], "refined-dense_crf", True),
        (["mine/my-refiner.py", "dense_crf"], "refined-my-refiner", False),
        (["mine/my-refiner.py", "dense_crf"], "refined-dense_crf", True),
        (["mine/my-refiner.py", "my-refiner.py", "irn"], "refined-my-refiner-2", False),
        (["mine/my-refiner.py", "irn"], "refined-irn", True),
        (["mine/my-refiner.py", "irn"], "segmentation", True),
        (["mine/my-refiner.py"], "pseudo_masks", False),
    ],
)
def test_passports_say_whether_a_dense_crf_had_a_hand_in_a_number(refiners, stage: str, uses: bool) -> None:
    assert uses_crf({"refine": [{"name": name} for name in refiners]}, stage) == uses
