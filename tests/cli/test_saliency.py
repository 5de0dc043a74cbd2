"""`wsss saliency` and `wsss embedded … saliency`: thin commands over tested functions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cli.test_commands import call, plain
from wsss.models.embedded import saliency_training


@pytest.fixture
def images(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name, size in (("a.png", (40, 60)), ("b.jpg", (120, 90)), ("below/c.png", (96, 96))):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)
    return tmp_path / "images"


def test_every_image_gets_a_grey_map_of_its_size(images: Path, tmp_path: Path) -> None:
    done = call("saliency", images, "--out", tmp_path / "maps")
    assert done.exit_code == 0, done.output
    assert f"3 saliency maps of `embedded` are new in {tmp_path / 'maps'}." in plain(done.stdout)
    names = sorted(path.name for path in (tmp_path / "maps").iterdir())
    assert names == ["a.png", "b.png", "c.png", "saliency.json"]
    for name, size in (("a", (60, 40)), ("b", (90, 120)), ("c", (96, 96))):
        with Image.open(tmp_path / "maps" / f"{name}.png") as map_:
            assert (map_.mode, map_.size) == ("L", size)
    assert json.loads((tmp_path / "maps" / "saliency.json").read_text())["detector"] == "embedded"


def test_a_second_call_writes_what_is_missing_alone(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "maps"
    call("saliency", images, "--out", out)
    first = {path.name: path.read_bytes() for path in out.iterdir()}
    (out / "b.png").unlink()
    (out / "a.png").write_bytes(b"kept as it is")
    done = call("saliency", images, "--out", out)
    assert "1 saliency maps of `embedded` are new" in plain(done.stdout)
    assert "2 were there already" in plain(done.stdout)
    assert (out / "b.png").read_bytes() == first["b.png"]
    assert (out / "a.png").read_bytes() == b"kept as it is"


def test_mistakes_are_named(images: Path, tmp_path: Path) -> None:
    for arguments, message in (
        ((tmp_path / "nowhere", "--out", tmp_path / "maps"), "There is no image folder"),
        ((images, "--out", images), "is the folder of the images themselves"),
        ((images, "--out", tmp_path / "maps", "--source", "embeded"), "Did you mean `embedded`?"),
        ((images, "--out", tmp_path / "maps", "--weights", "x.onnx"), "or choose `u2net`"),
    ):
        result = call("saliency", *arguments)
        assert result.exit_code == 2, message
        assert message in plain(result.output)
    assert not (tmp_path / "maps").exists()


def test_a_trained_detector_is_measured_and_used(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = saliency_training.SaliencySettings(steps=2, batch_size=2, things=6, grounds=5)
    monkeypatch.setattr(saliency_training, "SaliencySettings", lambda **_: small)
    folder = tmp_path / "mine"
    trained = call("embedded", "train", "saliency", "--seed", "1", "--out", folder)
    assert trained.exit_code == 0, trained.output
    assert f"The saliency detector is in {folder}." in plain(trained.stdout)
    measure = ("embedded", "evaluate", "saliency", "--folder", folder, "--images", "4")
    scores = json.loads(call(*measure, "--json").stdout)
    assert list(scores) == ["reserved", "benchmark", "without_distractors"]
    assert "without distractors" in plain(call(*measure).stdout)
    assert call("saliency", images, "--out", tmp_path / "maps", "--source", folder).exit_code == 0
    unknown = call("embedded", "train", "salience")
    assert unknown.exit_code == 2
    assert "Did you mean `saliency`?" in plain(unknown.output)
