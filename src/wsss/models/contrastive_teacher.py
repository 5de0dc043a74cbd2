"""What a teacher that is trained from tags and scene words learns from: regions, captions, and their matches.

Images are shown whole and in random regions (`models.region_masks`), and two images may be mixed along a
random region, which breaks up what always occurs together. A text matches an image when the image has all its
words. Captions of a few words of an image, and every word by itself, are compared with the images of the
batch; texts that also match an image are no negatives (`models.contrastive`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsss.models.captions import caption
from wsss.models.clip import features_of
from wsss.models.contrastive import multi_positive_loss
from wsss.models.region_masks import random_region_masks, smooth_noise
from wsss.types import Batch

TEMPLATES: Final = (
    "a photo of {}.",
    "a photo of {}",
    "a picture of {}.",
    "{}",
)  # the first is the teacher's own
LARGEST_CAPTION: Final = 3  # words
MOST_WORDS: Final = 256  # single words a step


class ContrastiveTeacher(nn.Module):
    """A CLIP model that learns to match images with the words that are known of them.

    Args:
        model: a `CLIPModel`.
        tokenizer: its tokenizer.
        words: the words known of each image, by id; an image without any is a negative for all texts.
        mask_shares: how often an image is shown whole, softly masked, in blobs, in a box.
        mixed_share: share of images that are mixed with another one along a random region.
        largest_scale: upper limit of the learned factor of cosines.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        words: Mapping[str, Sequence[str]],
        *,
        mask_shares: tuple[float, float, float, float],
        mixed_share: float,
        largest_scale: float,
    ) -> None:
        super().__init__()
        self.model: Any = model
        self.tokenizer = tokenizer
        self.vocabulary = tuple(sorted({word for known in words.values() for word in known}))
        self.mask_shares, self.mixed_share, self.largest_scale = mask_shares, mixed_share, largest_scale
        columns = {word: number for number, word in enumerate(self.vocabulary)}
        self._words = {image_id: [columns[word] for word in known] for image_id, known in words.items()}

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Contrastive loss of the batch; every random choice is drawn from torch's global generator."""
        present = self.presence(batch.image_ids).to(batch.images.device)  # (B, V)
        images, present = self._mixed(self._resized(batch.images), present)
        count, size = len(images), images.shape[-1]
        masks = random_region_masks(count, size, shares=self.mask_shares).to(images.device)
        named = torch.cat([self._captions(present), self._singles(present)])  # (T, V)
        matches = ~((named.float() @ (~present).float().T) > 0).T  # (B, T): no word of the text is missing
        features = self.image_features(images * masks), self.text_features(named)
        scale = self.model.logit_scale.exp().clamp(max=self.largest_scale)
        return {"contrastive": multi_positive_loss(*features, scale, matches)}

    def presence(self, image_ids: Sequence[str]) -> Tensor:
        """Which words are known of each image; (B, V), bool."""
        present = torch.zeros(len(image_ids), len(self.vocabulary), dtype=torch.bool)
        for row, image_id in enumerate(image_ids):
            present[row, self._words[image_id]] = True
        return present

    def image_features(self, images: Tensor) -> Tensor:
        """(B, E), any length."""
        return features_of(self.model.get_image_features(pixel_values=images))

    def text_features(self, named: Tensor) -> Tensor:
        """Vectors (T, E) of texts that name the words (T, V); the wording is drawn at random."""
        draws = torch.randint(len(TEMPLATES), (len(named),)).tolist()
        texts = []
        for row, draw in zip(named.cpu(), draws, strict=True):
            words = row.nonzero().flatten()
            words = words[torch.randperm(len(words))]
            texts.append(caption([self.vocabulary[word] for word in words.tolist()], TEMPLATES[draw]))
        tokens = self.tokenizer(texts, padding=True, truncation=True, return_tensors="pt").to(named.device)
        return features_of(self.model.get_text_features(**tokens))

    def parameter_groups(self, base_lr: float) -> list[dict[str, Any]]:
        """Matrices with weight decay, vectors and scalars without."""
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        return [
            {"params": [p for p in trained if p.ndim >= 2], "lr": base_lr},
            {"params": [p for p in trained if p.ndim < 2], "lr": base_lr, "weight_decay": 0.0},
        ]

    def _resized(self, images: Tensor) -> Tensor:
        size = int(self.model.config.vision_config.image_size)
        if images.shape[-2:] == (size, size):
            return images
        return F.interpolate(images, size=(size, size), mode="bilinear", align_corners=False, antialias=True)

    def _mixed(self, images: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """Some images with a region of the next one; both images' words."""
        count, size = len(images), images.shape[-1]
        is_mixed = (torch.rand(count) < self.mixed_share).to(images.device)
        region = (smooth_noise(count, size) > 0).to(images)
        mixed = torch.where(region > 0, images, images.roll(1, dims=0))
        images = torch.where(is_mixed[:, None, None, None], mixed, images)
        return images, torch.where(is_mixed[:, None], present | present.roll(1, dims=0), present)

    def _captions(self, present: Tensor) -> Tensor:
        """One to three random words of each image that has any; (at most B, V), bool."""
        order = torch.rand(present.shape).to(present.device).masked_fill(~present, 2.0).argsort(dim=1)
        rank = order.argsort(dim=1)
        wanted = torch.randint(1, LARGEST_CAPTION + 1, (len(present), 1)).to(present.device)
        captions = present & (rank < wanted)
        return captions[captions.any(dim=1)]

    def _singles(self, present: Tensor) -> Tensor:
        """Every word by itself; of a large vocabulary those of the batch and some more; (<= 256, V), bool."""
        chance = torch.rand(present.shape[1]).to(present.device) + present.any(dim=0)
        chosen = chance.topk(min(MOST_WORDS, len(chance))).indices.sort().values
        return F.one_hot(chosen, present.shape[1]).bool()
