from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from tests.fakes import FakeTeacher
from tests.methods.oracle_clims import clims_losses
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from wsss.errors import RecipeError, WeightsError
from wsss.layers import text_matching as matching
from wsss.methods.base import Frozen
from wsss.methods.cam import Cam, CamConfig
from wsss.methods.clims import Clims, ClimsConfig
from wsss.models import build_backbone
from wsss.models.vgg_small import TagClassifier
from wsss.types import Batch, ClassInfo

NAMES = ("background", "boat", "train", "sofa")
LABELS = torch.tensor(
    [[True, True, False], [False, False, False], [False, False, True], [True, False, False]]
)
SMALL = {"backbone": "resnet_small", "freeze_until": None}


def batch_of(labels: Tensor = LABELS, size: int = 32) -> Batch:
    images = torch.randn(len(labels), 3, size, size, generator=torch.Generator().manual_seed(1))
    valid = torch.ones(len(labels), size, size, dtype=torch.bool)
    return Batch(images, labels, tuple(map(str, range(len(labels)))), valid)


def clims(teacher: FakeTeacher | None = None, *, preset: str = "improved", **changes) -> Clims:
    torch.manual_seed(0)
    config = ClimsConfig(**{**Clims.presets[preset], **SMALL, **changes})
    return Clims(config, NAMES, Frozen(teacher=teacher or FakeTeacher()))


def losses_at(method: Clims, batch: Batch, maps: Tensor, monkeypatch) -> dict[str, Tensor]:
    """The method's losses for given maps, whatever its network would say."""
    monkeypatch.setattr(method, "class_logits", lambda images: torch.zeros(()))
    monkeypatch.setattr(method, "_probabilities", lambda logits: maps)
    return method.losses(batch)


# One step against the slow reference


@pytest.mark.parametrize("preset", ["improved", "camera_ready"])
def test_one_step_agrees_with_the_slow_reference(preset, monkeypatch) -> None:
    torch.manual_seed(3)
    teacher = FakeTeacher(towards=0.7)
    changes = {"head": "classifier"} if preset == "camera_ready" else {"cbs_threshold": 0.7}
    method = clims(teacher, preset=preset, **changes)
    batch, maps = batch_of(), torch.rand(4, 3, 5, 6, requires_grad=True)
    config = method.config
    slow_maps = maps.detach().double().requires_grad_()
    lists = {
        "improved": dict.fromkeys(range(3), config.background_texts),
        "camera_ready": {
            0: ("river", "water", "lake", "sea", "building"),
            1: ("railroad", "railway", "branches", "tree"),
        },
    }[preset]
    template = "a photo of {}." if preset == "improved" else "a photo of {}"
    expected = clims_losses(
        batch.images,
        batch.image_labels,
        slow_maps,
        teacher,
        prompts=[template.format(name) for name in NAMES[1:]],
        backgrounds={k: [template.format(text) for text in texts] for k, texts in lists.items()},
        weights={
            "improved": {"OTM": 10, "BTM": 24, "CBS": 1, "REG": 0.2},
            "camera_ready": {"OTM": 10, "BTM": 25, "CBS": 29.5, "REG": 1.15},
        }[preset],
        variant=preset,
        class_weights={2: 3.0},
        threshold=0.7,
    )
    got = losses_at(method, batch, maps, monkeypatch)
    assert list(got) == ["OTM", "BTM", "CBS", "REG"]
    for name, value in expected.items():
        assert float(value.detach()) > 0
        assert float(got[name].detach()) == pytest.approx(float(value.detach()), rel=1e-5), name
    (gradient,) = torch.autograd.grad(sum(got.values()), maps)
    (slow_gradient,) = torch.autograd.grad(sum(expected.values()), slow_maps)
    scale = float(slow_gradient.abs().max())
    assert float((gradient - slow_gradient).abs().max()) < 1e-4 * min(1.0, scale)


