"""Image-text teachers: what methods ask of them, and the adapter to Hugging Face's CLIP family.

A teacher turns region images and texts into vectors whose cosine says how well they match. It is frozen:
gradients reach the input image, never the weights. Everything that depends on the checkpoint - image size,
normalisation, prompt template, context length - is read from the checkpoint's own files.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Final, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from typing_extensions import Self

from wsss.checks import check_shape
from wsss.errors import WeightsError
from wsss.models.teacher_folder import (
    MASK_PROMPTS,
    PROMPT_TEMPLATE,
    has_safetensors,
    read_card,
    read_config,
    read_statistics,
    triple,
)
from wsss.models.weights import find_weights

logger = logging.getLogger(__name__)

FAMILIES: Final = ("clip", "siglip")
TEXTS_AT_ONCE: Final = 256

Precision = Literal["float32", "bfloat16"]


@runtime_checkable
class ImageTextTeacher(Protocol):
    """A frozen model that compares images with texts.

    Attributes:
        image_size: S, the side of its square input in pixels.
        mean, std: statistics of its input, RGB in [0, 1].
        prompt_template: text with one `{}` for the name of a thing.
    """

    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    prompt_template: str

    def encode_images(self, images: Tensor) -> Tensor:
        """Vectors (B, E) float32, not normalised, of images (B, 3, S, S) normalised with `mean` and `std`."""

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Vectors (T, E) float32, not normalised, without gradient."""


