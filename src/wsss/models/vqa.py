"""Visual question answering: what methods ask of it, and the adapter to Hugging Face's BLIP.

QA-CLIMS asks about each image 16 questions for every class in it. Here an image is encoded once for all of
them, and what the question encoder needs of it is projected once; questions of one length are read and
answered together, so that nothing is ever padded and no answer depends on what else is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn
from typing_extensions import Self

from wsss.checks import check_range
from wsss.errors import ShapeError, WeightsError
from wsss.models.clip import Precision, log_odd_texts, read_model
from wsss.models.teacher_folder import has_safetensors, read_config, read_statistics, triple
from wsss.models.weights import find_weights

ARCHITECTURE: Final = "BlipForQuestionAnswering"
QUESTION_TOKENS: Final = 35  # BLIP
PUBLISHED_SIZE: Final = 480  # pixels; BLIP's own for questions, see `load_vqa`
_ENCODE: Final = "[ENC]"

Pixels = npt.NDArray[np.uint8]  # (H, W, 3) RGB
_Asked = tuple[int, str]  # number of the image, question


@runtime_checkable
class QuestionAnswerer(Protocol):
    """A frozen model that answers questions about images in words.

    Attributes:
        name: where it came from, for messages and reports.
        settings: plain JSON; all that decides the answers besides the weights.
    """

    name: str
    settings: dict[str, Any]

    def answer(self, images: Sequence[Pixels], questions: Sequence[Sequence[str]]) -> list[list[str]]:
        """Answers to `questions[i]` about `images[i]`, (H, W, 3) uint8 RGB of any size, in their order."""


class HuggingFaceVqa(nn.Module):
    """BLIP for visual question answering, of transformers, frozen.

    An image is squashed to a square (bicubic, aspect not kept) and encoded; the question, with the encode
    token in front, is read with attention to the image; the answer is decoded from the question's states by
    beam search.

    Source: BLIP, Li et al., ICML 2022, https://arxiv.org/abs/2201.12086. The defaults are those of QA-CLIMS:
    3 beams, at most 10 tokens with the start token, at least 1, no sampling, questions of at most 35 tokens.

    Differs: the authors answer one question at a time and encode the image again for each. Here an image is
    encoded once, and answers come in batches of questions of equal length; they are the same strings.
    Hugging Face's port leaves the tokenizer's first token in front of a question; BLIP puts its encode token
    there, and so does `encode_token="auto"`: the tokenizer's `[ENC]`, else the token after the start token
    `[DEC]` where the model has these two and the tokenizer doesn't, else the first token stays.

    Args:
        model: a `BlipForQuestionAnswering`.
        tokenizer: its tokenizer.
        mean, std: statistics of its input, RGB in [0, 1].
        image_size: S, the side of its square input in pixels; positions are interpolated (bicubic) where it
            isn't the checkpoint's, which None stands for. BLIP: 480.
        beams: of the search; 1 is greedy. QA-CLIMS: 3.
        max_length: longest answer in tokens, the start token included. QA-CLIMS: 10.
        min_length: shortest answer in tokens, the start token included. QA-CLIMS: 1.
        encode_token: "auto", or "keep" the first token that the tokenizer gives.
        precision: "float32", or "bfloat16" by autocast (answers may change where two are close).
        images_at_once: images encoded together; decides memory, never answers.
        questions_at_once: questions read or answered together; decides memory, never answers.
        name: where it came from, for messages and reports.

    Raises:
        WeightsError: another kind of model, or a tokenizer with more tokens than the model.
        ShapeError: a size, length or number out of range.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        image_size: int | None = None,
        beams: int = 3,
        max_length: int = 10,
        min_length: int = 1,
        encode_token: Literal["auto", "keep"] = "auto",
        precision: Precision = "float32",
        images_at_once: int = 16,
        questions_at_once: int = 64,
        name: str = "vqa",
    ) -> None:
        super().__init__()
        config: Any = model.config
        _check_family(name, config.model_type, [parent.__name__ for parent in type(model).__mro__])
        text = config.text_config
        if len(tokenizer) > text.vocab_size:
            raise WeightsError(
                f"The tokenizer of {name} has {len(tokenizer)} tokens, its model {text.vocab_size} only. "
                "Use the tokenizer that belongs to the model."
            )
        self._own_size = int(config.vision_config.image_size)
        self.image_size = self._own_size if image_size is None else image_size
        patch = int(config.vision_config.patch_size)
        if self.image_size < patch or self.image_size % patch:
            raise ShapeError(
                f"`image_size` must be a multiple of the patch size {patch}; got {self.image_size}. "
                f"The checkpoint's own is {self._own_size}."
            )
        longest = int(text.max_position_embeddings)
        check_range("beams", beams, 1, text.vocab_size)
        check_range("max_length", max_length, 2, longest, "Positions of the answer decoder.")
        check_range("min_length", min_length, 0, max_length, "It can't exceed `max_length`.")
        check_range("images_at_once", images_at_once, 1, float("inf"))
        check_range("questions_at_once", questions_at_once, 1, float("inf"))
        self.model: Any = model.float().requires_grad_(False)
        self.tokenizer = tokenizer
        self.mean, self.std = triple(mean), triple(std)
        self.question_tokens = min(QUESTION_TOKENS, longest)
        self.encode_token = _encode_token(tokenizer, text) if encode_token == "auto" else None
        self.precision: Precision = precision
        self.images_at_once, self.questions_at_once = images_at_once, questions_at_once
        self.name = name
        self._search = {"num_beams": beams, "max_length": max_length, "min_length": min_length}
        self._reported: set[str] = set()
        self.settings: dict[str, Any] = {
            "beams": beams,
            "max_length": max_length,
            "min_length": min_length,
            "image_size": self.image_size,
            "precision": precision,
            "question_tokens": self.question_tokens,
            "encode_token": self.encode_token,
        }
        self.eval()

    @torch.inference_mode()
    def answer(self, images: Sequence[Pixels], questions: Sequence[Sequence[str]]) -> list[list[str]]:
        """Answer questions about images; an answer depends on its image and its question alone.

        A question longer than `question_tokens` is cut, and a word that a small vocabulary lacks is read as
        unknown; either is logged once for each question. A question that is asked twice about an image is
        answered once.

        Args:
            images: RGB, uint8, (H, W, 3) each, of any sizes; those without questions are never looked at.
            questions: `questions[i]` are those about `images[i]`.

        Returns:
            The answers, nested like `questions`; special tokens and outer spaces are gone.

        Raises:
            ShapeError: not one list of questions for each image, or something that is no RGB image.
        """
        _check_inputs(images, questions)
        tokens = self._tokenize([text for own in questions for text in own])
        asked = [number for number, own in enumerate(questions) if own]
        answers: dict[_Asked, str] = {}
        waiting: dict[int, list[tuple[_Asked, Tensor]]] = {}  # by length
        is_half = self.precision == "bfloat16"
        with torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=is_half):
            for number, image in self._encode(images, asked):
                for text, states in self._read(image, questions[number], tokens):
                    alike = waiting.setdefault(len(states), [])
                    alike.append(((number, text), states))
                    if len(alike) == self.questions_at_once:
                        answers.update(self._decode(waiting.pop(len(states))))
            for length in sorted(waiting):
                answers.update(self._decode(waiting[length]))
        return [[answers[number, text] for text in own] for number, own in enumerate(questions)]

    def train(self, mode: bool = True) -> Self:
        """It is never in training mode."""
        return super().train(False)

    @property
    def _device(self) -> torch.device:
        device = next(self.model.parameters()).device
        assert isinstance(device, torch.device)
        return device

    def _tokenize(self, texts: Sequence[str]) -> dict[str, list[int]]:
        """Token ids of each text, the encode token in front, without padding."""
        texts = list(dict.fromkeys(texts))
        if not texts:
            return {}
        log_odd_texts(texts, self.tokenizer, self.question_tokens, f"Answerer {self.name}", self._reported)
        lists = self.tokenizer(texts, truncation=True, max_length=self.question_tokens)["input_ids"]
        first = self.encode_token
        return {
            text: [ids[0] if first is None else first, *ids[1:]]
            for text, ids in zip(texts, lists, strict=True)
        }

    def _encode(self, images: Sequence[Pixels], asked: Sequence[int]) -> Iterator[tuple[int, Tensor]]:
        """The numbers in `asked`, each with the states of its image, (1, N, D): N - 1 patches and a token."""
        for start in range(0, len(asked), self.images_at_once):
            some = asked[start : start + self.images_at_once]
            pixels = torch.stack([_squash(images[number], self.image_size) for number in some])
            pixels = pixels.to(self._device).permute(0, 3, 1, 2).float() / 255  # (B, S, S, 3) -> (B, 3, S, S)
            mean, std = (pixels.new_tensor(values).view(3, 1, 1) for values in (self.mean, self.std))
            states = self.model.vision_model(
                pixel_values=(pixels - mean) / std,
                interpolate_pos_encoding=self.image_size != self._own_size,
            )[0]
            yield from zip(some, states.split(1), strict=True)

    def _read(
        self, image: Tensor, texts: Iterable[str], tokens: dict[str, list[int]]
    ) -> list[tuple[str, Tensor]]:
        """Each different text with the states of its tokens, (tokens, D), which have seen the image."""
        lengths: dict[int, list[str]] = {}
        for text in dict.fromkeys(texts):
            lengths.setdefault(len(tokens[text]), []).append(text)
        read: list[tuple[str, Tensor]] = []
        with _projected_once(self.model.text_encoder):
            for alike in lengths.values():
                for start in range(0, len(alike), self.questions_at_once):
                    some = alike[start : start + self.questions_at_once]
                    ids = torch.tensor([tokens[text] for text in some], device=image.device)
                    # one image for a batch of questions: its keys and values are broadcast
                    states = self.model.text_encoder(input_ids=ids, encoder_hidden_states=image)[0]
                    read += zip(some, states, strict=True)
        return read

    def _decode(self, read: Sequence[tuple[_Asked, Tensor]]) -> dict[_Asked, str]:
        """The answers to questions of one length, from their states."""
        states = torch.stack([own for _, own in read])
        text = self.model.config.text_config
        ids = self.model.text_decoder.generate(
            input_ids=torch.full((len(read), 1), text.bos_token_id, device=states.device),
            encoder_hidden_states=states,
            encoder_attention_mask=torch.ones(states.shape[:2], dtype=torch.long, device=states.device),
            eos_token_id=text.sep_token_id,
            pad_token_id=text.pad_token_id,
            do_sample=False,
            **self._search,
        )
        return {key: self._text(row) for (key, _), row in zip(read, ids[:, 1:].tolist(), strict=True)}

    def _text(self, ids: Sequence[int]) -> str:
        """The words of an answer, spaces cleaned up as the authors' tokenizer does ("man ' s" -> "man's")."""
        known = [number for number in ids if number < len(self.tokenizer)]  # not [DEC], [ENC]
        text = self.tokenizer.decode(known, skip_special_tokens=True, clean_up_tokenization_spaces=True)
        return str(text).strip()


