"""Review and correct: look at the most suspicious masks, correct a few, train again, see what they brought.

Run it with `python examples/05_correct_masks.py`. Here the data set's true masks stand in for a person with a
drawing program; with your own images, open the files that the page names, and save them into one folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wsss import compare, load_recipe, open_dataset, run
from wsss.data.masks_png import write_mask
from wsss.engine.run import read_run
from wsss.review import review

OUT = Path("correct-masks")


def main(out: Path = OUT, *, count: int = 30, changes: tuple[str, ...] = ()) -> dict[str, Any]:
    """Train CAM and a network, correct its `count` most suspicious masks, and train the network again.

    Args:
        out: folder for everything that is made.
        count: how many masks are corrected.
        changes: changed settings of the recipe, as after `--set`.
    """
    settings = ("data.world=100", "data.train=300", "data.val=60", *changes)
    recipe = load_recipe("scenes/demo-cam", settings)
    before = run(recipe, runs=out / "runs")

    # ranked without any true mask; the page shows image, mask and reasons
    found = review([before.folder], out=out / "review")
    suspects = found.suspects[:count]
    for suspect in suspects[:3]:
        print(f"{suspect.place}. {suspect.file}: {' '.join(suspect.reasons)}")

    # correct the files that the page names
    dataset = open_dataset(recipe.data, root=before.folder / read_run(before.folder)["data_root"])
    for suspect in suspects:
        truth = dataset.sample(suspect.ranked.image_id, with_mask=True).mask
        write_mask(out / "corrections" / suspect.file, truth)

    # give them back: only the network is trained again, and its supervision says how many masks were drawn
    corrected = load_recipe("scenes/demo-cam", (*settings, f"corrections.folder={out / 'corrections'}"))
    after = run(corrected, runs=out / "runs")
    comparison = compare([before.folder, after.folder])
    print(corrected.supervision, comparison, sep="\n")
    print(f"Open {found.page}.")
    return {"before": before, "after": after, "review": found, "comparison": comparison}


if __name__ == "__main__":
    main()
