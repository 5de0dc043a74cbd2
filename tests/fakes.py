"""Ten-line stand-ins for frozen models: no weights to download, and they count what is asked of them."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsss.questions.answers import Answers, Header
from wsss.questions.questions import fill, published_questions
from wsss.types import ClassInfo


class FakeTeacher(nn.Module):
    """An image-text teacher; `towards` > 0 makes all cosines positive, as public CLIP's are."""

    mean, std = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
    prompt_template = "a photo of {}."

    def __init__(self, image_size: int = 16, embedding: int = 8, towards: float = 0.0) -> None:
        super().__init__()
        self.image_size, self.towards = image_size, towards
        self.encoder = nn.Linear(3 * 4 * 4, embedding)
        self.image_calls: list[int] = []
        self.texts: list[str] = []

    def encode_images(self, images: Tensor) -> Tensor:
        assert images.shape[1:] == (3, self.image_size, self.image_size)
        self.image_calls.append(len(images))
        return torch.tanh(self.encoder(F.adaptive_avg_pool2d(images, 4).flatten(1))) + self.towards

    @property
    def patch_size(self) -> int:
        return self.image_size // 4

    def encode_regions(self, images: Tensor, token_masks: Tensor) -> Tensor:
        """Patches outside the masks become a constant."""
        assert token_masks.shape == (len(images), 1, 4, 4)
        kept = F.interpolate(token_masks.to(images), size=images.shape[2:], mode="nearest")
        return self.encode_images(images * kept + 0.3 * (1 - kept))

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        self.texts += texts
        seeds = [torch.Generator().manual_seed(zlib.crc32(text.encode())) for text in texts]
        features = [torch.randn(self.encoder.out_features, generator=seed) for seed in seeds]
        return torch.stack(features).to(self.encoder.weight) + self.towards


class ToyDataset:
    """Images without pixels: ids, tags and scene words, as much as texts are made of."""

    name, context_names = "toys", {}

    def __init__(
        self, names: Sequence[str], present: dict[str, Sequence[int]], words: Sequence[str] = ()
    ) -> None:
        self.class_names = tuple(names)
        self.classes = tuple(ClassInfo(name) for name in names[1:])
        self.present, self.words = present, tuple(words)

    def ids(self, split: str) -> tuple[str, ...]:
        return tuple(self.present)

    def image_labels(self, image_id: str) -> np.ndarray:
        return np.isin(np.arange(len(self.classes)), list(self.present[image_id]))

    def scene_words(self, image_id: str) -> tuple[str, ...]:
        return self.words


def toy_answers(dataset: ToyDataset, **by_group: Sequence[str]) -> Answers:
    """Answers to all published questions about all pairs; `by_group` replaces those of a group, in turn."""
    given = {
        "object": ("sky", "road", "trees", "sky"),
        "scene": ("city", "field"),
        "fine_grained": ("old", "small"),
        "alias": ("thing", "toy"),
        **by_group,
    }
    pairs, nouns = {}, {}
    for image_id in dataset.present:
        for column in np.flatnonzero(dataset.image_labels(image_id)):
            name = dataset.classes[column].name
            nouns[image_id, name] = name
            pairs[image_id, name] = {
                fill(template, name): given[group][place % len(given[group])]
                for group, templates in published_questions().items()
                for place, template in enumerate(templates)
            }
    header = Header("toy", None, {}, dataset.name, published_questions())
    return Answers(Path("answers.jsonl"), header, pairs, nouns)
