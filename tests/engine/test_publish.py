from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from tiny_recipe import made_up_run
from wsss.engine.publish import COLUMNS, publish
from wsss.errors import DataError

CONFUSION = [[90, 10], [20, 30]]


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    stages = {
        "maps": {"fixed": [CONFUSION], "oracle": [CONFUSION]},
        "segmentation": {"automatic": [CONFUSION]},
    }
    return made_up_run(tmp_path / "runs", "scenes/cam", 0, stages, method="cam")


def test_every_number_becomes_one_row_with_all_columns(folder: Path, tmp_path: Path):
    (path,) = publish([folder], tmp_path / "results")
    assert path == tmp_path / "results" / "toys.csv"
    assert path.read_text().splitlines()[0] == ",".join(COLUMNS)
    rows = read(path)
    (row,) = [r for r in rows if r["metric"] == "miou" and r["background_score_source"] == "fixed"]
    assert row == {
        "recipe": "scenes/cam",
        "method": "cam",
        "stage": "maps",
        "split": "train",
        "metric": "miou",
        "seed": "0",
        "value": f"{50 * (90 / 120 + 30 / 60):.2f}",
        "background_score_source": "fixed",
        "supervision": "I",
        "crf": "no",
        "scales": "1 0.5",
        "flip": "yes",
        "weights_sha256": "teacher:" + "f" * 16,
        "data_version": "1",
        "run": "scenes-cam-seed0",
        "commit": "abc",
        "hardware": "2 CPU cores",
        "minutes": "1.0",
        "paper_value": "48.3",
    }
    (segmentation,) = [r for r in rows if r["stage"] == "segmentation" and r["metric"] == "miou"]
    assert (segmentation["scales"], segmentation["flip"], segmentation["minutes"]) == ("1", "no", "2.0")
    metrics = {r["metric"] for r in rows}
    assert {
        "iou:cat",
        "iou:background",
        "over_activation",
        "under_activation",
        "cooccurrence:cat/grass",
    } <= metrics


def test_publishing_again_replaces_rows_and_keeps_the_others_sorted(folder: Path, tmp_path: Path):
    results = tmp_path / "results"
    for seed in (10, 2):
        publish(
            [made_up_run(tmp_path / "runs", "scenes/cam", seed, {"maps": {"fixed": [CONFUSION]}})], results
        )
    publish([folder], results)
    before = (results / "toys.csv").read_bytes()
    publish([folder], results)
    assert (results / "toys.csv").read_bytes() == before
    record = json.loads((folder / "run.json").read_text())
    record["stages"][0]["commit"] = "def"
    (folder / "run.json").write_text(json.dumps(record))
    publish([folder], results)
    rows = read(results / "toys.csv")
    mious = [r for r in rows if r["metric"] == "miou" and r["background_score_source"] == "fixed"]
    assert [(r["seed"], r["commit"]) for r in mious] == [("0", "def"), ("2", "abc"), ("10", "abc")]


def test_a_file_with_other_columns_is_not_touched(folder: Path, tmp_path: Path):
    path = tmp_path / "results" / "toys.csv"
    path.parent.mkdir()
    path.write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="must have the columns"):
        publish([folder], tmp_path / "results")
    assert path.read_text() == "a,b\n1,2\n"


def test_rows_of_settings_that_are_gone_do_not_stay(folder: Path, tmp_path: Path):
    publish([folder], tmp_path / "results")
    again = made_up_run(tmp_path / "new", "scenes/cam", 0, {"maps": {"fixed": [CONFUSION]}})
    (path,) = publish([again], tmp_path / "results")
    assert {(row["stage"], row["background_score_source"]) for row in read(path)} == {("maps", "fixed")}


def test_seeds_of_one_recipe_must_be_of_the_same_data(folder: Path, tmp_path: Path):
    (path,) = publish([folder], tmp_path / "results")
    before = path.read_bytes()
    stages = {"maps": {"fixed": [CONFUSION]}}
    other = made_up_run(tmp_path / "new", "scenes/cam", 1, stages, data={"data_version": "2"})
    with pytest.raises(DataError, match="holds seed 0 of scenes/cam with other data"):
        publish([other], tmp_path / "results")
    assert path.read_bytes() == before
