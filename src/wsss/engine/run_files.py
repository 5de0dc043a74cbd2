"""Checked reading of what runs leave: `run.json` and `scores.json`.

Runs write them, but anybody may have changed, cut or replaced them since. What other rooms rely on is checked
here, once; what only some of them read may be there or not, yet never be of another type.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from wsss.errors import StageError

_Place = Annotated[str, Field(pattern=r"^[^\x00]*$", max_length=4_096)]
_Share = FiniteFloat | None


class _Document(BaseModel):
    """Further keys are left to their readers."""

    model_config = ConfigDict(strict=True, extra="allow")


class _Stage(_Document):
    name: str
    title: str
    folder: _Place
    seconds: FiniteFloat
    commit: str
    hardware: str
    scores: _Place | None
    score_stage: str | None
    split: str | None


class _Data(_Document):
    name: str
    class_names: list[str]
    train_split: str
    val_split: str
    maps_split: str
    data_version: str


class RunDocument(_Document):
    """`run.json`."""

    recipe_name: str
    method: str
    recipe: dict[str, Any]
    seed: int
    commit: str
    hardware: str
    data: _Data
    supervision: str
    weights: dict[str, str]
    stages: list[_Stage]
    version: str = ""
    device: str = ""
    started: str = ""
    seconds: FiniteFloat = 0.0
    dataset_config: dict[str, Any] = {}
    data_root: _Place | None = None


class _Pair(_Document):
    share_of_foreground: _Share
    confusion_ratio: _Share
    images: int


class _Entry(_Document):
    background_score_source: str
    background_score: _Share
    miou: _Share
    iou: dict[str, _Share]
    precision: dict[str, _Share] = {}
    recall: dict[str, _Share] = {}
    over_activation: dict[str, _Share] = {}
    under_activation: dict[str, _Share] = {}
    miou_without: dict[str, _Share] = {}
    miou_subset: dict[str, _Share] = {}
    cooccurrence: dict[str, _Pair] | None = None
    boundary: dict[str, dict[str, _Share]] | None = None
    boundary_images: int = 0
    confusion: list[list[int]] = []
    missing_classes: list[str] = []


class ScoresDocument(_Document):
    """`scores.json`."""

    images: int
    entries: list[_Entry]
    class_names: list[str] = []


LONGEST: Final = 300  # letters of a reason


def read_document(path: Path, model: type[BaseModel], advice: str) -> dict[str, Any]:
    """A JSON file as it stands, if it is what `model` says.

    Raises:
        StageError: it is damaged, or something else.
    """
    try:
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        model.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        reason = f"{'.'.join(map(str, first['loc'])) or 'all of it'}: {first['msg'].lower()}"
        raise StageError(f"{path} is not as wsss writes it ({reason[:LONGEST]}). {advice}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise StageError(f"{path} can't be read ({str(error)[:LONGEST]}). {advice}") from error
    return document
