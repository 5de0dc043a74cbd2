"""One training step of CLIMS against the straightforward version, and against the backbone alone.

ResNet-50 at 512 x 512, a teacher of the size of CLIP ViT-B/32 with random weights, 4 images with 6 pairs and
SGD. The straightforward version does what the formulas say, term by term: it encodes texts in every step and
for every term, and each region when a term asks for it (the inside twice), upsamples the maps of all classes
before it picks the pairs' own, and lets gradients reach the teacher's weights. Both give the same loss.

    python benchmarks/clims_step.py [--repetitions 3] [--device cpu] [--lists voc|coco]
"""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPConfig, CLIPModel

from record import record
from timed_steps import BACKBONE, Losses, backbone_pass, best_times, peak_mb, run_alone
from wsss.layers.class_texts import published_texts
from wsss.methods.base import Frozen
from wsss.methods.clims import Clims
from wsss.models.clip import HuggingFaceTeacher
from wsss.models.tiny_clip import word_tokenizer
from wsss.types import Batch

SIZE, IMAGES = 512, 4
PRESENT = ((0, 1), (2,), (3, 4), (5,))  # 6 pairs
PRESETS = {"voc": "improved", "coco": "improved_coco"}
THRESHOLD = 0.0  # random weights know no similarity: lets about half of the texts count in CBS


def setup(lists: str, device: torch.device) -> tuple[Clims, Batch]:
    """A method with random weights, and one batch."""
    torch.manual_seed(0)
    texts = published_texts(f"{lists}_improved")
    template = "a photo of {}."
    words = [template.format(text) for text in (*texts.prompts.values(), *texts.background_texts)]
    tokenizer = word_tokenizer(words, context_length=77)
    special = {
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    model = CLIPModel(CLIPConfig(text_config=special))  # transformers' defaults are ViT-B/32's
    teacher = HuggingFaceTeacher(model, tokenizer, mean=(0.5,) * 3, std=(0.25,) * 3)
    config = Clims.Config(**{**Clims.presets[PRESETS[lists]], "cbs_threshold": THRESHOLD})
    method = Clims(config, ("background", *texts.prompts), Frozen(teacher=teacher)).to(device).train()
    labels = torch.zeros(IMAGES, len(texts.prompts), dtype=torch.bool)
    for image, columns in enumerate(PRESENT):
        labels[image, list(columns)] = True
    images = torch.randn(IMAGES, 3, SIZE, SIZE)
    valid = torch.ones(IMAGES, SIZE, SIZE, dtype=torch.bool)
    return method, Batch(images, labels, ("",) * IMAGES, valid).to(device)


def straightforward(method: Clims, batch: Batch) -> dict[str, Tensor]:
    """The four terms as the formulas put them."""
    config, teacher = method.config, method.frozen.teacher
    assert isinstance(teacher, HuggingFaceTeacher)
    model: Any = teacher.model
    device = batch.images.device

    def encode_text(text: str) -> Tensor:
        tokens = {key: value.to(device) for key, value in teacher.tokenize([text]).items()}
        return F.normalize(model.get_text_features(**tokens).pooler_output, dim=-1)

    def encode_images(images: list[Tensor]) -> Tensor:
        features = model.get_image_features(pixel_values=torch.stack(images)).pooler_output
        return F.normalize(features, dim=-1)

    def resize(planes: Tensor) -> Tensor:
        size = (teacher.image_size, teacher.image_size)
        return F.interpolate(planes, size=size, mode="bilinear", align_corners=True)

    maps = torch.sigmoid(method.class_logits(batch.images))
    large, images = resize(maps), resize(batch.images)
    pairs = [(n, k) for n in range(IMAGES) for k in range(maps.shape[1]) if batch.image_labels[n, k]]
    inside = [images[n] * large[n, k] for n, k in pairs]
    outside = [images[n] * (1 - large[n, k]) for n, k in pairs]
    names, template = method.class_names[1:], "a photo of {}."
    prompts = [template.format(config.class_prompts[names[k]]) for _, k in pairs]
    own = torch.cat([encode_text(prompt) for prompt in prompts])
    otm = -(encode_images(inside) * own).sum(dim=1).clamp(1e-4, 0.9999).log().mean()
    own = torch.cat([encode_text(prompt) for prompt in prompts])
    btm = -(1 - (encode_images(outside) * own).sum(dim=1).clamp(1e-4, 0.9999)).log().mean()
    others = torch.cat([encode_text(template.format(text)) for text in config.background_texts or ()])
    similarity = encode_images(inside) @ others.T
    cbs = -torch.log(1 - similarity[similarity > THRESHOLD]).sum()
    return {
        "OTM": config.otm_weight * otm,
        "BTM": config.btm_weight * btm,
        "CBS": config.cbs_weight * cbs,
        "REG": config.reg_weight * maps.mean(),
    }


CASES: dict[str, Losses] = {
    "ours": lambda method, batch: method.losses(batch),
    "straightforward": straightforward,
    BACKBONE: backbone_pass,
}


def grow_gradients(method: Clims, name: str) -> None:
    """The straightforward version lets gradients reach the teacher's weights."""
    teacher = method.frozen.teacher
    assert isinstance(teacher, HuggingFaceTeacher)
    teacher.requires_grad_(name == "straightforward")


def main(arguments: argparse.Namespace) -> None:
    options = ["--lists", arguments.lists, "--device", arguments.device]
    # first, while this process is small: a child's peak on Linux starts from its parent's size
    peaks = {name: peak_mb(__file__, name, options) for name in ("ours", "straightforward")}
    device = torch.device(arguments.device)
    method, batch = setup(arguments.lists, device)
    times = best_times(CASES, method, batch, arguments.repetitions, partial(grow_gradients, method))
    ours, plain = times["ours"], times["straightforward"]
    of = f"ResNet-50 at 512 px, ViT-B/32, 4 images, 6 pairs, {arguments.lists} lists"
    record("clims_step", of, "straightforward step", plain / ours, ours, peaks["ours"], device=device)
    record(
        "clims_step", of, "backbone pass alone", times[BACKBONE] / ours, ours, peaks["ours"], device=device
    )
    own = f"{of}: the straightforward step itself"
    record("clims_step", own, "straightforward step", 1.0, plain, peaks["straightforward"], device=device)
    print(f"a step takes {ours / times[BACKBONE]:.2f} times the backbone's own pass")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--lists", choices=PRESETS, default="voc")
    parser.add_argument("--only", choices=CASES, help="run this case alone and print its peak memory")
    chosen = parser.parse_args()
    if chosen.only:
        alone, shown = setup(chosen.lists, torch.device(chosen.device))
        grow_gradients(alone, chosen.only)
        run_alone(CASES[chosen.only], alone, shown)
    else:
        main(chosen)
