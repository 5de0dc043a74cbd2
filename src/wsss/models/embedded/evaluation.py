"""Measures an embedded teacher on unseen generated images: what it recognises, and how far its cosines part.

A masked crop is the whole image, normalised, resized to the teacher's input and multiplied by a 0/1 mask,
as CLIMS does it: one object's true mask, or the pixels of one background. Texts are "a photo of {}". Images
are drawn from a split of their own, freely combined, so nothing can be guessed from habits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPModel

from wsss.data.scenes.drawing import Scene, draw_scene, without_key
from wsss.data.scenes.vocabulary import context_names, vocabulary
from wsss.data.scenes.world import SceneSpec, plan_scene
from wsss.models.clip import read_model
from wsss.models.embedded.compose import IMAGE_MEAN, IMAGE_STD
from wsss.models.embedded.concepts import PROMPT, concepts
from wsss.models.teacher_folder import has_safetensors, read_config

SMALLEST_GROUND: Final = 0.05  # of the image; smaller patches of a background are not asked about
SMALLEST_THING: Final = 0.008


@dataclass(frozen=True)
class _Crop:
    """One masked view of one scene, and the concepts it belongs to."""

    view: str
    image: int
    mask: np.ndarray
    truth: int
    ground: int


def evaluate_clip(folder: str | Path, *, images: int = 500, seed: int = 1) -> dict[str, float]:
    """Score a teacher on masked crops of unseen images.

    Args:
        folder: a Hugging Face CLIP folder.
        images: number of scenes.
        seed: which scenes; the training uses other splits, so every seed is unseen.

    Returns:
        Percent of crops given their right name, by what was asked: `objects` (of 8 classes),
        `objects_without_key`, `key_parts`, `aliases`, `kinds` (of all kinds), `backgrounds` (of 10),
        `scene_words`, `distractors`; and mean cosines, `cosine_<text>_<view>`: text `object` (own class),
        `other` (the other classes), `background` (own background); view true_mask, key_only, body,
        full_image, background_only, empty.
    """
    judge = _Judge(Path(folder))
    plans = [plan_scene(seed, "teacher-evaluation", index, free=True) for index in range(images)]
    scenes = [draw_scene(plan) for plan in plans]
    bare_plans = [replace(plan, objects=tuple(without_key(item) for item in plan.objects)) for plan in plans]
    bare = [draw_scene(plan) for plan in bare_plans]
    crops = _crops(plans, scenes)
    bare_crops = [crop for crop in _crops(bare_plans, bare) if crop.view == "true_mask"]
    features = judge.images([scenes[crop.image].image for crop in crops], [crop.mask for crop in crops])
    bare_features = judge.images(
        [bare[crop.image].image for crop in bare_crops], [crop.mask for crop in bare_crops]
    )
    scores = _accuracies(judge, crops, features)
    classes = judge.texts([concepts().texts[row][0] for row in concepts().classes])
    truths = torch.tensor([_class_of(crop.truth) for crop in bare_crops])
    scores["objects_without_key"] = _percent((bare_features @ classes.T).argmax(dim=1) == truths)
    scores.update(_cosines(judge, crops, features))
    return scores


class _Judge:
    """The teacher, asked for unit features of masked images and of texts."""

    def __init__(self, folder: Path) -> None:
        read_config(folder)
        model, self._tokenizer = read_model(
            folder, CLIPModel, safe=has_safetensors(folder, allow_pickle=False)
        )
        self._model: Any = model.float().eval()
        settings: Any = model.config
        self._size = int(settings.vision_config.image_size)

    @torch.no_grad()
    def texts(self, words: Sequence[str]) -> Tensor:
        prompts = [PROMPT.format(word) for word in words]
        tokens = self._tokenizer(prompts, padding=True, truncation=True, return_tensors="pt")
        return F.normalize(self._model.get_text_features(**tokens).pooler_output, dim=1)

    @torch.no_grad()
    def images(self, images: Sequence[np.ndarray], masks: Sequence[np.ndarray]) -> Tensor:
        size = (self._size, self._size)
        mean, std = torch.tensor(IMAGE_MEAN)[:, None, None], torch.tensor(IMAGE_STD)[:, None, None]
        found = []
        for start in range(0, len(images), 128):
            pixels = torch.from_numpy(np.stack(images[start : start + 128])).permute(0, 3, 1, 2).float() / 255
            cover = torch.from_numpy(np.stack(masks[start : start + 128])).float()[:, None]
            pixels = F.interpolate((pixels - mean) / std, size=size, mode="bilinear", align_corners=True)
            cover = F.interpolate(cover, size=size, mode="bilinear", align_corners=True)
            features = self._model.get_image_features(pixel_values=pixels * cover).pooler_output
            found.append(F.normalize(features, dim=1))
        return torch.cat(found)


def _crops(plans: Sequence[SceneSpec], scenes: Sequence[Scene]) -> list[_Crop]:
    table, names = concepts(), context_names()
    kinds = [(word.name, kind) for word in vocabulary().classes for kind, _ in word.kinds]
    crops: list[_Crop] = []
    for index, (plan, scene) in enumerate(zip(plans, scenes, strict=True)):
        size = scene.mask.size
        for value, count in zip(*np.unique(scene.context, return_counts=True), strict=True):
            row = (
                table.backgrounds.start + int(value) - 1
            )  # distractors follow the backgrounds in both orders
            if value and names[value] in vocabulary().distractors and count >= SMALLEST_THING * size:
                crops.append(_Crop("distractor", index, scene.context == value, row, row))
            elif value and row in table.backgrounds and count >= SMALLEST_GROUND * size:
                crops.append(_Crop("ground", index, scene.context == value, row, row))
        for number, item in enumerate(plan.objects, start=1):
            own, key = scene.instances == number, scene.key
            ground = table.names.index(plan.panels[item.panel].background)
            kind = table.kinds.start + kinds.index((item.name, item.kind))
            views = {
                "true_mask": own,
                "key_only": own & key,
                "body": own & ~key,
                "full_image": np.ones_like(own),
                "background_only": scene.instances == 0,
                "empty": np.zeros_like(own),
            }
            crops += [_Crop(view, index, mask, kind, ground) for view, mask in views.items()]
    return crops


def _accuracies(judge: _Judge, crops: Sequence[_Crop], features: Tensor) -> dict[str, float]:
    table = concepts()
    words = vocabulary()

    def correct(view: str, rows: Sequence[int], choices: Sequence[str], of_class: bool = False) -> Tensor:
        places = [place for place, crop in enumerate(crops) if crop.view == view]
        truths = [_class_of(crops[place].truth) if of_class else crops[place].truth for place in places]
        best = (features[places] @ judge.texts(choices).T).argmax(dim=1)
        return best == torch.tensor([list(rows).index(truth) for truth in truths])

    aliases = [[word.aliases[place] for word in words.classes] for place in range(3)]
    places = [
        [getattr(place, name) for place in words.backgrounds] for name in ("scene", "environment", "place")
    ]
    first = [table.texts[row][0] for row in range(len(table))]
    return {
        "objects": _percent(correct("true_mask", table.classes, [first[row] for row in table.classes], True)),
        "key_parts": _percent(
            correct("key_only", table.classes, [first[row] for row in table.classes], True)
        ),
        "aliases": _percent(
            torch.cat([correct("true_mask", table.classes, names, True) for names in aliases])
        ),
        "kinds": _percent(correct("true_mask", table.kinds, [first[row] for row in table.kinds])),
        "backgrounds": _percent(
            correct("ground", table.backgrounds, [first[row] for row in table.backgrounds])
        ),
        "scene_words": _percent(torch.cat([correct("ground", table.backgrounds, names) for names in places])),
        "distractors": _percent(
            correct("distractor", table.distractors, [first[row] for row in table.distractors])
        ),
    }


def _cosines(judge: _Judge, crops: Sequence[_Crop], features: Tensor) -> dict[str, float]:
    table = concepts()
    texts = judge.texts([choices[0] for choices in table.texts])
    scores: dict[str, float] = {}
    for view in ("true_mask", "key_only", "body", "full_image", "background_only", "empty"):
        places = [place for place, crop in enumerate(crops) if crop.view == view]
        own = torch.tensor([_class_of(crops[place].truth) for place in places])
        ground = torch.tensor([crops[place].ground for place in places])
        seen = features[places]
        similarity = seen @ texts[table.classes.start : table.classes.stop].T  # (N, K)
        mine = similarity.gather(1, own[:, None])[:, 0]
        others = (similarity.sum(dim=1) - mine) / (similarity.shape[1] - 1)
        scores[f"cosine_object_{view}"] = round(float(mine.mean()), 3)
        scores[f"cosine_other_{view}"] = round(float(others.mean()), 3)
        scores[f"cosine_background_{view}"] = round(float((seen * texts[ground]).sum(dim=1).mean()), 3)
    return scores


def _class_of(kind: int) -> int:
    return int(concepts().kind_classes[kind - concepts().kinds.start])


def _percent(hits: Tensor) -> float:
    return round(100.0 * float(hits.float().mean()), 2)
