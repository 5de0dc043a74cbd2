r"""Batch norm over the whole batch where several processes each hold a part of it, on any device.

With x of one channel at the n places (images, rows, columns) of all processes together, and the gradient g
of the loss with respect to the result:

$$ \hat x = \frac{x - \mathrm{mean}\,x}{\sqrt{\mathrm{var}\,x + \epsilon}}, \qquad y = w \hat x + b, \qquad
   \frac{\partial L}{\partial x} = \frac{w}{\sqrt{\mathrm{var}\,x + \epsilon}}
   \Bigl( g - \mathrm{mean}\,g - \hat x\,\mathrm{mean}(g \hat x) \Bigr) $$

All means are over the n places. torch's own `SyncBatchNorm` does the same on accelerators only. Every process
must run the same layers in the same order, forward and backward, or the others wait for it.

Source:
    Ioffe and Szegedy, ICML 2015, https://arxiv.org/abs/1502.03167. Means and sums of squares of parts are put
    together as in Chan et al., *Updating Formulae and a Pairwise Algorithm for Computing Sample Variances*,
    1979.
"""

from __future__ import annotations

import logging
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm
from typing_extensions import Self

from wsss.layers.pair_count import group_size

logger = logging.getLogger(__name__)

PLACES: Final = (0, 2, 3)  # of (B, D, h, w), all but the channels
FOLLOWING: Final = ("drop", "act")  # what norms with an activation run afterwards, in this order


class SyncedBatchNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d` whose statistics in training are those of all processes together.

    In evaluation mode (so where it is frozen), and in one process, it is `nn.BatchNorm2d` itself. Processes
    may hold different numbers of images. Its state has the same names.
    """

    @classmethod
    def of(cls, norm: nn.BatchNorm2d) -> Self:
        """The same norm, synced: it shares the parameters and buffers of `norm`."""
        with torch.device("meta"):
            synced = cls(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        synced._parameters.update(norm._parameters)
        synced._buffers.update(norm._buffers)
        if _has_activation(norm):
            synced._modules |= {name: norm.get_submodule(name) for name in FOLLOWING}
        synced.training = norm.training
        return synced

    def forward(self, input: Tensor) -> Tensor:
        """Normalise features (B, D, h, w)."""
        is_synced = self.training and group_size() > 1
        features = self._synced(input) if is_synced else super().forward(input)
        for part in self.children():  # what a norm includes that follows it
            features = part(features)
        return features

    def _synced(self, features: Tensor) -> Tensor:
        self._check_input_dim(features)
        result: Tensor
        result, mean, variance, count = _Normalise.apply(features, self.weight, self.bias, self.eps)
        if self.track_running_stats:
            self._remember(mean, variance, count)
        return result

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        """Move the running statistics, the variance by its unbiased estimate, as `nn.BatchNorm2d` does."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        rate = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        unbiased = variance * (count / (count - 1).clamp(min=1))
        self.running_mean.lerp_(mean.to(self.running_mean), rate)
        self.running_var.lerp_(unbiased.to(self.running_var), rate)


class _Normalise(torch.autograd.Function):
    """Normalised features, and mean, biased variance and count of all processes."""

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, weight: Tensor | None, bias: Tensor | None, epsilon: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        values = _wide(features)
        mean, variance, count = _statistics(values)
        result = values
        if len(values):  # torch divides by the number of images
            result = F.batch_norm(values, mean, variance, weight, bias, training=False, eps=epsilon)
        ctx.epsilon = epsilon
        ctx.save_for_backward(features, weight, mean, variance, count)
        ctx.mark_non_differentiable(mean, variance, count)
        return result.to(features.dtype), mean, variance, count

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, gradient: Tensor, *_: Any
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        features, weight, mean, variance, count = ctx.saved_tensors
        values, slopes = _wide(features), _wide(gradient)
        scale = torch.rsqrt(variance + ctx.epsilon)
        # of the parameters each process gives its own part, since training averages them itself
        of_weight, of_bias = _own_sums(slopes, values, mean, variance, ctx.epsilon)
        of_features = None
        if ctx.needs_input_grad[0]:
            sums = torch.stack([of_bias, of_weight])  # (2, D)
            torch.distributed.all_reduce(sums)
            common, along = sums / count
            factor = scale if weight is None else scale * weight
            # factor (g - common - x^ along), gathered to one factor of x and one of g
            steepness = -factor * scale * along
            rest = -factor * common - steepness * mean
            of_features = torch.addcmul(_planes(rest), values, _planes(steepness))
            of_features = of_features.addcmul_(slopes, _planes(factor)).to(features.dtype)
        kind = gradient.dtype if weight is None else weight.dtype
        needs = ctx.needs_input_grad
        return (
            of_features,
            of_weight.to(kind) if needs[1] else None,
            of_bias.to(kind) if needs[2] else None,
            None,
        )


def _statistics(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean (D,), biased variance (D,) and count (scalar) of the features (B, D, h, w) of all processes."""
    channels = values.shape[1]
    own_count = values.numel() // channels
    own = torch.cat([*_own_statistics(values, own_count), values.new_tensor([own_count])])  # (2 D + 1,)
    parts = [torch.empty_like(own) for _ in range(group_size())]
    torch.distributed.all_gather(parts, own)
    means, variances, counts = torch.split(torch.stack(parts), [channels, channels, 1], dim=1)
    count = counts.sum()
    shares = counts / count  # (N, 1)
    mean = (shares * means).sum(dim=0)
    variance = (shares * (variances + (means - mean).square())).sum(dim=0)
    return mean, variance, count


def _own_statistics(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Mean and biased variance, each (D,), of this process's `count` places."""
    channels = values.shape[1]
    if count < 2:  # torch refuses to normalise these
        return values.sum(dim=PLACES), values.new_zeros(channels)
    # torch's own fused pass leaves them behind; its `var_mean` is twenty times slower on CPUs
    mean, unbiased = values.new_zeros(channels), values.new_zeros(channels)
    F.batch_norm(values, mean, unbiased, training=True, momentum=1.0)
    return mean, unbiased * ((count - 1) / count)


def _own_sums(
    slopes: Tensor, values: Tensor, mean: Tensor, variance: Tensor, epsilon: float
) -> tuple[Tensor, Tensor]:
    """Sums of g x^ and of g over this process's places, each (D,)."""
    if values.device.type == "cpu" and len(values):  # torch divides by the number of images
        no_weight = torch.ones_like(mean)
        statistics = (mean, variance, None, None)  # those of evaluation
        _, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
            slopes, values, no_weight, *statistics, False, epsilon, [False, True, True]
        )
        return of_weight, of_bias
    # the fused operation of accelerators refuses statistics that it has not made
    return _plain_sums(slopes, values, mean, torch.rsqrt(variance + epsilon))


def _plain_sums(slopes: Tensor, values: Tensor, mean: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """The same on any device."""
    along = (slopes * (values - _planes(mean))).sum(dim=PLACES)
    return along * scale, slopes.sum(dim=PLACES)


def _planes(values: Tensor) -> Tensor:
    """(D,) -> (D, 1, 1)."""
    return values[:, None, None]


def _wide(values: Tensor) -> Tensor:
    """Half-precision numbers as float32; sums of many of them would be too coarse."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def synchronise_batch_norms(module: nn.Module) -> None:
    """Replace every two-dimensional batch norm inside `module` by a synced one, in place.

    Parameters and buffers stay the same objects, and the names of the state stay the same. Norms that include
    an activation, as timm's do, are replaced too; other kinds are left alone, with a warning.
    """
    replaced: dict[int, SyncedBatchNorm2d] = {}  # one norm may have several places
    for parent in list(module.modules()):
        for name, child in parent._modules.items():
            if not isinstance(child, _BatchNorm) or isinstance(child, SyncedBatchNorm2d):
                continue
            if not isinstance(child, nn.BatchNorm2d) or not (
                type(child) is nn.BatchNorm2d or _has_activation(child)
            ):
                logger.warning(
                    "%s normalises each process's own images; only batch norms of images are synced.",
                    type(child).__name__,
                )
                continue
            parent._modules[name] = replaced.setdefault(id(child), SyncedBatchNorm2d.of(child))


def has_synced_batch_norms(module: nn.Module) -> bool:
    """Whether training `module` needs every process at every step, forward and backward."""
    return any(isinstance(part, SyncedBatchNorm2d) and part.training for part in module.modules())


def _has_activation(norm: nn.Module) -> bool:
    return all(isinstance(getattr(norm, name, None), nn.Module) for name in FOLLOWING)
