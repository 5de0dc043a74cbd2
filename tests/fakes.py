"""Ten-line stand-ins for frozen models: no weights to download, and they count what is asked of them."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        self.texts += texts
        seeds = [torch.Generator().manual_seed(zlib.crc32(text.encode())) for text in texts]
        features = [torch.randn(self.encoder.out_features, generator=seed) for seed in seeds]
        return torch.stack(features).to(self.encoder.weight) + self.towards
