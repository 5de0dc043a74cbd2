"""QA-CLIMS against loops in float64, published goldens, and what it does with too little."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from tests.fakes import FakeTeacher, ToyDataset, toy_answers
from tests.methods.oracle_qa_clims import qa_clims_losses

from wsss.errors import DataError, RecipeError
from wsss.methods.base import Frozen
from wsss.methods.qa_clims import QaClims, QaClimsConfig
from wsss.types import Batch, ClassInfo

NAMES = ("background", "boat", "train", "cat")
PRESENT = {"a": (0, 2), "b": (), "c": (1,), "d": (0, 1, 2)}
NET = {"backbone": "resnet_small", "backbone_weights": None, "freeze_until": None}
TOYS = ToyDataset(NAMES, PRESENT)


class PlainTeacher:
    """The same teacher, but it takes no masks."""

    def __init__(self) -> None:
        teacher = FakeTeacher()
        for name in ("image_size", "mean", "std", "prompt_template", "encode_images", "encode_texts"):
            setattr(self, name, getattr(teacher, name))


def batch(ids: str = "abcd") -> Batch:
    labels = torch.stack([torch.from_numpy(TOYS.image_labels(i)) for i in ids])
    images = torch.randn(len(ids), 3, 32, 32, generator=torch.Generator().manual_seed(3))
    return Batch(images, labels, tuple(ids), torch.ones(len(ids), 32, 32, dtype=torch.bool))


def method(tmp_path: Path, dataset: ToyDataset = TOYS, teacher=None, answers=None, **settings) -> QaClims:
    torch.manual_seed(1)
    frozen = Frozen(teacher=teacher or FakeTeacher(), answers=answers or toy_answers(dataset))
    torch.manual_seed(2)
    made = QaClims(QaClimsConfig(**{**NET, **settings}), NAMES, frozen)
    made.prepare(dataset, tuple(dataset.present), tmp_path)
    return made.train()


def expected_texts(columns=PRESENT) -> dict:
    """What `toy_answers` mean, written out: lemmatised, de-duplicated, class name behind each answer."""
    photo = "a photo of {}.".format
    texts = {}
    for place, shown in enumerate(columns.values()):
        for column in shown:
            name = NAMES[column + 1]
            kinds = ["old", "small", "thing", "toy", "thing", "toy"]
            texts[place, column] = (
                photo(name),
                [photo(f"{kind} {name}") for kind in kinds],
                [photo(word) for word in ("sky", "road", "tree", "city", "field")],
            )
    return texts


@pytest.mark.parametrize(
    ("settings", "options"),
    [
        ({}, {}),
        ({"mask_mode": "pixel"}, {"mode": "pixel"}),
        ({"mask_mode": "both", "omega": 0.4}, {"mode": "both", "omega": 0.4}),
        ({"omega": None}, {"omega": None}),
        ({"foreground_mixing": "mean"}, {"mixing": "mean"}),
        ({"brc_positive": "exponential_of_mean"}, {"paper_brc": True}),
        ({"temperature": 0.3}, {"temperature": 0.3}),
    ],
)
def test_a_step_against_loops(tmp_path, settings, options) -> None:
    net, shown = method(tmp_path, **settings), batch()
    logits = net.class_logits(shown.images).detach()
    maps = torch.sigmoid(9 * (logits - logits.mean()) / logits.std()).requires_grad_()
    if net.config.omega is not None:  # thresholds divide them
        assert 0.1 < (maps >= net.config.omega * maps.amax(dim=(2, 3), keepdim=True)).float().mean() < 0.9
    net._probabilities = lambda logits: maps  # the same maps for both
    losses = net.losses(shown)
    sum(losses.values()).backward()
    slow_maps = maps.detach().double().requires_grad_()
    expected = qa_clims_losses(
        shown.images, shown.image_labels, slow_maps, net.frozen.teacher,
        texts=expected_texts(), weights=(10.0, 8.0, 0.2), **options,
    )  # fmt: skip
    sum(expected.values()).backward()
    assert list(losses) == ["FRC", "BRC", "REG"]
    for name, value in losses.items():
        assert value.item() == pytest.approx(expected[name].item(), rel=1e-5), name
    scale = slow_maps.grad.abs().max()
    assert (maps.grad - slow_maps.grad).abs().max() < 1e-4 * scale


def test_one_call_of_the_teacher_for_both_regions_of_all_pairs(tmp_path) -> None:
    teacher = FakeTeacher()
    net = method(tmp_path, teacher=teacher)
    texts = len(teacher.texts) - 1  # the first one again, to know the teacher by
    for _ in range(2):
        net.losses(batch())
    assert teacher.image_calls == [12, 12]  # 6 pairs
    assert len(teacher.texts) == texts + 1
    assert len(set(teacher.texts)) == texts  # each text once


def test_prepared_texts_are_used_again_and_follow_the_settings(tmp_path) -> None:
    method(tmp_path)
    again = FakeTeacher()
    method(tmp_path, teacher=again)
    assert len(again.texts) == 1  # to know the teacher by
    changed = FakeTeacher()
    method(tmp_path, teacher=changed, background=("scene",))
    assert len(changed.texts) > 1


def test_pairs_without_background_texts_are_left_out(tmp_path) -> None:
    answers = toy_answers(TOYS)
    for question in answers.pairs["c", "train"]:
        if not question.startswith("What"):
            answers.pairs["c", "train"][question] = "trains"  # only the class itself
    net, shown = method(tmp_path, answers=answers), batch()
    losses = net.losses(shown)
    without = Batch(
        shown.images,
        shown.image_labels & torch.tensor([[1], [1], [0], [1]], dtype=torch.bool),
        shown.image_ids,
        shown.valid,
    )
    for name, value in net.losses(without).items():
        assert value.item() == pytest.approx(losses[name].item(), rel=1e-5)
    alone = net.losses(batch("c"))
    assert alone["FRC"].item() == 0
    assert alone["BRC"].item() == 0
    assert alone["REG"].item() > 0
    sum(alone.values()).backward()
    named = method(tmp_path / "named", answers=answers, empty_background="no_class")
    assert named.losses(batch("c"))["FRC"].item() > 0


def test_a_batch_without_labels_keeps_its_terms_in_the_graph(tmp_path) -> None:
    net = method(tmp_path)
    losses = net.losses(batch("bb"))
    assert list(losses) == ["FRC", "BRC", "REG"]
    assert losses["FRC"].item() == losses["BRC"].item() == 0
    sum(losses.values()).backward()
    assert net.classifier.weight.grad is not None


def test_sums_grow_with_the_batch_and_per_pair_does_not(tmp_path) -> None:
    torch.manual_seed(0)
    once, twice = batch("ad"), batch("adad")
    twice = Batch(once.images.repeat(2, 1, 1, 1), twice.image_labels, twice.image_ids, twice.valid)
    summed, mean = method(tmp_path, batch_norm="frozen"), None
    a, b = summed.losses(once), summed.losses(twice)
    assert b["FRC"].item() == pytest.approx(2 * a["FRC"].item(), rel=1e-4)
    mean = method(tmp_path, batch_norm="frozen", pair_reduction="per_pair", reference_pairs=5.0)
    c, d = mean.losses(once), mean.losses(twice)
    assert c["BRC"].item() == pytest.approx(d["BRC"].item(), rel=1e-4)
    assert c["BRC"].item() == pytest.approx(a["BRC"].item(), rel=1e-4)  # 5 pairs in the batch


def test_permuted_images_give_the_same_losses(tmp_path) -> None:
    net, shown = method(tmp_path, batch_norm="frozen"), batch()
    order = [2, 0, 3, 1]
    other = Batch(
        shown.images[order], shown.image_labels[order], tuple("abcd"[i] for i in order), shown.valid[order]
    )
    first, second = net.losses(shown), net.losses(other)
    for name, value in first.items():
        assert value.item() == pytest.approx(second[name].item(), rel=1e-5)


def test_the_label_alone_when_no_group_is_asked_for(tmp_path) -> None:
    teacher = FakeTeacher()
    net = method(tmp_path, teacher=teacher, **QaClims.presets["ritc_only"])
    assert set(teacher.texts) == {
        f"a photo of {word}." for name in NAMES[1:] for word in (name, f"no {name}")
    }
    assert net.losses(batch())["FRC"].item() > 0


def test_texts_from_tags_need_no_answers(tmp_path) -> None:
    dataset, teacher = ToyDataset(NAMES, PRESENT, ("grass", "sky", "grass")), FakeTeacher()
    config = QaClimsConfig(**NET, texts="tags")
    assert QaClims.needs(config) == ("teacher",)
    net = QaClims(config, NAMES, Frozen(teacher=teacher))
    net.prepare(dataset, tuple(PRESENT), tmp_path)
    assert set(teacher.texts) == {f"a photo of {w}." for w in (*NAMES[1:], "grass", "sky")}
    assert net.losses(batch())["BRC"].item() > 0
    with pytest.raises(DataError, match="no scene words"):
        QaClims(config, NAMES, Frozen(teacher=teacher)).prepare(TOYS, tuple(PRESENT), tmp_path)


def test_listed_backgrounds_come_from_the_recipe_or_the_data_set(tmp_path) -> None:
    bare, teacher = ToyDataset(NAMES, PRESENT), FakeTeacher()
    config = QaClimsConfig(**NET, texts="tags", empty_background="listed", background_texts=("lawn",))
    net = QaClims(config, NAMES, Frozen(teacher=teacher))
    net.prepare(bare, tuple(PRESENT), tmp_path)
    assert set(teacher.texts) == {f"a photo of {word}." for word in (*NAMES[1:], "lawn")}
    own = QaClimsConfig(texts="tags", empty_background="listed").with_class_texts(
        [ClassInfo("cat", background_texts=("sofa",))]
    )
    assert own.background_texts == {"cat": ("sofa",)}
    with pytest.raises(RecipeError, match="needs `background_texts`; got none"):
        QaClimsConfig(texts="tags", empty_background="listed").with_class_texts([ClassInfo("cat")])


def test_too_little_is_one_clear_error(tmp_path) -> None:
    teacher = FakeTeacher()
    unprepared = QaClims(QaClimsConfig(**NET), NAMES, Frozen(teacher=teacher))
    with pytest.raises(RecipeError, match="call `prepare`"):
        unprepared.losses(batch())
    with pytest.raises(RecipeError, match="trains with an image-text teacher"):
        QaClims(QaClimsConfig(**NET), NAMES, Frozen()).prepare(TOYS, ("a",), tmp_path)
    partly = QaClims(QaClimsConfig(**NET), NAMES, Frozen(teacher=teacher, answers=toy_answers(TOYS)))
    partly.prepare(TOYS, ("a",), tmp_path)
    with pytest.raises(DataError, match=r"no texts for class `train` of image c"):
        partly.losses(batch())
    plain = PlainTeacher()
    with pytest.raises(RecipeError, match="mask_mode: pixel"):
        QaClims(QaClimsConfig(**NET, mask_mode="token"), NAMES, Frozen(teacher=plain))
    QaClims(QaClimsConfig(**NET), NAMES, Frozen(teacher=plain))
    with pytest.raises(ValidationError, match="every pair is skipped"):
        QaClimsConfig(background=())
    with pytest.raises(ValidationError, match="names the group colour"):
        QaClimsConfig(foreground=("colour",))
    with pytest.raises(ValidationError, match="all losses are switched off"):
        QaClimsConfig(frc_weight=0, brc_weight=0, reg_weight=0)


def test_answers_that_say_nothing_about_any_background_are_an_error(tmp_path) -> None:
    answers = toy_answers(TOYS, object=("",), scene=(" ",))
    with pytest.raises(DataError, match="no useful answers for the background of any image"):
        method(tmp_path, answers=answers)
    method(tmp_path, answers=answers, empty_background="no_class")


def test_a_table_moves_and_losses_are_float32_under_autocast(tmp_path) -> None:
    net = method(tmp_path)
    exact = net.losses(batch())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = net.losses(batch())
    for name, value in half.items():
        assert value.dtype == torch.float32
        assert value.item() == pytest.approx(exact[name].item(), rel=0.03)
    assert net.to("meta").table.features.device.type == "meta"


def test_masks_go_to_the_teacher_that_takes_them(tmp_path) -> None:
    torch.manual_seed(1)  # as in `method`
    plain = PlainTeacher()
    pixel = method(tmp_path / "pixel", mask_mode="pixel", omega=0.98).losses(batch())
    token = method(tmp_path / "token", mask_mode="token", omega=0.98).losses(batch())
    alone = method(tmp_path / "alone", omega=0.98).losses(batch())
    assert alone["FRC"].item() == token["FRC"].item() != pixel["FRC"].item()
    without = method(tmp_path / "plain", teacher=plain, omega=0.98).losses(batch())
    assert without["FRC"].item() == pixel["FRC"].item()


def test_published_presets() -> None:
    voc, coco = QaClimsConfig(**QaClims.presets["voc"]), QaClimsConfig(**QaClims.presets["coco"])
    assert (voc.frc_weight, voc.brc_weight, voc.reg_weight, voc.temperature, voc.omega) == (
        10,
        8,
        0.2,
        0.7,
        0.1,
    )
    assert (coco.frc_weight, coco.brc_weight, coco.reg_weight) == (30, 24, 0.2)
    assert voc.prompt_template == "a photo of {}."
    from wsss.layers.class_texts import published_texts

    names = [ClassInfo(name) for name in published_texts("voc_qa").prompts]
    nouns = voc.with_class_texts(names).class_prompts
    assert nouns["person"] == "person"
    assert nouns["diningtable"] == "dining table"
    assert len(published_texts("coco_qa").prompts) == 80


def test_switched_off_terms_are_not_computed(tmp_path) -> None:
    teacher = FakeTeacher()
    net = method(tmp_path, teacher=teacher, frc_weight=0, brc_weight=0)
    assert list(net.losses(batch())) == ["REG"]
    assert teacher.image_calls == []
    assert list(method(tmp_path, brc_weight=0, reg_weight=0).losses(batch())) == ["FRC"]
