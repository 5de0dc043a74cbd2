import json

import pytest

from wsss.crf import PRESETS as CRF_PRESETS
from wsss.errors import RecipeError, ShapeError
from wsss.models.public_models import PUBLIC_MODELS
from wsss.segmentation import PRESETS, SegmentationConfig, build
from wsss.segmentation.presets import OF_ONE_BACKBONE, WEIGHTS_OF

NAMES = ("background", "cat", "dog")


def test_presets_fill_what_is_not_given():
    published = SegmentationConfig()
    assert published.rates == (6, 12, 18, 24)
    assert (published.training.steps, published.training.momentum) == (20_000, 0.9)
    assert (published.training.batch_size, published.training.accumulate) == (5, 2)
    scenes = SegmentationConfig(
        preset="scenes", rates=(1,), training={"steps": 7, "augmentation": {"long_side": (9, 9)}}
    )
    assert scenes.backbone == "resnet_small"
    assert (scenes.rates, scenes.training.steps, scenes.training.epochs) == ((1,), 7, None)
    assert (scenes.training.optimizer, scenes.training.augmentation.scale) == ("adamw", None)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_resolved_configuration_resolves_to_itself(preset):
    config = SegmentationConfig(preset=preset, training={"steps": 3})
    assert SegmentationConfig.model_validate(config.model_dump()) == config
    assert SegmentationConfig.model_validate_json(config.model_dump_json()) == config


def test_mistakes_in_the_configuration_are_refused():
    with pytest.raises(ValueError, match="unknown"):
        SegmentationConfig(unknown=1)
    with pytest.raises(ValueError, match="preset"):
        SegmentationConfig(preset="coco")
    with pytest.raises(ValueError, match="exactly one"):
        SegmentationConfig(training={"steps": 1, "epochs": 1})
    with pytest.raises((ShapeError, RecipeError), match="output_stride"):
        build(SegmentationConfig(preset="scenes", output_stride=3), NAMES)


def test_every_preset_is_a_choice_and_none_makes_up_a_key():
    choices = SegmentationConfig.model_fields["preset"].annotation.__args__
    assert set(choices) == set(PRESETS)
    for values in PRESETS.values():
        assert set(values) <= set(SegmentationConfig.model_fields)


def length(config):
    training = config.training
    return training.steps, training.batch_size * training.accumulate, training.learning_rate


