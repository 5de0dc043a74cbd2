"""`wsss questions import` and `wsss weights convert-ovseg`: thin commands over tested functions."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from cli.test_commands import call, plain
from tiny_recipe import random_teacher
from wsss.models.clip import load_teacher
from wsss.questions.answers import read_answers


@pytest.fixture
def recipe(tmp_path: Path, tiny_tree: Path) -> Path:
    path = tmp_path / "own.yaml"
    path.write_text(
        f"data: {{kind: voc, root: {tiny_tree}, name: toys, classes: {tiny_tree / 'classes.yaml'}}}\n"
        "method: {name: cam, backbone: resnet_small, backbone_weights: null, batch_norm: live}\n"
        "training: {epochs: 1}\n"
    )
    return path


def test_published_answers_become_a_file_of_answers(recipe: Path, tmp_path: Path) -> None:
    published = tmp_path / "answers.pkl"
    given = {"i1": {"boat": {"vqa": [("what is above the {}?", "sky")], "answers": ["sky"]}}}
    published.write_bytes(pickle.dumps(given))
    out = tmp_path / "answers.jsonl"
    refused = call("questions", "import", published, "--out", out, "--data", recipe)
    assert refused.exit_code == 2
    assert not out.exists()
    done = call("questions", "import", published, "--out", out, "--data", recipe, "--allow-pickle")
    assert done.exit_code == 0, done.output
    assert "1 pairs of image and class" in plain(done.stdout)
    assert read_answers(out).of("i1", "boat", "boat", ["what is above the {}?"]) == ("sky",)


def test_a_file_that_is_no_ovseg_checkpoint_is_refused(tmp_path: Path) -> None:
    base = random_teacher(tmp_path / "clip")
    torch.save({"something.weight": torch.zeros(2)}, tmp_path / "other.pth")
    arguments = ("--base", base, "--out", tmp_path / "out")
    result = call("weights", "convert-ovseg", tmp_path / "other.pth", *arguments)
    assert result.exit_code != 0
    assert "clip_adapter.clip_model." in plain(result.output)
    assert not (tmp_path / "out").exists()
    load_teacher(base)
