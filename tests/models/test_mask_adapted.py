"""Mask-adapted CLIP against a slow one written out by hand."""

from __future__ import annotations

import json
import logging
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from models.small_clip import (
    BLOCKS,
    GRID,
    HEADS,
    MEAN,
    PATCH,
    SIZE,
    STD,
    adapted,
    examples,
    prompts,
    small_clip,
)
from wsss.errors import ShapeError, WeightsError
from wsss.models.clip import HuggingFaceTeacher, ImageTextTeacher, load_teacher
from wsss.models.clip_finetuning import FinetuneConfig, finetune
from wsss.models.mask_adapted import MaskAdaptedTeacher, RegionTeacher, token_masks
from wsss.models.teacher_folder import save_loaded, save_teacher


@pytest.fixture(scope="module")
def plain_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model, tokenizer = small_clip()
    return save_teacher(tmp_path_factory.mktemp("plain") / "clip", model, tokenizer, mean=MEAN, std=STD)


@pytest.fixture(scope="module")
def adapted_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model, tokenizer = small_clip()
    folder = tmp_path_factory.mktemp("adapted") / "clip"
    return save_teacher(folder, model, tokenizer, mean=MEAN, std=STD, mask_embedding=prompts())


# The forward pass, by hand


def normalised(rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    centred = rows - rows.mean(dim=-1, keepdim=True)
    return centred / ((centred**2).mean(dim=-1, keepdim=True) + 1e-5).sqrt() * weight + bias


def attended(rows: Tensor, state: dict[str, Tensor], block: str) -> Tensor:
    """Attention of one image's tokens (T, D), head by head and query by query."""
    joined = torch.zeros_like(rows)
    queries, keys, values = (
        rows @ state[f"{block}.self_attn.{letter}_proj.weight"].T
        + state[f"{block}.self_attn.{letter}_proj.bias"]
        for letter in "qkv"
    )
    width = rows.shape[1] // HEADS
    for head in range(HEADS):
        part = slice(head * width, (head + 1) * width)
        for query in range(len(rows)):
            scores = (keys[:, part] * queries[query, part]).sum(dim=1) / math.sqrt(width)
            shares = (scores - scores.max()).exp()
            joined[query, part] = (shares[:, None] * values[:, part]).sum(dim=0) / shares.sum()
    return joined @ state[f"{block}.self_attn.out_proj.weight"].T + state[f"{block}.self_attn.out_proj.bias"]


def replaced(rows: Tensor, mask: Tensor, level: Tensor) -> Tensor:
    """Rows of patches (N, D) with those outside the mask (g, g) taken from `level`."""
    kept = [bool(mask[place // GRID, place % GRID]) for place in range(len(rows))]
    return torch.stack(
        [row if keep else level[i] for i, (row, keep) in enumerate(zip(rows, kept, strict=True))]
    )


def slow_features(state: dict[str, Tensor], image: Tensor, mask: Tensor, levels: Tensor) -> Tensor:
    """One image's vector (E,): every step written out, float64."""
    state = {name: value.double() for name, value in state.items()}
    image, levels, tower = image.double(), levels.double(), "vision_model"
    kernel = state[f"{tower}.embeddings.patch_embedding.weight"]
    patches = torch.stack(
        [
            (kernel * image[:, top : top + PATCH, left : left + PATCH]).sum(dim=(1, 2, 3))
            for top in range(0, SIZE, PATCH)
            for left in range(0, SIZE, PATCH)
        ]
    )
    patches = replaced(patches, mask, levels[0])
    rows = torch.cat([state[f"{tower}.embeddings.class_embedding"][None], patches])
    rows = rows + state[f"{tower}.embeddings.position_embedding.weight"]
    rows = normalised(rows, state[f"{tower}.pre_layrnorm.weight"], state[f"{tower}.pre_layrnorm.bias"])
    for number in range(BLOCKS):
        block = f"{tower}.encoder.layers.{number}"
        first = normalised(rows, state[f"{block}.layer_norm1.weight"], state[f"{block}.layer_norm1.bias"])
        rows = rows + attended(first, state, block)
        second = normalised(rows, state[f"{block}.layer_norm2.weight"], state[f"{block}.layer_norm2.bias"])
        hidden = second @ state[f"{block}.mlp.fc1.weight"].T + state[f"{block}.mlp.fc1.bias"]
        hidden = hidden / (1 + (-1.702 * hidden).exp())  # quick GELU
        rows = rows + hidden @ state[f"{block}.mlp.fc2.weight"].T + state[f"{block}.mlp.fc2.bias"]
        if number + 1 < len(levels):
            rows = torch.cat([rows[:1], replaced(rows[1:], mask, levels[number + 1])])
    class_row = normalised(
        rows[0], state[f"{tower}.post_layernorm.weight"], state[f"{tower}.post_layernorm.bias"]
    )
    return state["visual_projection.weight"] @ class_row


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_regions_equal_a_forward_pass_by_hand_at_every_depth(depth: int) -> None:
    teacher, (images, masks) = adapted(depth), examples()
    state = {name: value.detach() for name, value in teacher.model.state_dict().items()}
    expected = torch.stack(
        [
            slow_features(state, image, mask[0], prompts(depth))
            for image, mask in zip(images, masks, strict=True)
        ]
    )
    found = teacher.encode_regions(images, masks)
    assert found.shape == (3, 24)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-5)


def test_each_level_of_prompts_changes_the_vector() -> None:
    images, masks = examples()
    shallow = [
        MaskAdaptedTeacher(*small_clip(), prompts(3)[:depth], mean=MEAN, std=STD).encode_regions(
            images, masks
        )
        for depth in (1, 2, 3)
    ]
    assert (shallow[0] - shallow[1]).abs().max() > 1e-2
    assert (shallow[1] - shallow[2]).abs().max() > 1e-2


def test_with_every_patch_kept_it_is_the_plain_clip() -> None:
    teacher, (images, _) = adapted(), examples()
    plain = HuggingFaceTeacher(*small_clip(), mean=MEAN, std=STD)
    torch.testing.assert_close(teacher.encode_images(images), plain.encode_images(images), rtol=0, atol=0)
    for kept in (torch.ones(3, 1, GRID, GRID), torch.ones(3, 1, GRID, GRID, dtype=torch.bool)):
        torch.testing.assert_close(teacher.encode_regions(images, kept), plain.encode_images(images))
    torch.testing.assert_close(teacher.encode_texts(["cat"]), plain.encode_texts(["cat"]), rtol=0, atol=0)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_pixels_of_replaced_patches_have_no_influence_and_no_gradient(precision: Any) -> None:
    teacher, (images, masks) = adapted(precision=precision), examples()
    outside = ~masks.repeat_interleave(PATCH, 2).repeat_interleave(PATCH, 3).expand_as(images)
    images.requires_grad_(True)
    features = teacher.encode_regions(images, masks)
    changed = torch.where(outside, 100 * torch.randn_like(images), images)
    assert teacher.encode_regions(changed, masks).equal(features)
    features.sum().backward()
    assert images.grad is not None
    assert (images.grad[outside] == 0).all()
    assert (images.grad[~outside] != 0).float().mean() > 0.99


def test_an_image_without_any_kept_patch_has_one_vector_whatever_it_shows() -> None:
    teacher, (images, _) = adapted(), examples()
    features = teacher.encode_regions(images, torch.zeros(3, 1, GRID, GRID))
    torch.testing.assert_close(features[0], features[1])
    assert features.isfinite().all()


def test_masks_belong_to_their_own_images_alone() -> None:
    teacher, (images, masks) = adapted(), examples(5)
    together = teacher.encode_regions(images, masks)
    for row in range(5):
        alone = teacher.encode_regions(images[row : row + 1], masks[row : row + 1])
        torch.testing.assert_close(together[row : row + 1], alone)
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(teacher.encode_regions(images[order], masks[order]), together[order])


def test_no_weight_learns_and_it_is_always_in_evaluation_mode() -> None:
    teacher, (images, masks) = adapted(), examples()
    assert isinstance(teacher, RegionTeacher)
    assert isinstance(teacher, ImageTextTeacher)
    assert not isinstance(HuggingFaceTeacher(*small_clip(), mean=MEAN, std=STD), RegionTeacher)
    assert teacher.patch_size == PATCH
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert teacher.train() is teacher
    assert not any(module.training for module in teacher.modules())
    images.requires_grad_(True)
    teacher.encode_regions(images, masks).sum().backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_bfloat16_encoders_stay_close_and_ignore_the_surrounding_autocast() -> None:
    images, masks = examples()
    full, half = adapted(), adapted(precision="bfloat16")
    expected = full.encode_regions(images, masks)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert full.encode_regions(images, masks).equal(expected)
        rounded = half.encode_regions(images, masks)
    assert rounded.dtype == torch.float32
    assert not rounded.equal(expected)
    assert F.cosine_similarity(rounded, expected).min() > 0.999


def test_no_region_gives_no_vector_but_keeps_the_graph() -> None:
    teacher, images = adapted(), torch.zeros(0, 3, SIZE, SIZE, requires_grad=True)
    features = teacher.encode_regions(images, torch.zeros(0, 1, GRID, GRID))
    assert features.shape == (0, 24)
    features.sum().backward()


def test_masks_of_another_size_are_refused() -> None:
    teacher, (images, masks) = adapted(), examples()
    with pytest.raises(ShapeError, match=r"`token_masks` must have shape \(3, 1, 4, 4\); got \(2, 1, 4, 4\)"):
        teacher.encode_regions(images, masks[:2])
    with pytest.raises(ShapeError, match=r"got \(3, 1, 32, 32\)\. Make them by `token_masks`"):
        teacher.encode_regions(images, torch.ones(3, 1, SIZE, SIZE))
    with pytest.raises(ShapeError, match=r"`images` must have shape \(any, 3, 32, 32\)"):
        teacher.encode_regions(images[:, :, :16], masks)


def test_token_masks_are_the_average_over_each_patch_rounded_up() -> None:
    generator = torch.Generator().manual_seed(0)
    for share in (0.0, 0.005, 0.05, 0.5, 1.0):
        planes = torch.rand(4, 1, 28, 42, generator=generator) < share
        expected = F.avg_pool2d(planes.float(), 14).ceil().bool()
        assert token_masks(planes, 14).equal(expected)
        assert token_masks(planes.float(), 14).equal(expected)
    with pytest.raises(ShapeError, match="multiples of `patch` = 14"):
        token_masks(torch.ones(1, 1, 30, 28), 14)


# Folders


def test_a_folder_with_mask_prompts_gives_a_mask_adapted_teacher(
    plain_folder: Path, adapted_folder: Path
) -> None:
    plain, teacher = load_teacher(plain_folder), load_teacher(adapted_folder, precision="bfloat16")
    assert type(plain) is HuggingFaceTeacher
    assert isinstance(teacher, MaskAdaptedTeacher)
    assert (teacher.precision, teacher.name, teacher.mean) == ("bfloat16", str(adapted_folder), MEAN)
    assert teacher.mask_embedding.equal(prompts())
    images, masks = examples()
    loaded = load_teacher(adapted_folder)
    assert isinstance(loaded, MaskAdaptedTeacher)
    torch.testing.assert_close(loaded.encode_regions(images, masks), adapted().encode_regions(images, masks))
    assert {path.name for path in adapted_folder.iterdir()} - {
        path.name for path in plain_folder.iterdir()
    } == {"mask_embedding.safetensors"}


def test_a_loaded_teacher_is_saved_with_all_it_has(
    plain_folder: Path, adapted_folder: Path, tmp_path: Path
) -> None:
    for source in (plain_folder, adapted_folder):
        teacher = load_teacher(source, prompt_template="some {}")
        copy = save_loaded(tmp_path / source.parent.name, teacher, card={"words": ["cat"]})
        for path in [*source.glob("*.safetensors"), source / "preprocessor_config.json"]:
            assert (copy / path.name).read_bytes() == path.read_bytes(), path.name
        assert load_teacher(copy).encode_texts(["the cat"]).equal(teacher.encode_texts(["the cat"]))
        assert {path.name for path in copy.iterdir()} == {path.name for path in source.iterdir()}
        assert json.loads((copy / "teacher.json").read_text()) == {
            "prompt_template": "some {}",
            "words": ["cat"],
        }
    other = save_loaded(tmp_path / "other", load_teacher(adapted_folder), mask_embedding=prompts(2, seed=9))
    found = load_teacher(other)
    assert isinstance(found, MaskAdaptedTeacher)
    assert found.mask_embedding.equal(prompts(2, seed=9))


def test_half_precision_prompts_are_loaded_as_float32(tmp_path: Path) -> None:
    folder = save_teacher(
        tmp_path / "t", *small_clip(), mean=MEAN, std=STD, half=True, mask_embedding=prompts()
    )
    assert load_file(folder / "mask_embedding.safetensors")["mask_embedding"].dtype == torch.float16
    teacher = load_teacher(folder)
    assert isinstance(teacher, MaskAdaptedTeacher)
    assert teacher.mask_embedding.dtype == torch.float32


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"mask_embedding": prompts()[:, :9]}, r"shape \(1 to 4, 16, 32\); got \(3, 9, 32\)"),
        ({"mask_embedding": prompts()[..., :16]}, r"shape \(1 to 4, 16, 32\); got \(3, 16, 16\)"),
        ({"mask_embedding": prompts(5)}, r"got \(5, 16, 32\)"),
        ({"mask_embedding": prompts()[0]}, r"got \(16, 32\)"),
        ({"mask_embedding": prompts()[:0]}, r"got \(0, 16, 32\)"),
        ({"mask_embedding": 0 * prompts()}, "zero everywhere: it was never trained"),
        ({"mask_embedding": prompts() / 0}, "not finite"),
        ({"prompts": prompts()}, r"must hold `mask_embedding` alone; got \['prompts'\]"),
    ],
)
def test_prompts_that_do_not_fit_are_refused(
    plain_folder: Path, tmp_path: Path, tensors: dict[str, Tensor], message: str
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(plain_folder, copy)
    save_file(
        {name: value.contiguous() for name, value in tensors.items()}, copy / "mask_embedding.safetensors"
    )
    with pytest.raises(WeightsError, match=message):
        load_teacher(copy)


def test_mask_prompts_alone_are_no_weights(adapted_folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(adapted_folder, copy)
    (copy / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match="holds no weights"):
        load_teacher(copy)
    (copy / "mask_embedding.safetensors").write_bytes(b"cut")


def test_only_clip_can_have_mask_prompts() -> None:
    from transformers import SiglipConfig, SiglipModel

    tower = {"intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 32}
    text = {"vocab_size": 20, "max_position_embeddings": 10, "projection_size": 32, **tower}
    vision = {"image_size": SIZE, "patch_size": PATCH, **tower}
    model = SiglipModel(SiglipConfig(text_config=text, vision_config=vision))
    with pytest.raises(WeightsError, match="is a `siglip` model with mask prompts; only `clip`"):
        MaskAdaptedTeacher(model, None, prompts(1), mean=MEAN, std=STD)


def test_a_non_commercial_licence_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    card = {"licence": "CC BY-NC 4.0 (non-commercial)", "licence_note": "Ask the authors."}
    free = {"licence": "MIT"}
    restricted = save_teacher(
        tmp_path / "nc", *small_clip(), mean=MEAN, std=STD, card=card, mask_embedding=prompts()
    )
    open_ = save_teacher(
        tmp_path / "mit", *small_clip(), mean=MEAN, std=STD, card=free, mask_embedding=prompts()
    )
    with caplog.at_level(logging.WARNING):
        for folder in (restricted, restricted, open_):
            load_teacher(folder)
    assert [record.getMessage() for record in caplog.records] == [
        f"Teacher {restricted}: licence CC BY-NC 4.0 (non-commercial) Ask the authors."
    ]


def test_fine_tuning_refuses_what_would_lose_the_prompts(
    adapted_folder: Path, tiny_scenes: Any, tmp_path: Path
) -> None:
    with pytest.raises(WeightsError, match="has mask prompts"):
        finetune(
            str(adapted_folder), tiny_scenes, tiny_scenes.ids("train"), FinetuneConfig(), tmp_path, seed=0
        )
