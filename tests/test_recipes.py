"""Every shipped recipe loads, says what it is, and shares what it can with the others."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pytest
import torch

from tiny_recipe import random_teacher
from wsss.data import CocoConfig, ScenesConfig, VocConfig
from wsss.data.coco import COCO_CLASSES
from wsss.data.scenes import CLASS_NAMES
from wsss.data.voc import VOC_CLASSES
from wsss.engine.plan import plan
from wsss.engine.publish import read_rows
from wsss.engine.recipe import MethodSection, Recipe, load_recipe
from wsss.engine.recipe_files import list_recipes
from wsss.engine.stages import Silence, Stage, Workspace
from wsss.errors import RecipeError
from wsss.methods.base import Frozen, Method
from wsss.refiners.base import find_refiner
from wsss.segmentation import SegmentationConfig, build

SCENES = [name for name in list_recipes() if name.startswith("scenes/")]
RESULTS = Path(__file__).resolve().parents[1] / "results"
HEADLINE = [name for name in SCENES if "demo" not in name]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_teacher(tmp_path_factory.mktemp("teacher") / "clip")


def planned(name: str, teacher: Path) -> dict[str, Stage]:
    overrides = [f"method.teacher={teacher}"] if load_recipe(name).method else []
    recipe = load_recipe(name, overrides)
    workspace = Workspace(Path("runs"), recipe.data, torch.device("cpu"), Silence())
    return {stage.name: stage for stage in plan(recipe, 0, workspace)}


@pytest.mark.parametrize("name", list_recipes())
def test_a_recipe_loads_and_says_what_it_is(name: str):
    recipe = load_recipe(name)
    assert recipe.name == name
    about = recipe.about
    assert about.title
    assert about.hardware
    assert about.command.startswith("wsss ")
    assert about.paper or recipe.supervision == "F"
    for key in about.paper_values:
        stage, source, metric = key.split(".", 2)
        assert stage in ("maps", "pseudo_masks", "segmentation", "segmentation_crf") or stage.startswith(
            "refined-"
        )
        assert source in ("fixed", "oracle", "automatic", "none")
        assert metric


@pytest.mark.parametrize("name", list_recipes())
def test_an_unknown_key_fails_with_a_suggestion(name: str):
    with pytest.raises(RecipeError, match=r"Unknown key `activation.scals`.*Did you mean `scales`"):
        load_recipe(name, ["activation.scals=1"])


def names_of_classes(recipe: Recipe) -> tuple[str, ...]:
    """The classes of the data that a recipe names; some for folders of one's own."""
    if isinstance(recipe.data, ScenesConfig):
        return CLASS_NAMES
    kinds = {VocConfig: VOC_CLASSES, CocoConfig: COCO_CLASSES}
    return ("background", *kinds.get(type(recipe.data), ("cow", "sheep", "tractor")))


def built(section: MethodSection, class_names: tuple[str, ...], foreground: set[str]) -> Method:
    """The method without weights and helpers; texts of classes that nobody knows are left out."""
    changes: dict[str, Any] = {"backbone_weights": None}
    fields = type(section.config).model_fields
    if "background_texts" in fields and not foreground <= {*VOC_CLASSES, *COCO_CLASSES}:
        changes["background_texts"] = ("sky",)
    changes = {key: value for key, value in changes.items() if key in fields}
    return section.cls(section.config.model_copy(update=changes), class_names, Frozen())


@pytest.mark.parametrize("name", list_recipes())
def test_every_network_of_a_recipe_can_be_built(name: str):
    """On the meta device, which has shapes and no numbers: a wrong backbone, stride or head is found here."""
    recipe = load_recipe(name)
    class_names = names_of_classes(recipe)
    sections = [recipe.method, recipe.initialise.method if recipe.initialise else None]
    with torch.device("meta"), torch.no_grad():
        images = torch.zeros(1, 3, 64, 96)
        for section in filter(None, sections):
            cams = built(section, class_names, set(class_names[1:])).eval().cams(images)
            assert cams.shape[:2] == (1, len(class_names) - 1)
        for section in recipe.refine:
            refiner = find_refiner(section.name)(section.config, class_names)
            if hasattr(refiner, "_untrained"):
                assert list(refiner._untrained(with_weights=False).parameters())
        if recipe.segmentation is not None:
            config = recipe.segmentation.model_copy(update={"weights": None})
            logits = build(config, class_names).eval().logits(images)
            assert logits.shape[:2] == (1, len(class_names))


