"""Boundaries and co-occurring background: the section of the page and the table of the documentation."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from builder import CAM, CLIMS
from html_check import Page

from wsss.engine.compare import compare_runs
from wsss.engine.publish import COLUMNS
from wsss.report import boundary_tables
from wsss.report.page import write_report
from wsss.report.runs import read_reported
from wsss.report.tables import results_markdown, table_named

HEADING = "Boundaries and co-occurring background"


def words_of(folders: list[Path]) -> str:
    section = boundary_tables.boundary_scores(read_reported(folders))
    return "" if section is None else Page(f"<main>{section}</main>").words


def without(folder: Path, to: Path, *keys: str) -> Path:
    """A copy of a run whose scores lack some keys, as older ones do."""
    shutil.copytree(folder.parent, to)
    for path in (to / "stages").glob("*/scores.json"):
        scores = json.loads(path.read_text())
        for entry in scores["entries"]:
            for key in keys:
                entry.pop(key)
        path.write_text(json.dumps(scores))
    return to / folder.name


def test_each_recipe_has_a_row_of_the_engines_numbers(runs: Any) -> None:
    folders = runs(CAM, CLIMS)
    words = words_of(folders)
    head, _, rest = words.partition("Method")
    assert "Boundaries: maps on train, oracle background score" in head
    assert "those of the true masks" in head
    assert "exact within 0.0075 of the diagonal within 0.02 of the diagonal" in rest
    assert re.search(r"recall ↑ precision ↑ F1 ↑ recall ↑", rest)
    rows = {
        (row.recipe, row.metric): row
        for row in compare_runs(folders).rows
        if (row.stage, row.background_score_source) == ("maps", "oracle")
    }
    for recipe, label in (("scenes/cam", "CAM"), ("scenes/clims", "CLIMS")):
        numbers = [
            f"{rows[recipe, f'boundary_{name}@{tolerance}'].mean:.1f}"
            for tolerance in ("0", "0.0075", "0.02")
            for name in ("recall", "precision", "f1")
        ]
        assert f"{label} {' '.join(numbers)}" in rest


def test_pairs_stand_with_their_ratio_and_the_iou_of_their_class(runs: Any) -> None:
    folders = runs(CAM, CLIMS)
    words = words_of(folders)
    rows = [
        row
        for row in compare_runs(folders).rows
        if (row.stage, row.background_score_source, row.recipe) == ("maps", "oracle", "scenes/cam")
    ]
    ratios = {row.metric.partition(":")[2]: row for row in rows if row.metric.startswith("confusion_ratio:")}
    assert ratios
    iou = {row.metric.partition(":")[2]: row for row in rows if row.metric.startswith("iou:")}
    assert "confusion ratio ↓ IoU ↑" in words
    for pair, row in ratios.items():
        class_name, _, context = pair.partition("/")
        assert f"{context} in {class_name}" in words
        assert f"{row.mean:.1f} {iou[class_name].mean:.1f}" in words


def test_spread_over_seeds_and_other_stages_are_shown(runs: Any) -> None:
    words = words_of(runs(CAM, replace(CAM, seed=1), CLIMS))
    assert re.search(r"CAM \d+\.\d ± \d+\.\d", words)
    assert "The same for pseudo masks on train" in words
    assert "Boundaries: segmentation on val" in words


def test_many_pairs_are_folded(runs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boundary_tables, "PAIRS_SHOWN", 1)
    assert re.search(r"\d+ more pairs", words_of(runs(CAM)))


def test_the_section_is_on_the_page(runs: Any, tmp_path: Path) -> None:
    page = Page(write_report(runs(CAM, CLIMS), tmp_path).read_text(encoding="utf-8"))
    assert page.words.count(HEADING) == 2  # contents and heading
    assert not page.problems


@pytest.mark.parametrize(
    "keys",
    [
        ("boundary", "boundary_source", "boundary_images"),
        ("boundary", "boundary_source", "boundary_images", "cooccurrence"),
    ],
)
def test_runs_without_these_numbers_still_give_a_page(
    runs: Any, tmp_path: Path, keys: tuple[str, ...]
) -> None:
    folder = without(*runs(CAM), tmp_path / "old", *keys)
    page = Page(write_report([folder], tmp_path / "out").read_text(encoding="utf-8"))
    assert not page.problems
    assert (HEADING in page.words) == ("cooccurrence" not in keys)  # ratios were there before boundaries
    assert "recall ↑" not in page.words
    both = words_of([folder, *runs(CLIMS)])
    edges = both.partition("Co-occurring background")[0]
    assert "CLIMS" in edges
    assert "CAM" not in edges  # no row without numbers


def of_sbd(folder: Path, **changes: int) -> None:
    """Make all scores of a run's stages such as were counted against SBD."""
    for path in (folder.parent / "stages").glob("*/scores.json"):
        scores = json.loads(path.read_text())
        for entry in scores["entries"]:
            entry.update(boundary_source="sbd", **changes)
        path.write_text(json.dumps(scores))


