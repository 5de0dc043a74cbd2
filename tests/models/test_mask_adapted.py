"""Mask-adapted CLIP against a slow one written out by hand, and the conversion of OVSeg's checkpoint."""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from wsss.errors import ShapeError, WeightsError
from wsss.models.clip import HuggingFaceTeacher, ImageTextTeacher, load_teacher
from wsss.models.clip_finetuning import FinetuneConfig, finetune
from wsss.models.mask_adapted import MaskAdaptedTeacher, RegionTeacher, token_masks
from wsss.models.ovseg_import import PREFIX, convert_ovseg
from wsss.models.teacher_folder import save_teacher
from wsss.models.tiny_clip import TinyClipConfig, tiny_clip, word_tokenizer

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
WORDS = "a photo of the cat dining table person sky ."
SIZE, PATCH, GRID, WIDTH, HEADS, BLOCKS = 32, 8, 4, 32, 2, 4


def small_clip(seed: int = 0) -> tuple[Any, Any]:
    torch.manual_seed(seed)
    tokenizer = word_tokenizer([WORDS], 10)
    config = TinyClipConfig(
        image_size=SIZE,
        patch_size=PATCH,
        width=WIDTH,
        layers=BLOCKS,
        heads=HEADS,
        text_width=16,
        context_length=10,
        embedding_size=24,
        initial_std=0.15,
    )
    model = tiny_clip(config, tokenizer)
    for name, parameter in model.named_parameters():
        if "norm" in name or name.endswith("bias"):
            parameter.data += 0.1 * torch.randn_like(parameter)  # or nothing would tell them apart
    return model, tokenizer


