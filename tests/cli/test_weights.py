"""`wsss weights`: thin commands over tested functions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from typer.testing import CliRunner, Result

from models.weight_files import write_mxnet
from wsss.cli.main import app
from wsss.models.resnet_small import resnet_small
from wsss.models.weights import load_backbone_weights, sha256


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="wsss")


def plain(text: str) -> str:
    return " ".join(text.split())


def test_the_list_says_what_is_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("U2NET_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "u2net.onnx").touch()
    lines = call("weights", "list").stdout.splitlines()
    row = next(line for line in lines if line.startswith(" u2net") or line.startswith("u2net"))
    assert row.split()[-1] == "yes"
    assert any("clip-vit-b32" in line and "151.3 M" in line and "MIT" in line for line in lines)


def test_a_file_is_shown_and_converted(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = resnet_small()
    path = tmp_path / "own.safetensors"
    safetensors.torch.save_file(net.state_dict(), path)
    shown = plain(call("weights", "show", path).stdout)
    assert f"SHA-256: {sha256(path)}" in shown
    assert "format: safetensors" in shown
    assert "fits: resnet_small" in shown
    found = json.loads(call("weights", "show", path, "--json").stdout)
    assert found["fits"] == ["resnet_small"]
    out = tmp_path / "out.safetensors"
    made = call("weights", "convert", path, out, "--to", "resnet_small")
    assert made.exit_code == 0, made.output
    other = resnet_small()
    load_backbone_weights(other, out)
    assert all(value.equal(net.state_dict()[name]) for name, value in other.state_dict().items())


def test_a_file_of_another_network_is_refused(tmp_path: Path) -> None:
    path = write_mxnet(tmp_path / "cut.params", {"arg:conv1a_weight": np.zeros((64, 3, 3, 3), np.float32)})
    out = tmp_path / "out.safetensors"
    refused = call("weights", "convert", path, out, "--to", "wide_resnet38")
    assert refused.exit_code == 2
    assert "does not fit wide_resnet38: missing ['b2.bn_branch2a.bias'" in plain(refused.stderr)
    assert not out.exists()
    assert "none of the networks" in plain(call("weights", "show", path).stdout)
