"""How well a teacher names what images show: a check that needs tags only, no mask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.v2 import functional as TF

from wsss.data.dataset import Dataset
from wsss.models.clip import ImageTextTeacher

IMAGES_AT_ONCE: Final = 64


@dataclass(frozen=True)
class Retrieval:
    """Agreement of a teacher with known words.

    Args:
        images: images that were judged.
        mean_average_precision: images ranked by their cosine with a word, average precision of each word that
            occurs, mean over these words; 0-1.
        chance: the same of a random ranking: the mean share of images that have a word.
        first_word_right: share of images whose best-matching word is one of theirs, among images with words.
        most_frequent_word_right: the same of naming the most frequent word always.
        average_precision: of each word that occurs.
    """

    images: int
    mean_average_precision: float
    chance: float
    first_word_right: float
    most_frequent_word_right: float
    average_precision: dict[str, float]

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


@torch.no_grad()
def word_retrieval(
    teacher: ImageTextTeacher, dataset: Dataset, words: Mapping[str, Sequence[str]]
) -> Retrieval | None:
    """Compare the teacher's cosines of whole images and words with the words that are known.

    Args:
        teacher: the model.
        dataset: where the images are.
        words: the known words of each image to judge, by id.

    Returns:
        The agreement; None where no image has a word.
    """
    vocabulary = sorted({word for known in words.values() for word in known})
    if not vocabulary:
        return None
    texts = F.normalize(
        teacher.encode_texts([teacher.prompt_template.format(word) for word in vocabulary]), dim=1
    )
    present = torch.tensor([[word in known for word in vocabulary] for known in words.values()])
    ids, parts = list(words), []
    for start in range(0, len(ids), IMAGES_AT_ONCE):
        batch = [as_input(dataset, image_id, teacher) for image_id in ids[start : start + IMAGES_AT_ONCE]]
        features = teacher.encode_images(torch.stack(batch).to(texts.device))
        parts.append((F.normalize(features, dim=1) @ texts.T).cpu())
    similarity = torch.cat(parts)  # (N, V)
    precision = {
        word: average_precision(similarity[:, v], present[:, v]) for v, word in enumerate(vocabulary)
    }
    named = present.any(dim=1)
    first = present[torch.arange(len(ids)), similarity.argmax(dim=1)]
    return Retrieval(
        images=len(ids),
        mean_average_precision=sum(precision.values()) / len(precision),
        chance=float(present.float().mean()),
        first_word_right=float(first[named].float().mean()),
        most_frequent_word_right=float(present[named].float().mean(dim=0).max()),
        average_precision=precision,
    )


def as_input(dataset: Dataset, image_id: str, teacher: ImageTextTeacher) -> Tensor:
    """A whole image, squeezed to the teacher's size and normalised for it; (3, S, S)."""
    image = torch.from_numpy(dataset.sample(image_id).image).permute(2, 0, 1)
    image = TF.to_dtype(image, torch.float32, scale=True)
    image = TF.resize(image, [teacher.image_size, teacher.image_size], antialias=True)
    normalised: Tensor = TF.normalize(image, list(teacher.mean), list(teacher.std))
    return normalised


def average_precision(scores: Tensor, relevant: Tensor) -> float:
    """Mean precision at the ranks of the relevant items; 0-1.

    Example:
        >>> average_precision(torch.tensor([0.9, 0.8, 0.1]), torch.tensor([True, False, True]))
        0.8333333730697632
    """
    ranked = relevant[scores.argsort(descending=True, stable=True)].float()
    precision = ranked.cumsum(0) / torch.arange(1, len(ranked) + 1)
    return float((precision * ranked).sum() / ranked.sum())
