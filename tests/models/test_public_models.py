"""Facts of public models, checked against the libraries that know their networks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torchvision.models import get_model_weights
from transformers import BlipConfig, BlipForQuestionAnswering, CLIPConfig, CLIPModel

from wsss.errors import WeightsError
from wsss.models import weights
from wsss.models.public_models import PUBLIC_MODELS

CLIPS = [name for name in PUBLIC_MODELS if name.startswith("clip")]
BLIPS = [name for name in PUBLIC_MODELS if name.startswith("blip")]


def tower(name: str, prefix: str) -> dict[str, int]:
    sizes = PUBLIC_MODELS[name].architecture
    return {key.removeprefix(prefix): value for key, value in sizes.items() if key.startswith(prefix)}


@pytest.mark.parametrize("name", CLIPS)
def test_sizes_of_clip_give_its_known_number_of_parameters(name: str) -> None:
    joint = PUBLIC_MODELS[name].architecture["projection_dim"]
    config = CLIPConfig(
        vision_config={**tower(name, "vision_"), "projection_dim": joint},
        text_config={**tower(name, "text_"), "projection_dim": joint},
        projection_dim=joint,
    )
    with torch.device("meta"):
        model = CLIPModel(config)
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count == PUBLIC_MODELS[name].parameters
    assert model.vision_model.config.patch_size == int(re.search(r"\d+$", name).group())  # type: ignore[union-attr]


def test_the_published_totals_of_clip() -> None:
    assert PUBLIC_MODELS["clip-vit-b32"].parameters == 151_277_313
    assert PUBLIC_MODELS["clip-vit-l14"].parameters == 427_616_513


@pytest.mark.parametrize("name", BLIPS)
def test_sizes_of_blip_give_its_known_number_of_parameters(name: str) -> None:
    vision, text = tower(name, "vision_"), tower(name, "text_")
    with torch.device("meta"):
        model = BlipForQuestionAnswering(BlipConfig(vision_config=vision, text_config=text))
    count = sum(parameter.numel() for parameter in model.parameters())
    untied = text["text_vocab_size".removeprefix("text_")] * text["hidden_size"]  # the decoder's last layer
    tied = PUBLIC_MODELS[name].parameters
    assert tied is not None
    assert count in (tied, tied + untied)  # versions of transformers differ in tying it without weights
    assert tied + untied == 384_672_572  # numbers in the published file, which holds both


@pytest.mark.parametrize("name", ["resnet50", "resnet101"])
def test_torchvisions_facts_are_torchvisions(name: str) -> None:
    published = get_model_weights(name)["IMAGENET1K_V1"]
    model = PUBLIC_MODELS[name]
    assert published.meta["num_params"] == model.parameters
    assert f"-{model.digest.removeprefix('sha256:')}.pth" in published.url
    assert weights._digest(model) == model.digest


def test_every_model_has_a_role_a_licence_and_a_place() -> None:
    for name, model in PUBLIC_MODELS.items():
        assert model.name == name
        assert model.role
        assert model.licence
        if model.source == "huggingface":
            assert re.fullmatch(r"[\w.-]+/[\w.-]+", model.identifier)
        else:
            assert re.fullmatch(r"(sha256|md5):[0-9a-f]{8,64}", model.digest)


def test_short_names_stand_for_hugging_face_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str | None]] = []

    def snapshot(repository: str, revision: str | None) -> Path:
        asked.append((repository, revision))
        return tmp_path

    monkeypatch.setattr(weights, "_cached_snapshot", snapshot)
    assert weights.find_weights("clip-vit-l14") == tmp_path
    assert asked == [("openai/clip-vit-large-patch14", None)]


def test_u2net_lies_where_rembg_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("U2NET_HOME", str(tmp_path))
    with pytest.raises(WeightsError, match=r"u2net\.onnx\).*`wsss weights fetch u2net`"):
        weights.find_weights("u2net")
    (tmp_path / "u2net.onnx").touch()
    assert weights.find_weights("u2net") == tmp_path / "u2net.onnx"