def test_golden_values_of_background_suppression() -> None:
    method = clims(background_texts=("sea", "rail"))
    similarity = torch.tensor([[0.30, 0.20], [0.26, 0.27]])
    columns = torch.tensor([0, 1])
    assert float(method.background_suppression(similarity, columns)) == pytest.approx(0.671386, abs=1e-6)
    ready = clims(preset="camera_ready", head="classifier")
    boat = torch.tensor([[0.2, 0.25, 0.3, 0.1, 0.15, 0.9, 0.9, 0.9, 0.9]])  # the last four are the train's
    assert float(ready.background_suppression(boat, torch.tensor([0]))) == pytest.approx(0.227076, abs=1e-6)
    assert float(ready.background_suppression(boat, torch.tensor([2]))) == 0  # the sofa has no list


def test_the_threshold_excludes_equality_and_carries_no_gradient() -> None:
    method = clims(background_texts=("sea",), cbs_threshold=0.25)
    similarity = torch.tensor([[0.25], [0.5], [0.2]], requires_grad=True)
    loss = method.background_suppression(similarity, torch.tensor([0, 0, 0]))
    assert float(loss.detach()) == pytest.approx(-torch.log(torch.tensor(0.5)).item())
    (gradient,) = torch.autograd.grad(loss, similarity)
    assert gradient.flatten().tolist() == [0, pytest.approx(2.0), 0]


def test_lists_class_by_class_count_for_their_class_only_with_a_threshold_too() -> None:
    method = clims(background_texts={"boat": ("sea", "tree"), "train": ("tree",)}, cbs_threshold=0.25)
    similarity = torch.tensor([[0.5, 0.5]])
    halves = [float(method.background_suppression(similarity, torch.tensor([k]))) for k in range(3)]
    assert halves == [pytest.approx(1.386294), pytest.approx(0.693147), 0]


def test_background_suppression_is_not_clamped_below() -> None:
    method = clims(background_texts=("sea",), cbs_threshold=None)
    loss = method.background_suppression(torch.tensor([[-0.5]]), torch.tensor([0]))
    assert float(loss) == pytest.approx(-0.405465, abs=1e-6)


def test_per_pair_reduction_does_not_depend_on_the_number_of_pairs() -> None:
    method = clims(background_texts=("sea",), cbs_reduction="per_pair", reference_pairs=10)
    one, columns = torch.tensor([[0.5]]), torch.zeros(1, dtype=torch.int64)
    first = method.background_suppression(one, columns)
    again = method.background_suppression(one.repeat(4, 1), columns.repeat(4))
    assert float(first) == pytest.approx(float(again)) == pytest.approx(6.931472)


# Work per step


def test_each_pair_is_encoded_twice_in_one_call_and_texts_only_once() -> None:
    teacher = FakeTeacher()
    method = clims(teacher)
    for _ in range(3):
        method.losses(batch_of())
    assert teacher.image_calls == [2 * 4] * 3
    assert teacher.texts == [f"a photo of {t}." for t in (*NAMES[1:], *method.config.background_texts)]


def test_only_the_pairs_maps_are_upsampled(monkeypatch) -> None:
    shapes, resize = [], matching.resized_with_corners
    monkeypatch.setattr(
        matching,
        "resized_with_corners",
        lambda planes, size: (shapes.append(tuple(planes.shape)), resize(planes, size))[1],
    )
    clims().losses(batch_of())
    assert shapes == [(4, 3, 32, 32), (4, 1, 4, 4)]  # the images, then 4 pairs of 12 maps


def test_the_teacher_never_gets_a_gradient() -> None:
    teacher = FakeTeacher()
    method = clims(teacher)
    sum(method.losses(batch_of()).values()).backward()
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())
    assert not teacher.training
    method.train()
    assert not teacher.training


@pytest.mark.parametrize(
    ("off", "terms", "encoded"),
    [
        ({"cbs_weight": 0}, ["OTM", "BTM", "REG"], [8]),
        ({"reg_weight": 0}, ["OTM", "BTM", "CBS"], [8]),
        ({"btm_weight": 0, "cbs_weight": 0}, ["OTM", "REG"], [4]),
        ({"otm_weight": 0, "cbs_weight": 0, "reg_weight": 0}, ["BTM"], [4]),
        ({"otm_weight": 0, "btm_weight": 0, "cbs_weight": 0}, ["REG"], []),
    ],
)
def test_a_term_that_is_off_costs_nothing_and_leaves_the_others_alone(off, terms, encoded) -> None:
    teacher = FakeTeacher()
    torch.manual_seed(0)
    every = clims(teacher).losses(batch_of())
    teacher.image_calls.clear()
    some = clims(teacher, **off).losses(batch_of())
    assert list(some) == terms
    assert teacher.image_calls == encoded
    for name, value in some.items():
        assert float(value.detach()) == pytest.approx(float(every[name].detach()), rel=1e-6)


