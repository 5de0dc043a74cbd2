"""A look at what a model does with an image, for notebooks: photograph, probabilities and mask."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from wsss.data.images import decode
from wsss.segmentation.model import Picture, PredictionSettings, SegmentationModel
from wsss.segmentation.predict_images import overlay
from wsss.types import BACKGROUND

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PANEL_INCHES: Final = 3.2


def show(
    model: SegmentationModel,
    image: Picture,
    *,
    settings: PredictionSettings | None = None,
    most_maps: int = 3,
) -> Figure:
    """Draw an image, the probabilities of the classes found in it, and its mask.

    Args:
        model: any.
        image: RGB, 0-255, (H, W, 3), uint8; or an image file.
        settings: None: as the model was tested.
        most_maps: how many classes get a picture of their probabilities: those of the most pixels.

    Returns:
        A figure of matplotlib, which notebooks show by themselves; `figure.savefig(path)` keeps it.
    """
    from matplotlib.figure import Figure

    pixels = decode(Path(image)) if isinstance(image, str | Path) else image
    scores = model.probabilities(pixels, settings)  # (C, H, W)
    mask = scores.argmax(axis=0).astype(np.uint8)
    found = classes_by_size(mask)
    shown = found[:most_maps]
    count = 2 + len(shown)
    figure = Figure(figsize=(PANEL_INCHES * count, PANEL_INCHES * pixels.shape[0] / pixels.shape[1] + 0.6))
    axes = figure.subplots(1, count, squeeze=False)[0]
    panels = [("image", pixels), *((model.class_names[number], scores[number]) for number in shown)]
    panels.append(("mask", overlay(pixels, mask, model.palette)))
    for axis, (title, values) in zip(axes, panels, strict=True):
        axis.imshow(values, vmin=0, vmax=1, cmap="viridis")
        axis.set_title(title)
        axis.set_axis_off()
    if found:
        from matplotlib.patches import Patch

        handles = [Patch(color=model.colours[n] / 255, label=model.class_names[n]) for n in found]
        axes[-1].legend(handles=handles, loc="upper left", bbox_to_anchor=(1.02, 1), borderaxespad=0)
    figure.tight_layout()
    return figure


def classes_by_size(mask: npt.NDArray[np.uint8]) -> list[int]:
    """Foreground classes of a mask without 255, those of the most pixels first.

    Example:
        >>> classes_by_size(np.array([[0, 2, 2], [1, 2, 0]], dtype=np.uint8))
        [2, 1]
    """
    counts = np.bincount(mask.ravel(), minlength=1)
    return [int(n) for n in np.argsort(-counts, kind="stable") if counts[n] and n != BACKGROUND]
