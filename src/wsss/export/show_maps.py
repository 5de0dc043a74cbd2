"""A look at the maps of one image, for notebooks: photograph, scores and mask side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from wsss.data.masks_png import voc_palette
from wsss.errors import ShapeError
from wsss.segmentation.predict_images import overlay
from wsss.types import ActivationMaps

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PANEL_INCHES: Final = 3.2


def show_maps(
    image: npt.NDArray[np.uint8],
    maps: ActivationMaps,
    class_names: Sequence[str],
    *,
    background_score: float | None = None,
    most_maps: int = 3,
) -> Figure:
    """Draw an image, the scores of its classes, and the mask that they give.

    Args:
        image: RGB, 0-255; (H, W, 3), uint8.
        maps: of any size; resized to the image's.
        class_names: K + 1 names, the first "background".
        background_score: as `ActivationMaps.to_mask` takes it; needed where the maps have no background.
        most_maps: how many classes get a picture of their scores: the first of the maps.

    Returns:
        A figure of matplotlib, which notebooks show by themselves; `figure.savefig(path)` keeps it.

    Raises:
        ShapeError: no background score is known, two are, or the maps have classes without names.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    class_ids = maps.class_ids.tolist()
    if class_ids and class_ids[-1] >= len(class_names):
        raise ShapeError(
            f"`class_names` must name all classes of the maps; got {len(class_names)} names and class "
            f"{class_ids[-1]}. Name the background too."
        )
    height, width = image.shape[:2]
    shown = maps if maps.size == (height, width) else maps.resized(height, width)
    mask = shown.to_mask(background_score).cpu().numpy()
    scores = shown.scores.cpu().numpy()
    few = list(zip(class_ids, scores, strict=True))[:most_maps]
    panels = [("image", image), *((class_names[number], plane) for number, plane in few)]
    panels.append(("mask", overlay(image, mask, voc_palette())))
    figure = Figure(figsize=(PANEL_INCHES * len(panels), PANEL_INCHES * height / width + 0.6))
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, (title, values) in zip(axes, panels, strict=True):
        axis.imshow(values, vmin=0, vmax=1, cmap="viridis")
        axis.set_title(title)
        axis.set_axis_off()
    if class_ids:
        handles = [Patch(color=voc_palette()[n] / 255, label=class_names[n]) for n in class_ids]
        axes[-1].legend(handles=handles, loc="upper left", bbox_to_anchor=(1.02, 1), borderaxespad=0)
    figure.tight_layout()
    return figure