def test_boundaries_of_sbd_are_named_with_their_images(runs: Any, tmp_path: Path) -> None:
    folder = without(*runs(CAM), tmp_path / "sbd")
    of_sbd(folder, boundary_images=1112)
    truth = "True edges are those of SBD, in the 1,112 scored images that it annotates."
    assert truth in words_of([folder])
    old = without(*runs(CAM), tmp_path / "old", "boundary_images")
    assert "True edges are those of the true masks." in words_of([old])
    of_sbd(old)
    assert "True edges are those of SBD." in words_of([old])


def test_different_true_edges_are_told_by_recipe(runs: Any, tmp_path: Path) -> None:
    folder = without(*runs(CLIMS), tmp_path / "sbd")
    of_sbd(folder, boundary_images=9)
    words = words_of([*runs(CAM), folder])
    truth = "the true masks (CAM); SBD, in the 9 scored images that it annotates (CLIMS)"
    assert f"True edges are those of {truth}." in words


def result(recipe: str, seed: int, metric: str, value: float, **changes: str) -> dict[str, str]:
    own = {
        "recipe": f"scenes/{recipe}",
        "method": recipe,
        "stage": "maps",
        "metric": metric,
        "seed": str(seed),
        "value": f"{value}",
        "background_score_source": "oracle",
        **changes,
    }
    return {column: own.get(column, "") for column in COLUMNS}


def test_the_table_of_the_documentation(tmp_path: Path) -> None:
    rows = []
    for seed in (0, 1, 2):
        rows += [
            result("qa_clims", seed, "boundary_f1@0.02", 60 + seed),
            result("cam", seed, "boundary_recall@0", 20 + 2 * seed),
            result("cam", seed, "boundary_recall@0", 99, background_score_source="fixed"),
            result("cam", seed, "boundary_f1@0.02", 99, stage="pseudo_masks"),
            result("clims", seed, "miou", 60),  # has no boundaries yet
            result("ablation-otm", seed, "boundary_f1@0.02", 50),
        ]
    text = ",".join(COLUMNS) + "\n" + "".join(",".join(row.values()) + "\n" for row in rows)
    (tmp_path / "scenes.csv").write_text(text)
    lines = table_named("scenes-boundaries", tmp_path).strip().splitlines()
    assert lines[0].startswith(
        "| maps, *oracle* | recall, r = 0 | precision, r = 0 | F1, r = 0 | recall, r = 0.0075"
    )
    assert lines[0].endswith("F1, r = 0.02 | seeds |")
    assert lines[2:] == [
        "| CAM | 22.0 ± 2.0 | – | – | – | – | – | – | – | – | 3 |",
        "| QA-CLIMS | – | – | – | – | – | – | – | – | 61.0 ± 1.0 | 3 |",
    ]
    assert results_markdown(tmp_path / "nothing.csv", "boundaries") == ""


def test_the_table_of_confusion_ratios(tmp_path: Path) -> None:
    rows = []
    for seed in (0, 1):
        rows += [
            result("smvwe", seed, "confusion_ratio:boat/water", 10 + 2 * seed),
            result("cam", seed, "confusion_ratio:boat/water", 140 + 20 * seed),
            result("cam", seed, "confusion_ratio:train/railroad", 30),
            result("cam", seed, "confusion_ratio:train/railroad", 99, background_score_source="fixed"),
            result("ablation-otm", seed, "confusion_ratio:boat/water", 50),
        ]
    text = ",".join(COLUMNS) + "\n" + "".join(",".join(row.values()) + "\n" for row in rows)
    (tmp_path / "scenes.csv").write_text(text)
    assert table_named("scenes-confusions", tmp_path).strip().splitlines() == [
        "| confusion ratio of maps, *oracle* | boat on water | train on railroad |",
        "| --- | ---: | ---: |",
        "| CAM | 150.0 ± 14.1 | 30.0 ± 0.0 |",
        "| SMVWE | 11.0 ± 1.4 | – |",
    ]
    assert results_markdown(tmp_path / "nothing.csv", "confusions") == ""


def test_the_tables_of_smvwe(tmp_path: Path) -> None:
    rows = []
    for seed in (0, 1):
        rows += [
            result("cam-crf", seed, "miou", 40 + seed),
            result("smvwe", seed, "miou", 60 + 2 * seed),
            result("smvwe", seed, "miou", 20, stage="words", background_score_source="none"),
            result("smvwe", seed, "miou", 10, stage="words"),
        ]
    rows.append(result("ablation-smvwe-mu-01", 0, "miou", 55))
    text = ",".join(COLUMNS) + "\n" + "".join(",".join(row.values()) + "\n" for row in rows)
    (tmp_path / "scenes.csv").write_text(text)

    def lines(view: str) -> list[str]:
        return table_named(f"scenes-{view}", tmp_path).strip().splitlines()[2:]

    assert lines("smvwe_parts") == [
        "| CAM | – | 40.5 ± 0.7 |  | 2 |",
        "| words and saliency (SMVWE) | – | 61.0 ± 1.4 | +20.5 ± 0.7 | 2 |",
    ]
    assert lines("words") == ["| words and saliency (SMVWE) | 20.0 ± 0.0 | 10.0 ± 0.0 | 2 |"]
    assert lines("smvwe_settings") == [
        "| as in scenes/smvwe |  | 61.0 ± 1.4 | 2 |",
        "| share of the background mu | 0.1 | 55.0 | 1 |",
    ]
