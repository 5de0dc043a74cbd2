"""Hyper-parameters of QA-CLIMS: many, because every part of it can be switched."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field, field_validator, model_validator
from typing_extensions import Self

from wsss.errors import RecipeError
from wsss.layers import class_texts
from wsss.layers.class_texts import BackgroundTexts
from wsss.layers.region_contrast import Mixing, PositiveForm
from wsss.layers.statistics import Statistics
from wsss.methods.base import MethodConfig
from wsss.questions.answers import Answers
from wsss.questions.cleaning import CleaningConfig
from wsss.questions.lemmas import lemma
from wsss.questions.questions import check_questions, published_questions
from wsss.questions.texts import TextSources
from wsss.types import ClassInfo


class QaClimsConfig(MethodConfig):
    """Hyper-parameters of QA-CLIMS; defaults as in the authors' code for VOC 2012."""

    backbone: str = Field("resnet50", description="Feature extractor (QA-CLIMS: ResNet-50).")
    backbone_weights: str | None = Field(
        None,
        description="Weights to start from; null: the recipe's `initialise` (QA-CLIMS: CAM), else random.",
    )
    output_stride: int | None = Field(
        None, description="Image size / map size; null: the backbone's own (16)."
    )
    batch_norm: Literal["live", "frozen"] = Field(
        "live", description="Statistics in training (published: live)."
    )
    freeze_until: int | None = Field(
        0, ge=0, description="Last backbone stage without gradient (published: 0, the stem); null: none."
    )
    normalisation: Statistics = Field(
        "imagenet", description="Statistics of the images (published: ImageNet's)."
    )
    head_rate: float = Field(10.0, gt=0, description="Learning rate of the classifier / base rate.")
    frc_weight: float = Field(
        10.0, ge=0, description="Weight alpha of the foreground contrast; 0: off (COCO: 30)."
    )
    brc_weight: float = Field(
        8.0, ge=0, description="Weight beta of the background contrast; 0: off (COCO: 24)."
    )
    reg_weight: float = Field(0.2, ge=0, description="Weight gamma of the area term.")
    temperature: float = Field(0.7, gt=0, description="Temperature tau of both contrasts.")
    brc_positive: PositiveForm = Field(
        "mean_of_exponentials",
        description="BRC's positive term: as in the code, or exponential_of_mean (paper).",
    )
    omega: float | None = Field(
        0.1,
        ge=0,
        le=1,
        description="A pixel is foreground from this share of its map's maximum; null: no cut.",
    )
    mask_mode: Literal["token", "pixel", "both"] | None = Field(
        None, description="What is cut; null: tokens (published) of a mask-adapted teacher, else pixels."
    )
    pair_reduction: Literal["sum", "per_pair"] = Field(
        "sum",
        description="Over pairs in FRC and BRC: sum (published), or mean times `reference_pairs`; "
        "skipped pairs are not counted.",
    )
    reference_pairs: float = Field(
        6.22, gt=0, description="Pairs per batch of VOC (4 images, 1.555 classes each), for `per_pair`."
    )
    texts: Literal["answers", "tags"] = Field(
        "answers",
        description="Texts from answers, or from the data set's scene words (background) and labels.",
    )
    questions: dict[str, tuple[str, ...]] = Field(
        default_factory=published_questions,
        description="Questions by group, each with {} for the class (published: 16 in four groups).",
    )
    foreground: tuple[str, ...] = Field(
        ("fine_grained", "alias"),
        description="Groups whose answers speak of the object; (): the label alone.",
    )
    background: tuple[str, ...] = Field(
        ("object", "scene"), description="Groups whose answers speak of its surroundings."
    )
    empty_background: Literal["skip", "no_class", "listed"] = Field(
        "skip",
        description="A pair without background text: left out (published), given `no {class}`, or the "
        "`background_texts` of its class.",
    )
    background_texts: BackgroundTexts | None = Field(
        None,
        description="For `empty_background: listed`: for all or class by class; null: the data set's.",
    )
    foreground_mixing: Mixing = Field(
        "half", description="Label and answers: half each (code), or the mean of all (paper)."
    )
    foreground_unit_length: bool = Field(
        False, description="Scale the mixed foreground vector to length 1 (published: no)."
    )
    cleaning: CleaningConfig = Field(
        default_factory=CleaningConfig, description="How answers become texts; defaults as published."
    )
    prompts: Literal["voc_qa", "coco_qa"] = Field(
        "voc_qa", description="Published nouns, for data sets of these classes only."
    )
    prompt_template: str | None = Field(
        None,
        pattern=r"^[^{}]*\{\}[^{}]*$",
        description="Text with {} for a name; null: the teacher's, `a photo of {}.` for public CLIP.",
    )
    class_prompts: dict[str, str] = Field(
        {}, description="Noun for a class; else the data set's, the published one, the name, in this order."
    )
    clip_norm: Literal["as_input", "convert"] = Field(
        "as_input", description="Show the teacher pixels in the images' statistics (published) or its own."
    )
    logit_offset: float = Field(0.0, description="p = sigmoid(logit - offset), for saturated classifiers.")
    export: Literal["relu", "sigmoid"] = Field(
        "relu", description="Maps for later stages: relu of the logits (published), or p."
    )

    @field_validator("questions")
    @classmethod
    def _askable(cls, questions: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        check_questions(questions)
        return questions

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not any((self.frc_weight, self.brc_weight, self.reg_weight)):
            raise ValueError("all losses are switched off; give at least one a weight above 0")
        for key in ("foreground", "background"):
            unknown = [name for name in getattr(self, key) if name not in self.questions]
            if unknown and self.texts == "answers":
                raise ValueError(
                    f"`{key}` names the group {unknown[0]}, which `questions` doesn't have; "
                    f"it has {', '.join(self.questions)}"
                )
        if (
            self.contrasts
            and self.empty_background == "skip"
            and self.texts == "answers"
            and not self.background
        ):
            raise ValueError("without `background` every pair is skipped; write `empty_background: no_class`")
        return self

    @property
    def uses_answers(self) -> bool:
        """Whether any text comes from an answer."""
        return self.texts == "answers" and bool((*self.foreground, *self.background))

    @property
    def wants_token_masks(self) -> bool:
        """Whether the recipe asks for masks that only a mask-adapted teacher understands."""
        return self.omega is not None and self.mask_mode in ("token", "both")

    @property
    def contrasts(self) -> dict[str, float]:
        """The teacher's terms that are on, and their weights."""
        weights = {"FRC": self.frc_weight, "BRC": self.brc_weight}
        return {name: weight for name, weight in weights.items() if weight}

    def text_sources(self, answers: Answers | None) -> TextSources:
        """Where texts come from and how they are chosen."""
        return TextSources(
            answers=answers,
            from_tags=self.texts == "tags",
            questions=self.questions,
            foreground=self.foreground,
            background=self.background,
            nouns=self.class_prompts,
            no_class=self.empty_background == "no_class",
            listed=self.background_texts or () if self.empty_background == "listed" else (),
            cleaning=self.cleaning,
        )

    def check_installation(self) -> None:
        """WordNet, where it is to find the singulars.

        Raises:
            StageError: the package nltk or its corpus is missing.
        """
        lemma("dogs", self.cleaning.lemmatiser)

    def with_class_texts(self, classes: Sequence[ClassInfo]) -> Self:
        """Complete nouns and listed backgrounds; what the recipe says comes first.

        Raises:
            RecipeError: a mapping names an unknown class, or a list that is asked for is not there.
        """
        published = class_texts.published_texts(self.prompts)
        nouns = class_texts.class_prompts(classes, self.class_prompts, published)
        listed = class_texts.background_texts(classes, self.background_texts, published)
        if self.empty_background == "listed" and not listed:
            raise RecipeError(
                "`empty_background: listed` needs `background_texts`; got none. "
                "Write them into the recipe or the data set's classes file."
            )
        return self.model_copy(update={"class_prompts": nouns, "background_texts": listed})
