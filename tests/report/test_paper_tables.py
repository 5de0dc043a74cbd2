from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from wsss.engine.papers import Column, Exhibit, Row, find_exhibits
from wsss.errors import DataError
from wsss.report.paper_tables import by_seed, curves, paper_markdown, paper_table, verdict, with_points
from wsss.report.result_rows import Results
from wsss.report.tables import results_markdown, table_named


def rows(
    recipe: str,
    values: list[float],
    metric: str = "miou",
    source: str = "oracle",
    stage: str = "maps",
) -> list[dict[str, str]]:
    return [
        {
            "recipe": recipe,
            "method": "clims",
            "stage": stage,
            "metric": metric,
            "seed": str(seed),
            "value": str(value),
            "background_score_source": source,
        }
        for seed, value in enumerate(values)
    ]


def results(*groups: list[dict[str, str]]) -> Results:
    return Results(tuple(row for group in groups for row in group))


def exhibit(*shown: Row, **changes: Any) -> Exhibit:
    given: dict[str, Any] = {
        "paper": "clims",
        "paper_title": "CLIMS",
        "key": "table9",
        "title": "Losses",
        "says": "More is better.",
        "where": "VOC 2012 train",
        "columns": (Column("maps, oracle", "maps", "oracle"),),
        "rows": shown,
    }
    return Exhibit(**{**given, **changes})


A = Row("scenes/a", "A", {"maps, oracle": 37.2})
B = Row("scenes/b", "B", {"maps, oracle": 41.3})
C = Row("scenes/c", "C", {"maps, oracle": 28.6})
NUMBERS = results(
    rows("scenes/a", [50.0, 52.0, 54.0]), rows("scenes/b", [44.0, 45.0, 46.0]), rows("scenes/c", [30.0])
)


def test_means_and_spread_stand_beside_the_papers_number_labelled_as_voc():
    found = paper_table(exhibit(A, B, C), NUMBERS)
    assert found is not None
    assert found.head == ("", "maps, oracle", "seeds", "paper, VOC 2012 train")
    assert found.rows == (
        ("A", "52.0 ± 2.0", "3", "37.2"),
        ("B", "45.0 ± 1.0", "3", "41.3"),
        ("C", "30.0", "1", "28.6"),
    )


def test_what_does_not_come_out_is_said():
    found = paper_table(exhibit(A, B, C), NUMBERS)
    assert found is not None
    assert found.trends == (  # seed by seed: -6, -7, -8; then -14 on the one seed that both have
        "B − A: +4.1 in the paper, −7.0 ± 1.0 here, not as in the paper.",
        "C − B: −12.7 in the paper, −14.0 here, as in the paper, on one seed.",
    )


def test_rows_that_are_no_chain_are_compared_with_what_they_name():
    both = replace(C, base=("scenes/b", "A"))
    found = paper_table(exhibit(A, replace(B, base="none"), both), NUMBERS)
    assert found is not None
    assert found.trends == (  # 30 - 44 and 30 - 50 on seed 0
        "C − B: −12.7 in the paper, −14.0 here, as in the paper, on one seed.",
        "C − A: −8.6 in the paper, −20.0 here, as in the paper, on one seed.",
    )


def test_a_row_compared_with_one_that_has_no_numbers_yet_says_nothing():
    found = paper_table(exhibit(A, Row("scenes/d", "D", {"maps, oracle": 1.0}), C), NUMBERS)
    assert found is not None
    assert [row[0] for row in found.rows] == ["A", "C"]
    assert found.trends == ()


def test_differences_of_unlike_numbers_are_given_but_not_judged():
    found = paper_table(exhibit(replace(A, paper_by="ResNet-50"), replace(B, paper_by="VGG")), NUMBERS)
    assert found is not None
    assert [row[-1] for row in found.rows] == ["37.2 (ResNet-50)", "41.3 (VGG)"]
    assert found.trends == (
        "B − A: +4.1 in the paper, where more differs (VGG; ResNet-50), −7.0 ± 1.0 here.",
    )
    alike = exhibit(replace(A, paper_by="VGG"), replace(B, paper_by={"maps, oracle": "VGG"}))
    found = paper_table(alike, NUMBERS)
    assert found is not None
    assert found.trends == ("B − A: +4.1 in the paper, −7.0 ± 1.0 here, not as in the paper.",)


def test_a_row_may_show_another_stage_of_a_recipe_that_stands_there_already():
    refined = replace(A, label="A, refined", stage="refined-psa", source="none", paper={})
    known = results(
        NUMBERS.rows,  # type: ignore[arg-type]
        rows("scenes/a", [70.0, 74.0], source="none", stage="refined-psa"),
        rows("scenes/a", [1.0], stage="refined-psa"),
    )
    found = paper_table(exhibit(A, refined), known)
    assert found is not None
    assert [row[:3] for row in found.rows] == [("A", "52.0 ± 2.0", "3"), ("A, refined", "72.0 ± 2.8", "2")]