def prompts(depth: int = 3, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(depth, GRID * GRID, WIDTH, generator=generator)


def adapted(depth: int = 3, **options: Any) -> MaskAdaptedTeacher:
    model, tokenizer = small_clip()
    return MaskAdaptedTeacher(model, tokenizer, prompts(depth), mean=MEAN, std=STD, **options)


def examples(count: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(7)
    images = torch.randn(count, 3, SIZE, SIZE, generator=generator)
    masks = torch.rand(count, 1, GRID, GRID, generator=generator) > 0.4
    return images, masks


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


# Conversion of OVSeg's checkpoint


def openai_layout(model: Any, mask_embedding: Tensor) -> dict[str, Tensor]:
    """A `CLIPModel` in the layout of OpenAI's code, with OVSeg's mask embedding."""
    own = {name: value.detach().clone() for name, value in model.state_dict().items()}
    state = {
        "visual.conv1.weight": own["vision_model.embeddings.patch_embedding.weight"],
        "visual.class_embedding": own["vision_model.embeddings.class_embedding"],
        "visual.positional_embedding": own["vision_model.embeddings.position_embedding.weight"],
        "visual.proj": own["visual_projection.weight"].T.contiguous(),
        "visual.mask_embedding": mask_embedding,
        "token_embedding.weight": own["text_model.embeddings.token_embedding.weight"],
        "positional_embedding": own["text_model.embeddings.position_embedding.weight"],
        "text_projection": own["text_projection.weight"].T.contiguous(),
        "logit_scale": own["logit_scale"],
    }
    for kind in ("weight", "bias"):
        state[f"visual.ln_pre.{kind}"] = own[f"vision_model.pre_layrnorm.{kind}"]
        state[f"visual.ln_post.{kind}"] = own[f"vision_model.post_layernorm.{kind}"]
        state[f"ln_final.{kind}"] = own[f"text_model.final_layer_norm.{kind}"]
        for theirs, ours, blocks in (
            ("visual.transformer", "vision_model", 4),
            ("transformer", "text_model", 2),
        ):
            for i in range(blocks):
                to, of = f"{theirs}.resblocks.{i}", f"{ours}.encoder.layers.{i}"
                state[f"{to}.attn.in_proj_{kind}"] = torch.cat(
                    [own[f"{of}.self_attn.{letter}_proj.{kind}"] for letter in ("q", "k", "v")]
                )
                state[f"{to}.attn.out_proj.{kind}"] = own[f"{of}.self_attn.out_proj.{kind}"]
                state[f"{to}.ln_1.{kind}"] = own[f"{of}.layer_norm1.{kind}"]
                state[f"{to}.ln_2.{kind}"] = own[f"{of}.layer_norm2.{kind}"]
                state[f"{to}.mlp.c_fc.{kind}"] = own[f"{of}.mlp.fc1.{kind}"]
                state[f"{to}.mlp.c_proj.{kind}"] = own[f"{of}.mlp.fc2.{kind}"]
    return state


def ovseg_state() -> dict[str, Tensor]:
    """OVSeg's CLIP: another vision tower than the base's, the same text tower; OpenAI's layout."""
    base, other = small_clip(0)[0], small_clip(5)[0]
    theirs = {name: value for name, value in base.state_dict().items() if name.startswith("text_")}
    other.load_state_dict(theirs, strict=False)
    return openai_layout(other, prompts())


def whole_model(state: dict[str, Tensor]) -> dict[str, Any]:
    """The same inside OVSeg's whole model, with other parts beside it."""
    inside: dict[str, Any] = {PREFIX + name: value for name, value in state.items()}
    inside["backbone.patch_embed.proj.weight"] = torch.zeros(3)
    inside["clip_adapter.non_object_embedding"] = torch.zeros(1, 24)
    return {"model": inside, "iteration": 7, "optimizer": {"state": {}}}


def test_a_converted_checkpoint_gives_the_original_features(plain_folder: Path, tmp_path: Path) -> None:
    torch.save(whole_model(ovseg_state()), tmp_path / "ovseg.pth")
    folder = convert_ovseg(tmp_path / "ovseg.pth", plain_folder, tmp_path / "teacher")
    assert {path.name for path in tmp_path.iterdir()} == {"ovseg.pth", "teacher"}
    teacher = load_teacher(folder)
    assert isinstance(teacher, MaskAdaptedTeacher)
    expected = MaskAdaptedTeacher(*small_clip(5), prompts(), mean=MEAN, std=STD)
    images, masks = examples()
    torch.testing.assert_close(
        teacher.encode_regions(images, masks), expected.encode_regions(images, masks), rtol=0, atol=0
    )
    base = load_teacher(plain_folder)
    assert teacher.encode_texts(["cat", "sky"]).equal(base.encode_texts(["cat", "sky"]))
    assert (teacher.mean, teacher.std, teacher.prompt_template) == (base.mean, base.std, base.prompt_template)
    card = json.loads((folder / "teacher.json").read_text())
    assert card["licence"] == "CC BY-NC 4.0 (non-commercial)"
    assert card["source"].startswith("OVSeg")
    assert len(card["sha256"]) == 64


@pytest.mark.parametrize("form", ["bare", "state_dict", "half", "safetensors", "sizes", "nested"])
def test_other_forms_of_the_same_checkpoint_give_the_same(
    plain_folder: Path, tmp_path: Path, form: str
) -> None:
    state, path = ovseg_state(), tmp_path / "weights.pt"
    if form == "safetensors":
        path = tmp_path / "weights.safetensors"
        save_file(state, path)
    elif form == "sizes":
        torch.save({**state, "input_resolution": torch.tensor(32), "vocab_size": torch.tensor(9)}, path)
    elif form == "half":
        torch.save(whole_model({name: value.half() for name, value in state.items()}), path)
    else:
        bare = {"bare": state, "state_dict": {"state_dict": state, "epoch": 3}}
        torch.save(bare.get(form, {"state_dict": whole_model(state)}), path)
    teacher = load_teacher(convert_ovseg(path, plain_folder, tmp_path / "teacher"))
    assert isinstance(teacher, MaskAdaptedTeacher)
    images, masks = examples()
    expected = MaskAdaptedTeacher(*small_clip(5), prompts(), mean=MEAN, std=STD).encode_regions(images, masks)
    tolerance = 5e-2 if form == "half" else 0.0
    torch.testing.assert_close(teacher.encode_regions(images, masks), expected, rtol=0, atol=tolerance)


def without(name: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda state: {key: value for key, value in state.items() if key != name}


def changed(
    name: str, change: Callable[[Tensor], Tensor]
) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda state: {**state, name: change(state[name])}


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            without("visual.ln_post.bias"),
            r"missing \['visual.ln_post.bias'\], unknown \[\], other shapes \[\]",
        ),
        (
            without("visual.transformer.resblocks.3.attn.in_proj_weight"),
            r"missing \['visual.transformer.resblocks.3.attn.in_proj_weight'\]",
        ),
        (without("visual.mask_embedding"), r"missing \['visual.mask_embedding'\]"),
        (without("ln_final.weight"), r"missing \['ln_final.weight'\]"),
        (lambda state: {**state, "visual.extra": torch.zeros(2)}, r"unknown \['visual.extra'\]"),
        (
            lambda state: {**state, "visual.transformer.resblocks.4.ln_1.bias": torch.zeros(32)},
            r"unknown \['visual.transformer.resblocks.4.ln_1.bias'\]",
        ),
        (changed("visual.mask_embedding", torch.zeros_like), "zero everywhere"),
        (
            changed("visual.mask_embedding", lambda value: value[:, :1]),
            r"\(1 to 4, 16, 32\); got \(3, 1, 32\)",
        ),
        (
            changed("visual.positional_embedding", lambda value: value[:10]),
            r"'visual.positional_embedding \(10, 32\) instead of \(17, 32\)'",
        ),
        (changed("visual.proj", lambda value: value.T), r"visual.proj \(24, 32\) instead of \(32, 24\)"),
        (
            changed("visual.transformer.resblocks.0.attn.in_proj_bias", lambda value: value[:32]),
            r"in_proj_bias \(32,\) instead of \(96,\)",
        ),
        (
            changed("token_embedding.weight", lambda value: value + 0.1 * torch.randn_like(value)),
            r"text tower in .*weights.pt is not that of .*: unit features differ by up to 0\.",
        ),
        (changed("text_projection", lambda value: value * math.nan), "text tower .* differ by up to nan"),
        (
            lambda state: {**state, "visual.conv1.weight": "a word"},
            r"\['visual.conv1.weight'\] are something",
        ),
    ],
)
def test_whatever_does_not_fit_stops_the_conversion(
    plain_folder: Path, tmp_path: Path, edit: Callable[[dict[str, Tensor]], dict[str, Any]], message: str
) -> None:
    torch.save(whole_model(edit(ovseg_state())), tmp_path / "weights.pt")
    with pytest.raises(WeightsError, match=message):
        convert_ovseg(tmp_path / "weights.pt", plain_folder, tmp_path / "teacher")
    assert [path.name for path in tmp_path.iterdir()] == ["weights.pt"]