def load_vqa(
    name: str | Path,
    *,
    image_size: int | None = None,
    beams: int = 3,
    max_length: int = 10,
    min_length: int = 1,
    precision: Precision = "float32",
    allow_pickle: bool = False,
) -> HuggingFaceVqa:
    """Load a question answerer from this machine; nothing is ever downloaded here.

    Args:
        name: "embedded" (the shipped answerer of the generated scenes), a folder with a BLIP VQA checkpoint
            in Hugging Face's format, or an id in the local Hugging Face cache, with `@revision` if wanted.
        image_size: side of the square input in pixels, a multiple of the patch size. None: the
            checkpoint's own; but BLIP base (ViT-B/16, width 768), whose port says 384, is used at 480
            pixels, where its authors trained and measured it.
        beams: of the search; 1 is greedy. QA-CLIMS: 3.
        max_length: longest answer in tokens, the start token included. QA-CLIMS: 10.
        min_length: shortest answer in tokens, the start token included. QA-CLIMS: 1.
        precision: "float32" or "bfloat16", see `HuggingFaceVqa`.
        allow_pickle: also read `pytorch_model.bin` (tensors only) where there is no safetensors file.

    Returns:
        The frozen answerer, float32, on the CPU.

    Raises:
        WeightsError: not here (the message names the command that gets it), incomplete, weights as pickle
            only, or another kind of model.
        ShapeError: a size, length or number out of range.
    """
    folder = find_weights(name, embedded="vqa")
    config = read_config(folder)
    _check_family(str(folder), config.get("model_type"), config.get("architectures") or [ARCHITECTURE])
    safe = has_safetensors(folder, allow_pickle=allow_pickle)
    mean, std = read_statistics(folder)
    from transformers import BlipForQuestionAnswering

    model, tokenizer = read_model(folder, BlipForQuestionAnswering, safe=safe)
    if image_size is None:
        image_size = _default_size(model.config)
    return HuggingFaceVqa(
        model,
        tokenizer,
        mean=mean,
        std=std,
        image_size=image_size,
        beams=beams,
        max_length=max_length,
        min_length=min_length,
        precision=precision,
        name=str(name),
    )


