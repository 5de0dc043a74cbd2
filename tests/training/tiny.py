"""A tiny network and its batches, for tests of the training loop; as a script, a job to be killed."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from wsss.training.loop import TrainingConfig, train
from wsss.training.seeding import derived_seed
from wsss.types import Batch


class TinyNet(nn.Module):
    """Batch norm, dropout and two loss terms: everything whose state a resumed training must find again."""

    def __init__(self, *, batch_norm=True, dropout=0.3, noise=0.1, pause=0.0):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.backbone = nn.Conv2d(3, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6) if batch_norm else nn.Identity()
        self.drop = nn.Dropout(dropout)
        self.head = nn.Conv2d(6, 2, 1)
        self.pause, self.noise = pause, noise
        self.seen = []
        for parameter in self.parameters():
            nn.init.normal_(parameter, 0, 0.2, generator=generator)

    def losses(self, batch):
        time.sleep(self.pause)
        self.seen.append(batch.image_ids)
        scores = self.head(self.drop(self.norm(self.backbone(batch.images)).relu()))
        noise = 1 + self.noise * float(np.random.rand())  # noqa: NPY002  (numpy's global state matters too)
        labels = batch.image_labels.float()
        classification = nn.functional.binary_cross_entropy_with_logits(scores.mean((2, 3)), labels)
        return {"classification": noise * classification, "area": 0.1 * scores.sigmoid().mean()}

    def parameter_groups(self, base_lr):
        return [
            {"params": list(self.backbone.parameters()), "lr": base_lr},
            {"params": [*self.norm.parameters()], "lr": base_lr, "weight_decay": 0.0},
            {"params": list(self.head.parameters()), "lr": 10 * base_lr},
        ]


class TinyBatches:
    """Seeded images; like the real loaders, content depends on epoch and place alone."""

    def __init__(self, *, steps=5, size=4, rank=0, world=1):
        self.steps_per_epoch, self.size, self.rank, self.world = steps, size, rank, world

    def epoch(self, epoch, first_step=0):
        torch.rand(3)  # as loaders do that draw a seed when they start
        for step in range(first_step, self.steps_per_epoch):
            generator = torch.Generator().manual_seed(derived_seed(epoch, step) % 2**40)
            images = torch.randn(self.size, 3, 6, 6, generator=generator)
            labels = torch.rand(self.size, 2, generator=generator) > 0.5
            images[:, 0] += labels[:, :1, None].float()
            share = slice(self.rank * self.size // self.world, (self.rank + 1) * self.size // self.world)
            names = tuple(f"{epoch}-{step}-{n}" for n in range(self.size))[share]
            valid = torch.ones(len(names), 6, 6, dtype=torch.bool)
            yield Batch(images[share], labels[share], names, valid)


def config(**settings):
    """Settings of the tiny training: 4 epochs of 5 steps, momentum that matters."""
    defaults = {"epochs": 4, "batch_size": 4, "learning_rate": 0.05, "momentum": 0.9, "log_every": 4}
    return TrainingConfig(**{**defaults, **settings})


def train_share(folder, rank, world):
    """One process's part of a training whose result must not depend on the number of processes."""
    net = TinyNet(batch_norm=False, dropout=0.0, noise=0.0)
    return train(net, TinyBatches(rank=rank, world=world), config(accumulate=2), work_dir=folder, seed=0)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pause", type=float, default=0.0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if "WORLD_SIZE" in os.environ:
        train_share(options.folder, int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))
        return
    net = TinyNet(pause=options.pause)
    train(net, TinyBatches(), config(checkpoint_seconds=0, log_every=1), work_dir=options.folder, seed=0)


if __name__ == "__main__":
    main()
