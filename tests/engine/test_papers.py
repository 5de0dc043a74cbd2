from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tiny_recipe import CAM_RECIPE, Recorder, training, write_recipe
from wsss.data import open_dataset
from wsss.engine import papers
from wsss.engine.method_work import build_method
from wsss.engine.papers import (
    Column,
    Exhibit,
    Row,
    exhibits,
    find_exhibits,
    measure_points,
    recipes_of,
    reproduce,
)
from wsss.engine.recipe import load_recipe
from wsss.engine.recipe_files import list_recipes
from wsss.engine.run import run
from wsss.errors import RecipeError, StageError
from wsss.methods.base import Frozen
from wsss.training.checkpoint import load_state

NAMES = [exhibit.name for exhibit in exhibits()]


def test_every_exhibit_of_the_papers_is_there():
    assert set(NAMES) == {
        *(
            f"clims-{key}"
            for key in ("table1", "table2", "table3", "table4", "figure4", "figure5", "figure6")
        ),
        *(f"smvwe-{key}" for key in ("table1", "table2", "table3", "table4", "figure2")),
        *(f"qa_clims-table{number}" for number in range(1, 6)),
        *("qa_clims-figure4", "qa_clims-figure5", "qa_clims-threshold"),
    }
    assert find_exhibits("clims-table3")[0].heading == "Table 3"
    assert find_exhibits("qa_clims-threshold")[0].heading == "Section 3.3.4"


@pytest.mark.parametrize("name", NAMES)
def test_an_exhibit_names_shipped_recipes_of_one_data_set(name: str):
    [exhibit] = find_exhibits(name)
    assert set(exhibit.recipes) <= set(list_recipes())
    assert len({recipe.partition("/")[0] for recipe in exhibit.recipes}) == 1
    titles = {column.title for column in exhibit.columns}
    for row in exhibit.rows:
        assert exhibit.kind == "classes" or set(row.paper) <= titles, row.label


def test_a_paper_is_all_its_exhibits_on_the_same_data():
    assert [each.name for each in find_exhibits("smvwe")] == [n for n in NAMES if n.startswith("smvwe-")]
    recipes = recipes_of(find_exhibits("qa_clims"))
    assert {recipe.partition("/")[0] for recipe in recipes} == {"scenes"}
    assert len(recipes) == len(set(recipes))
    with pytest.raises(RecipeError, match="Did you mean `clims-table3`"):
        find_exhibits("clims-tabel3")


def test_weights_of_figure_5_are_scaled_one_at_a_time():
    full = load_recipe("scenes/clims").resolved()
    [figure] = find_exhibits("clims-figure5")
    for row in figure.rows:
        other = load_recipe(row.recipe).resolved()
        changed = {key for key, value in full["method"].items() if other["method"][key] != value}
        key = f"{row.series.lower()}_weight"
        assert changed == ({key} if row.x != 1 else set())
        assert other["method"][key] == pytest.approx(full["method"][key] * (row.x or 0))
        assert [other[part] for part in ("data", "training", "initialise", "activation")] == [
            full[part] for part in ("data", "training", "initialise", "activation")
        ]
    assert sorted({row.x for row in figure.rows if row.x}) == [0.7, 0.85, 1, 1.15, 1.3]


def test_papers_numbers_are_the_published_ones():
    losses = {row.label: row.paper["maps, oracle"] for row in find_exhibits("clims-table3")[0].rows}
    assert list(losses.values()) == [28.6, 37.2, 41.3, 53.1, 45.4, 56.6]
    texts = [row.paper["maps, oracle"] for row in find_exhibits("qa_clims-table5")[0].rows]
    assert texts == [60.2, 61.0, 60.7, 66.3, 64.5, 61.2, 67.0, 67.3]
    suppressed = find_exhibits("clims-table4")[0].rows
    for row in suppressed[:2]:  # the paper rounds 61.05 up
        assert row.paper["mean of both"] == pytest.approx(
            (row.paper["boat"] + row.paper["train"]) / 2, abs=0.051
        )


