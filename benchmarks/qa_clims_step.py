"""One training step of QA-CLIMS against the straightforward version, and against the backbone alone.

ResNet-50 at 512 x 512, a mask-adapted teacher of the size of CLIP ViT-B/16 with random weights, 4 images with
6 pairs, 6 foreground and 10 background texts each, and SGD. The straightforward version upsamples and
thresholds the maps of all classes one by one, encodes insides and outsides in two calls, and takes the losses
pair by pair from each pair's own copy of its text features. Both give the same loss.

    python benchmarks/qa_clims_step.py [--repetitions 3] [--device cpu]
"""

from __future__ import annotations

import argparse
import itertools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPConfig, CLIPModel

from record import record
from timed_steps import BACKBONE, Losses, backbone_pass, best_times, peak_mb, run_alone
from wsss.layers.class_texts import published_texts
from wsss.methods.base import Frozen
from wsss.methods.qa_clims import QaClims
from wsss.models.mask_adapted import MaskAdaptedTeacher
from wsss.models.tiny_clip import word_tokenizer
from wsss.questions.pair_texts import TextTable
from wsss.types import Batch

SIZE, IMAGES, DEPTH = 512, 4, 3
PRESENT = ((0, 1), (2,), (3, 4), (5,))  # 6 pairs
FOREGROUND, BACKGROUND, TEXTS = 6, 10, 64


def setup(device: torch.device) -> tuple[QaClims, Batch]:
    """A method with random weights and random text features, and one batch."""
    torch.manual_seed(0)
    names = tuple(published_texts("voc_qa").prompts)
    tokenizer = word_tokenizer(["a photo of nothing."], context_length=77)
    special = {
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    model = CLIPModel(CLIPConfig(text_config=special, vision_config={"patch_size": 16}))
    vision = model.config.vision_config
    prompts = torch.randn(DEPTH, (vision.image_size // 16) ** 2, vision.hidden_size)
    teacher = MaskAdaptedTeacher(model, tokenizer, mask_embedding=prompts, mean=(0.5,) * 3, std=(0.25,) * 3)
    method = QaClims(QaClims.Config(), ("background", *names), Frozen(teacher=teacher))
    ids = tuple(f"image {image}" for image in range(IMAGES))
    pairs = [(ids[image], names[column]) for image, columns in enumerate(PRESENT) for column in columns]
    method.table = TextTable(
        F.normalize(torch.randn(TEXTS, model.config.projection_dim), dim=1),
        torch.randint(TEXTS, (len(pairs),)),
        torch.randint(TEXTS, (len(pairs), FOREGROUND)),
        torch.randint(TEXTS, (len(pairs), BACKGROUND)),
        {pair: row for row, pair in enumerate(pairs)},
    )
    labels = torch.zeros(IMAGES, len(names), dtype=torch.bool)
    for image, columns in enumerate(PRESENT):
        labels[image, list(columns)] = True
    valid = torch.ones(IMAGES, SIZE, SIZE, dtype=torch.bool)
    batch = Batch(torch.randn(IMAGES, 3, SIZE, SIZE), labels, ids, valid)
    return method.to(device).train(), batch.to(device)


def straightforward(method: QaClims, batch: Batch) -> dict[str, Tensor]:
    """The three terms as the formulas put them, pair by pair."""
    config, teacher, table = method.config, method.frozen.teacher, method.table
    assert isinstance(teacher, MaskAdaptedTeacher)
    assert table is not None
    device, size = batch.images.device, (teacher.image_size, teacher.image_size)
    patch, names = teacher.patch_size, method.class_names[1:]
    maps = torch.sigmoid(method.class_logits(batch.images))
    large = F.interpolate(maps, size=size, mode="bilinear", align_corners=True)
    images = F.interpolate(batch.images, size=size, mode="bilinear", align_corners=True)
    kept = torch.zeros_like(large)
    for n, k in itertools.product(range(IMAGES), range(maps.shape[1])):
        kept[n, k] = (large[n, k] >= (config.omega or 0.0) * large[n, k].max()).float()
    pairs = [(n, k) for n in range(IMAGES) for k in range(maps.shape[1]) if batch.image_labels[n, k]]

    def encode(regions: list[Tensor], masks: list[Tensor]) -> Tensor:
        tokens = F.avg_pool2d(torch.stack(masks)[:, None], patch).ceil()
        return F.normalize(teacher.encode_regions(torch.stack(regions), tokens), dim=-1)

    inside = encode([images[n] * large[n, k] for n, k in pairs], [kept[n, k] for n, k in pairs])
    outside = encode([images[n] * (1 - large[n, k]) for n, k in pairs], [1 - kept[n, k] for n, k in pairs])
    frc, brc = [], []
    for (n, k), v_f, v_b in zip(pairs, inside, outside, strict=True):
        row = table.rows[batch.image_ids[n], names[k]]
        features = table.features.cpu()  # every pair has its own copy
        label = features[table.labels[row].cpu()].to(device)
        own = 0.5 * label + 0.5 * features[table.foreground[row].cpu()].to(device).mean(dim=0)
        others = features[table.background[row].cpu()].to(device)
        tau = config.temperature
        positive = torch.exp(v_f @ own / tau)
        frc.append(-torch.log(positive / (positive + torch.exp(others @ v_f / tau).sum())))
        positive = torch.exp(others @ v_b / tau).mean()
        brc.append(-torch.log(positive / (positive + torch.exp(v_b @ own / tau))))
    return {
        "FRC": config.frc_weight * torch.stack(frc).sum(),
        "BRC": config.brc_weight * torch.stack(brc).sum(),
        "REG": config.reg_weight * maps.mean(),
    }


CASES: dict[str, Losses] = {
    "ours": lambda method, batch: method.losses(batch),
    "straightforward": straightforward,
    BACKBONE: backbone_pass,
}


def main(arguments: argparse.Namespace) -> None:
    # first, while this process is small: a child's peak on Linux starts from its parent's size
    options = ["--device", arguments.device]
    peaks = {name: peak_mb(__file__, name, options) for name in ("ours", "straightforward")}
    device = torch.device(arguments.device)
    method, batch = setup(device)
    times: Any = best_times(CASES, method, batch, arguments.repetitions, lambda name: None)
    ours, plain = times["ours"], times["straightforward"]
    of = "ResNet-50 at 512 px, mask-adapted ViT-B/16, 4 images, 6 pairs"
    record("qa_clims_step", of, "straightforward step", plain / ours, ours, peaks["ours"], device=device)
    record(
        "qa_clims_step", of, "backbone pass alone", times[BACKBONE] / ours, ours, peaks["ours"], device=device
    )
    own = f"{of}: the straightforward step itself"
    record("qa_clims_step", own, "straightforward step", 1.0, plain, peaks["straightforward"], device=device)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", choices=CASES, help="run this case alone and print its peak memory")
    chosen = parser.parse_args()
    if chosen.only:
        run_alone(CASES[chosen.only], *setup(torch.device(chosen.device)))
    else:
        main(chosen)
