"""The embedded saliency detector as a network and as files: `config.json` and `model.safetensors`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsss.errors import WeightsError
from wsss.models.backbone import conv_bn_relu, initialise_convolutions
from wsss.models.embedded.compose import IMAGE_MEAN, IMAGE_STD
from wsss.training.checkpoint import atomic_folder, load_state, save_state

CONFIG: Final = "config.json"
WEIGHTS: Final = "model.safetensors"
MODEL_TYPE: Final = "wsss-saliency"
WIDTHS: Final = (24, 48, 64, 96)  # channels at 1/2, 1/4, 1/8 and 1/16 of the image's size
LARGEST_WIDTH: Final = 1_024
STRIDE: Final = 2 * 2 ** (len(WIDTHS) - 1)  # image sizes are padded to multiples of it
LEAST_SIZE: Final = 32  # pixels; smaller images are padded to it
WORKING_SIZE: Final = 96  # pixels of the longer side for which the shipped detector is trained


class SaliencyNet(nn.Module):
    """A small U-Net that gives each pixel the logit of belonging to a thing that stands out.

    The image is rearranged to a quarter as many pixels of four times as many values, goes down three times by
    strided convolutions and up again by bilinear resizes, with what was seen on the way down beside it; four
    logits for each pixel of the finest grid are rearranged to the image's size.

    Source: U-Net, Ronneberger et al., MICCAI 2015, https://arxiv.org/abs/1505.04597.
    Differs: batch norm, strided convolutions in place of pooling, padding, a half-size grid, few channels.

    Args:
        widths: channels of the four grids, finest first.
    """

    def __init__(self, widths: tuple[int, int, int, int] = WIDTHS) -> None:
        super().__init__()
        self.widths = widths
        first, *others = widths
        inputs = [first, *others[:-1]]
        self.stem = nn.Sequential(conv_bn_relu(12, first), conv_bn_relu(first, first))
        self.down = nn.ModuleList(
            nn.Sequential(conv_bn_relu(fine, coarse, stride=2), conv_bn_relu(coarse, coarse))
            for fine, coarse in zip(inputs, others, strict=True)
        )
        self.up = nn.ModuleList(
            conv_bn_relu(fine + coarse, fine) for fine, coarse in zip(inputs, others, strict=True)
        )
        self.head = nn.Conv2d(first, 4, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, 1, H, W) of normalised images (B, 3, H, W), whatever their size."""
        height, width = images.shape[-2:]
        below, right = (max(LEAST_SIZE, -(-side // STRIDE) * STRIDE) - side for side in (height, width))
        padded = F.pad(images, (0, right, 0, below), mode="replicate")
        taps = [self.stem(F.pixel_unshuffle(padded, 2))]  # (B, 24, H / 2, W / 2)
        for block in self.down:
            taps.append(block(taps[-1]))
        features = taps.pop()  # (B, 96, H / 16, W / 16)
        for block in reversed(self.up):
            fine = taps.pop()
            wide = F.interpolate(features, size=fine.shape[-2:], mode="bilinear", align_corners=False)
            features = block(torch.cat([wide, fine], dim=1))
        logits: Tensor = F.pixel_shuffle(self.head(features), 2)  # (B, 1, H, W)
        return logits[..., :height, :width]


def new_saliency_net(seed: int) -> SaliencyNet:
    """A network with random weights: about 0.4 million parameters."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = SaliencyNet()
        initialise_convolutions(net)
        # from zero, all weights first learn that most pixels show no thing, and features of things die
        nn.init.normal_(net.head.weight, std=0.1)
        assert net.head.bias is not None
        nn.init.constant_(net.head.bias, -2.0)  # about one pixel in eight belongs to a thing
    return net


def normalised(pixels: Tensor) -> Tensor:
    """Pixels in 0-255, (B, H, W, 3), as the network's input, (B, 3, H, W)."""
    mean, std = (torch.tensor(values, device=pixels.device) for values in (IMAGE_MEAN, IMAGE_STD))
    return ((pixels.float() / 255 - mean) / std).permute(0, 3, 1, 2).contiguous()


def check_saliency_target(folder: Path) -> None:
    """Make sure that a detector can be written to `folder` without loss.

    Raises:
        WeightsError: it is a file, or a folder that holds anything but a detector.
    """
    if folder.is_dir() and (not any(folder.iterdir()) or _is_detector(folder)):
        return
    if folder.exists():
        raise WeightsError(
            f"{folder} is to become a saliency detector's folder, but holds something else. "
            "Give a folder that does not exist yet, such as `--out saliency/mine`."
        )


def save_saliency_net(folder: Path, net: SaliencyNet, about: Mapping[str, Any]) -> Path:
    """Write the detector in half precision, complete or not at all.

    Args:
        folder: made anew; an older detector there is replaced.
        net: trained in float32.
        about: how it was made; becomes part of `config.json`.
    """
    check_saliency_target(folder)
    config = {
        "model_type": MODEL_TYPE,
        "widths": list(net.widths),
        "image_size": WORKING_SIZE,
        "image_mean": list(IMAGE_MEAN),
        "image_std": list(IMAGE_STD),
        "made": dict(about),
    }
    state = {
        name: value.half() if value.is_floating_point() else value
        for name, value in net.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    with atomic_folder(folder) as unfinished:
        save_state(unfinished / WEIGHTS, state)
        (unfinished / CONFIG).write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    return folder


def load_saliency_net(folder: Path) -> SaliencyNet:
    """Read a detector's folder; in float32, on the CPU, in evaluation mode.

    Raises:
        WeightsError: the folder holds no detector of this format, or its weights do not fit.
    """
    if not _is_detector(folder):
        raise WeightsError(
            f"{folder} holds no saliency detector of the embedded format (a {CONFIG} with `model_type` "
            f"`{MODEL_TYPE}`). Make one with `wsss embedded train saliency --out {folder.name}`."
        )
    net = SaliencyNet(_widths(folder))
    state = load_state(folder / WEIGHTS)[0]
    own = {k: v.shape for k, v in net.state_dict().items() if not k.endswith("num_batches_tracked")}
    if {name: value.shape for name, value in state.items()} != own:
        raise WeightsError(
            f"The weights in {folder} are not those of the network that its {CONFIG} describes. "
            "Make the detector again with `wsss embedded train saliency`."
        )
    net.load_state_dict({name: value.float() for name, value in state.items()}, strict=False)
    return net.eval()


def _widths(folder: Path) -> tuple[int, int, int, int]:
    """What the configuration says of the network."""
    found = json.loads((folder / CONFIG).read_text(encoding="utf-8")).get("widths")
    are_numbers = isinstance(found, list) and all(type(width) is int for width in found)
    if not are_numbers or len(found) != len(WIDTHS) or not 1 <= min(found) <= max(found) <= LARGEST_WIDTH:
        raise WeightsError(
            f"`widths` in {folder / CONFIG} must be {len(WIDTHS)} numbers of channels; got "
            f"{str(found)[:80]}. Make the detector again with `wsss embedded train saliency`."
        )
    first, second, third, fourth = found
    return first, second, third, fourth


def _is_detector(folder: Path) -> bool:
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(config, dict) and config.get("model_type") == MODEL_TYPE