def test_all_terms_off_is_an_error() -> None:
    with pytest.raises(ValidationError, match="all losses are switched off"):
        ClimsConfig(otm_weight=0, btm_weight=0, cbs_weight=0, reg_weight=0)


# Robustness


def test_a_batch_without_any_label_trains_on() -> None:
    teacher = FakeTeacher()
    method = clims(teacher)
    losses = method.losses(batch_of(torch.zeros(2, 3, dtype=torch.bool)))
    assert teacher.image_calls == []
    assert {name: float(value.detach()) for name, value in losses.items() if name != "REG"} == {
        "OTM": 0,
        "BTM": 0,
        "CBS": 0,
    }
    assert all(value.requires_grad for value in losses.values())
    sum(losses.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in method.parameters() if p.requires_grad)
    assert bool(method.classifier.weight.grad.any())


def test_one_pair_is_enough() -> None:
    losses = clims().losses(batch_of(LABELS[2:3]))
    assert all(value.ndim == 0 and torch.isfinite(value) for value in losses.values())


@pytest.mark.parametrize("similarity", ["clamp", "raw", "shifted", "tangent"])
@pytest.mark.parametrize("threshold", [None, 0.0])
def test_negative_cosines_give_finite_losses_and_gradients(similarity, threshold) -> None:
    teacher = FakeTeacher()
    teacher.encode_texts = lambda texts: -torch.ones(len(texts), 8)
    teacher.encode_images = lambda images: torch.ones(len(images), 8) + 0 * images.sum()
    method = clims(teacher, similarity=similarity, cbs_threshold=threshold)
    losses = method.losses(batch_of())
    sum(losses.values()).backward()
    assert all(torch.isfinite(value) for value in losses.values())
    assert all(torch.isfinite(p.grad).all() for p in method.parameters() if p.requires_grad)


