"""Recipes: one YAML file, validated, says everything about one experiment.

Defaults live in the models of each room only; a recipe lists what differs. Relative paths in a recipe are
relative to the current working directory. `load_recipe` reads, checks and completes a recipe; what it returns
decides, together with a seed, every stage's fingerprint.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, SerializeAsAny, model_validator
from typing_extensions import Self

from wsss.activation.extract import ExtractConfig
from wsss.checks import nearest
from wsss.data import DataConfig
from wsss.engine.answers_work import VqaSection
from wsss.engine.corrections import CorrectionsSection, check_section, with_corrections
from wsss.engine.recipe_checks import check_whole
from wsss.engine.recipe_errors import unknown_key, validated
from wsss.engine.recipe_files import find_recipe, named, read_yaml, with_overrides
from wsss.engine.saliency_work import SALIENCY, SaliencySection
from wsss.errors import RecipeError
from wsss.methods.base import Method, MethodConfig, find_method
from wsss.models.clip_finetuning import FinetuneConfig
from wsss.models.teacher_training import TeacherConfig
from wsss.refiners.base import RefinerConfig, find_refiner
from wsss.segmentation import SegmentationConfig
from wsss.training.config import TrainingConfig, merged_settings


class Section(BaseModel):
    """A part of a recipe."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _short_name(name: str) -> str:
    return Path(name).stem if name.endswith(".py") else name


class About(Section):
    """What the experiment is, for readers, reports and tests; changes no result."""

    title: str = Field("", description="One line: what is tried.")
    paper: str = Field("", description="Paper and section whose settings these are.")
    command: str = Field("", description="The exact command that runs it.")
    hardware: str = Field("", description="Where `minutes` was measured.")
    minutes: float | None = Field(None, ge=0, description="Duration of one seed in minutes.")
    expected: dict[str, list[float]] = Field(
        {}, description="Own scores in percent, keys as below: [mean, standard deviation over seeds]."
    )
    paper_values: dict[str, float] = Field(
        {}, description="Published numbers in percent; keys stage.source.metric such as maps.oracle.miou."
    )
    notes: str = Field("", description="Anything a reader must know.")


class MethodSection(Section):
    """A method, its hyper-parameters, and the models that guide it.

    `weights` is a trained map network: one of ours, or an official checkpoint of IRN, CLIMS, QA-CLIMS, PSA or
    EPS. Training starts from it; a recipe without a section `training` writes its maps as it is.
    """

    name: str
    preset: str | None = None
    weights: str | None = None
    teacher: str = "embedded"
    teacher_precision: Literal["float32", "bfloat16"] = "float32"
    vqa: VqaSection = Field(default_factory=partial(VqaSection.model_validate, {}))
    saliency: SaliencySection = Field(default_factory=partial(SaliencySection.model_validate, {}))
    config: SerializeAsAny[MethodConfig]

    @property
    def cls(self) -> type[Method]:
        """The method's class."""
        return _method_class(self.name)

    @property
    def short_name(self) -> str:
        """The method's name; the file's stem for a method given by path."""
        return _short_name(self.name)

    @property
    def needs(self) -> tuple[str, ...]:
        """Frozen helpers that this configuration requires."""
        return self.cls.needs(self.config)

    @property
    def needs_saliency(self) -> bool:
        """Whether training reads saliency maps."""
        return SALIENCY in self.cls.pixel_inputs(self.config)

    @property
    def num_words(self) -> int:
        """How many visual words the method has; 0: none."""
        return self.cls.num_words(self.config)

    @property
    def supervision(self) -> str:
        """I, I+L or I+S: what this configuration learns from."""
        return self.cls.supervision_of(self.config)


class RefinerSection(Section):
    """A refiner and its hyper-parameters."""

    name: str
    preset: str | None = None
    config: SerializeAsAny[RefinerConfig]

    @property
    def short_name(self) -> str:
        """The refiner's name; the file's stem for a refiner given by path."""
        return _short_name(self.name)


def refined_stages(names: Sequence[str]) -> tuple[str, ...]:
    """What the scores of each step of a chain of refiners are called.

    Example:
        >>> refined_stages(["dense_crf", "irn", "dense_crf"])
        ('refined-dense_crf', 'refined-irn', 'refined-dense_crf-2')
    """
    repeats = [list(names[:place]).count(name) + 1 for place, name in enumerate(names)]
    return tuple(
        f"refined-{name}" + (f"-{repeat}" if repeat > 1 else "")
        for name, repeat in zip(names, repeats, strict=True)
    )


class Initialise(Section):
    """The training whose weights the method starts from."""

    method: MethodSection
    training: TrainingConfig


