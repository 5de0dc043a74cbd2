"""Any network of timm that offers its inner features, as a backbone: `timm/NAME`.

Source:
    timm (Wightman), https://github.com/huggingface/pytorch-image-models, through `features_only=True`. Taps,
    channels and strides are what timm says about its network (`feature_info`).
    Differs: nothing is ever downloaded; weights are files, or what `wsss weights fetch` has brought.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from typing_extensions import Self

from wsss.checks import nearest
from wsss.errors import RecipeError, ShapeError, WeightsError
from wsss.models.backbone import Backbone, BatchNormMode
from wsss.models.weights import find_weights, read_weights

PREFIX: Final = "timm/"
_SIZE_OPTIONS: Final[tuple[dict[str, bool], ...]] = (  # what makes transformers take images of any size
    {"dynamic_img_size": True, "dynamic_img_pad": True},
    {"dynamic_img_size": True},
    {"strict_img_size": False},
    {},
)
_REFUSALS: Final = (
    AssertionError,
    AttributeError,
    KeyError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
)


class TimmBackbone(Backbone):
    """A feature network of timm; one stage for each of its features, the first takes what comes before it.

    Freezing goes by the order in which timm registers modules, which for its networks is that of their use.
    The gradient is cut behind the module that gives the last frozen stage's features.

    Args:
        net: what `timm.create_model(name, features_only=True)` gives.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        info: Any = net.feature_info
        self.stage_channels = tuple(int(channels) for channels in info.channels())
        self.stage_strides = tuple(int(stride) for stride in info.reduction())
        self.out_channels, self.output_stride = self.stage_channels[-1], self.stage_strides[-1]
        self._tap_names = tuple(_flat(name) for name in info.module_name())
        self._channels_come_last = getattr(net, "output_fmt", None) == "NHWC"
        self._cut: RemovableHandle | None = None

    def parts(self) -> Sequence[Sequence[nn.Module]]:
        """The parameters of every stage, for freezing; timm's network runs its modules itself."""
        modules = list(_inner(self.net).modules())
        stages, start = [], 0
        for number in range(len(self._tap_names)):
            inside = set() if (tap := self._tap(number)) is None else set(tap.modules())
            end = max((n for n, module in enumerate(modules, start=1) if module in inside), default=start)
            own = [p for module in modules[start:end] for p in module.parameters(recurse=False)]
            stages.append((nn.ParameterList(own),))
            start = max(start, end)
        return stages

    def stages(self, images: Tensor) -> list[Tensor]:
        """The features that timm gives; the last equals `forward(images)`."""
        taps: list[Tensor] = list(self.net(images))
        if self._channels_come_last:
            taps = [tap.permute(0, 3, 1, 2) for tap in taps]
        frozen = 0 if self.freeze_until is None else self.freeze_until + 1
        return [tap.detach() for tap in taps[:frozen]] + taps[frozen:]

    def freeze(
        self, *, stem: bool = False, until: int | None = None, batch_norm: BatchNormMode | None = None
    ) -> Self:
        """As `Backbone.freeze`; the stem is what comes before timm's first features."""
        super().freeze(stem=stem, until=until, batch_norm=batch_norm)
        if self._cut is not None:
            self._cut.remove()
            self._cut = None
        if self.freeze_until is not None:
            tap = self._tap(self.freeze_until)
            if tap is None:
                raise ShapeError(
                    f"timm doesn't say where stage {self.freeze_until} of this network ends. "
                    "Leave out `freeze_until` and `freeze_stem`, or choose another stage."
                )
            self._cut = tap.register_forward_hook(_detach)
        return self

    def _tap(self, number: int) -> nn.Module | None:
        """The module that gives the features of a stage; None where timm names none that is there."""
        named = _inner(self.net).named_modules()
        return next((module for name, module in named if _flat(name) == self._tap_names[number]), None)


def _detach(_module: nn.Module, _inputs: Any, outputs: Any) -> Any:
    """Forward hook: the same outputs without gradient."""
    if isinstance(outputs, Tensor):
        return outputs.detach()
    if isinstance(outputs, (tuple, list)):
        return type(outputs)(_detach(_module, _inputs, output) for output in outputs)
    return outputs


def _inner(net: nn.Module) -> nn.Module:
    """The network whose names `feature_info` uses; some feature networks hold it as their only child."""
    children = dict(net.named_children())
    return next(iter(children.values())) if set(children) in ({"model"}, {"body"}) else net


def _flat(name: str) -> str:
    """One form of names: feature networks call `stages.0.conv` of the whole network `stages_0.conv`."""
    return name.replace(".", "_")


def timm_backbone(
    name: str,
    *,
    output_stride: int | None = None,
    weights: str | Path | None = None,
    batch_norm: BatchNormMode = "live",
    freeze_stem: bool = False,
    freeze_until: int | None = None,
) -> TimmBackbone:
    """The network that timm calls `name`, without head.

    Its weights may want other image statistics than ImageNet's; `net.pretrained_cfg` has them. Transformers
    with a fixed grid take images of any size where timm lets them, and of one size otherwise.

    Args:
        name: "resnet18", or with a tag "resnet18.a1_in1k", which chooses no weights.
        output_stride: None (timm's own, mostly 32), or 8 or 16 where timm can dilate the network.
        weights: None (random), a file with a timm state dict, or a Hugging Face id in the local cache, such
            as "timm/resnet18.a1_in1k".
        batch_norm: "live" or "frozen", see `Backbone`.
        freeze_stem: no gradient for what comes before timm's first features.
        freeze_until: last stage without gradient.

    Raises:
        RecipeError: timm has no such network, or it offers no features.
        ShapeError: no such output stride or stage.
        WeightsError: the weights are missing or do not fit.

    Example:
        >>> net = timm_backbone("resnet10t")
        >>> net.stage_channels, net.stage_strides
        ((64, 64, 128, 256, 512), (2, 4, 8, 16, 32))
    """
    net = TimmBackbone(_create(name, output_stride))
    if output_stride not in (None, net.output_stride):
        raise ShapeError(
            f"`output_stride` of timm's {name} must be {net.output_stride}; got {output_stride}. "
            "Leave it out."
        )
    if weights is not None:
        _load(net, name, weights)
    return net.freeze(stem=freeze_stem, until=freeze_until, batch_norm=batch_norm)


def _create(name: str, output_stride: int | None) -> nn.Module:
    """The feature network with random weights, for images of any size if it can be."""
    import timm

    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        raise RecipeError(f"timm has no network `{name}`. {nearest(architecture, timm.list_models())}")
    if tag and name not in (tagged := timm.list_pretrained(f"{architecture}.*")):
        raise RecipeError(f"timm has no network `{name}`. {nearest(name, [architecture, *tagged])}")
    stride = {} if output_stride is None else {"output_stride": output_stride}
    try:
        return _create_for_any_size(name, stride)
    except _REFUSALS as error:
        if output_stride is None:
            raise RecipeError(
                f"timm's {name} offers no features ({error!r}). "
                "Choose one that `features_only=True` works with."
            ) from error
        own = _create(name, None)  # most networks that know no such option have one stride, maybe this one
        own_stride = TimmBackbone(own).output_stride
        if own_stride == output_stride:
            return own
        raise ShapeError(
            f"`output_stride` {output_stride} can't be had from timm's {name}, whose own is {own_stride} "
            f"({error!r}). Leave it out."
        ) from error


def _create_for_any_size(name: str, options: Mapping[str, Any]) -> nn.Module:
    import timm

    config = timm.models.get_pretrained_cfg(name)
    choices = _SIZE_OPTIONS if config is not None and config.fixed_input_size else _SIZE_OPTIONS[-1:]
    for size in choices:
        try:
            net: nn.Module = timm.create_model(name, pretrained=False, features_only=True, **options, **size)
        except TypeError as error:  # noqa: PERF203  (at most three times)
            if not any(option in str(error) for option in size):
                raise
        else:
            return net
    raise TypeError(name)  # not reached: the last choice asks for nothing


def _load(net: TimmBackbone, name: str, weights: str | Path) -> None:
    """Load a state dict of the whole network, of its feature network or of this backbone."""
    path = _file(find_weights(weights))
    state = {_flat(key): value for key, value in read_weights(path).items()}
    inner = _inner(net.net)
    own = {_flat(key): (key, value.shape) for key, value in inner.state_dict().items()}
    needed = {_flat(key) for key in _needed(inner)}
    prefix = _prefix(state, needed)
    found = {key: state[prefix + key] for key in own if prefix + key in state}
    missing = sorted(own[key][0] for key in needed - set(found))
    shapes = sorted(own[key][0] for key, value in found.items() if value.shape != own[key][1])
    if missing or shapes:
        raise WeightsError(
            f"{path} does not fit timm's {name}: {len(missing)} of {len(needed)} tensors are missing "
            f"{missing[:3]}, {len(shapes)} have other shapes {shapes[:3]}. Use a state dict of this very "
            f'network, as `timm.create_model("{name}")` names it.'
        )
    inner.load_state_dict({own[key][0]: value for key, value in found.items()}, strict=False)


def _file(path: Path) -> Path:
    """The weights in a folder; a file is itself."""
    if not path.is_dir():
        return path
    files = sorted(path.glob("*.safetensors"))
    chosen = [file for file in files if file.name == "model.safetensors"] or files
    if len(chosen) != 1:
        raise WeightsError(
            f"{path} must hold `model.safetensors`; got {[file.name for file in files]}. "
            "Give the path of a file."
        )
    return chosen[0]


def _needed(inner: nn.Module) -> Iterator[str]:
    """Names that a file must have: parameters and running statistics, not counters and tables of indices."""
    yield from (name for name, _ in inner.named_parameters())
    yield from (name for name, _ in inner.named_buffers() if name.endswith(("running_mean", "running_var")))


def _prefix(state: Mapping[str, Tensor], needed: set[str]) -> str:
    """What stands before the network's own names in a file: nothing, or `backbone.net.` flattened."""
    probe = min(needed)
    prefixes = {key.removesuffix(probe) for key in state if key.endswith(probe)} | {""}
    return max(sorted(prefixes), key=lambda prefix: sum(prefix + key in state for key in needed))
