"""Random masks over composed images, and what is still to be seen under them.

The teacher must judge images that an unfinished network has masked: softly, in blobs, in shapes that are
nearly right, or with the object cut out. It is not shown objects cut out along their true masks, except in
the `exact` ablation.
"""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from wsss.models.embedded.compose import INPUT_SIZE, Composites
from wsss.models.embedded.concepts import concepts

VISIBLE_SHARE: Final = 0.5  # of an object, weighted by the mask: from here on it counts as shown
HIDDEN_SHARE: Final = 0.1  # below this it counts as hidden; between the two nothing is said about it
VISIBLE_PIXELS: Final = 24.0
GROUND_VISIBLE: Final = 0.06  # of the image: a background counts as shown
GROUND_HIDDEN: Final = 0.012


def draw_masks(scenes: Composites, generator: torch.Generator, *, exact: bool = False) -> Tensor:
    """One mask per image: whole, soft, blobs, object-shaped or background; (B, 1, H, W) in [0, 1].

    Object-shaped masks are the object's own silhouette or another image's, grown by up to 4 pixels, shifted
    by up to 2 and blurred; background masks are their complement.

    Args:
        scenes: composed images.
        generator: source of randomness.
        exact: cut objects and backgrounds out exactly instead (ablation).
    """
    count = len(scenes.images)
    silhouettes = _silhouettes(scenes, generator, exact=exact)
    blobs = _blobs(count, generator)
    has_shape = (silhouettes.amax(dim=(1, 2, 3)) > 0)[:, None, None, None]
    shaped = torch.where(has_shape, silhouettes, blobs)
    draw = torch.rand(count, 1, 1, 1, generator=generator)
    masks = torch.ones(count, 1, INPUT_SIZE, INPUT_SIZE)
    masks = torch.where((draw >= 0.15) & (draw < 0.25), _soft(count, generator), masks)
    masks = torch.where((draw >= 0.25) & (draw < 0.37), blobs, masks)
    masks = torch.where((draw >= 0.37) & (draw < 0.75), shaped, masks)
    masks = torch.where((draw >= 0.75) & (draw < 0.98), 1 - shaped, masks)
    masks = torch.where(draw >= 0.98, torch.zeros_like(masks), masks)
    low = _sometimes(count, 0.45, 0.0, 0.3, generator, otherwise=0.0)
    high = _sometimes(count, 0.45, 0.5, 1.0, generator, otherwise=1.0)
    is_cut = (draw >= 0.37) & (draw < 0.98)
    is_plain = is_cut if exact else torch.zeros_like(is_cut)
    graded = torch.where(draw >= 0.98, low * 0.1, low + (high - low) * masks)
    return torch.where(is_plain, masks, graded)


def visible_concepts(scenes: Composites, masks: Tensor) -> Tensor:
    """Which concepts each masked image shows: 1 yes, 0 no, -1 undecided; (B, number of concepts), int64."""
    table = concepts()
    count = len(scenes.images)
    state = torch.zeros(count, len(table), dtype=torch.int64)
    seen = (scenes.instances * masks).sum(dim=(2, 3))  # (B, 2)
    share = seen / scenes.areas.clamp_min(1)
    shown = (share >= VISIBLE_SHARE) & (seen >= VISIBLE_PIXELS)
    undecided = ~shown & (share > HIDDEN_SHARE) & (seen > 0)
    kind_classes = torch.from_numpy(table.kind_classes)
    for value, where in ((-1, undecided), (1, shown)):
        for slot in range(2):
            rows = (where[:, slot] & (scenes.kinds[:, slot] >= 0)).nonzero().flatten()
            kinds = scenes.kinds[rows, slot]
            state[rows, table.kinds.start + kinds] = value
            state[rows, table.classes.start + kind_classes[kinds]] = value
    names = 1 + len(table.backgrounds) + len(table.distractors)
    shares = context_shares(scenes.context, masks, names)
    grounds = shares[:, 1 : 1 + len(table.backgrounds)]
    things = shares[:, 1 + len(table.backgrounds) :]
    state[:, table.backgrounds.start : table.backgrounds.stop] = _graded(
        grounds, GROUND_HIDDEN, GROUND_VISIBLE
    )
    state[:, table.distractors.start : table.distractors.stop] = _graded(things, 0.002, 0.012)
    brightness = masks.mean(dim=(1, 2, 3))
    anything = (state[:, : table.nothing] != 0).any(dim=1)
    state[:, table.nothing] = torch.where(brightness < 0.03, 1, torch.where(anything, 0, -1))
    classes = state[:, table.classes.start : table.classes.stop]
    state[:, table.absent.start : table.absent.stop] = torch.where(classes == -1, -1, 1 - classes)
    return state


