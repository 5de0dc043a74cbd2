from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from builder import AUTOMATIC, CAM, CLIMS
from html_check import Page

from wsss.activation.store import MapStore
from wsss.report.background_slider import STEPS, background_slider, map_sources
from wsss.report.chosen_score import background_choice, choice
from wsss.report.curves import choice_curves
from wsss.report.runs import Reported, read_reported

UNSCORED = replace(CLIMS, is_scored=False, has_segmentation=False)


def slider(reported: Reported, per_group: int = 2) -> Page:
    page = Page(background_slider(reported, per_group) or "")
    assert not page.problems
    return page


def with_class(page: Page, name: str) -> list[dict[str, str | None]]:
    return [attributes for _, attributes in page.tags if name in str(attributes.get("class")).split()]


def copied(folder: Path, to: Path) -> Path:
    shutil.copytree(folder.parent, to)
    return to / folder.name


def test_without_script_masks_are_there_and_nothing_pretends_to_work(runs: Any) -> None:
    page = slider(read_reported(runs(CAM, CLIMS)))
    [control] = with_class(page, "control")
    assert "hidden" in control
    assert all("disabled" in button for button in with_class(page, "jump"))
    layers = with_class(page, "layer")
    assert len(layers) == 2 * len(with_class(page, "example"))
    assert all(str(layer["src"]).startswith("data:image/png") for layer in layers)
    assert all(str(layer["alt"]).endswith(f"at background score {AUTOMATIC:.2f}") for layer in layers)
    assert "Moving the score needs a browser that runs the page's script" in page.words


def test_it_starts_at_the_chosen_score_and_can_be_reached_by_name(runs: Any) -> None:
    page = slider(read_reported(runs(CAM, CLIMS)))
    [control] = [attributes for tag, attributes in page.tags if tag == "input"]
    assert control["type"] == "range"
    assert control["aria-label"] == "Background score"
    assert [control[name] for name in ("min", "max", "step", "value")] == ["0.00", "0.99", "0.01", "0.45"]


def test_every_step_tells_the_miou_of_the_curve(runs: Any) -> None:
    reported = read_reported(runs(CAM, CLIMS))
    rows = with_class(slider(reported), "miou")
    assert len(rows) == 2
    for row, entry in zip(rows, reported.entries, strict=True):
        stage = entry.first.scored("maps")
        assert stage is not None
        assert stage.scores is not None
        curve = stage.scores["curve"]
        wanted = dict(zip(curve["background_scores"], curve["miou"], strict=True))
        assert str(row["data-miou"]).split() == [f"{100 * wanted[step]:.1f}" for step in STEPS]
        assert f"{100 * wanted[AUTOMATIC]:.1f}" in slider(reported).words


def test_chosen_scores_can_be_jumped_to(runs: Any) -> None:
    reported = read_reported(runs(CLIMS))
    values = [button["value"] for button in with_class(slider(reported), "jump")]
    oracle = reported.entries[0].scores("maps", "oracle")
    assert oracle is not None
    assert values == ["0.15", f"{AUTOMATIC:.2f}", f"{oracle['background_score']:.2f}"]


def test_without_true_masks_the_score_that_was_chosen_is_shown(runs: Any) -> None:
    reported = read_reported(runs(UNSCORED))
    assert background_choice(reported.entries[0]) == f"automatic {AUTOMATIC:.2f}"
    page = slider(reported)
    assert not with_class(page, "miou")
    assert [button["value"] for button in with_class(page, "jump")] == [f"{AUTOMATIC:.2f}"]
    assert "at even distances" in page.words
    curve = Page(choice_curves(reported) or "")
    assert f"CLIMS {AUTOMATIC:.2f}" in curve.words
    assert "over 12 images" in curve.words


def test_refined_maps_without_background_have_a_row_of_their_own(runs: Any) -> None:
    page = slider(read_reported(runs(replace(CLIMS, refiner="irn"))))
    assert len(with_class(page, "miou")) == 2
    assert "CLIMS map" in page.words
    assert "CLIMS refined (irn)" in page.words


def test_maps_that_recipes_share_come_once_and_every_recipe_is_there(
    runs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    [cam, clims] = read_reported(runs(replace(CAM, refiner="irn"), replace(CLIMS, refiner="irn"))).entries
    again = replace(cam, label="the same")
    labels = [source.label for source in map_sources((cam, again, clims))]
    assert labels == ["CAM map", "CAM refined (irn)", "CLIMS map", "CLIMS refined (irn)"]
    monkeypatch.setattr("wsss.report.background_slider.MOST_SOURCES", 3)
    labels = [source.label for source in map_sources((cam, clims))]
    assert labels == ["CAM refined (irn)", "CLIMS refined (irn)"]


def test_maps_with_a_background_of_their_own_have_no_slider(runs: Any, tmp_path: Path) -> None:
    folder = copied(*runs(UNSCORED), tmp_path / "copy")
    [maps] = (tmp_path / "copy" / "stages").glob("activate-*/maps")
    store = MapStore(maps)
    for image_id in store.ids():
        found = store.read(image_id)
        store.write(image_id, found.with_background(0.3), image_size=found.size)
    reported = read_reported([folder])
    assert map_sources(reported.entries) == ()
    assert background_slider(reported, 2) is None


def test_no_images_no_slider(runs: Any) -> None:
    reported = read_reported(runs(CLIMS))
    assert background_slider(reported, 0) is None
    assert background_slider(replace(reported, dataset=None), 2) is None


def test_maps_of_single_images_may_be_lost(runs: Any, tmp_path: Path) -> None:
    folder = copied(*runs(UNSCORED), tmp_path / "copy")
    [maps] = (tmp_path / "copy" / "stages").glob("activate-*/maps")
    for path in sorted(maps.glob("*.npz"))[1::2]:
        path.write_bytes(b"damaged")
    slider(read_reported([folder]))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("stage.json", '{"inputs": ["activate-other"]}'),
        ("stage.json", "broken"),
        ("chosen_score.json", "[]"),
        ("chosen_score.json", '{"value": null, "source": "none", "details": {}}'),
    ],
)
def test_choices_of_other_maps_and_broken_ones_do_not_count(
    runs: Any, tmp_path: Path, name: str, text: str
) -> None:
    folder = copied(*runs(UNSCORED), tmp_path / "copy")
    for path in (tmp_path / "copy" / "stages").glob(f"choose-score-*/{name}"):
        path.write_text(text)
    reported = read_reported([folder])
    [entry] = reported.entries
    maps = entry.first.stage("activate")
    assert maps is not None
    assert choice(entry.first, maps) is None
    assert background_choice(entry) == "–"
    assert choice_curves(reported) is None
    assert "0.15" in slider(reported).words


def test_another_splits_choice_does_not_count(runs: Any, tmp_path: Path) -> None:
    folder = copied(*runs(UNSCORED), tmp_path / "copy")
    for path in (tmp_path / "copy" / "stages").glob("choose-score-*/stage.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"settings": {"split": "val"}}))
    assert background_choice(read_reported([folder]).entries[0]) == "–"


def test_a_score_that_the_recipe_gives_is_told(runs: Any, tmp_path: Path) -> None:
    folder = copied(*runs(UNSCORED), tmp_path / "copy")
    [masks] = (tmp_path / "copy" / "stages").glob("pseudo-masks-*")
    (masks / "chosen_score.json").write_text('{"value": 0.3, "source": "fixed", "details": {}}')
    words = background_choice(read_reported([folder]).entries[0])
    assert words == f"automatic {AUTOMATIC:.2f}; given 0.30"
