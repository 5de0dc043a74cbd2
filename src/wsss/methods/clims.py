r"""CLIMS: an image-text model judges what the activation maps cut out of the image.

For each pair of an image x and a class k that it shows, with the map $p_k = \sigma(w_k^\top z)$, the class's
text $t_k$, texts $b_l$ of backgrounds, and cosines s of a frozen image-text model:

$$ L_{OTM} = -\log s(x p_k, t_k) \qquad L_{BTM} = -\log(1 - s(x (1 - p_k), t_k)) $$
$$ L_{CBS} = -\sum_l [s_l > \tau] \log(1 - s_l), \; s_l = s(x p_k, b_l) \qquad L_{REG} = \mathrm{mean}\,p $$

OTM makes the map hold the object, BTM leaves none of it outside, CBS drives out backgrounds that occur with
the class, and REG keeps the map small. OTM and BTM are means over pairs, CBS is a sum over pairs and texts,
REG is a mean over all K maps; the loss is their weighted sum. There is no classification term: channels of
absent classes learn nothing, and maps mean something for an image's own classes only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn
from typing_extensions import Self

from wsss.errors import RecipeError
from wsss.layers import class_texts
from wsss.layers import text_matching as matching
from wsss.layers.bottleneck_head import INITIAL_STD, BottleneckHead
from wsss.layers.cam_backbone import cam_backbone, freeze_batch_norm_affine
from wsss.layers.class_texts import BackgroundTexts
from wsss.layers.pair_count import mean_over_pairs, sum_over_pairs, total_pairs
from wsss.layers.statistics import STATISTICS, Statistics
from wsss.layers.text_matching import Pairs
from wsss.layers.text_tables import TextTables
from wsss.methods.base import Frozen, Method, MethodConfig
from wsss.types import Batch, ClassInfo, Paper

CAMERA_READY: dict[str, Any] = {  # what the paper and the camera-ready code share
    "prompt_template": "a photo of {}",
    "normalisation": "clip",
    "freeze_until": None,
    "head_rate": 1.0,
    "btm_weight": 25.0,
    "cbs_weight": 29.5,
    "reg_weight": 1.15,
    "cbs_threshold": None,
    "cbs_texts_reduction": "mean",
    "similarity": "raw",
}


class ClimsConfig(MethodConfig):
    """Hyper-parameters of CLIMS; defaults as in the authors' improved code for VOC 2012."""

    backbone: str = Field("resnet50", description="Feature extractor (CLIMS: ResNet-50).")
    backbone_weights: str | None = Field(
        None, description="Weights to start from; null: the recipe's `initialise` (CLIMS: CAM), else random."
    )
    output_stride: int | None = Field(
        None, description="Image size / map size; null: the backbone's own (16)."
    )
    batch_norm: Literal["live", "frozen"] = Field("live", description="Statistics in training (CLIMS: live).")
    freeze_until: int | None = Field(
        0, ge=0, description="Last backbone stage without gradient (improved: 0, the stem); null: none."
    )
    train_batch_norm: bool = Field(
        True, description="Train scale and shift of batch norms (improved: yes; camera-ready: no)."
    )
    normalisation: Statistics = Field(
        "imagenet", description="Statistics of the images (improved: ImageNet's; camera-ready: CLIP's)."
    )
    head: Literal["classifier", "bottleneck"] = Field(
        "classifier", description="1x1 convolution (improved), or a residual block before it (camera-ready)."
    )
    head_rate: float = Field(
        10.0, gt=0, description="Learning rate of the head / base rate (camera-ready: 1)."
    )
    otm_weight: float = Field(10.0, ge=0, description="Weight of object-text matching; 0: not computed.")
    btm_weight: float = Field(24.0, ge=0, description="Weight of background-text matching (paper: 25).")
    cbs_weight: float = Field(1.0, ge=0, description="Weight of background suppression (paper: 29.5).")
    reg_weight: float = Field(0.2, ge=0, description="Weight of the area term (paper: 1.15).")
    cbs_threshold: float | None = Field(
        0.26, ge=-1, le=1, description="Cosines up to this cost nothing in CBS; null: all do (paper)."
    )
    cbs_texts_reduction: Literal["sum", "mean"] = Field(
        "sum", description="Over a pair's background texts in CBS (improved: sum; paper: mean)."
    )
    cbs_reduction: Literal["sum", "per_pair"] = Field(
        "sum", description="Over pairs in CBS: sum (published), or mean times `reference_pairs`."
    )
    reference_pairs: float = Field(
        24.9, gt=0, description="Pairs per batch of VOC (16 images, 1.555 classes each), for `per_pair`."
    )
    class_weights: dict[str, float] | None = Field(
        None, description="Weight of a class's pairs in OTM and BTM, else 1; null: those of `texts`."
    )
    evaluator: Literal["teacher", "tag_classifier"] = Field(
        "teacher", description="Who judges regions; a classifier's loss replaces OTM, BTM, CBS (table 3)."
    )
    cls_weight: float = Field(
        10.0, ge=0, description="Weight of the tag classifier's loss (not in the paper; as OTM)."
    )
    texts: Literal["voc_improved", "coco_improved", "voc_camera_ready", "voc_paper"] = Field(
        "voc_improved", description="Published prompts and backgrounds, for data sets of these classes only."
    )
    prompt_template: str | None = Field(
        None,
        pattern=r"^[^{}]*\{\}[^{}]*$",
        description="Text with {} for a name; null: the teacher's, `a photo of {}.` for public CLIP.",
    )
    class_prompts: dict[str, str] = Field(
        {}, description="Noun for a class; else the data set's, the published one, the name, in this order."
    )
    background_texts: BackgroundTexts | None = Field(
        None, description="For all classes, or class by class; null: the data set's, else the published."
    )
    similarity: matching.Mapping = Field(
        "clamp",
        description="Before the logarithm: clamp (improved), raw (camera-ready); for teachers with negative "
        "cosines shifted, (s + 1) / 2, or tangent.",
    )
    clip_norm: Literal["as_input", "convert"] = Field(
        "as_input", description="Show the teacher pixels in the images' statistics (published) or its own."
    )
    logit_offset: float = Field(0.0, description="p = sigmoid(logit - offset), for saturated classifiers.")
    export: Literal["relu", "sigmoid"] = Field(
        "relu", description="Maps for later stages: relu of the logits (published), or p."
    )

    @model_validator(mode="after")
    def _some_loss_is_on(self) -> Self:
        judged = (self.otm_weight, self.btm_weight, self.cbs_weight)
        weights = judged if self.evaluator == "teacher" else (self.cls_weight,)
        if not any((*weights, self.reg_weight)):
            raise ValueError("all losses are switched off; give at least one a weight above 0")
        return self

    @property
    def uses_backgrounds(self) -> bool:
        """Whether background texts are needed."""
        return self.evaluator == "teacher" and self.cbs_weight > 0

    def with_class_texts(self, classes: Sequence[ClassInfo]) -> Self:
        """Complete prompts, background texts and class weights; what the recipe says comes first.

        Then comes what the data set says of its classes, then what was published, where the publication
        knows all of these classes.

        Raises:
            RecipeError: a mapping names an unknown class, or CBS is on and no background is known.
        """
        names = [info.name for info in classes]
        published = class_texts.published_texts(self.texts)
        backgrounds = class_texts.background_texts(classes, self.background_texts, published)
        if self.uses_backgrounds and not backgrounds:
            raise RecipeError(
                f"CBS needs names of backgrounds that occur with {', '.join(names[:5])}; got none. Write "
                "`background_texts` into the recipe or the data set's classes file, or set `cbs_weight: 0`."
            )
        if self.class_weights is None:
            weights = class_texts.restricted(published.class_weights, names) if published.fit(names) else {}
        else:
            weights = class_texts.of_classes(self.class_weights, names, "class_weights")
        prompts = class_texts.class_prompts(classes, self.class_prompts, published)
        return self.model_copy(
            update={"class_prompts": prompts, "background_texts": backgrounds, "class_weights": weights}
        )


