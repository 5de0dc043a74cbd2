"""Train a teacher for the data of a recipe, or for a folder of tagged images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from wsss.data import DataConfig, FolderConfig
from wsss.data.dataset import WithoutMasks
from wsss.engine import provenance
from wsss.engine.plan import data_stage
from wsss.engine.recipe import load_recipe
from wsss.engine.recipe_errors import validated
from wsss.engine.recipe_files import with_overrides
from wsss.engine.stages import Listener, Silence, Workspace, complete
from wsss.errors import DataError
from wsss.models.teacher_training import TeacherConfig, TrainedTeacher, train_teacher


def train_teacher_for(
    data: str | Path,
    out: Path,
    *,
    seed: int = 0,
    tags: Path = Path("tags.csv"),
    settings: Sequence[str] = (),
    runs: Path | str = "runs",
    progress: Listener | None = None,
) -> TrainedTeacher:
    """Train a teacher from tags and scene words; goes on after an interruption.

    Args:
        data: a recipe, whose `data` and `train_teacher` sections are used, or a folder of images.
        out: the teacher's folder.
        seed: of the training.
        tags: for a folder, its tags file.
        settings: `key.key=value` overrides of `TeacherConfig`.
        runs: where generated data are kept.
        progress: follows the work.

    Raises:
        RecipeError: no such recipe, or a wrong setting.
        DataError: the data can't be read, or hold too few words.
    """
    listener = progress or Silence()
    given: dict[str, object] = {}
    config: DataConfig
    if Path(data).is_dir():
        config = FolderConfig.model_validate({"root": data, "tags": tags})
    else:
        recipe = load_recipe(data)
        config = recipe.data
        if recipe.train_teacher is not None:
            given = recipe.train_teacher.model_dump(mode="json", exclude_unset=True)
    workspace = Workspace(Path(runs), config, provenance.default_device(), listener)
    stage = data_stage(config)
    if stage is not None:
        workspace.data_stage = stage
        complete(stage, workspace)
    teacher_config = validated(
        TeacherConfig, with_overrides(given, settings, str(data)), where="train_teacher", source=str(data)
    )
    report = listener.started("Train a teacher from tags and scene words")
    dataset = WithoutMasks(workspace.dataset)
    held_out = config.val_split if _has_split(dataset, config.val_split) else None
    return train_teacher(
        dataset,
        Path(out),
        teacher_config,
        split=config.train_split,
        held_out_split=held_out,
        seed=seed,
        progress=report,
    )


def _has_split(dataset: WithoutMasks, split: str) -> bool:
    try:
        return bool(dataset.ids(split))
    except DataError:
        return False
