"""Public models that recipes may name: where they come from, what for, their licence and their sizes.

Constants alone; nothing here looks at the disk or the network. `wsss weights list` shows them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

Source: TypeAlias = Literal["torchvision", "huggingface", "rembg"]


@dataclass(frozen=True)
class PublicModel:
    """A model that its owners publish.

    Attributes:
        name: what recipes and commands call it.
        source: who hands it out, which decides where it lies on this machine.
        identifier: torchvision's name, the Hugging Face id, or the file's address.
        role: what it is used for here, in a few words.
        licence: of code and weights as their owners state it; ImageNet's own terms come on top where it says.
        parameters: how many numbers are trained; tied ones count once; None: not stated here.
        architecture: sizes, under the names of Hugging Face's configurations (`text_` and `vision_` before
            those of a tower); empty for networks of this package.
        digest: what the file must have: "sha256:" or "md5:" and its first digits; "": its repository vouches.
    """

    name: str
    source: Source
    identifier: str
    role: str
    licence: str
    parameters: int | None = None
    architecture: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    digest: str = ""


def _clip(vision: tuple[int, int, int, int], text: tuple[int, int, int], joint: int) -> Mapping[str, int]:
    """Sizes of a CLIP: vision width, layers, heads, patch; text width, layers, heads; joint width."""
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads")
    sizes = {f"vision_{name}": size for name, size in zip(names, vision, strict=False)}
    sizes |= {f"text_{name}": size for name, size in zip(names, text, strict=True)}
    sizes |= {"vision_intermediate_size": 4 * vision[0], "text_intermediate_size": 4 * text[0]}
    sizes |= {"vision_patch_size": vision[3], "vision_image_size": 224, "projection_dim": joint}
    return MappingProxyType(sizes | {"text_vocab_size": 49408, "text_max_position_embeddings": 77})


_BLIP: Final = MappingProxyType(
    {
        "vision_hidden_size": 768,
        "vision_num_hidden_layers": 12,
        "vision_num_attention_heads": 12,
        "vision_intermediate_size": 3072,
        "vision_patch_size": 16,
        "vision_image_size": 384,
        "text_hidden_size": 768,
        "text_num_hidden_layers": 12,
        "text_num_attention_heads": 12,
        "text_intermediate_size": 3072,
        "text_encoder_hidden_size": 768,
        "text_vocab_size": 30524,
        "text_max_position_embeddings": 512,
    }
)
_BLIP_PARAMETERS: Final = 361_230_140

_MODELS: Final = (
    PublicModel(
        "resnet50",
        "torchvision",
        "resnet50",
        "backbone of the ResNet-50 recipes (ImageNet, version 1)",
        "BSD-3-Clause; ImageNet's terms",
        25_557_032,
        digest="sha256:0676ba61",
    ),
    PublicModel(
        "resnet101",
        "torchvision",
        "resnet101",
        "backbone, also of DeepLab (ImageNet, version 1)",
        "BSD-3-Clause; ImageNet's terms",
        44_549_160,
        digest="sha256:63fe2227",
    ),
    PublicModel(
        "clip-vit-b32",
        "huggingface",
        "openai/clip-vit-base-patch32",
        "teacher of CLIMS",
        "MIT",
        151_277_313,
        _clip((768, 12, 12, 32), (512, 12, 8), 512),
    ),
    PublicModel(
        "clip-vit-b16",
        "huggingface",
        "openai/clip-vit-base-patch16",
        "teacher with a finer grid",
        "MIT",
        149_620_737,
        _clip((768, 12, 12, 16), (512, 12, 8), 512),
    ),
    PublicModel(
        "clip-vit-l14",
        "huggingface",
        "openai/clip-vit-large-patch14",
        "base of QA-CLIMS's teacher (OVSeg)",
        "MIT",
        427_616_513,
        _clip((1024, 24, 16, 14), (768, 12, 12), 768),
    ),
    PublicModel(
        "blip-vqa-base",
        "huggingface",
        "Salesforce/blip-vqa-base",
        "answers questions for QA-CLIMS",
        "BSD-3-Clause",
        _BLIP_PARAMETERS,
        _BLIP,
    ),
    PublicModel(
        "blip-vqa-capfilt-large",
        "huggingface",
        "Salesforce/blip-vqa-capfilt-large",
        "answers questions for QA-CLIMS, as published (of base size)",
        "BSD-3-Clause",
        _BLIP_PARAMETERS,
        _BLIP,
    ),
    PublicModel(
        "u2net",
        "rembg",
        "https://github.com/danielgatis/rembg/releases/download/v0.0.0/u2net.onnx",
        "saliency for SMVWE, through rembg",
        "Apache-2.0",
        digest="md5:60024c5c889badc19c04ad937298a77b",
    ),
)

PUBLIC_MODELS: Final[Mapping[str, PublicModel]] = MappingProxyType({model.name: model for model in _MODELS})
