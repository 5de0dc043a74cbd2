"""IRN's network: class boundaries and displacements from the taps of a backbone, learned from pairs of cells.

The network knows no class. It is trained on pairs whose classes are confidently known (`confident_labels`),
and its boundaries stop the random walk that spreads activation scores (`refiners/irn.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import Self

from wsss.affinity.displacement import DisplacementBranch, displacement_losses
from wsss.affinity.labels import mean_over, pair_labels
from wsss.affinity.path_affinities import path_affinities
from wsss.affinity.taps import TapProjection, at_stride, tap_size
from wsss.errors import ShapeError, StageError
from wsss.models.backbone import Backbone
from wsss.types import Batch

LABELS: Final = "labels"
"""Name of the confident labels among a batch's aligned inputs."""

WIDTH: Final = 32  # channels of each tap in the boundary branch
GROUPS: Final = 4
CANVAS_MULTIPLE: Final = 16
DISPLACEMENT_RATE: Final = 10  # learning rate of the displacement branch as a multiple of the boundary's
_LOG_EPSILON: Final = 1e-5


class BoundaryBranch(nn.Module):
    """Logit of a class boundary in each cell from the taps of a backbone.

    Args:
        channels: of the taps.
        strides: of the taps; one of them is `grid_stride`.
        grid_stride: image pixels per cell.

    Source:
        Ahn et al., CVPR 2019, section 4.1, figure 3, https://arxiv.org/abs/1904.05044; widths of the code.
        Differs: taps of any number and stride.
    """

    def __init__(self, channels: Sequence[int], strides: Sequence[int], grid_stride: int) -> None:
        super().__init__()
        self._strides, self._grid_stride = tuple(strides), grid_stride
        self.projections = nn.ModuleList(
            TapProjection(tap, WIDTH, groups=GROUPS, factor=stride / grid_stride)
            for tap, stride in zip(channels, strides, strict=True)
        )
        self.boundary = nn.Conv2d(WIDTH * len(strides), 1, 1, bias=True)

    def forward(self, taps: Sequence[Tensor]) -> Tensor:
        """Logits (B, h, w)."""
        grid = tap_size(taps, self._strides, self._grid_stride)
        features = [projection(tap, grid) for projection, tap in zip(self.projections, taps, strict=True)]
        logits: Tensor = self.boundary(torch.cat(features, dim=1))  # (B, 1, h, w)
        return logits[:, 0]


