r"""Muon for the matrices of the towers, AdamW for the rest: about twice the progress per step of AdamW alone.

Momentum is orthogonalised before it is applied, by five Newton-Schulz iterations:

$$ X \leftarrow a X + (b A + c A^2) X, \quad A = X X^T, \quad (a, b, c) = (3.4445, -4.7750, 2.0315) $$

and scaled by 0.2 sqrt(max(rows, columns)), so that one learning rate serves both parts.

Source: K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024,
https://kellerjordan.github.io/posts/muon/ ; scale from Liu et al., arXiv 2502.16982, section 2.2.
Differs: float32 throughout (processors without half precision).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn

COEFFICIENTS: Final = (3.4445, -4.7750, 2.0315)
ITERATIONS: Final = 5


class MatrixMomentum(torch.optim.Optimizer):
    """Muon with Nesterov momentum and decoupled weight decay.

    Args:
        weights: matrices only, or groups of them; those of one shape and group are updated together.
        lr: learning rate, on the scale of AdamW's.
        momentum: decay of the momentum.
        weight_decay: per step, times the learning rate.
    """

    def __init__(
        self,
        weights: Iterable[nn.Parameter] | Iterable[dict[str, Any]],
        lr: float,
        *,
        momentum: float = 0.95,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(weights, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Update every matrix once."""
        for group in self.param_groups:
            shapes: dict[torch.Size, list[nn.Parameter]] = {}
            for weight in group["params"]:
                if weight.grad is not None:
                    shapes.setdefault(weight.shape, []).append(weight)
            for shape, weights in shapes.items():
                pushes = torch.stack([self._push(weight, group["momentum"]) for weight in weights])
                scale = 0.2 * math.sqrt(max(shape)) * group["lr"]
                for weight, update in zip(weights, orthogonalised(pushes), strict=True):
                    weight.mul_(1 - group["lr"] * group["weight_decay"]).sub_(update, alpha=scale)

    def _push(self, weight: nn.Parameter, momentum: float) -> Tensor:
        state = self.state[weight]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(weight)
        assert weight.grad is not None
        state["momentum"].lerp_(weight.grad, 1 - momentum)
        push: Tensor = weight.grad.lerp(state["momentum"], momentum)
        return push


def orthogonalised(matrices: Tensor) -> Tensor:
    """The nearest matrices with (about) equal singular values; (N, rows, columns).

    Example:
        >>> matrix = torch.tensor([[[3.0, 0.0, 1.0], [0.0, 2.0, 0.0]]])
        >>> torch.linalg.svdvals(orthogonalised(matrix)).round().flatten().tolist()
        [1.0, 1.0]
    """
    is_tall = matrices.shape[1] > matrices.shape[2]
    values: Tensor = matrices.transpose(1, 2) if is_tall else matrices
    values = values / (values.flatten(1).norm(dim=1)[:, None, None] + 1e-7)
    first, second, third = COEFFICIENTS
    for _ in range(ITERATIONS):
        gram = values @ values.transpose(1, 2)
        values = first * values + (second * gram + third * gram @ gram) @ values
    return values.mT if is_tall else values


def block_optimisers(
    model: nn.Module,
    *,
    learning_rate: float,
    matrix_rate: float,
    weight_decay: float,
    shares: Mapping[str, float] | None = None,
) -> tuple[torch.optim.Optimizer, ...]:
    """One for the matrices inside the blocks of all encoders, one for everything else.

    Args:
        model: of transformers; the names of its blocks' weights hold ".encoder.".
        learning_rate: of AdamW.
        matrix_rate: of `MatrixMomentum`.
        weight_decay: on weights with two axes or more.
        shares: parts of the model, by the beginning of their weights' names, that learn at so many times both
            rates.
    """
    matrices: dict[float, list[nn.Parameter]] = {}
    others: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, weight in model.named_parameters():
        share = next((share for part, share in (shares or {}).items() if name.startswith(part)), 1.0)
        if ".encoder." in name and weight.ndim == 2:
            matrices.setdefault(share, []).append(weight)
        else:
            others.setdefault((share, weight_decay if weight.ndim >= 2 else 0.0), []).append(weight)
    groups = [
        {"params": weights, "share": share} for share, weights in sorted(matrices.items(), reverse=True)
    ]
    rest = [
        {"params": weights, "share": share, "weight_decay": decay}
        for (share, decay), weights in sorted(others.items(), reverse=True)
    ]
    return (
        MatrixMomentum(groups, matrix_rate, weight_decay=weight_decay),
        torch.optim.AdamW(rest, lr=learning_rate, betas=(0.9, 0.98), eps=1e-6),
    )


def update(model: nn.Module, optimisers: Sequence[torch.optim.Optimizer], loss: Tensor, share: float) -> None:
    """One update along the gradient of a loss, cut to length 1, at a share of the full learning rates."""
    model.zero_grad(set_to_none=True)
    torch.autograd.backward(loss)
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["lr"] = optimiser.defaults["lr"] * share * group["share"]
        optimiser.step()


def cosine_share(step: int, steps: int, warm_up: int) -> float:
    """Share of the full learning rates at a step: a linear warm-up, on a cosine that ends at zero."""
    return min(1.0, (step + 1) / warm_up) * 0.5 * (1 + math.cos(math.pi * step / steps))
