"""The files of a teacher's checkpoint in Hugging Face's format: what they say, and how they are written.

Beside the usual files there may be `teacher.json`, a card with the prompt template, how it was made and its
licence, and `mask_embedding.safetensors`, the mask prompts of a mask-adapted CLIP.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from torch import Tensor, nn

from wsss.errors import WeightsError
from wsss.training.checkpoint import atomic_folder, write_tensors

if TYPE_CHECKING:
    from wsss.models.clip import HuggingFaceTeacher

PROMPT_TEMPLATE: Final = "a photo of {}."  # CLIMS (improved), QA-CLIMS
CARD: Final = "teacher.json"
MASK_PROMPTS: Final = "mask_embedding.safetensors"
MASK_PROMPTS_KEY: Final = "mask_embedding"
_PROCESSORS: Final = {  # by `model_type`
    "clip": "CLIPImageProcessor",
    "siglip": "SiglipImageProcessor",
    "blip": "BlipImageProcessor",
}


def read_statistics(folder: Path) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Mean and standard deviation of a checkpoint's input, from its preprocessor file.

    Raises:
        WeightsError: the checkpoint does not say.
    """
    for file in ("preprocessor_config.json", "processor_config.json"):
        settings = read_json(folder / file)
        settings = settings.get("image_processor", settings)
        if "image_mean" in settings and "image_std" in settings:
            return triple(settings["image_mean"]), triple(settings["image_std"])
    raise WeightsError(
        f"{folder} does not say how its images are normalised. "
        "Add preprocessor_config.json with image_mean and image_std, as the checkpoint's source has it."
    )


def takes_masks(folder: Path) -> bool:
    """Whether the checkpoint has mask prompts, so that it can be told which patches belong to a region."""
    return (folder / MASK_PROMPTS).is_file()


def read_card(folder: Path) -> dict[str, Any]:
    """What the checkpoint's own card says (prompt template, words, how it was made); empty without one."""
    return read_json(folder / CARD)


