"""The examples run as their texts say, and do what they say."""

from __future__ import annotations

import ast
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from wsss.data.masks_png import read_mask
from wsss.engine.run import read_run
from wsss.training.journal import read_journal

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
NUMBERED = sorted(EXAMPLES.glob("[0-9]*.py"))
SHORT = "training={steps: 2, batch_size: 2, augmentation: {crop_size: 64}}"
SMALL = (
    *("data.train=12", "data.val=6", "data.size=64", "activation.scales=[1.0]"),
    *(SHORT, f"segmentation.{SHORT}"),
)


def example(name: str) -> dict[str, Any]:
    """What a numbered example defines."""
    (path,) = EXAMPLES.glob(f"{name}_*.py")
    return runpy.run_path(str(path))


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_examples_are_short_and_may_be_imported_by_spawned_processes(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 80
    body = ast.parse(text).body
    calls = [node for node in body if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)]
    assert not calls, "work at import time"
    assert (path in NUMBERED) == ('if __name__ == "__main__":' in text)


@pytest.mark.slow
def test_the_quickstart_goes_from_a_recipe_to_a_mask(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = example("01")["main"](tmp_path, changes=SMALL, clims_changes=(f"initialise.{SHORT}",))
    assert made["page"].stat().st_size > 10_000
    assert made["mask"].shape == (64, 64)
    assert {"maps", "pseudo_masks", "segmentation"} <= set(made["results"][1].scores)
    assert [gain.stage for gain in made["comparison"].gains if gain.stage == "segmentation"]
    printed = capsys.readouterr().out
    assert "mIoU %" in printed
    assert len(printed) < 4000, "a repr dumps its contents"


@pytest.mark.slow
def test_one_image_is_followed_to_its_mask(tmp_path: Path) -> None:
    made = example("02")["main"](tmp_path, changes=SMALL)
    sample, maps, refined = made["sample"], made["maps"], made["refined"]
    assert (maps.class_ids - 1).tolist() == np.flatnonzero(sample.image_labels).tolist()
    assert refined.background is not None
    assert set(made["mask"].unique().tolist()) <= {0, *maps.class_ids.tolist()}
    assert torch.equal(made["mask"], refined.to_mask())
    for name in ("maps", "refined"):
        assert (tmp_path / f"{name}.png").stat().st_size > 5000


@pytest.mark.slow
def test_a_method_in_one_file_trains_and_writes_maps(tmp_path: Path) -> None:
    longer = SHORT.replace(
        "steps: 2, batch_size: 2", "steps: 30, batch_size: 4, optimizer: adamw, learning_rate: 1.0e-3"
    )
    result = example("03")["main"](tmp_path, changes=(*SMALL, longer))
    record = read_run(result.folder)
    assert record["method"] == "03_your_own_method"
    folders = {stage["name"]: result.folder / stage["folder"] for stage in record["stages"]}
    losses = [entry["losses"] for entry in read_journal(folders["train-method"] / "log.jsonl")]
    assert set(losses[-1]) == {"classification", "top"}
    assert len(list((folders["activate"] / "maps").iterdir())) == 12


@pytest.mark.slow
def test_images_of_ones_own_get_masks_with_tags_and_without(tmp_path: Path) -> None:
    scope = example("04")
    images, tags = scope["generated_folder"](tmp_path / "data", train=12, val=3, size=64)
    labelled = scope["main"](images, tags, tmp_path / "out", quick=True)
    assert (labelled.from_tags, labelled.from_network) == (12, 3)
    for folder in (labelled.masks, tmp_path / "out" / "predicted"):
        masks = sorted(folder.rglob("*.png"))
        assert [path.stem for path in masks] == sorted(path.stem for path in images.iterdir())
        assert {read_mask(path).shape for path in masks} == {(64, 64)}
    assert (tmp_path / "out" / "one-image.png").stat().st_size > 5000


@pytest.mark.slow
def test_corrected_masks_train_the_network_again_and_nothing_else(tmp_path: Path) -> None:
    made = example("05")["main"](tmp_path, count=3, changes=SMALL)
    folders = [
        {stage["name"]: stage["folder"] for stage in read_run(made[key].folder)["stages"]}
        for key in ("before", "after")
    ]
    assert folders[0]["activate"] == folders[1]["activate"]
    assert folders[0]["train-segmentation"] != folders[1]["train-segmentation"]
    assert read_run(made["after"].folder)["supervision"] == "I+M(3)"
    assert len(made["review"].suspects) == 12
    assert [gain.stage for gain in made["comparison"].gains if gain.stage == "segmentation"]
