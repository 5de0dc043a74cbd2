r"""PSA's AffinityNet: features whose distance says how likely two nearby cells are of the same class.

$$ a_{ij} = \exp\Big(-\tfrac1D \sum_d |f_d(i) - f_d(j)|\Big) $$

with features f (D, h, w). The network knows no class: it learns from pairs of cells of one image whose
classes are sure (`cell_labels`), and its affinities guide the random walk of `refiners/psa.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from wsss.affinity.labels import mean_over, pair_labels
from wsss.affinity.pairs import destinations, offsets, overlap, sources
from wsss.affinity.taps import at_stride
from wsss.errors import ShapeError
from wsss.models.backbone import Backbone
from wsss.types import BACKGROUND, IGNORE, Batch

Borders: TypeAlias = Literal["improved", "faithful"]

LOW: Final = "low"
HIGH: Final = "high"
"""Names of the two sets of scores among a batch's aligned inputs: with strong and with weak background."""

WIDTHS: Final = (64, 128, 256)  # channels from each of the last three taps
GROUPS: Final = (8, 16, 32)  # of their group norms
MIXING_GAIN: Final = 4.0
NO_SCORE: Final = 1e-5  # a cell whose scores are all below this is padding
_LOG_EPSILON: Final = 1e-5


class AffinityNet(nn.Module):
    r"""Features of 448 channels from the last three taps of a backbone; trained by `wsss.training`.

    The loss is a weighted mean over the three kinds of pairs:

    $$ \tfrac14 \overline{-\log a}\,(\text{background}) + \tfrac14 \overline{-\log a}\,(\text{foreground})
       + \tfrac12 \overline{-\log(1 - a)}\,(\text{different}) $$

    Args:
        backbone: gives at least three taps.
        grid_stride: image pixels per cell (PSA: 8).
        radius: of the pairs, in cells (PSA: 5).
        group_norm: normalise what comes from each tap (PSA: with VGG-16 only).

    Raises:
        ShapeError: the backbone has fewer than three taps.

    Source:
        Ahn and Kwak, CVPR 2018, section 3.2, https://arxiv.org/abs/1803.10464 (network/resnet38_aff.py and
        vgg16_aff.py at 9493e59).
        Differs: any backbone; taps of other strides are resized. The distance is the mean over channels, as
        in the code; the paper writes their sum.
    """

    def __init__(
        self, backbone: Backbone, *, grid_stride: int = 8, radius: int = 5, group_norm: bool = False
    ) -> None:
        super().__init__()
        taps = tuple(zip(backbone.stage_channels, backbone.stage_strides, strict=True))[-len(WIDTHS) :]
        if len(taps) < len(WIDTHS):
            raise ShapeError(
                f"`backbone` must have at least {len(WIDTHS)} taps; got {len(taps)}. Choose another backbone."
            )
        self.grid_stride, self.radius = grid_stride, radius
        self.backbone = backbone
        self._factors = tuple(stride / grid_stride for _, stride in taps)
        self.projections = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels, width, 1, bias=False),
                nn.GroupNorm(groups, width) if group_norm else nn.Identity(),
                nn.ELU(),
            )
            for (channels, _), width, groups in zip(taps, WIDTHS, GROUPS, strict=True)
        )
        self.mixing = nn.Conv2d(sum(WIDTHS), sum(WIDTHS), 1, bias=False)
        for projection in self._new_convolutions()[:-1]:
            nn.init.kaiming_normal_(projection.weight)
        nn.init.xavier_uniform_(self.mixing.weight, gain=MIXING_GAIN)

    def features(self, images: Tensor) -> Tensor:
        """Features (B, 448, h, w) of normalised images (B, 3, H, W); h = ceil(H / stride), w likewise."""
        height, width = images.shape[-2:]
        size = -(-height // self.grid_stride), -(-width // self.grid_stride)
        taps = self.backbone.stages(images)[-len(WIDTHS) :]
        parts = [
            at_stride(projection(tap), factor, size)
            for tap, projection, factor in zip(taps, self.projections, self._factors, strict=True)
        ]
        return F.elu(self.mixing(torch.cat(parts, dim=1)))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Losses of the three kinds of pairs, weighted as published.

        Args:
            batch: with scores of background and classes of each image, then zeros up to C planes, as
                `aligned["low"]` and `aligned["high"]`; each (B, C, H, W), 0 in the padding.

        Raises:
            ShapeError: the batch lacks the scores, or its grid is too small for the radius.
        """
        missing = {LOW, HIGH} - batch.aligned.keys()
        if missing:
            raise ShapeError(
                f"`batch.aligned` must hold scores as `{LOW}` and `{HIGH}`; got {sorted(batch.aligned)}. "
                "Give the loader `aligned=` a function that reads them."
            )
        features = self.features(batch.images)
        low, high = (block_means(batch.aligned[name], self.grid_stride) for name in (LOW, HIGH))
        known = pair_labels(cell_labels(low, high), self.radius)
        totals = known.totals()  # every process counts, one without pairs too
        with torch.autocast(features.device.type, enabled=False):  # logarithms near 0
            affinities = pair_affinities(features.float(), self.radius)  # (B, P, h', w')
            together = -torch.log(affinities + _LOG_EPSILON)
            apart = -torch.log(1 + _LOG_EPSILON - affinities)
            return {
                "background_pairs": mean_over(together, known.background, totals.background) / 4,
                "foreground_pairs": mean_over(together, known.foreground, totals.foreground) / 4,
                "different_pairs": mean_over(apart, known.different, totals.different) / 2,
            }

    def parameter_groups(self, base_lr: float) -> list[dict[str, Any]]:
        """Weights of the backbone x1 and its biases x2, new weights x10; biases do not decay.

        Group norms go with the backbone, as in PSA. New biases would be x20, but there is none.
        """
        new = {id(layer.weight) for layer in self._new_convolutions()}
        trained = [(name, p) for name, p in self.named_parameters() if p.requires_grad]
        old = [(name, p) for name, p in trained if id(p) not in new]
        weights = [p for name, p in old if not name.endswith("bias")]
        biases = [p for name, p in old if name.endswith("bias")]
        return [
            {"params": weights, "lr": base_lr},
            {"params": biases, "lr": 2 * base_lr, "weight_decay": 0.0},
            {"params": [p for _, p in trained if id(p) in new], "lr": 10 * base_lr},
        ]

    def _new_convolutions(self) -> Sequence[nn.Conv2d]:
        """Those of the projections, then the mixing one."""
        layers = [layer for layer in self.projections.modules() if isinstance(layer, nn.Conv2d)]
        return [*layers, self.mixing]


def block_means(planes: Tensor, stride: int) -> Tensor:
    """Mean of each block of pixels; the right and bottom are padded with 0 to multiples of the stride.

    Args:
        planes: (…, C, H, W).
        stride: pixels per side of a block.

    Returns:
        (…, C, ceil(H / stride), ceil(W / stride)).
    """
    height, width = planes.shape[-2:]
    if planes.numel() == 0:
        return planes.new_zeros(*planes.shape[:-2], -(-height // stride), -(-width // stride))
    return F.avg_pool2d(F.pad(planes, (0, -width % stride, 0, -height % stride)), stride)


def cell_labels(low: Tensor, high: Tensor) -> Tensor:
    """Classes that scores with a strong (low power) and a weak (high power) background make sure.

    Foreground is what wins even against the strong background, background what wins even when it is weak;
    the rest, and cells without any score, are 255.

    Args:
        low: scores with the strong background; background first, then the classes of the image; (B, C, h, w).
        high: the same with the weak background.

    Returns:
        0, places among the C, or 255; (B, h, w), int64.

    Source:
        Ahn and Kwak, CVPR 2018, section 3.2, https://arxiv.org/abs/1803.10464 (voc12/data.py at 9493e59).
        Differs: none.
    """
    foreground, background = low.argmax(dim=1), high.argmax(dim=1)
    labels = foreground.masked_fill(foreground == BACKGROUND, IGNORE)
    labels = labels.masked_fill(background == BACKGROUND, BACKGROUND)
    is_padding = torch.maximum(low.amax(dim=1), high.amax(dim=1)) < NO_SCORE
    return labels.masked_fill(is_padding, IGNORE)


def pair_affinities(features: Tensor, radius: int) -> Tensor:
    """Affinities of all pairs of each source in training.

    Args:
        features: (B, D, h, w).
        radius: in cells (PSA: 5).

    Returns:
        (B, P, h', w') in [0, 1], for the `offsets` of the `sources`.

    Raises:
        ShapeError: the grid is too small for the radius.

    Source:
        Ahn and Kwak, CVPR 2018, equation 3, https://arxiv.org/abs/1803.10464.
        Differs: the mean over channels, as in the code, where the paper has the sum.

    Example:
        >>> pair_affinities(torch.zeros(1, 8, 2, 3), radius=2).shape
        torch.Size([1, 4, 1, 1])
    """
    distances: Tensor = _MeanDistances.apply(features, radius)
    return torch.exp(-distances)


def grid_affinities(features: Tensor, radius: int, borders: Borders) -> Tensor:
    """Affinities of all pairs on a grid, as `random_walk.walk` takes them; 0 where there is no pair.

    Args:
        features: of one image; (D, h, w).
        radius: in cells (PSA: 5).
        borders: "improved": all pairs on the grid. "faithful": only pairs of the `sources`, as in PSA's code,
            which leaves cells near the borders with few neighbours, and some in the corners with none.

    Returns:
        (P, h, w) in [0, 1].
    """
    height, width = features.shape[-2:]
    affinities = features.new_zeros(len(offsets(radius)), height, width)
    if borders == "faithful":
        if height >= radius and width >= 2 * radius - 1:  # else no cell has all of its destinations
            sources(affinities, radius).copy_(pair_affinities(features[None], radius)[0])
        return affinities
    for plane, offset in zip(affinities, offsets(radius), strict=True):
        here, there = overlap(features, offset)
        overlap(plane, offset)[0].copy_(torch.exp(-(here - there).abs().mean(dim=0)))
    return affinities


class _MeanDistances(torch.autograd.Function):
    """Mean over channels of |f_i - f_j|; (B, D, h, w) -> (B, P, h', w').

    Autograd would keep a copy of the sources' features for each of the P offsets: more than 1 GB for a batch
    of PSA's.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, radius: int) -> Tensor:
        ctx.save_for_backward(features)
        ctx.radius = radius
        here = sources(features, radius)
        distances = [
            (here - destinations(features, offset, radius)).abs_().mean(dim=1) for offset in offsets(radius)
        ]
        return torch.stack(distances, dim=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (features,) = ctx.saved_tensors
        result = torch.zeros_like(features)
        here, here_result = sources(features, ctx.radius), sources(result, ctx.radius)
        shares = gradient / features.shape[1]
        for number, offset in enumerate(offsets(ctx.radius)):
            there = destinations(features, offset, ctx.radius)
            step = (here - there).sign_().mul_(shares[:, number, None])  # (B, D, h', w')
            here_result += step
            destinations(result, offset, ctx.radius).sub_(step)
        return result, None
