from __future__ import annotations

import math

import pytest
import torch
from pydantic import ValidationError
from tests.methods.oracle_smvwe import smvwe_losses
from torch import Tensor

from wsss.errors import RecipeError, ShapeError, WeightsError
from wsss.layers.pooling import hybrid_pyramid_pooling
from wsss.methods.base import Frozen
from wsss.methods.cam import Cam, CamConfig
from wsss.methods.smvwe import Smvwe, SmvweConfig
from wsss.types import Batch

NAMES = ("background", "boat", "train", "sofa")
LABELS = torch.tensor([[True, True, False], [False, False, False], [False, False, True]])
SMALL = {
    "backbone": "resnet_small",
    "backbone_weights": None,
    "freeze_until": None,
    "batch_norm": "live",
    "num_words": 6,
}
TERMS = ["classification", "words", "words_to_image", "saliency"]


def batch_of(labels: Tensor = LABELS, size: int = 32, *, saliency: bool = True) -> Batch:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(len(labels), 3, size, size, generator=generator)
    valid = torch.ones(len(labels), size, size, dtype=torch.bool)
    aligned = {"saliency": torch.rand(len(labels), size, size, generator=generator)} if saliency else {}
    return Batch(images, labels, tuple(map(str, range(len(labels)))), valid, aligned)


def smvwe(preset: str = "rec", **changes) -> Smvwe:
    torch.manual_seed(0)
    return Smvwe(SmvweConfig(**{**Smvwe.presets[preset], **SMALL, **changes}), NAMES, Frozen())


def with_features(method: Smvwe, features: Tensor, monkeypatch) -> None:
    monkeypatch.setattr(method.backbone, "forward", lambda images: features)


# One step against the slow reference


@pytest.mark.parametrize("preset", ["rec", "coco", "paper"])
def test_one_step_agrees_with_the_slow_reference(preset, monkeypatch) -> None:
    literal = {"classification_weight": 1.0} if preset == "paper" else {}
    weighted = {"words_weight": 0.5, "words_to_image_weight": 2.0, "saliency_weight": 3.0}
    method = smvwe(preset, **literal, **weighted)
    torch.manual_seed(4)
    with torch.no_grad():  # far from the start, so that maps pass 0.5 and words differ
        method.classifier.weight.copy_(0.4 * torch.randn_like(method.classifier.weight))
        method.words.codebook.copy_(0.1 * torch.randn_like(method.words.codebook))
    features = torch.randn(3, 128, 4, 4).mul(0.4).relu().requires_grad_()
    with_features(method, features, monkeypatch)
    batch = batch_of()
    weights = {
        "classifier": method.classifier.weight,
        "codebook": method.words.codebook,
        "words": method.word_classifier.weight,
        "words_to_image": method.words_to_image.weight,
    }
    slow = {name: value.detach().double().flatten(1).requires_grad_() for name, value in weights.items()}
    slow_features = features.detach().double().requires_grad_()
    expected = smvwe_losses(
        slow_features,
        batch.image_labels,
        batch.aligned["saliency"],
        slow,
        paper=preset == "paper",
        mu=0.1 if preset == "coco" else 0.5,
    )
    got = method.losses(batch)
    factors = {"classification": 1, "words": 0.5, "words_to_image": 2, "saliency": 3}
    assert list(got) == TERMS
    for name, value in expected.items():
        assert float(got[name].detach()) == pytest.approx(factors[name] * float(value.detach()), abs=1e-5), (
            name
        )
    total = sum(factors[name] * value for name, value in expected.items())
    slow_gradients = torch.autograd.grad(total, [slow_features, *slow.values()])
    gradients = torch.autograd.grad(sum(got.values()), [features, *weights.values()])
    for ours, theirs in zip(gradients, slow_gradients, strict=True):
        assert theirs.any()
        assert torch.allclose(ours.double().view_as(theirs), theirs, atol=1e-5)


