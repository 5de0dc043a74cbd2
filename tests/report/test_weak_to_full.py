from __future__ import annotations

from pathlib import Path

import pytest

from wsss.engine.publish import COLUMNS
from wsss.report.result_rows import Cell, Results
from wsss.report.weak_to_full import with_weak_to_full

RATIO = Cell("segmentation", metric="weak_to_full")


def row(recipe: str, value: float, seed: int = 0, **others: str) -> dict[str, str]:
    own = {
        "recipe": f"scenes/{recipe}",
        "method": recipe,
        "stage": "segmentation",
        "split": "val",
        "metric": "miou",
        "seed": str(seed),
        "value": f"{value:.2f}",
        "background_score_source": "none" if recipe == "supervised" else "automatic",
        "supervision": "F" if recipe == "supervised" else "I",
        "scales": "1",
        "flip": "yes",
        "data_version": "v1",
    }
    return dict.fromkeys(COLUMNS, "") | own | others


def ratios(*rows: dict[str, str]) -> dict[tuple[str, str], str]:
    completed = with_weak_to_full(rows)
    assert completed[: len(rows)] == rows
    found = [each for each in completed if each["metric"] == "weak_to_full"]
    return {(each["recipe"], each["seed"]): each["value"] for each in found}


def test_ratios_are_taken_seed_by_seed() -> None:
    full = [row("supervised", 80.0, 0), row("supervised", 50.0, 1)]
    found = ratios(row("smvwe", 60.0, 0), row("smvwe", 40.0, 1), row("smvwe", 40.0, 2), *full)
    assert found == {("scenes/smvwe", "0"): "75.00", ("scenes/smvwe", "1"): "80.00"}  # seed 2 has no twin


def test_a_published_ratio_stays_and_is_not_doubled() -> None:
    published = row("cam", 70.5, metric="weak_to_full")
    found = with_weak_to_full([row("cam", 40.0), published, row("supervised", 80.0)])
    assert [each for each in found if each["metric"] == "weak_to_full"] == [published]


@pytest.mark.parametrize(
    "change", [{"split": "train"}, {"data_version": "v2"}, {"scales": "1 2"}, {"flip": "no"}]
)
def test_networks_scored_otherwise_are_no_twins(change: dict[str, str]) -> None:
    assert ratios(row("cam", 40.0), row("supervised", 80.0)) == {("scenes/cam", "0"): "50.00"}
    assert ratios(row("cam", 40.0), row("supervised", 80.0, **change)) == {}


def test_only_the_same_network_is_a_twin() -> None:
    full = row("supervised", 80.0)
    assert ratios(row("smvwe-v1-vgg", 40.0), full) == {}
    assert ratios(row("smvwe-v2-vgg", 40.0), full) == {}
    assert ratios(row("no-such-recipe", 40.0), full) == {}
    assert ratios(row("clims-irn-crf", 40.0), full) == {("scenes/clims-irn-crf", "0"): "50.00"}


def test_neither_other_stages_nor_full_supervision_get_a_ratio() -> None:
    full = row("supervised", 80.0)
    assert ratios(row("cam", 40.0, stage="segmentation_crf"), row("cam", 40.0, stage="maps"), full) == {}
    assert ratios(full, row("supervised", 70.0, 1)) == {}
    assert ratios(row("cam", 40.0), row("supervised", 0.0)) == {}


def test_results_files_are_read_with_their_ratios(tmp_path: Path) -> None:
    path = tmp_path / "scenes.csv"
    rows = [row("qa_clims", 68.0), row("qa_clims", 30.0, metric="iou:cat"), row("supervised", 80.0)]
    path.write_text(",".join(COLUMNS) + "\n" + "".join(",".join(each.values()) + "\n" for each in rows))
    results = Results.read(path)
    assert results.by_seed("scenes/qa_clims", RATIO) == {0: 85.0}
    assert results.recipes == ("scenes/qa_clims", "scenes/supervised")