class IRNet(nn.Module):
    r"""Boundary branch and, where wanted, displacement branch on one backbone; trained by `wsss.training`.

    With the affinity a of `path_affinities`, the loss is

    $$ \tfrac14 \overline{-\log a}\,(\text{background}) + \tfrac14 \overline{-\log a}\,(\text{foreground})
       + \tfrac12 \overline{-\log(1 - a)}\,(\text{different})
       + \tfrac12 (D_\text{foreground} + D_\text{background}) $$

    with means over the pairs of each kind, and the `displacement_losses` D.

    Args:
        backbone: gives the taps; one of its strides is `grid_stride`.
        grid_stride: image pixels per cell (IRN: 4).
        radius: of the pairs in training, in cells (IRN: 10).
        displacement: whether there is a displacement branch (IRN: yes; camera-ready CLIMS: no).
        backbone_trains: train the backbone too, at the rate of the boundary branch; else it is frozen,
            batch norms included, and its taps carry no gradient (IRN, CLIMS: frozen).

    Raises:
        ShapeError: no tap of the backbone has that stride.

    Source:
        Ahn et al., CVPR 2019, https://arxiv.org/abs/1904.05044 (net/resnet50_irn.py, step/train_irn.py at
        a2ece00).
        Differs: any backbone, with `backbone_trains` for those without pretrained weights.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        grid_stride: int = 4,
        radius: int = 10,
        displacement: bool = True,
        backbone_trains: bool = False,
    ) -> None:
        super().__init__()
        strides = backbone.stage_strides
        if grid_stride not in strides:
            raise ShapeError(
                f"`grid_stride` must be the stride of one of the backbone's taps, {sorted(set(strides))}; "
                f"got {grid_stride}."
            )
        self.grid_stride, self.radius, self.backbone_trains = grid_stride, radius, backbone_trains
        self.backbone = backbone
        if not backbone_trains:
            backbone.requires_grad_(False)
        self.boundary = BoundaryBranch(backbone.stage_channels, strides, grid_stride)
        self.displacement: DisplacementBranch | None = None
        if displacement:
            self.displacement = DisplacementBranch(backbone.stage_channels, strides, grid_stride)
        self.mean_displacement: Tensor  # (2,), known after training only, and stored apart
        self.register_buffer("mean_displacement", torch.zeros(2), persistent=False)

    def taps(self, images: Tensor) -> list[Tensor]:
        """Taps of the backbone for normalised images (B, 3, H, W), without gradient where it is frozen."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.backbone_trains):
            return self.backbone.stages(images)

    def displacements(self, images: Tensor) -> Tensor:
        """Displacements (dy, dx) of normalised images, in cells, less `mean_displacement`; (B, 2, h, w).

        Raises:
            StageError: the network has no displacement branch.
        """
        if self.displacement is None:
            raise StageError(
                "This network has no displacement branch. Build and train it with `displacement=True`."
            )
        displacement: Tensor = self.displacement(self.taps(images)).float()
        return displacement - self.mean_displacement[:, None, None]

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Losses of the kinds of pairs, weighted so that their sum is the published total.

        Args:
            batch: with confident labels as `aligned["labels"]`, 255 where unsure; (B, H, W), uint8.

        Raises:
            ShapeError: the batch has no labels, or its grid is too small for the radius.
        """
        labels = batch.aligned.get(LABELS)
        if labels is None:
            raise ShapeError(
                f'`batch.aligned["{LABELS}"]` must hold confident labels; got '
                f"{sorted(batch.aligned) or 'nothing'}. Have the loader's `aligned=` read them."
            )
        taps = self.taps(batch.images)
        logits = self.boundary(taps)
        displacement = self.displacement(taps) if self.displacement is not None else None
        with torch.autocast(logits.device.type, enabled=False):  # logarithms near 0
            affinities = path_affinities(logits.float().sigmoid(), self.radius)  # (B, P, h', w')
            known = pair_labels(on_grid(labels, (logits.shape[1], logits.shape[2])), self.radius)
            totals = known.totals()  # every process counts, one without pairs too
            together = -torch.log(affinities + _LOG_EPSILON)
            apart = -torch.log(1 + _LOG_EPSILON - affinities)
            losses = {
                "background_pairs": mean_over(together, known.background, totals.background) / 4,
                "foreground_pairs": mean_over(together, known.foreground, totals.foreground) / 4,
                "different_pairs": mean_over(apart, known.different, totals.different) / 2,
            }
            if displacement is not None:
                foreground, background = displacement_losses(displacement.float(), known, self.radius, totals)
                losses["foreground_displacement"] = foreground / 2
                losses["background_displacement"] = background / 2
        return losses

    def parameter_groups(self, base_lr: float) -> list[dict[str, Any]]:
        """Backbone (where it trains) and boundary branch x1, displacement branch x10."""
        slow = [p for p in (*self.backbone.parameters(), *self.boundary.parameters()) if p.requires_grad]
        fast = [] if self.displacement is None else list(self.displacement.parameters())
        return [{"params": slow, "lr": base_lr}, {"params": fast, "lr": DISPLACEMENT_RATE * base_lr}]

    def train(self, mode: bool = True) -> Self:
        """Switch mode; a frozen backbone stays in evaluation mode."""
        super().train(mode)
        if not self.backbone_trains:
            self.backbone.eval()
        return self


def on_grid(labels: Tensor, size: tuple[int, int]) -> Tensor:
    """Labels (B, H, W) of the nearest pixels on a grid (B, h, w), as PIL does: pixel 4 i + 2 for cell i."""
    if tuple(labels.shape[-2:]) == tuple(size):
        return labels
    reduced = F.interpolate(labels[:, None].float(), size=size, mode="nearest-exact")
    return reduced[:, 0].to(labels.dtype)


def flip_averaged_boundary(net: IRNet, images: Tensor, canvas: int | None) -> Tensor:
    """Boundary of images, from the mean of the logits of each image and its mirror image.

    Args:
        net: in evaluation mode.
        images: normalised, all of one size; (B, 3, H, W).
        canvas: see `on_canvas`.

    Returns:
        (B, h, w) in [0, 1] with h = ceil(H / stride), w = ceil(W / stride).

    Source:
        Ahn et al., IRN, CVPR 2019 (net/resnet50_irn.py, EdgeDisplacement, at a2ece00).
        Differs: images larger than the canvas are never cropped, and any number of images passes at once,
        with the same result, since group norms see each image by itself.
    """
    height, width = ((side - 1) // net.grid_stride + 1 for side in images.shape[-2:])
    both = torch.cat([images, images.flip(3)])
    padded = on_canvas(both, canvas, least=net.backbone.output_stride)
    logits = net.boundary(net.taps(padded)).float()[:, None]  # (2 B, 1, h, w)
    # some backbones round sizes down, so that without a canvas a row may be missing
    logits = at_stride(logits[..., :height, :width], 1, (height, width))[:, 0]
    straight, mirrored = logits.chunk(2)
    return ((straight + mirrored.flip(2)) / 2).sigmoid()


def on_canvas(images: Tensor, canvas: int | None, *, least: int = 1) -> Tensor:
    """Pad normalised images (B, 3, H, W) with 0, the mean colour, at the right and bottom.

    Args:
        images: normalised.
        canvas: sides up to this many pixels become this long, longer ones a multiple of 16; None: no padding.
        least: shortest side without a canvas, so that the network can shrink it.
    """

    def length(side: int) -> int:
        if canvas is None:
            return max(side, least)
        return canvas if side <= canvas else -(-side // CANVAS_MULTIPLE) * CANVAS_MULTIPLE

    height, width = images.shape[-2:]
    return F.pad(images, (0, length(width) - width, 0, length(height) - height))