def read_config(folder: Path) -> dict[str, Any]:
    """What the checkpoint's config.json says.

    Raises:
        WeightsError: there is none.
    """
    if not (folder / "config.json").is_file():
        raise WeightsError(
            f"{folder} is no checkpoint: it has no config.json. Give a folder in Hugging Face's format."
        )
    return read_json(folder / "config.json")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; empty where there is no such file."""
    if not path.is_file():
        return {}
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WeightsError(f"{path} is no readable JSON file ({error}). Restore it.") from error
    return loaded if isinstance(loaded, dict) else {}


def has_safetensors(folder: Path, *, allow_pickle: bool) -> bool:
    """Whether the weights are safetensors.

    Raises:
        WeightsError: there are none, or only a pickle and `allow_pickle` is false.
    """
    if any(path.name != MASK_PROMPTS for path in folder.glob("*.safetensors")):
        return True
    if not any(folder.glob("pytorch_model*.bin")):
        raise WeightsError(
            f"{folder} holds no weights. Expected model.safetensors; fetch or copy the checkpoint again."
        )
    if not allow_pickle:
        raise WeightsError(
            f"{folder} holds its weights as pickle only, which can run foreign code. Use a checkpoint with "
            "model.safetensors, or pass `allow_pickle=True` (its tensors alone are read)."
        )
    return False


def triple(values: Sequence[float]) -> tuple[float, float, float]:
    """Three numbers as a tuple of floats."""
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def save_teacher(
    folder: Path,
    model: nn.Module,
    tokenizer: Any,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    prompt_template: str = PROMPT_TEMPLATE,
    half: bool = False,
    card: Mapping[str, Any] | None = None,
    mask_embedding: Tensor | None = None,
) -> Path:
    """Write a checkpoint that `load_teacher` and transformers load; the folder appears when it is complete.

    Args:
        folder: where to; an older teacher there is replaced.
        model: a `CLIPModel` or `SiglipModel`.
        tokenizer: its tokenizer.
        mean: mean of its input, RGB in [0, 1].
        std: standard deviation of its input.
        prompt_template: text with one `{}`.
        half: store float16 (half the size; loaded as float32 again).
        card: what else to say in `teacher.json`; plain data.
        mask_embedding: mask prompts (depth, tokens, width), for a `MaskAdaptedTeacher`.

    Raises:
        WeightsError: the folder holds something else.
    """
    check_target(Path(folder))
    return write_checkpoint(
        Path(folder),
        model,
        tokenizer,
        mean=mean,
        std=std,
        half=half,
        card={"prompt_template": prompt_template, **dict(card or {})},
        mask_embedding=mask_embedding,
    )


def save_loaded(
    folder: Path,
    teacher: HuggingFaceTeacher,
    *,
    half: bool = False,
    card: Mapping[str, Any] | None = None,
    mask_embedding: Tensor | None = None,
) -> Path:
    """Write a teacher as it stands in memory, with its tokenizer, statistics, template and mask prompts.

    Args:
        folder: where to; an older teacher there is replaced.
        teacher: what to write.
        half: store float16 (half the size; loaded as float32 again).
        card: what else to say in `teacher.json`; plain data.
        mask_embedding: mask prompts (depth, tokens, width) to write; None: the teacher's own, if it has any.

    Raises:
        WeightsError: the folder holds something else.
    """
    return save_teacher(
        folder,
        teacher.model,
        teacher.tokenizer,
        mean=teacher.mean,
        std=teacher.std,
        prompt_template=teacher.prompt_template,
        half=half,
        card=card,
        mask_embedding=getattr(teacher, "mask_embedding", None) if mask_embedding is None else mask_embedding,
    )


def write_checkpoint(
    folder: Path,
    model: nn.Module,
    tokenizer: Any,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    half: bool,
    card: Mapping[str, Any],
    card_name: str = CARD,
    mask_embedding: Tensor | None = None,
) -> Path:
    """Write a checkpoint and its card, complete or not at all; whatever `folder` held is replaced.

    Args:
        folder: where to; checked by the caller.
        model: a `CLIPModel`, `SiglipModel` or BLIP.
        tokenizer: its tokenizer.
        mean: mean of its input, RGB in [0, 1].
        std: standard deviation of its input.
        half: store float16.
        card: what the card says; plain data.
        card_name: file name of the card.
        mask_embedding: as for `save_teacher`.
    """
    config: Any = model.config
    with atomic_folder(folder) as temporary:
        tokenizer.save_pretrained(temporary)
        _name_tokenizer_class(temporary / "tokenizer_config.json")
        config.architectures = [type(model).__name__]
        config.save_pretrained(temporary)
        tensors = {name: _stored(value, half=half) for name, value in sorted(model.state_dict().items())}
        _write_tensors(temporary / "model.safetensors", tensors)
        if mask_embedding is not None:
            prompts = {MASK_PROMPTS_KEY: _stored(mask_embedding, half=half)}
            _write_tensors(temporary / MASK_PROMPTS, prompts)
        _write_json(temporary / "preprocessor_config.json", _preprocessor(config, mean, std))
        _write_json(temporary / card_name, card)
    return folder


def check_target(folder: Path) -> None:
    """Make sure that a teacher can be written to `folder` without loss; call it before a long training.

    Raises:
        WeightsError: it is a file, or a folder that holds anything but a teacher.
    """
    folder = Path(folder)
    if folder.is_dir() and ((folder / CARD).is_file() or not any(folder.iterdir())):
        return
    if folder.exists():
        raise WeightsError(
            f"{folder} is to become a teacher's folder, but holds something else. "
            "Give a folder that does not exist yet, such as `--out teachers/mine`."
        )


def _name_tokenizer_class(path: Path) -> None:
    """Give a tokenizer without a class of its own the name that every version of transformers knows."""
    written = read_json(path)
    if written.get("tokenizer_class") in (
        "TokenizersBackend",
        "PreTrainedTokenizerFast",
    ):  # transformers 5, 4
        written.pop("backend", None)
        written["tokenizer_class"] = "PreTrainedTokenizerFast"
        path.write_text(json.dumps(written, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def _stored(value: Tensor, *, half: bool) -> Tensor:
    value = value.detach().cpu()
    return (value.half() if half and value.is_floating_point() else value).clone().contiguous()


def _write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    write_tensors(path, tensors, {"format": "pt"})
    path.chmod(0o644)  # safetensors writes files for their owner alone


def _preprocessor(config: Any, mean: Sequence[float], std: Sequence[float]) -> dict[str, Any]:
    size = int(config.vision_config.image_size)
    return {
        "image_processor_type": _PROCESSORS[config.model_type],
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"height": size, "width": size},
        "resample": 3,
        "do_center_crop": False,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [float(value) for value in mean],
        "image_std": [float(value) for value in std],
    }


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
