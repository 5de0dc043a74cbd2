"""Run a recipe: all its stages in order, and a run folder that says what belongs together."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, Final

from wsss.data import ScenesConfig
from wsss.engine import provenance
from wsss.engine.plan import plan
from wsss.engine.recipe import Recipe, load_recipe
from wsss.engine.run_files import RunDocument, ScoresDocument, read_document
from wsss.engine.saliency_work import folder_digest
from wsss.engine.stages import Listener, Silence, Stage, Workspace, complete, stage_record, until_stage
from wsss.errors import StageError
from wsss.models import weights
from wsss.training.checkpoint import write_atomically
from wsss.training.processes import is_main_process

HELPERS: Final = {
    "train-teacher": "trained teacher",
    "finetune-teacher": "fine-tuned teacher",
    "train-tag-classifier": "tag classifier",
    "detect-saliency": "saliency",
}


@dataclass(frozen=True)
class RunResult:
    """A finished run.

    Args:
        folder: the run folder.
        scores: what each scored stage reached (`maps`, `pseudo_masks`, `segmentation`, `refined-<name>`),
            as in its `scores.json`.
    """

    folder: Path
    scores: Mapping[str, Any]

    def miou(self) -> Iterator[tuple[str, str, float]]:
        """Scored stage, who chose the background score, and mIoU in percent."""
        for stage, scores in self.scores.items():
            for entry in scores["entries"]:
                yield stage, str(entry["background_score_source"]), 100 * float(entry["miou"])

    def __repr__(self) -> str:
        texts = [
            f"{stage} {value:.1f}" + ("" if source == "none" else f" ({source})")
            for stage, source, value in self.miou()
        ]
        return f"RunResult({self.folder.as_posix()!r}, mIoU %: {', '.join(texts) or 'not scored'})"

    def _repr_html_(self) -> str:
        """What notebooks show: the folder and a table of mIoU."""
        rows = "".join(
            f"<tr><td>{escape(stage)}</td><td>{escape(source)}</td><td>{value:.1f}</td></tr>"
            for stage, source, value in self.miou()
        )
        head = "<tr><th>stage</th><th>background score</th><th>mIoU %</th></tr>"
        return f"<table><caption>{escape(self.folder.as_posix())}</caption>{head}{rows}</table>"


def run(
    recipe: Recipe | str | Path,
    *,
    seed: int = 0,
    runs: Path | str = "runs",
    until: str | None = None,
    progress: Listener | None = None,
) -> RunResult:
    """Run a recipe's stages, leaving out what is finished.

    Args:
        recipe: a recipe, its file, or the name of a shipped one.
        seed: of the trainings.
        runs: where results are kept.
        until: last stage to run, for example `activate`; none: all.
        progress: follows the stages.

    Raises:
        WsssError: recipe, data or weights are wrong, or a stage failed. Call again to go on.
    """
    recipe = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    runs = Path(runs)
    workspace = Workspace(runs, recipe.data, provenance.default_device(), progress or Silence())
    planned = plan(recipe, seed, workspace)
    wanted = until_stage(planned, until)
    folder = run_folder(recipe, seed, runs)
    folder.mkdir(parents=True, exist_ok=True)
    if is_main_process():
        write_atomically(folder / "recipe.yaml", recipe.to_yaml().encode())
    for stage in wanted:
        complete(stage, workspace)
    # stages behind `until` may have been finished before; the run folder names them too
    records = {stage: record for stage in planned if (record := stage_record(workspace.folder(stage)))}
    if is_main_process():
        document = _document(recipe, seed, records, workspace, folder)
        write_atomically(folder / "run.json", (json.dumps(document, indent=1) + "\n").encode())
    return RunResult(folder, _scores({stage: records[stage] for stage in wanted}, workspace))


def run_folder(recipe: Recipe, seed: int, runs: Path) -> Path:
    """`<runs>/<recipe>-seed<n>`."""
    return runs / f"{recipe.name.replace('/', '-')}-seed{seed}"


def read_run(folder: Path | str) -> dict[str, Any]:
    """The `run.json` of a finished run.

    Raises:
        StageError: the folder holds no finished run, or its record is damaged.
    """
    path = Path(folder) / "run.json"
    if not path.is_file():
        raise StageError(
            f"{folder} holds no finished run (no run.json). Run its recipe again, or name a run folder."
        )
    return read_document(path, RunDocument, "Run the recipe again to write it anew.")


def read_scores(folder: Path | str, stage: Mapping[str, Any]) -> dict[str, Any] | None:
    """The scores of one entry of run.json's `stages`; None where nothing was scored."""
    if not stage.get("scores"):
        return None
    path = (Path(folder) / str(stage["scores"])).resolve()
    if not path.is_file():
        raise StageError(f"Scores {path.name} of {folder} are missing. Run the recipe again.")
    return read_document(
        path, ScoresDocument, f"Delete the folder {path.parent.name} and run the recipe again."
    )


