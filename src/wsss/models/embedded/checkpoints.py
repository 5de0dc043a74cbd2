"""The loop of the trainings in this folder: an interrupted one goes on as if nothing had happened."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from wsss.models.embedded.compose import Progress
from wsss.training.checkpoint import write_tensors

Log = Callable[[dict[str, float]], None]


def train_steps(
    out_dir: Path,
    model: nn.Module,
    optimisers: Sequence[torch.optim.Optimizer],
    one_step: Callable[[int], dict[str, Tensor]],
    about: Mapping[str, Any],
    *,
    steps: int,
    checkpoint_every: int,
    progress: Progress | None,
    log: Log | None,
) -> None:
    """Take all steps of a training that have not been taken yet.

    Args:
        out_dir: what the training will write; its checkpoints stand beside it until `forget_checkpoint`.
        model: trained in place; left in evaluation mode.
        optimisers: all that have a state.
        one_step: does the update of that number and gives the losses; it must draw all random numbers from
            the number alone.
        about: plain data that names the training; another training's checkpoint is not taken up.
        steps: number of updates.
        checkpoint_every: updates between two checkpoints.
        progress: called with ("training", updates done, updates in all).
        log: called with the losses of every 50th step.
    """
    saved = _checkpoint_folder(out_dir)
    first = load_checkpoint(saved, model, optimisers, about)
    started = time.monotonic()
    model.train()
    for step in range(first, steps):
        losses = one_step(step)
        if log is not None and (step % 50 == 49 or step == steps - 1):
            values = {name: float(value.detach()) for name, value in losses.items()}
            log({"step": step + 1, "seconds": round(time.monotonic() - started, 1), **values})
        if progress is not None and step % 10 == 9:
            progress("training", step + 1, steps)
        if step % checkpoint_every == checkpoint_every - 1 and step + 1 < steps:
            save_checkpoint(saved, model, optimisers, about, step + 1)
    model.eval()


def forget_checkpoint(out_dir: Path) -> None:
    """Remove the checkpoints of a training whose result is written."""
    shutil.rmtree(_checkpoint_folder(out_dir), ignore_errors=True)


def _checkpoint_folder(out_dir: Path) -> Path:
    return out_dir.with_name(f".{out_dir.name}.checkpoint")


def save_checkpoint(
    folder: Path,
    model: nn.Module,
    optimisers: Sequence[torch.optim.Optimizer],
    about: Mapping[str, Any],
    step: int,
) -> None:
    """Weights and optimiser states as tensors; `step.json` names the settings and is written last."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"model.{name}": value.detach().clone() for name, value in model.state_dict().items()}
    for which, optimiser in enumerate(optimisers):
        for row, values in optimiser.state_dict()["state"].items():
            named = {f"optimiser.{which}.{row}.{name}": value.clone() for name, value in values.items()}
            tensors.update(named)
    unfinished = folder / f"step-{step}.writing"
    write_tensors(unfinished, tensors, {})
    unfinished.replace(folder / f"step-{step}.safetensors")
    (folder / "step.writing").write_text(json.dumps({"step": step, "about": about}), encoding="utf-8")
    (folder / "step.writing").replace(folder / "step.json")
    for old in folder.glob("step-*.safetensors"):
        if old.name != f"step-{step}.safetensors":
            old.unlink()


def load_checkpoint(
    folder: Path, model: nn.Module, optimisers: Sequence[torch.optim.Optimizer], about: Mapping[str, Any]
) -> int:
    """Take up a checkpoint of exactly this training; the step to go on from, 0 when there is none."""
    if not (folder / "step.json").is_file():
        return 0
    found = json.loads((folder / "step.json").read_text(encoding="utf-8"))
    path = folder / f"step-{found['step']}.safetensors"
    if found["about"] != about or not path.is_file():
        return 0
    tensors = load_file(path)
    model.load_state_dict({name[6:]: value for name, value in tensors.items() if name.startswith("model.")})
    for which, optimiser in enumerate(optimisers):
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith(f"optimiser.{which}."):
                _, _, row, part = name.split(".", 3)
                state.setdefault(int(row), {})[part] = value
        optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    return int(found["step"])
