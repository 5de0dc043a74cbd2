"""Word maps on disk: every pixel its nearest cell's word, written once, read back as numbers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from wsss.activation.words import read_word_classes, read_words, word_file, write_words
from wsss.errors import DataError
from wsss.types import Sample


class Images:
    """Two images of different sizes whose red channel names a word in each block of 4 x 4 pixels."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.blocks = {"a": rng.integers(0, 200, (2, 3)), "b": rng.integers(0, 200, (3, 2))}
        self.asked: list[str] = []

    def sample(self, image_id: str, *, with_mask: bool = False) -> Sample:
        assert not with_mask
        self.asked.append(image_id)
        red = np.kron(self.blocks[image_id], np.ones((4, 4), int)).astype(np.uint8)
        return Sample(image_id, np.repeat(red[..., None], 3, axis=2), np.zeros(2, dtype=bool))


class Reader(nn.Module):
    """Reads the word of each block from the middle of its red channel."""

    mean, std = (0.25, 0.5, 0.5), (0.5, 0.25, 0.25)

    def __init__(self, times: int = 1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.times = times

    def word_labels(self, images: torch.Tensor) -> torch.Tensor:
        red = images[:, 0, 1::4, 1::4] * self.std[0] + self.mean[0]
        return (red * 255).round().long() * self.times

    def word_classes(self) -> torch.Tensor:
        return torch.tensor([0, 2, 1])


@pytest.mark.parametrize(("times", "num_words", "mode"), [(1, 256, "P"), (3, 1000, "I;16")])
def test_every_pixel_has_the_word_of_its_cell(times: int, num_words: int, mode: str, tmp_path: Path) -> None:
    images = Images()
    found = write_words(Reader(times), images, ["a", "b"], tmp_path, num_words=num_words)
    counts = np.zeros(num_words, dtype=int)
    for name, blocks in images.blocks.items():
        expected = np.kron(blocks, np.ones((4, 4), int)) * times
        assert np.array_equal(read_words(word_file(tmp_path, name)), expected)
        np.add.at(counts, expected, 1)
        with Image.open(word_file(tmp_path, name)) as image:
            assert image.mode.startswith(mode[:1])
    assert found == {"images": 2, "words": num_words, "used_words": int((counts > 0).sum())}
    assert json.loads((tmp_path / "words.json").read_text())["pixels"] == counts.tolist()
    assert read_word_classes(tmp_path).tolist() == [0, 2, 1]


def test_what_is_there_is_not_looked_at_again(tmp_path: Path) -> None:
    images = Images()
    first = write_words(Reader(), images, ["a", "b"], tmp_path, num_words=256)
    word_file(tmp_path, "b").unlink()
    assert write_words(Reader(), images, ["a", "b"], tmp_path, num_words=256) == first
    assert images.asked == ["a", "b", "b"]


def test_a_damaged_word_map_is_named(tmp_path: Path) -> None:
    path = word_file(tmp_path, "a")
    with pytest.raises(DataError, match=r"no readable word map .*a\.png"):
        read_words(path)
    path.write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"no readable word map .*a\.png"):
        read_words(path)
