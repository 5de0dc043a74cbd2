"""From a recipe to masks in six calls: run, compare, report, export, predict.

Run it with `python examples/01_quickstart.py`. Everything that the program `wsss` does can be done from
Python with the same arguments. This takes minutes on two CPU cores; interrupted, the same command goes on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wsss import SegmentationModel, compare, load_recipe, run, write_report
from wsss.export.model_folder import save_run_model

OUT = Path("quickstart")
SMALL_DATA = ("data.train=300", "data.val=60")


def main(
    out: Path = OUT, *, changes: tuple[str, ...] = (), clims_changes: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Train CAM and CLIMS on a generated data set, compare them, and use what was trained.

    Args:
        out: folder for everything that is made.
        changes: changed settings of both recipes, as after `--set`; the tests make everything small.
        clims_changes: changed settings of CLIMS alone.
    """
    # 1. a recipe says everything about an experiment: data, method, training, maps, network
    cam = load_recipe("scenes/demo-cam", (*SMALL_DATA, *changes))
    clims = load_recipe("scenes/demo-clims", (*SMALL_DATA, *changes, *clims_changes))

    # 2. all its stages; finished ones are shared and never redone (CLIMS starts from the same CAM)
    results = [run(recipe, seed=0, runs=out / "runs") for recipe in (cam, clims)]
    print(*results, sep="\n")

    # 3. gains over the first, seed by seed; given recipes instead of run folders, it runs what is missing
    comparison = compare([result.folder for result in results])
    print(comparison)

    # 4. one page with tables, curves and images
    page = write_report(comparison.run_folders, out / "report")

    # 5. a model that can be shipped: weights, classes, colours and a card
    folder = save_run_model(results[1].folder, out / "model")

    # 6. masks of any photograph, without tags
    model = SegmentationModel.from_pretrained(folder)
    photograph = min((out / "runs").glob("stages/data-*/tree/JPEGImages/*"))
    mask = model.predict(photograph)  # (H, W), uint8, values 0…K

    print(model)
    print(f"Open {page}.")
    return {"results": results, "comparison": comparison, "page": page, "mask": mask}


if __name__ == "__main__":  # worker processes on macOS and Windows import this file again
    main()