def test_refined_maps_in_figure_4_of_clims_have_their_own_numbers():
    recipe, refined = "scenes/clims-psa-crf", "refined-dense_crf"
    known = results(
        rows("scenes/clims", [30.0, 30.0, 30.0], "over_activation"),
        rows(recipe, [29.3, 29.0, 30.0], "over_activation"),
        rows(recipe, [10.04, 8.28, 9.60], "over_activation", "none", refined),
        rows(recipe, [21.67, 24.10, 29.64], "under_activation", "none", refined),
    )
    found = paper_table(find_exhibits("clims-figure4")[0], known)
    assert found is not None
    assert found.head == ("", "missed pixels, %", "false pixels, %", "seeds")
    assert found.rows[-1] == ("all four, refined by PSA and CRF", "25.1 ± 4.1", "9.3 ± 0.9", "3")


def test_each_number_knows_the_papers_number_of_the_same_thing():
    columns = (Column("fixed", "maps", "fixed"), Column("maps, oracle", "maps", "oracle"))
    known = results(NUMBERS.rows, rows("scenes/a", [40.0], source="fixed"))  # type: ignore[arg-type]
    found = paper_table(exhibit(A, B, columns=columns), known)
    assert found is not None
    assert found.head[2] == "maps, oracle"
    assert found.papers == {2: 4}
    assert found.head[4].startswith("paper")


@pytest.mark.parametrize(
    ("gains", "wanted", "said"),
    [
        ([1.0, 2.0, 3.0], 1.0, "as in the paper"),  # mean 2.0, standard error 0.58
        ([1.0, 2.0, 3.0], -1.0, "not as in the paper"),
        ([-1.0, -2.0, -3.0], -5.0, "as in the paper"),
        ([0.1, 4.0, 8.0], 1.0, "as in the paper in the mean, but too uncertain to count"),  # error 2.3
        ([-0.5, 2.0, 3.0], 1.0, "as in the paper in the mean, but too uncertain to count"),
        ([0.5, -2.0, -3.0], 1.0, "not as in the paper in the mean, and seeds differ"),
        ([0.5], 1.0, "as in the paper, on one seed"),
        ([-0.5], 1.0, "not as in the paper, on one seed"),
    ],
)
def test_a_difference_comes_out_by_the_rule_for_gains(gains: list[float], wanted: float, said: str):
    assert verdict(gains, wanted) == said


def test_a_number_of_several_metrics_is_their_mean_by_seed():
    column = Column("mean of both", "maps", "oracle", ("iou:boat", "iou:train"))
    known = results(
        rows("scenes/a", [10.0, 20.0, 30.0], "iou:boat"), rows("scenes/a", [30.0, 60.0], "iou:train")
    )
    assert by_seed(known, column, A) == {0: 20.0, 1: 40.0}  # seed 2 has no train


def test_a_column_may_take_another_recipe_of_the_row():
    refined = Column("refined", "maps", "oracle", recipe="{}-crf")
    known = results(NUMBERS.rows, rows("scenes/a-crf", [70.0]))  # type: ignore[arg-type]
    shown = exhibit(A, B, columns=(Column("maps, oracle", "maps", "oracle"), refined))
    assert shown.recipes == ("scenes/a", "scenes/b", "scenes/a-crf", "scenes/b-crf")
    found = paper_table(shown, known)
    assert found is not None
    assert [row[2] for row in found.rows] == ["70.0", "–"]
    assert [row[3] for row in found.rows] == ["1–3", "3"]


def test_tables_are_empty_while_there_is_nothing_to_compare():
    assert paper_table(exhibit(A, B), results(rows("scenes/a", [1.0]))) is None
    assert paper_markdown(exhibit(A, B), results()) == ""


def test_curves_have_a_line_per_value_and_a_column_per_series():
    shown = exhibit(
        Row("scenes/a", "OTM, 1", series="OTM", x=1.0),
        Row("scenes/b", "OTM, 0.7", series="OTM", x=0.7),
        Row("scenes/a", "BTM, 1", series="BTM", x=1.0),
        Row("scenes/c", "BTM, off", series="BTM"),
        Row("scenes/a", "REG, 1", series="REG", x=1.0),  # alone, so no curve
        kind="curves",
        axis="times",
    )
    assert {name: list(points) for name, points in curves(shown, NUMBERS).items()} == {
        "OTM": [0.7, 1.0],
        "BTM": [None, 1.0],
    }
    found = paper_table(shown, NUMBERS)
    assert found is not None
    assert found.head == ("times", "OTM", "BTM", "seeds")
    assert found.rows == (
        ("off", "–", "30.0", "1"),
        ("0.7", "45.0 ± 1.0", "–", "3"),
        ("1", "52.0 ± 2.0", "52.0 ± 2.0", "3"),
    )
    assert found.trends[0] == "OTM: means lie between 45.0 and 52.0, 7.0 points apart; the best is at 1."


