from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from builder import CAM, CLIMS, FULL, Invented
from html_check import Page

from wsss.report.page import write_report
from wsss.report.runs import read_reported
from wsss.report.setting_curve import find_series, setting_curve

OMEGAS = (0.3, None, 0.9, 0.6)


def variant(number: int, **settings: Any) -> Invented:
    return Invented(
        recipe=f"scenes/variant-{number}",
        method="qa_clims",
        skill=0.3 + 0.1 * number,
        has_segmentation=False,
        settings={"mask_mode": "pixel", "tau": 0.7, "skips": False, "vqa": {"beams": 3}, **settings},
    )


SERIES = tuple(variant(number, omega=omega) for number, omega in enumerate(OMEGAS))


def changed(folder: Path, to: Path, **sections: Any) -> Path:
    """A copy of a run whose recipe has other sections."""
    shutil.copytree(folder.parent, to)
    path = to / folder.name / "run.json"
    record = json.loads(path.read_text())
    record["recipe"].update(sections)
    path.write_text(json.dumps(record))
    return path.parent


def series(folders: list[Path]) -> tuple[str, dict[float | None, str]] | None:
    found = find_series(read_reported(folders))
    return found and (found.setting, {value: entry.recipe_name for value, entry in found.entries.items()})


def test_the_setting_in_which_recipes_differ_is_found_and_ordered(runs: Any) -> None:
    assert series(runs(*SERIES)) == (
        "omega",
        {None: "scenes/variant-1", 0.3: "scenes/variant-0", 0.6: "scenes/variant-3", 0.9: "scenes/variant-2"},
    )


def test_the_largest_set_counts_and_others_stand_beside_it(runs: Any) -> None:
    temperatures = [variant(4 + number, omega=0.3, tau=0.1 * number) for number in range(1, 3)]
    found = series(runs(CAM, CLIMS, FULL, *SERIES, *temperatures))
    assert found is not None
    assert found[0] == "omega"
    assert len(found[1]) == 4
    found = series(runs(*SERIES[:2], *temperatures))
    assert found is not None
    assert found[0] == "tau"
    assert list(found[1]) == pytest.approx([0.1, 0.2, 0.7])


def test_settings_within_sections_have_names_with_dots(runs: Any) -> None:
    found = series(runs(*(variant(beams, omega=None, vqa={"beams": beams}) for beams in (3, 1, 2))))
    assert found is not None
    assert found[0] == "vqa.beams"
    assert list(found[1]) == [1, 2, 3]


@pytest.mark.parametrize(
    "settings",
    [
        [{"omega": 0.1}, {"omega": 0.2}],
        [{"omega": 0.1}, {"omega": 0.2}, {"omega": 0.2}],
        [{"omega": 0.1}, {"omega": 0.2}, {"omega": 0.3, "tau": 0.1}],
        [{"omega": 0.1}, {"omega": 0.2}, {"omega": 0.3, "mask_mode": "token"}],
        [{"mask_mode": "pixel"}, {"mask_mode": "token"}, {"mask_mode": "both"}],
        [{"skips": True}, {"skips": False}, {"skips": None}],
        [{"omega": float("inf")}, {"omega": float("nan")}, {"omega": 1.0}],
    ],
    ids=["two", "two values", "two settings", "a word too", "words", "yes and no", "no numbers"],
)
def test_fewer_than_three_values_of_one_number_make_no_curve(
    runs: Any, settings: list[dict[str, Any]]
) -> None:
    folders = runs(*(variant(number, **each) for number, each in enumerate(settings)))
    assert series(folders) is None
    assert setting_curve(read_reported(folders)) is None


def test_recipes_of_other_methods_or_trainings_don_t_belong_together(runs: Any, tmp_path: Path) -> None:
    folders = runs(*SERIES[:3])
    longer = changed(folders[0], tmp_path / "longer", training={"epochs": 9})
    assert series([longer, *folders[1:]]) is None
    no_masks_later = changed(folders[0], tmp_path / "later", segmentation={"network": "deeplab_v1"})
    found = series([no_masks_later, *folders[1:]])
    assert found is not None
    assert len(found[1]) == 3
    assert series(runs(replace(SERIES[0], method="clims"), *SERIES[1:3])) is None


def test_maps_that_were_not_scored_are_left_out(runs: Any) -> None:
    assert series(runs(*(replace(run, is_scored=False) for run in SERIES))) is None
    found = series(runs(replace(SERIES[0], is_scored=False), *SERIES[1:]))
    assert found is not None
    assert 0.3 not in found[1]


def test_the_figure_says_every_number_of_the_engine_and_loads_nothing(runs: Any, tmp_path: Path) -> None:
    folders = runs(*SERIES, *(replace(run, seed=1) for run in SERIES))
    reported = read_reported(folders)
    page = Page(write_report(folders, tmp_path).read_text(encoding="utf-8"))
    assert not page.problems
    assert not page.loads
    assert "Maps over omega, on train" in page.words
    assert "“off” stands for null." in page.words
    assert "one standard deviation" in page.words
    [told] = [
        label
        for _, attributes in page.tags
        if (label := attributes.get("aria-label") or "").startswith("mIoU of maps over omega.")
    ]
    for entry, omega in zip(reported.entries, OMEGAS, strict=True):
        for source in ("oracle", "automatic", "fixed"):
            row = reported.numbers.row(entry, "maps", "miou", source)
            assert row is not None
            word = "off" if omega is None else omega
            number = f"{row['mean']:.1f} ± {row['standard_deviation']:.1f}"
            assert f"{source}, omega {word} ({entry.label}): {number}" in told


def test_null_stands_apart_on_the_left_and_no_line_leads_there(runs: Any) -> None:
    drawn = setting_curve(read_reported(runs(*SERIES)))
    assert drawn is not None
    assert not Page(drawn).problems
    assert "one standard deviation" not in drawn
    ticks = re.findall(r'class="xtick" style="left:([\d.]+)%"[^>]*>([^<]+)<', drawn)
    assert [words for _, words in ticks] == ["off", "0.3", "0.6", "0.9"]
    places = [float(place) for place, _ in ticks]
    assert places == sorted(places)
    moves = re.findall(r'd="M([^"]+)" class="line', drawn)
    assert len(moves) == 3
    for move in moves:
        xs = [float(point.split()[0]) for point in move.split("L")]
        assert xs == pytest.approx(places[1:], abs=0.01)
    assert drawn.count('class="mark ') == 3 * 4


def test_close_values_don_t_write_over_each_other(runs: Any) -> None:
    weights = (0.0, 0.01, 0.1, 1.0, 10.0)
    drawn = setting_curve(read_reported(runs(*(variant(n, omega=w) for n, w in enumerate(weights)))))
    assert drawn is not None
    assert re.findall(r'class="xtick"[^>]*>([^<]+)<', drawn) == ["0", "1", "10"]


def test_names_of_settings_and_recipes_are_never_markup(runs: Any, tmp_path: Path) -> None:
    folders = [
        changed(folder, tmp_path / str(number), method={"name": "qa_clims", "<b>&": number})
        for number, folder in enumerate(runs(*SERIES[:3]))
    ]
    drawn = setting_curve(read_reported(folders))
    assert drawn is not None
    page = Page(drawn)
    assert not page.problems
    assert "Maps over <b>&, on train" in page.words
    assert "b" not in {tag for tag, _ in page.tags}
