"""Makes a mask-adapted teacher of OVSeg's checkpoint, which keeps its CLIP in OpenAI's layout.

The authors' own loaders skip what they do not find, so a wrong prefix leaves the plain CLIP with mask prompts
of zero and no word is said. Here every weight has its place or the conversion stops.

Source: OVSeg, Liang et al., CVPR 2023, https://arxiv.org/abs/2210.04150, file `ovseg_swinbase_vitL14_ft_mpt`;
QA-CLIMS, section 4.1 and its code, takes the same entries.
Differs: strict; OVSeg's text tower, which its authors did not train, is compared with the base's, then left.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError  # what torch raises when a file holds more than tensors
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from wsss.errors import WeightsError
from wsss.models.clip import HuggingFaceTeacher, load_teacher
from wsss.models.mask_adapted import check_mask_embedding
from wsss.models.teacher_folder import check_target, save_loaded
from wsss.models.weights import sha256
from wsss.training.checkpoint import load_state

PREFIX: Final = "clip_adapter.clip_model."
BASE: Final = "openai/clip-vit-large-patch14"
MASK_ENTRY: Final = "visual.mask_embedding"
LARGEST_DIFFERENCE: Final = 1e-3  # of unit text features
CHECKED_TEXTS: Final = ("a photo of cat.", "a photo of dining table.", "a photo of person.", "sky", "")

_SIZES: Final = ("input_resolution", "context_length", "vocab_size")  # numbers in OpenAI's own files
_TRANSPOSED: Final = ("visual.proj", "text_projection")
_NAMES: Final = {  # OpenAI's entries, and Hugging Face's
    "logit_scale": "logit_scale",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
    "visual.proj": "visual_projection.weight",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
    "text_projection": "text_projection.weight",
}
_PARTS_OF_A_BLOCK: Final = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}


def convert_ovseg(weights: Path, base: str | Path, out: Path, *, allow_pickle: bool = False) -> Path:
    """Write OVSeg's mask-adapted CLIP as a teacher's folder, complete or not at all.

    Args:
        weights: OVSeg's checkpoint of the whole model, or of the CLIP alone; `.pth`, `.pt` or `.safetensors`;
            half precision is fine.
        base: the plain CLIP of the same size in Hugging Face's format, for configuration, tokenizer, input
            statistics and text tower; what `load_teacher` understands. For OVSeg's: `BASE`.
        out: folder to write; an older teacher there is replaced.
        allow_pickle: also read a file that holds more than tensors, and a base whose weights are a pickle;
            foreign objects are replaced by empty ones, and no code of the file runs.

    Returns:
        `out`, for `load_teacher`.

    Raises:
        WeightsError: a file, entry or shape is missing or too much, the mask embedding is zero, or the text
            towers differ.
    """
    weights, out = Path(weights), Path(out)
    check_target(out)
    entries = clip_entries(_read(weights, allow_pickle=allow_pickle), str(weights))
    teacher = load_teacher(base, allow_pickle=allow_pickle)
    if teacher.model.config.model_type != "clip":  # type: ignore[union-attr]
        raise WeightsError(f"The base {base} is no CLIP. Give the plain CLIP that OVSeg began with: {BASE}.")
    mask_embedding = entries.pop(MASK_ENTRY, None)
    _check_entries(entries, teacher, str(weights), has_prompts=mask_embedding is not None)
    assert mask_embedding is not None
    check_mask_embedding(mask_embedding, teacher.model.config, str(weights))
    _take_vision_tower(teacher, entries, str(weights))
    return save_loaded(
        out,
        teacher,
        card={
            "source": "OVSeg, Liang et al., CVPR 2023, https://arxiv.org/abs/2210.04150",
            "weights": weights.name,
            "sha256": sha256(weights),
            "base": str(base),
            "licence": "CC BY-NC 4.0 (non-commercial)",
            "licence_note": "OVSeg's licence covers these weights, whatever they are used for.",
        },
        mask_embedding=mask_embedding.float(),
    )


def clip_entries(state: Mapping[str, Any], name: str) -> dict[str, Tensor]:
    """The CLIP in OpenAI's layout that a checkpoint holds, without the prefix of the whole model.

    Args:
        state: named tensors of the whole model or of the CLIP alone.
        name: of the file, for messages.

    Raises:
        WeightsError: neither is there, or an entry is no tensor.
    """
    found = {key.removeprefix(PREFIX): value for key, value in state.items() if key.startswith(PREFIX)}
    if not found and any(key.startswith("visual.") for key in state):
        found = dict(state)
    if not found:
        prefixes = sorted({".".join(key.split(".")[:2]) + "." for key in state})
        clips = sorted({key.split("visual.")[0] for key in state if ".visual." in key})
        raise WeightsError(
            f"{name} has no entry under `{PREFIX}`, where OVSeg keeps its CLIP, and none under `visual.`; "
            f"found {(clips or prefixes)[:6]}. Use the file `ovseg_swinbase_vitL14_ft_mpt`, or rename these."
        )
    found = {key: value for key, value in found.items() if key not in _SIZES}
    others = [key for key, value in found.items() if not isinstance(value, Tensor)]
    if others:
        raise WeightsError(f"{name} must hold tensors; {others[:3]} are something else. Use another copy.")
    return found


def _layout(teacher: HuggingFaceTeacher) -> dict[str, tuple[str, ...]]:
    """Each of OpenAI's entries, and what becomes of it: one weight, or query, key and value."""
    config: Any = teacher.model.config
    layout: dict[str, tuple[str, ...]] = {name: (own,) for name, own in _NAMES.items()}
    for tower, own_tower, blocks in (
        ("visual.transformer", "vision_model", config.vision_config.num_hidden_layers),
        ("transformer", "text_model", config.text_config.num_hidden_layers),
    ):
        for number in range(blocks):
            block = f"{tower}.resblocks.{number}"
            own_block = f"{own_tower}.encoder.layers.{number}"
            for kind in ("weight", "bias"):
                for part, own_part in _PARTS_OF_A_BLOCK.items():
                    layout[f"{block}.{part}.{kind}"] = (f"{own_block}.{own_part}.{kind}",)
                layout[f"{block}.attn.in_proj_{kind}"] = tuple(
                    f"{own_block}.self_attn.{letter}_proj.{kind}" for letter in "qkv"
                )
    return layout


