"""Small CLIP models with a word vocabulary, for teachers that are trained from scratch.

They are ordinary `CLIPModel`s of transformers; `models.teacher_folder.save_teacher` writes checkpoints.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field
from torch import nn

PADDING, UNKNOWN, START, END = "<pad>", "<unknown>", "<start>", "<end>"
SPECIAL: Final = (PADDING, UNKNOWN, START, END)  # END is not 2, which CLIPModel reads as "the highest id"


class TinyClipConfig(BaseModel):
    """Size of a small CLIP; the defaults make about a million parameters."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    image_size: int = Field(64, ge=16, description="Side of the square input in pixels.")
    patch_size: int = Field(8, ge=2, description="Side of a patch in pixels; must divide `image_size`.")
    width: int = Field(128, ge=16, description="Channels of the image tower.")
    layers: int = Field(4, ge=1, description="Blocks of the image tower.")
    heads: int = Field(4, ge=1, description="Attention heads of both towers.")
    text_width: int = Field(128, ge=16, description="Channels of the text tower.")
    text_layers: int = Field(2, ge=1, description="Blocks of the text tower.")
    context_length: int = Field(12, ge=4, description="Tokens of a text, start and end included.")
    embedding_size: int = Field(64, ge=8, description="E, length of the common vectors.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout of attention weights in training.")
    initial_logit_scale: float = Field(10.0, gt=0, description="Factor of cosines at the start of training.")
    initial_std: float = Field(0.05, gt=0, description="Standard deviation of random weights.")


def word_tokenizer(texts: Iterable[str], context_length: int) -> Any:
    """A lower-case word-level tokenizer that knows the words of `texts` and nothing else.

    Args:
        texts: every text that must be understood.
        context_length: tokens of a padded text, start and end included.

    Returns:
        A `PreTrainedTokenizerFast`; the same words give the same ids, whatever their order.

    Example:
        >>> tokenizer = word_tokenizer(["a red barn"], 8)
        >>> tokenizer.convert_ids_to_tokens(tokenizer("A barn, red!")["input_ids"])
        ['<start>', 'a', 'barn', '<unknown>', 'red', '<unknown>', '<end>']
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    splitter = pre_tokenizers.Whitespace()
    words = {word for text in texts for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text))}
    vocabulary = {word: number for number, word in enumerate([*SPECIAL, *sorted(words - set(SPECIAL))])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, splitter
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=[(token, vocabulary[token]) for token in (START, END)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=context_length,
        pad_token=PADDING,
        unk_token=UNKNOWN,
        bos_token=START,
        eos_token=END,
        model_input_names=["input_ids", "attention_mask"],
    )


def tiny_clip(config: TinyClipConfig, tokenizer: Any) -> nn.Module:
    """A `CLIPModel` of the given size with random weights (from torch's global generator)."""
    from transformers import CLIPConfig, CLIPModel

    special = {
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": config.text_width,
        "intermediate_size": 4 * config.text_width,
        "num_hidden_layers": config.text_layers,
        "num_attention_heads": config.heads,
        "max_position_embeddings": config.context_length,
        "projection_dim": config.embedding_size,
        "attention_dropout": config.dropout,
        **special,
    }
    vision = {
        "image_size": config.image_size,
        "patch_size": config.patch_size,
        "hidden_size": config.width,
        "intermediate_size": 4 * config.width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "projection_dim": config.embedding_size,
        "attention_dropout": config.dropout,
    }
    model: nn.Module = CLIPModel(
        CLIPConfig(
            text_config=text,
            vision_config=vision,
            projection_dim=config.embedding_size,
            logit_scale_init_value=math.log(config.initial_logit_scale),
        )
    )
    _spread(model, config.initial_std)
    return model


def _spread(model: nn.Module, std: float) -> None:
    """Draw all matrices with one standard deviation: CLIP's own is too narrow for towers this thin."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Embedding | nn.Conv2d):
            nn.init.normal_(module.weight, std=std)
            if getattr(module, "bias", None) is not None:
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]
    for name, parameter in model.named_parameters():
        if name.endswith("class_embedding"):
            nn.init.normal_(parameter, std=std)
