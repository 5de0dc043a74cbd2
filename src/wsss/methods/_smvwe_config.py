"""Hyper-parameters of SMVWE, and of the methods that it joins: EPS, VWE and VWL."""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import Field, model_validator
from typing_extensions import Self

from wsss.layers.saliency_feedback import Denominator, FeedbackRule
from wsss.layers.statistics import Statistics
from wsss.layers.visual_words import Histogram, Metric, Sign, Start
from wsss.methods.base import MethodConfig

WITHOUT_WORDS: Final[dict[str, Any]] = {"words_weight": 0.0, "words_to_image_weight": 0.0}
VWE: Final[dict[str, Any]] = {  # network and settings of IRN's CAM, no saliency
    "backbone": "resnet50",
    "backbone_weights": "resnet50",
    "freeze_until": 2,
    "train_batch_norm": True,
    "saliency_weight": 0.0,
    "metric": "cosine",
    "histogram": "sum",
    "pooling": "hybrid",
}
PRESETS: Final[dict[str, dict[str, Any]]] = {
    "rec": {},
    "coco": {"mu": 0.1},
    "paper": {  # as printed: the farthest word, no division guard, no class term, F_bg of classes alone
        "classification_weight": 0.0,
        "sign": "paper",
        "normalise": False,
        "histogram": "mean",
        "denominator": "paper",
        "with_background": False,
    },
    "eps": WITHOUT_WORDS,
    "eps_coco": {**WITHOUT_WORDS, "mu": 0.1},
    "vwe": VWE,
    "vwl": {**VWE, "decorrelation_weight": 1.0},
    "vwl_memory": {
        **VWE,
        "freeze_until": 0,
        "codebook": "memory",
        "start": "sampled",
        "words_to_image_weight": 0.0,
    },
}


class SmvweConfig(MethodConfig):
    """Hyper-parameters of SMVWE; where the paper is silent or contradicts itself, the code of EPS and VWE."""

    backbone: str = Field("wide_resnet38", description="Feature extractor (SMVWE, EPS: ResNet38).")
    backbone_weights: str | None = Field(
        None,
        description="Weights to start from, for ResNet38 a file with PSA's names (published: ImageNet); "
        "null: the recipe's `initialise`, else random.",
    )
    output_stride: int | None = Field(
        None, description="Image size / map size; null: the backbone's own (ResNet38: 8)."
    )
    batch_norm: Literal["live", "frozen"] = Field(
        "frozen", description="Frozen: running statistics, never moved (EPS). From random weights: live."
    )
    freeze_until: int | None = Field(
        1, ge=0, description="Last backbone stage without gradient, 0 is the stem (EPS: 1); null: none."
    )
    train_batch_norm: bool = Field(
        False, description="Train scale and shift of batch norms (EPS: no; VWE: yes)."
    )
    normalisation: Statistics = Field("imagenet", description="Statistics of the images (EPS: ImageNet's).")
    head_rate: float = Field(
        10.0, gt=0, description="Learning rate of everything but the backbone / base rate (EPS, VWE: 10)."
    )
    classification_weight: float = Field(
        1.0,
        ge=0,
        description="Weight of the tags' loss on the class channels (EPS, VWE: 1; the paper: none).",
    )
    words_weight: float = Field(1.0, ge=0, description="Weight of predicting an image's words; 0: off.")
    words_to_image_weight: float = Field(
        1.0, ge=0, description="Weight of predicting tags from the word histogram; 0: off."
    )
    saliency_weight: float = Field(
        1.0, ge=0, description="Weight of the saliency feedback; 0: off, no saliency is read (VWE)."
    )
    decorrelation_weight: float = Field(
        0.0, ge=0, description="Weight of the penalty on words that resemble each other (VWL: 1)."
    )
    num_words: int = Field(256, ge=2, le=65536, description="Words in the codebook (SMVWE, VWE: 256).")
    codebook: Literal["learned", "memory"] = Field(
        "learned", description="Learned by gradients, or a moving average of features (VWL's memory bank)."
    )
    start: Start = Field(
        "kaiming", description="First codebook: random (VWE), or features sampled from the first batch."
    )
    memory_rate: float = Field(
        1e-3, gt=0, le=1, description="Share of each batch in the moving average (VWL: 1e-3)."
    )
    metric: Metric = Field("l1", description="Word scores: negated L1 distance (SMVWE), or cosine (VWE).")
    normalise: bool = Field(
        True, description="Scale features and words to unit length before L1 distances (the paper: no)."
    )
    temperature: float = Field(1.0, gt=0, description="Divides word scores before the softmax (VWE: 1).")
    detach_features: bool = Field(
        True, description="Keep the words' histogram from training the backbone (VWE: yes)."
    )
    sign: Sign = Field(
        "nearest", description="Nearest word, or paper: the softmax of +distance, the farthest word."
    )
    histogram: Histogram = Field(
        "scaled_mean", description="Over cells: mean times `num_words`, mean (the paper), sum (VWE)."
    )
    pooling: Literal["mean", "hybrid"] = Field(
        "mean", description="Pooling before the class channels in training: mean (EPS), hybrid (VWE)."
    )
    delta: float = Field(
        0.4, ge=0, le=1, description="A class whose overlap with saliency is not over this is background."
    )
    mu: float = Field(
        0.5, ge=0, le=1, description="Share of the inverted background map (EPS: 0.5 for VOC, 0.1 for COCO)."
    )
    denominator: Denominator = Field(
        "eps", description="Of the overlap: eps adds 1e-4 for every cell (EPS); paper does not."
    )
    with_background: bool = Field(
        True, description="Count the background's own channel to the background (EPS: yes; the paper: no)."
    )
    export: Literal["softmax", "relu"] | None = Field(
        None,
        description="Maps for later stages: softmax over classes and background (EPS), or relu of the logits "
        "(VWE); null: softmax with saliency, relu without.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        terms = (self.classification_weight, self.saliency_weight)
        if not any((*terms, self.words_weight, self.words_to_image_weight)):
            raise ValueError("all losses are switched off; give at least one a weight above 0")
        if not any(terms):
            raise ValueError("no loss reaches the maps; give `classification_weight` or `saliency_weight`")
        if self.decorrelation_weight and (self.codebook == "memory" or not self.has_words):
            raise ValueError("`decorrelation_weight` needs words whose codebook is learned")
        if self.sign == "paper" and self.metric == "cosine":
            raise ValueError("`sign: paper` turns distances round; with `metric: cosine` write `nearest`")
        if self.export == "softmax" and not self.saliency_weight:
            raise ValueError("`export: softmax` needs `saliency_weight`: else nothing trains a background")
        return self

    @property
    def has_words(self) -> bool:
        """Whether there is a codebook."""
        return bool(self.words_weight or self.words_to_image_weight)

    @property
    def learns_codebook(self) -> bool:
        """Whether some loss moves the codebook: the words' own loss does not, as its labels are an argmax."""
        return self.codebook == "learned" and bool(self.words_to_image_weight or self.decorrelation_weight)

    @property
    def feedback_rule(self) -> FeedbackRule:
        """How class maps are held against saliency."""
        return FeedbackRule(self.delta, self.mu, self.denominator, self.with_background)