def _check_entries(
    entries: Mapping[str, Tensor], teacher: HuggingFaceTeacher, name: str, *, has_prompts: bool
) -> None:
    """Every entry must be there, have the base's shape, and be known."""
    own = dict(teacher.model.named_parameters())
    expected: dict[str, tuple[int, ...]] = {}
    for entry, targets in _layout(teacher).items():
        shape = tuple(own[targets[0]].shape)
        expected[entry] = shape[::-1] if entry in _TRANSPOSED else shape
        if len(targets) == 3:
            expected[entry] = (3 * shape[0], *shape[1:])
    missing = sorted(set(expected) - set(entries)) + ([] if has_prompts else [MASK_ENTRY])
    unknown = sorted(set(entries) - set(expected))
    shapes = [
        f"{entry} {tuple(entries[entry].shape)} instead of {shape}"
        for entry, shape in expected.items()
        if entry in entries and tuple(entries[entry].shape) != shape
    ]
    if missing or unknown or shapes:
        raise WeightsError(
            f"The CLIP in {name} does not fit the base {teacher.name}: missing {missing[:3]}, unknown "
            f"{unknown[:3]}, other shapes {shapes[:3]}. Use OVSeg's mask prompt tuned file and the base that "
            f"OVSeg began with ({BASE})."
        )


def _take_vision_tower(teacher: HuggingFaceTeacher, entries: Mapping[str, Tensor], name: str) -> None:
    """Put the vision tower and the factor of cosines into the base, once its text tower is seen to agree."""
    state: dict[str, Tensor] = {}
    for entry, targets in _layout(teacher).items():
        value = entries[entry].float()
        value = value.T if entry in _TRANSPOSED else value
        parts = value.chunk(3) if len(targets) == 3 else (value,)
        state.update(zip(targets, parts, strict=True))
    parameters = dict(teacher.model.named_parameters())
    own_text = {key: parameters[key].detach().clone() for key in state if key.startswith("text_")}
    before = F.normalize(teacher.encode_texts(CHECKED_TEXTS), dim=1)
    teacher.model.load_state_dict(state, strict=False)  # positions' numbers are buffers in old versions
    after = F.normalize(teacher.encode_texts(CHECKED_TEXTS), dim=1)
    difference = float((before - after).abs().max())
    if not difference < LARGEST_DIFFERENCE:
        raise WeightsError(
            f"The text tower in {name} is not that of {teacher.name}: unit features differ by up to "
            f"{difference:.2g} (at most {LARGEST_DIFFERENCE:g}). Use the base that it began with ({BASE})."
        )
    teacher.model.load_state_dict(own_text, strict=False)


def _read(path: Path, *, allow_pickle: bool) -> dict[str, Any]:
    """The named values of a checkpoint, on the CPU; never runs code from the file."""
    if path.suffix == ".safetensors":
        return dict(load_state(path)[0])
    if not path.is_file():
        raise WeightsError(f"There is no weights file {path}. Correct the path.")
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        loaded = _read_with_empty_objects(path, error, allow_pickle=allow_pickle)
    except (RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        raise WeightsError(f"{path} is damaged ({type(error).__name__}). Fetch it again.") from error
    for _ in range(2):  # {"model": {...}}, also inside another dictionary
        for key in ("model", "state_dict"):
            if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
                loaded = loaded[key]
    if not isinstance(loaded, Mapping) or not all(isinstance(key, str) for key in loaded):
        raise WeightsError(f"{path} must hold named tensors; got {type(loaded).__name__}. Use OVSeg's file.")
    return dict(loaded)


def _read_with_empty_objects(path: Path, error: Exception, *, allow_pickle: bool) -> Any:
    """Read tensors and plain data; every foreign class or function becomes `_Empty`."""
    try:
        foreign = sorted(get_unsafe_globals_in_checkpoint(path))
    except (RuntimeError, ValueError, EOFError, KeyError, OSError, UnpicklingError):
        raise WeightsError(f"{path} is damaged or no checkpoint of PyTorch. Fetch it again.") from error
    if not allow_pickle:
        raise WeightsError(
            f"{path} holds more than tensors: {foreign[:5]}. Use a file with a plain state dict, or pass "
            "`allow_pickle=True`: such objects are then left empty, and no code of the file runs."
        ) from error
    try:
        with safe_globals([(_Empty, name) for name in foreign]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, TypeError, ValueError, AttributeError) as second:
        raise WeightsError(
            f"{path} can't be read without running its code, which asks for {foreign[:5]}. "
            "Use a file with a plain state dict."
        ) from second


class _Empty:
    """Stands for an object of a foreign class: takes anything, holds and does nothing."""

    def __new__(cls, *args: Any) -> Any:
        return object.__new__(cls) if args else OrderedDict()  # the latter for dictionaries with a class

    def __init__(self, *args: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass
