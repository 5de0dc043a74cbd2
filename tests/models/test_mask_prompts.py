"""Training of the embedded teacher's mask prompts, for a step or three."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from wsss.errors import WeightsError
from wsss.models.clip import load_teacher
from wsss.models.embedded import mask_prompts
from wsss.models.embedded.mask_prompts import OMEGA, PromptSettings, region_tokens, train_mask_prompts
from wsss.models.mask_adapted import MaskAdaptedTeacher

TINY = PromptSettings(steps=3, batch_size=12, objects=40, backgrounds=12, warm_up=2)


def loaded(folder: Path) -> MaskAdaptedTeacher:
    teacher = load_teacher(folder)
    assert isinstance(teacher, MaskAdaptedTeacher)
    return teacher


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, float]], set[str]]:
    folder, logged, told = (
        tmp_path_factory.mktemp("prompts") / "teacher",
        list[dict[str, float]](),
        set[str](),
    )
    train_mask_prompts(
        folder, settings=TINY, log=logged.append, progress=lambda what, done, total: told.add(what)
    )
    return folder, logged, told


def test_only_the_prompts_are_learned(trained: tuple[Path, list[dict[str, float]], set[str]]) -> None:
    folder, logged, _ = trained
    teacher, shipped = loaded(folder), load_teacher("embedded")
    assert teacher.mask_embedding.shape == (3, 64, 128)
    own, theirs = teacher.model.state_dict(), shipped.model.state_dict()
    assert own.keys() == theirs.keys()
    assert all(own[name].equal(value) for name, value in theirs.items())
    assert teacher.prompt_template == shipped.prompt_template
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert [entry["step"] for entry in logged] == [3]
    names = {"image_to_text", "text_to_image", "image_to_concept", "concept_to_image"}
    assert names < logged[0].keys()
    assert all(0 < logged[0][name] < 20 for name in names)
    card = json.loads((folder / "teacher.json").read_text())
    assert (card["made_by"], card["seed"], card["steps"], card["depth"]) == ("mask prompts", 0, 3, 3)


def test_every_level_of_prompts_moves(
    trained: tuple[Path, list[dict[str, float]], set[str]], tmp_path: Path
) -> None:
    start = loaded(train_mask_prompts(tmp_path / "start", settings=TINY, steps=0))
    moved = (loaded(trained[0]).mask_embedding - start.mask_embedding).abs().amax(dim=2)  # (3, 64)
    assert (moved > 1e-3).all()
    again = train_mask_prompts(tmp_path / "again", settings=TINY)
    assert loaded(again).mask_embedding.equal(loaded(trained[0]).mask_embedding)


def test_the_first_prompts_are_nearly_those_of_an_empty_picture(tmp_path: Path) -> None:
    teacher = loaded(train_mask_prompts(tmp_path / "start", settings=TINY, steps=0))
    images = torch.randn(2, 3, 64, 64)
    nothing = teacher.encode_images(torch.zeros(1, 3, 64, 64)).expand(2, -1)
    found = teacher.encode_regions(images, torch.zeros(2, 1, 8, 8))
    assert torch.cosine_similarity(found, nothing).min() > 0.95


def test_a_rate_for_the_tower_trains_it_and_leaves_the_texts(tmp_path: Path) -> None:
    settings = PromptSettings(
        steps=2, batch_size=12, objects=40, backgrounds=12, warm_up=1, depth=2, tower_rate=1e-4
    )
    teacher = loaded(train_mask_prompts(tmp_path / "t", settings=settings))
    assert teacher.mask_embedding.shape == (2, 64, 128)
    shipped = load_teacher("embedded").model.state_dict()
    differs = {name for name, value in teacher.model.state_dict().items() if not value.equal(shipped[name])}
    assert any(name.startswith("vision_model.encoder") for name in differs)
    assert "visual_projection.weight" in differs
    assert not any(name.startswith(("text_", "logit")) for name in differs)


def slow_tokens(mask: Tensor, *, outside: bool, patch: int) -> Tensor:
    plane = mask.double()
    if outside:
        kept = (1 - plane) < OMEGA * (1 - plane).max()
        outside = bool(kept.any())
    if not outside:
        kept = plane >= OMEGA * plane.max()
    side = len(plane) // patch
    rows = [[kept[r * patch :, c * patch :][:patch, :patch].any() for c in range(side)] for r in range(side)]
    return torch.tensor(rows)


def test_region_tokens_are_those_of_qa_clims() -> None:
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(6, 1, 8, 8, generator=generator) ** 6
    maps = torch.cat([maps, torch.zeros(1, 1, 8, 8), torch.ones(1, 1, 8, 8), 0.5 + 0.1 * maps[:1]])
    for is_outside in (torch.zeros(9, dtype=torch.bool), torch.ones(9, dtype=torch.bool)):
        masks = torch.where(is_outside[:, None, None, None], 1 - maps, maps)
        found = region_tokens(masks, is_outside, 2)
        for row in range(9):
            expected = slow_tokens(masks[row, 0], outside=bool(is_outside[row]), patch=2)
            assert found[row, 0].equal(expected)


@pytest.mark.parametrize("tower_rate", [0.0, 1e-4])
def test_training_goes_on_after_an_interruption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tower_rate: float
) -> None:
    monkeypatch.setattr(mask_prompts, "CHECKPOINT_EVERY", 2)
    settings = replace(TINY, steps=4, tower_rate=tower_rate)
    train_mask_prompts(tmp_path / "whole", settings=settings)
    step, taken = mask_prompts._step, list[int]()

    def until(last: int) -> Any:
        def stops(*arguments: Any, **named: Any) -> dict[str, Tensor]:
            if named["step"] == last:
                raise KeyboardInterrupt
            taken.append(named["step"])
            return step(*arguments, **named)

        return stops

    monkeypatch.setattr(mask_prompts, "_step", until(3))
    with pytest.raises(KeyboardInterrupt):
        train_mask_prompts(tmp_path / "halves", settings=settings)
    assert not (tmp_path / "halves").exists()
    monkeypatch.setattr(mask_prompts, "_step", until(4))
    train_mask_prompts(tmp_path / "halves", settings=settings)
    assert taken == [0, 1, 2, 2, 3]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["halves", "whole"]
    for path in (tmp_path / "whole").iterdir():
        assert path.read_bytes() == (tmp_path / "halves" / path.name).read_bytes(), path.name


def test_another_folder_and_an_impossible_depth_are_refused_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*args: Any, **options: Any) -> None:
        raise AssertionError

    monkeypatch.setattr("wsss.models.embedded.mask_prompts.draw_pools", never)
    (tmp_path / "photo.jpg").write_bytes(b"dear")
    with pytest.raises(WeightsError, match="holds something else"):
        train_mask_prompts(tmp_path, settings=TINY)
    for depth in (0, 9):
        with pytest.raises(WeightsError, match="depth"):
            train_mask_prompts(tmp_path / "t", settings=PromptSettings(depth=depth))