def test_published_lengths_batches_rates_and_crops():
    published = {name: SegmentationConfig(preset=name) for name in PRESETS if "scenes" not in name}
    assert {name: length(config) for name, config in published.items()} == {
        "voc12": (20_000, 10, 2.5e-4),
        "voc12_imagenet": (30_000, 20, 2.5e-4),
        "coco14": (100_000, 20, 2.5e-4),
        "vgg16_v1": (20_000, 10, 1e-3),
        "vgg16_v2": (20_000, 10, 1e-3),
        "resnet101_v1": (20_000, 10, 2.5e-4),
        "resnet38_v1": (20_000, 10, 1e-3),
        "resnet38_v1_qa_clims": (30_000, 6, 8e-4),
    }
    for name, config in published.items():
        training = config.training
        assert (training.momentum, training.weight_decay) == (0.9, 5e-4)
        assert (training.schedule, training.power, config.head_rate) == ("poly", 0.9, 10)
        assert training.augmentation.crop_size == (512 if name == "resnet38_v1_qa_clims" else 321)
        assert config.batch_norm == "frozen"
        assert not config.test_flip
    assert max(published["voc12_imagenet"].training.augmentation.scale_choices) == 2
    assert published["voc12_imagenet"].loss == "balanced"
    assert published["voc12_imagenet"].training.schedule_hold == 10
    assert published["resnet38_v1"].test_scales == (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
    assert published["vgg16_v2"].rates == (6, 12, 18, 24)


def test_v1_with_resnet101_has_v2s_backbone_and_schedule():
    v1, v2 = SegmentationConfig(preset="resnet101_v1"), SegmentationConfig(preset="voc12")
    changed = {key for key, value in v1.model_dump().items() if value != v2.model_dump()[key]}
    assert changed == {"preset", "network", "rates", "scales"}
    assert (v1.network, v1.rates, v1.scales) == ("deeplab_v1", (12,), ())


@pytest.mark.parametrize("preset", OF_ONE_BACKBONE)
def test_a_preset_and_a_backbone_of_different_networks_are_refused(preset):
    own = SegmentationConfig(preset=preset).backbone
    assert SegmentationConfig(preset=preset, backbone=own).backbone == own
    other = "vgg16" if own != "vgg16" else "resnet101_deeplab"
    with pytest.raises(ValueError, match=f"`preset: {preset}` is of the backbone {own}, `backbone: {other}`"):
        SegmentationConfig(preset=preset, backbone=other)
    assert SegmentationConfig(preset=preset, backbone=other, network="smp").network == "smp"  # has its own


def test_weights_with_a_name_are_for_their_own_network():
    for backbone in ("resnet101", "resnet101_deeplab"):
        assert SegmentationConfig(backbone=backbone, weights="resnet101").weights == "resnet101"
    assert SegmentationConfig(preset="vgg16_v1", weights="folder/vgg16_20M.caffemodel").backbone == "vgg16"
    assert SegmentationConfig(network="smp", weights="resnet50").network == "smp"
    for given in (
        {"preset": "vgg16_v1", "weights": "resnet101"},
        {"preset": "resnet38_v1_qa_clims", "weights": "resnet101"},
        {"preset": "voc12", "weights": "resnet50"},
        {"preset": "scenes", "weights": "resnet50"},
    ):
        with pytest.raises(ValueError, match=r"`weights: resnet\d+` are of another network than `backbone: "):
            SegmentationConfig(**given)


def test_every_public_backbone_has_the_networks_that_take_it():
    public = {name for name, model in PUBLIC_MODELS.items() if model.source == "torchvision"}
    assert set(WEIGHTS_OF) == public
    backbones = SegmentationConfig.model_fields["backbone"].annotation.__args__
    assert {name for names in WEIGHTS_OF.values() for name in names} <= set(backbones)


def test_small_networks_differ_from_that_of_the_scenes_in_their_architecture_only():
    scenes = SegmentationConfig(preset="scenes").model_dump()
    for name in ("scenes_v1_resnet", "scenes_v1_vgg", "scenes_v2_vgg"):
        other = SegmentationConfig(preset=name).model_dump()
        changed = {key for key, value in other.items() if value != scenes[key]}
        assert changed <= {"preset", "network", "backbone", "output_stride", "rates"}


def test_settings_that_are_not_given_leave_no_trace_in_the_plain_data():
    plain = SegmentationConfig(preset="scenes").model_dump(mode="json")
    assert not {"dense_crf", "smp"} & set(plain)
    with_crf = SegmentationConfig(preset="scenes", dense_crf="deeplab").model_dump(mode="json")
    assert with_crf.pop("dense_crf") == CRF_PRESETS["deeplab_v2"].model_dump()
    assert with_crf == plain
    assert json.loads(SegmentationConfig(preset="scenes").model_dump_json()) == plain
    assert SegmentationConfig(preset="scenes").model_dump(include={"test_flip"}) == {"test_flip": True}


def test_a_dense_crf_is_named_or_differs_from_deeplabs():
    assert SegmentationConfig(dense_crf="deeplab_v2_vgg16").dense_crf == CRF_PRESETS["deeplab_v2_vgg16"]
    changed = SegmentationConfig(dense_crf={"iterations": 3}).dense_crf
    assert changed == CRF_PRESETS["deeplab_v2"].model_copy(update={"iterations": 3})
    config = SegmentationConfig(dense_crf={"iterations": 3})
    assert SegmentationConfig.model_validate(config.model_dump()) == config
    with pytest.raises(ValueError, match=r"no such parameters.*`deeplab`"):
        SegmentationConfig(dense_crf="deplab")
    with pytest.raises(ValueError, match="iteration"):
        SegmentationConfig(dense_crf={"iteration": 3})
