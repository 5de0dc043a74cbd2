"""The picture of an image's maps: photograph, scores, and the mask that they give."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from export.small_model import noise
from wsss.data.masks_png import voc_palette
from wsss.errors import ShapeError
from wsss.export.show_maps import show_maps
from wsss.segmentation.predict_images import overlay
from wsss.types import ActivationMaps

NAMES = ("background", "cat", "dog", "cow")


def maps(height: int, width: int) -> ActivationMaps:
    return ActivationMaps(torch.tensor([1, 3]), torch.rand(2, height, width, generator=torch.manual_seed(0)))


def test_the_figure_shows_image_scores_and_mask(tmp_path: Path) -> None:
    image, these = noise(24, 32), maps(24, 32)
    figure = show_maps(image, these, NAMES, background_score=0.6)
    panels = figure.axes
    assert [axis.get_title() for axis in panels] == ["image", "cat", "cow", "mask"]
    shown = [np.asarray(axis.images[0].get_array()) for axis in panels]
    assert np.array_equal(shown[0], image)
    assert np.allclose(shown[2], these.scores[1])
    assert np.array_equal(shown[3], overlay(image, these.to_mask(0.6).numpy(), voc_palette()))
    assert [text.get_text() for text in panels[-1].get_legend().get_texts()] == ["cat", "cow"]
    figure.savefig(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 1000


def test_small_maps_are_resized_and_few_classes_are_shown() -> None:
    image, these = noise(24, 32), maps(6, 8).with_background(0.5)
    panels = show_maps(image, these, NAMES, most_maps=1).axes
    assert [axis.get_title() for axis in panels] == ["image", "cat", "mask"]
    expected = these.resized(24, 32)
    assert np.allclose(np.asarray(panels[1].images[0].get_array()), expected.scores[0])
    assert np.array_equal(
        np.asarray(panels[2].images[0].get_array()),
        overlay(image, expected.to_mask().numpy(), voc_palette()),
    )


def test_an_image_without_classes_is_shown_and_unnamed_classes_are_refused() -> None:
    nothing = ActivationMaps(torch.zeros(0, dtype=torch.int64), torch.zeros(0, 6, 8))
    panels = show_maps(noise(6, 8), nothing, NAMES, background_score=0.5).axes
    assert [axis.get_title() for axis in panels] == ["image", "mask"]
    with pytest.raises(ShapeError, match="must name all classes of the maps; got 3 names and class 3"):
        show_maps(noise(6, 8), maps(6, 8), NAMES[:3], background_score=0.5)
    with pytest.raises(ShapeError, match="exactly one background score"):
        show_maps(noise(6, 8), maps(6, 8), NAMES)
