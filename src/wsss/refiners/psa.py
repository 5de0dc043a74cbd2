r"""PSA: a random walk along the affinities of cells, which a network learns from pairs of confident cells.

$$ S' = S\,T^{2^n}, \qquad T = A^{\circ p} D^{-1}, \qquad
   a_{ij} = \exp\Big(-\tfrac1D \sum_d |f_d(i) - f_d(j)|\Big) $$

with the scores S of background, (1 - max score)^q, and of the present classes, the features f of a network
that knows no class, and the matrix D of column sums. Maps with a strong and with a weak background,
both aligned with the image by a dense CRF, make some cells sure, and so the kind of some pairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Final, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn
from typing_extensions import Self

from wsss.activation.store import MapStore
from wsss.affinity.confident_scores import confident_scores, with_background
from wsss.affinity.feature_affinity import HIGH, LOW, AffinityNet, Borders, block_means, grid_affinities
from wsss.affinity.joint_walk import walk_together
from wsss.crf import PRESETS, CrfParameters
from wsss.data.dataset import Dataset
from wsss.data.image_work import report_failures, threads_for, work_on_images
from wsss.errors import DataError, RecipeError, StageError
from wsss.layers.cam_backbone import freeze_batch_norm_affine
from wsss.layers.statistics import STATISTICS, Statistics
from wsss.models import build_backbone
from wsss.refiners._pair_training import maps_with_crf, train_on_pairs
from wsss.refiners.base import Refiner, RefinerConfig, seen_image
from wsss.training.config import TrainingConfig
from wsss.training.journal import Progress
from wsss.training.processes import is_main_process, wait_for_everyone
from wsss.training.seeding import seed_everything
from wsss.types import ActivationMaps, Paper, Sample

TRAINING: Final[dict[str, Any]] = {  # PSA's train_aff; momentum: see `TrainingConfig.momentum`
    "epochs": 8,
    "batch_size": 8,
    "learning_rate": 0.1,
    "momentum": 5e-4,
    "weight_decay": 5e-4,
    "augmentation": {"crop_size": 448, "long_side": None, "jitter": {}, "pad": "black"},
}


class PsaConfig(RefinerConfig):
    """Hyper-parameters of PSA; defaults as in its code (CVPR 2018), except for the borders."""

    low_power: float = Field(
        4.0, gt=0, description="Exponent of the strong background, which makes foreground sure (PSA: 4)."
    )
    high_power: float = Field(
        32.0, gt=0, description="Exponent of the weak background, which makes background sure (PSA: 32)."
    )
    crf: CrfParameters = Field(
        default_factory=lambda: PRESETS["psa"],
        description="Dense CRF that aligns both with the image (PSA: its set `psa`).",
    )
    backbone: str = Field("wide_resnet38", description="Feature extractor (PSA: wide_resnet38 or vgg16).")
    backbone_weights: str | None = Field(
        "wide_resnet38",
        description="Weights that it starts from (PSA: ImageNet's, not the CAM network's); null: random.",
    )
    backbone_options: dict[str, bool | int] = Field(
        default_factory=dict,
        description="Further options of the backbone, such as `fc6_dilation` of vgg16 (PSA: 4).",
    )
    output_stride: int | None = Field(
        None, description="Image size / size of its last features; null: the backbone's own (8)."
    )
    batch_norm: Literal["live", "frozen"] = Field(
        "frozen",
        description="frozen: running statistics, nothing of it trains (PSA); live: for random weights.",
    )
    freeze_until: int | None = Field(
        1, ge=0, description="Last backbone stage without gradient, 0 is the stem (PSA: 1); null: none."
    )
    group_norm: bool = Field(
        False, description="Normalise features of the taps by groups (PSA: with vgg16 only)."
    )
    normalisation: Statistics = Field("imagenet", description="Statistics of the images (PSA: ImageNet's).")
    grid_stride: int = Field(8, ge=1, description="Image pixels per cell of the affinities (PSA: 8).")
    radius: int = Field(
        5, ge=2, description="Radius of pairs in training and of the walk's steps, in cells (PSA: 5)."
    )
    background_power: float = Field(
        16.0, gt=0, description="Exponent of the background that takes part in the walk (PSA: 16)."
    )
    affinity_power: float = Field(8.0, gt=0, description="Exponent of affinities in the walk (PSA: 8).")
    num_doublings: int = Field(8, ge=0, description="The walk takes 2**this steps (PSA: 8).")
    borders: Borders = Field(
        "improved",
        description="improved: all pairs on the grid; faithful: cells near the borders have fewer "
        "neighbours, some in the corners none, as in PSA's code.",
    )
    training: TrainingConfig = Field(
        default_factory=lambda: TrainingConfig.model_validate(TRAINING),
        description="Length, rates, crops; keys that are not given keep the values of PSA (8 epochs of "
        "batches of 8, rate 0.1, ten times that for new layers, crops of 448, colour jitter, no rescaling).",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.backbone_weights is None and self.batch_norm == "frozen":
            raise ValueError(
                "a network of random weights can't learn with frozen batch norms; give `backbone_weights`, "
                "or set `batch_norm: live`"
            )
        crop, cells = self.training.augmentation.crop_size, 2 * self.radius - 1
        if -(-crop // self.grid_stride) < cells:
            raise ValueError(
                f"pairs of radius {self.radius} need crops of at least {cells} cells of {self.grid_stride} "
                f"pixels; got `training.augmentation.crop_size` {crop}"
            )
        return self


class Psa(Refiner):
    """Pixel-level semantic affinity: features learned from confident pairs, then a random walk of the scores.

    `fit` writes `low/<id>.npz`, `high/<id>.npz` and `training/`. A background that the maps bring along is
    not used: the powers make their own from the scores.

    Args:
        config: hyper-parameters.
        class_names: K + 1 names, the first "background".

    Source:
        Ahn and Kwak, CVPR 2018, https://arxiv.org/abs/1803.10464 (infer_cls.py, train_aff.py and infer_aff.py
        at 9493e59). With VGG-16 images keep ImageNet's statistics and the backbone turns them into its own.
        Differs: borders, see the config; the presets have those of the code. Absent classes are left out of
        the walk, in which they stay 0.
    """

    paper = Paper(
        title="Learning Pixel-level Semantic Affinity with Image-level Supervision for Weakly Supervised "
        "Semantic Segmentation",
        venue="CVPR",
        year=2018,
        url="https://arxiv.org/abs/1803.10464",
        code="https://github.com/jiwoon-ahn/psa",
    )
    Config = PsaConfig
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "resnet38": {"borders": "faithful"},
        "vgg16": {
            "borders": "faithful",
            "backbone": "vgg16",
            "backbone_weights": "vgg16",
            "backbone_options": {"fc6_dilation": 4, "caffe_input": True},
            "group_norm": True,
        },
    }
    together = 16  # a walk's steps cost more to start than to do on small grids
    config: PsaConfig

    def __init__(self, config: PsaConfig, class_names: Sequence[str]) -> None:
        super().__init__(config, class_names)
        self._net: AffinityNet | None = None

    @property
    def stride(self) -> int:
        """Image pixels per cell of the affinities' grid."""
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
        """Write both sets of scores, and learn affinities from them.

        Raises:
            StageError: some images have no scores, or `work_dir` belongs to another training.
            WeightsError: the backbone's weights are missing or do not fit.
        """
        training = work_dir / "training"
        is_trained = (training / "model.safetensors").is_file()
        seed_everything(seed)
        net = self._untrained(with_weights=not is_trained)
        if is_main_process() and not is_trained:
            self._write_scores(dataset, ids, maps, work_dir, device, progress)
        wait_for_everyone()
        most = max((int(dataset.image_labels(image_id).sum()) for image_id in ids), default=0)
        train_on_pairs(
            net,
            dataset,
            ids,
            self.config.training,
            statistics=self.config.normalisation,
            aligned=partial(read_scores, work_dir, 1 + most),
            work_dir=training,
            seed=seed,
            device=device,
            progress=progress,
        )
        self._net = net

    def refine(self, sample: Sample, maps: ActivationMaps) -> ActivationMaps:
        """Scores and background after the walk, on the affinities' grid; background alone without any class.

        Args:
            sample: the image.
            maps: of the image's size; others are resized. A background is not used.

        Raises:
            StageError: `fit` was not called.
            ShapeError: the maps hold a class that does not exist.
        """
        return self.refine_batch([sample], [maps])[0]

    @torch.inference_mode()
    def refine_batch(self, samples: Sequence[Sample], maps: Sequence[ActivationMaps]) -> list[ActivationMaps]:
        """`refine` for several images of one size; the network sees them at once."""
        height, width = self.checked_size(samples, maps)
        if self._net is None:
            raise StageError("`Psa` must learn affinities first. Call `fit` with its folder before `refine`.")
        grid = -(-height // self.stride), -(-width // self.stride)
        refined = {
            place: ActivationMaps(own.class_ids, own.scores.new_zeros(0, *grid)).with_background(1.0)
            for place, own in enumerate(maps)
            if not len(own.class_ids)
        }
        places = [place for place in range(len(maps)) if place not in refined]
        if places:
            images = np.stack([seen_image(samples[place], self.config.max_pixels) for place in places])
            spread = self._spread(self._net, images, [maps[place] for place in places])
            whole = [own if own.size == grid else own.resized(*grid) for own in spread]  # of shrunk images
            refined |= dict(zip(places, whole, strict=True))
        return [refined[place] for place in range(len(maps))]

    def _spread(
        self, net: AffinityNet, images: np.ndarray, maps: Sequence[ActivationMaps]
    ) -> list[ActivationMaps]:
        """The walks of the scores of several images (B, H, W, 3) of one size, each with a class."""
        config, size = self.config, images.shape[1:3]
        device = maps[0].scores.device
        features = self._features(net.to(device), torch.from_numpy(images).to(device))  # (B, D, h, w)
        whole = [own if own.size == size else own.resized(*size) for own in maps]
        spread = walk_together(
            [block_means(with_background(own, config.background_power), self.stride) for own in whole],
            torch.stack([grid_affinities(own, config.radius, config.borders) for own in features]),
            radius=config.radius,
            affinity_power=config.affinity_power,
            num_doublings=config.num_doublings,
        )
        limited = [own.clamp(0, 1) for own in spread]  # means of numbers up to 1, but for rounding
        return [
            ActivationMaps(own.class_ids, scores[1:], scores[0])
            for own, scores in zip(maps, limited, strict=True)
        ]

    def _features(self, net: AffinityNet, images: Tensor) -> Tensor:
        """Features (B, D, h, w) of images (B, H, W, 3), uint8; padded with the mean colour to whole cells."""
        mean, std = (
            torch.tensor(values, device=images.device)[:, None, None]
            for values in STATISTICS[self.config.normalisation]
        )
        pixels = (images.permute(0, 3, 1, 2).float() / 255 - mean) / std
        height, width = (-(-side // self.stride) for side in pixels.shape[-2:])
        # sides below the network's own stride could not be shrunk
        sides = (max(cells * self.stride, net.backbone.output_stride) for cells in (height, width))
        missing = [side - own for side, own in zip(sides, pixels.shape[-2:], strict=True)]
        padded = F.pad(pixels, (0, missing[1], 0, missing[0]))
        return net.features(padded).float()[..., :height, :width]

    def rehearse(self, count: int, side: int) -> tuple[nn.Module, dict[str, Tensor]]:
        """The untrained network, and scores of which half are foreground."""
        self._net = self._untrained(with_weights=False)
        scores = torch.zeros(count, 2, side, side)
        scores[:, 0, : side // 2] = scores[:, 1, side // 2 :] = 1
        return self._net, {LOW: scores, HIGH: scores}

    def _untrained(self, *, with_weights: bool) -> AffinityNet:
        """The network as its training starts, or without weights where they would be replaced anyway."""
        config = self.config
        stride = {} if config.output_stride is None else {"output_stride": config.output_stride}
        try:
            backbone = build_backbone(
                config.backbone,
                weights=config.backbone_weights if with_weights else None,
                batch_norm=config.batch_norm,
                freeze_until=config.freeze_until,
                **stride,
                **config.backbone_options,
            )
        except TypeError as error:
            raise RecipeError(
                f"`backbone_options` {config.backbone_options} do not fit the backbone `{config.backbone}` "
                f"({error}). Leave out what it does not know."
            ) from error
        if config.batch_norm == "frozen":
            freeze_batch_norm_affine(backbone)
        return AffinityNet(
            backbone, grid_stride=config.grid_stride, radius=config.radius, group_norm=config.group_norm
        )

    def _write_scores(
        self,
        dataset: Dataset,
        ids: Sequence[str],
        maps: MapStore,
        work_dir: Path,
        device: torch.device | str,
        progress: Progress | None,
    ) -> None:
        """Write both sets of scores of all images that lack one, several at once."""
        config = self.config
        stores = MapStore(work_dir / LOW), MapStore(work_dir / HIGH)

        def work(image_id: str) -> None:
            own, crf, size = maps_with_crf(
                maps, dataset, image_id, config.crf, max_pixels=config.max_pixels, device=device
            )
            found = confident_scores(crf, own, (config.low_power, config.high_power))
            for store, scores in zip(stores, found, strict=True):
                store.write(image_id, scores, image_size=size)

        missing = [[image_id] for image_id in ids if not all(image_id in store for store in stores)]
        failures = work_on_images(missing, work, threads=threads_for(device), progress=progress)
        report_failures(failures, len(ids), "confident scores")


def read_scores(work_dir: Path, planes: int, image_id: str) -> dict[str, np.ndarray]:
    """Both sets of scores of an image, as the loader wants them; (planes, H, W), float16, the last ones 0.

    Raises:
        DataError: there are more classes than planes.
    """
    found = {}
    for name in (LOW, HIGH):
        maps = MapStore(work_dir / name).read(image_id)
        assert maps.background is not None
        scores = torch.cat([maps.background[None], maps.scores])
        if len(scores) > planes:
            raise DataError(
                f"Maps of {image_id} hold {len(maps.class_ids)} classes, but no image has tags of more than "
                f"{planes - 1}. Make the maps again with these tags."
            )
        found[name] = np.zeros((planes, *maps.size), dtype=np.float16)
        found[name][: len(scores)] = scores.numpy()
    return found
