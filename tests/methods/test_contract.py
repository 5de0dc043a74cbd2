"""What every method must do; new methods are found here without a word."""

from __future__ import annotations

import inspect
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from tests.fakes import FakeTeacher, ToyDataset, toy_answers
from torch import nn

from wsss.methods import Frozen, Method, find_method, list_methods
from wsss.models import build_backbone
from wsss.models.vgg_small import TagClassifier
from wsss.types import Batch

NAMES = ("background", "boat", "train", "cat")
SMALL = {"backbone": "resnet_small", "backbone_weights": None, "batch_norm": "live", "freeze_until": None}
METHODS = list_methods()
TOYS = ToyDataset(NAMES, {"x": (0, 1, 2)})


def helpers() -> Frozen:
    return Frozen(
        teacher=FakeTeacher(towards=0.3),
        tag_classifier=TagClassifier(build_backbone("vgg_small"), 3),
        answers=toy_answers(TOYS),
    )


def small(name: str) -> Method:
    """The method on a network that trains in a second, with all its frozen helpers."""
    cls = find_method(name)
    torch.manual_seed(0)
    known = {key: value for key, value in SMALL.items() if key in cls.Config.model_fields}
    method = cls(cls.Config(**known), NAMES, helpers())
    with tempfile.TemporaryDirectory() as folder:
        method.prepare(TOYS, ("x",), Path(folder))
    return method


def squares(method: Method | None = None, *, count: int = 6, size: int = 32) -> Batch:
    """Grey images with one bright square of the class's own colour each, and what `method` reads beside them.

    Its inputs of every pixel are 1 on the square and 0 around it.
    """
    images = 0.1 * torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(5))
    labels = torch.zeros(count, 3, dtype=torch.bool)
    shown = torch.zeros(count, size, size)
    for index in range(count):
        labels[index, index % 3] = True
        images[index, index % 3, 8:24, 4 + index : 20 + index] += 2
        shown[index, 8:24, 4 + index : 20 + index] = 1
    names = () if method is None else method.pixel_inputs(method.config)
    valid = torch.ones(count, size, size, dtype=torch.bool)
    return Batch(images, labels, ("x",) * count, valid, dict.fromkeys(names, shown))


def test_there_are_methods() -> None:
    assert {"cam", "clims", "qa_clims", "smvwe"} <= set(METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_it_builds_from_its_defaults_and_presets(name) -> None:
    cls = find_method(name)
    for preset in ({}, *cls.presets.values()):
        without_weights = {"backbone_weights": None} if "backbone_weights" in cls.Config.model_fields else {}
        with torch.device("meta"):
            method = cls(cls.Config(**{**preset, **without_weights}), NAMES, Frozen())
        assert method.num_foreground == 3


@pytest.mark.parametrize("name", METHODS)
def test_losses_are_finite_scalars_with_a_gradient_for_every_trained_weight(name) -> None:
    method = small(name).train()
    losses = method.losses(squares(method))
    assert losses
    for term, value in losses.items():
        assert value.ndim == 0, term
        assert value.dtype == torch.float32, term
        assert torch.isfinite(value), term
    sum(losses.values()).backward()
    for weight, parameter in method.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, weight
            assert torch.isfinite(parameter.grad).all(), weight
            assert parameter.grad.any(), weight


@pytest.mark.parametrize("name", METHODS)
def test_cams_are_non_negative_and_deterministic_in_evaluation(name) -> None:
    method, images = small(name).eval(), squares().images
    cams = method.cams(images)
    stride = images.shape[-1] // cams.shape[-1]
    assert cams.shape == (6, 3, images.shape[2] // stride, images.shape[3] // stride)
    assert cams.min() >= 0
    assert torch.equal(cams, method.cams(images))
    alone = torch.cat([method.cams(image[None]) for image in images])
    assert torch.allclose(cams, alone, atol=1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_modes_really_switch(name) -> None:
    method = small(name)
    assert all(part.training for part in method.train().modules())
    assert not any(part.training for part in method.eval().modules())
    before = {key: value.clone() for key, value in method.state_dict().items()}
    method.cams(squares().images)
    assert all(torch.equal(value, before[key]) for key, value in method.state_dict().items())


@pytest.mark.parametrize("name", METHODS)
def test_the_loss_falls_in_20_steps(name) -> None:
    method = small(name).train()
    batch = squares(method)
    optimizer = torch.optim.AdamW(method.parameter_groups(1e-3))
    totals = []
    for _ in range(20):
        total = sum(method.losses(batch).values())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        totals.append(float(total.detach()))
    assert min(totals[-3:]) < totals[0] - 1e-3 * abs(totals[0])


@pytest.mark.parametrize("name", METHODS)
def test_the_state_travels_without_frozen_weights(name) -> None:
    method, other = small(name), small(name)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1)
    method.losses(squares(method))  # whatever is cached at first use must not travel
    state = method.state_dict()
    frozen = {id(p) for h in vars(method.frozen).values() if isinstance(h, nn.Module) for p in h.parameters()}
    assert not frozen & {id(p) for p in method.parameters()}
    assert not any("frozen" in key or "teacher" in key for key in state)
    other.load_state_dict(state)
    images = squares().images
    assert torch.equal(method.eval().cams(images), other.eval().cams(images))


@pytest.mark.parametrize("name", METHODS)
def test_visual_words_have_a_place_and_a_class(name) -> None:
    method = small(name).eval()
    number = method.num_words(method.config)
    if not number:
        return
    images = squares().images
    labels, classes = method.word_labels(images), method.word_classes()
    assert labels.shape == (6, *method.cams(images).shape[2:])
    assert 0 <= int(labels.min()) <= int(labels.max()) < number
    assert classes.shape == (number,)
    assert 0 <= int(classes.min()) <= int(classes.max()) <= method.num_foreground


@pytest.mark.parametrize("name", METHODS)
def test_groups_hold_every_trained_weight_once(name) -> None:
    method = small(name)
    grouped = [id(p) for group in method.parameter_groups(0.1) for p in group["params"]]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == {id(p) for p in method.parameters() if p.requires_grad}


@pytest.mark.parametrize("name", METHODS)
def test_it_is_documented(name) -> None:
    cls = find_method(name)
    assert cls.paper.title
    assert cls.paper.url.startswith("https://")
    assert inspect.getdoc(sys.modules[cls.__module__])
    text = inspect.getdoc(cls)
    for section in ("Args:", "Source:", "Differs:"):
        assert section in text, section
    for key, field in cls.Config.model_fields.items():
        assert field.description, key
    assert cls.supervision in ("I", "I+L", "I+S")