class TagClassifierSection(Section):
    """The separately trained classifier that judges masked images in place of a language teacher."""

    backbone: str = Field("vgg_small", description="Network of the classifier (the ablation uses VGG).")
    training: TrainingConfig


class PseudoMaskConfig(Section):
    """How maps become pseudo masks."""

    background_score: Literal["automatic"] | float = Field(
        "automatic", description="Score of class 0: a constant, or chosen without any mask."
    )
    background_power: float | None = Field(
        None,
        gt=0,
        description="PSA's background (1 - best score)^power in place of a constant `background_score`.",
    )
    unsure_margin: float = Field(
        0.0, ge=0, le=1, description="Pixels whose two best scores differ by less become 255; 0: none do."
    )

    @model_validator(mode="after")
    def _one_background(self) -> Self:
        if self.background_power is not None and self.background_score != "automatic":
            raise ValueError("`background_score` and `background_power` exclude each other; give one of them")
        return self

    @property
    def is_automatic(self) -> bool:
        """Whether the background score is chosen from maps and images."""
        return self.background_score == "automatic" and self.background_power is None


class EvaluationConfig(Section):
    """How results are scored; only scoring reads masks."""

    fixed_background_score: float = Field(0.15, ge=0, le=1, description="The papers' constant (CLIMS: 0.15).")
    maps_split: str | None = Field(
        None, description="Split whose maps and pseudo masks are scored; none: train."
    )
    also_without: tuple[str, ...] = Field((), description="Classes left out of an additional mIoU, one each.")


class Recipe(Section):
    """A complete experiment; see the fields' own models for all keys."""

    name: str
    about: About = Field(default_factory=partial(About.model_validate, {}))
    data: DataConfig
    method: MethodSection | None = None
    training: TrainingConfig | None = None
    initialise: Initialise | None = None
    tag_classifier: TagClassifierSection | None = None
    train_teacher: TeacherConfig | None = None
    finetune_teacher: FinetuneConfig | None = None
    activation: ExtractConfig = Field(default_factory=partial(ExtractConfig.model_validate, {}))
    refine: tuple[RefinerSection, ...] = ()
    pseudo_masks: PseudoMaskConfig = Field(default_factory=partial(PseudoMaskConfig.model_validate, {}))
    corrections: CorrectionsSection | None = None
    segmentation: SegmentationConfig | None = None
    evaluation: EvaluationConfig = Field(default_factory=partial(EvaluationConfig.model_validate, {}))

    @property
    def maps_split(self) -> str:
        """The split whose maps and pseudo masks are scored."""
        return self.evaluation.maps_split or self.data.train_split

    @property
    def method_name(self) -> str:
        """Name for tables: the method's, or `supervised` where masks are the target."""
        return self.method.short_name if self.method else "supervised"

    @property
    def supervision(self) -> str:
        """F (masks), I (image labels), I+L (and language), I+S (and saliency); an oracle is named.

        I+M(12) and the like: 12 masks that people corrected take part.
        """
        if self.segmentation is not None and self.segmentation.target == "masks":
            return "F"
        assert self.method is not None
        knows_the_truth = "answers" in self.method.needs and self.method.vqa.knows_the_truth
        learned = with_corrections(self.method.supervision, self.corrections)
        return learned + (" (oracle)" if knows_the_truth else "")

    def resolved(self) -> dict[str, Any]:
        """The complete recipe as plain data in the shape of a recipe file."""
        return {key: _plain(getattr(self, key)) for key in type(self).model_fields}

    def to_yaml(self) -> str:
        """The complete recipe as YAML that `load_recipe` reads back."""
        return str(yaml.safe_dump(self.resolved(), sort_keys=False, allow_unicode=True))


