from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from builder import CAM, CLIMS, FULL
from html_check import Page

from wsss.report.confusion_matrix import Confused, confusion_matrices
from wsss.report.runs import read_reported

NAMES = ("background", "cat", "dog", "<b>owl")
COUNTS = [[900, 60, 40, 0], [50, 40, 10, 0], [1, 299, 700, 0], [0, 0, 0, 0]]


def confused() -> Confused:
    found = Confused.of("CAM", {"confusion": COUNTS}, NAMES)
    assert found is not None
    return found


def test_shares_are_of_the_true_pixels_of_each_row() -> None:
    shares = confused().shares
    for row, counts in enumerate(COUNTS):
        for column, count in enumerate(counts):
            if sum(counts):
                assert shares[row, column] == count / sum(counts)
            else:
                assert np.isnan(shares[row, column])


def test_the_largest_mistakes_come_first_and_hits_never() -> None:
    assert confused().largest(3) == [
        ("cat", "background", 0.5),
        ("dog", "cat", 0.299),
        ("cat", "dog", 0.1),
    ]
    assert confused().largest(9, first=1) == [("dog", "cat", 0.299), ("cat", "dog", 0.1)]
    assert len(confused().largest(99)) == 5  # 0.1% is too small to be told


def test_scores_without_a_fitting_confusion_are_passed_over() -> None:
    for confusion in (None, [], [[1, 2], [3, 4]]):
        assert Confused.of("CAM", {"confusion": confusion}, NAMES) is None


def cells(page: Page, found: str) -> dict[str, str]:
    """Cells by their title."""
    return {str(a["title"]): str(a.get("style")) for tag, a in page.tags if tag == "td" and found in str(a)}


def test_the_page_shows_what_scoring_counted(runs: Any) -> None:
    folders = runs(CAM, CLIMS, FULL)
    reported = read_reported(folders)
    shown = Page(confusion_matrices(reported) or "")
    assert not shown.problems
    assert "CLIMS, maps on train, automatic background score" in shown.words
    assert "CLIMS, segmentation on val" in shown.words
    assert [tag for tag, _ in shown.tags].count("details") == 3  # CAM twice, true masks once
    scored = reported.entries[1].scores("maps", "automatic")
    assert scored is not None
    counts, names = np.array(scored["confusion"]), reported.class_names
    titles = cells(shown, "found as")
    for row, column in zip(*np.nonzero(counts), strict=True):
        share = 100 * counts[row, column] / counts[row].sum()
        assert f"{share:.1f}% of {names[row]} found as {names[column]}" in titles
    assert [tag for tag, _ in shown.tags].count("table") == [a.get("class") for _, a in shown.tags].count(
        "scroll"
    )


def test_many_classes_are_a_list_of_mistakes(runs: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("wsss.report.confusion_matrix.MOST_CLASSES", 3)
    reported = read_reported(runs(CLIMS))
    words = Page(confusion_matrices(reported) or "").words
    assert "Largest mistakes: CLIMS, maps on train" in words
    assert "found as" in words


def test_nothing_is_shown_where_nothing_was_scored(runs: Any) -> None:
    assert confusion_matrices(read_reported(runs(replace(CLIMS, is_scored=False)))) is None


def test_scores_of_older_releases_do_no_harm(runs: Any, tmp_path: Path) -> None:
    import shutil

    [folder] = runs(CLIMS)
    shutil.copytree(folder.parent, tmp_path / "copy")
    for path in (tmp_path / "copy" / "stages").glob("*/scores.json"):
        document = json.loads(path.read_text())
        for entry in document["entries"]:
            del entry["confusion"]
        path.write_text(json.dumps(document))
    assert confusion_matrices(read_reported([tmp_path / "copy" / folder.name])) is None
