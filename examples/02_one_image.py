"""One image, step by step: activation maps, a dense CRF, a mask.

Run it with `python examples/02_one_image.py`. It shows the values that travel through the library: `Sample`
(an image with its tags), `ActivationMaps` (scores of the classes that the tags name) and the mask they give.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wsss import MapStore, load_recipe, open_dataset, run, show_maps
from wsss.engine.run import read_run
from wsss.refiners.base import find_refiner

OUT = Path("one-image")


def main(out: Path = OUT, *, changes: tuple[str, ...] = ()) -> dict[str, Any]:
    """Train a small CAM, then follow its first training image.

    Args:
        out: folder for everything that is made.
        changes: changed settings of the recipe, as after `--set`.
    """
    recipe = load_recipe("scenes/demo-cam", ("data.train=300", "data.val=60", *changes))
    result = run(recipe, runs=out / "runs", until="activate")  # no segmentation network is needed here
    record = read_run(result.folder)
    folders = {stage["name"]: result.folder / stage["folder"] for stage in record["stages"]}

    dataset = open_dataset(recipe.data, root=result.folder / record["data_root"])
    image_id = dataset.ids("train")[0]
    sample = dataset.sample(image_id)  # no mask unless it is asked for
    print(dataset, sample, sep="\n")

    maps = MapStore(folders["activate"] / "maps").read(image_id)
    print("as they come:  ", maps)

    crf = find_refiner("dense_crf")
    refiner = crf(crf.Config(background_score=0.3), dataset.class_names)
    refined = refiner.refine(sample, maps)  # has a background of its own
    print("after the CRF: ", refined)

    seed = maps.to_mask(background_score=0.3)  # the first class of the highest score, else background
    mask = refined.to_mask()
    print(f"The CRF changed {float((seed != mask).float().mean()):.0%} of the pixels.")

    for name, these, score in (("maps", maps, 0.3), ("refined", refined, None)):
        figure = show_maps(sample.image, these, dataset.class_names, background_score=score)
        figure.savefig(out / f"{name}.png")
    print(f"Look at {out / 'maps.png'} and {out / 'refined.png'}.")
    return {"sample": sample, "maps": maps, "refined": refined, "mask": mask}


if __name__ == "__main__":
    main()