class Clims(Method):
    """Cross language image matching.

    Each step shows every (image, class) pair to the teacher twice, inside and outside its map, in one call.
    Texts are encoded once, when first needed. The teacher's weights never get a gradient.

    Args:
        config: hyper-parameters.
        class_names: K + 1 names, the first "background".
        frozen: `teacher`, or `tag_classifier` with `evaluator: tag_classifier`; only `losses` needs them.

    Source:
        Xie et al., CVPR 2022, equations 3-13, https://arxiv.org/abs/2203.02668, and both published versions
        of its code. Defaults are the improved version's; preset `camera_ready` is the other.
        Differs: cosines and losses are float32 (float16 there); 1 - s is kept above 1e-4 in CBS; with `raw`,
        cosines below 1e-4 have no gradient in OTM (NaN there). The tag classifier as evaluator judges the
        inside of map k by -log sigmoid of logit k: the paper leaves open the loss, its weight, and what the
        classifier was trained on. Preset `paper` reduces over pairs and images as the code does.
    """

    paper = Paper(
        title="CLIMS: Cross Language Image Matching for Weakly Supervised Semantic Segmentation",
        venue="CVPR",
        year=2022,
        url="https://arxiv.org/abs/2203.02668",
        code="https://github.com/CVI-SZU/CLIMS",
    )
    Config = ClimsConfig
    supervision = "I+L"
    export_fields = frozenset({"export"})
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "improved": {"prompt_template": "a photo of {}."},
        "improved_coco": {
            "prompt_template": "a photo of {}.",
            "texts": "coco_improved",
            "otm_weight": 2.0,
            "btm_weight": 14.0,
            "cbs_weight": 1.25,
            "cbs_threshold": 0.285,
        },
        "camera_ready": {
            **CAMERA_READY,
            "texts": "voc_camera_ready",
            "head": "bottleneck",
            "train_batch_norm": False,
        },
        "paper": {**CAMERA_READY, "texts": "voc_paper"},
    }
    config: ClimsConfig
    pair_weights: Tensor

    def __init__(self, config: ClimsConfig, class_names: Sequence[str], frozen: Frozen) -> None:
        config = config.with_class_texts([ClassInfo(name) for name in class_names[1:]])
        super().__init__(config, class_names, frozen)
        self.mean, self.std = STATISTICS[config.normalisation]
        self.backbone = cam_backbone(config)
        channels, outputs = self.backbone.out_channels, self.num_foreground
        self.head: nn.Module = nn.Identity()
        if config.head == "bottleneck":
            self.head = BottleneckHead(channels)
            outputs += 1  # channel 0 is in no loss and no map
        self.classifier = nn.Conv2d(channels, outputs, kernel_size=1, bias=False)
        if config.head == "bottleneck":
            nn.init.normal_(self.classifier.weight, std=INITIAL_STD)
        if not config.train_batch_norm:
            freeze_batch_norm_affine(self)
        self._add_texts()

    @classmethod
    def needs(cls, config: ClimsConfig) -> tuple[str, ...]:
        """The teacher or the tag classifier: whoever judges the regions."""
        return (config.evaluator,)

    @classmethod
    def supervision_of(cls, config: ClimsConfig) -> str:
        """Image labels and language; a tag classifier as the judge knows no language."""
        return "I" if config.evaluator == "tag_classifier" else cls.supervision

    def initialise(self, state: Mapping[str, Tensor]) -> None:
        """Start from a CAM: the whole network, or its backbone where the head is another (camera-ready)."""
        if self.config.head == "bottleneck":
            own = {n: value for n, value in self.state_dict().items() if not n.startswith("backbone.")}
            state = own | {n: value for n, value in state.items() if n.startswith("backbone.")}
        super().initialise(state)

    def parameter_groups(self, base_lr: float) -> list[dict[str, Any]]:
        """Backbone at the base rate, head at `head_rate` times it; what doesn't train is in no group."""
        backbone = [p for p in self.backbone.parameters() if p.requires_grad]
        head = [p for part in (self.head, self.classifier) for p in part.parameters() if p.requires_grad]
        rates = (base_lr, base_lr * self.config.head_rate)
        return [{"params": params, "lr": lr} for params, lr in zip((backbone, head), rates, strict=True)]

    def class_logits(self, images: Tensor) -> Tensor:
        """Raw class logits (B, K, h, w) of normalised images (B, 3, H, W)."""
        logits: Tensor = self.classifier(self.head(self.backbone(images)))
        return logits[:, -self.num_foreground :]

    def cams(self, images: Tensor) -> Tensor:
        """Relu of the logits, or the sigmoid maps that training saw; (B, K, h, w)."""
        logits = self.class_logits(images)
        return F.relu(logits) if self.config.export == "relu" else self._probabilities(logits)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """OTM, BTM, CBS (or CLS) and REG, as far as their weights are above 0.

        In a batch without any label all but REG are 0, and stay in the graph.
        """
        maps = self._probabilities(self.class_logits(batch.images))  # (B, K, h, w)
        pairs = matching.positive_pairs(batch.image_labels)
        total = total_pairs(len(pairs), maps.device)  # every process counts, one without pairs too
        weights = self._weights()
        if not len(pairs):
            losses = {name: 0 * maps.sum() for name in weights}
        elif not weights:
            losses = {}
        elif self.config.evaluator == "teacher":
            losses = self._matching(batch.images, maps, pairs, weights, total)
        else:
            losses = self._classification(batch.images, maps, pairs, total)
        if self.config.reg_weight:
            losses["REG"] = self.config.reg_weight * maps.mean()
        return losses

    def background_suppression(
        self, similarity: Tensor, column: Tensor, total: Tensor | None = None
    ) -> Tensor:
        """CBS without its weight.

        Args:
            similarity: cosines of the insides of P maps with all background texts; (P, T).
            column: class of each pair, 0…K-1; (P,).
            total: pairs of all processes; None: these are all.
        """
        config, listed = self.config, self.tables.listed[column]  # (P, T)
        costs = listed
        if config.cbs_threshold is not None:
            costs = listed & (similarity.detach() > config.cbs_threshold)
        mapping = "raw" if config.similarity == "clamp" else config.similarity  # neither code clamps in CBS
        penalty = torch.where(costs, matching.repulsion(similarity, mapping), 0.0).sum(dim=1)
        if config.cbs_texts_reduction == "mean":
            penalty = penalty / listed.sum(dim=1).clamp(min=1)
        if config.cbs_reduction == "per_pair":
            return mean_over_pairs(penalty, total) * config.reference_pairs
        return sum_over_pairs(penalty)

    def _probabilities(self, logits: Tensor) -> Tensor:
        return torch.sigmoid(logits.float() - self.config.logit_offset)

    def _weights(self) -> dict[str, float]:
        """The evaluator's terms that are on."""
        config = self.config
        weights = {"OTM": config.otm_weight, "BTM": config.btm_weight, "CBS": config.cbs_weight}
        if config.evaluator == "tag_classifier":
            weights = {"CLS": config.cls_weight}
        return {name: weight for name, weight in weights.items() if weight}

    def _matching(
        self, images: Tensor, maps: Tensor, pairs: Pairs, weights: Mapping[str, float], total: Tensor
    ) -> dict[str, Tensor]:
        """The teacher's terms; `total` is the number of pairs of all processes."""
        teacher = self.frozen.teacher
        if teacher is None:
            raise RecipeError("CLIMS trains with an image-text teacher; pass `Frozen(teacher=...)`.")
        size = (teacher.image_size, teacher.image_size)
        pixels = matching.resized_with_corners(images.float(), size)
        if self.config.clip_norm == "convert":
            pixels = matching.renormalised(pixels, (self.mean, self.std), (teacher.mean, teacher.std))
        pixels = pixels[pairs.image]  # (P, 3, S, S)
        pair_maps = matching.resized_with_corners(matching.of_pairs(maps, pairs), size)  # (P, 1, S, S)
        regions = {}
        if "OTM" in weights or "CBS" in weights:
            regions["inside"] = matching.region_images(pixels, pair_maps)
        if "BTM" in weights:
            regions["outside"] = matching.region_images(pixels, 1 - pair_maps)
        features = teacher.encode_images(torch.cat(list(regions.values())))  # (2P, E)
        with matching.full_precision(features.device):
            units = torch.split(matching.unit(features), len(pairs))
            seen = dict(zip(regions, units, strict=True))
            return self._terms(seen, pairs, weights, total)

    def _terms(
        self, seen: Mapping[str, Tensor], pairs: Pairs, weights: Mapping[str, float], total: Tensor
    ) -> dict[str, Tensor]:
        """Weighted terms from unit features (P, E) of the regions `inside` and `outside`."""
        assert self.frozen.teacher is not None
        classes, backgrounds = self.tables.features(self.frozen.teacher)
        texts, of_class = classes[pairs.column], self.pair_weights[pairs.column]  # (P, E), (P,)
        mapping, losses = self.config.similarity, {}
        if "OTM" in weights:
            similarity = (seen["inside"] * texts).sum(dim=1)
            costs = of_class * matching.attraction(similarity, mapping)
            losses["OTM"] = weights["OTM"] * mean_over_pairs(costs, total)
        if "BTM" in weights:
            similarity = (seen["outside"] * texts).sum(dim=1)
            costs = of_class * matching.repulsion(similarity, mapping)
            losses["BTM"] = weights["BTM"] * mean_over_pairs(costs, total)
        if "CBS" in weights:
            similarity = seen["inside"] @ backgrounds.T  # (P, T)
            losses["CBS"] = weights["CBS"] * self.background_suppression(similarity, pairs.column, total)
        return losses

    def _classification(self, images: Tensor, maps: Tensor, pairs: Pairs, total: Tensor) -> dict[str, Tensor]:
        """The tag classifier's term: the inside of the map of class k must look like class k."""
        classifier = self.frozen.tag_classifier
        if classifier is None:
            raise RecipeError("This CLIMS trains with a tag classifier; pass `Frozen(tag_classifier=...)`.")
        size = (images.shape[2], images.shape[3])
        pair_maps = matching.resized_with_corners(matching.of_pairs(maps, pairs), size)
        logits = classifier(matching.region_images(images.float()[pairs.image], pair_maps))  # (P, K)
        with matching.full_precision(logits.device):
            of_class = logits.float().gather(1, pairs.column[:, None])
            return {"CLS": self.config.cls_weight * -mean_over_pairs(F.logsigmoid(of_class), total)}

    def _add_texts(self) -> None:
        """Constants that depend on the classes' texts; in no `state_dict`."""
        config, names = self.config, self.class_names[1:]
        weights, given = config.class_weights or {}, config.background_texts or ()
        lists = [given.get(name, ()) if isinstance(given, dict) else given for name in names]
        if not config.uses_backgrounds:
            lists = [()] * len(names)
        self.tables = TextTables([config.class_prompts[n] for n in names], lists, config.prompt_template)
        pair_weights = torch.tensor([weights.get(name, 1.0) for name in names])
        self.register_buffer("pair_weights", pair_weights, persistent=False)
