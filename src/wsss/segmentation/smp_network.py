"""Networks of segmentation_models_pytorch, an optional package: any of its architectures and encoders.

Nothing is downloaded: an encoder starts from random weights or from a file on this machine.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from typing_extensions import Self

from wsss.checks import nearest
from wsss.errors import RecipeError, WeightsError
from wsss.models.backbone import BatchNormMode
from wsss.models.weights import load_backbone_weights
from wsss.segmentation.base import SegmentationNet

if TYPE_CHECKING:
    from wsss.segmentation.config import SmpConfig

PACKAGE: Final = "segmentation_models_pytorch"
_OWN: Final = ("encoder_name", "encoder_weights", "in_channels", "classes", "activation", "aux_params")


class SmpNetwork(SegmentationNet):
    """A network with `encoder`, `decoder` and `segmentation_head`; images have ImageNet's statistics.

    Images are padded at the end with 0, the mean colour, to a multiple of the encoder's stride, and the
    logits (B, C, H, W) are cut to the images' size.

    Args:
        net: the package's network.
        num_classes: K + 1.
        batch_norm: of the encoder: "frozen" (running statistics, nothing trains) or "live".
        head_rate: learning rate of everything but the encoder, as a multiple of the encoder's.
        rest: see `SegmentationNet`.
    """

    def __init__(
        self, net: nn.Module, num_classes: int, *, batch_norm: BatchNormMode, head_rate: float, **rest: Any
    ) -> None:
        super().__init__(num_classes, **rest)
        self.net = net
        self._batch_norm, self._head_rate = batch_norm, head_rate
        self._stride = int(getattr(self._encoder, "output_stride", 32))
        if batch_norm == "frozen":
            for layer in self._norms():
                layer.requires_grad_(False)

    @property
    def _encoder(self) -> nn.Module:
        return self.net.get_submodule("encoder")

    def _norms(self) -> list[nn.Module]:
        return [layer for layer in self._encoder.modules() if isinstance(layer, _BatchNorm)]

    def outputs(self, images: Tensor) -> dict[str, Tensor]:
        """Logits at the images' size."""
        height, width = images.shape[-2:]
        padded = F.pad(images, (0, -width % self._stride, 0, -height % self._stride))
        return {"cross_entropy": self.net(padded)[..., :height, :width]}

    def train(self, mode: bool = True) -> Self:
        """Switch mode; frozen batch norms stay in evaluation mode."""
        super().train(mode)
        if self._batch_norm == "frozen":
            for layer in self._norms():
                layer.eval()
        return self

    def parameter_groups(self, base_lr: float) -> list[dict[str, Any]]:
        """The encoder x1, everything else x`head_rate`; biases and norms without decay."""
        encoder = {id(parameter) for parameter in self._encoder.parameters()}
        groups: list[dict[str, Any]] = []
        for is_encoder, rate in ((True, base_lr), (False, self._head_rate * base_lr)):
            own = [p for p in self.parameters() if p.requires_grad and (id(p) in encoder) == is_encoder]
            groups.append({"params": [p for p in own if p.ndim > 1], "lr": rate})
            groups.append({"params": [p for p in own if p.ndim <= 1], "lr": rate, "weight_decay": 0.0})
        return groups


def smp_network(
    config: SmpConfig,
    num_classes: int,
    *,
    weights: str | None = None,
    batch_norm: BatchNormMode = "live",
    head_rate: float = 1.0,
    **rest: Any,
) -> SmpNetwork:
    """Build a network of segmentation_models_pytorch.

    Args:
        config: architecture and encoder.
        num_classes: K + 1.
        weights: None (random), or what `find_weights` knows: a state dict of the encoder, such as
            torchvision's for `resnet50`.
        batch_norm: of the encoder, see `SmpNetwork`.
        head_rate: see `SmpNetwork`.
        rest: see `SegmentationNet`.

    Raises:
        RecipeError: no such architecture or encoder, or an argument that it does not take.
        WeightsError: the package is missing, or the weights are missing or do not fit.
    """
    package = _package()
    architectures: Mapping[str, Any] = package.MODEL_ARCHITECTURES_MAPPING
    if config.architecture.lower() not in architectures:
        known = [cls.__name__ for cls in architectures.values()]
        raise RecipeError(
            f"`smp.architecture` must be a network of {PACKAGE}; got `{config.architecture}`. "
            f"{nearest(config.architecture, known)}"
        )
    _check_encoder(package, config.encoder)
    taken = sorted(set(config.options) & set(_OWN))
    if taken:
        raise RecipeError(
            f"`smp.options` can't set {', '.join(f'`{name}`' for name in taken)}: these follow from the data "
            "and from `encoder` and `weights`. Leave them out."
        )
    try:
        net = architectures[config.architecture.lower()](
            encoder_name=config.encoder, encoder_weights=None, classes=num_classes, **config.options
        )
    except (TypeError, ValueError, KeyError) as error:
        raise RecipeError(
            f"`smp` describes no network that {PACKAGE} can build: {error}. "
            f"Look up the arguments of {config.architecture}, and correct `smp.options`."
        ) from error
    if weights is not None:
        load_backbone_weights(net.encoder, weights)
    return SmpNetwork(net, num_classes, batch_norm=batch_norm, head_rate=head_rate, **rest)


def _check_encoder(package: Any, name: str) -> None:
    known = package.encoders.get_encoder_names()
    if name not in known and not name.startswith("tu-"):
        raise RecipeError(
            f"`smp.encoder` must be an encoder of {PACKAGE}; got `{name}`. {nearest(name, known)} "
            "A network of timm works too, such as `tu-convnext_tiny`."
        )


def _package() -> Any:
    try:
        return importlib.import_module(PACKAGE)
    except ImportError as error:
        raise WeightsError(
            f"`segmentation.network: smp` needs the package {PACKAGE} ({error}). "
            'Run `pip install "wsss[segmentation]"`, or write `network: deeplab_v2`.'
        ) from error
