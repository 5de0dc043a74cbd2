"""The picture of a model's work: image, probabilities, mask, in their colours."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from export.small_model import noise, save_image, small_model
from wsss.export.show import classes_by_size, show
from wsss.segmentation.predict_images import overlay


def test_the_figure_shows_image_maps_and_mask(tmp_path: Path) -> None:
    model, image = small_model(), noise(48, 64)
    mask, scores = model.predict(image), model.probabilities(image)
    classes = classes_by_size(mask)
    assert len(classes) >= 2
    figure = show(model, save_image(tmp_path / "photo.png", image), most_maps=2)
    panels = figure.axes
    assert [axis.get_title() for axis in panels] == [
        "image",
        *(model.class_names[number] for number in classes[:2]),
        "mask",
    ]
    shown = [np.asarray(axis.images[0].get_array()) for axis in panels]
    assert np.array_equal(shown[0], image)
    assert np.allclose(shown[1], scores[classes[0]])
    assert np.array_equal(shown[-1], overlay(image, mask, model.palette))
    legend = panels[-1].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == [
        model.class_names[number] for number in classes
    ]
    figure.savefig(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 1000


def test_classes_are_ordered_by_their_pixels() -> None:
    rng = np.random.default_rng(0)
    mask = rng.choice([0, 1, 2, 5], (20, 20), p=[0.4, 0.1, 0.3, 0.2]).astype(np.uint8)
    counts = {number: int((mask == number).sum()) for number in (1, 2, 5)}
    assert classes_by_size(mask) == sorted(counts, key=lambda number: -counts[number])
    assert classes_by_size(np.zeros((3, 3), np.uint8)) == []
