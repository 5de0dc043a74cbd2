"""Ten-line sources and data sets for tests of asking."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from wsss.types import Sample


class FakeAnswerer:
    """Answers with what it was asked; breaks off after `batches` calls where that is given."""

    def __init__(self, name: str = "fake", batches: int | None = None, **settings: Any) -> None:
        self.name, self.settings, self.batches = name, settings or {"beams": 3}, batches
        self.asked: list[str] = []
        self.shapes: list[tuple[int, ...]] = []
        self.say: Callable[[str], str] = lambda question: f"on {question}"

    def answer(self, images: Sequence[np.ndarray], questions: Sequence[Sequence[str]]) -> list[list[str]]:
        assert len(images) == len(questions)
        if self.batches is not None:
            if self.batches == 0:
                raise KeyboardInterrupt
            self.batches -= 1
        self.shapes += [image.shape for image in images]
        self.asked += [question for own in questions for question in own]
        return [[self.say(question) for question in own] for own in questions]


class FakeDataset:
    """Images `a`, `b`, … of cats and dogs; the last one is untagged, the one before holds none."""

    name = "fake data"
    class_names = ("background", "cat", "dog", "tvmonitor")

    def __init__(self, count: int = 7) -> None:
        self.all_ids = tuple("abcdefghijklmnop"[:count])

    def is_tagged(self, image_id: str) -> bool:
        return image_id != self.all_ids[-1]

    def image_labels(self, image_id: str) -> np.ndarray:
        number = self.all_ids.index(image_id)
        empty = number == len(self.all_ids) - 2
        return np.array([number % 2 == 0, number % 3 == 0, number == 1]) & (not empty)

    def sample(self, image_id: str, *, with_mask: bool = False) -> Sample:
        assert not with_mask
        return Sample(image_id, np.zeros((3, 4, 3), np.uint8), self.image_labels(image_id))
