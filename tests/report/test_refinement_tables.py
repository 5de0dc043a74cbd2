"""Tables of refined maps: chains, gains seed by seed, and the photographs."""

from __future__ import annotations

from pathlib import Path

import pytest

from wsss.engine.publish import COLUMNS
from wsss.report.tables import results_markdown, table_named


def row(recipe: str, stage: str, seed: int, value: float, source: str = "none") -> dict[str, str]:
    method = "supervised" if recipe == "supervised" else recipe.split("-")[0]
    own = {
        "recipe": f"scenes/{recipe}",
        "method": method,
        "stage": stage,
        "metric": "miou",
        "seed": str(seed),
        "value": f"{value}",
        "background_score_source": source,
        "supervision": "F" if recipe == "supervised" else "I",
    }
    return {column: own.get(column, "") for column in COLUMNS}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    rows = [row("cam", "maps", 0, 40.0, "automatic"), row("cam", "segmentation", 0, 44.0, "automatic")]
    rows += [row("supervised", "segmentation", seed, value) for seed, value in ((0, 80.0), (1, 64.0))]
    for seed, shift in ((0, 0.0), (1, 2.0)):
        for recipe, stages in {
            "cam-crf": {"refined-dense_crf": 50.0},
            "cam-psa-crf": {"refined-psa": 45.0, "refined-dense_crf": 52.0, "segmentation": 60.0},
            "cam-irn-crf": {"refined-irn": 47.0, "refined-dense_crf": 51.0},
        }.items():
            rows.append(row(recipe, "maps", seed, 40.0 + shift, "automatic"))
            for stage, value in stages.items():
                source = "automatic" if stage == "refined-irn" else "none"
                rows.append(row(recipe, stage, seed, value + 2 * shift, source))
    text = ",".join(COLUMNS) + "\n" + "".join(",".join(r.values()) + "\n" for r in rows)
    (tmp_path / "scenes.csv").write_text(text)
    return tmp_path


def test_each_step_of_a_chain_has_its_gain_over_the_maps(results: Path) -> None:
    table = results_markdown(results / "scenes.csv", "refinement").splitlines()
    cells = {line.split("|")[1].strip(): [c.strip() for c in line.split("|")[2:-1]] for line in table if line}
    assert cells["refined by"] == ["CAM maps (gain)", "CAM network (÷ full)"]
    assert cells["–"] == ["41.0 ± 1.4", "44.0 (0.55)"]  # of the recipe that refines nothing
    assert cells["dense CRF"][0] == "52.0 ± 2.8 (+11.0 ± 1.4)"
    assert cells["PSA"] == ["47.0 ± 2.8 (+6.0 ± 1.4)", ""]
    assert cells["PSA, then dense CRF"] == ["54.0 ± 2.8 (+13.0 ± 1.4)", "62.0 ± 2.8 (0.88)"]  # 60/80, 64/64
    assert cells["IRN"][0] == "49.0 ± 2.8 (+8.0 ± 1.4)"


def test_refined_recipes_stay_out_of_the_headline(results: Path) -> None:
    table = table_named("scenes", results)
    assert "CAM" in table
    assert "crf" not in table


def test_photographs_stand_beside_what_they_were_before(tmp_path: Path) -> None:
    (tmp_path / "refine_photographs.csv").write_text(
        "degradation,preset,background_score_source,miou_before,miou_after\n"
        "mild,irn,fixed,80.00,79.50\nmild,irn,oracle,81.00,79.50\nmild,vwl,fixed,80.00,84.25\n"
    )
    table = table_named("refine-photographs", tmp_path)
    assert "| mild | 80.0 | 79.5 (−0.5) | 84.2 (+4.2) |" in table
    assert table_named("refine-photographs", tmp_path / "nowhere") == ""
