from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from wsss.errors import WeightsError
from wsss.models.embedded import saliency_training
from wsss.models.embedded.saliency_training import overlap_loss, train_saliency

SMALL = {"steps": 4, "batch_size": 4, "things": 12, "grounds": 5, "seed": 3}


def test_training_repeats_itself_and_goes_on_after_an_interruption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saliency_training, "CHECKPOINT_EVERY", 2)
    train_saliency(tmp_path / "whole", **SMALL)

    class StopError(Exception):
        pass

    step = saliency_training._step

    def fails_at_three(*arguments: object, **named: object) -> object:
        if named["step"] == 3:
            raise StopError
        return step(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(saliency_training, "_step", fails_at_three)
        with pytest.raises(StopError):
            train_saliency(tmp_path / "halves", **SMALL)
    assert not (tmp_path / "halves").exists()
    steps: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(
            saliency_training,
            "_step",
            lambda *arguments, **named: steps.append(named["step"]) or step(*arguments, **named),
        )
        train_saliency(tmp_path / "halves", **SMALL)
    assert steps == [2, 3]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["halves", "whole"]
    for path in (tmp_path / "whole").iterdir():
        assert path.read_bytes() == (tmp_path / "halves" / path.name).read_bytes()


def test_the_card_names_the_settings_and_what_was_seen(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    small = {**SMALL, "steps": 1}
    train_saliency(tmp_path / "mine", progress=lambda *seen: told.append(seen), **small)
    made = json.loads((tmp_path / "mine" / "config.json").read_text())["made"]
    assert {name: made[name] for name in small} == small
    assert made["shapes"] == ["house", "mushroom", "umbrella", "fish", "cup", "tent"]
    assert made["backgrounds"] == ["gravel", "carpet", "tiles", "marble", "night"]
    assert made["command"] == "wsss embedded train saliency --seed 3"


def test_the_loss_falls_on_pictures_that_are_shown_again(monkeypatch: pytest.MonkeyPatch) -> None:
    net = saliency_training.new_saliency_net(0)
    settings = saliency_training.SaliencySettings(steps=30, batch_size=4, warm_up=1)
    pools = saliency_training.draw_pools(0, things=8, grounds=5)
    optimisers = saliency_training._optimisers(net, settings)
    pictures = saliency_training.compose(pools, 4, saliency_training.stream("saliency", 0, 0))
    monkeypatch.setattr(saliency_training, "compose", lambda *_: pictures)
    losses = []
    for step in range(12):
        found = saliency_training._step(net.train(), pools, optimisers, settings, seed=0, step=step)
        losses.append(sum(float(value.detach()) for value in found.values()))
    assert losses[-1] < 0.6 * losses[0]


def test_overlap_is_that_of_sets() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.rand(3, 1, 6, 5, generator=generator) < 0.5 for _ in range(2))
    expected = 0.0
    for one, other in zip(first, second, strict=True):
        common = sum(bool(a and b) for a, b in zip(one.flatten(), other.flatten(), strict=True))
        either = sum(bool(a or b) for a, b in zip(one.flatten(), other.flatten(), strict=True))
        expected += 1 - (common + 1) / (either + 1)
    assert float(overlap_loss(first.float(), second.float())) == pytest.approx(expected / 3, rel=1e-6)


def test_a_folder_with_other_files_is_kept(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(WeightsError, match="holds something else"):
        train_saliency(tmp_path, steps=1)
    assert (tmp_path / "notes.txt").read_text() == "mine"
