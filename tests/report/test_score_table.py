from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from builder import CAM, CLIMS, FULL
from html_check import Page

from wsss.engine.compare import compare_runs
from wsss.errors import RecipeError
from wsss.report.page import write_report
from wsss.report.passports import short_weights
from wsss.report.runs import read_reported
from wsss.report.score_table import score_table


def test_rows_are_grouped_by_what_recipes_learned_from(runs: Any) -> None:
    smvwe = replace(CAM, recipe="scenes/smvwe", method="smvwe")
    table = score_table(read_reported(runs(FULL, CLIMS, smvwe)))
    assert not Page(table).problems
    body = table.partition("<tbody>")[2].partition("</tbody>")[0]
    heads = re.findall(r'<th colspan="(\d+)" scope="rowgroup" class="group">([^<]+)</th>', body)
    assert [words for _, words in heads] == [
        *("I: image tags", "I+L: image tags and a language teacher", "F: true masks")
    ]
    columns = len(re.findall(r"<t[dh]", body.partition("</tr>")[2].partition("</tr>")[0]))
    assert {int(count) for count, _ in heads} == {columns}
    places = [body.index(f">{name}<") for name in ("SMVWE", "CLIMS", "fully supervised")]
    assert places == sorted(places)


def test_recipes_of_one_supervision_need_no_heads(runs: Any) -> None:
    assert "rowgroup" not in score_table(read_reported(runs(CLIMS, replace(CLIMS, seed=1))))


def changed(folder: Path, to: Path, change: Callable[[Any], None]) -> Path:
    """A copy of a run with another record."""
    shutil.copytree(folder.parent, to)
    copied = to / folder.name
    record = json.loads((copied / "run.json").read_text())
    change(record)
    (copied / "run.json").write_text(json.dumps(record))
    return copied


@pytest.fixture
def mixed(runs: Any, tmp_path: Path) -> list[Path]:
    """Two runs whose maps were tested with and without the mirrored image."""
    first, second = runs(CAM, CLIMS)

    def without_flip(record: Any) -> None:
        record["recipe"]["activation"]["flip"] = False

    return [first, changed(second, tmp_path / "copy", without_flip)]


def test_mixed_protocols_are_marked_above_the_numbers(mixed: list[Path], tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="their `flip of maps` differ"):
        write_report(mixed, tmp_path / "out")
    comparison = compare_runs(mixed, mix_protocols=True).to_dict()
    text = write_report(mixed, tmp_path / "out", comparison=comparison).read_text(encoding="utf-8")
    page = Page(text)
    assert not page.problems
    assert "flip of maps: yes (scenes-cam-seed0), no (scenes-clims-seed0)" in page.words
    assert text.index("not measured alike") < text.index('class="scores"')


def test_runs_of_other_splits_make_a_page_too(runs: Any, tmp_path: Path) -> None:
    first, second = runs(CAM, CLIMS)

    def of_train(record: Any) -> None:
        record["data"]["val_split"] = "train"
        for stage in record["stages"]:
            stage["split"] = stage["split"] and "train"

    folders = [first, changed(second, tmp_path / "copy", of_train)]
    comparison = compare_runs(folders, mix_protocols=True).to_dict()
    page = Page(write_report(folders, tmp_path / "out", comparison=comparison).read_text(encoding="utf-8"))
    assert not page.problems
    assert "val_split: val (scenes-cam-seed0), train (scenes-clims-seed0)" in page.words


@pytest.mark.parametrize(
    ("kind", "said"),
    [("voc", "paper, VOC 2012 train: 56.6"), ("coco", "paper, COCO 2014 train: 56.6"), ("scenes", None)],
)
def test_the_papers_number_stands_beside_the_same_data_only(
    runs: Any, tmp_path: Path, kind: str, said: str | None
) -> None:
    [run] = runs(CLIMS)

    def of_kind(record: Any) -> None:
        record["dataset_config"]["kind"] = kind
        record["recipe"]["about"]["paper_values"] = {"maps.oracle.miou": 56.6}

    table = score_table(read_reported([changed(run, tmp_path / "copy", of_kind)]))
    found = re.findall(r'<small class="paper">([^<]+)</small>', table)
    assert found == ([said] if said else [])


def test_runs_that_were_measured_alike_are_not_marked(runs: Any) -> None:
    assert "not measured alike" not in score_table(read_reported(runs(CAM, CLIMS, FULL)))


def test_passports_show_images_and_crf(runs: Any, tmp_path: Path) -> None:
    page = Page(write_report(runs(replace(CAM, refiner="irn")), tmp_path).read_text(encoding="utf-8"))
    titles = [
        str(a["title"]) for tag, a in page.tags if tag == "td" and str(a.get("title")).startswith("CAM:")
    ]
    assert any("Refined (irn)" in title and "CRF yes" in title for title in titles)
    assert all(re.search(r"split \w+ of scenes \(.+\), (12|6) images", title) for title in titles)


def test_weights_are_told_by_role_and_first_digits() -> None:
    assert short_weights("tag classifier:0123456789 vqa:abcdefabcdef") == (
        "tag classifier 01234567, vqa abcdefab"
    )
    assert short_weights({"saliency maps": "0123456789"}) == "saliency maps 01234567"
    assert short_weights("") == short_weights({}) == "none"
