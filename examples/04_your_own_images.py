"""Images of your own: tags in, masks and a model out, then masks without tags.

    python examples/04_your_own_images.py IMAGES TAGS OUT     # TAGS: a CSV file, image,labels
    python examples/04_your_own_images.py                     # on a small generated folder

Does what `wsss label IMAGES TAGS --out OUT --method cam` and `wsss predict` do.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

from wsss import LabelSettings, ScenesConfig, label_folder, open_dataset
from wsss.data.scenes import write_tree
from wsss.engine.label import Labelled
from wsss.export.model_folder import save_run_model
from wsss.export.show import show
from wsss.segmentation.image_list import find_images
from wsss.segmentation.model import PredictionSettings, SegmentationModel
from wsss.segmentation.predict_images import predict_images


def generated_folder(root: Path, *, train: int = 120, val: int = 20, size: int = 96) -> tuple[Path, Path]:
    """A folder of drawn images and a tags file as you would write it."""
    world = {"world": 100, "train": train, "val": val, "size": size}
    write_tree(root, **world)
    dataset = open_dataset(ScenesConfig(**world), root=root)
    with (root / "tags.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(("image", "labels"))
        for image_id in dataset.ids("train"):  # those of the split `val` stay without tags
            present = dataset.image_labels(image_id)  # (K,), bool
            rows.writerow((image_id, "|".join(dataset.class_names[c + 1] for c in present.nonzero()[0])))
    return root / "JPEGImages", root / "tags.csv"


def main(images: Path, tags: Path, out: Path, *, quick: bool = False) -> Labelled:
    """Label a folder, keep the model, and use it on the same images once more, without their tags.

    Args:
        images: folder of images.
        tags: CSV file with the columns image,labels.
        out: folder for everything that is made; outside `images`.
        quick: a few steps only, which teach a network nothing.
    """
    labelled = label_folder(LabelSettings(images, tags, out, method="cam", quick=quick))
    print(f"{labelled.from_tags} masks from tags, {labelled.from_network} from the network: {labelled.masks}")
    for row in labelled.classes:
        print(f"  {row.name}: tagged in {row.tagged} images, found in {row.found} of them")

    model = SegmentationModel.from_pretrained(save_run_model(labelled.run_folder, out / "model"))
    found = find_images([str(images)], out / "predicted")
    predicted = predict_images(model, found, out / "predicted", PredictionSettings())
    print(f"{predicted.new} masks predicted, {len(predicted.failures)} images failed: {predicted.failures}")

    show(model, found[0].path).savefig(out / "one-image.png")
    print(f"Look at {out / 'one-image.png'}.")
    return labelled


if __name__ == "__main__":
    if len(sys.argv) == 4:
        main(*(Path(argument) for argument in sys.argv[1:]))
    else:
        main(*generated_folder(Path("own-images/data")), Path("own-images/out"))
