"""The embedded teacher as a model and as files: a small `CLIPModel` that knows the words of the world."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import torch
from transformers import CLIPModel, PreTrainedTokenizerFast

from wsss.models.embedded.compose import IMAGE_MEAN, IMAGE_STD, INPUT_SIZE
from wsss.models.embedded.concepts import PROMPT, caption_words
from wsss.models.teacher_folder import save_teacher
from wsss.models.tiny_clip import TinyClipConfig, tiny_clip, word_tokenizer

LARGEST_SCALE: Final = 15.0
SIZES: Final = TinyClipConfig(
    image_size=INPUT_SIZE,
    patch_size=8,
    width=128,
    layers=4,
    heads=4,
    text_width=128,
    text_layers=2,
    context_length=12,
    embedding_size=64,
    dropout=0.0,
    initial_logit_scale=10.0,
    initial_std=0.05,
)


def new_tokenizer() -> PreTrainedTokenizerFast:
    """Splits at spaces and punctuation; one token for each word of the world."""
    return word_tokenizer([" ".join(caption_words())], SIZES.context_length)


def new_clip(seed: int) -> CLIPModel:
    """A small CLIP with random weights: about 1.2 million parameters, 64 px, patches of 8."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return tiny_clip(SIZES, new_tokenizer())


def save_clip(folder: Path, model: CLIPModel, about: dict[str, Any]) -> None:
    """Write the teacher in half precision, complete or not at all.

    Args:
        folder: made anew; an older teacher there is replaced.
        model: trained in float32.
        about: how it was made; written into `teacher.json` beside the prompt template.
    """
    save_teacher(
        folder,
        model,
        new_tokenizer(),
        mean=IMAGE_MEAN,
        std=IMAGE_STD,
        prompt_template=PROMPT,
        half=True,
        card=about,
    )