def test_golden_step(monkeypatch) -> None:
    """Two cells, two channels, one class: every term worked out by hand."""
    torch.manual_seed(0)
    config = SmvweConfig(**{**SMALL, "num_words": 2})
    method = Smvwe(config, NAMES[:2], Frozen())
    method.classifier = torch.nn.Conv2d(2, 2, 1, bias=False)
    method.word_classifier = torch.nn.Conv2d(2, 2, 1, bias=False)
    method.words.codebook = torch.nn.Parameter(torch.tensor([[2.0, 0.0], [0.0, 5.0]]))
    with torch.no_grad():
        method.classifier.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]])[:, :, None, None])
        method.word_classifier.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, -1.0]])[:, :, None, None])
        method.words_to_image.weight.copy_(torch.tensor([[1.0, 2.0]])[:, :, None, None])
    log3 = math.log(3)
    features = (
        torch.tensor([[log3, 0.0], [2 * log3, 0.0]]).t().view(1, 2, 1, 2)
    )  # both cells on the first word
    with_features(method, features, monkeypatch)
    batch = Batch(
        torch.zeros(1, 3, 2, 4),
        torch.tensor([[True]]),
        ("x",),
        torch.ones(1, 2, 4, dtype=torch.bool),
        {
            "saliency": torch.tensor([[[1.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 0.0]]])
        },  # cells read columns 0 and 2
    )
    losses = {name: float(value.detach()) for name, value in method.losses(batch).items()}
    mean = 1.5 * log3
    assert losses["classification"] == pytest.approx(math.log(1 + math.exp(-mean)))
    # words: the first is there (logit 1.5 log 3), the second not (logit 0)
    assert losses["words"] == pytest.approx((math.log(1 + math.exp(-mean)) + math.log(2)) / 2)
    share = 1 / (1 + math.exp(-2))  # distances 0 and 2
    logit = 2 * (share + 2 * (1 - share))
    assert losses["words_to_image"] == pytest.approx(math.log(1 + math.exp(-logit)))
    # maps 3/4 and 9/10, of which one cell is salient: overlap 1 / 2.0002, over 0.4; estimates equal the maps
    assert losses["saliency"] == pytest.approx((0.25**2 + 0.9**2) / 2, rel=1e-5)


# Switches


@pytest.mark.parametrize(
    ("off", "terms"),
    [
        ({"classification_weight": 0}, TERMS[1:]),
        ({"words_weight": 0}, ["classification", "words_to_image", "saliency"]),
        ({"words_to_image_weight": 0}, ["classification", "words", "saliency"]),
        ({"saliency_weight": 0}, TERMS[:3]),
        ({"words_weight": 0, "words_to_image_weight": 0}, ["classification", "saliency"]),
        ({"decorrelation_weight": 0.3}, [*TERMS[:3], "decorrelation", "saliency"]),
    ],
)
def test_every_term_has_a_switch(off, terms) -> None:
    method = smvwe(**off)
    losses = method.losses(batch_of(saliency="saliency" in terms))
    assert list(losses) == terms
    sum(losses.values()).backward()
    for name, parameter in method.named_parameters():
        assert not parameter.requires_grad or parameter.grad.any(), name


def test_what_is_off_is_not_built() -> None:
    eps = smvwe("eps")
    assert not any("word" in name for name in eps.state_dict())
    assert eps.classifier.weight.shape[0] == 4
    assert Smvwe.pixel_inputs(eps.config) == ("saliency",)
    assert Smvwe.num_words(eps.config) == 0
    assert Smvwe.supervision_of(eps.config) == "I+S"
    words = smvwe(saliency_weight=0)
    assert words.classifier.weight.shape[0] == 3
    assert Smvwe.pixel_inputs(words.config) == ()
    assert Smvwe.num_words(words.config) == 6
    assert Smvwe.supervision_of(words.config) == "I"
    assert words.word_classifier.weight.shape == (6, 128, 1, 1)
    assert words.words_to_image.weight.shape == (3, 6, 1, 1)