def test_losses_are_float32_under_autocast_and_close_to_full_precision() -> None:
    method = clims(FakeTeacher(towards=0.5), cbs_threshold=None).eval()
    batch = batch_of()
    exact = method.losses(batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = method.losses(batch)
        assert method.class_logits(batch.images).dtype == torch.bfloat16
    for name, value in exact.items():
        assert rough[name].dtype == torch.float32
        assert float(rough[name].detach()) == pytest.approx(float(value.detach()), rel=2e-2), name


def test_texts_encoded_under_autocast_are_the_same() -> None:
    teacher = FakeTeacher()
    first, second = clims(teacher), clims(teacher)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = first.tables.features(teacher)
    assert torch.equal(half[0], second.tables.features(teacher)[0])
    assert half[0].dtype == torch.float32


def test_clip_norm_converts_exactly_before_masking() -> None:
    seen = []

    class Watching(FakeTeacher):
        def encode_images(self, images: Tensor) -> Tensor:
            seen.append(images.detach())
            return super().encode_images(images)

    batch = batch_of()
    clims(Watching()).losses(batch)
    clims(Watching(), clip_norm="convert").losses(batch)
    as_input, converted = seen
    pairs = matching.positive_pairs(LABELS)
    teacher = Watching()
    whole = as_input[:4] + as_input[4:]
    expected = matching.renormalised(whole, (Clims.mean, Clims.std), (teacher.mean, teacher.std))
    assert len(pairs) == 4
    assert torch.allclose(converted[:4] + converted[4:], expected, atol=1e-5)
    mask = (as_input[:4] / whole).mean(dim=1, keepdim=True)
    assert torch.allclose(converted[:4], expected * mask, atol=1e-2)


# Network, variants and texts


def test_camera_ready_has_a_residual_head_and_an_idle_first_channel(monkeypatch) -> None:
    method = clims(preset="camera_ready")
    assert method.classifier.weight.shape == (4, 128, 1, 1)
    batch = batch_of()
    sum(method.losses(batch).values()).backward()
    gradient = method.classifier.weight.grad
    assert not gradient[0].any()
    assert all(bool(gradient[k].any()) for k in (1, 2, 3))
    raw = method.eval().classifier(method.head(method.backbone(batch.images)))
    assert torch.allclose(method.cams(batch.images), raw[:, 1:].relu())
    assert method.mean == (0.48145466, 0.4578275, 0.40821073)


def test_optimiser_groups_of_the_variants() -> None:
    improved = clims(freeze_until=0)
    backbone, head = improved.parameter_groups(0.1)
    assert (backbone["lr"], head["lr"]) == (0.1, pytest.approx(1.0))
    assert [p.shape for p in head["params"]] == [(3, 128, 1, 1)]
    grouped = {id(p) for group in (backbone, head) for p in group["params"]}
    stem = {id(p) for p in improved.backbone.stem.parameters()}
    assert not grouped & stem
    assert grouped | stem == {id(p) for p in improved.parameters()}
    assert any(
        id(p) in grouped for m in improved.modules() if isinstance(m, _BatchNorm) for p in m.parameters()
    )

    ready = clims(preset="camera_ready")
    groups = ready.parameter_groups(0.1)
    assert {group["lr"] for group in groups} == {0.1}
    grouped = {id(p) for group in groups for p in group["params"]}
    affine = {id(p) for m in ready.modules() if isinstance(m, _BatchNorm) for p in m.parameters()}
    assert not grouped & affine
    assert grouped | affine == {id(p) for p in ready.parameters()}


def test_camera_ready_resnet50_trains_57_convolutions_only() -> None:
    config = ClimsConfig(**Clims.presets["camera_ready"])
    with torch.device("meta"):
        method = Clims(config, NAMES, Frozen())
    params = [p for group in method.parameter_groups(1.0) for p in group["params"]]
    assert len(params) == 53 + 3 + 1
    assert all(p.ndim == 4 for p in params)


def test_live_batch_norm_of_the_frozen_stem_still_moves_its_statistics() -> None:
    method = clims(freeze_until=0)
    before = method.backbone.stem[1].running_mean.clone()
    method.train().losses(batch_of())
    assert not torch.equal(before, method.backbone.stem[1].running_mean)


def test_it_starts_from_a_cam_of_the_same_network() -> None:
    cam = Cam(CamConfig(**SMALL, backbone_weights=None, batch_norm="live"), NAMES, Frozen())
    state = cam.state_dict()
    method = clims()
    method.initialise(state)
    images = batch_of().images
    assert torch.equal(method.eval().cams(images), cam.eval().cams(images))

    ready = clims(preset="camera_ready")
    head = ready.classifier.weight.clone()
    ready.initialise(state)
    assert torch.equal(ready.classifier.weight, head)
    assert torch.equal(ready.backbone.stem[0].weight, cam.backbone.stem[0].weight)


def test_weights_of_other_classes_or_networks_are_refused() -> None:
    other = Cam(CamConfig(**SMALL, backbone_weights=None, batch_norm="live"), NAMES[:3], Frozen())
    with pytest.raises(WeightsError, match=r"classifier\.weight"):
        clims().initialise(other.state_dict())
    state = {n: v for n, v in other.state_dict().items() if "stem" not in n}
    for preset in ("improved", "camera_ready"):
        with pytest.raises(WeightsError, match=r"backbone\.stem"):
            clims(preset=preset).initialise(state)


def test_export_and_offset() -> None:
    images = batch_of().images
    method = clims(export="sigmoid", logit_offset=4.0).eval()
    logits = method.class_logits(images)
    assert torch.allclose(method.cams(images), torch.sigmoid(logits - 4))
    relu = clims(logit_offset=4.0).eval()
    assert torch.equal(relu.cams(images), logits.relu())
    loss = clims(logit_offset=4.0).eval().losses(batch_of())["REG"]
    expected = 0.2 * torch.sigmoid(logits - 4).mean()
    assert torch.allclose(loss, expected, rtol=1e-5)


def test_texts_come_from_recipe_data_set_and_publication() -> None:
    method = clims()
    assert method.tables.prompts == ("boat", "train", "sofa")
    assert method.tables.listed.all()
    classes = [ClassInfo("boat", prompt="ship", background_texts=("sea",)), ClassInfo("house")]
    config = ClimsConfig(**SMALL).with_class_texts(classes)
    assert config.class_prompts == {"boat": "ship", "house": "house"}
    assert config.background_texts == {"boat": ("sea",)}
    assert config.with_class_texts([ClassInfo("boat"), ClassInfo("house")]) == config
    method = Clims(config, ("background", "boat", "house"), Frozen())
    assert method.tables.listed.tolist() == [[True], [False]]


def test_class_weights_follow_the_class_whatever_its_spelling() -> None:
    config = ClimsConfig(**Clims.presets["camera_ready"]).with_class_texts(
        [ClassInfo("dining table"), ClassInfo("cat"), ClassInfo("boat")]
    )
    assert config.class_weights == {"dining table": 3.0}
    assert clims(preset="camera_ready").pair_weights.tolist() == [1, 1, 3]
    assert clims().pair_weights.tolist() == [1, 1, 1]


@pytest.mark.parametrize("key", ["background_texts", "class_weights", "class_prompts"])
def test_an_unknown_class_in_a_mapping_is_an_error(key) -> None:
    value = {
        "background_texts": {"bout": ("sea",)},
        "class_weights": {"bout": 2.0},
        "class_prompts": {"bout": "x"},
    }
    with pytest.raises(RecipeError, match=f"`{key}` names the class `bout`"):
        clims(**{key: value[key]})


def test_background_suppression_without_backgrounds_is_an_error_unless_it_is_off() -> None:
    names = ("background", "house", "lamp")
    with pytest.raises(RecipeError, match="CBS needs names of backgrounds"):
        Clims(ClimsConfig(**SMALL), names, Frozen())
    method = Clims(ClimsConfig(**SMALL, cbs_weight=0), names, Frozen(teacher=FakeTeacher()))
    assert list(method.losses(batch_of(LABELS[:, :2]))) == ["OTM", "BTM", "REG"]


def test_a_template_needs_its_place_for_the_name() -> None:
    with pytest.raises(ValidationError, match="prompt_template"):
        ClimsConfig(prompt_template="a photo")


def test_training_without_a_teacher_says_so_but_maps_need_none() -> None:
    method = Clims(ClimsConfig(**SMALL), NAMES, Frozen())
    assert method.cams(batch_of().images).shape == (4, 3, 4, 4)
    with pytest.raises(RecipeError, match="image-text teacher"):
        method.losses(batch_of())


# The tag classifier as evaluator


def test_a_frozen_tag_classifier_can_be_the_judge() -> None:
    torch.manual_seed(0)
    classifier = TagClassifier(build_backbone("vgg_small"), 3)
    config = ClimsConfig(**SMALL, evaluator="tag_classifier", reg_weight=0)
    assert Clims.needs(config) == ("tag_classifier",)
    assert Clims.needs(ClimsConfig()) == ("teacher",)
    method = Clims(config, NAMES, Frozen(tag_classifier=classifier))
    batch = batch_of()
    losses = method.losses(batch)
    assert list(losses) == ["CLS"]
    losses["CLS"].backward()
    assert all(p.grad is None for p in classifier.parameters())
    assert bool(method.classifier.weight.grad.any())

    method.eval()
    maps = torch.sigmoid(method.class_logits(batch.images))
    slow = []
    for n, k in LABELS.nonzero().tolist():
        mask = torch.nn.functional.interpolate(
            maps[n, k][None, None], size=(32, 32), mode="bilinear", align_corners=True
        )
        logit = classifier(batch.images[n][None] * mask)[0, k]
        slow.append(torch.log(1 + torch.exp(-logit)))
    assert torch.allclose(method.losses(batch)["CLS"], 10 * sum(slow) / len(slow), rtol=1e-5)
    none = method.losses(batch_of(torch.zeros(2, 3, dtype=torch.bool)))["CLS"]
    assert float(none.detach()) == 0
    assert none.requires_grad
