"""Runs become model folders; cards say what the run says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.small_model import noise, small_net
from tiny_recipe import made_up_run
from wsss.engine.measurements import finished_run
from wsss.errors import StageError, WeightsError
from wsss.export.model_card import EMBEDDED, MADE_HERE, UNKNOWN, licences, model_card
from wsss.export.model_folder import load_model, model_of_run, save_run_model
from wsss.segmentation import SegmentationConfig
from wsss.segmentation.model import SegmentationModel
from wsss.training.checkpoint import save_state

NAMES = ["background", "cat", "dining table", "Zähler <&>"]


SCORES = {
    "pseudo_masks": {"fixed": [[[30, 10], [5, 55]]]},
    "segmentation": {"none": [[[40, 10], [10, 40]]]},
}


def run_of(
    tmp_path: Path, *, supervision: str = "I+L", scores: dict[str, Any] = SCORES, **recipe: Any
) -> Path:
    """A made-up finished run whose network is small and random."""
    run = made_up_run(tmp_path / "runs", "scenes/clims", 0, scores, supervision=supervision, method="clims")
    config = SegmentationConfig(preset="scenes")
    folder = tmp_path / "runs" / "stages" / "train-segmentation-1"
    save_state(folder / "model.safetensors", small_net(config).state_dict())
    record = json.loads((run / "run.json").read_text())
    record["recipe"] |= {
        "segmentation": config.model_dump(mode="json"),
        "method": {"name": "clims", "teacher": "embedded", "backbone_weights": "resnet50"},
        **recipe,
    }
    record["recipe"]["about"]["paper"] = "CLIMS"
    record["weights"] = {"teacher": "a" * 64, "backbone": "b" * 64, "trained teacher": "c" * 64}
    record["data"]["class_names"] = NAMES
    like = {"seconds": 1.0, "title": "", "commit": "", "hardware": "", **(record["stages"] or [{}])[0]}
    record["stages"].append({**like, "name": "train-segmentation", "scores": None})
    record["stages"][-1] |= {"folder": "../stages/train-segmentation-1", "score_stage": None, "split": None}
    (run / "run.json").write_text(json.dumps(record))
    return run


def test_a_runs_network_is_the_folders_network(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    folder = save_run_model(run, tmp_path / "model")
    first, again = load_model(run), load_model(folder)
    image = noise(40, 32)
    assert np.array_equal(first.probabilities(image), again.probabilities(image))
    assert first.fingerprint == again.fingerprint
    assert list(again.class_names) == NAMES
    assert again.about["recipe_name"] == "scenes/clims"
    assert again.about["data"]["name"] == "toys"
    assert again.card == model_card(finished_run(run))


def test_the_card_says_data_method_supervision_scores_licences_and_limits(tmp_path: Path) -> None:
    card = model_card(finished_run(run_of(tmp_path)))
    for words in (
        "Gives each pixel of a photograph one of 4 classes: background, cat, dining table, Zähler <&>.",
        "- Data: toys (1), split `train`",
        "- Supervision: image tags and a language teacher (I+L)",
        "- Method: clims (CLIMS)",
        "| pseudo_masks | train | 72.62 | fixed | I+L |",  # (30/45 + 55/70) / 2
        "| segmentation | val | 66.67 | none | I+L |",  # 40/60
        "| cat | 66.67 |",
        f"| teacher | embedded | {'a' * 16} | {EMBEDDED} |",
        "Learned without true masks, outlines are softer",
    ):
        assert words in card, words


@pytest.mark.parametrize("supervision", ["F", "I+L"])
def test_a_card_speaks_of_scores_only_where_there_are_some(tmp_path: Path, supervision: str) -> None:
    kinds = {"all": SCORES, "maps": {"pseudo_masks": SCORES["pseudo_masks"]}, "none": {}}
    said = {}
    for kind, scores in kinds.items():
        run = run_of(tmp_path / kind, supervision=supervision, scores=scores)
        card = model_card(finished_run(run))
        words = ("in the table above", "Scores hold for images like", "The network was not scored")
        said[kind] = [words.index(each) for each in words if each in card]
        assert ("None: there were no true masks" in card) == (kind == "none")
        assert card.rstrip().endswith("\n- Probabilities are not calibrated.")
    assert said == {"all": [0, 1] if supervision == "I+L" else [1], "maps": [1, 2], "none": [2]}


def test_the_fully_supervised_twins_card_has_its_own_limits(tmp_path: Path) -> None:
    card = model_card(finished_run(run_of(tmp_path, supervision="F")))
    assert "the fully supervised twin" in card
    assert "outlines are softer" not in card


def test_licences_come_from_the_weights_own_cards(tmp_path: Path) -> None:
    teacher, other = tmp_path / "teacher", tmp_path / "other"
    for folder in (teacher, other):
        folder.mkdir()
    (teacher / "teacher.json").write_text('{"licence": "CC BY-NC 4.0", "licence_note": "Ask first."}')
    (other / "README.md").write_text("---\nlicense: mit\n---\n# A model\n")
    record = {
        "recipe": {
            "method": {"teacher": str(teacher), "backbone_weights": "resnet50"},
            "initialise": None,
            "refine": [
                {"name": "irn", "backbone_weights": str(other)},
                {"name": "psa", "backbone_weights": "gone/x"},
            ],
            "segmentation": {"weights": None},
        },
        "weights": dict.fromkeys(
            ("teacher", "backbone", "refine 0", "refine 1", "trained teacher"), "d" * 64
        ),
    }
    found = {role: licence for role, (_, _, licence) in licences(record).items()}
    assert found["teacher"] == "CC BY-NC 4.0 Ask first."
    assert "BSD" in found["backbone"]
    assert found["refine 0"] == "mit"
    assert found["refine 1"] == UNKNOWN
    assert found["trained teacher"] == MADE_HERE


def test_runs_without_a_network_are_refused(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**record, "stages": record["stages"][:-1]}))
    with pytest.raises(StageError, match="trained no segmentation network"):
        model_of_run(run)
    record["recipe"]["segmentation"]["rates"] = [1]
    (run / "run.json").write_text(json.dumps(record))
    with pytest.raises(StageError, match="can't be read"):
        model_of_run(run)
    (run / record["stages"][-1]["folder"] / "model.safetensors").unlink()
    with pytest.raises(StageError, match="is missing"):
        model_of_run(run)
    with pytest.raises(WeightsError, match="holds no segmentation model"):
        load_model(tmp_path)


def test_nothing_else_is_replaced(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    with pytest.raises(WeightsError, match="holds something else"):
        save_run_model(run, tmp_path / "runs")
    assert isinstance(load_model(run), SegmentationModel)


@pytest.mark.parametrize(
    ("word", "words"),
    [
        ("I+M(12)", "image tags, and 12 masks given by hand (I+M(12))"),
        ("I+L+M(1)", "image tags and a language teacher, and 1 mask given by hand (I+L+M(1))"),
        (
            "I+L+M(2) (oracle)",
            "image tags and a language teacher, and 2 masks given by hand; true labels answered the "
            "questions (I+L+M(2) (oracle))",
        ),
    ],
)
def test_masks_given_by_hand_are_in_the_card(tmp_path: Path, word: str, words: str) -> None:
    card = model_card(finished_run(run_of(tmp_path, supervision=word)))
    assert f"- Supervision: {words}\n" in card
    assert "Learned mostly from tags, outlines are softer" in card
    assert "Learned without true masks" not in card