def test_eps_without_the_overlap_rule_of_words_is_smvwe_with_its_words_off() -> None:
    full, eps = smvwe(), smvwe("eps")
    eps.load_state_dict({name: value for name, value in full.state_dict().items() if "word" not in name})
    ours, theirs = full.losses(batch_of()), eps.losses(batch_of())
    for name in ("classification", "saliency"):
        assert torch.equal(ours[name], theirs[name])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({f"{term}_weight": 0 for term in TERMS}, "all losses are switched off"),
        ({"classification_weight": 0, "saliency_weight": 0}, "no loss reaches the maps"),
        ({"codebook": "memory", "decorrelation_weight": 1}, "codebook is learned"),
        ({"words_weight": 0, "words_to_image_weight": 0, "decorrelation_weight": 1}, "codebook is learned"),
        ({"sign": "paper", "metric": "cosine"}, "turns distances round"),
        ({"export": "softmax", "saliency_weight": 0}, "nothing trains a background"),
    ],
)
def test_contradictions_are_errors(changes, message) -> None:
    with pytest.raises(ValidationError, match=message):
        SmvweConfig(**changes)


def test_missing_saliency_says_what_to_do() -> None:
    method = smvwe()
    with pytest.raises(
        ShapeError, match=r"must hold `saliency` of shape \(3, 32, 32\).*got none.*saliency_weight: 0"
    ):
        method.losses(batch_of(saliency=False))
    batch = batch_of()
    wrong = Batch(
        batch.images, batch.image_labels, batch.image_ids, batch.valid, {"saliency": torch.zeros(3, 4, 4)}
    )
    with pytest.raises(ShapeError, match=r"got \(3, 4, 4\)"):
        method.losses(wrong)


def test_hybrid_pooling_feeds_the_class_channels_only(monkeypatch) -> None:
    features = torch.randn(3, 128, 4, 4)
    plain, hybrid = smvwe(), smvwe(pooling="hybrid")
    for method in (plain, hybrid):
        with_features(method, features, monkeypatch)
    ours, theirs = hybrid.losses(batch_of()), plain.losses(batch_of())
    assert torch.equal(ours["words"], theirs["words"])
    logits = hybrid_pyramid_pooling(features) @ hybrid.classifier.weight[:3, :, 0, 0].t()
    expected = torch.nn.functional.multilabel_soft_margin_loss(logits, LABELS.float())
    assert torch.allclose(ours["classification"], expected)
    assert not torch.allclose(ours["classification"], theirs["classification"])


def test_presets_are_the_published_methods() -> None:
    vwe = SmvweConfig(**Smvwe.presets["vwe"])
    assert (vwe.metric, vwe.histogram, vwe.pooling, vwe.saliency_weight) == ("cosine", "sum", "hybrid", 0)
    literal = SmvweConfig(**Smvwe.presets["paper"])
    assert (literal.sign, literal.normalise, literal.histogram) == ("paper", False, "mean")
    assert (literal.classification_weight, literal.with_background) == (0, False)
    assert [SmvweConfig(**Smvwe.presets[name]).mu for name in ("rec", "coco", "eps", "eps_coco")] == [
        0.5,
        0.1,
    ] * 2
    assert SmvweConfig().delta == 0.4
    assert list(smvwe("vwl").losses(batch_of(saliency=False)))[-1] == "decorrelation"
    memory = smvwe("vwl_memory")
    assert list(memory.losses(batch_of(saliency=False))) == TERMS[:2]
    assert "words.codebook" not in dict(memory.named_parameters())
    assert "words.codebook" in memory.state_dict()


# Gradients and rates


def gradients_of(method: Smvwe, term: str, *parameters: Tensor) -> list[Tensor | None]:
    return list(torch.autograd.grad(method.losses(batch_of())[term], parameters, allow_unused=True))