def test_classes_stand_below_each_other_with_the_papers_numbers_apart():
    known = results(
        NUMBERS.rows,  # type: ignore[arg-type]
        rows("scenes/a", [10.0, 12.0], "iou:cat"),
        rows("scenes/b", [20.0, 24.0], "iou:cat"),
        rows("scenes/a", [50.0], "iou:cow"),
        rows("scenes/b", [40.0], "iou:cow"),
    )
    last = Row("scenes/b", "B", {"cat": 82.9})
    found = paper_table(exhibit(Row("scenes/a", "A"), last, kind="classes"), known)
    assert found is not None
    assert found.head == ("class", "A", "B", "paper, VOC 2012 train: B")
    assert found.rows == (
        ("cat", "11.0 ± 1.4", "22.0 ± 2.8", "82.9"),
        ("cow", "50.0", "40.0", "–"),
        ("mean", "52.0 ± 2.0", "45.0 ± 1.0", "–"),
    )
    assert found.trends == ("1 of 2 classes are higher with B than with A; not so: cow.",)
    assert found.papers == {2: 3}


def test_means_of_points_become_numbers(tmp_path: Path):
    files = []
    for recipe, value in (("scenes/a", 0.25), ("scenes/b", 0.75)):
        path = tmp_path / f"{recipe[-1]}.json"
        path.write_text(json.dumps({"recipe": recipe, "seed": 0, "means": {"of_object": value}}))
        files.append(path)
    shown = exhibit(Row("scenes/a", "A"), Row("scenes/b", "B"), kind="points")
    shown = exhibit(*shown.rows, columns=(Column("own class", "points", metrics=("of_object",)),))
    found = paper_table(shown, with_points(results(), files))
    assert found is not None
    assert found.rows == (("A", "25.0", "1"), ("B", "75.0", "1"))


def test_a_comparison_gives_the_same_numbers_as_published_rows():
    comparison = {
        "rows": [
            {
                "recipe": "scenes/a",
                "method": "clims",
                "supervision": "I+L",
                "stage": "maps",
                "split": "train",
                "metric": "miou",
                "background_score_source": "oracle",
                "by_seed": {0: 50.0, 1: 52.0, 2: 54.0},
            }
        ]
    }
    found = Results.of_comparison(comparison)
    assert by_seed(found, Column("maps", "maps", "oracle"), A) == {0: 50.0, 1: 52.0, 2: 54.0}


def test_markers_and_views_show_the_exhibits(tmp_path: Path):
    from test_result_tables import row as published
    from test_result_tables import write

    path = write(
        tmp_path / "scenes.csv",
        [
            *(published("scenes/clims", "maps", seed, 60 + seed, "oracle") for seed in range(3)),
            *(
                published(f"scenes/ablation-clims-{name}-{factor}", "maps", 0, 62, "oracle")
                for name in ("otm", "reg")
                for factor in ("085", "115")
            ),
            published("scenes/smvwe-v1-vgg", "segmentation", 0, 55, "automatic"),
            published("scenes/smvwe", "segmentation", 0, 57, "automatic"),
        ],
    )
    lines = table_named("scenes-clims_weights", tmp_path).strip().splitlines()
    assert lines[0] == "| times the recipe's weight | OTM | REG | seeds |"
    assert lines[2:] == [
        "| 0.85 | 62.0 | 62.0 | 1 |",
        "| 1 | 61.0 ± 1.0 | 61.0 ± 1.0 | 3 |",
        "| 1.15 | 62.0 | 62.0 | 1 |",
    ]
    assert table_named("paper/clims-figure5", tmp_path) == results_markdown(path, "clims_weights")
    networks = results_markdown(path, "smvwe_networks").strip().splitlines()
    assert networks[2:] == [
        "| DeepLab V1, VGG | 55.0 | 1 | 67.5 |",
        "| DeepLab V2, ResNet | 57.0 | 1 | 71.3 |",
    ]
    assert results_markdown(path, "background_suppression") == ""
    with pytest.raises(DataError):
        results_markdown(path, "clims_wights")
    assert paper_markdown(find_exhibits("clims-table4")[0], Results.read(path)) == ""
