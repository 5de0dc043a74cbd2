"""One of two processes that share a batch, as a script: what its batch norm and its reductions give.

python synced_parts.py RANK FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

CASES: dict[str, dict[str, Any]] = {
    "equal": {"split": (3, 3)},
    "unequal": {"split": (2, 4)},
    "empty": {"split": (6, 0)},
    "cumulative": {"split": (1, 5), "momentum": None},
    "plain": {"split": (3, 3), "affine": False},
    "untracked": {"split": (4, 2), "track_running_stats": False},
    "shifted": {"split": (2, 4), "offset": 1e3},
    "channels_last": {"split": (2, 4), "memory_format": torch.channels_last},
    "bfloat16": {"split": (2, 4), "dtype": torch.bfloat16},
    "double": {"split": (1, 5), "dtype": torch.float64},
    "one place": {"split": (1, 5), "size": (1, 1)},
}
PAIRS = ((0.5, 2.0, 4.0), ())  # of the two processes
STEPS = 2


def batch(case: dict[str, Any], step: int) -> tuple[Tensor, Tensor]:
    """Features of all images, and what the gradient of the result will be; (6, 5, h, w)."""
    generator = torch.Generator().manual_seed(step)
    size = case.get("size", (4, 3))
    features = case.get("offset", 0) + 2 * torch.randn(6, 5, *size, generator=generator)
    slopes = torch.randn(6, 5, *size, generator=generator)
    dtype = case.get("dtype", torch.float32)
    layout = case.get("memory_format", torch.contiguous_format)
    return features.to(dtype).contiguous(memory_format=layout), slopes.to(dtype)


def norm(case: dict[str, Any]) -> nn.Module:
    """A batch norm of five channels whose scale and shift are no identity, inside a network."""
    names = ("momentum", "affine", "track_running_stats")
    made = nn.BatchNorm2d(5, **{name: case[name] for name in names if name in case})
    if made.affine:
        with torch.no_grad():
            made.weight.copy_(torch.linspace(0.5, 2, 5))
            made.bias.copy_(torch.linspace(-1, 1, 5))
    return nn.Sequential(made.double() if case.get("dtype") == torch.float64 else made)


def results(net: nn.Module, case: dict[str, Any], part: slice) -> dict[str, Tensor]:
    """What a few steps on a part of the batch give; gradients of parameters are those of the last step."""
    found = {}
    for step in range(STEPS):
        features, slopes = (own[part] for own in batch(case, step))
        features = features.clone(memory_format=torch.preserve_format).requires_grad_()
        net.zero_grad()
        result = net(features)
        result.backward(slopes)
        assert features.grad is not None
        found |= {f"result{step}": result.detach(), f"gradient{step}": features.grad}
    found |= {f"gradient.{name}": p.grad for name, p in net.named_parameters() if p.grad is not None}
    found |= {name: value.clone() for name, value in net.state_dict().items()}
    found["evaluated"] = net.eval()(batch(case, 0)[0]).detach()
    return found


def main() -> None:
    from wsss.layers.pair_count import mean_over_pairs, sum_over_pairs, total_pairs
    from wsss.layers.synced_batch_norm import synchronise_batch_norms

    rank, folder = int(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/group", rank=rank, world_size=2
    )
    found: dict[str, Any] = {}
    for name, case in CASES.items():
        net = norm(case)
        synchronise_batch_norms(net)
        first = case["split"][0]
        found[name] = results(net, case, (slice(0, first), slice(first, None))[rank])
    losses = torch.tensor(PAIRS[rank], requires_grad=True)
    total = total_pairs(len(losses), losses.device)
    mean, summed = mean_over_pairs(losses, total), sum_over_pairs(losses)
    found["pairs"] = {"total": total, "mean": mean.detach(), "sum": summed.detach()}
    found["pairs"]["gradient"] = torch.autograd.grad(mean, losses)[0]
    found["nobody"] = {"mean": mean_over_pairs(torch.zeros(0), total_pairs(0, losses.device))}
    torch.save(found, folder / f"{rank}.pt")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
