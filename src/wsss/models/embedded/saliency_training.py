r"""Trains the embedded saliency detector: which pixels belong to things that stand out.

With p the detected saliency and m what things cover, the loss of a picture is

$$ L = -\overline{m \log p + (1 - m) \log (1 - p)} + 1 - \frac{\sum m p + 1}{\sum (m + p - m p) + 1}, $$

the mean cross-entropy of its pixels and the soft overlap of what is detected with what is there, averaged
over pictures. No class, tag or benchmark picture takes part: see `saliency_pictures`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor

from wsss.data.scenes.reserved import RESERVED_SHAPES, RESERVED_TEXTURES
from wsss.data.scenes.vocabulary import WORLD_VERSION
from wsss.models.embedded.checkpoints import Log, forget_checkpoint, train_steps
from wsss.models.embedded.compose import Progress, stream
from wsss.models.embedded.optimiser import MatrixMomentum, cosine_share, orthogonalised, update
from wsss.models.embedded.saliency_format import (
    SaliencyNet,
    check_saliency_target,
    new_saliency_net,
    save_saliency_net,
)
from wsss.models.embedded.saliency_pictures import Pools, compose, draw_pools

CHECKPOINT_EVERY: Final = 200


@dataclass(frozen=True)
class SaliencySettings:
    """How the detector is trained.

    Args:
        steps: optimiser updates.
        batch_size: pictures a step.
        learning_rate: of AdamW (batch norms and the last layer), at the end of the warm-up; cosine to zero.
        kernel_rate: of all other convolutions, likewise.
        warm_up: steps.
        weight_decay: on convolutions.
        things: drawn before training.
        grounds: backgrounds drawn before training.
    """

    steps: int = 1200
    batch_size: int = 32
    learning_rate: float = 3e-3
    kernel_rate: float = 2e-2
    warm_up: int = 50
    weight_decay: float = 0.01
    things: int = 8000
    grounds: int = 2000


def train_saliency(
    out_dir: str | Path,
    *,
    seed: int = 0,
    steps: int | None = None,
    batch_size: int | None = None,
    things: int | None = None,
    grounds: int | None = None,
    progress: Progress | None = None,
    log: Log | None = None,
) -> Path:
    """Train a saliency detector and write it as a folder.

    An interrupted training goes on from its last checkpoint (beside `out_dir`) when it is started again.

    Args:
        out_dir: folder to write; replaced only when the training has ended.
        seed: of the pictures and the weights.
        steps: optimiser updates; the default is what the shipped detector was trained with.
        batch_size: pictures a step.
        things: drawn before training.
        grounds: backgrounds drawn before training.
        progress: called with (what is done, how many done, how many in all).
        log: called with the losses of every 50th step.

    Returns:
        `out_dir`.

    Raises:
        WeightsError: `out_dir` holds something else than a detector.
    """
    out_dir = Path(out_dir)
    check_saliency_target(out_dir)
    given = {"steps": steps, "batch_size": batch_size, "things": things, "grounds": grounds}
    settings = SaliencySettings(**{name: value for name, value in given.items() if value is not None})
    about: dict[str, Any] = {
        "command": f"wsss embedded train saliency --seed {seed}",
        "seed": seed,
        "world_version": WORLD_VERSION,
        "shapes": list(RESERVED_SHAPES),
        "backgrounds": list(RESERVED_TEXTURES),
        **asdict(settings),
    }
    pools = draw_pools(seed, things=settings.things, grounds=settings.grounds, progress=progress)
    net = new_saliency_net(seed)
    optimisers = _optimisers(net, settings)
    train_steps(
        out_dir,
        net,
        optimisers,
        lambda step: _step(net, pools, optimisers, settings, seed=seed, step=step),
        about,
        steps=settings.steps,
        checkpoint_every=CHECKPOINT_EVERY,
        progress=progress,
        log=log,
    )
    save_saliency_net(out_dir, net, about)
    forget_checkpoint(out_dir)
    return out_dir


class KernelMomentum(MatrixMomentum):
    """`MatrixMomentum` for convolutions, as matrices of one row per output channel."""

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Update every kernel once."""
        for group in self.param_groups:
            for kernel in group["params"]:
                if kernel.grad is not None:
                    push = self._push(kernel, group["momentum"]).flatten(1)  # (D', D * 9)
                    change = orthogonalised(push[None])[0].view_as(kernel)
                    scale = 0.2 * math.sqrt(max(push.shape)) * group["lr"]
                    kernel.mul_(1 - group["lr"] * group["weight_decay"]).sub_(change, alpha=scale)


def _optimisers(net: SaliencyNet, settings: SaliencySettings) -> tuple[torch.optim.Optimizer, ...]:
    """One for the convolutions between images and features, one for everything else."""
    named = dict(net.named_parameters())
    kernels = [weight for name, weight in named.items() if weight.ndim == 4 and not name.startswith("head.")]
    others = [weight for name, weight in named.items() if weight.ndim != 4 or name.startswith("head.")]
    return (
        KernelMomentum(
            [{"params": kernels, "share": 1.0}], settings.kernel_rate, weight_decay=settings.weight_decay
        ),
        torch.optim.AdamW(
            [{"params": others, "share": 1.0}], lr=settings.learning_rate, betas=(0.9, 0.98), weight_decay=0.0
        ),
    )


def _step(
    net: SaliencyNet,
    pools: Pools,
    optimisers: Sequence[torch.optim.Optimizer],
    settings: SaliencySettings,
    *,
    seed: int,
    step: int,
) -> dict[str, Tensor]:
    """One update; every random number comes from (seed, step), so a resumed training is the same training."""
    pictures, masks = compose(pools, settings.batch_size, stream("saliency", seed, step))
    logits = net(pictures.contiguous(memory_format=torch.channels_last))  # a fifth faster on processors
    losses = {
        "pixels": F.binary_cross_entropy_with_logits(logits, masks),
        "overlap": overlap_loss(logits.sigmoid(), masks),
    }
    share = cosine_share(step, settings.steps, settings.warm_up)
    update(net, optimisers, torch.stack(list(losses.values())).sum(), share)
    return losses


def overlap_loss(saliency: Tensor, masks: Tensor) -> Tensor:
    """One minus the soft overlap of saliency and masks, (B, 1, H, W) each in [0, 1], averaged over pictures.

    Example:
        >>> covered = torch.tensor([1.0, 1.0, 0.0, 0.0]).view(1, 1, 2, 2)
        >>> float(overlap_loss(covered, covered)), round(float(overlap_loss(1 - covered, covered)), 3)
        (0.0, 0.8)
    """
    common = (saliency * masks).sum(dim=(1, 2, 3))
    either = (saliency + masks - saliency * masks).sum(dim=(1, 2, 3))
    return 1 - ((common + 1) / (either + 1)).mean()
