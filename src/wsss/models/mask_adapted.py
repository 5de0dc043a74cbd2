r"""A CLIP that is told which patches belong to the region: OVSeg's mask prompt tuning.

Tokens of patches outside the region are replaced by learned ones, before the first transformer block and
after the first few: with kept patches m in {0, 1} and learned tokens P_d for each position,

$$ z_d \leftarrow m \, z_d + (1 - m) \, P_d, \qquad d = 0, \dots, \text{depth} - 1 $$

z_0 are the embedded patches (before class token, positions and normalisation), z_d the tokens after block d.
The class token is never replaced, and attention sees all tokens.

Source: OVSeg, Liang et al., CVPR 2023, https://arxiv.org/abs/2210.04150, section 3.3; QA-CLIMS, section 4.1
and its code, judges regions by this model.
Differs: selects instead of adding m z + (1 - m) P, the same numbers; the projection runs in float32.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsss.checks import check_shape
from wsss.errors import ShapeError, WeightsError
from wsss.models.clip import HuggingFaceTeacher, ImageTextTeacher, Precision
from wsss.models.teacher_folder import MASK_PROMPTS, MASK_PROMPTS_KEY, PROMPT_TEMPLATE
from wsss.training.checkpoint import load_state


@runtime_checkable
class RegionTeacher(ImageTextTeacher, Protocol):
    """An image-text teacher that can be told which patches belong to the region.

    Attributes:
        patch_size: side of a patch in pixels; g = S / patch_size patches along a side.
    """

    patch_size: int

    def encode_regions(self, images: Tensor, token_masks: Tensor) -> Tensor:
        """Vectors (B, E) of the patches of images (B, 3, S, S) that `token_masks` (B, 1, g, g) keeps."""


class MaskAdaptedTeacher(HuggingFaceTeacher):
    """A CLIP with mask prompts, frozen; without masks it is the CLIP that it holds.

    Args:
        model: a `CLIPModel`.
        tokenizer: its tokenizer.
        mask_embedding: P, the learned tokens; (depth, g * g, D). OVSeg: depth 3.
        mean, std: statistics of its input, RGB in [0, 1].
        prompt_template: text with one `{}`.
        precision: of the encoders: "float32", or "bfloat16" by autocast.
        name: where it came from, for messages and reports.

    Raises:
        WeightsError: no CLIP, or a mask embedding that does not fit it or says nothing.

    Source:
        Liang et al., CVPR 2023, https://arxiv.org/abs/2210.04150; QA-CLIMS, section 4.1.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        mask_embedding: Tensor,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        prompt_template: str = PROMPT_TEMPLATE,
        precision: Precision = "float32",
        name: str = "teacher",
    ) -> None:
        super().__init__(
            model,
            tokenizer,
            mean=mean,
            std=std,
            prompt_template=prompt_template,
            precision=precision,
            name=name,
        )
        config: Any = model.config
        check_mask_embedding(mask_embedding, config, name)
        self.patch_size = int(config.vision_config.patch_size)
        self.mask_embedding = nn.Parameter(mask_embedding.detach().float().clone(), requires_grad=False)

    def encode_regions(self, images: Tensor, token_masks: Tensor) -> Tensor:
        """Encode the kept patches of images; gradients flow to the pixels of kept patches alone.

        Args:
            images: normalised with `mean` and `std`; (B, 3, S, S), B may be 0.
            token_masks: patches to keep, as from `token_masks`; (B, 1, g, g), bool or 0 and 1.

        Returns:
            (B, E), float32, not normalised. With every patch kept, the same as `encode_images`.

        Raises:
            ShapeError: images of another size than S, or masks of another size than g.
        """
        size, grid = self.image_size, self.image_size // self.patch_size
        check_shape("images", images, (None, 3, size, size), "Resize them to the teacher's size.")
        check_shape("token_masks", token_masks, (len(images), 1, grid, grid), "Make them by `token_masks`.")
        if len(images) == 0:
            return self.encode_images(images)
        model: Any = self.model
        tower = model.vision_model
        kept = (token_masks > 0).flatten(1)[..., None]  # (B, g * g, 1)
        with self._autocast(images.device):
            states = self._embed(images, kept)
            for number, block in enumerate(tower.encoder.layers, start=1):
                states = _run_block(block, states)
                if number < len(self.mask_embedding):
                    patches = torch.where(kept, states[:, 1:], self.mask_embedding[number])
                    states = torch.cat([states[:, :1], patches], dim=1)
            features: Tensor = model.visual_projection(tower.post_layernorm(states[:, 0]))
        return features.float()

    def _embed(self, images: Tensor, kept: Tensor) -> Tensor:
        """What enters the first block; (B, 1 + g * g, D)."""
        model: Any = self.model
        tower, embeddings = model.vision_model, model.vision_model.embeddings
        patches = embeddings.patch_embedding(images.float()).flatten(2).transpose(1, 2)  # (B, g * g, D)
        patches = torch.where(kept, patches, self.mask_embedding[0])
        classes = embeddings.class_embedding.expand(len(images), 1, -1)
        states = torch.cat([classes, patches], dim=1) + embeddings.position_embedding.weight
        embedded: Tensor = tower.pre_layrnorm(states)
        return embedded


