"""What tests of engine and command line share: a tiny recipe, a random teacher, made-up run folders."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from wsss.metrics.per_image import PerImage, save_per_image

AUGMENTATION = {"crop_size": 64, "scale": [0.8, 1.2]}
CAM = {
    "name": "cam",
    "backbone": "resnet_small",
    "backbone_weights": None,
    "output_stride": 8,
    "batch_norm": "live",
    "freeze_until": None,
}


def training(epochs: int) -> dict[str, Any]:
    return {
        "epochs": epochs,
        "batch_size": 4,
        "optimizer": "adamw",
        "learning_rate": 1e-3,
        "augmentation": AUGMENTATION,
    }


CAM_RECIPE: dict[str, Any] = {
    "about": {"title": "tiny CAM", "command": "wsss run cam.yaml"},
    "data": {"kind": "scenes", "world": 7, "train": 12, "val": 6, "size": 64},
    "method": CAM,
    "training": training(4),
    "activation": {"scales": [1.0, 0.5]},
    "segmentation": {"preset": "scenes", "training": {**training(2), "steps": None}},
}


def clims_recipe(teacher: Path) -> dict[str, Any]:
    recipe = copy.deepcopy(CAM_RECIPE)
    recipe["initialise"] = {"method": recipe.pop("method"), "training": recipe.pop("training")}
    recipe["method"] = {
        "name": "clims",
        "teacher": str(teacher),
        "backbone": "resnet_small",
        "output_stride": 8,
        "freeze_until": None,
        "similarity": "shifted",
        "logit_offset": 4.0,
        "cbs_threshold": None,
        "cbs_texts_reduction": "mean",
        "export": "sigmoid",
    }
    recipe["training"] = training(2)
    return recipe


def qa_recipe(teacher: Path, vqa: Path | str) -> dict[str, Any]:
    """A tiny QA-CLIMS; maps only."""
    recipe = copy.deepcopy(CAM_RECIPE)
    del recipe["segmentation"]
    recipe["initialise"] = {"method": recipe.pop("method"), "training": training(1)}
    recipe["method"] = {
        "name": "qa_clims",
        "teacher": str(teacher),
        "vqa": str(vqa),
        "backbone": "resnet_small",
        "output_stride": 8,
        "freeze_until": None,
        "mask_mode": "pixel",
        "logit_offset": 4.0,
        "export": "sigmoid",
    }
    recipe["training"] = training(1)
    return recipe


def smvwe_recipe() -> dict[str, Any]:
    """A tiny SMVWE of 16 words; maps only."""
    recipe = copy.deepcopy(CAM_RECIPE)
    del recipe["segmentation"]
    recipe["method"] = {**CAM, "name": "smvwe", "train_batch_norm": True, "num_words": 16}
    return recipe


SMALL_NET: dict[str, Any] = {"backbone": "resnet_small", "backbone_weights": None}
REFINERS: list[dict[str, Any]] = [
    {"name": "dense_crf", "parameters": {"iterations": 2}},
    {
        "name": "psa",
        **SMALL_NET,
        "output_stride": 4,
        "batch_norm": "live",
        "freeze_until": None,
        "grid_stride": 4,
        "radius": 3,
        "num_doublings": 2,
        "training": {**training(1), "epochs": None, "steps": 3},
    },
    {
        "name": "irn",
        **SMALL_NET,
        "backbone_trains": True,
        "radius": 4,
        "num_doublings": 2,
        "canvas": None,
        "training": {**training(1), "epochs": None, "steps": 3},
    },
    {"name": "dense_crf", "preset": "clims_camera_ready"},
]
"""All refiners, small enough for a dozen images."""


def write_recipe(path: Path, recipe: dict[str, Any], **changes: Any) -> Path:
    """Write a recipe with whole sections replaced."""
    path.write_text(yaml.safe_dump({**copy.deepcopy(recipe), **changes}, sort_keys=False))
    return path


def random_teacher(folder: Path) -> Path:
    """An untrained teacher in the embedded one's format."""
    from wsss.models.embedded.clip_format import new_clip, save_clip

    if not folder.is_dir():
        save_clip(folder, new_clip(0), {"variant": "random"})
    return folder


