"""The demonstration: CAM and CLIMS on generated scenes, compared in minutes."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from wsss.engine.compare import Comparison, compare
from wsss.engine.stages import Listener

DEMO_RECIPES: Final = ("scenes/demo-cam", "scenes/demo-clims")


def run_demo(out: Path | str, *, seed: int = 0, progress: Listener | None = None) -> Comparison:
    """Run both demo recipes into `out/runs` and compare them; interrupted, the same call goes on.

    Args:
        out: folder for everything that the demonstration makes.
        seed: of the trainings.
        progress: follows the stages.
    """
    return compare(DEMO_RECIPES, seeds=(seed,), runs=Path(out) / "runs", progress=progress)
