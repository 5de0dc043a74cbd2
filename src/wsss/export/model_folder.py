"""From finished runs to model folders, and models from either."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from pydantic import ValidationError

from wsss.engine.measurements import finished_run
from wsss.engine.run import read_run
from wsss.errors import StageError, WsssError
from wsss.export.model_card import model_card
from wsss.segmentation import SegmentationConfig, build
from wsss.segmentation.model import SegmentationModel, check_target
from wsss.training.checkpoint import load_state

WEIGHTS_OF_STAGE: Final = "model.safetensors"
_ABOUT: Final = ("recipe_name", "method", "seed", "supervision", "commit", "version", "hardware", "weights")


def load_model(place: Path | str, *, device: torch.device | str = "cpu") -> SegmentationModel:
    """A model from a model folder or from a finished run.

    Raises:
        WeightsError: the folder holds no model, or a damaged one.
        StageError: the run has no segmentation network.
    """
    place = Path(place)
    if (place / "run.json").is_file():
        return model_of_run(place, device=device)
    return SegmentationModel.from_pretrained(place, device=device)


def model_of_run(run: Path | str, *, device: torch.device | str = "cpu") -> SegmentationModel:
    """The segmentation network that a run trained, with a card that says where it comes from.

    Raises:
        StageError: the run is unfinished, or trains no such network, or its files are missing or damaged.
    """
    run, record = Path(run), read_run(run)
    weights = _weights(run, record)
    try:
        settings = {
            **record["recipe"]["segmentation"],
            "weights": None,
        }  # the trained ones replace them anyway
        config = SegmentationConfig.model_validate(settings)
        class_names = [str(name) for name in record["data"]["class_names"]]
        net = build(config, class_names)
        net.load_state_dict(load_state(weights)[0])
        about = {key: record[key] for key in _ABOUT if key in record} | {"data": record["data"]}
        card = model_card(finished_run(run))
    except (ValidationError, KeyError, TypeError, RuntimeError, WsssError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise StageError(
            f"The network of the run {run} can't be read ({type(error).__name__}: {reason.strip(' .')}). "
            "Run its recipe again with this version of wsss."
        ) from error
    return SegmentationModel(net, config, class_names, card=card, about=about).to(device)


def save_run_model(run: Path | str, out: Path | str) -> Path:
    """Make a model folder of a finished run.

    Raises:
        StageError: the run has no segmentation network.
        WeightsError: `out` holds something else.
    """
    check_target(Path(out))
    return model_of_run(run).save_pretrained(out)


def _weights(run: Path, record: Mapping[str, Any]) -> Path:
    """The file of the trained segmentation network."""
    folders = [stage["folder"] for stage in record["stages"] if stage["name"] == "train-segmentation"]
    if not folders:
        raise StageError(
            f"The run {run} trained no segmentation network. Add `segmentation:` to its recipe "
            "and run it again."
        )
    path = (run / str(folders[-1]) / WEIGHTS_OF_STAGE).resolve()
    if not path.is_file():
        raise StageError(f"The network of the run {run} is missing ({path}). Run its recipe again.")
    return path