def random_vqa(folder: Path) -> Path:
    """An untrained question answering model in the embedded one's format."""
    from wsss.models.embedded.vqa_format import new_vqa, save_vqa

    if not folder.is_dir():
        save_vqa(folder, new_vqa(0), {"command": "none"})
    return folder


class Recorder:
    """A listener that remembers what happened."""

    def __init__(self) -> None:
        self.started_titles: list[str] = []
        self.skipped_titles: list[str] = []
        self.notes: list[str] = []
        self.current = ""

    def started(self, title: str) -> Any:
        self.started_titles.append(title)
        self.current = title
        return lambda done, total, note: None

    def finished(self, title: str, seconds: float) -> None:
        self.current = ""

    def skipped(self, title: str) -> None:
        self.skipped_titles.append(title)

    def note(self, text: str) -> None:
        self.notes.append(text)


def made_up_run(
    runs: Path,
    recipe: str,
    seed: int,
    confusions: dict[str, dict[str, list[list[list[int]]]]],
    *,
    supervision: str = "I",
    method: str | None = None,
    data: dict[str, Any] | None = None,
) -> Path:
    """A run folder with given confusions: stage -> background score source -> one confusion per image."""
    folder = runs / f"{recipe.replace('/', '-')}-seed{seed}"
    folder.mkdir(parents=True)
    stages = []
    for stage, by_source in confusions.items():
        place = runs / "stages" / f"score-{stage}-{recipe.replace('/', '-')}-{seed}"
        place.mkdir(parents=True)
        entries, per_image = [], {}
        for source, images in by_source.items():
            total = np.sum(images, axis=0)
            found, true, predicted = np.diag(total), total.sum(axis=1), total.sum(axis=0)
            iou = found / (true + predicted - found)
            names = ["background", "cat"]
            entries.append(
                {
                    "background_score_source": source,
                    "background_score": 0.15 if source == "fixed" else 0.4,
                    "miou": float(iou.mean()),
                    "iou": dict(zip(names, iou.tolist(), strict=True)),
                    "precision": {},
                    "recall": {},
                    "over_activation": dict(zip(names, (1 - found / predicted).tolist(), strict=True)),
                    "under_activation": dict(zip(names, (1 - found / true).tolist(), strict=True)),
                    "confusion": total.tolist(),
                    "cooccurrence": {
                        "cat/grass": {"share_of_foreground": 0.25, "confusion_ratio": 0.1, "images": 2},
                        "cat/sky": {"share_of_foreground": 0.5, "confusion_ratio": 0.1, "images": 1},
                    },
                    "missing_classes": [],
                }
            )
            rows = PerImage()
            for image in images:
                rows.add(np.array(image))
            per_image[source] = rows
        count = len(next(iter(by_source.values())))
        save_per_image(place / "per_image.npz", [f"i{n}" for n in range(count)], per_image, 2)
        scores = {"class_names": names, "images": count, "entries": entries, "curve": None}
        (place / "scores.json").write_text(json.dumps(scores))
        stages.append(
            {
                "name": stage,
                "title": stage,
                "folder": "../stages/none",
                "seconds": 60.0,
                "commit": "abc",
                "hardware": "2 CPU cores",
                "scores": f"../stages/{place.name}/scores.json",
                "score_stage": stage,
                "split": "val" if stage == "segmentation" else "train",
            }
        )
    weak = supervision != "F"
    record = {
        "recipe_name": recipe,
        "method": method or recipe,
        "recipe": {
            "about": {"paper_values": {"maps.fixed.miou": 48.3}},
            "activation": {"scales": [1.0, 0.5], "flip": True},
            "refine": [],
            "segmentation": {
                "test_scales": [1.0],
                "test_flip": False,
                "target": "pseudo_masks" if weak else "masks",
            },
        },
        "seed": seed,
        "commit": "abc",
        "hardware": "2 CPU cores",
        "data": {
            "name": "toys",
            "class_names": ["background", "cat"],
            "train_split": "train",
            "val_split": "val",
            "maps_split": "train",
            "data_version": "1",
            **(data or {}),
        },
        "supervision": supervision,
        "weights": {"teacher": "f" * 64},
        "stages": stages,
    }
    (folder / "run.json").write_text(json.dumps(record))
    return folder
