from __future__ import annotations

import csv
from pathlib import Path

import pytest

from wsss.engine.publish import COLUMNS
from wsss.errors import DataError
from wsss.report.result_rows import Cell, Results, spread
from wsss.report.tables import (
    BENCHMARKS,
    filled_markdown,
    main,
    results_markdown,
    table_named,
    update_markdown,
)

METHODS = {"scenes/cam": "cam", "scenes/clims": "clims", "scenes/supervised": "supervised"}


def row(
    recipe: str, stage: str, seed: int, value: float, source: str, metric: str = "miou", paper: str = ""
) -> dict:
    return dict.fromkeys(COLUMNS, "x") | {
        "recipe": recipe,
        "method": METHODS.get(recipe, "clims"),
        "stage": stage,
        "split": "val" if stage == "segmentation" else "train",
        "metric": metric,
        "seed": str(seed),
        "value": f"{value:.2f}",
        "background_score_source": source,
        "paper_value": paper,
    }


def write(path: Path, rows: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture
def results(tmp_path: Path) -> Path:
    rows = []
    for seed in range(3):
        rows += [
            row("scenes/cam", "maps", seed, 40 + seed, "oracle"),
            row("scenes/clims", "maps", seed, 59 + 2 * seed, "oracle"),
            row("scenes/cam", "maps", seed, 70 + seed, "oracle", "iou:cat"),
            row("scenes/clims", "maps", seed, 75 + seed, "oracle", "iou:cat"),
            row("scenes/ablation-otm", "maps", seed, 50, "oracle", paper="37.2"),
            row("scenes/demo-cam", "maps", seed, 1, "oracle"),
            row("scenes/clims", "segmentation", seed, 54, "automatic"),
            row("scenes/clims", "segmentation", seed, 90, "automatic", "weak_to_full"),
            row("scenes/supervised", "segmentation", seed, 60, "none"),
        ]
    write(tmp_path / "results" / "scenes.csv", rows)
    return tmp_path / "results"


def test_stages_stand_beside_each_other_with_their_spread(results: Path) -> None:
    lines = results_markdown(results / "scenes.csv").strip().splitlines()
    assert lines == [
        "|  | maps, *oracle* | segmentation | weak ÷ full |",
        "| --- | ---: | ---: | ---: |",
        "| CAM | 41.0 ± 1.0 | – | – |",
        "| CLIMS | 61.0 ± 2.0 | 54.0 ± 0.0 | 0.90 |",
        "| fully supervised | – | 60.0 ± 0.0 | – |",
        "| *CLIMS − CAM* | +20.0 ± 1.0 | – |  |",
    ]


def test_gains_are_taken_seed_by_seed(results: Path) -> None:
    read = Results.read(results / "scenes.csv")
    assert read.gain("scenes/clims", "scenes/cam", Cell("maps", "oracle")) == "+20.0 ± 1.0"
    assert read.gain("scenes/cam", "scenes/clims", Cell("maps", "oracle")) == "−20.0 ± 1.0"
    assert read.gain("scenes/cam", "nothing", Cell("maps", "oracle")) == "–"


def test_the_loss_ablation_is_in_the_papers_order_with_its_numbers(results: Path) -> None:
    lines = table_named("ablation", results).strip().splitlines()
    assert lines[0] == "| losses | maps, *oracle* | seeds | paper, VOC 2012 train |"
    assert [line.split(" | ")[0] for line in lines[2:]] == [
        "| CAM, where CLIMS starts",
        "| OTM",
        "| OTM + BTM + CBS + REG (CLIMS)",
    ]
    assert lines[3].endswith("| 50.0 ± 0.0 | 3 | 37.2 |")


def test_classes_have_their_own_table(results: Path) -> None:
    assert table_named("scenes-classes", results).strip().splitlines() == [
        "| class | CAM | CLIMS | CLIMS − CAM |",
        "| --- | ---: | ---: | ---: |",
        "| cat | 71.0 ± 1.0 | 76.0 ± 1.0 | +5.0 ± 0.0 |",
    ]


def test_without_numbers_a_table_is_empty(tmp_path: Path) -> None:
    for name in ("scenes", "ablation", "msrc_v2", "scenes-teachers", "scenes-surroundings", *BENCHMARKS):
        assert table_named(name, tmp_path) == ""


def test_one_seed_has_no_spread() -> None:
    assert [spread([3.14159]), spread([-1.0], signed=True), spread([])] == ["3.1", "−1.0", "–"]


def test_classes_left_out_have_a_column(tmp_path: Path) -> None:
    rows = [
        row("folder/cam", "maps", 0, 20, "oracle"),
        row("folder/cam", "maps", 0, 22, "oracle", "miou_without:horse"),
        row("folder/cam", "segmentation", 0, 25, "automatic"),
        row("folder/cam", "segmentation", 0, 26.5, "automatic", "miou_without:horse"),
    ]
    text = results_markdown(write(tmp_path / "msrc_v2.csv", rows))
    assert "segmentation without horse" in text
    assert "| 26.5 |" in text


def test_benchmarks_are_shown_once_each(tmp_path: Path) -> None:
    (tmp_path / "benchmarks.csv").write_text(
        "benchmark,case,baseline,ratio,seconds,peak_mb,hardware,commit\n"
        "extract,96 px,one image,1.90,1.2,300,2 CPU cores,a\n"
        "extract,96 px,one image,2.10,1.1,310,2 CPU cores,b\n"
    )
    lines = table_named("benchmarks", tmp_path).strip().splitlines()
    assert len(lines) == 3
    assert lines[2] == "| extract | 96 px | one image | 2.10 | 1.1 | 310 | 2 CPU cores |"


def test_ratios_of_memory_and_scaling_stand_under_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "benchmarks.csv").write_text(
        "benchmark,case,baseline,ratio,seconds,peak_mb,hardware,commit\n"
        "extract,96 px,one image,2.10,1.1,310,2 CPU cores,b\n"
        'memory,"masks, 5 images",2 images,0.98,54.0,764,2 CPU cores,b\n'
        "scaling,2 processes,1 process,1.80,0.4,,2 CPU cores,b\n"
    )
    tables = {
        name: [
            line.strip("| ").split(" | ") for line in table_named(name, tmp_path).strip().splitlines()[::2]
        ]
        for name in ("benchmarks", "benchmarks-memory", "benchmarks-scaling")
    }
    assert tables["benchmarks"][1][:4] == ["extract", "96 px", "one image", "2.10"]
    assert tables["benchmarks"][0][3] == "times faster"
    memory, scaling = tables["benchmarks-memory"], tables["benchmarks-scaling"]
    assert dict(zip(*memory, strict=True)) == {
        "case": "masks, 5 images",
        "against": "2 images",
        "peak against it ÷ own peak": "0.98",
        "peak MB": "764",
        "seconds": "54.0",
        "hardware": "2 CPU cores",
    }
    assert dict(zip(*scaling, strict=True)) == {
        "case": "2 processes",
        "against": "1 process",
        "times the images per second": "1.80",
        "seconds per step": "0.4",
        "hardware": "2 CPU cores",
    }


