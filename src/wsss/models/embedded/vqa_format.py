"""The embedded VQA as a model and as files: a small `BlipForQuestionAnswering` for the words of the world."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import (
    BlipConfig,
    BlipForQuestionAnswering,
    CLIPModel,
    PreTrainedTokenizerFast,
)

from wsss.data.scenes.vocabulary import vocabulary
from wsss.errors import WeightsError
from wsss.models.embedded.compose import IMAGE_MEAN, IMAGE_STD
from wsss.models.embedded.vqa_pictures import DRAWN_SIZE, PATCH, answer_words
from wsss.models.teacher_folder import write_checkpoint
from wsss.models.tiny_clip import word_tokenizer

CARD: Final = "vqa.json"
LONGEST_TEXT: Final = 16  # tokens of a question or an answer, start and end included
INITIAL_STD: Final = 0.05
TEXT: Final[Mapping[str, Any]] = {
    "hidden_size": 128,
    "encoder_hidden_size": 128,
    "intermediate_size": 512,
    "projection_dim": 128,
    "num_hidden_layers": 2,  # of the question encoder and of the answer decoder each
    "num_attention_heads": 4,
    "max_position_embeddings": LONGEST_TEXT,
}
VISION: Final[Mapping[str, Any]] = {
    "image_size": DRAWN_SIZE,
    "patch_size": PATCH,
    "hidden_size": 128,
    "intermediate_size": 512,
    "projection_dim": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "hidden_act": "quick_gelu",  # as in the teacher whose tower it starts from
}


def new_vqa_tokenizer() -> PreTrainedTokenizerFast:
    """Splits at spaces and punctuation; one token for each word of the questions and the answers."""
    words = vocabulary()
    questions = [template.format(item.name) for template, _ in words.questions for item in words.classes]
    return word_tokenizer([*questions, *answer_words()], LONGEST_TEXT)


def new_vqa(seed: int) -> BlipForQuestionAnswering:
    """A small BLIP with random weights: about 2 million parameters, 96 px, patches of 12."""
    tokenizer = new_vqa_tokenizer()
    special = {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "sep_token_id": tokenizer.eos_token_id,  # what ends an answer
    }
    config = BlipConfig(text_config={**TEXT, **special}, vision_config=dict(VISION), projection_dim=128)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = BlipForQuestionAnswering(config)
        for name, weight in sorted(model.named_parameters()):
            if weight.ndim >= 2:
                nn.init.normal_(weight, std=INITIAL_STD)
            elif name.endswith("bias"):
                nn.init.zeros_(weight)
    return model


@torch.no_grad()
def start_from_teacher(model: BlipForQuestionAnswering, teacher: CLIPModel, pixels: Tensor) -> None:
    """Give the vision tower a teacher's weights, as far as BLIP's form allows.

    Patches are read through the same weights after shrinking to the teacher's size. CLIP normalises its
    embeddings before the first block, BLIP does not: this is folded into the embeddings, exactly for the
    class token, which is the same for all images, and with the mean deviation for the patches.

    Args:
        model: changed in place.
        teacher: with the same number of patches, blocks and channels.
        pixels: some images, normalised; (B, 3, H, W).
    """
    old, new = teacher.vision_model, model.vision_model
    kernel = old.embeddings.patch_embedding.weight  # (D, 3, 8, 8)
    side, fine = kernel.shape[-1], new.embeddings.patch_embedding.weight.shape[-1]
    shrink = shrinking(fine, side)
    kernel = torch.einsum("dcij,iy,jx->dcyx", kernel, shrink, shrink)
    norm = old.pre_layrnorm
    place = old.embeddings.position_embedding.weight  # (1 + N, D)
    patches = F.conv2d(pixels, kernel, stride=fine).flatten(2).mT + place[1:]  # (B, N, D)
    deviation = patches.std(dim=2).mean()

    def folded(values: Tensor) -> Tensor:
        centred: Tensor = (values - values.mean(dim=-1, keepdim=True)) * norm.weight / deviation
        return centred

    new.embeddings.patch_embedding.weight.copy_(folded(kernel.permute(1, 2, 3, 0)).permute(3, 0, 1, 2))
    new.embeddings.patch_embedding.bias.zero_()
    new.embeddings.class_embedding.zero_()
    token = norm(old.embeddings.class_embedding + place[:1])
    new.embeddings.position_embedding.copy_(torch.cat([token, folded(place[1:]) + norm.bias])[None])
    new.post_layernorm.load_state_dict(old.post_layernorm.state_dict())
    for mine, theirs in zip(new.encoder.layers, old.encoder.layers, strict=True):
        for part in ("layer_norm1", "layer_norm2", "mlp"):
            getattr(mine, part).load_state_dict(getattr(theirs, part).state_dict())
        attention = theirs.self_attn
        three = (attention.q_proj, attention.k_proj, attention.v_proj)
        mine.self_attn.qkv.weight.copy_(torch.cat([layer.weight for layer in three]))
        mine.self_attn.qkv.bias.copy_(torch.cat([layer.bias for layer in three]))
        mine.self_attn.projection.load_state_dict(attention.out_proj.state_dict())


def shrinking(size: int, smaller: int) -> Tensor:
    """What takes a row of `size` pixels to `smaller` ones, each the mean of what it covers; (smaller, size).

    Example:
        >>> shrinking(3, 2)
        tensor([[0.6667, 0.3333, 0.0000],
                [0.0000, 0.3333, 0.6667]])
    """
    edges = torch.arange(smaller + 1) * (size / smaller)
    places = torch.arange(size)
    upper = torch.minimum(edges[1:, None], places + 1.0)
    return (upper - torch.maximum(edges[:-1, None], places.float())).clamp_min(0) * (smaller / size)


def check_vqa_target(folder: Path) -> None:
    """Make sure that a VQA can be written to `folder` without loss.

    Raises:
        WeightsError: it is a file, or a folder that holds anything but a VQA.
    """
    if folder.is_dir() and ((folder / CARD).is_file() or not any(folder.iterdir())):
        return
    if folder.exists():
        raise WeightsError(
            f"{folder} is to become a VQA's folder, but holds something else. "
            "Give a folder that does not exist yet, such as `--out vqa/mine`."
        )


def save_vqa(folder: Path, model: BlipForQuestionAnswering, about: Mapping[str, Any]) -> Path:
    """Write the VQA in half precision, complete or not at all.

    Args:
        folder: made anew; an older VQA there is replaced.
        model: trained in float32.
        about: how it was made; written into `vqa.json`.
    """
    check_vqa_target(folder)
    return write_checkpoint(
        folder,
        model,
        new_vqa_tokenizer(),
        mean=IMAGE_MEAN,
        std=IMAGE_STD,
        half=True,
        card=about,
        card_name=CARD,
    )