@pytest.mark.parametrize("name", [name for name in list_recipes() if name.startswith("coco14/")])
def test_coco_recipes_start_from_one_cam_and_have_their_steps(name: str):
    """Steps as the references count them: 82,783 images, or the 82,081 labelled ones."""
    recipe, cam = load_recipe(name), load_recipe("coco14/cam")
    steps = {"cam": 25_865, "clims": 20_688, "qa_clims": 155_205, "smvwe": 76_950, "eps": 76_950}
    assert recipe.training is not None
    images = {"train": 82_783, "train_labelled": 82_081}[recipe.data.train_split]
    per_epoch = images // recipe.training.batch_size
    assert recipe.training.total_steps(per_epoch) == steps[name.removeprefix("coco14/")]
    if recipe.initialise is not None:
        assert recipe.initialise.training == cam.training
        assert recipe.initialise.method == cam.method
    assert recipe.segmentation is not None
    assert (recipe.segmentation.training.steps, recipe.segmentation.training.batch_size) == (100_000, 10)
    if name in ("coco14/smvwe", "coco14/eps"):
        assert recipe.training.steps == 15 * per_epoch


OTHER_NETWORKS = {
    "voc12/clims": ("coco-weights", "v1-resnet38"),
    "voc12/clims-camera-ready": ("coco-weights",),
    "voc12/qa_clims": ("v1-resnet38",),
    "voc12/smvwe": ("v1-vgg", "v2-vgg", "v1-resnet"),
}
PUBLISHED = {
    "voc12/clims-camera-ready": ("deeplab_v2", "resnet101_deeplab", 69.3),
    "voc12/clims-camera-ready-coco-weights": ("deeplab_v2", "resnet101_deeplab", 70.4),
    "voc12/clims": ("deeplab_v2", "resnet101_deeplab", 70.3),
    "voc12/clims-coco-weights": ("deeplab_v2", "resnet101_deeplab", 71.4),
    "voc12/clims-v1-resnet38": ("deeplab_v1", "wide_resnet38", 73.3),
    "voc12/qa_clims": ("deeplab_v2", "resnet101_deeplab", 72.4),
    "voc12/qa_clims-v1-resnet38": ("deeplab_v1", "wide_resnet38", 75.6),
    "voc12/smvwe-v1-vgg": ("deeplab_v1", "vgg16", 67.5),
    "voc12/smvwe-v2-vgg": ("deeplab_v2", "vgg16", 68.2),
    "voc12/smvwe-v1-resnet": ("deeplab_v1", "resnet101_deeplab", 70.1),
    "voc12/smvwe": ("deeplab_v2", "resnet101_deeplab", 71.3),
    "voc12/vwe-v1-vgg": ("deeplab_v1", "vgg16", 65.4),
    "voc12/eps": ("deeplab_v2", "resnet101_deeplab", 70.9),
    "coco14/qa_clims": ("deeplab_v2", "resnet101_deeplab", 43.2),
}


@pytest.mark.parametrize(
    ("base", "name"), [(base, f"{base}-{end}") for base, ends in OTHER_NETWORKS.items() for end in ends]
)
def test_other_published_networks_are_trained_on_the_same_pseudo_masks(base: str, name: str):
    ours, theirs = load_recipe(name).resolved(), load_recipe(base).resolved()
    assert {key for key in ours if ours[key] != theirs[key]} == {"name", "about", "segmentation"}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_rows_have_their_network_with_nothing_of_another_preset(name: str):
    recipe = load_recipe(name)
    assert recipe.segmentation is not None
    config, (network, backbone, score) = recipe.segmentation, PUBLISHED[name]
    assert (config.network, config.backbone) == (network, backbone)
    assert [v for k, v in recipe.about.paper_values.items() if k.startswith("segmentation_crf.")] == [score]
    workers = config.training.model_copy(update={"workers": 0})
    if name in (
        "voc12/qa_clims",
        "coco14/qa_clims",
    ):  # their batches and augmentation stand beside the preset
        return
    alone = SegmentationConfig(preset=config.preset).training
    assert workers == alone.model_copy(update={"workers": 0})


def published_rows() -> list[tuple[str, list[str], str]]:
    """Recipe, values of `--set` and the numbers before them, of each row of the page's published numbers."""
    page = (RESULTS.parent / "docs" / "reproducing.md").read_text(encoding="utf-8")
    rows, recipe = [], ""
    for line in page.partition("\n## VOC 2012\n")[2].partition("\n## ")[0].splitlines():
        named = re.search(r"(?:`wsss run |\| `)((?:voc12|coco14)/[\w-]+)", line)
        recipe = named.group(1) if named else recipe
        if re.match(r"\|[^|]*\|[^|]*\| *\d", line):
            values = [word for word in shlex.split(line.replace("`", " ").replace("'", "")) if "=" in word]
            rows.append((recipe, values, line.split("|")[3]))
    return rows


def test_every_row_of_the_page_is_a_recipe_with_its_published_number():
    rows = published_rows()
    assert len(rows) == 40
    for name, values, numbers in rows:
        recipe = load_recipe(name, values)
        if not any(value.startswith("method.") for value in values):
            first = float(numbers.split()[0])
            assert first in recipe.about.paper_values.values(), (name, numbers)
    assert set(PUBLISHED) <= {name for name, _, _ in rows}