class HuggingFaceTeacher(nn.Module):
    """A CLIP or SigLIP model of transformers, frozen.

    Weights never train, the mode is always evaluation, and what comes after the encoders (projections,
    SigLIP's pooling head) runs in float32 whatever autocast surrounds the call: CBS compares cosines with
    thresholds that bfloat16 can't resolve.

    Args:
        model: a `CLIPModel` or `SiglipModel`.
        tokenizer: its tokenizer.
        mean, std: statistics of its input, RGB in [0, 1].
        prompt_template: text with one `{}`.
        precision: of the encoders: "float32", or "bfloat16" by autocast.
        name: where it came from, for messages and reports.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        prompt_template: str = PROMPT_TEMPLATE,
        precision: Precision = "float32",
        name: str = "teacher",
    ) -> None:
        super().__init__()
        config: Any = model.config
        if config.model_type not in FAMILIES:
            raise WeightsError(
                f"Teacher {name} is a `{config.model_type}` model; expected one of {list(FAMILIES)}. "
                "Use a checkpoint of the CLIP or SigLIP family."
            )
        self.model = model.float().requires_grad_(False)
        self.tokenizer = tokenizer
        self.image_size = int(config.vision_config.image_size)
        self.context_length = int(config.text_config.max_position_embeddings)
        self.mean, self.std = triple(mean), triple(std)
        self.prompt_template = prompt_template
        self.precision: Precision = precision
        self.name = name
        self.embedding_size = int(_embedding_size(config))
        self._masks_padding = config.model_type == "clip"  # SigLIP was trained to see its padding
        self._reported: set[str] = set()
        for tail in _tails(model):
            _run_in_float32(tail)
        self.eval()

    def encode_images(self, images: Tensor) -> Tensor:
        """Encode images; gradients flow to `images` and stop at the weights.

        Args:
            images: normalised with `mean` and `std`; (B, 3, S, S), B may be 0.

        Returns:
            (B, E), float32, not normalised. One image's vector does not depend on the others.

        Raises:
            ShapeError: another size than S.
        """
        size = self.image_size
        check_shape("images", images, (None, 3, size, size), "Resize them to the teacher's size.")
        if len(images) == 0:
            return images.float().sum() * torch.zeros((0, self.embedding_size), device=images.device)
        with self._autocast(images.device):
            features = self.model.get_image_features(pixel_values=images.float())  # type: ignore[operator]
        return features_of(features).float()

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Encode texts as they stand (put names into `prompt_template` first).

        A text longer than the model's context is cut, and a word that a small vocabulary lacks is read as
        unknown; either is logged once for each text.

        Returns:
            (T, E), float32, not normalised, on the model's device.
        """
        device = next(self.model.parameters()).device
        parts = [torch.zeros((0, self.embedding_size), device=device)]
        for start in range(0, len(texts), TEXTS_AT_ONCE):
            tokens = self.tokenize(texts[start : start + TEXTS_AT_ONCE])
            with self._autocast(device):
                features = self.model.get_text_features(  # type: ignore[operator]
                    **{key: value.to(device) for key, value in tokens.items()}
                )
            parts.append(features_of(features).float())
        return torch.cat(parts)

    def tokenize(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Token ids, and for CLIP their attention mask; (T, context length) each, padded to that length."""
        self._report(texts)
        encoded = self.tokenizer(
            list(texts),
            padding="max_length",
            truncation=True,
            max_length=self.context_length,
            return_tensors="pt",
        )
        kept = ("input_ids", "attention_mask") if self._masks_padding else ("input_ids",)
        return {key: encoded[key] for key in kept}

    def train(self, mode: bool = True) -> Self:
        """A teacher is never in training mode."""
        return super().train(False)

    def _autocast(self, device: torch.device) -> AbstractContextManager[Any]:
        is_half = self.precision == "bfloat16"
        return torch.autocast(device.type, dtype=torch.bfloat16, enabled=is_half)

    def _report(self, texts: Sequence[str]) -> None:
        """Log texts that the tokenizer can't hold; each once."""
        log_odd_texts(texts, self.tokenizer, self.context_length, f"Teacher {self.name}", self._reported)


def load_teacher(
    name: str | Path,
    *,
    precision: Precision = "float32",
    prompt_template: str | None = None,
    allow_pickle: bool = False,
) -> HuggingFaceTeacher:
    """Load a teacher from this machine; nothing is ever downloaded here.

    A licence on the checkpoint's card that excludes commercial use is logged once.

    Args:
        name: "embedded" (the shipped teacher of the generated scenes), a folder with a CLIP or SigLIP
            checkpoint in Hugging Face's format, or an id in the local Hugging Face cache, with `@revision`
            if wanted.
        precision: of the encoders, see `HuggingFaceTeacher`.
        prompt_template: text with one `{}`; None: the checkpoint's own, else "a photo of {}.".
        allow_pickle: also read `pytorch_model.bin` (tensors only) where there is no safetensors file.

    Returns:
        The frozen teacher, float32, on the CPU; a `MaskAdaptedTeacher` where the checkpoint has mask prompts.

    Raises:
        WeightsError: not here (the message names the command that gets it), incomplete, weights as pickle
            only, or another kind of model.
    """
    folder = find_weights(name)
    read_config(folder)
    safe = has_safetensors(folder, allow_pickle=allow_pickle)
    mean, std = read_statistics(folder)
    card = read_card(folder)
    template = prompt_template or str(card.get("prompt_template", PROMPT_TEMPLATE))
    if template.count("{}") != 1:
        raise WeightsError(f"`prompt_template` must hold {{}} once; got {template!r}.")
    from transformers import AutoModel

    model, tokenizer = read_model(folder, AutoModel, safe=safe)
    _tell_licence(str(name), str(card.get("licence", "")), str(card.get("licence_note", "")))
    settings: dict[str, Any] = {
        "mean": mean,
        "std": std,
        "prompt_template": template,
        "precision": precision,
        "name": str(name),
    }
    if not (folder / MASK_PROMPTS).is_file():
        return HuggingFaceTeacher(model, tokenizer, **settings)
    from wsss.models.mask_adapted import MaskAdaptedTeacher, read_mask_embedding

    return MaskAdaptedTeacher(model, tokenizer, read_mask_embedding(folder), **settings)


def read_model(folder: Path, model_class: Any, *, safe: bool) -> tuple[nn.Module, Any]:
    """The complete model of a checkpoint, and its tokenizer; from these files alone.

    Args:
        folder: the checkpoint, in Hugging Face's format.
        model_class: a model class of transformers.
        safe: read safetensors; otherwise a pickle (its tensors only).

    Raises:
        WeightsError: damaged or incomplete.
    """
    from transformers import AutoTokenizer

    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        with _no_progress_bars():
            model, report = model_class.from_pretrained(
                folder, use_safetensors=safe, output_loading_info=True, **options
            )
        tokenizer = AutoTokenizer.from_pretrained(folder, **options)
    except Exception as error:  # a damaged configuration makes transformers raise almost anything
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise WeightsError(
            f"The checkpoint in {folder} can't be loaded ({reason}). Check that all its files are there."
        ) from error
    missing = sorted(report["missing_keys"])
    if missing:  # transformers would leave them random
        raise WeightsError(
            f"The weights in {folder} lack {missing[:3]} and {max(0, len(missing) - 3)} more. "
            "Use a complete checkpoint of the model that its config.json describes."
        )
    return model, tokenizer


@functools.cache  # said once, however often the teacher is loaded
def _tell_licence(name: str, licence: str, note: str) -> None:
    """Log a licence that excludes commercial use."""
    words = f"{licence} {note}".lower()
    if any(term in words for term in ("non-commercial", "noncommercial", "by-nc")):
        logger.warning("Teacher %s: licence %s", name, f"{licence} {note}".strip())


def log_odd_texts(
    texts: Sequence[str], tokenizer: Any, context_length: int, reader: str, reported: set[str]
) -> None:
    """Log texts that are cut, or hold a word that the vocabulary lacks; each once.

    Args:
        texts: what is to be read.
        tokenizer: of transformers.
        context_length: tokens that fit.
        reader: who reads, for the message: "Teacher x".
        reported: texts that were looked at before; the new ones are added.
    """
    new = [text for text in dict.fromkeys(texts) if text not in reported]
    if not new:
        return
    reported.update(new)
    unknown = tokenizer.unk_token_id
    if unknown in (tokenizer.eos_token_id, tokenizer.pad_token_id):
        unknown = None  # byte-level vocabularies know every text
    lists = tokenizer(new, truncation=False, verbose=False)["input_ids"]
    for text, ids in zip(new, lists, strict=True):
        if len(ids) > context_length:
            logger.warning("%s reads %d tokens only of %r", reader, context_length, text)
        if unknown is not None and unknown in ids:
            logger.warning("%s does not know every word of %r", reader, text)


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    """Keep transformers from drawing its own bars while it loads."""
    from transformers.utils import logging as settings

    were_shown = settings.is_progress_bar_enabled()
    settings.disable_progress_bar()
    try:
        yield
    finally:
        if were_shown:
            settings.enable_progress_bar()


def _embedding_size(config: Any) -> int:
    """CLIP projects to `projection_dim`; SigLIP's heads keep the text tower's projection size."""
    if config.model_type == "clip":
        return int(config.projection_dim)
    return int(getattr(config.text_config, "projection_size", None) or config.text_config.hidden_size)


def _tails(model: Any) -> list[nn.Module]:
    """What turns encoder states into vectors."""
    if model.config.model_type == "clip":
        return [model.visual_projection, model.text_projection]
    vision = getattr(model.vision_model, "head", None)
    return [tail for tail in (vision, model.text_model.head) if tail is not None]


def _run_in_float32(module: nn.Module) -> None:
    """Make `module` compute in float32 under any autocast."""
    compute = module.forward

    def forward(states: Tensor, *args: Any, **kwargs: Any) -> Any:
        with torch.autocast(states.device.type, enabled=False):
            return compute(states.float(), *args, **kwargs)

    module.forward = forward


def features_of(features: Any) -> Tensor:
    """The vectors in what `get_image_features` gave: transformers 4 a tensor, 5 an object that holds it."""
    result = features if isinstance(features, Tensor) else features.pooler_output
    assert isinstance(result, Tensor)
    return result
