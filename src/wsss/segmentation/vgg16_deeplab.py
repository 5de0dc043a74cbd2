"""VGG-16 up to pool5a as DeepLab has it in caffe: pooling rounds sizes up, images are BGR minus the mean.

What stands behind it, fc6 and fc7, is part of the heads: V1 has them once, V2 once for each dilation.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from torch import Tensor, nn

from wsss.errors import ShapeError, WeightsError
from wsss.models.backbone import BatchNormMode
from wsss.models.vgg16 import GROUPS, Vgg16
from wsss.models.weight_names import VGG_FC
from wsss.models.weights import backbone_state, find_weights, misfit
from wsss.segmentation.conventions import Conventions

_FC: Final = ("fc6", "fc7", "drop6")
_LOG: Final = logging.getLogger(__name__)


class Vgg16DeepLab(Vgg16):
    """conv1_1 … conv5_3, pool5 and pool5a: 14,714,688 parameters, 512 channels, stride 8.

    Images (B, 3, H, W) are normalised with the statistics of `conventions`.

    Args:
        weights: None (random), or a file of VGG-16; see `vgg16_deeplab`.
        conventions: which images are wanted; None: as goes with the weights, caffe's for random ones.

    Attributes:
        fc: weights of fc6 and fc7 from the file, by name (fc6.weight …); empty where it has none that fit.

    Source:
        Chen et al. (DeepLab), ICLR 2015, https://arxiv.org/abs/1412.7062.
        Differs: none with caffe's weights.
    """

    def __init__(self, weights: str | Path | None = None, conventions: Conventions | None = None) -> None:
        super().__init__(pool5=True)
        self.fc: Mapping[str, Tensor] = {}
        loaded = None if weights is None else self._load(weights)
        self.conventions = conventions or loaded or Conventions()
        for name in _FC:
            self.add_module(name, nn.Identity())
        for group in range(1, len(GROUPS) + 1):
            pool = self.get_submodule(f"pool{group}")
            assert isinstance(pool, nn.MaxPool2d)
            pool.ceil_mode = True
        self.out_channels = GROUPS[-1][1]
        self.stage_channels = (*self.stage_channels[:-1], self.out_channels)

    def _load(self, weights: str | Path) -> Conventions:
        """Take over a file's convolutions, and keep its fc6 and fc7."""
        named, own = backbone_state(weights, "vgg16"), self.state_dict()
        has_fc = any(name in named.state for name in VGG_FC)
        random = {} if has_fc else {name: own[name] for name in VGG_FC}
        problem = misfit({**named.state, **random}, own)
        if problem:
            raise WeightsError(
                f"{find_weights(weights)} does not fit vgg16: {problem}. "
                f"{named.note or 'Use weights of VGG-16, such as `vgg16_20M.caffemodel`.'}"
            )
        self.load_state_dict(named.state, strict=False)
        if has_fc:
            self.fc = {name: named.state[name] for name in VGG_FC}
        else:
            _LOG.warning(
                "%s has no fc6 and fc7 of DeepLab, which start from random weights. %s", weights, named.note
            )
        return Conventions.of(named)

    def parts(self) -> Sequence[Sequence[nn.Module]]:
        """The five groups of convolutions, each but the first behind its pooling; pool5 and pool5a."""
        *groups, last = super().parts()
        return (*groups, last[:2])

    def stages(self, images: Tensor) -> list[Tensor]:
        """One tap for each stage."""
        return super().stages(self.conventions.ordered(images))


def vgg16_deeplab(
    *,
    output_stride: int = 8,
    weights: str | Path | None = None,
    batch_norm: BatchNormMode = "frozen",
    conventions: Conventions | None = None,
) -> Vgg16DeepLab:
    """The VGG-16 of DeepLab.

    Args:
        output_stride: 8, the only one it has.
        weights: None (random), a file of caffe (`vgg16_20M.caffemodel`) or with its names (conv1_1 … fc7), or
            torchvision's, whose fc6 and fc7 don't fit and are left out.
        batch_norm: there is none; either value is fine.
        conventions: which images are wanted; None: as goes with the weights, caffe's for random ones.

    Raises:
        ShapeError: another output stride.
        WeightsError: the weights are missing or do not fit.
    """
    if output_stride != 8:
        raise ShapeError(f"`output_stride` of vgg16 must be 8; got {output_stride}. Leave it out.")
    net = Vgg16DeepLab(weights, conventions)
    net.freeze(batch_norm=batch_norm)
    return net