def test_the_words_of_smvwe_alone_differ_from_it_in_saliency_only():
    full, words = load_recipe("voc12/smvwe-v1-vgg"), load_recipe("voc12/vwe-v1-vgg")
    assert full.method is not None
    assert words.method is not None
    assert full.method.config.model_copy(update={"saliency_weight": 0.0}) == words.method.config
    assert (full.method.needs_saliency, words.method.needs_saliency) == (True, False)
    same = ("data", "training", "activation", "pseudo_masks", "segmentation", "evaluation")
    assert [full.resolved()[key] for key in same] == [words.resolved()[key] for key in same]


@pytest.mark.parametrize("name", SCENES)
def test_scenes_recipes_share_their_data_and_their_common_cam(name: str, teacher: Path):
    stages, cam = (
        planned(name, teacher),
        planned("scenes/demo-cam" if "demo" in name else "scenes/cam", teacher),
    )
    assert stages["data"].fingerprint == cam["data"].fingerprint
    if "initialise" in stages:
        assert stages["initialise"].fingerprint == cam["train-method"].fingerprint


def test_headline_recipes_use_world_0_and_one_way_of_scoring():
    recipes = [load_recipe(name) for name in HEADLINE]
    assert {recipe.data.world for recipe in recipes if isinstance(recipe.data, ScenesConfig)} == {0}
    assert len({recipe.evaluation.model_dump_json() for recipe in recipes}) == 1
    assert len({recipe.activation.model_dump_json() for recipe in recipes if recipe.method}) == 1


def test_all_segmentation_networks_on_scenes_are_the_supervised_ones_twins(teacher: Path):
    full = planned("scenes/supervised", teacher)["train-segmentation"].settings
    for name in ("scenes/cam", "scenes/clims", "scenes/qa_clims"):
        assert {**planned(name, teacher)["train-segmentation"].settings, "target": "masks"} == full


def test_the_ablation_differs_from_clims_in_its_losses_only():
    full = load_recipe("scenes/clims").resolved()
    weights = {"otm_weight", "btm_weight", "cbs_weight", "reg_weight"}
    for name in ("otm", "otm-btm", "otm-btm-reg", "otm-btm-cbs"):
        other = load_recipe(f"scenes/ablation-{name}").resolved()
        assert {k for k, v in other["method"].items() if v != full["method"][k]} <= weights
        assert all(other["method"][k] in (0, full["method"][k]) for k in weights)
        assert [other[key] for key in ("data", "training", "initialise")] == [
            full[key] for key in ("data", "training", "initialise")
        ]


QA_PARTS = {
    "losses": ({"frc_weight", "brc_weight", "reg_weight"}, ("frc", "brc", "frc-brc")),
    "texts": (
        {"foreground", "background", "empty_background"},
        (
            *("label", "fine-grained", "alias", "object", "scene", "background"),
            *("fine-grained-alias", "fine-grained-alias-object"),
        ),
    ),
    "thresholds": ({"omega"}, ("omega-005", "omega-010", "omega-020", "omega-040")),
    "answers": ({"vqa"}, ("oracle",)),
}


@pytest.mark.parametrize("part", QA_PARTS)
def test_each_ablation_of_qa_clims_differs_from_it_in_one_part_only(part: str):
    full = load_recipe("scenes/qa_clims").resolved()
    keys, names = QA_PARTS[part]
    for name in names:
        other = load_recipe(f"scenes/ablation-qa-{name}").resolved()
        changed = {key for key, value in full["method"].items() if other["method"].get(key) != value}
        assert changed, name
        assert changed <= keys | ({"vqa"} if name == "label" else set()), name  # nothing is asked there
        assert [other[key] for key in ("data", "training", "initialise", "activation")] == [
            full[key] for key in ("data", "training", "initialise", "activation")
        ]
    clims = load_recipe("scenes/clims").resolved()
    assert clims["initialise"] == full["initialise"]
    assert clims["training"] == full["training"]


@pytest.mark.parametrize("name", list_recipes())
def test_minutes_and_expected_scores_are_those_of_the_results(name: str):
    about, rows = load_recipe(name).about, published(name)
    assert (about.minutes is not None) == bool(rows)
    assert bool(about.expected) == bool(rows)
    for key, found in about.expected.items():
        stage, source, metric = key.split(".", 2)
        columns = ("stage", "background_score_source", "metric")
        values = [float(row["value"]) for row in rows if [row[c] for c in columns] == [stage, source, metric]]
        spread = [stdev(values)] if len(values) > 1 else []
        assert found == [pytest.approx(value, abs=0.051) for value in (fmean(values), *spread)]


def published(name: str) -> list[dict[str, str]]:
    """A recipe's rows in results/."""
    rows: list[dict[str, str]] = []
    for path in sorted(RESULTS.glob("*.csv")):
        if path.name not in ("benchmarks.csv", "refine_photographs.csv"):
            rows += [row for row in read_rows(path) if row["recipe"] == name]
    return rows