def test_files_are_filled_between_their_markers_only(results: Path, tmp_path: Path) -> None:
    page = tmp_path / "docs" / "page.md"
    page.parent.mkdir()
    before, after = "# Title\n\n<!-- results:scenes -->\n", "<!-- /results -->\n\nThe end.\n"
    page.write_text(f"{before}old\n{after}")
    assert update_markdown(page, results)
    text = page.read_text()
    assert text.startswith(before + "\n| ")
    assert text.endswith("|\n\n" + after)
    assert not update_markdown(page, results)
    assert filled_markdown(text, results) == text
    page.write_text(f"{before}{after}")
    main([str(page.parent)], results)
    assert page.read_text() == text


def test_unknown_tables_are_refused(results: Path) -> None:
    with pytest.raises(DataError, match="no table `stage`"):
        results_markdown(results / "scenes.csv", "stage")


@pytest.fixture
def qa_results(tmp_path: Path) -> Path:
    rows = []
    subset = "miou_subset:specific_surroundings"
    for name, value in {"clims": 60, "qa_clims": 64, "ablation-qa-oracle": 66, "ablation-qa-frc": 50}.items():
        for seed in range(2):
            rows += [
                row(f"scenes/{name}", "maps", seed, value + seed, "oracle"),
                row(f"scenes/{name}", "maps", seed, value + seed - 5, "oracle", subset),
                row(f"scenes/{name}", "maps", seed, value - 2, "automatic"),
                row(f"scenes/{name}", "maps", seed, value - 9, "fixed"),
            ]
    rows += [row("scenes/ablation-qa-omega-010", "maps", 0, 55, "oracle")]
    rows += [row("scenes/ablation-qa-label", "maps", 0, 61, "oracle")]
    write(tmp_path / "results" / "scenes.csv", rows)
    return tmp_path / "results"


def test_qa_clims_stands_beside_clims_and_the_oracle(qa_results: Path) -> None:
    lines = table_named("scenes-qa_methods", qa_results).strip().splitlines()
    assert lines[2] == "| CLIMS | 58.0 ± 0.0 | 60.5 ± 0.7 |  | 55.5 ± 0.7 |  | 2 |"
    assert lines[3] == "| QA-CLIMS | 62.0 ± 0.0 | 64.5 ± 0.7 | +4.0 ± 0.0 | 59.5 ± 0.7 | +4.0 ± 0.0 | 2 |"
    assert lines[4].startswith("| QA-CLIMS, *answers of the generator* | 64.0")


def test_the_ablations_of_qa_clims_have_the_papers_rows(qa_results: Path) -> None:
    assert table_named("scenes-qa_losses", qa_results).strip().splitlines()[2:] == [
        "| FRC | 50.5 ± 0.7 | 2 |",
        "| FRC + BRC + REG (QA-CLIMS) | 64.5 ± 0.7 | 2 |",
    ]
    texts = table_named("scenes-qa_texts", qa_results)
    assert '| label, "no label" | 61.0 | 1 |' in texts
    thresholds = table_named("scenes-qa_thresholds", qa_results)
    assert "| 0.1 (the paper's) | 55.0 | – | 1 |" in thresholds
    assert "| off (QA-CLIMS here) | 64.5 ± 0.7 | 55.0 ± 0.0 | 2 |" in thresholds
