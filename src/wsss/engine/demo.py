"""The demonstration: CAM and CLIMS on generated scenes, compared in minutes."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from wsss.engine.compare import Comparison, compare_runs
from wsss.engine.recipe import load_recipe
from wsss.engine.run import run
from wsss.engine.stages import Listener

_FEW: Final = ("data.train=40", "data.val=8", "training.epochs=1", "segmentation.training.epochs=1")
QUICK: Final = {
    "scenes/demo-cam": _FEW,
    "scenes/demo-clims": (*_FEW, "initialise.training.epochs=1"),
}


def run_demo(
    out: Path | str, *, seed: int = 0, quick: bool = False, progress: Listener | None = None
) -> Comparison:
    """Run both demo recipes into `out/runs` and compare them; interrupted, the same call goes on.

    Args:
        out: folder for everything that the demonstration makes.
        seed: of the trainings.
        quick: a few images and steps only: shows that everything works, but no method can learn from that.
        progress: follows the stages.
    """
    recipes = [load_recipe(name, few if quick else ()) for name, few in QUICK.items()]
    results = [run(recipe, seed=seed, runs=Path(out) / "runs", progress=progress) for recipe in recipes]
    return compare_runs([result.folder for result in results])