def _plain(value: Any) -> Any:
    """Plain data; methods' and refiners' hyper-parameters stand beside their names, as in a file."""
    if isinstance(value, (MethodSection, RefinerSection)):
        own = {key: _plain(getattr(value, key)) for key in type(value).model_fields if key != "config"}
        if isinstance(value, MethodSection) and value.weights is None:
            own.pop("weights")
        if isinstance(value, MethodSection) and "answers" not in value.needs:
            own.pop("vqa")
        if isinstance(value, MethodSection) and not value.needs_saliency:
            own.pop("saliency")
        return {**own, **value.config.model_dump(mode="json")}
    if isinstance(value, Initialise):
        return {"method": _plain(value.method), "training": _plain(value.training)}
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def load_recipe(recipe: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read, override and validate a recipe.

    Args:
        recipe: a file, or the name of a shipped recipe such as `scenes/clims`.
        overrides: `key.key=value` texts, as after `--set`; their mark becomes part of the recipe's name, also
            of one that the file gives, unless one of them sets `name`.

    Raises:
        RecipeError: no such file, an unknown key, or a value out of range.
    """
    path = find_recipe(recipe)
    raw = with_overrides(named(read_yaml(path), path, overrides), overrides, str(recipe))
    return parse_recipe(raw, str(recipe))


def parse_recipe(raw: Mapping[str, Any], source: str) -> Recipe:
    """Validate plain data as a recipe; `source` names its file in messages."""
    known = Recipe.model_fields
    values: dict[str, Any] = {}
    for key, value in raw.items():
        if key not in known:
            raise unknown_key("", str(key), known, source, "Run `wsss show scenes/clims` for an example.")
        if value is None and not known[key].is_required() and known[key].default is None:
            continue
        values[key] = _section(key, value, source)
    if "data" not in values:
        raise RecipeError(
            f"Section `data` is missing in {source}. Say where the images are: `data: {{kind: folder, …}}`."
        )
    recipe = Recipe.model_construct(**values)
    check_whole(recipe, source)
    check_section(recipe, source)
    return recipe


def _section(key: str, value: Any, source: str) -> Any:
    if key == "method":
        return parse_method(value, key, source)
    if key == "refine":
        if not isinstance(value, Sequence) or isinstance(value, str):
            raise RecipeError(
                f"`refine` in {source} must be a list of refiners; got {value!r}. "
                "Write `refine: []` for none."
            )
        return tuple(_parse_refiner(item, f"refine.{index}", source) for index, item in enumerate(value))
    if key == "initialise":
        raw = _mapping(value, key, source)
        for name in raw:
            if name not in Initialise.model_fields:
                raise unknown_key(key, name, Initialise.model_fields, source)
        return Initialise(
            method=parse_method(raw.get("method"), "initialise.method", source),
            training=validated(
                TrainingConfig, raw.get("training", {}), where="initialise.training", source=source
            ),
        )
    model = DataConfig if key == "data" else Recipe.model_fields[key].annotation
    return validated(model, value, where=key, source=source)


def parse_method(raw: Any, where: str, source: str) -> MethodSection:
    """Validate a method section: its preset first, then the recipe's own values."""
    values = dict(_mapping(raw, where, source))
    name = values.pop("name", None)
    if not isinstance(name, str):
        raise RecipeError(f"`{where}.name` is missing in {source}. Run `wsss list methods` for the choices.")
    section: dict[str, Any] = {"name": name, "config": MethodConfig()}
    section |= {
        key: values.pop(key)
        for key in ("preset", "weights", "teacher", "teacher_precision", "vqa", "saliency")
        if key in values
    }
    preset = validated(MethodSection, section, where=where, source=source).preset
    cls = _method_class(name)
    chosen = _preset(cls.presets, preset, f"Method `{name}`", source)
    advice = f"Run `wsss show methods/{name}` for all keys."
    if section.get("weights") and "backbone_weights" in cls.Config.model_fields:
        values["backbone_weights"] = None  # the whole network is given
    config = validated(cls.Config, {**chosen, **values}, where=where, source=source, advice=advice)
    return MethodSection.model_validate({**section, "config": config})


def _preset(
    presets: Mapping[str, Mapping[str, Any]], preset: str | None, owner: str, source: str
) -> Mapping[str, Any]:
    """The values of a preset; none where no preset is named."""
    if preset is not None and preset not in presets:
        raise RecipeError(f"{owner} has no preset `{preset}` ({source}). {nearest(preset, presets)}")
    return presets[preset] if preset else {}


@functools.cache
def _method_class(name: str) -> type[Method]:
    return find_method(name)


def _parse_refiner(raw: Any, where: str, source: str) -> RefinerSection:
    values = dict(_mapping(raw, where, source))
    name = values.pop("name", None)
    if not isinstance(name, str):
        raise RecipeError(f"`{where}.name` is missing in {source}. Run `wsss list refiners` for the choices.")
    section = {"name": name, "preset": values.pop("preset", None), "config": RefinerConfig()}
    preset = validated(RefinerSection, section, where=where, source=source).preset
    cls = find_refiner(name)
    chosen = merged_settings(_preset(cls.presets, preset, f"Refiner `{name}`", source), values)
    advice = f"Run `wsss show refiners/{name}` for all keys."
    config = validated(cls.Config, chosen, where=where, source=source, advice=advice)
    return RefinerSection.model_validate({**section, "config": config})


def _mapping(raw: Any, where: str, source: str) -> Mapping[str, Any]:
    if not isinstance(raw, Mapping):
        raise RecipeError(
            f"`{where}` in {source} must be a section of keys; got {raw!r}. Write `{where}: {{name: …}}`."
        )
    return raw
