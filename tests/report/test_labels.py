from __future__ import annotations

import pytest

from wsss.engine.recipe_files import list_recipes
from wsss.report.labels import recipe_label


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("scenes/smvwe", "SMVWE"),
        ("scenes/eps", "EPS"),
        ("scenes/vwe", "VWE"),
        ("msrc_v2/qa_clims", "QA-CLIMS"),
        ("scenes/cam-psa-crf", "CAM + PSA + CRF"),
        ("scenes/ablation-otm-btm", "OTM + BTM"),
        ("scenes/ablation-qa-frc-brc", "QA-CLIMS FRC + BRC"),
        ("scenes/ablation-qa-omega-010", "QA-CLIMS omega-010"),
        ("scenes/smvwe-v1-vgg", "SMVWE V1-VGG"),
        ("scenes/ablation-classifier", "classifier"),
        ("mine", "mine"),
    ],
)
def test_recipes_have_the_names_that_papers_use(name: str, label: str):
    assert recipe_label(name) == label


def test_no_two_shipped_recipes_of_one_folder_share_a_label():
    names = list_recipes()
    assert len({(name.partition("/")[0], recipe_label(name)) for name in names}) == len(names)
