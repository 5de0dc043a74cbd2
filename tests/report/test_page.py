from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from builder import CAM, CLIMS, FULL
from html_check import Page

from wsss.engine.compare import compare_runs
from wsss.errors import RecipeError, StageError
from wsss.report import page as report_page
from wsss.report.page import MAX_BYTES, write_report


@pytest.fixture(scope="module")
def full_report(runs: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("full")
    return write_report(runs(CAM, CLIMS, FULL), out).read_text(encoding="utf-8")


def report(folders: list[Path], out: Path, **options: Any) -> Page:
    path = write_report(folders, out, **options)
    assert path == out / "index.html"
    assert [file.name for file in out.iterdir()] == ["index.html"]
    page = Page(path.read_text(encoding="utf-8"))
    assert not page.problems
    assert not page.loads
    return page


def test_the_page_is_whole_and_loads_nothing(full_report: str) -> None:
    page = Page(full_report)
    assert page.problems == []
    assert page.loads == []
    assert not re.search(
        r"https?:|//cdn|@import|url\(", re.sub(r"data:[\w/]+;base64,[\w+/=]+", "", full_report)
    )
    assert {"link", "iframe", "object"}.isdisjoint(tag for tag, _ in page.tags)
    assert [attributes for tag, attributes in page.tags if tag == "script"] == [{}]
    assert len(full_report.encode()) < MAX_BYTES


def test_it_can_be_read_by_everyone(full_report: str) -> None:
    page = Page(full_report)
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert images
    assert all(image.get("alt") and image.get("width") and image.get("height") for image in images)
    assert ("html", {"lang": "en"}) in page.tags
    assert any(attributes.get("name") == "viewport" for tag, attributes in page.tags if tag == "meta")
    assert [tag for tag, _ in page.tags].count("h1") == 1
    assert all("aria-label" in attributes for _, attributes in page.tags if attributes.get("role") == "img")
    assert "prefers-color-scheme: dark" in full_report
    scrolling = [attributes for _, attributes in page.tags if attributes.get("class") == "scroll"]
    assert [tag for tag, _ in page.tags].count("table") == len(scrolling)
    assert all(attributes["tabindex"] == "0" for attributes in scrolling)


def test_every_number_says_who_chose_its_background_score(full_report: str) -> None:
    page = Page(full_report)
    cells = [
        a for tag, a in page.tags if tag == "td" and (a.get("title") or "").startswith(("CAM:", "CLIMS:"))
    ]
    assert len(cells) == 2 * 5
    for title in (str(cell["title"]) for cell in cells):
        assert re.search(r"background score 0\.\d\d, (fixed|automatic|oracle): ", title)
        for word in (
            "split ",
            "supervision I",
            "scales 1 0.5",
            "flip yes",
            "CRF no",
            "seeds 0",
            "commit 0123456789ab",
        ):
            assert word in title or "Segmentation" in title
    for words in (
        "fixed : constant",
        "automatic : chosen without any mask",
        "oracle : best on the true masks",
    ):
        assert words in page.words
    assert "Pseudo masks never use the oracle" in page.words
    assert "teacher abababab" in page.words


def test_it_gives_the_engines_numbers_and_no_others(full_report: str, runs: Any) -> None:
    page = Page(full_report)
    comparison = compare_runs(runs(CAM, CLIMS, FULL))
    shown = {
        row.metric: row
        for row in comparison.rows
        if row.recipe == "scenes/clims" and row.stage == "segmentation"
    }
    assert f"{shown['miou'].mean:.1f}" in page.words
    assert f"{shown['weak_to_full'].mean / 100:.2f}" in page.words
    for gain in comparison.gains:
        if gain.recipe == "scenes/clims":
            assert f"{gain.mean:+.1f}".replace("-", "−") in page.words


def test_it_shows_all_parts(full_report: str) -> None:
    words = Page(full_report).words
    for part in (
        *("How to read this.", "Number passports", "Weak ÷ full", "What was run", "complete recipe"),
        *("Largest gain of CLIMS over CAM", "Best of CLIMS", "Median of CLIMS", "Worst of CLIMS"),
        *("CAM map", "CAM pseudo mask", "CLIMS map", "CLIMS pseudo mask", "CLIMS prediction"),
        *("fully supervised prediction", "truth", "IoU per class", "What is missed and what is false"),
        *("Try a background score", "How the automatic score was chosen", "Confusion", "Between objects"),
        *("OTM", "REG", "commit 0123456789ab", "2 CPU cores", "mIoU, per cent"),
    ):
        assert part in words, part


def test_the_browser_is_told_to_run_the_pages_own_script_alone(full_report: str) -> None:
    [policy] = [a["content"] for _, a in Page(full_report).tags if "http-equiv" in a]
    script = full_report.partition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in str(policy)
    assert str(policy).startswith("default-src 'none'; img-src data:;")


def test_a_single_run_makes_a_page(runs: Any, tmp_path: Path) -> None:
    page = report(runs(CLIMS), tmp_path, title="Only <one>")
    assert "Only <one>" in page.words
    assert "trained from image tags alone" in page.words
    assert "Largest gain" not in page.words


def test_a_method_beside_true_masks_keeps_the_headline(runs: Any, tmp_path: Path) -> None:
    page = report(runs(CLIMS, FULL), tmp_path)
    assert "CLIMS, trained from image tags alone" in page.words
    assert "Best of CLIMS" in page.words
    assert "The small interval" not in page.words


def test_seeds_give_mean_and_spread(runs: Any, tmp_path: Path) -> None:
    folders = runs(CAM, replace(CAM, seed=1), CLIMS, replace(CLIMS, seed=1))
    page = report(folders, tmp_path, comparison=compare_runs(folders).to_dict())
    assert "seeds 0, 1" in page.words
    assert "mean ± standard deviation over seeds" in page.words
    assert re.search(r"\d\d\.\d ± \d\.\d", page.words)
    assert "Mean of 2 seeds" in page.words


def test_unequal_runs_still_show_gains_and_losses(runs: Any, tmp_path: Path) -> None:
    """A baseline that stopped after its maps, and has one more seed."""
    folders = runs(CAM, replace(CAM, seed=1), CLIMS)
    shutil.copytree(folders[0].parent, tmp_path / "copy")
    short = tmp_path / "copy" / folders[0].name
    record = json.loads((short / "run.json").read_text())
    record["stages"] = [stage for stage in record["stages"] if stage["name"] in ("train-method", "activate")]
    (short / "run.json").write_text(json.dumps(record))
    page = report([short, *folders[1:]], tmp_path / "out")
    assert "Largest gain of CLIMS over CAM" in page.words
    assert "The difference is that of seed 0, which both have." in page.words


@pytest.mark.parametrize(
    "changes",
    [
        {"has_segmentation": False},
        {"refiner": "irn"},
        {"is_scored": False},
        {"is_scored": False, "has_segmentation": False},
    ],
    ids=["no segmentation", "a refiner", "no true masks", "maps only, no masks"],
)
def test_missing_parts_leave_a_sensible_page(runs: Any, tmp_path: Path, changes: dict[str, Any]) -> None:
    page = report(runs(replace(CAM, **changes), replace(CLIMS, **changes)), tmp_path)
    assert "CLIMS map" in page.words
    assert ("Refined (irn)" in page.words) == ("refiner" in changes)
    assert ("CLIMS refined (irn)" in page.words) == ("refiner" in changes)
    assert ("CLIMS prediction" in page.words) == changes.get("has_segmentation", True)
    if not changes.get("is_scored", True):
        assert "Nothing could be scored" in page.words
        assert "Examples" in page.words


def test_a_run_that_stopped_before_its_maps_makes_a_page(runs: Any, tmp_path: Path) -> None:
    page = report(runs(replace(CLIMS, has_maps=False, has_segmentation=False)), tmp_path)
    assert "Nothing could be scored" in page.words
    assert "What was run" in page.words


def copied(folder: Path, to: Path) -> Path:
    shutil.copytree(folder.parent, to)
    return to / folder.name


def test_an_unfinished_run_is_refused_by_name(runs: Any, tmp_path: Path) -> None:
    folder = copied(*runs(CAM), tmp_path / "copy")
    (folder / "run.json").unlink()
    with pytest.raises(StageError, match="holds no finished run"):
        write_report([*runs(CLIMS), folder], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_no_runs_at_all_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="`run_folders` is empty"):
        write_report([], tmp_path)


def test_runs_of_other_data_are_refused(runs: Any, tmp_path: Path) -> None:
    folder = copied(*runs(CAM), tmp_path / "copy")
    record = json.loads((folder / "run.json").read_text())
    record["data"]["data_version"] = "another"
    (folder / "run.json").write_text(json.dumps(record))
    with pytest.raises(RecipeError, match="can't be compared"):
        write_report([*runs(CLIMS), folder], tmp_path / "out")


def test_lost_data_cost_the_pictures_only(runs: Any, tmp_path: Path) -> None:
    folder = copied(*runs(CAM), tmp_path / "copy")
    record = json.loads((folder / "run.json").read_text())
    record["data_root"] = "../nowhere"
    (folder / "run.json").write_text(json.dumps(record))
    page = report([folder], tmp_path / "out")
    assert "The images can't be shown" in page.words
    assert "IoU per class" in page.words


def test_lost_maps_and_masks_leave_empty_places(runs: Any, tmp_path: Path) -> None:
    first = copied(*runs(CAM), tmp_path / "copy")
    for path in (tmp_path / "copy" / "stages").glob("*/pseudo_masks/*.png"):
        path.write_bytes(b"damaged")
    for path in (tmp_path / "copy" / "stages").glob("activate-*/maps/*.npz"):
        path.unlink()
    page = report([first, *runs(CLIMS)], tmp_path / "out")
    assert "missing CAM map" in page.words
    assert "missing CAM pseudo mask" in page.words


def test_a_page_that_would_be_too_large_shows_fewer_images(
    runs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = runs(CAM, CLIMS)
    large = write_report(folders, tmp_path / "large").stat().st_size
    monkeypatch.setattr(report_page, "MAX_BYTES", large // 2)
    small = write_report(folders, tmp_path / "small")
    assert small.stat().st_size <= large // 2
    assert Page(small.read_text(encoding="utf-8")).problems == []


def test_class_names_and_titles_can_hold_anything(runs: Any, tmp_path: Path) -> None:
    nasty = "<img src=x onerror=alert(1)>"
    folder = copied(*runs(replace(CLIMS, about={"title": nasty, "notes": nasty})), tmp_path / "copy")
    text = (folder / "run.json").read_text().replace('"aeroplane"', json.dumps(nasty))
    (folder / "run.json").write_text(text)
    for path in (tmp_path / "copy" / "stages").glob("*/scores.json"):
        path.write_text(path.read_text().replace("aeroplane", nasty))
    page = report([folder], tmp_path / "out", title=nasty)
    assert nasty in page.words


def test_the_papers_numbers_stand_beside_their_own_data_only(runs: Any, tmp_path: Path) -> None:
    about = {"paper_values": {"maps.oracle.miou": 56.6}}
    folder = copied(*runs(replace(CLIMS, about=about)), tmp_path / "copy")
    assert "56.6" not in report([folder], tmp_path / "scenes").words
    record = json.loads((folder / "run.json").read_text())
    record["dataset_config"] = {"kind": "voc", "root": "nowhere"}
    (folder / "run.json").write_text(json.dumps(record))
    assert "paper, VOC 2012 train: 56.6" in report([folder], tmp_path / "voc").words


def test_recipes_of_one_method_are_told_apart(runs: Any, tmp_path: Path) -> None:
    other = replace(CLIMS, recipe="scenes/ablation-otm", skill=0.5)
    page = report(runs(other, CLIMS), tmp_path)
    assert "Largest gain of CLIMS over OTM" in page.words


def test_many_recipes_still_fit(runs: Any, tmp_path: Path) -> None:
    many = [
        replace(CLIMS, recipe=f"scenes/variant-{n}", skill=0.3 + 0.1 * n, has_segmentation=False)
        for n in range(6)
    ]
    page = report(runs(*many), tmp_path)
    assert "variant-5 − variant-0" in page.words
    captions = re.findall(r"(variant-\d) map", page.words)
    assert set(captions) == {"variant-0", "variant-3", "variant-4", "variant-5"}
