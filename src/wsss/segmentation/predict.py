"""From a trained segmentation net to predicted masks on disk: indexed PNGs of the images' own sizes.

The network never sees more than `MAX_PIXELS` of one image: larger ones are shrunk, and their probabilities
enlarged. A dense CRF may follow the network; it works at the size that the network saw.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from wsss.activation.extract import MAX_PIXELS, Pixels, capped_size, resized, scaled_size
from wsss.crf import CrfParameters, DenseCrf, unary_from_probabilities
from wsss.data.dataset import Dataset
from wsss.data.image_work import of_everyone
from wsss.data.masks_png import write_mask
from wsss.segmentation.base import SegmentationNet
from wsss.segmentation.config import SegmentationConfig
from wsss.training.journal import Progress
from wsss.training.processes import own_share

_MOST_PIXELS: Final = 16 * 512 * 512  # of one batch; larger images come in smaller batches


@torch.no_grad()
def probabilities(
    net: SegmentationNet,
    images: Tensor,
    *,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    max_pixels: int = MAX_PIXELS,
) -> Tensor:
    """Class probabilities at full size, averaged over scales and mirrored images.

    Logits are enlarged bilinearly (align_corners=False) before the softmax.

    Args:
        net: in evaluation mode.
        images: normalised; (B, 3, H, W).
        scales: image scales; the images are resized bilinearly.
        flip: also average with the mirrored image at every scale.
        max_pixels: of one scaled image; larger ones are shrunk, sides in proportion.

    Returns:
        (B, C, H, W), in [0, 1], summing to one over the classes.
    """
    height, width = images.shape[-2:]
    total = images.new_zeros((len(images), net.num_classes, height, width))
    for scale in scales:
        size = scaled_size((height, width), scale, max_pixels)
        scaled = images
        if size != (height, width):
            scaled = F.interpolate(images, size=size, mode="bilinear", align_corners=False)
        for is_mirrored in (False, True) if flip else (False,):
            logits = net.logits(scaled.flip(3) if is_mirrored else scaled)
            logits = logits.flip(3) if is_mirrored else logits
            logits = F.interpolate(logits.float(), size=(height, width), mode="bilinear", align_corners=False)
            total += logits.softmax(dim=1)
    return total / (len(scales) * (2 if flip else 1))


def predict_folder(
    net: SegmentationNet,
    dataset: Dataset,
    ids: Sequence[str],
    folder: Path,
    config: SegmentationConfig,
    *,
    device: torch.device | str,
    dense_crf: CrfParameters | None = None,
    progress: Progress | None = None,
) -> None:
    """Write `folder/<id>.png`, the predicted class of each pixel, for each image.

    Images whose file is there are skipped. Batches are the same whatever is there already, so an interrupted
    prediction goes on to the same files, byte for byte. Several processes share the batches out.

    Args:
        net: trained network; moved to `device` and left in evaluation mode.
        dataset: where the images are; no mask is read.
        ids: image ids.
        folder: where the masks go; an id's folders are made.
        config: `test_scales` (of the whole image, shrunk or not), `test_flip` and `test_batch_size` are used.
        device: where to compute.
        dense_crf: parameters of a dense CRF behind the network; None: the network's own masks.
        progress: called after every batch with finished and all images.
    """
    folder = Path(folder)
    net.to(device).eval()
    mean, std = (torch.tensor(values, device=device)[:, None, None] for values in (net.mean, net.std))
    batches = own_share(list(_batches_of_equal_size(dataset, ids, config.test_batch_size)))
    done, tell = 0, of_everyone(progress, len(ids))
    for batch in batches:
        paths = [folder / f"{image_id}.png" for image_id in batch]
        if not all(path.exists() for path in paths):
            size = dataset.image_size(batch[0])
            seen = capped_size(size, MAX_PIXELS)
            shown = [
                resized(dataset.sample(image_id).image, seen, Image.Resampling.BILINEAR) for image_id in batch
            ]
            pixels = np.stack(shown)  # (B, h, w, 3)
            images = torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2).float()
            images = (images / 255 - mean) / std  # (B, 3, h, w)
            scales = _scales_of_shrunk(config.test_scales, size, seen)
            scores = probabilities(net, images, scales=scales, flip=config.test_flip, max_pixels=MAX_PIXELS)
            if dense_crf is not None:
                scores = crf_marginals(scores, pixels, dense_crf)
            masks = best_classes(scores, size).cpu().numpy()  # (B, H, W)
            for path, mask in zip(paths, masks, strict=True):
                path.parent.mkdir(parents=True, exist_ok=True)
                write_mask(path, mask)
        done += len(batch)
        tell(done, sum(map(len, batches)), f"{batch[-1]}.png")


def crf_marginals(probabilities: Tensor, images: Pixels, parameters: CrfParameters) -> Tensor:
    """Class probabilities after a dense CRF on the images; `best_classes` makes masks of them.

    Args:
        probabilities: of all classes; (B, C, H, W), in [0, 1]. The work is done on their device.
        images: what the network saw, before normalisation; RGB, (B, H, W, 3), uint8.
        parameters: kernels and number of updates, such as `wsss.crf.PRESETS["deeplab_v2"]`.

    Returns:
        Marginals; (B, C, H, W), in [0, 1], summing to one over the classes.

    Source:
        Chen et al., TPAMI 2018, section 3.3, https://arxiv.org/abs/1606.00915; as in deeplab-pytorch, all
        classes compete, and energies are -ln of probabilities clipped to 1e-5.
        Differs: the reference feeds an image that has lost its sign, see `CrfParameters.wrapped_means`.
    """
    device, threads = probabilities.device, torch.get_num_threads()
    unaries = unary_from_probabilities(probabilities)
    # one by one: with all classes of large images, several would need gigabytes
    found = [
        DenseCrf(image, parameters, device=device, threads=threads).marginals(unary)
        for image, unary in zip(images, unaries, strict=True)
    ]
    return torch.stack(found).clamp(0, 1)


def best_classes(probabilities: Tensor, size: tuple[int, int]) -> Tensor:
    """The most probable class of each pixel, once the probabilities are enlarged bilinearly to `size`.

    Classes are enlarged one after the other: for all of them at once a large image would take gigabytes.

    Args:
        probabilities: (B, C, h, w), in [0, 1].
        size: (H, W).

    Returns:
        (B, H, W), uint8; the first class of equally probable ones.
    """
    if probabilities.shape[-2:] == size:
        return probabilities.argmax(dim=1).to(torch.uint8)
    best = probabilities.new_full((len(probabilities), 1, *size), -1)
    classes = torch.zeros(best.shape, dtype=torch.uint8, device=best.device)
    for number in range(probabilities.shape[1]):
        values = probabilities[:, number : number + 1]
        enlarged = F.interpolate(values, size=size, mode="bilinear", align_corners=False)  # (B, 1, H, W)
        classes.masked_fill_(enlarged > best, number)
        torch.maximum(best, enlarged, out=best)
    return classes[:, 0]


def images_per_batch(size: tuple[int, int], most: int) -> int:
    """How many images of one size are predicted at once: `most`, fewer of large ones."""
    return max(1, min(most, _MOST_PIXELS // (size[0] * size[1])))


def _scales_of_shrunk(
    scales: Sequence[float], size: tuple[int, int], seen: tuple[int, int]
) -> tuple[float, ...]:
    """Scales of an image (h, w) = `seen` that give what `scales` give of the whole one, (H, W) = `size`.

    Scales up to 1 never enlarge what was shrunk; those above 1 stay, and the cap on pixels ends them.
    """
    factor = max(size) / max(seen)
    return tuple(scale if factor == 1 else min(scale * factor, max(scale, 1.0)) for scale in scales)


def _batches_of_equal_size(dataset: Dataset, ids: Sequence[str], most: int) -> Iterator[list[str]]:
    """Ids in batches of one image size each."""
    by_size: dict[tuple[int, int], list[str]] = {}
    for image_id in ids:
        by_size.setdefault(dataset.image_size(image_id), []).append(image_id)
    for size, group in by_size.items():
        count = images_per_batch(size, most)
        for start in range(0, len(group), count):
            yield group[start : start + count]
