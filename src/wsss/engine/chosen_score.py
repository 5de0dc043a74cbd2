"""Checked reading of the background score that a stage chose, or was given."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, FiniteFloat

from wsss.engine.map_work import CHOSEN
from wsss.engine.run_files import read_document


class _Chosen(BaseModel):
    """`chosen_score.json`; further keys say how it was chosen."""

    model_config = ConfigDict(strict=True, extra="allow")

    value: FiniteFloat | None


def chosen_score(stage: Path) -> float | None:
    """Constant score of class 0; None where the maps have a background of their own.

    Args:
        stage: folder of the stage.

    Raises:
        StageError: it is missing or damaged.
    """
    advice = f"Delete the folder {stage.name} and run the recipe again."
    value = read_document(stage / CHOSEN, _Chosen, advice)["value"]
    return None if value is None else float(value)
