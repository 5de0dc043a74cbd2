r"""Dense CRF: labels follow the edges of the image, by mean-field inference over all pairs of pixels.

$$ E(x) = \sum_i U_i(x_i) + \sum_{i<j} [x_i \ne x_j] \big( w_1 e^{-|p_i - p_j|^2 / 2\sigma_1^2}
   + w_2 e^{-|p_i - p_j|^2 / 2\sigma_2^2 - |c_i - c_j|^2 / 2\sigma_3^2} \big) $$

with positions p and colours c of the pixels, and unaries U made from the maps: from the mask that they give
(IRN), from their scores as probabilities (PSA, CLIP-ES), or from the softmax of the scores (VWL). The refined
maps are the marginals of the present classes, and their background is the marginal of class 0.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor
from typing_extensions import Self

from wsss.activation.background_score import choose_background_score
from wsss.activation.extract import Pixels
from wsss.activation.store import MapStore
from wsss.crf import (
    PRESETS,
    CrfParameters,
    unary_from_labels,
    unary_from_logits,
    unary_from_probabilities,
)
from wsss.crf import (
    DenseCrf as Inference,
)
from wsss.data.dataset import Dataset
from wsss.errors import StageError
from wsss.refiners.base import Refiner, RefinerConfig, seen_image
from wsss.training.checkpoint import write_atomically
from wsss.training.journal import Progress
from wsss.training.processes import is_main_process, wait_for_everyone
from wsss.types import ActivationMaps, Paper, Sample

CHOSEN: Final = "background_score.json"
ABSENT: Final = 1e4  # energy of a label that an image of a batch does not have


class DenseCrfConfig(RefinerConfig):
    """Hyper-parameters; defaults are IRN's kernels on hard labels."""

    parameters: CrfParameters = Field(
        default_factory=lambda: PRESETS["irn"], description="Kernels and number of mean-field updates."
    )
    unary: Literal["labels", "scores", "softmax"] = Field(
        "labels",
        description="labels: the mask of the maps, right with probability `certainty` (IRN, CLIMS); scores: "
        "as probabilities (PSA, CLIP-ES); softmax: of the scores (VWL).",
    )
    certainty: float = Field(0.7, gt=0, lt=1, description="Of hard labels (IRN: 0.7).")
    background_score: Literal["automatic"] | Annotated[float, Field(ge=0, le=1)] = Field(
        "automatic",
        description="Score of class 0 for maps that have none: a constant, or chosen without any mask.",
    )
    background_power: float | None = Field(
        None, gt=0, description="Instead: (1 - best score)^power (PSA: 4 and 32; CLIP-ES: 1)."
    )

    @model_validator(mode="after")
    def _one_background(self) -> Self:
        if self.background_power is not None and self.background_score != "automatic":
            raise ValueError(
                "`background_score` and `background_power` exclude each other; with a preset that sets the "
                "other one, write `background_power: null` or `background_score: automatic`"
            )
        return self