def test_a_wrong_prefix_is_named_beside_the_right_one(plain_folder: Path, tmp_path: Path) -> None:
    state = {f"adapter.clip.{name}": value for name, value in ovseg_state().items()}
    torch.save({"model": {**state, "backbone.norm.weight": torch.ones(2)}}, tmp_path / "weights.pt")
    with pytest.raises(
        WeightsError, match=r"no entry under `clip_adapter\.clip_model\.`.*found \['adapter\.clip\.'\]"
    ):
        convert_ovseg(tmp_path / "weights.pt", plain_folder, tmp_path / "teacher")
    torch.save({"backbone.norm.weight": torch.ones(2)}, tmp_path / "weights.pt")
    with pytest.raises(WeightsError, match=r"found \['backbone\.norm\.'\]"):
        convert_ovseg(tmp_path / "weights.pt", plain_folder, tmp_path / "teacher")


class Trap:
    """Calls a function when it is unpickled."""

    def __init__(self, *called: Any) -> None:
        self.called = called

    def __reduce__(self) -> Any:
        return self.called[0], self.called[1:]


def test_foreign_objects_need_consent_and_never_run(plain_folder: Path, tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    foreign = {
        "config": argparse.Namespace(depth=3),
        "loss": np.float64(0.5),
        "history": np.arange(3),
        "trap": Trap(open, str(sprung), "w"),
    }
    torch.save({**whole_model(ovseg_state()), **foreign}, tmp_path / "weights.pt")
    with pytest.raises(
        WeightsError, match=r"holds more than tensors: .*argparse\.Namespace.*`allow_pickle=True`"
    ):
        convert_ovseg(tmp_path / "weights.pt", plain_folder, tmp_path / "teacher")
    folder = convert_ovseg(tmp_path / "weights.pt", plain_folder, tmp_path / "teacher", allow_pickle=True)
    assert isinstance(load_teacher(folder), MaskAdaptedTeacher)
    trap = Trap(os.system, f"touch {sprung}")
    torch.save({**whole_model(ovseg_state()), "trap": trap}, tmp_path / "weights.pt")
    with pytest.raises(
        WeightsError, match=r"can't be read without running its code, which asks for \['posix\.system'\]"
    ):
        convert_ovseg(tmp_path / "weights.pt", plain_folder, tmp_path / "teacher", allow_pickle=True)
    assert not sprung.exists()


def test_missing_damaged_and_other_files_are_named(plain_folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "teacher"
    with pytest.raises(WeightsError, match="There is no weights file"):
        convert_ovseg(tmp_path / "none.pt", plain_folder, target)
    torch.save(whole_model(ovseg_state()), tmp_path / "cut.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "cut.pt").read_bytes()[:5000])
    (tmp_path / "text.pt").write_text("no weights at all")
    for name in ("cut.pt", "text.pt"):
        for allow_pickle in (False, True):
            with pytest.raises(WeightsError, match="is damaged"):
                convert_ovseg(tmp_path / name, plain_folder, target, allow_pickle=allow_pickle)
    torch.save([torch.ones(2)], tmp_path / "list.pt")
    with pytest.raises(WeightsError, match="must hold named tensors; got list"):
        convert_ovseg(tmp_path / "list.pt", plain_folder, target)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "0001.jpg").write_bytes(b"dear")
    with pytest.raises(WeightsError, match="holds something else"):
        convert_ovseg(tmp_path / "none.pt", plain_folder, tmp_path / "photos")
    assert not target.exists()


def test_fine_tuning_refuses_what_would_lose_the_prompts(
    adapted_folder: Path, tiny_scenes: Any, tmp_path: Path
) -> None:
    with pytest.raises(WeightsError, match="has mask prompts"):
        finetune(
            str(adapted_folder), tiny_scenes, tiny_scenes.ids("train"), FinetuneConfig(), tmp_path, seed=0
        )
