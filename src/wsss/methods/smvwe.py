r"""SMVWE: visual words and saliency maps teach a classifier to cover whole objects and stop at their edges.

On features M of one backbone sit L + 1 localisation channels A (L = K classes, then the background) and a
codebook of W visual words. With image labels z, words z_word that occur in the image, their histogram e_word
(all in `layers.visual_words`) and a saliency map S:

$$ L = \ell(\mathrm{mean} A_{1..L}, z) + \ell(w_{word}^\top \mathrm{mean} M, z_{word})
     + \ell(w_{w2i}^\top e_{word}, z) + \mathrm{mean} (S - F_s)^2 $$

where l is the multi-label soft margin, a mean over its own labels, and F_s is what softmax(A) makes of the
saliency (`layers.saliency_feedback`). Naming an image's words takes features from everywhere on an object,
which spreads its map; the saliency cuts off what occurs with it.

Terms are `classification`, `words`, `words_to_image`, `saliency` and, for VWL, `decorrelation`; a weight of 0
switches one off together with its layers. Without words the method is EPS, without saliency it is VWE, with L
channels. Saliency comes from a detector that was trained on pixel masks of other images: I+S, never I alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsss.errors import RecipeError, ShapeError
from wsss.layers.cam_backbone import cam_backbone, freeze_batch_norm_affine
from wsss.layers.pooling import hybrid_pyramid_pooling
from wsss.layers.saliency_feedback import saliency_loss, saliency_of_cells
from wsss.layers.statistics import STATISTICS
from wsss.layers.text_matching import full_precision
from wsss.layers.visual_words import VisualWords, decorrelation
from wsss.methods._smvwe_config import PRESETS, SmvweConfig
from wsss.methods.base import Frozen, Method
from wsss.types import Batch, Paper

SALIENCY = "saliency"


class Smvwe(Method):
    """Saliency map and visual word encoder, and with parts switched off EPS, VWE and VWL.

    Training reads `saliency` from `Batch.aligned`, (B, H, W) in [0, 1] and 0 in padding, unless its weight is
    0; maps need none.

    Args:
        config: hyper-parameters.
        class_names: K + 1 names, the first "background".
        frozen: nothing is needed.

    Source:
        Guo et al., ECML PKDD 2022, equations 1-10; it has no public code. EPS: Lee et al., CVPR 2021, and its
        code. VWE and VWL: Ru et al., IJCAI 2021 and IJCV 2022, and their code.
        Differs: words are the nearest ones, at unit length; the soft margin has its minus sign and its own
        number of labels; class channels are trained on the tags; the background channel counts to the
        background, as in EPS. Preset `paper` takes the equations as printed, but for the sign of equation 8
        and its number of labels (L, for words too); features are detached from their words, which the paper
        leaves open. Saliency is resized with the images bilinearly (EPS: bicubically).
        What the paper leaves open (delta, mu, rates, maps) is as in EPS. VWE takes the maximum of an image's
        maps and its mirror image's; here the extraction adds them up.
    """

    paper = Paper(
        title="Charge Own Job: Saliency Map and Visual Word Encoder for Image-Level Semantic Segmentation",
        venue="ECML PKDD",
        year=2022,
        url="https://doi.org/10.1007/978-3-031-26409-2_33",
    )
    Config = SmvweConfig
    supervision = "I+S"
    export_fields = frozenset({"export"})
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = PRESETS
    config: SmvweConfig

    def __init__(self, config: SmvweConfig, class_names: Sequence[str], frozen: Frozen) -> None:
        super().__init__(config, class_names, frozen)
        self.mean, self.std = STATISTICS[config.normalisation]
        self.backbone = cam_backbone(config)
        channels, classes = self.backbone.out_channels, self.num_foreground
        outputs = classes + 1 if config.saliency_weight else classes
        self.classifier = nn.Conv2d(channels, outputs, kernel_size=1, bias=False)
        nn.init.xavier_uniform_(self.classifier.weight)
        self.words: VisualWords | None = None
        self.word_classifier: nn.Conv2d | None = None
        self.words_to_image: nn.Conv2d | None = None
        if config.has_words:
            self.words = _codebook(config, channels)
        if config.words_weight:
            self.word_classifier = nn.Conv2d(channels, config.num_words, kernel_size=1, bias=False)
        if config.words_to_image_weight:
            self.words_to_image = nn.Conv2d(config.num_words, classes, kernel_size=1, bias=False)
        if not config.train_batch_norm:
            freeze_batch_norm_affine(self)

    @classmethod
    def pixel_inputs(cls, config: SmvweConfig) -> tuple[str, ...]:
        """Saliency, unless its weight is 0."""
        return (SALIENCY,) if config.saliency_weight else ()

    @classmethod
    def num_words(cls, config: SmvweConfig) -> int:
        """W; 0 where no weights lead from words to classes."""
        return config.num_words if config.words_to_image_weight else 0

    @classmethod
    def supervision_of(cls, config: SmvweConfig) -> str:
        """Image labels, and saliency unless its weight is 0."""
        return cls.supervision if config.saliency_weight else "I"

    def initialise(self, state: Mapping[str, Tensor]) -> None:
        """Start from weights of its own kind, or from a CAM: its backbone and its class channels.

        What the start lacks of words and background stays as it is.

        Raises:
            WeightsError: something in `state` does not fit, or the backbone is not whole.
        """
        own, taken = self.state_dict(), dict(state)
        head, ours = taken.get("classifier.weight"), own["classifier.weight"].clone()
        if head is not None and head.shape == ours[: self.num_foreground].shape:
            ours[: self.num_foreground] = head
            taken["classifier.weight"] = ours
        kept = {name: value for name, value in own.items() if not name.startswith("backbone.")}
        super().initialise({**kept, **taken})

    def parameter_groups(self, base_lr: float) -> list[dict[str, Any]]:
        """Backbone at the base rate, all else (the codebook too) at `head_rate` times it.

        Biases of convolutions have twice the rate and no weight decay (PSA, EPS); ResNets have none.
        """
        convolutions = (module for module in self.modules() if isinstance(module, nn.Conv2d))
        biases = {id(module.bias) for module in convolutions if module.bias is not None}
        trained = {name: value for name, value in self.named_parameters() if value.requires_grad}
        groups = []
        for in_backbone, lr in ((True, base_lr), (False, base_lr * self.config.head_rate)):
            own = [value for name, value in trained.items() if name.startswith("backbone.") == in_backbone]
            groups.append({"params": [value for value in own if id(value) not in biases], "lr": lr})
            shifts = [value for value in own if id(value) in biases]
            if shifts:
                groups.append({"params": shifts, "lr": 2 * lr, "weight_decay": 0.0})
        return groups

    def class_logits(self, images: Tensor) -> Tensor:
        """Localisation logits A (B, L, h, w), or (B, L + 1, h, w) with the background last."""
        logits: Tensor = self.classifier(self.backbone(images))
        return logits

    def cams(self, images: Tensor) -> Tensor:
        """Softmax over classes and background, or relu of the logits; the K classes, (B, K, h, w)."""
        logits = self.class_logits(images)
        by_default = "softmax" if self.config.saliency_weight else "relu"
        if (self.config.export or by_default) == "relu":
            return F.relu(logits[:, : self.num_foreground])
        return logits.float().softmax(dim=1)[:, : self.num_foreground]

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The terms whose weights are above 0.

        Raises:
            ShapeError: saliency is needed and missing, or of another size than the images.
        """
        config = self.config
        features = self.backbone(batch.images)  # (B, D, h, w)
        losses: dict[str, Tensor] = {}
        if config.classification_weight:
            logits = self.classifier(self._pooled(features))[:, : self.num_foreground, 0, 0]  # (B, K)
            losses["classification"] = config.classification_weight * _soft_margin(logits, batch.image_labels)
        losses |= self._word_losses(features, batch.image_labels)
        if config.saliency_weight:
            losses[SALIENCY] = config.saliency_weight * self._saliency_loss(features, batch)
        return losses

    def _pooled(self, features: Tensor) -> Tensor:
        """What the class channels see of the whole image in training; (B, D, 1, 1)."""
        if self.config.pooling == "hybrid":
            return hybrid_pyramid_pooling(features)[:, :, None, None]
        return features.mean(dim=(2, 3), keepdim=True)

    def _word_losses(self, features: Tensor, image_labels: Tensor) -> dict[str, Tensor]:
        config, losses = self.config, {}
        if self.words is None:
            return {}
        found = self.words(features)
        if self.word_classifier is not None:
            logits = self.word_classifier(features.mean(dim=(2, 3), keepdim=True))[:, :, 0, 0]  # (B, W)
            losses["words"] = config.words_weight * _soft_margin(logits, found.image_labels)
        if self.words_to_image is not None:
            with full_precision(features.device):
                logits = self.words_to_image(found.histogram[:, :, None, None])[:, :, 0, 0]  # (B, K)
            losses["words_to_image"] = config.words_to_image_weight * _soft_margin(logits, image_labels)
        if config.decorrelation_weight:
            losses["decorrelation"] = config.decorrelation_weight * decorrelation(self.words.codebook)
        return losses

    def _saliency_loss(self, features: Tensor, batch: Batch) -> Tensor:
        saliency, size = batch.aligned.get(SALIENCY), batch.valid.shape
        if saliency is None or saliency.shape != size:
            got = "none" if saliency is None else str(tuple(saliency.shape))
            raise ShapeError(
                f"`batch.aligned` must hold `saliency` of shape {tuple(size)}, like the images; got {got}. "
                "Give the recipe saliency maps in `method.saliency`, or write `saliency_weight: 0`."
            )
        maps = self.classifier(features).float().softmax(dim=1)  # (B, L + 1, h, w)
        with full_precision(maps.device):
            cells = saliency_of_cells(saliency, (maps.shape[2], maps.shape[3]))
            return saliency_loss(maps, batch.image_labels, cells, self.config.feedback_rule)

    def word_labels(self, images: Tensor) -> Tensor:
        """The visual word of each cell, 0…W-1; (B, h, w), int64.

        Raises:
            RecipeError: no words are learned.
        """
        if self.words is None:
            raise RecipeError(
                "`word_labels` needs a codebook; got a method without words. Give `words_weight` or "
                "`words_to_image_weight` a value above 0."
            )
        return self.words.assign(self.backbone(images))

    @torch.no_grad()
    def word_classes(self) -> Tensor:
        """The class that each word speaks for most, 1…K, by the weights from words to tags; (W,), int64.

        A word with no weight above 0 speaks for no class and is background, 0. The paper gives words no
        class, so this rule is ours.

        Raises:
            RecipeError: no such weights are learned.
        """
        if self.words_to_image is None:
            raise RecipeError(
                "`word_classes` needs weights from words to classes; got `words_to_image_weight: 0`. "
                "Give it a value above 0."
            )
        best, column = self.words_to_image.weight[:, :, 0, 0].max(dim=0)  # over K
        return torch.where(best > 0, column + 1, 0)


def _codebook(config: SmvweConfig, channels: int) -> VisualWords:
    """The codebook that `config` describes; without gradient where no loss would move it."""
    words = VisualWords(
        channels,
        config.num_words,
        metric=config.metric,
        normalise=config.normalise,
        temperature=config.temperature,
        detach_features=config.detach_features,
        sign=config.sign,
        histogram=config.histogram,
        start=config.start,
        memory_rate=config.memory_rate if config.codebook == "memory" else None,
    )
    words.codebook.requires_grad_(config.learns_codebook)
    return words


def _soft_margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Multi-label soft margin, mean over labels and images, in float32."""
    with full_precision(logits.device):
        return F.multilabel_soft_margin_loss(logits.float(), labels.float())
