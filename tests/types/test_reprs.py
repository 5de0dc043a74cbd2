"""What notebooks show of the values that travel through the library: one line, and never an array."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tiny_recipe import made_up_run
from wsss.activation.store import MapStore
from wsss.data import WithoutMasks
from wsss.engine.compare import compare_runs
from wsss.engine.run import RunResult, read_run, read_scores
from wsss.types import ActivationMaps, Batch, Sample


def maps(**options: Any) -> ActivationMaps:
    scores = torch.zeros(2, 30, 40)
    scores[0, 3, 3], scores[1, 0, 0] = 0.875, 0.25
    return ActivationMaps(torch.tensor([2, 5]), scores, **options)


def sample(mask: Any = None) -> Sample:
    return Sample("north/a", np.zeros((30, 40, 3), np.uint8), np.array([False, True, True]), mask)


def batch() -> Batch:
    images, labels = torch.zeros(4, 3, 30, 40), torch.zeros(4, 7, dtype=torch.bool)
    valid, saliency = torch.ones(4, 30, 40, dtype=torch.bool), torch.zeros(4, 30, 40)
    return Batch(images, labels, ("a", "b", "c", "d"), valid, {"saliency": saliency})


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (sample(), "Sample('north/a', 30 x 40 pixels, classes [2, 3] of 3, no mask)"),
        (
            sample(np.zeros((30, 40), np.uint8)),
            "Sample('north/a', 30 x 40 pixels, classes [2, 3] of 3, with mask)",
        ),
        (batch(), "Batch(4 images of 30 x 40 pixels, 7 classes, saliency, cpu)"),
        (maps(), "ActivationMaps(classes [2, 5], 30 x 40, scores 0.00 to 0.88, background unknown, cpu)"),
        (
            maps(background=torch.full((30, 40), 0.25)),
            "ActivationMaps(classes [2, 5], 30 x 40, scores 0.00 to 0.88, background 0.25, cpu)",
        ),
        (
            ActivationMaps(torch.zeros(0, dtype=torch.int64), torch.zeros(0, 3, 4)),
            "ActivationMaps(classes [], 3 x 4, scores none, background unknown, cpu)",
        ),
    ],
)
def test_a_value_says_in_one_line_what_it_holds(value: Any, text: str) -> None:
    assert repr(value) == text


def test_a_store_and_a_data_set_say_how_much_they_hold(tmp_path: Path, tiny_scenes: Any) -> None:
    store = MapStore(tmp_path / "maps")
    assert repr(store).endswith("maps', 0 images)")
    store.write("a/b", maps(), image_size=(30, 40))
    assert repr(store).endswith("maps', 1 images)")
    splits = "splits all, train, trainval, val; masks"
    text = f"ScenesDataset('scenes', 8 classes: aeroplane, bird, boat, …; {splits})"
    assert repr(tiny_scenes) == text
    assert repr(WithoutMasks(tiny_scenes)) == f"WithoutMasks({text})"


def confusion(hits: int) -> list[list[int]]:
    return [[hits, 10 - hits], [10 - hits, hits]]


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """cam & co. with seeds 0 and 1: IoU is hits / (20 - hits) for both classes."""
    made = []
    for recipe, hits in (("cam", (5, 6)), ("<b>", (8, 8))):
        for seed in (0, 1):
            entries = {"automatic": [confusion(hits[seed])], "oracle": [confusion(9)]}
            made.append(made_up_run(tmp_path, recipe, seed, {"maps": entries}))
    return made


def test_a_comparison_shows_its_means_and_escapes_names(runs: list[Path]) -> None:
    compared = compare_runs(runs)
    means = (100 * (5 / 15 + 6 / 14) / 2, 100 * 8 / 12)
    assert f"cam {means[0]:.1f} ± 6.7, <b> {means[1]:.1f} ± 0.0" in repr(compared)
    assert repr(compared).startswith("Comparison(2 recipes, 4 runs; mIoU % of maps: ")
    assert "oracle" not in repr(compared)
    page = compared._repr_html_()
    assert "<b>" not in page
    assert "&lt;b&gt;" in page
    assert page.count("<tr>") == 1 + 2 * 2  # head, recipes x sources


def test_a_run_shows_its_scores(runs: list[Path]) -> None:
    scores = {stage["score_stage"]: read_scores(runs[0], stage) for stage in read_run(runs[0])["stages"]}
    result = RunResult(runs[0], scores)
    assert repr(result).endswith("mIoU %: maps 33.3 (automatic), maps 81.8 (oracle))")
    assert next(iter(result.miou())) == ("maps", "automatic", pytest.approx(100 / 3))
    assert "<td>automatic</td><td>33.3</td>" in result._repr_html_()
    assert repr(RunResult(runs[0], {})).endswith("not scored)")