class DenseCrf(Refiner):
    """Marginals of a fully connected CRF with Gaussian kernels over position and colour.

    A background that the maps have already is kept; else `background_score` or `background_power` makes one.
    Images without any class are background and are not inferred.

    Args:
        config: hyper-parameters.
        class_names: K + 1 names, the first "background".

    Source:
        Krähenbühl and Koltun, NIPS 2011, https://arxiv.org/abs/1210.5644; unaries as in the code of IRN, PSA,
        CLIP-ES and VWL.
        Differs: the background score of hard labels may be chosen automatically; VWL's softmax is of the
        same scores.
    """

    paper = Paper(
        title="Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials",
        venue="NIPS",
        year=2011,
        url="https://arxiv.org/abs/1210.5644",
    )
    Config = DenseCrfConfig
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "irn": {},
        # the last step of camera-ready CLIMS: one update on the mask of its random walk
        "clims_camera_ready": {"background_score": 0.25, "parameters": {"iterations": 1}},
        "psa": {
            "unary": "scores",
            "background_power": 4.0,
            "parameters": PRESETS["psa"].model_dump(),
        },
        "clip_es": {
            "unary": "scores",
            "background_power": 1.0,
            "parameters": PRESETS["clip_es"].model_dump(),
        },
        "clip_es_legacy": {
            "unary": "scores",
            "background_power": 1.0,
            "parameters": PRESETS["clip_es_legacy"].model_dump(),
        },
        "vwl": {"unary": "softmax", "background_score": 0.15, "parameters": PRESETS["vwl"].model_dump()},
    }
    config: DenseCrfConfig

    def __init__(self, config: DenseCrfConfig, class_names: Sequence[str]) -> None:
        super().__init__(config, class_names)
        given = config.background_score
        self._background_score = None if given == "automatic" else float(given)

    def fit(
        self,
        dataset: Dataset,
        ids: Sequence[str],
        maps: MapStore,
        work_dir: Path,
        *,
        seed: int,
        device: torch.device | str = "cpu",
        progress: Progress | None = None,
    ) -> None:
        """Choose the background score where it is asked for and the maps have no background."""
        if self._background_score is not None or self.config.background_power is not None:
            return
        if not ids or maps.read(ids[0], full_size=False).background is not None:
            return
        path = work_dir / CHOSEN
        if is_main_process() and not path.is_file():
            chosen = choose_background_score(maps, ids, dataset, progress=progress)
            write_atomically(path, (json.dumps(chosen.as_dict(), indent=1) + "\n").encode())
        wait_for_everyone()
        self._background_score = float(json.loads(path.read_text(encoding="utf-8"))["value"])

    def refine(self, sample: Sample, maps: ActivationMaps) -> ActivationMaps:
        """Marginals of the maps' classes and of the background, at the image's size."""
        height, width = self.checked_size([sample], [maps])
        if not len(maps.class_ids):
            return maps.resized(height, width).with_background(1.0)
        image, maps = self._shrunk(sample, maps)
        crf = Inference(image, self.config.parameters, device=maps.scores.device)
        return _as_maps(maps.class_ids, crf.marginals(self._unary(maps)), (height, width))

    def refine_batch(self, samples: Sequence[Sample], maps: Sequence[ActivationMaps]) -> list[ActivationMaps]:
        """The same for images of one size; on an accelerator in one go."""
        device = maps[0].scores.device
        if device.type == "cpu" or not all(len(own.class_ids) for own in maps):
            return super().refine_batch(samples, maps)
        height, width = self.checked_size(samples, maps)
        shrunk = [self._shrunk(sample, own) for sample, own in zip(samples, maps, strict=True)]
        most = max(len(own.class_ids) for own in maps)
        unaries = [self._unary(own) for _, own in shrunk]
        missing = [(0, 0, 0, 0, 0, 1 + most - len(unary)) for unary in unaries]
        padded = [F.pad(unary, pad, value=ABSENT) for unary, pad in zip(unaries, missing, strict=True)]
        crf = Inference(np.stack([image for image, _ in shrunk]), self.config.parameters, device=device)
        marginals = crf.marginals(torch.stack(padded))
        return [
            _as_maps(own.class_ids, found[: 1 + len(own.class_ids)], (height, width))
            for own, found in zip(maps, marginals, strict=True)
        ]

    def _shrunk(self, sample: Sample, maps: ActivationMaps) -> tuple[Pixels, ActivationMaps]:
        """Image and maps at the size that is inferred."""
        image = seen_image(sample, self.config.max_pixels)
        height, width = image.shape[:2]
        return image, maps if maps.size == (height, width) else maps.resized(height, width)

    def _unary(self, maps: ActivationMaps) -> Tensor:
        """(1 + M, H, W), nats."""
        if maps.background is None:
            if self.config.background_power is not None:
                maps = maps.with_background_power(self.config.background_power)
            elif self._background_score is not None:
                maps = maps.with_background(self._background_score)
            else:
                raise StageError(
                    "`background_score: automatic` has not been chosen yet. "
                    "Call `fit` first, or give a constant."
                )
        assert maps.background is not None
        scores = torch.cat([maps.background[None], maps.scores])  # (1 + M, H, W)
        if self.config.unary == "scores":
            return unary_from_probabilities(scores)
        if self.config.unary == "softmax":
            return unary_from_logits(scores)
        labels = maps.to_positions()
        return unary_from_labels(labels, len(scores), self.config.certainty)


def _as_maps(class_ids: Tensor, marginals: Tensor, size: tuple[int, int]) -> ActivationMaps:
    """Marginals (1 + M, h, w) as maps of the image's size."""
    marginals = marginals.clamp(0, 1)
    maps = ActivationMaps(class_ids, marginals[1:], marginals[0])
    return maps if maps.size == size else maps.resized(*size)