def context_shares(context: Tensor, masks: Tensor, names: int) -> Tensor:
    """Share of the image that each context value fills, weighted by the mask; (B, names)."""
    count = len(context)
    places = (context + names * torch.arange(count)[:, None, None]).flatten()
    sums = torch.bincount(places, weights=masks.flatten().double(), minlength=count * names)
    return (sums.view(count, names) / context[0].numel()).float()


def _graded(shares: Tensor, hidden: float, shown: float) -> Tensor:
    return torch.where(shares >= shown, 1, torch.where(shares <= hidden, 0, -1))


def _sometimes(
    count: int, chance: float, low: float, high: float, generator: torch.Generator, *, otherwise: float
) -> Tensor:
    value = low + (high - low) * torch.rand(count, 1, 1, 1, generator=generator)
    return torch.where(
        torch.rand(count, 1, 1, 1, generator=generator) < chance, value, torch.tensor(otherwise)
    )


def _soft(count: int, generator: torch.Generator) -> Tensor:
    """Smooth random fields of several coarsenesses and contrasts."""
    fields = torch.empty(count, 1, INPUT_SIZE, INPUT_SIZE)
    coarse = (3, 4, 6, 8, 12)
    for offset, cells in enumerate(coarse):
        rows = torch.arange(offset, count, len(coarse))
        grid = torch.rand(len(rows), 1, cells, cells, generator=generator)
        fields[rows] = F.interpolate(grid, size=(INPUT_SIZE, INPUT_SIZE), mode="bicubic", align_corners=True)
    threshold = 0.25 + 0.5 * torch.rand(count, 1, 1, 1, generator=generator)
    contrast = 4 + 16 * torch.rand(count, 1, 1, 1, generator=generator)
    return torch.sigmoid((fields - threshold) * contrast)


def _blobs(count: int, generator: torch.Generator, most: int = 3) -> Tensor:
    """Unions of one to three ellipses with edges from hard to soft."""
    steps = (torch.arange(INPUT_SIZE) + 0.5) / INPUT_SIZE
    rows, columns = steps[None, None, :, None], steps[None, None, None, :]

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, most, 1, 1, generator=generator)

    distance = ((rows - uniform(0.1, 0.9)) / uniform(0.12, 0.42)) ** 2
    distance = distance + ((columns - uniform(0.1, 0.9)) / uniform(0.12, 0.42)) ** 2  # (B, 3, H, W)
    blobs = torch.sigmoid((1 - distance) * uniform(3, 14))
    wanted = torch.arange(most)[None, :, None, None] <= torch.randint(
        most, (count, 1, 1, 1), generator=generator
    )
    return (blobs * wanted).amax(dim=1, keepdim=True)


def _silhouettes(scenes: Composites, generator: torch.Generator, *, exact: bool) -> Tensor:
    """One object, or both, as a silhouette; exact, or borrowed, grown, shifted and blurred."""
    count = len(scenes.images)
    pick = torch.randint(3, (count, 1, 1), generator=generator)
    first, second = scenes.instances[:, 0], scenes.instances[:, 1]
    has_second = second.flatten(1).amax(dim=1)[:, None, None] > 0
    shape = torch.where(
        (pick == 0) | ~has_second, first, torch.where(pick == 1, second, torch.maximum(first, second))
    )
    shape = shape[:, None]
    if exact:
        return shape
    borrowed = torch.rand(count, 1, 1, 1, generator=generator) < 0.12
    shape = torch.where(borrowed, shape.roll(1, dims=0), shape)
    grow = torch.randint(5, (count, 1, 1, 1), generator=generator)
    for pixels in range(1, 5):
        grown = F.max_pool2d(shape, 3, stride=1, padding=1)
        shape = torch.where(grow >= pixels, grown, shape)
    moved = torch.empty_like(shape)
    shifts = torch.randint(-2, 3, (count, 2), generator=generator).tolist()
    for row, (down, across) in enumerate(shifts):
        moved[row] = shape[row].roll((down, across), dims=(1, 2))
    blur = torch.randint(3, (count, 1, 1, 1), generator=generator)
    for passes in range(1, 3):
        blurred = F.avg_pool2d(moved, 5, stride=1, padding=2, count_include_pad=False)
        moved = torch.where(blur >= passes, blurred, moved)
    return moved
