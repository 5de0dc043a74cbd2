"""The training loop: one function for methods, affinity nets and segmentation nets.

It runs on accelerate (CPU, one accelerator, several processes), leaves `log.jsonl` and `model.safetensors` in
its folder, and goes on from `checkpoint.safetensors` after any interruption with the same final weights,
byte for byte.
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Protocol, cast

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.utils import gather_object
from torch import Tensor, nn

from wsss.errors import CollapseError, RecipeError, StageError
from wsss.layers.synced_batch_norm import has_synced_batch_norms, synchronise_batch_norms
from wsss.training.checkpoint import load_state, pack, remove_leftovers, save_state, unpack
from wsss.training.config import TrainingConfig as TrainingConfig
from wsss.training.journal import Interval, Progress, Reporter, means, read_journal
from wsss.training.processes import connected
from wsss.training.seeding import (
    capture_random_states,
    derived_seed,
    deterministic_algorithms,
    preserved_random_states,
    restore_random_states,
    seed_everything,
)
from wsss.training.stream import Batches as Batches
from wsss.training.stream import Stream
from wsss.types import Batch

_CHECKPOINT_SHARE = 0.05  # largest part of the time spent on writing checkpoints


class Trainable(Protocol):
    """What the loop trains: an `nn.Module` with these two functions."""

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Named scalar losses, already weighted; the loop sums and logs them."""

    def parameter_groups(self, base_lr: float) -> list[dict[str, Any]]:
        """Groups with `params`, first learning rate `lr` and, if it is their own, `weight_decay`."""


@dataclass(frozen=True)
class TrainingResult:
    """What a training came to.

    Args:
        steps: optimiser steps of the whole training.
        seconds: time of the whole training, interruptions left out.
        final_losses: mean of each loss term over the last logged interval.
    """

    steps: int
    seconds: float
    final_losses: dict[str, float]


def train(
    trainable: Trainable,
    batches: Batches,
    config: TrainingConfig,
    *,
    work_dir: Path,
    seed: int,
    progress: Progress | None = None,
    alarm: Callable[[int], str | None] | None = None,
) -> TrainingResult:
    """Train a network in place and leave its weights in `work_dir/model.safetensors`.

    The same call goes on after an interruption, and returns at once (weights loaded) when all is done.
    The network ends on the device it was trained on, in training mode.

    Several processes give what one process gives with batches of the same size, up to rounding, where losses
    count over all processes as those of the package do (`layers.pair_count`): batch norms take their
    statistics over all processes. Dropout draws other numbers in each of them.

    Args:
        trainable: network to train, initialised by the caller in the same way each time.
        batches: where this process's share of every batch comes from.
        config: length, rates, precision and so on.
        work_dir: folder for `log.jsonl`, `checkpoint.safetensors` and, when done, `model.safetensors`.
        seed: decides everything random inside the loop, such as dropout.
        progress: called at every interval with finished steps, all steps and a note.
        alarm: called at every interval with the number of finished steps; a text it returns stops the
            training (for example "The maps are background everywhere").

    Raises:
        CollapseError: a loss or weight is not finite, or `alarm` says so.
        StageError: `work_dir` belongs to another training.
    """
    if not isinstance(trainable, nn.Module):
        raise StageError(
            "`trainable` must be an `nn.Module` with `losses` and `parameter_groups`; "
            f"got {type(trainable).__name__}. Derive it from `nn.Module`."
        )
    with deterministic_algorithms(config.deterministic), connected():
        run = _Run(trainable, batches, config, Path(work_dir), seed)
        if run.model_path.exists():
            return run.finished()
        run.start(progress)
        for step in range(run.step, run.total):
            run.update(step)
            is_interval_over = run.step % config.log_every == 0 or run.step == run.total
            if is_interval_over:
                run.report(alarm)
            if run.step < run.total and run.is_checkpoint_due(is_interval_over):
                run.save_checkpoint()
        return run.finish()


