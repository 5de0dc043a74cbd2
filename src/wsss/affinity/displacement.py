r"""IRN's displacement field: for each cell the vector to the centre of its object, learned from pairs alone.

$$ d_i - d_j \to x_j - x_i \ (\text{same object}), \qquad d_i - d_j \to 0 \ (\text{both background}) $$

with the displacement d_i and place x_i of cell i. Both hold for any constant added to d, so its mean over the
training images is subtracted afterwards. Semantic masks do not need the field; instances do.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import torch
from scipy import ndimage
from torch import Tensor, nn

from wsss.affinity.labels import COUNT_EPSILON, PairLabels, PairTotals
from wsss.affinity.pairs import destinations, offsets, sources
from wsss.affinity.taps import TapProjection, tap_size
from wsss.checks import check_shape
from wsss.errors import StageError
from wsss.layers.pair_count import sum_over_pairs

WIDTHS: Final = (64, 256)  # fewest and most channels of a tap's projection; between them half the tap's own
MERGED: Final = 256
REFINEMENTS: Final = 300  # any number over 100 will do (IRN)
WEAK: Final = 2.5  # cells; nearer to its centre than this a cell takes part in joining centres (IRN)


class DisplacementBranch(nn.Module):
    """Displacement of each cell from the taps of a backbone, coarse ones merged first.

    For ResNet-50 the five taps are projected to 64, 128, 256, 256 and 256 channels; the last three meet at
    stride 8 in 256 channels, which meet the first two at stride 4.

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
        coarse = [stride for stride in strides if stride > grid_stride]
        self._coarse_stride = min(coarse, default=grid_stride)
        self.projections = nn.ModuleList()
        fine_width = coarse_width = 0
        for tap, stride in zip(channels, strides, strict=True):
            width = min(max(tap // 2, WIDTHS[0]), WIDTHS[1])
            is_coarse = stride > grid_stride
            factor = stride / (self._coarse_stride if is_coarse else grid_stride)
            self.projections.append(_projection(tap, width, factor))
            fine_width, coarse_width = fine_width + width * (not is_coarse), coarse_width + width * is_coarse
        self.merge = _projection(coarse_width, MERGED, self._coarse_stride / grid_stride) if coarse else None
        self.last = _projection(fine_width + (MERGED if coarse else 0), MERGED, 1)
        self.displacement = nn.Conv2d(MERGED, 2, 1, bias=False)

    def forward(self, taps: Sequence[Tensor]) -> Tensor:
        """Displacements (B, 2, h, w) as (dy, dx) in cells."""
        grid = tap_size(taps, self._strides, self._grid_stride)
        middle = tap_size(taps, self._strides, self._coarse_stride)
        fine, coarse = [], []
        for projection, tap, stride in zip(self.projections, taps, self._strides, strict=True):
            if stride > self._grid_stride:
                coarse.append(projection(tap, middle))
            else:
                fine.append(projection(tap, grid))
        if self.merge is not None:
            fine.append(self.merge(torch.cat(coarse, dim=1), grid))
        displacement: Tensor = self.displacement(self.last(torch.cat(fine, dim=1), grid))
        return displacement


def _projection(inputs: int, outputs: int, factor: float) -> TapProjection:
    return TapProjection(inputs, outputs, groups=min(16, outputs // 8), factor=factor)


def displacement_losses(
    displacement: Tensor, known: PairLabels, radius: int, totals: PairTotals | None = None
) -> tuple[Tensor, Tensor]:
    """Mean absolute errors of the differences between the displacements of pairs, in cells.

    Args:
        displacement: (dy, dx) in cells; (B, 2, h, w).
        known: which pairs are foreground of one class and which background.
        radius: in cells.
        totals: what `known.totals` counted; None: counted here.

    Returns:
        Of foreground pairs, whose difference must be the offset between them, and of background pairs, which
        must not differ; two scalars, 0 without such pairs, whose averages over processes are the means over
        their pairs.

    Source:
        Ahn et al., CVPR 2019, equations 8 and 9, https://arxiv.org/abs/1904.05044; the mean is over both
        coordinates, as in the code.
        Differs: none.
    """
    totals = known.totals() if totals is None else totals
    here = sources(displacement, radius)  # (B, 2, h', w')
    foreground = background = displacement.new_zeros(())
    for number, offset in enumerate(offsets(radius)):
        difference = here - destinations(displacement, offset, radius)
        target = difference.new_tensor(offset)[:, None, None]
        # chosen first: most pairs are neither, and products with 0 would keep NaN
        foreground = foreground + _sum_over(difference - target, known.foreground[:, number])
        background = background + _sum_over(difference, known.background[:, number])
    return (
        sum_over_pairs(foreground) / (2 * totals.foreground + COUNT_EPSILON),
        sum_over_pairs(background) / (2 * totals.background + COUNT_EPSILON),
    )


def _sum_over(errors: Tensor, chosen: Tensor) -> Tensor:
    """Sum of absolute errors (B, 2, h', w') over the chosen (B, h', w')."""
    return torch.where(chosen[:, None], errors.abs(), 0.0).sum()


def mean_displacement(displacements: Iterable[Tensor]) -> Tensor:
    """Mean of batches of displacements (B, 2, h, w): the mean of the batches' means; (2,).

    Raises:
        StageError: there is no batch.
    """
    means = [displacement.float().mean(dim=(0, 2, 3)) for displacement in displacements]
    if not means:
        raise StageError(
            "The mean displacement needs at least one image; got none. Pass the training images."
        )
    return torch.stack(means).mean(dim=0)


def instances(displacement: Tensor) -> Tensor:
    """Number the objects that a displacement field tells apart: cells with one centre are of one object.

    Centres are joined where they lie in one 4-connected region of short displacements; all cells whose centre
    lies outside of such regions get a number of their own, together.

    Args:
        displacement: (dy, dx) in cells, its mean subtracted; (2, h, w).

    Returns:
        Numbers 0…Q - 1 in the order of the regions; (h, w), int64.

    Source:
        Ahn et al., CVPR 2019, section 5.1, https://arxiv.org/abs/1904.05044 (step/make_ins_seg_labels.py at
        a2ece00).
        Differs: none.
    """
    centres = centroids(displacement)
    is_weak = displacement.square().sum(dim=0).sqrt() < WEAK
    regions = torch.from_numpy(ndimage.label(is_weak.cpu().numpy())[0]).long().to(displacement.device)
    at_centre = regions[centres[0], centres[1]]  # (h, w); 0 is no region
    numbers: Tensor = torch.unique(at_centre, return_inverse=True)[1]
    return numbers


def centroids(displacement: Tensor, iterations: int = REFINEMENTS) -> Tensor:
    """Follow the field from each cell, step by step, to the centre that it points to.

    Args:
        displacement: (dy, dx) in cells; (2, h, w).
        iterations: number of steps; each adds the displacement at the place reached, bilinear between
            cells, and stays on the grid.

    Returns:
        Row and column of the cell reached; (2, h, w), int64.
    """
    check_shape("displacement", displacement, (2, None, None), "Pass the field of one image.")
    height, width = displacement.shape[1:]
    device = displacement.device
    rows, columns = torch.meshgrid(
        torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij"
    )
    places = torch.stack([rows, columns]).to(displacement.dtype)  # (2, h, w)
    last = places.new_tensor([height - 1, width - 1])[:, None, None]
    for _ in range(iterations):
        places = (places + _sampled(displacement, places)).clamp(min=torch.zeros_like(last), max=last)
    return places.round().long()


def _sampled(values: Tensor, places: Tensor) -> Tensor:
    """Values (D, h, w) at fractional places (2, h, w) on the grid, bilinear."""
    low, high = places.floor().long(), places.ceil().long()
    part = places - low
    above = values[:, low[0], low[1]] * (1 - part[1]) + values[:, low[0], high[1]] * part[1]
    below = values[:, high[0], low[1]] * (1 - part[1]) + values[:, high[0], high[1]] * part[1]
    return above * (1 - part[0]) + below * part[0]
