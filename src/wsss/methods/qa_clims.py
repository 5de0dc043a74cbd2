r"""QA-CLIMS: answers of a question answering model become the texts that regions are contrasted with.

For each pair of an image x and a class k that it shows, a vision-language model has been asked what kind of k
this is and what else it is called (foreground texts), and what is above, under and around it and where it is
(background texts). A frozen image-text model looks at the inside $x p$ and the outside $x (1 - p)$ of the map
$p = \sigma(w_k^\top z)$; FRC pulls the inside to the foreground texts and away from the background texts, BRC
the outside the other way round (both in `layers.region_contrast`), REG keeps the map small:

$$ L = \alpha\,FRC + \beta\,BRC + \gamma\,\mathrm{mean}\,p $$

Foreground adaptive thresholding parts both regions where p reaches a share omega of its own maximum: in the
tokens of a mask-adapted CLIP, or in the pixels. FRC and BRC are sums over pairs, REG is a mean over all K
maps. As in CLIMS, channels of absent classes learn nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsss.data.dataset import Dataset
from wsss.errors import DataError, RecipeError
from wsss.layers import region_contrast
from wsss.layers import text_matching as matching
from wsss.layers.cam_backbone import cam_backbone
from wsss.layers.pair_count import mean_over_pairs, sum_over_pairs, total_pairs
from wsss.layers.statistics import STATISTICS
from wsss.layers.text_matching import Pairs
from wsss.methods._qa_clims_config import QaClimsConfig
from wsss.methods.base import Frozen, Method
from wsss.models.mask_adapted import RegionTeacher, token_masks
from wsss.questions.pair_texts import PairTexts, TextTable, prepared_table
from wsss.questions.texts import pair_texts
from wsss.training.journal import Progress
from wsss.types import Batch, ClassInfo, Paper

logger = logging.getLogger(__name__)


class QaClims(Method):
    """Question-answer cross language image matching.

    `prepare` makes the texts of all pairs and encodes them once; each step shows the teacher every pair's two
    regions in one call. The teacher's weights never get a gradient, and neither it nor the answers are needed
    for maps.

    Args:
        config: hyper-parameters.
        class_names: K + 1 names, the first "background".
        frozen: `teacher`, and `answers` unless texts come from tags; only `prepare` and `losses` need them.

    Source:
        Deng et al., ACM MM 2023, equations 8-14, https://arxiv.org/abs/2401.09883, and its code, which the
        defaults follow where the two differ (token masks, foreground mixing, BRC, sums over pairs).
        Differs: cosines and losses are float32 whatever the encoder's precision; one text tower encodes all
        texts (the code uses two that should be equal); background answers keep their order.
    """

    paper = Paper(
        title="Question-Answer Cross Language Image Matching for Weakly Supervised Semantic Segmentation",
        venue="ACM MM",
        year=2023,
        url="https://arxiv.org/abs/2401.09883",
        code="https://github.com/CVI-SZU/QA-CLIMS",
    )
    Config = QaClimsConfig
    supervision = "I+L"
    export_fields = frozenset({"export"})
    prepare_fields = frozenset(
        {
            "texts",
            "questions",
            "foreground",
            "background",
            "empty_background",
            "background_texts",
            "cleaning",
            "prompts",
            "class_prompts",
            "prompt_template",
        }
    )
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "voc": {"prompt_template": "a photo of {}.", "mask_mode": "token"},
        "coco": {
            "prompt_template": "a photo of {}.",
            "mask_mode": "token",
            "prompts": "coco_qa",
            "frc_weight": 30.0,
            "brc_weight": 24.0,
        },
        "ritc_only": {"foreground": (), "background": (), "empty_background": "no_class"},
    }
    config: QaClimsConfig

    def __init__(self, config: QaClimsConfig, class_names: Sequence[str], frozen: Frozen) -> None:
        config = config.with_class_texts([ClassInfo(name) for name in class_names[1:]])
        super().__init__(config, class_names, frozen)
        self.mean, self.std = STATISTICS[config.normalisation]
        self.backbone = cam_backbone(config)
        self.classifier = nn.Conv2d(
            self.backbone.out_channels, self.num_foreground, kernel_size=1, bias=False
        )
        self.table: TextTable | None = None
        self._check_teacher()

    @classmethod
    def needs(cls, config: QaClimsConfig) -> tuple[str, ...]:
        """The teacher, and answers where texts come from them."""
        return ("teacher", "answers") if config.uses_answers else ("teacher",)

    def prepare(
        self, dataset: Dataset, ids: Sequence[str], cache_dir: Path, *, progress: Progress | None = None
    ) -> None:
        """Make the texts of all pairs of these images, encode the different ones and keep the table.

        Raises:
            DataError: an answer is missing, or no pair has any background text.
        """
        teacher = self._teacher()
        pairs = pair_texts(dataset, ids, self.config.text_sources(self.frozen.answers))
        self._check_backgrounds(dataset, pairs)
        template = self.config.prompt_template or teacher.prompt_template
        table = prepared_table(cache_dir, pairs, teacher, template, progress=progress)
        self.table = table.to(self.classifier.weight.device)

    def _check_backgrounds(self, dataset: Dataset, pairs: Sequence[PairTexts]) -> None:
        """Say how many pairs teach nothing about regions; raise where all do."""
        skipped = sum(not pair.background for pair in pairs)
        if not self.config.contrasts or not skipped:
            return
        if skipped == len(pairs):
            source = "scene words" if self.config.texts == "tags" else "useful answers"
            raise DataError(
                f"{dataset.name} has no {source} for the background of any image, so no pair could teach. "
                "Look at some with `wsss questions show`, add scene words to the tags file, or write "
                "`empty_background: no_class`."
            )
        logger.warning("%d of %d pairs have no background text and are left out.", skipped, len(pairs))

    def rehearse(self, image_id: str) -> None:
        """Random text features, as many for each class as there are questions."""
        config, names = self.config, self.class_names[1:]
        groups = {"foreground": config.foreground, "background": config.background}
        counts = {
            key: sum(len(config.questions.get(name, ())) for name in group) for key, group in groups.items()
        }
        size = self._teacher().encode_texts(names[:1]).shape[1]
        self.table = TextTable(
            torch.randn(len(names), size),
            torch.arange(len(names)),
            torch.zeros(len(names), counts["foreground"], dtype=torch.int64),
            torch.zeros(len(names), max(1, counts["background"]), dtype=torch.int64),
            {(image_id, name): row for row, name in enumerate(names)},
        )

    def parameter_groups(self, base_lr: float) -> list[dict[str, Any]]:
        """Backbone at the base rate, classifier at `head_rate` times it."""
        backbone = [p for p in self.backbone.parameters() if p.requires_grad]
        return [
            {"params": backbone, "lr": base_lr},
            {"params": list(self.classifier.parameters()), "lr": base_lr * self.config.head_rate},
        ]

    def class_logits(self, images: Tensor) -> Tensor:
        """Raw class logits (B, K, h, w) of normalised images (B, 3, H, W)."""
        logits: Tensor = self.classifier(self.backbone(images))
        return logits

    def cams(self, images: Tensor) -> Tensor:
        """Relu of the logits, or the sigmoid maps that training saw; (B, K, h, w)."""
        logits = self.class_logits(images)
        return F.relu(logits) if self.config.export == "relu" else self._probabilities(logits)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """FRC, BRC and REG, as far as their weights are above 0.

        Without any pair that has background texts FRC and BRC are 0, and stay in the graph.
        """
        return self.map_losses(batch, self.maps(batch.images))

    def maps(self, images: Tensor) -> Tensor:
        """The maps that the losses see, sigmoid of the logits less `logit_offset`; (B, K, h, w)."""
        return self._probabilities(self.class_logits(images))

    def map_losses(self, batch: Batch, maps: Tensor) -> dict[str, Tensor]:
        """The losses of a batch with its maps (B, K, h, w), for methods that add terms of their own."""
        contrasts = self.config.contrasts
        losses = self._contrasts(batch, maps) if contrasts else {}
        if contrasts and not losses:
            losses = {name: 0 * maps.sum() for name in contrasts}
        if self.config.reg_weight:
            losses["REG"] = self.config.reg_weight * maps.mean()
        return losses

    def _contrasts(self, batch: Batch, maps: Tensor) -> dict[str, Tensor]:
        """The teacher's terms; none where no pair takes part."""
        pairs, rows = self._pairs_with_texts(batch)
        total = total_pairs(len(pairs), maps.device)  # every process counts, one without pairs too
        if not len(pairs):
            return {}
        inside, outside = self._regions(batch.images, maps, pairs)
        assert self.table is not None
        with matching.full_precision(maps.device):
            labels, _ = self.table.of(self.table.labels[rows])
            answers, answered = self.table.of(self.table.foreground[rows])  # (P, L, E)
            backgrounds, valid = self.table.of(self.table.background[rows])  # (P, G, E)
            own = region_contrast.foreground_vectors(
                labels,
                answers,
                answered,
                self.config.foreground_mixing,
                unit_length=self.config.foreground_unit_length,
            )
            costs = self._costs(inside, outside, own, backgrounds, valid)
            weights = {"FRC": self.config.frc_weight, "BRC": self.config.brc_weight}
            return {name: weights[name] * self._reduced(cost, total) for name, cost in costs.items()}

    def _costs(
        self, inside: Tensor, outside: Tensor, own: Tensor, backgrounds: Tensor, valid: Tensor
    ) -> dict[str, Tensor]:
        """FRC and BRC of each pair (P,), from unit features (P, E) of both regions and the pairs' texts."""
        config, costs = self.config, {}
        if config.frc_weight:
            similar = torch.einsum("pe,pge->pg", inside, backgrounds)
            costs["FRC"] = region_contrast.foreground_contrast(
                (inside * own).sum(dim=1), similar, valid, config.temperature
            )
        if config.brc_weight:
            similar = torch.einsum("pe,pge->pg", outside, backgrounds)
            costs["BRC"] = region_contrast.background_contrast(
                similar, valid, (outside * own).sum(dim=1), config.temperature, config.brc_positive
            )
        return costs

    def _pairs_with_texts(self, batch: Batch) -> tuple[Pairs, Tensor]:
        """The batch's pairs that have background texts, and their rows in the table."""
        if self.table is None:
            raise RecipeError("QA-CLIMS trains on prepared texts; call `prepare` before training.")
        pairs = matching.positive_pairs(batch.image_labels)
        names = self.class_names[1:]
        of = zip(pairs.image.tolist(), pairs.column.tolist(), strict=True)
        rows = self.table.rows_of([(batch.image_ids[image], names[column]) for image, column in of])
        if self.table.background.shape[1] == 0:
            kept = torch.zeros_like(rows, dtype=torch.bool)
        else:
            kept = (self.table.background[rows] >= 0).any(dim=1)
        return Pairs(pairs.image[kept], pairs.column[kept]), rows[kept]

    def _regions(self, images: Tensor, maps: Tensor, pairs: Pairs) -> tuple[Tensor, Tensor]:
        """Unit features (P, E) of the inside and outside of each map, from one call of the teacher."""
        config, teacher = self.config, self._teacher()
        size = (teacher.image_size, teacher.image_size)
        pixels = matching.resized_with_corners(images.float(), size)
        if config.clip_norm == "convert":
            pixels = matching.renormalised(pixels, (self.mean, self.std), (teacher.mean, teacher.std))
        pixels = pixels[pairs.image]  # (P, 3, S, S)
        inside = matching.resized_with_corners(matching.of_pairs(maps, pairs), size)  # (P, 1, S, S)
        soft = torch.cat([inside, 1 - inside])  # (2P, 1, S, S)
        tokens: Tensor | None = None
        if config.omega is not None:
            mode = config.mask_mode or ("token" if isinstance(teacher, RegionTeacher) else "pixel")
            kept = region_contrast.adaptive_masks(inside, config.omega)
            kept = torch.cat([kept, ~kept])
            if mode != "pixel":
                assert isinstance(teacher, RegionTeacher)
                tokens = token_masks(kept, teacher.patch_size)
            if mode != "token":
                soft = soft * kept
        regions = matching.region_images(torch.cat([pixels, pixels]), soft)
        if tokens is None:
            features = teacher.encode_images(regions)
        else:
            assert isinstance(teacher, RegionTeacher)
            features = teacher.encode_regions(regions, tokens)
        with matching.full_precision(features.device):
            units = matching.unit(features)  # (2P, E)
        return units[: len(pairs)], units[len(pairs) :]

    def _reduced(self, costs: Tensor, total: Tensor) -> Tensor:
        if self.config.pair_reduction == "per_pair":
            return mean_over_pairs(costs, total) * self.config.reference_pairs
        return sum_over_pairs(costs)

    def _probabilities(self, logits: Tensor) -> Tensor:
        return torch.sigmoid(logits.float() - self.config.logit_offset)

    def _teacher(self) -> Any:
        if self.frozen.teacher is None:
            raise RecipeError("QA-CLIMS trains with an image-text teacher; pass `Frozen(teacher=...)`.")
        return self.frozen.teacher

    def _check_teacher(self) -> None:
        config, teacher = self.config, self.frozen.teacher
        if config.wants_token_masks and teacher is not None and not isinstance(teacher, RegionTeacher):
            raise RecipeError(
                f"`mask_mode: {config.mask_mode}` needs a mask-adapted teacher, and this one takes no masks. "
                "Convert OVSeg's weights with `wsss weights convert-ovseg`, or write `mask_mode: pixel`."
            )
