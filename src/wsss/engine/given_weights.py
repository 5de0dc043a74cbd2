"""A trained map network given as a file, such as an official checkpoint: where a recipe has no training."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from wsss.data.dataset import WithoutMasks
from wsss.engine.fingerprint import file_fingerprint
from wsss.engine.method_work import build_method
from wsss.engine.recipe import MethodSection
from wsss.engine.stage_inputs import given_weights, method_settings
from wsss.engine.stages import Stage, Workspace
from wsss.methods.base import Frozen
from wsss.models.official_checkpoints import cam_network_state
from wsss.training.checkpoint import save_state
from wsss.training.journal import Progress


def given_weights_stage(section: MethodSection, inputs: tuple[Stage, ...]) -> Stage:
    """The stage that stands in for training: it takes the weights that the method section names.

    Args:
        section: its `weights` are given.
        inputs: the stage that makes the data, where there is one.
    """
    return Stage(
        name="train-method",
        kind="take-weights",
        title=f"Take the weights of {section.short_name}",
        settings={"method": method_settings(section)},
        inputs=inputs,
        work=partial(_take, section),
        reads=given_weights(section),
    )


def _take(section: MethodSection, folder: Path, workspace: Workspace, progress: Progress) -> dict[str, Any]:
    """Leave `model.safetensors` as a training does."""
    assert section.weights is not None
    method = build_method(section, WithoutMasks(workspace.dataset), Frozen(), seed=0)
    method.initialise(cam_network_state(section.weights))
    save_state(folder / "model.safetensors", method.state_dict(), {"steps": "0"})
    progress(1, 1, "model.safetensors")
    return {
        "steps": 0,
        "method": method.config.model_dump(mode="json"),
        "sha256": file_fingerprint(folder / "model.safetensors"),
    }
