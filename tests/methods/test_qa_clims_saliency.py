"""QA-CLIMS with saliency feedback: the loss against loops, and what a run of it reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tiny_recipe import qa_recipe, random_teacher, random_vqa, write_recipe
from wsss.engine.plan import plan
from wsss.engine.recipe import load_recipe
from wsss.engine.run import read_run, run
from wsss.engine.stages import Silence, Workspace
from wsss.methods.base import find_method
from wsss.training.journal import read_journal
from wsss.types import Batch


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("examples")
    tiny = qa_recipe(random_teacher(folder / "teacher"), random_vqa(folder / "vqa"))
    tiny["method"]["name"] = "qa_clims_saliency"
    return write_recipe(folder / "example.yaml", tiny)


def test_a_run_joins_saliency_to_the_losses_of_qa_clims(recipe: Path, tmp_path: Path) -> None:
    result = run(recipe, runs=tmp_path / "runs", until="train-method")
    record = read_run(result.folder)
    assert record["supervision"] == "I+L+S"
    folders = {stage["name"]: result.folder / stage["folder"] for stage in record["stages"]}
    assert "detect-saliency" in folders
    losses = read_journal(folders["train-method"] / "log.jsonl")[-1]["losses"]
    assert set(losses) == {"FRC", "BRC", "REG", "saliency"}


def test_without_its_weight_it_is_qa_clims_and_reads_no_saliency(recipe: Path) -> None:
    loaded = load_recipe(recipe, ["method.saliency_weight=0"])
    assert loaded.supervision == "I+L"
    assert loaded.method is not None
    assert not loaded.method.needs_saliency


def test_the_feedback_is_the_squared_distance_from_the_union_of_salient_classes() -> None:
    """Loops over images, classes and cells; one class lies beside the saliency and is left out."""
    cls = find_method("qa_clims_saliency")
    rng = np.random.default_rng(0)
    maps = torch.from_numpy(rng.random((2, 3, 4, 4))).float()
    saliency = torch.zeros(2, 8, 8)
    saliency[:, :, :4] = 0.9
    maps[0, 1] = 0.1
    maps[0, 1, :, 2:] = 0.9  # on none of the salient cells
    labels = torch.tensor([[True, True, False], [False, True, True]])
    method = object.__new__(cls)
    torch.nn.Module.__init__(method)
    method.config = cls.Config(overlap=0.4)
    batch = Batch(
        images=torch.zeros(2, 3, 8, 8),
        image_labels=labels,
        image_ids=("a", "b"),
        valid=torch.ones(2, 8, 8, dtype=torch.bool),
        aligned={"saliency": saliency},
    )
    total = 0.0
    for image in range(2):
        taken = []
        for column in range(3):
            on = [(y, x) for y in range(4) for x in range(4) if maps[image, column, y, x] > 0.5]
            hits = sum(float(saliency[image, 2 * y, 2 * x]) > 0.5 for y, x in on)
            if labels[image, column] and on and hits / len(on) > 0.4:
                taken.append(column)
        assert image or taken == [0]
        for y in range(4):
            for x in range(4):
                missed = 1.0
                for column in taken:
                    missed *= 1 - float(maps[image, column, y, x])
                total += (float(saliency[image, 2 * y, 2 * x]) - (1 - missed)) ** 2
    assert float(method._feedback(batch, maps)) == pytest.approx(total / 32, rel=1e-5)


def test_texts_are_prepared_once_whatever_detects_the_saliency(recipe: Path, tmp_path: Path) -> None:
    def stages(*overrides: str) -> dict[str, str]:
        loaded = load_recipe(recipe, overrides)
        workspace = Workspace(tmp_path, loaded.data, torch.device("cpu"), Silence())
        return {stage.name: stage.fingerprint for stage in plan(loaded, 0, workspace)}

    (tmp_path / "maps").mkdir()
    shipped, own = stages(), stages(f"method.saliency={{folder: {tmp_path / 'maps'}}}")
    assert shipped["prepare"] == own["prepare"]
    assert shipped["train-method"] != own["train-method"]