def told_differences(name: str) -> dict[tuple[str, str, str], float]:
    """The paper's differences of an exhibit by column, row and what the row is compared with."""
    [exhibit] = find_exhibits(name)
    return {
        (title, row.label, base.label): round(row.paper[title] - base.paper[title], 1)
        for row in exhibit.rows
        for title in row.paper
        for base in exhibit.bases(row, title)
    }


def test_losses_are_compared_with_the_losses_that_they_add_to():
    maps = "maps, oracle"
    assert told_differences("clims-table3") == {  # the paper's text: OTM to BTM, then REG, and CBS adds 3.5
        (maps, "OTM", "VGG classifier as evaluator"): 8.6,
        (maps, "OTM + BTM", "OTM"): 4.1,
        (maps, "OTM + BTM + REG", "OTM + BTM"): 11.8,
        (maps, "OTM + BTM + CBS", "OTM + BTM"): 4.1,
        (maps, "OTM + BTM + REG + CBS", "OTM + BTM + REG"): 3.5,
        (maps, "OTM + BTM + REG + CBS", "OTM + BTM + CBS"): 11.2,
    }
    assert told_differences("qa_clims-table4") == {
        (maps, "FRC + BRC", "FRC"): 6.8,
        (maps, "FRC + BRC", "BRC"): 9.4,
        (maps, "FRC + BRC + REG", "FRC + BRC"): 0.2,
    }


def test_alternative_texts_are_compared_with_the_label_alone():
    told = told_differences("qa_clims-table5")
    label = 'label, "no label"'
    alone = {row: value for (_, row, base), value in told.items() if base == label}
    assert alone == {
        "with fine-grained": 0.8,
        "with alias": 0.5,
        "with background objects": 6.1,
        "with background scene": 4.3,
    }
    assert {row for _, row, base in told if base != label} == {
        *("with fine-grained and alias", "with fine-grained, alias and background objects", "all four")
    }


def test_the_segmentation_of_qa_clims_is_of_refined_maps_and_says_what_the_papers_is_of():
    rows = find_exhibits("qa_clims-table2")[0].rows
    assert [(row.recipe, row.paper["segmentation"], row.made_by("segmentation")) for row in rows[:3]] == [
        ("scenes/cam-irn-crf", 63.5, "IRN, ResNet-50"),
        ("scenes/clims-irn-crf", 69.3, "PSA, ResNet-101"),
        ("scenes/qa_clims-irn-crf", 72.4, "IRN, ResNet-101"),
    ]
    assert all(load_recipe(row.recipe).refine for row in rows[:3])


@pytest.mark.parametrize(
    ("base", "said"),
    [
        ("AA", "`base` of B in clims-table9 must name one other row; got `AA`. Did you mean `A`"),
        ("B", "must name one other row; got `B`"),  # itself
        (("A", "scenes/d"), "must name one other row; got `scenes/d`"),  # two rows have this recipe
        ("C", "`C` has none"),
    ],
)
def test_what_a_row_is_compared_with_is_checked(base: str | tuple[str, ...], said: str):
    numbers = {"maps": 1.0}
    rows = (
        Row("scenes/a", "A", numbers),
        Row("scenes/b", "B", numbers, base=base),
        Row("scenes/c", "C"),
        Row("scenes/d", "D", numbers),
        Row("scenes/d", "D, refined", numbers, stage="refined-psa"),
    )
    with pytest.raises(RecipeError) as error:
        Exhibit("clims", "CLIMS", "table9", "Losses", "", "", (Column("maps", "maps"),), rows)
    assert said in str(error.value)


def test_rows_of_one_name_and_bases_of_classes_are_refused():
    columns = (Column("maps", "maps"),)
    with pytest.raises(RecipeError, match=r"different labels; got \['A'\]"):
        Exhibit("clims", "", "table9", "", "", "", columns, (Row("scenes/a", "A"), Row("scenes/b", "A")))
    rows = (Row("scenes/a", "A", {"cat": 1.0}), Row("scenes/b", "B", {"cat": 2.0}, base="A"))
    with pytest.raises(RecipeError, match="rows of classes are not compared"):
        Exhibit("clims", "", "table9", "", "", "", columns, rows, kind="classes")


