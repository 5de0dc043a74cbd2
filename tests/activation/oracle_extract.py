"""Slow reference of the extraction: one image, one scale at a time, all classes enlarged, selected last."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn


def reference_maps(
    method: nn.Module,
    image: np.ndarray,
    image_labels: np.ndarray,
    *,
    scales: tuple[float, ...] = (1.0, 0.5, 1.5, 2.0),
    flip: bool = True,
    stride: int = 4,
) -> tuple[Tensor, Tensor]:
    """Normalised maps of the present classes, (M, ceil(H/stride), ceil(W/stride)) and (M, H, W)."""
    height, width = image.shape[:2]
    low_size = (int(np.ceil(height / stride)), int(np.ceil(width / stride)))
    canvas = (int(np.ceil(height / 16)) * 16, int(np.ceil(width / 16)) * 16)
    low, high = torch.zeros(()), torch.zeros(())
    for scale in scales:
        size = (int(np.round(width * scale)), int(np.round(height * scale)))
        scaled = (
            image if scale == 1 else np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
        )
        pixels = (np.float32(scaled) / 255 - np.float32(method.mean)) / np.float32(method.std)
        tensor = torch.from_numpy(pixels).permute(2, 0, 1)[None]
        with torch.no_grad():
            cams = method.cams(tensor)[0]
            if flip:
                cams = cams + method.cams(tensor.flip(-1))[0].flip(-1)
        low = low + F.interpolate(cams[None], low_size, mode="bilinear", align_corners=False)[0]
        high = high + F.interpolate(cams[None], canvas, mode="bilinear", align_corners=False)[0]
    kept = torch.from_numpy(image_labels)
    low, high = low[kept], high[kept][:, :height, :width]
    return tuple(maps / (maps.amax((1, 2), keepdim=True) + 1e-5) for maps in (low, high))