def test_each_term_trains_what_it_should() -> None:
    method = smvwe()
    backbone = next(method.backbone.parameters())
    codebook = method.words.codebook
    reached = {
        term: [g is not None for g in gradients_of(method, term, backbone, codebook)] for term in TERMS
    }
    assert reached == {
        "classification": [True, False],
        "words": [True, False],  # through the pooled features; which words there are is an argmax
        "words_to_image": [False, True],
        "saliency": [True, False],
    }
    attached = smvwe(detach_features=False)
    weight = next(attached.backbone.parameters())
    assert gradients_of(attached, "words_to_image", weight)[0].any()


def test_the_background_channel_is_trained_by_the_saliency_alone() -> None:
    method = smvwe()
    (by_labels,) = gradients_of(method, "classification", method.classifier.weight)
    assert not by_labels[3].any()
    assert by_labels[:3].flatten(1).any(dim=1).all()
    (by_saliency,) = gradients_of(method, "saliency", method.classifier.weight)
    assert by_saliency[3].any()


def test_groups_have_the_rates_of_eps_and_the_codebook_moves() -> None:
    method = smvwe()
    groups = method.parameter_groups(0.01)
    assert [group["lr"] for group in groups] == [pytest.approx(0.01), pytest.approx(0.1)]
    new = {id(value) for value in groups[1]["params"]}
    own = {"classifier.weight", "word_classifier.weight", "words_to_image.weight", "words.codebook"}
    assert new == {id(value) for name, value in method.named_parameters() if name in own}
    before = method.words.codebook.detach().clone()
    optimizer = torch.optim.SGD(groups)
    sum(method.losses(batch_of()).values()).backward()
    optimizer.step()
    moved = method.words.codebook.detach() - before
    assert torch.allclose(moved, -0.1 * method.words.codebook.grad)
    assert moved.any()


def test_biases_have_twice_the_rate_and_no_decay() -> None:
    with torch.device("meta"):
        method = Smvwe(SmvweConfig(backbone="vgg16", freeze_until=None), NAMES, Frozen())
    weights, biases, new = method.parameter_groups(0.01)
    assert (weights["lr"], biases["lr"], new["lr"]) == (0.01, 0.02, pytest.approx(0.1))
    assert biases["weight_decay"] == 0
    assert "weight_decay" not in weights
    assert len(biases["params"]) == len(weights["params"])
    assert all(value.ndim == 1 for value in biases["params"])


def test_defaults_are_those_of_eps() -> None:
    with torch.device("meta"):
        method = Smvwe(SmvweConfig(), ("background", *map(str, range(20))), Frozen())
    frozen = {name for name, value in method.named_parameters() if not value.requires_grad}
    assert all(".bn" in name or name.startswith(("backbone.conv1a", "backbone.b2")) for name in frozen)
    assert {"backbone.conv1a.weight", "backbone.b2_2.conv_branch2b1.weight", "backbone.bn7.weight"} <= frozen
    assert "backbone.b3.conv_branch1.weight" not in frozen
    assert method.words.codebook.shape == (256, 4096)
    assert method.classifier.weight.shape == (21, 4096, 1, 1)
    assert method.words_to_image.weight.shape == (20, 256, 1, 1)


def test_a_codebook_that_no_loss_moves_is_not_trained() -> None:
    method = smvwe(words_to_image_weight=0)
    assert not method.words.codebook.requires_grad
    assert smvwe(words_to_image_weight=0, decorrelation_weight=1).words.codebook.requires_grad


def test_the_classifier_starts_as_xavier_has_it() -> None:
    limit = math.sqrt(6 / (128 + 4))
    weight = smvwe().classifier.weight.detach()
    assert float(weight.abs().max()) <= limit
    assert float(weight.std()) == pytest.approx(limit / math.sqrt(3), rel=0.1)


# Maps, words, start