def test_a_misspelt_field_of_the_list_is_an_error():
    fields = {"title": "", "says": "", "where": "", "columns": [{"title": "maps", "stage": "maps"}]}
    rows = [{"recipe": "scenes/a", "label": "A", "bse": "none"}]
    with pytest.raises(ValueError, match="bse"):
        papers._exhibit("clims", "CLIMS", "table9", {**fields, "rows": rows})


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("points")
    write_recipe(folder / "cam.yaml", CAM_RECIPE, training=training(1), segmentation=None)
    run(folder / "cam.yaml", seed=0, runs=folder / "runs")
    return folder


def test_points_are_compared_with_the_trained_weights_once(trained: Path):
    recipe, listener = trained / "cam.yaml", Recorder()
    path = measure_points(recipe, ["train", "unicorn", "boat"], runs=trained / "runs", progress=listener)
    document = json.loads(path.read_text())
    assert [image["class_name"] for image in document["images"]] in (["train", "boat"], ["train"], ["boat"])
    assert len(listener.started_titles) == 1
    again = measure_points(recipe, ["train", "unicorn", "boat"], runs=trained / "runs", progress=listener)
    assert again == path
    assert len(listener.skipped_titles) == 1
    check_one_cosine(trained, document)
    with pytest.raises(StageError, match="not trained with seed 1"):
        measure_points(recipe, ["train"], seed=1, runs=trained / "runs")


def check_one_cosine(trained: Path, document: dict[str, Any]) -> None:
    """Every cosine again, from the network itself and by hand."""
    recipe = load_recipe(trained / "cam.yaml")
    [tree] = (trained / "runs" / "stages").glob("data-*/tree")
    dataset: Any = open_dataset(recipe.data, root=tree)
    assert recipe.method is not None
    method: Any = build_method(recipe.method, dataset, Frozen(), seed=0)
    [checkpoint] = (trained / "runs" / "stages").glob("train-method-*/model.safetensors")
    method.load_state_dict(load_state(checkpoint)[0])
    method.eval()
    mean, std = torch.tensor(method.mean), torch.tensor(method.std)
    for image in document["images"]:
        pixels = torch.from_numpy(dataset.sample(image["image_id"], with_mask=False).image / 255.0).float()
        with torch.no_grad():
            features = method.backbone(((pixels - mean) / std).permute(2, 0, 1)[None])[0]
        stride = pixels.shape[0] // features.shape[1]
        for k, name in enumerate(document["class_names"]):
            weights = method.classifier.weight[k, :, 0, 0].detach()
            for place, (row, column) in enumerate(image["points"]):
                feature = features[:, row // stride, column // stride]
                cosine = float((feature * weights).sum() / (feature.norm() * weights.norm()))
                assert image["cosines"][k][place] == pytest.approx(max(0.0, cosine), abs=2e-4), name
    own = [i["of_object"] for i in document["images"]]
    assert document["means"]["of_object"] == pytest.approx(sum(own) / len(own))


def test_reproducing_runs_each_recipe_once_and_gives_its_points(
    trained: Path, monkeypatch: pytest.MonkeyPatch
):
    asked: list[tuple[str, ...]] = []

    def compared(recipes: Any, **options: Any) -> str:
        asked.append(tuple(recipes))
        return "compared"

    monkeypatch.setattr(papers, "compare", compared)
    monkeypatch.setattr(
        papers, "measure_points", lambda recipe, classes, *, seed, **_: Path(f"{recipe}-{seed}")
    )
    comparison, points = reproduce(find_exhibits("clims-figure6"), seeds=(0, 2))
    assert comparison == "compared"
    assert asked == [("scenes/cam", "scenes/clims")]
    assert [str(path) for path in points] == [
        f"scenes/{name}-{seed}" for name in ("cam", "clims") for seed in (0, 2)
    ]