class _Losses(nn.Module):
    """Gives distributed wrappers the `forward` they need."""

    def __init__(self, trainable: nn.Module) -> None:
        super().__init__()
        self.trainable = trainable
        # constants that every process has made itself, such as tables of texts, need no sending in each step
        self._ddp_params_and_buffers_to_ignore = [
            f"{place}.{name}" if place else name
            for place, module in self.named_modules()
            for name in module._non_persistent_buffers_set
        ]

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        losses = cast(Trainable, self.trainable).losses(batch)
        if any(loss.requires_grad for loss in losses.values()):
            return losses
        if has_synced_batch_norms(self):  # the others would wait for this process's backward pass
            raise StageError(
                "In several processes, losses need a gradient in every batch where batch norms are live; got "
                "constants. Return `0 * maps.sum()`, or the like, for a batch without any label."
            )
        # a batch without any label may give constants; zero gradients keep all processes in step
        zeros = [0.0 * p.sum() for p in self.parameters() if p.requires_grad]
        return losses | {"no_loss": torch.stack(zeros).sum()}


class _Run:
    """The state of one call of `train`."""

    def __init__(
        self, module: nn.Module, batches: Batches, config: TrainingConfig, work_dir: Path, seed: int
    ) -> None:
        self.module, self.batches, self.config, self.seed = module, batches, config, seed
        self.work_dir = work_dir
        self.model_path = work_dir / "model.safetensors"
        self.checkpoint_path = work_dir / "checkpoint.safetensors"
        self.total = config.total_steps(batches.steps_per_epoch)
        self.step = 0
        self.checkpoint_step: int | None = None
        self.accelerator = Accelerator(
            cpu=not torch.accelerator.is_available(),  # or several processes on CPUs would not see each other
            mixed_precision="no",  # precision belongs to this training, not to the process: see `update`
            kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
        )
        self.device = self.accelerator.device
        self.world, self.is_main = self.accelerator.num_processes, self.accelerator.is_main_process
        if self.world > 1:
            synchronise_batch_norms(module)
        module.to(self.device)
        if config.channels_last:
            module.to(memory_format=torch.channels_last)

    # ---- start and end

    def start(self, progress: Progress | None) -> None:
        """Build optimiser, stream and log; go on from a checkpoint where there is one."""
        if self.is_main:
            self.work_dir.mkdir(parents=True, exist_ok=True)
            remove_leftovers(self.work_dir)
        self.optimizer = _optimizer(cast(Trainable, self.module), self.config)
        self.first_rates = [float(group["lr"]) for group in self.optimizer.param_groups]
        self.stream, self.interval = Stream(self.batches), Interval()
        seconds, states = self._resume() if self.checkpoint_path.exists() else (0.0, None)
        self.accelerator.wait_for_everyone()
        self.model, self.prepared_optimizer = self.accelerator.prepare(_Losses(self.module), self.optimizer)
        self.module.train()
        self.reporter: Reporter | None = None
        if self.is_main:
            self.reporter = Reporter(
                self.work_dir,
                self.total,
                step=self.step,
                seconds=seconds,
                progress=progress,
                tensorboard=self.config.tensorboard,
            )
        self.last_save, self.save_seconds = time.monotonic(), 0.0
        self.started = self.last_save - seconds
        if states is None:
            seed_everything(derived_seed(self.seed, "training", self.accelerator.process_index))
        else:
            restore_random_states(states)

    def _resume(self) -> tuple[float, dict[str, Tensor]]:
        """Load the checkpoint; return the seconds so far and this process's random states."""
        tensors, metadata = load_state(self.checkpoint_path)
        self._check_belongs(metadata, self.checkpoint_path)
        if int(metadata["processes"]) != self.world:
            raise StageError(
                f"{self.checkpoint_path} was written by {metadata['processes']} processes; got {self.world}. "
                "Go on with as many as before, or delete it to start again."
            )
        try:
            states = unpack(tensors, metadata, self.module, self.optimizer)
        except (RuntimeError, ValueError, KeyError) as error:
            raise _foreign(self.checkpoint_path) from error
        rank = self.accelerator.process_index
        self.step = self.checkpoint_step = int(metadata["step"])
        self.stream = Stream(self.batches, int(metadata["epoch"]), int(metadata["batch"]))
        self.interval = Interval(json.loads(metadata["interval"])[rank], self.device)
        return float(metadata["seconds"]), states[rank]

    def finish(self) -> TrainingResult:
        """Write the trained weights, then remove the checkpoint."""
        self.stream.close()
        state = self.module.state_dict()
        self._check_weights(state)
        seconds = time.monotonic() - self.started
        if self.reporter is not None:
            self.reporter.close()
        if self.is_main:
            metadata = {"fingerprint": self.config.fingerprint(self.seed), "steps": str(self.total)}
            save_state(self.model_path, state, metadata)
            self.checkpoint_path.unlink(missing_ok=True)
        self.accelerator.wait_for_everyone()
        return TrainingResult(self.total, seconds, self.final_losses)

    def finished(self) -> TrainingResult:
        """Load the weights of a training that was finished before."""
        state, metadata = load_state(self.model_path)
        self._check_belongs(metadata, self.model_path)
        try:
            self.module.load_state_dict(state)
        except RuntimeError as error:
            raise _foreign(self.model_path) from error
        if self.is_main:
            self.checkpoint_path.unlink(missing_ok=True)
        lines = read_journal(self.work_dir / "log.jsonl")
        last: dict[str, Any] = lines[-1] if lines else {"seconds": 0.0, "losses": {}}
        return TrainingResult(self.total, last["seconds"], last["losses"])

    def _check_belongs(self, metadata: Mapping[str, str], path: Path) -> None:
        same = metadata.get("fingerprint") == self.config.fingerprint(self.seed)
        if not same or metadata.get("steps") != str(self.total):
            raise _foreign(path)

    # ---- every step

    def update(self, step: int) -> None:
        """One optimiser step, from `accumulate` batches."""
        config = self.config
        factor = config.rate_factor(step, self.total)
        for group, rate in zip(self.optimizer.param_groups, self.first_rates, strict=True):
            group["lr"] = rate * factor
        self.module.zero_grad(set_to_none=True)
        for index in range(config.accumulate):
            is_last = index == config.accumulate - 1
            with nullcontext() if is_last else self.accelerator.no_sync(self.model):
                losses = self._forward(self._next_batch())
                total = torch.stack([loss.float() for loss in losses.values()]).sum()
                # free on one CPU; elsewhere the device would have to wait, so `report` looks at the sums
                if self.device.type == "cpu" and self.world == 1 and not bool(torch.isfinite(total)):
                    self._collapse_if_not_finite(
                        {name: float(loss.detach()) for name, loss in losses.items()}, step + 1
                    )
                self.accelerator.backward(total / config.accumulate)
        if config.clip_norm is not None:
            trained = [p for group in self.optimizer.param_groups for p in group["params"]]
            nn.utils.clip_grad_norm_(trained, config.clip_norm)
        self.prepared_optimizer.step()
        self.step = step + 1

    def _next_batch(self) -> Batch:
        batch = self.stream.next().to(self.device)
        if self.reporter is not None:
            self.reporter.add_images(len(batch.images) * self.world)
        if self.config.channels_last:
            images = batch.images.contiguous(memory_format=torch.channels_last)
            batch = dataclasses.replace(batch, images=images)
        return batch

    def _forward(self, batch: Batch) -> dict[str, Tensor]:
        is_half = self.config.precision == "bfloat16"
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=is_half):
            losses: dict[str, Tensor] = self.model(batch)
        self.interval.add(losses)
        return losses

    # ---- every interval

    def report(self, alarm: Callable[[int], str | None] | None) -> None:
        """Log the interval, and stop if the training has collapsed."""
        losses = means(gather_object([self.interval.totals()]))
        self.final_losses, self.interval = losses, Interval()
        if self.reporter is not None:
            rate = float(self.optimizer.param_groups[0]["lr"])
            self.reporter.report(self.step, self.stream.epoch, rate, losses)
        self._collapse_if_not_finite(losses, self.step)
        if alarm is None:
            return
        with preserved_random_states():
            message = alarm(self.step)
        self.module.train()
        messages = [text for text in gather_object([message]) if text]
        if messages:
            self._collapse(f"{messages[0].rstrip('.')} at step {self.step} of {self.total}.")

    def is_checkpoint_due(self, is_interval_over: bool) -> bool:
        """Whether enough time has passed; several processes ask the first one, at intervals only."""
        pause = max(self.config.checkpoint_seconds, self.save_seconds / _CHECKPOINT_SHARE)
        is_due = self.config.checkpoint_seconds == 0 or time.monotonic() - self.last_save >= pause
        if self.world == 1:
            return is_due
        return is_interval_over and bool(gather_object([is_due])[0])

    def save_checkpoint(self) -> None:
        """Write all that the same call needs to go on, unless the weights are spoilt."""
        start = time.monotonic()
        shares = gather_object([(capture_random_states(), self.interval.totals())])
        self._collapse_if_not_finite(means([totals for _, totals in shares]), self.step)
        tensors, others = pack(self.module, self.optimizer, [states for states, _ in shares])
        self._check_weights(tensors)
        if self.is_main:
            position = {
                "fingerprint": self.config.fingerprint(self.seed),
                "steps": str(self.total),
                "step": str(self.step),
                "epoch": str(self.stream.epoch),
                "batch": str(self.stream.batch),
                "processes": str(self.world),
                "seconds": str(start - self.started),
                "interval": json.dumps([totals for _, totals in shares]),
            }
            save_state(self.checkpoint_path, tensors, others | position)
        self.checkpoint_step = self.step
        self.last_save = time.monotonic()
        self.save_seconds = self.last_save - start

    # ---- collapse

    def _collapse_if_not_finite(self, losses: Mapping[str, float], step: int) -> None:
        terms = [f"`{name}`" for name, value in losses.items() if not math.isfinite(value)]
        if terms:
            verb = "loss term {} is" if len(terms) == 1 else "loss terms {} are"
            what = verb.format(", ".join(terms)).capitalize()
            self._collapse(f"{what} not finite at step {step} of {self.total}.")

    def _check_weights(self, state: Mapping[str, Tensor]) -> None:
        for name, value in state.items():
            if value.is_floating_point() and not bool(torch.isfinite(value).all()):
                self._collapse(f"Weights `{name}` are not finite at step {self.step} of {self.total}.")

    def _collapse(self, what: str) -> NoReturn:
        self.stream.close()
        good = "No checkpoint was written before."
        if self.checkpoint_step is not None:
            good = f"The last good checkpoint is {self.checkpoint_path} of step {self.checkpoint_step}."
        raise CollapseError(
            f"{what} {good} Lower the learning rate or the weight of this loss, or clip gradients."
        )


def _foreign(path: Path) -> StageError:
    return StageError(
        f"{path} belongs to a training with other settings, another seed or another network. "
        "Train into another folder, or delete that file to start again."
    )


def _optimizer(trainable: Trainable, config: TrainingConfig) -> torch.optim.Optimizer:
    """The optimiser over the network's groups; their rates are absolute."""
    groups = [group for group in trainable.parameter_groups(config.learning_rate) if len(group["params"])]
    if not groups:
        raise RecipeError(
            "`parameter_groups` gave no parameter to train. At least one group must hold parameters; "
            "check what is frozen."
        )
    if config.optimizer == "adamw":
        return torch.optim.AdamW(
            groups, lr=config.learning_rate, betas=config.betas, weight_decay=config.weight_decay
        )
    return torch.optim.SGD(
        groups, lr=config.learning_rate, momentum=config.momentum, weight_decay=config.weight_decay
    )