def token_masks(planes: Tensor, patch: int) -> Tensor:
    """Keep each patch in which any pixel is kept.

    Args:
        planes: pixels to keep; (B, 1, S, S), bool or 0 and 1.
        patch: side of a patch in pixels; divides S.

    Returns:
        (B, 1, S / patch, S / patch), bool.

    Raises:
        ShapeError: another shape, or sides that are no multiples of `patch`.

    Source:
        OVSeg's code: the average over each patch, rounded up. The maximum is the same for 0 and 1.

    Example:
        >>> planes = torch.zeros(1, 1, 4, 4)
        >>> planes[0, 0, 1, 3] = 1
        >>> token_masks(planes, 2).long().tolist()
        [[[[0, 1], [0, 0]]]]
    """
    check_shape("planes", planes, (None, 1, None, None))
    if patch < 1 or planes.shape[2] % patch or planes.shape[3] % patch:
        raise ShapeError(
            f"`planes` must have sides that are multiples of `patch` = {patch}; got {tuple(planes.shape)}. "
            "Resize them to the teacher's size."
        )
    return F.max_pool2d((planes > 0).float(), patch) > 0


def read_mask_embedding(folder: Path) -> Tensor:
    """The mask embedding (depth, g * g, D) in a teacher's folder.

    Raises:
        WeightsError: no such file, or one that holds something else.
    """
    path = Path(folder) / MASK_PROMPTS
    tensors, _ = load_state(path)
    if set(tensors) != {MASK_PROMPTS_KEY}:
        raise WeightsError(
            f"{path} must hold `{MASK_PROMPTS_KEY}` alone; got {sorted(tensors)[:5]}. "
            "Convert or train the teacher again."
        )
    return tensors[MASK_PROMPTS_KEY]


def check_mask_embedding(mask_embedding: Tensor, config: Any, name: str) -> None:
    """Make sure that mask prompts belong to a CLIP of this configuration and were learned.

    Args:
        mask_embedding: as for `MaskAdaptedTeacher`.
        config: of the `CLIPModel`.
        name: of the teacher, for messages.

    Raises:
        WeightsError: no CLIP, another shape, no finite values, or zeros only (as in an untrained model).
    """
    if config.model_type != "clip":
        raise WeightsError(
            f"Teacher {name} is a `{config.model_type}` model with mask prompts; only `clip` can have them. "
            f"Use a checkpoint of CLIP, or remove {MASK_PROMPTS}."
        )
    vision = config.vision_config
    tokens, blocks = (vision.image_size // vision.patch_size) ** 2, vision.num_hidden_layers
    shape = tuple(mask_embedding.shape)
    if len(shape) != 3 or not 1 <= shape[0] <= blocks or shape[1:] != (tokens, vision.hidden_size):
        raise WeightsError(
            f"The mask embedding of teacher {name} must have shape (1 to {blocks}, {tokens}, "
            f"{vision.hidden_size}); got {shape}. Use the one that was trained with this CLIP."
        )
    if not mask_embedding.isfinite().all():
        raise WeightsError(
            f"The mask embedding of teacher {name} holds values that are not finite. Use another copy."
        )
    if not mask_embedding.any():
        raise WeightsError(
            f"The mask embedding of teacher {name} is zero everywhere: it was never trained, or its weights "
            "were not found. Use the checkpoint of a trained mask-adapted CLIP."
        )


def _run_block(block: nn.Module, states: Tensor) -> Tensor:
    """One transformer block without attention mask; transformers 4 asks for two masks and gives a tuple."""
    parameters = inspect.signature(block.forward).parameters.values()
    masks = sum(p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD for p in parameters) - 1
    result: Any = block(states, *[None] * masks)
    output: Tensor = result[0] if isinstance(result, tuple) else result
    return output
