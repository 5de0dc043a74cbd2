from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builder import CAM, CLIMS
from html_check import Page

from wsss.engine.compare import compare_runs
from wsss.engine.papers import find_exhibits, recipes_of
from wsss.report.images import pointed_picture
from wsss.report.page import write_report

SHOWN = {  # enough of each exhibit's recipes
    "clims-table3": ("scenes/ablation-otm", "scenes/ablation-otm-btm"),
    "clims-figure4": ("scenes/ablation-otm", "scenes/ablation-otm-btm", "scenes/clims-psa-crf"),
    "clims-figure5": ("scenes/ablation-clims-otm-070", "scenes/clims", "scenes/ablation-clims-reg-130"),
    "qa_clims-figure4": ("scenes/clims", "scenes/qa_clims"),
    "clims-figure6": ("scenes/cam", "scenes/clims"),
}


def runs_of(runs: Any, name: str, seeds: tuple[int, ...] = (0,)) -> list[Path]:
    """Invented runs of an exhibit's recipes."""
    invented = []
    for place, recipe in enumerate(SHOWN[name]):
        assert recipe in recipes_of(find_exhibits(name))
        like = CAM if recipe.endswith("/cam") else CLIMS
        skill = 0.4 + 0.2 * place
        refiner = "psa" if "psa" in recipe else ""
        run = replace(like, recipe=recipe, skill=skill, refiner=refiner, has_segmentation=False)
        invented += [replace(run, seed=seed) for seed in seeds]
    return runs(*invented)


def page(runs: Any, out: Path, name: str, point_files: tuple[Path, ...] = (), **options: Any) -> Page:
    folders = runs_of(runs, name, **options)
    path = write_report(folders, out, exhibits=find_exhibits(name), point_files=point_files)
    read = Page(path.read_text(encoding="utf-8"))
    assert not read.problems
    assert not read.loads
    return read


def test_a_table_stands_first_with_own_numbers_and_the_papers_apart(runs: Any, tmp_path: Path) -> None:
    found = page(runs, tmp_path, "clims-table3", seeds=(0, 1))
    words = found.words
    assert found.ids.index("papers") < found.ids.index("scores")
    assert "classes" not in found.ids
    assert "CLIMS (Xie et al., CVPR 2022), Table 3: Losses" in words
    assert "paper, VOC 2012 train" in words
    [row] = [
        row
        for row in compare_runs(runs_of(runs, "clims-table3", seeds=(0, 1))).rows
        if (row.recipe, row.stage, row.metric, row.background_score_source)
        == ("scenes/ablation-otm", "maps", "miou", "oracle")
    ]
    assert f"OTM {row.mean:.1f} ± {row.standard_deviation:.1f}" in words
    assert "OTM + BTM − OTM: +4.1 in the paper" in words


def test_curves_are_drawn_on_one_scale_with_their_numbers(runs: Any, tmp_path: Path) -> None:
    found = page(runs, tmp_path, "clims-figure5")
    drawn = [
        attributes["aria-label"] or ""
        for tag, attributes in found.tags
        if tag == "div"
        and attributes.get("class") == "plot small"
        and "times" in (attributes["aria-label"] or "")
    ]
    numbers = {
        row.recipe: row.mean
        for row in compare_runs(runs_of(runs, "clims-figure5")).rows
        if (row.stage, row.metric, row.background_score_source) == ("maps", "miou", "oracle")
    }
    told = "times the recipe's weight"
    weight, full, area = (numbers[recipe] for recipe in SHOWN["clims-figure5"])
    assert drawn == [
        f"OTM, {told} 0.7: {weight:.1f}; OTM, {told} 1: {full:.1f}",
        f"REG, {told} 1: {full:.1f}; REG, {told} 1.3: {area:.1f}",
    ]


def test_the_same_images_are_shown_for_every_loss(runs: Any, tmp_path: Path, tiny_scenes: Any) -> None:
    found = page(runs, tmp_path, "clims-figure4")
    alone = {}
    for image_id in tiny_scenes.ids("train"):
        labels = tiny_scenes.image_labels(image_id)
        if labels.sum() == 1:
            alone.setdefault(int(np.flatnonzero(labels)[0]), image_id)
    assert alone
    section = found.words.partition("The same images with one loss")[2].partition("Scores")[0]
    for image_id in alone.values():
        assert image_id in section
    captions = ("OTM map", "OTM + BTM map", "all four refined (psa)")
    for caption in captions:
        assert section.count(f" {caption} ") >= len(alone), caption


def test_classes_have_bars_and_a_gain(runs: Any, tmp_path: Path) -> None:
    found = page(runs, tmp_path, "qa_clims-figure4")
    rows = {
        (row.recipe, row.metric): row.mean
        for row in compare_runs(runs_of(runs, "qa_clims-figure4")).rows
        if (row.stage, row.background_score_source) == ("maps", "oracle")
    }
    first, last = rows["scenes/clims", "iou:cat"], rows["scenes/qa_clims", "iou:cat"]
    assert f"QA-CLIMS {last:.1f} {last - first:+.1f}".replace("-", "−").replace("QA−", "QA-") in found.words


def test_points_are_drawn_with_every_cosine(runs: Any, tmp_path: Path, tiny_scenes: Any) -> None:
    image_id, names = tiny_scenes.ids("train")[0], list(tiny_scenes.class_names[1:])
    cosines = [[round((k + place) / 40, 4) for place in range(4)] for k in range(len(names))]
    files = []
    for recipe in ("scenes/cam", "scenes/clims"):
        image = {"image_id": image_id, "class_name": names[2], "points": [[1, 2], [3, 4], [5, 6], [60, 63]]}
        document = {
            "recipe": recipe,
            "seed": 0,
            "class_names": names,
            "images": [{**image, "cosines": cosines}],
        }
        means = {"of_object": 0.5, "of_other_classes": 0.25, "of_background": 0.125}
        path = tmp_path / f"{recipe.replace('/', '-')}.json"
        path.write_text(json.dumps({**document, "means": means}))
        files.append(path)
    found = page(runs, tmp_path / "out", "clims-figure6", tuple(files))
    titles = [attributes.get("title") for tag, attributes in found.tags if tag == "td"]
    for k, name in enumerate(names):
        for place in range(4):
            assert titles.count(f"{name}, point {place}: {cosines[k][place]:.2f}") == 2
    assert "CLIMS 50.0 25.0 12.5" in found.words


def test_a_marked_picture_has_its_colours_where_the_points_are():
    image = np.full((40, 60, 3), 100, np.uint8)
    shown = pointed_picture(image, [(10, 20), (0, 59)], [(1, 2, 3), (4, 5, 6)])
    assert shown.shape == (80, 120, 3)  # small pictures are doubled
    assert shown[21, 41].tolist() == [1, 2, 3]
    assert shown[21, 41 + 3].tolist() == [0, 0, 0]  # its frame
    assert shown[1, 119].tolist() == [4, 5, 6]
    assert shown[60, 60].tolist() == [100, 100, 100]


def test_missing_numbers_are_said(runs: Any, tmp_path: Path) -> None:
    folders = runs(CAM, CLIMS)
    path = write_report(folders, tmp_path, exhibits=find_exhibits("clims-figure5"))
    assert "No numbers yet." in Page(path.read_text(encoding="utf-8")).words


@pytest.mark.parametrize("name", ["clims-table3"])
def test_pages_without_exhibits_are_as_before(runs: Any, tmp_path: Path, name: str) -> None:
    path = write_report(runs_of(runs, name), tmp_path)
    assert "Tables and figures of the papers" not in Page(path.read_text(encoding="utf-8")).words