def test_maps_are_a_softmax_with_saliency_and_relu_without() -> None:
    images = batch_of().images
    method = smvwe().eval()
    logits = method.class_logits(images)
    assert logits.shape[1] == 4
    assert torch.allclose(method.cams(images), logits.softmax(dim=1)[:, :3])
    assert (method.cams(images).sum(dim=1) < 1).all()
    relu = smvwe(export="relu").eval()
    assert torch.equal(relu.cams(images), logits[:, :3].relu())
    words = smvwe(saliency_weight=0).eval()
    assert torch.equal(words.cams(images), words.class_logits(images).relu())


def test_losses_and_maps_are_float32_under_autocast() -> None:
    method = smvwe(decorrelation_weight=1.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = method.losses(batch_of())
        maps = method.cams(batch_of().images)
    assert {value.dtype for value in losses.values()} == {torch.float32}
    assert maps.dtype == torch.float32


def test_word_labels_are_the_words_of_the_cells_and_change_nothing() -> None:
    method = smvwe("rec", codebook="memory", start="sampled").eval()
    before = {name: value.clone() for name, value in method.state_dict().items()}
    labels = method.word_labels(batch_of().images)
    features = method.backbone(batch_of().images)
    unit, words = (torch.nn.functional.normalize(v, dim=1) for v in (features, method.words.codebook))
    distances = (unit[:, None] - words[None, :, :, None, None]).abs().sum(dim=2)  # (B, W, h, w)
    assert labels.dtype == torch.int64
    assert torch.equal(labels, distances.argmin(dim=1))
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())


def test_word_classes_follow_the_weights_to_the_tags() -> None:
    method = smvwe(num_words=4)
    weights = torch.tensor([[0.5, -0.1, 0.2, -1.0], [0.1, -0.2, 0.3, 0.0], [0.4, -0.3, 0.1, -0.5]])
    with torch.no_grad():
        method.words_to_image.weight.copy_(weights[:, :, None, None])
    assert method.word_classes().tolist() == [1, 0, 2, 0]
    assert method.word_classes().dtype == torch.int64
    with pytest.raises(RecipeError, match="`words_to_image_weight: 0`"):
        smvwe(words_to_image_weight=0).word_classes()
    with pytest.raises(RecipeError, match="needs a codebook"):
        smvwe("eps").word_labels(batch_of().images)


def test_it_starts_from_a_cam_and_keeps_its_own_words_and_background() -> None:
    fields = {key: SMALL[key] for key in ("backbone", "backbone_weights", "batch_norm", "freeze_until")}
    cam, method = Cam(CamConfig(**fields), NAMES, Frozen()), smvwe()
    before = {name: value.clone() for name, value in method.state_dict().items()}
    method.initialise(cam.state_dict())
    after = method.state_dict()
    assert torch.equal(after["classifier.weight"][:3], cam.classifier.weight)
    assert torch.equal(after["classifier.weight"][3], before["classifier.weight"][3])
    for name, value in after.items():
        if name.startswith("backbone."):
            assert torch.equal(value, cam.state_dict()[name])
        elif name != "classifier.weight":
            assert torch.equal(value, before[name])


def test_a_start_that_does_not_fit_is_an_error_and_nothing_is_dropped() -> None:
    start, method = smvwe(), smvwe()
    method.initialise(start.state_dict())
    for name, value in method.state_dict().items():
        assert torch.equal(value, start.state_dict()[name])
    with pytest.raises(WeightsError, match="can't start from these weights"):
        method.initialise(start.state_dict() | {"classifier.weight": torch.zeros(9, 128, 1, 1)})
    with pytest.raises(WeightsError, match=r"words\.codebook"):
        smvwe("eps").initialise(start.state_dict())  # has no place for words
    part = {name: value for name, value in start.state_dict().items() if "stem" not in name}
    if len(part) < len(start.state_dict()):
        with pytest.raises(WeightsError, match="stem"):
            method.initialise(part)


def test_a_batch_without_any_label_trains_on() -> None:
    for preset in ("rec", "paper"):
        losses = smvwe(preset).losses(batch_of(torch.zeros(2, 3, dtype=torch.bool)))
        assert all(torch.isfinite(value) for value in losses.values())
        sum(losses.values()).backward()