def _check_family(name: str, model_type: str | None, architectures: Sequence[str]) -> None:
    if model_type != "blip" or ARCHITECTURE not in architectures:
        raise WeightsError(
            f"{name} holds `{architectures[0]}` of the family `{model_type}`; expected `{ARCHITECTURE}` of "
            "`blip`. Use a BLIP checkpoint for visual question answering, such as "
            "`Salesforce/blip-vqa-base`."
        )


def _check_inputs(images: Sequence[Pixels], questions: Sequence[Sequence[str]]) -> None:
    if len(images) != len(questions):
        raise ShapeError(
            f"`questions` must hold one list for each image; got {len(questions)} lists for {len(images)} "
            "images. Give an empty list to an image without questions."
        )
    for number, (image, own) in enumerate(zip(images, questions, strict=True)):
        if isinstance(own, str):
            raise ShapeError(f"`questions[{number}]` must be a list of texts; got {own!r}. Put it in a list.")
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise ShapeError(
                f"`images[{number}]` must be uint8 of shape (H, W, 3); got {image.dtype} of shape "
                f"{image.shape}. Convert it to RGB."
            )


def _encode_token(tokenizer: Any, text_config: Any) -> int | None:
    """The id that stands in front of every question; None: the one that the tokenizer gives."""
    vocabulary = tokenizer.get_vocab()
    if _ENCODE in vocabulary:
        return int(vocabulary[_ENCODE])
    start = text_config.bos_token_id
    if start == len(tokenizer) and text_config.vocab_size > start + 1:  # [DEC] and [ENC], added by BLIP
        return int(start) + 1
    return None


def _default_size(config: Any) -> int:
    vision = config.vision_config
    size = int(vision.image_size)
    is_base = (size, vision.patch_size, vision.hidden_size) == (384, 16, 768)
    return PUBLISHED_SIZE if is_base else size


def _squash(image: Pixels, size: int) -> Tensor:
    """The image as a square, (S, S, 3), uint8; bicubic, aspect not kept."""
    squashed = Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(squashed))


@contextmanager
def _projected_once(text_encoder: Any) -> Iterator[None]:
    """Let all questions about an image share its keys and values, most of the work of reading a short one.

    Within the context each projection for the attention to the image keeps its last input and output, and
    gives the output again for the same tensor.
    """
    attentions = [layer.crossattention.self for layer in text_encoder.encoder.layer]
    projections = [module for attention in attentions for module in (attention.key, attention.value)]
    for module in projections:
        module.forward = _remembering(module.forward)
    try:
        yield
    finally:
        for module in projections:
            del module.forward


def _remembering(compute: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    kept: list[tuple[Tensor, Tensor]] = []

    def forward(states: Tensor) -> Tensor:
        if not kept or kept[0][0] is not states:
            kept[:] = [(states, compute(states))]
        return kept[0][1]

    return forward
