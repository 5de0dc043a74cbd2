"""Maps inside the page: small enough to carry along, and enough to redraw masks at any background score."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from wsss.report.class_colours import class_colour
from wsss.report.images import mask_layer
from wsss.report.markup import Html, element
from wsss.types import ActivationMaps

LONGEST: Final = 96  # cells along the longer side; more would cost bytes and show little
LEVELS: Final = 255  # a score of 1


@dataclass(frozen=True, eq=False)
class EmbeddedMaps:
    """Scores of the present classes of one image, in 256 levels.

    Args:
        class_ids: ascending values in 1…K.
        levels: score times 255, rounded; (M, h, w), uint8.
    """

    class_ids: tuple[int, ...]
    levels: npt.NDArray[np.uint8]

    @classmethod
    def of(cls, maps: ActivationMaps) -> EmbeddedMaps:
        """Reduce full-size maps, which the scores are of; maps that are small already keep their size."""
        height, width = maps.size
        factor = min(1.0, LONGEST / max(height, width))
        size = max(1, round(factor * height)), max(1, round(factor * width))
        scores = (maps if size == maps.size else maps.resized(*size)).scores
        levels = (scores * LEVELS).round().to(torch.uint8).numpy()
        return cls(tuple(maps.class_ids.tolist()), levels)

    def mask(self, background_score: float) -> npt.NDArray[np.uint8]:
        """The mask that the page shows at a background score; (h, w), uint8, label space of the library."""
        maps = ActivationMaps(torch.tensor(self.class_ids), torch.from_numpy(self.levels).float() / LEVELS)
        mask: npt.NDArray[np.uint8] = maps.to_mask(background_score).numpy()
        return mask

    def layer(self, background_score: float, what: str, source: int) -> Html:
        """The mask as a picture to lie over a photograph, with all that the page's script needs to redraw it.

        Args:
            background_score: of the mask that is there before any script.
            what: whose mask it is, for those who don't see it.
            source: number of the maps' row in the table of the page.
        """
        height, width = self.levels.shape[1:]
        return element(
            "img",
            src=mask_layer(self.mask(background_score)),
            alt=f"{what} at background score {background_score:.2f}",
            width=width,
            height=height,
            class_="layer",
            data_what=what,
            data_source=source,
            data_classes=" ".join(map(str, self.class_ids)),
            data_colours=" ".join(class_colour(class_id) for class_id in self.class_ids),
            data_maps=base64.b64encode(self.levels.tobytes()).decode("ascii"),
        )
