r"""IRN: a random walk that class boundaries stop; the boundaries are learned from pairs of confident pixels.

$$ S' = \big(S \circ (1 - b)\big)\,T^{2^n}, \qquad T = A^{\circ p} D^{-1}, \qquad
   a_{ij} = 1 - \max_{c \in \Pi_{ij}} b(c) $$

with scores S of the present classes, the boundary b of a network that knows no class, the cells of the
straight path from cell i to cell j, and the column sums D. Maps and a dense CRF make some pixels sure, and so
the kind of some pairs: where two cells differ a boundary lies somewhere between them, where they agree none
does. That it runs along the contour is what the network finds out by itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn
from typing_extensions import Self

from wsss.activation.store import MapStore
from wsss.affinity.boundary import LABELS, IRNet, flip_averaged_boundary, on_canvas
from wsss.affinity.confident_labels import confident_labels
from wsss.affinity.displacement import mean_displacement
from wsss.affinity.joint_walk import walk_together
from wsss.affinity.path_affinities import walk_affinities
from wsss.crf import PRESETS, CrfParameters
from wsss.data.dataset import Dataset
from wsss.data.image_work import report_failures, threads_for, work_on_images
from wsss.data.masks_png import read_mask, write_mask
from wsss.errors import StageError
from wsss.layers.statistics import STATISTICS
from wsss.models import build_backbone
from wsss.refiners._pair_training import maps_with_crf, train_on_pairs
from wsss.refiners.base import Refiner, RefinerConfig, seen_image
from wsss.training.checkpoint import write_atomically
from wsss.training.config import TrainingConfig
from wsss.training.journal import Progress
from wsss.training.processes import is_main_process, wait_for_everyone
from wsss.training.seeding import seed_everything
from wsss.types import MAP_EPSILON, ActivationMaps, Paper, Sample

TRAINING: Final[dict[str, Any]] = {  # IRN's train_irn_pass
    "epochs": 3,
    "batch_size": 32,
    "learning_rate": 0.1,
    "momentum": 1e-4,
    "weight_decay": 1e-4,
    "augmentation": {"crop_size": 512, "scale": (0.5, 1.5)},
}

Pixels = np.ndarray


class IrnConfig(RefinerConfig):
    """Hyper-parameters of IRN; defaults as in its code (CVPR 2019)."""

    confident_foreground_score: float = Field(
        0.30, ge=0, le=1, description="Background score of the seed whose foreground is trusted (IRN: 0.30)."
    )
    confident_background_score: float = Field(
        0.05, ge=0, le=1, description="Background score of the seed whose background is trusted (IRN: 0.05)."
    )
    crf: CrfParameters = Field(
        default_factory=lambda: PRESETS["irn"],
        description="Dense CRF that aligns both seeds with the image (IRN: its set `irn`).",
    )
    backbone: str = Field("resnet50", description="Feature extractor of the boundaries (IRN: ResNet-50).")
    backbone_weights: str | None = Field(
        "resnet50",
        description="Weights that it starts from (IRN: ImageNet's, not the CAM network's); null: random.",
    )
    output_stride: int | None = Field(
        None, description="Image size / size of its last features; null: the backbone's own (16)."
    )
    backbone_trains: bool = Field(
        False, description="Train it too, batch norms included: for random weights (IRN: frozen)."
    )
    grid_stride: int = Field(4, ge=1, description="Image pixels per cell of the boundary (IRN: 4).")
    displacement: bool = Field(
        True, description="Also learn displacements, which instances need, masks do not (IRN: yes)."
    )
    radius: int = Field(10, ge=2, description="Radius of pairs in training, in cells (IRN: 10).")
    walk_radius: int = Field(5, ge=2, description="Radius of the walk's steps, in cells (IRN: 5).")
    affinity_power: float = Field(10.0, gt=0, description="Exponent of affinities in the walk (IRN: 10).")
    num_doublings: int = Field(8, ge=0, description="The walk takes 2**this steps (IRN: 8).")
    canvas: int | None = Field(
        512,
        ge=1,
        description="The network sees images padded to this many pixels a side, larger ones to a multiple of "
        "16; its group norms make this matter (IRN: 512; CLIMS, QA-CLIMS: null, no padding).",
    )
    training: TrainingConfig = Field(
        default_factory=lambda: TrainingConfig.model_validate(TRAINING),
        description="Length, rates, crops; keys that are not given keep the values of IRN (3 epochs of "
        "batches of 32, rate 0.1, ten times that for displacements, crops of 512, scales 0.5-1.5).",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.confident_background_score > self.confident_foreground_score:
            raise ValueError(
                "`confident_background_score` must not exceed `confident_foreground_score`; got "
                f"{self.confident_background_score:g} and {self.confident_foreground_score:g}"
            )
        if self.backbone_weights is None and not self.backbone_trains:
            raise ValueError(
                "a frozen backbone of random weights can't see boundaries; give `backbone_weights`, or set "
                "`backbone_trains: true`"
            )
        crop, cells = self.training.augmentation.crop_size, 2 * self.radius - 1
        if -(-crop // self.grid_stride) < cells:
            raise ValueError(
                f"pairs of radius {self.radius} need crops of at least {cells} cells of {self.grid_stride} "
                f"pixels; got `training.augmentation.crop_size` {crop}"
            )
        return self


class Irn(Refiner):
    """Inter-pixel relations: boundaries learned from confident pairs, then a random walk of the scores.

    `fit` writes `labels/<id>.png` and `training/` and, with displacements, `mean_displacement.json`.

    Args:
        config: hyper-parameters.
        class_names: K + 1 names, the first "background".

    Source:
        Ahn, Cho and Kwak, CVPR 2019, https://arxiv.org/abs/1904.05044 (step/cam_to_ir_label.py, train_irn.py
        and make_sem_seg_labels.py at a2ece00). The presets are how CLIMS and QA-CLIMS call it; what
        camera-ready CLIMS calls PSA is the boundary branch alone.
        Differs: sides above the canvas are padded, never cropped. Results are kept on the grid, so that the
        few cells above the maximum of the enlarged scores, which everything is divided by, are cut to 1. The
        mean displacement is that of the images learned from. Camera-ready CLIMS's steps look ahead (Nesterov)
        with momentum 1e-4, which changes them by 1e-4 and is left out.
    """

    paper = Paper(
        title="Weakly Supervised Learning of Instance Segmentation with Inter-pixel Relations",
        venue="CVPR",
        year=2019,
        url="https://arxiv.org/abs/1904.05044",
        code="https://github.com/jiwoon-ahn/irn",
    )
    Config = IrnConfig
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "irn": {},
        "clims_improved": {"confident_background_score": 0.10, "canvas": None},
        "clims_coco": {
            "confident_foreground_score": 0.35,
            "confident_background_score": 0.10,
            "canvas": None,
        },
        "qa_clims": {"confident_background_score": 0.10, "canvas": None},
        "clims_camera_ready": {
            "displacement": False,
            "training": {"augmentation": {"long_side": (320, 640)}},
        },
    }
    reads_full_size = False  # the walk starts from maps on the grid; `fit` reads full-size ones itself
    background = "unknown"
    together = 16  # a walk's steps cost more to start than to do on small grids
    config: IrnConfig

    def __init__(self, config: IrnConfig, class_names: Sequence[str]) -> None:
        super().__init__(config, class_names)
        self._net: IRNet | None = None

    @property
    def stride(self) -> int:
        """Image pixels per cell of the boundary's grid."""
        return self.config.grid_stride

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
        """Write confident labels, learn boundaries from them, and centre the displacements.

        Raises:
            StageError: some images have no labels, or `work_dir` belongs to another training.
            WeightsError: the backbone's weights are missing or do not fit.
        """
        labels, training = work_dir / "labels", work_dir / "training"
        is_trained = (training / "model.safetensors").is_file()
        seed_everything(seed)
        net = self._untrained(with_weights=not is_trained)  # missing weights are told before hours of work
        if is_main_process() and not is_trained:
            self._write_labels(dataset, ids, maps, labels, device, progress)
        wait_for_everyone()
        train_on_pairs(
            net,
            dataset,
            ids,
            self.config.training,
            statistics="imagenet",
            aligned=partial(_read_labels, labels),
            work_dir=training,
            seed=seed,
            device=device,
            progress=progress,
        )
        if net.displacement is not None:
            self._centre(net, dataset, ids, work_dir / "mean_displacement.json", device)
        self._net = net

    def refine(self, sample: Sample, maps: ActivationMaps) -> ActivationMaps:
        """Scores after the walk, on the boundary's grid and without background.

        Args:
            sample: the image.
            maps: at the map stride; a background is not used.

        Raises:
            StageError: `fit` was not called.
            ShapeError: the maps hold a class that does not exist.
        """
        return self.refine_batch([sample], [maps])[0]

    @torch.inference_mode()
    def refine_batch(self, samples: Sequence[Sample], maps: Sequence[ActivationMaps]) -> list[ActivationMaps]:
        """`refine` for several images of one size; the network sees them at once."""
        height, width = self.checked_size(samples, maps)
        whole = (height - 1) // self.stride + 1, (width - 1) // self.stride + 1
        if self._net is None:
            raise StageError("`Irn` must learn boundaries first. Call `fit` with its folder before `refine`.")
        if not any(len(own.class_ids) for own in maps):
            return [ActivationMaps(own.class_ids, own.scores.new_zeros(0, *whole)) for own in maps]
        device = maps[0].scores.device
        seen = [seen_image(sample, self.config.max_pixels) for sample in samples]
        height, width = seen[0].shape[:2]
        grid = (height - 1) // self.stride + 1, (width - 1) // self.stride + 1
        images = normalised(seen, device)
        boundaries = flip_averaged_boundary(self._net.to(device), images, self.config.canvas)  # (B, h, w)
        on_grid = [self._on_grid(own, (height, width), grid) for own in maps]
        spread = walk_together(
            [own.scores * (1 - boundary) for own, boundary in zip(on_grid, boundaries, strict=True)],
            walk_affinities(boundaries, self.config.walk_radius),
            radius=self.config.walk_radius,
            affinity_power=self.config.affinity_power,
            num_doublings=self.config.num_doublings,
        )
        refined = [
            self._scaled(own.class_ids, scores, (height, width))
            for own, scores in zip(maps, spread, strict=True)
        ]
        return refined if grid == whole else [own.resized(*whole) for own in refined]

    def _on_grid(self, maps: ActivationMaps, size: tuple[int, int], grid: tuple[int, int]) -> ActivationMaps:
        """Maps on the boundary's grid; those of the image's size by the means of its cells."""
        if maps.size == grid:
            return maps
        return maps.reduced(self.stride) if maps.size == size else maps.resized(*grid)

    def seen_pixels(self, size: tuple[int, int]) -> int:
        """Of the canvas, on which a small image is laid."""
        canvas = self.config.canvas
        return super().seen_pixels(size) if canvas is None else max(canvas**2, super().seen_pixels(size))

    def _scaled(self, class_ids: Tensor, spread: Tensor, size: tuple[int, int]) -> ActivationMaps:
        """Scores (M, h, w) over the largest of all classes after they are enlarged to the image's size."""
        spread = spread.float().clamp(0, 1)
        if not len(class_ids):
            return ActivationMaps(class_ids, spread)
        enlarged = ActivationMaps(class_ids, spread).enlarged(self.stride, *size)
        peak = enlarged.scores.max().clamp(min=MAP_EPSILON)  # below it there is rounding, no activation
        return ActivationMaps(class_ids, (spread / peak).clamp(max=1))

    def rehearse(self, count: int, side: int) -> tuple[nn.Module, dict[str, Tensor]]:
        """The untrained network, and labels of which half are foreground."""
        self._net = self._untrained(with_weights=False)
        labels = torch.zeros(count, side, side, dtype=torch.uint8)
        labels[:, side // 2 :] = 1
        return self._net, {LABELS: labels}

    def _untrained(self, *, with_weights: bool) -> IRNet:
        config = self.config
        stride = {} if config.output_stride is None else {"output_stride": config.output_stride}
        backbone = build_backbone(
            config.backbone,
            weights=config.backbone_weights if with_weights else None,
            batch_norm="live" if config.backbone_trains else "frozen",
            **stride,
        )
        return IRNet(
            backbone,
            grid_stride=config.grid_stride,
            radius=config.radius,
            displacement=config.displacement,
            backbone_trains=config.backbone_trains,
        )

    def _write_labels(
        self,
        dataset: Dataset,
        ids: Sequence[str],
        maps: MapStore,
        folder: Path,
        device: torch.device | str,
        progress: Progress | None,
    ) -> None:
        """Write the confident labels of all images that have none yet, several at once."""
        config = self.config

        def work(image_id: str) -> None:
            own, crf, size = maps_with_crf(
                maps, dataset, image_id, config.crf, max_pixels=config.max_pixels, device=device
            )
            labels = confident_labels(
                crf,
                own,
                foreground_score=config.confident_foreground_score,
                background_score=config.confident_background_score,
            )
            if labels.shape != size:  # of an image that was seen shrunk
                enlarged = F.interpolate(labels[None, None].float(), size=size, mode="nearest-exact")
                labels = enlarged[0, 0].to(torch.uint8)
            write_mask(folder / f"{image_id}.png", labels.cpu().numpy())

        missing = [[image_id] for image_id in ids if not (folder / f"{image_id}.png").is_file()]
        failures = work_on_images(missing, work, threads=threads_for(device), progress=progress)
        report_failures(failures, len(ids), "confident labels")

    def _centre(
        self, net: IRNet, dataset: Dataset, ids: Sequence[str], path: Path, device: torch.device | str
    ) -> None:
        """Measure the mean displacement once, and have the network subtract it."""
        if is_main_process() and not path.is_file():
            with torch.inference_mode():
                batches = self._top_left_batches(dataset, ids, device)
                mean = mean_displacement(net.displacements(images) for images in batches)
            document = {"mean_displacement": mean.tolist(), "order": ["dy", "dx"], "unit": "cells"}
            write_atomically(path, (json.dumps(document) + "\n").encode())
        wait_for_everyone()
        stored = json.loads(path.read_text(encoding="utf-8"))["mean_displacement"]
        net.mean_displacement.copy_(torch.tensor(stored))

    def _top_left_batches(
        self, dataset: Dataset, ids: Sequence[str], device: torch.device | str
    ) -> Iterator[Tensor]:
        """Normalised crops (B, 3, S, S) from the top left of all images, a smaller last batch left out."""
        count, side = self.config.training.batch_size, self.config.training.augmentation.crop_size
        whole = len(ids) // count * count or len(ids)
        for start in range(0, whole, count):
            crops = [dataset.sample(name).image[:side, :side] for name in ids[start : start + count]]
            yield torch.cat([on_canvas(normalised([crop], device), side) for crop in crops])


def normalised(images: Sequence[Pixels], device: torch.device | str) -> Tensor:
    """Images (H, W, 3), uint8, of one size with ImageNet's mean and deviation; (B, 3, H, W)."""
    mean, std = (torch.tensor(values, device=device)[:, None, None] for values in STATISTICS["imagenet"])
    pixels = torch.from_numpy(np.stack(images)).to(device).permute(0, 3, 1, 2).float()
    return (pixels / 255 - mean) / std


def _read_labels(folder: Path, image_id: str) -> dict[str, np.ndarray]:
    return {LABELS: read_mask(folder / f"{image_id}.png")}
