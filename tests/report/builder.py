"""Run folders as the engine writes them, with invented maps and masks: fast, and as good as a test needs.

Scores are taken from the invented results by the library's own scoring, so the folders are consistent.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from wsss.activation.scoring import score_maps, score_masks
from wsss.activation.store import MapStore
from wsss.data.masks_png import write_mask
from wsss.questions.pair_texts import PairTexts
from wsss.types import ActivationMaps


@dataclass(frozen=True)
class Invented:
    """What a run shall look like.

    Args:
        recipe: its name.
        method: a method, or `supervised`.
        skill: from 0 (finds background and parts) to 1 (finds the objects).
        seed: of the run and of its invented results.
        has_maps: maps and pseudo masks are there.
        has_segmentation: predictions are there.
        is_scored: true masks were there to score with.
        refiner: name of a refiner, if one ran.
        target: what segmentation was trained on.
        about: of the recipe.
        settings: hyper-parameters of the method.
        texts: of single images, that the method trained on.
    """

    recipe: str = "scenes/clims"
    method: str = "clims"
    skill: float = 0.8
    seed: int = 0
    has_maps: bool = True
    has_segmentation: bool = True
    is_scored: bool = True
    refiner: str = ""
    target: str = "pseudo_masks"
    about: dict[str, Any] | None = None
    settings: dict[str, Any] | None = None
    texts: tuple[PairTexts, ...] = ()


CONFIG = {"kind": "scenes", "world": 7, "train": 12, "val": 6, "size": 64}
CAM = Invented(recipe="scenes/cam", method="cam", skill=0.3)
CLIMS = Invented(recipe="scenes/clims", method="clims", skill=0.8)
FULL = Invented(recipe="scenes/supervised", method="supervised", target="masks")

AUTOMATIC = 0.45
SEGMENTATION = {
    "network": "deeplab_v2",
    "backbone": "resnet_small",
    "test_scales": [0.75, 1.0, 1.25],
    "test_flip": True,
}


def build(runs: Path, dataset: Any, tree: Path, dataset_config: dict[str, Any], run: Invented) -> Path:
    """Write the run's folder and its stages below `runs`; return the run folder."""
    folder = runs / f"{run.recipe.replace('/', '-')}-seed{run.seed}"
    folder.mkdir(parents=True)
    writer = _Writer(runs / "stages", folder, dataset, run)
    train, val = dataset.ids("train"), dataset.ids("val")
    if run.texts:
        writer.texts(run.texts)
    if run.has_maps and run.method != "supervised":
        writer.training(
            "train-method", f"Train {run.method}", {"OTM": 9.0, "BTM": 5.0, "CBS": 2.0, "REG": 1.0}
        )
        maps = writer.maps("activate", "Write activation maps", "maps", train, run.skill)
        if run.refiner:
            title = f"Refine the maps ({run.refiner})"
            maps = writer.maps(
                f"refine-0-{run.refiner}", title, f"refined-{run.refiner}", train, min(1.0, run.skill + 0.1)
            )
        writer.pseudo_masks(maps, train)
    if run.has_segmentation:
        writer.training("train-segmentation", "Train the segmentation network", {"cross_entropy": 2.0})
        writer.predictions(val)
    document = _document(run, dataset, dataset_config, tree, folder) | {"stages": writer.entries}
    (folder / "run.json").write_text(json.dumps(document))
    return folder


class _Writer:
    """Writes stages one after the other and remembers their entries of run.json."""

    def __init__(self, stages: Path, folder: Path, dataset: Any, run: Invented) -> None:
        self.stages, self.folder, self.dataset, self.run = stages, folder, dataset, run
        self.entries: list[dict[str, Any]] = []
        self.rng = np.random.default_rng(1000 * run.seed + sum(run.recipe.encode()))

    def texts(self, texts: tuple[PairTexts, ...]) -> None:
        cache = self._stage("prepare", "Prepare the method", 3.0) / "cache"
        cache.mkdir()
        lines = [json.dumps(asdict(pair), ensure_ascii=False) + "\n" for pair in texts]
        (cache / "texts.jsonl").write_text("".join(lines), encoding="utf-8")

    def training(self, name: str, title: str, losses: dict[str, float]) -> None:
        folder = self._stage(name, title, 62.0)
        lines = []
        for step in range(10, 410, 10):
            terms = {
                term: start * (0.25 + 0.75 * np.exp(-step / 120)) * (1 + 0.06 * self.rng.standard_normal())
                for term, start in losses.items()
            }
            lines.append(
                {"step": step, "steps": 400, "loss": sum(terms.values()), "losses": terms, "lr": 1e-3}
            )
        (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    def maps(self, name: str, title: str, score_stage: str, ids: tuple[str, ...], skill: float) -> MapStore:
        folder = self._stage(name, title, 31.0)
        store = MapStore(folder / "maps")
        for image_id in ids:
            maps = invented_maps(self.dataset, image_id, skill, self.rng)
            store.write(image_id, maps, image_size=maps.size)
        self._choice(folder)
        if self.run.is_scored:
            scores = self._score_folder(name, score_stage, "train")
            found = score_maps(
                store, self.dataset, ids, fixed=0.15, automatic=AUTOMATIC, per_image=scores / "per_image.npz"
            )
            (scores / "scores.json").write_text(json.dumps(found))
        return store

    def _choice(self, maps: Path) -> None:
        """How the background score of some maps was chosen: a folder that run.json does not list."""
        folder = self.stages / f"choose-score-{maps.name}"
        folder.mkdir()
        (folder / "stage.json").write_text(
            json.dumps({"inputs": [maps.name], "settings": {"split": "train"}})
        )
        scores = [step / 100 for step in range(100)]
        details = {
            "rule": "colour separation",
            "images": 12,
            "background_scores": scores,
            "agreement": [round(0.9 - (score - AUTOMATIC) ** 2, 6) for score in scores],
        }
        document = {"value": AUTOMATIC, "source": "automatic", "details": details}
        (folder / "chosen_score.json").write_text(json.dumps(document))

    def pseudo_masks(self, store: MapStore, ids: tuple[str, ...]) -> None:
        folder = self._stage("pseudo-masks", "Write pseudo masks", 4.0)
        for image_id in ids:
            mask = store.read(image_id).to_mask(AUTOMATIC).numpy()
            write_mask(folder / "pseudo_masks" / f"{image_id}.png", mask)
        self._score_masks("pseudo-masks", "pseudo_masks", "train", folder / "pseudo_masks", ids)

    def predictions(self, ids: tuple[str, ...]) -> None:
        folder = self._stage("predict", "Predict masks", 8.0)
        skill = 1.0 if self.run.target == "masks" else self.run.skill
        for image_id in ids:
            maps = invented_maps(self.dataset, image_id, skill, self.rng)
            write_mask(folder / "predictions" / f"{image_id}.png", maps.to_mask(0.4).numpy())
        self._score_masks("predict", "segmentation", "val", folder / "predictions", ids)

    def _score_masks(
        self, name: str, score_stage: str, split: str, masks: Path, ids: tuple[str, ...]
    ) -> None:
        if not self.run.is_scored:
            return
        scores = self._score_folder(name, score_stage, split)
        chosen: dict[str, Any] = {"source": "automatic", "background_score": AUTOMATIC}
        if self.run.target == "masks":
            chosen = {"source": "none"}
        found = score_masks(masks, self.dataset, ids, per_image=scores / "per_image.npz", **chosen)
        (scores / "scores.json").write_text(json.dumps(found))

    def _stage(self, name: str, title: str, seconds: float) -> Path:
        folder = self.stages / f"{name}-{self.folder.name}"
        folder.mkdir(parents=True)
        self.entries.append(
            {
                "name": name,
                "title": title,
                "folder": f"../stages/{folder.name}",
                "seconds": seconds,
                "commit": "0123456789ab",
                "hardware": "2 CPU cores",
                "scores": None,
                "score_stage": None,
                "split": None,
            }
        )
        return folder

    def _score_folder(self, name: str, score_stage: str, split: str) -> Path:
        folder = self.stages / f"score-{name}-{self.folder.name}"
        folder.mkdir(parents=True)
        entry = next(entry for entry in self.entries if entry["name"] == name)
        entry |= {
            "scores": f"../stages/{folder.name}/scores.json",
            "score_stage": score_stage,
            "split": split,
        }
        return folder


def invented_maps(dataset: Any, image_id: str, skill: float, rng: np.random.Generator) -> ActivationMaps:
    """Maps that find parts of the objects and some of the background; better with more skill."""
    sample = dataset.sample(image_id, with_mask=True)
    height, width = sample.mask.shape
    present = np.flatnonzero(sample.image_labels) + 1
    planes = []
    for class_id in present:
        inside = (sample.mask == class_id).astype(np.float32)
        part = inside * (
            gaussian_filter(rng.standard_normal((height, width)), height / 16) > 0.5 * (1 - skill) / height
        )
        blob = gaussian_filter(rng.standard_normal((height, width)), height / 12)
        spill = np.clip(blob / (blob.std() + 1e-6), 0, 1) * (sample.mask == 0)
        plane = gaussian_filter(skill * inside + (1 - skill) * part + 0.9 * (1 - skill) * spill, height / 40)
        planes.append(plane / (plane.max() + 1e-5))
    scores = np.stack(planes) if planes else np.zeros((0, height, width))
    return ActivationMaps(torch.from_numpy(present), torch.from_numpy(scores.astype(np.float32)).clamp(0, 1))


def _document(
    run: Invented, dataset: Any, dataset_config: dict[str, Any], tree: Path, folder: Path
) -> dict[str, Any]:
    supervised = run.target == "masks"
    about = {
        "title": f"What {run.method} finds",
        "paper": "",
        "command": "",
        "expected": {},
        "paper_values": {},
    }
    segmentation = {**SEGMENTATION, "target": run.target} if run.has_segmentation else None
    return {
        "recipe_name": run.recipe,
        "method": "supervised" if supervised else run.method,
        "recipe": {
            "name": run.recipe,
            "about": about | (run.about or {}),
            "data": dataset_config,
            "method": None if supervised else {"name": run.method, **(run.settings or {})},
            "activation": {"scales": [1.0, 0.5, 1.5, 2.0], "flip": True},
            "refine": [{"name": run.refiner}] if run.refiner else [],
            "segmentation": segmentation,
        },
        "seed": run.seed,
        "commit": "0123456789ab",
        "version": "0.1.0",
        "device": "cpu",
        "hardware": "2 CPU cores",
        "started": "2026-01-02T03:04:05+00:00",
        "seconds": 105.0,
        "data": {
            "name": dataset.name,
            "class_names": list(dataset.class_names),
            "train_split": "train",
            "val_split": "val",
            "maps_split": "train",
            "data_version": "v1-w7-12+6-64px",
        },
        "supervision": ("F" if supervised else "I+L" if run.method.endswith("clims") else "I")
        + (" (oracle)" if "oracle" in run.recipe else ""),
        "weights": {"teacher": "ab" * 32} if run.method == "clims" and not supervised else {},
        "dataset_config": dataset_config,
        "data_root": str(Path("..", "..", tree.name)) if tree.parent == folder.parents[1] else str(tree),
    }