def _scores(records: Mapping[Stage, Mapping[str, Any]], workspace: Workspace) -> dict[str, Any]:
    found = {}
    for stage in records:
        path = workspace.folder(stage) / "scores.json"
        if stage.scores and path.is_file():
            found[stage.scores] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _document(
    recipe: Recipe, seed: int, records: Mapping[Stage, Mapping[str, Any]], workspace: Workspace, folder: Path
) -> dict[str, Any]:
    dataset = workspace.dataset
    made = [record for stage, record in records.items() if not stage.scores]
    latest = max(made, key=lambda record: str(record["started"]))
    return {
        "recipe_name": recipe.name,
        "method": recipe.method_name,
        "recipe": recipe.resolved(),
        "seed": seed,
        **{key: latest[key] for key in ("commit", "version", "device", "hardware")},
        "started": min(str(record["started"]) for record in made),
        "seconds": round(sum(float(record["seconds"]) for record in records.values()), 3),
        "data": {
            "name": dataset.name,
            "class_names": list(dataset.class_names),
            "train_split": recipe.data.train_split,
            "val_split": recipe.data.val_split,
            "maps_split": recipe.maps_split,
            "data_version": data_version(recipe, workspace),
        },
        "supervision": recipe.supervision,
        "weights": used_weights(recipe, records),
        "dataset_config": recipe.data.model_dump(mode="json"),
        "data_root": _relative(workspace.tree, folder) if workspace.tree else None,
        "stages": _stage_entries(records, workspace, folder),
    }


def _stage_entries(
    records: Mapping[Stage, Mapping[str, Any]], workspace: Workspace, folder: Path
) -> list[dict[str, Any]]:
    scorings = {stage.inputs[0]: stage for stage in records if stage.scores}
    entries = []
    for stage, record in records.items():
        if stage.scores or stage.kind == "choose-score":
            continue
        scoring = scorings.get(stage)
        scores = workspace.folder(scoring) / "scores.json" if scoring else None
        is_scored = scores is not None and scores.is_file()
        entries.append(
            {
                "name": stage.name,
                "title": stage.title,
                "folder": _relative(workspace.folder(stage), folder),
                "seconds": record["seconds"],
                "commit": record["commit"],
                "hardware": record["hardware"],
                "scores": _relative(scores, folder) if scores and is_scored else None,
                "score_stage": scoring.scores if scoring else None,
                "split": scoring.split if scoring else None,
            }
        )
    return entries


def data_version(recipe: Recipe, workspace: Workspace) -> str:
    """What two runs must share to be compared: the generated world, or all files, those of the masks too."""
    if isinstance(recipe.data, ScenesConfig):
        data = recipe.data
        return f"v{data.version}-w{data.world}-{data.train}+{data.val}-{data.size}px"
    dataset = workspace.dataset
    return hashlib.sha256((dataset.fingerprint() + dataset.mask_fingerprint()).encode()).hexdigest()[:16]


def used_weights(recipe: Recipe, records: Mapping[Stage, Mapping[str, Any]]) -> dict[str, str]:
    """sha256 of every weight file that the run read or, for helpers of the method, made first."""
    names: dict[str, str | None] = {}
    start = recipe.initialise.method if recipe.initialise else None
    for role, section in (("", recipe.method), ("initialise ", start)):
        if section is None:
            continue
        names[f"{role}backbone"] = getattr(section.config, "backbone_weights", None)
        names[f"{role}weights"] = section.weights
        if "teacher" in section.needs and recipe.train_teacher is None and recipe.training is not None:
            names["teacher"] = section.teacher
    for index, refiner in enumerate(recipe.refine):
        names[f"refine {index}"] = getattr(refiner.config, "backbone_weights", None)
    if recipe.segmentation is not None:
        names["segmentation"] = recipe.segmentation.weights
    found = {role: weights.sha256(weights.find_weights(name)) for role, name in names.items() if name}
    if recipe.method is not None and "answers" in recipe.method.needs and recipe.method.vqa.weights:
        found["vqa"] = weights.sha256(recipe.method.vqa.weights)
    if recipe.method is not None and recipe.method.needs_saliency and recipe.method.saliency.folder:
        found["saliency maps"] = folder_digest(recipe.method.saliency)
    for stage, record in records.items():
        if stage.kind in HELPERS:
            found[HELPERS[stage.kind]] = record["facts"]["sha256"]
    return found


def _relative(path: Path, start: Path) -> str:
    return Path(os.path.relpath(path, start)).as_posix()
