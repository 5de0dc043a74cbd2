from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tiny_recipe import made_up_run
from wsss.engine.measurements import finished_run, most_frequent_pairs

CONFUSION = [[90, 10], [20, 30]]
BOUNDARY: dict[str, dict[str, float | None]] = {
    "0": {"recall": 0.25, "precision": None, "f1": None},
    "0.02": {"recall": 0.75, "precision": 0.5, "f1": 0.6},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return made_up_run(tmp_path, "scenes/cam", 0, {"maps": {"fixed": [CONFUSION]}})


def change_entry(folder: Path, **changes: Any) -> None:
    (path,) = (folder.parent / "stages").glob("score-maps-*/scores.json")
    scores = json.loads(path.read_text())
    scores["entries"][0] |= changes
    path.write_text(json.dumps(scores))


def numbers(folder: Path) -> dict[str, float]:
    return {m.metric: m.value for m in finished_run(folder).measurements}


def test_boundaries_become_metrics_in_percent_and_unknown_ones_are_left_out(folder: Path) -> None:
    change_entry(folder, boundary=BOUNDARY, boundary_source="masks")
    found = {metric: value for metric, value in numbers(folder).items() if metric.startswith("boundary")}
    assert found == pytest.approx(
        {
            "boundary_recall@0": 25,
            "boundary_recall@0.02": 75,
            "boundary_precision@0.02": 50,
            "boundary_f1@0.02": 60,
        }
    )


def test_scores_made_before_boundaries_are_still_read(folder: Path) -> None:
    assert not any(metric.startswith("boundary") for metric in numbers(folder))
    assert "miou" in numbers(folder)


def test_the_confusion_ratio_is_that_of_each_class_and_its_most_frequent_context(folder: Path) -> None:
    pairs = {
        "cat/sky": {"share_of_foreground": 0.2, "confusion_ratio": 0.1, "images": 3},
        "cat/grass": {"share_of_foreground": 0.3, "confusion_ratio": 1.5, "images": 7},
        "dog/grass": {"share_of_foreground": 0.4, "confusion_ratio": None, "images": 7},
    }
    assert list(most_frequent_pairs(pairs)) == ["cat/grass", "dog/grass"]
    change_entry(folder, cooccurrence=pairs)
    found = {metric: value for metric, value in numbers(folder).items() if metric.startswith("confusion")}
    assert found == pytest.approx(
        {"confusion_ratio:cat/grass": 150}
    )  # above 100; nothing to divide by for dog
    assert numbers(folder)["cooccurrence:dog/grass"] == pytest.approx(40)
