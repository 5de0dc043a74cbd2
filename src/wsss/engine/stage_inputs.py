"""What decides a stage's result besides other stages: settings of methods, and files that are read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wsss.engine.fingerprint import file_fingerprint
from wsss.engine.recipe import MethodSection
from wsss.engine.saliency_work import folder_digest
from wsss.engine.stages import Stage
from wsss.errors import RecipeError
from wsss.methods.base import MethodConfig
from wsss.models import weights
from wsss.refiners.base import RefinerConfig


def method_settings(section: MethodSection) -> dict[str, Any]:
    """What decides a method's weights: its name or file, and every hyper-parameter of its training."""
    return {
        "name": section.short_name,
        "config": section.config.model_dump(mode="json", exclude=set(section.cls.export_fields)),
        "teacher_precision": section.teacher_precision if "teacher" in section.needs else None,
    }


def prepare_settings(section: MethodSection) -> dict[str, Any]:
    """What decides what a method's `prepare` leaves."""
    fields = section.cls.prepare_fields
    if fields is None:
        return method_settings(section)
    config = section.config.model_dump(mode="json", include=set(fields))
    return {**method_settings(section), "config": config}


def foreign_files(section: MethodSection, made: Mapping[str, Stage]) -> tuple[str, ...]:
    """Fingerprints of what training reads: as `prepared_files`, given saliency maps and given weights."""
    given = section.needs_saliency and section.saliency.folder is not None
    maps = (folder_digest(section.saliency),) if given else ()
    return (*prepared_files(section, made), *maps, *given_weights(section))


def given_weights(section: MethodSection) -> tuple[str, ...]:
    """Fingerprint of the trained network that a method section names."""
    return () if section.weights is None else (weights.sha256(weights.find_weights(section.weights)),)


def prepared_files(section: MethodSection, made: Mapping[str, Stage]) -> tuple[str, ...]:
    """Fingerprints of foreign weights, of given answers, and of a method's own file."""
    found = list(own_file(section.name))
    if "answers" in section.needs and section.vqa.answers_file is not None:
        found.append(file_fingerprint(_answers_file(section.vqa.answers_file)))
    if "teacher" in section.needs and "teacher" not in made:
        found += teacher_weights(section)
    return (*found, *backbone_weights(section.config))


def own_file(name: str) -> tuple[str, ...]:
    """Fingerprint of the file of a method or refiner that is given by its path."""
    return (file_fingerprint(Path(name)),) if name.endswith(".py") else ()


def _answers_file(name: str) -> Path:
    if not Path(name).is_file():
        raise RecipeError(f"There is no answers file {name}. Correct `method.vqa.answers_file`.")
    return Path(name)


def backbone_weights(config: MethodConfig | RefinerConfig) -> tuple[str, ...]:
    """Fingerprint of the weights that a method's or refiner's backbone starts from."""
    name = getattr(config, "backbone_weights", None)
    return () if name is None else (weights.sha256(weights.find_weights(name)),)


def teacher_weights(section: MethodSection) -> tuple[str, ...]:
    """Fingerprint of the teacher that a method names."""
    return (weights.sha256(weights.find_weights(section.teacher)),)
