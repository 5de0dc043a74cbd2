"""A small CLIP with random weights and prompts, for the tests of mask-adapted teachers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from wsss.models.mask_adapted import MaskAdaptedTeacher
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
