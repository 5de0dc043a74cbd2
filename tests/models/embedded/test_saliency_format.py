from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from wsss.errors import WeightsError
from wsss.models.embedded import SALIENCY_FOLDER
from wsss.models.embedded.saliency_format import (
    check_saliency_target,
    load_saliency_net,
    new_saliency_net,
    normalised,
    save_saliency_net,
)
from wsss.models.embedded.saliency_training import SaliencySettings


def random_net(seed: int) -> torch.nn.Module:
    net = new_saliency_net(seed)
    torch.nn.init.normal_(net.head.weight, generator=torch.Generator().manual_seed(seed))
    return net.eval()


def test_the_shipped_folder_is_small_and_says_what_made_it() -> None:
    assert sorted(path.name for path in SALIENCY_FOLDER.iterdir()) == ["config.json", "model.safetensors"]
    assert sum(path.stat().st_size for path in SALIENCY_FOLDER.iterdir()) <= 1_000_000
    weights = load_file(SALIENCY_FOLDER / "model.safetensors")
    assert {value.dtype for value in weights.values()} == {torch.float16}
    made = json.loads((SALIENCY_FOLDER / "config.json").read_text())["made"]
    settings = SaliencySettings()
    assert made["command"] == "wsss embedded train saliency --seed 0"
    assert {name: made[name] for name in vars(settings)} == vars(settings)
    assert sum(weight.numel() for weight in load_saliency_net(SALIENCY_FOLDER).parameters()) <= 450_000


@pytest.mark.parametrize("size", [(96, 96), (32, 32), (33, 47), (50, 130), (7, 5)])
def test_images_of_any_size_keep_it(size: tuple[int, int]) -> None:
    with torch.no_grad():
        assert random_net(0)(torch.randn(2, 3, *size)).shape == (2, 1, *size)


def test_padding_repeats_the_border() -> None:
    net = random_net(1)
    images = torch.randn(1, 3, 40, 60)
    below = images[:, :, -1:].expand(-1, -1, 8, -1)
    padded = torch.cat([images, below], dim=2)
    right = padded[..., -1:].expand(-1, -1, -1, 4)
    padded = torch.cat([padded, right], dim=3)  # 48 x 64, multiples of 16
    with torch.no_grad():
        torch.testing.assert_close(net(images), net(padded)[..., :40, :60])


def test_every_pixel_sees_its_own_place() -> None:
    """A change of the image by the network's stride moves its answer by as much, far from the borders."""
    net = random_net(2)
    images = torch.randn(1, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        first, moved = net(images), net(images.roll(16, dims=2))
    assert first.std() > 0.01
    # 112 pixels from every border, a pixel no longer sees where the image was torn
    torch.testing.assert_close(
        first[..., 112:128, 120:136], moved[..., 128:144, 120:136], atol=1e-3, rtol=1e-3
    )


def test_pixels_are_normalised_as_imagenet_s() -> None:
    pixels = torch.tensor([0, 128, 255]).view(1, 1, 1, 3)
    expected = [(0 - 0.485) / 0.229, (128 / 255 - 0.456) / 0.224, (1 - 0.406) / 0.225]
    assert normalised(pixels).flatten().tolist() == pytest.approx(expected, rel=1e-5)


def test_a_saved_detector_comes_back(tmp_path: Path) -> None:
    net = random_net(3)
    save_saliency_net(tmp_path / "mine", net, {"seed": 3})
    back = load_saliency_net(tmp_path / "mine")
    assert not back.training
    for name, value in net.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(back.state_dict()[name], value.half().float()), name
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    save_saliency_net(tmp_path / "mine", random_net(4), {})  # replaces it


def test_folders_with_other_things_are_kept(tmp_path: Path) -> None:
    check_saliency_target(tmp_path)  # empty
    check_saliency_target(tmp_path / "new")
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    for target in (tmp_path, tmp_path / "config.json"):
        with pytest.raises(WeightsError, match="holds something else"):
            check_saliency_target(target)


def test_other_weights_and_other_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="holds no saliency detector"):
        load_saliency_net(tmp_path)
    folder = save_saliency_net(tmp_path / "mine", random_net(5), {})
    state = load_file(folder / "model.safetensors")
    save_file(
        {name: value for name, value in state.items() if name != "head.bias"}, folder / "model.safetensors"
    )
    with pytest.raises(WeightsError, match="are not those of the network"):
        load_saliency_net(folder)
