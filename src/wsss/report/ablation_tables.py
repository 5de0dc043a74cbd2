"""Tables of ablations: one thing left out, added or replaced in each row, maps at the oracle score."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from wsss.report.markdown_table import markdown
from wsss.report.result_rows import Cell, Results

MAPS: Final = Cell("maps", "oracle")
SPECIFIC: Final = Cell("maps", "oracle", "miou_subset:specific_surroundings")

LOSSES: Final = {
    "cam": "CAM, where CLIMS starts",
    "ablation-classifier": "VGG classifier as evaluator",
    "ablation-otm": "OTM",
    "ablation-otm-btm": "OTM + BTM",
    "ablation-otm-btm-reg": "OTM + BTM + REG",
    "ablation-otm-btm-cbs": "OTM + BTM + CBS",
    "clims": "OTM + BTM + CBS + REG (CLIMS)",
}
TEACHERS: Final = {
    "clims": "as shipped",
    "ablation-teacher-dense": "with a dense auxiliary loss",
    "ablation-teacher-exact": "with exact-mask crops",
}
QA_METHODS: Final = {
    "clims": "CLIMS",
    "qa_clims": "QA-CLIMS",
    "ablation-qa-oracle": "QA-CLIMS, *answers of the generator*",
}
QA_LOSSES: Final = {
    "ablation-qa-frc": "FRC",
    "ablation-qa-brc": "BRC",
    "ablation-qa-frc-brc": "FRC + BRC",
    "qa_clims": "FRC + BRC + REG (QA-CLIMS)",
}
QA_TEXTS: Final = {
    "ablation-qa-label": 'label, "no label"',
    "ablation-qa-fine-grained": "+ fine-grained",
    "ablation-qa-alias": "+ alias",
    "ablation-qa-object": "+ background objects",
    "ablation-qa-scene": "+ background scene",
    "ablation-qa-background": "+ background objects and scene",
    "ablation-qa-fine-grained-alias": "+ fine-grained and alias",
    "ablation-qa-fine-grained-alias-object": "+ fine-grained, alias and background objects",
    "qa_clims": "all four (QA-CLIMS)",
}
QA_THRESHOLDS: Final = {
    "qa_clims": "off (QA-CLIMS here)",
    "ablation-qa-omega-005": "0.05",
    "ablation-qa-omega-010": "0.1 (the paper's)",
    "ablation-qa-omega-020": "0.2",
    "ablation-qa-omega-040": "0.4",
}

QA_SALIENCY: Final = {
    "qa_clims": "0 (QA-CLIMS)",
    "ablation-qa-saliency-004": "4",
    "qa_clims_saliency": "20",
    "ablation-qa-saliency-060": "60",
    "ablation-qa-saliency-no-overlap": "20, whatever the classes lie on",
}

SMVWE_PARTS: Final = {
    "cam-crf": "CAM",  # its maps before the CRF, trained on the machine of the other rows
    "vwe": "words alone (VWE)",
    "eps": "saliency alone (EPS)",
    "smvwe": "words and saliency (SMVWE)",
}
SMVWE_SETTINGS: Final = {  # each at its value in scenes/smvwe and at others
    "overlap limit delta": {"ablation-smvwe-delta-02": "0.2", "ablation-smvwe-delta-06": "0.6"},
    "share of the background mu": {"ablation-smvwe-mu-01": "0.1", "ablation-smvwe-mu-09": "0.9"},
    "words": {"ablation-smvwe-words-32": "32", "ablation-smvwe-words-512": "512"},
    "temperature": {"ablation-smvwe-temperature-01": "0.1", "ablation-smvwe-temperature-10": "10"},
}


def losses(results: Results) -> str:
    """The loss ablation of CLIMS, in the order of the paper's table 3."""
    return _ablation(results, LOSSES, "losses")


def teachers(results: Results) -> str:
    """CLIMS with differently trained teachers, and its gain over CAM with each."""
    rows = []
    cam = results.recipe_named("cam")
    for recipe, words in _found(results, TEACHERS).items():
        if cam:
            gain = results.gain(recipe, cam, MAPS)
            rows.append([words, results.text(recipe, MAPS), gain, results.seeds(recipe, MAPS)])
    return markdown(["teacher", "maps, *oracle*", "gain over CAM", "seeds"], rows)


def qa_methods(results: Results) -> str:
    """QA-CLIMS beside CLIMS: all images, and those whose surroundings no fixed list of texts covers."""
    clims = results.recipe_named("clims")
    found = _found(results, QA_METHODS)
    if clims is None or len(found) < 2:
        return ""
    rows = []
    for recipe, words in found.items():
        cells = [Cell("maps", "automatic"), MAPS, SPECIFIC]
        gains = ["" if recipe == clims else results.gain(recipe, clims, cell) for cell in cells[1:]]
        texts = [results.text(recipe, cell) for cell in cells]
        rows.append([words, texts[0], texts[1], gains[0], texts[2], gains[1], results.seeds(recipe, MAPS)])
    head = ["maps", "automatic", "*oracle*", "gain", "specific surroundings, *oracle*", "gain", "seeds"]
    return markdown(head, rows)


def qa_losses(results: Results) -> str:
    """The loss ablation of QA-CLIMS, as in the paper's table 4."""
    return _ablation(results, QA_LOSSES, "losses")


def qa_texts(results: Results) -> str:
    """The text ablation of QA-CLIMS, as in the paper's table 5."""
    return _ablation(results, QA_TEXTS, "texts")


def qa_thresholds(results: Results) -> str:
    """Foreground adaptive thresholding: off, and at several shares of a map's maximum."""
    return _ablation(results, QA_THRESHOLDS, "omega", also_fixed=True)


def qa_saliency(results: Results) -> str:
    """QA-CLIMS with saliency feedback of several weights, and without the overlap rule."""
    if results.recipe_named("qa_clims_saliency") is None:
        return ""
    return _ablation(results, QA_SALIENCY, "weight of the feedback")


def smvwe_parts(results: Results) -> str:
    """CAM, and what words, saliency and both add to it."""
    cam, found = results.recipe_named("cam-crf"), _found(results, SMVWE_PARTS)
    if cam is None or len(found) < 2:
        return ""
    cells = [Cell("maps", "automatic"), MAPS]
    rows = []
    for recipe, words in found.items():
        gain = "" if recipe == cam else results.gain(recipe, cam, MAPS)
        texts = [results.text(recipe, cell) for cell in cells]
        rows.append([words, *texts, gain, results.seeds(recipe, MAPS)])
    return markdown(["maps", "automatic", "*oracle*", "gain over CAM", "seeds"], rows)


def words(results: Results) -> str:
    """Visual words as a segmentation: named by the method itself, and as well as could be."""
    cells = [Cell("words", "none"), Cell("words", "oracle")]
    rows = [
        [label, *(results.text(recipe, cell) for cell in cells), results.seeds(recipe, cells[0])]
        for recipe, label in _found(results, SMVWE_PARTS).items()
        if results.by_seed(recipe, cells[0])
    ]
    return markdown(["word labels", "named by the method", "*named by true masks*", "seeds"], rows)


def smvwe_settings(results: Results) -> str:
    """SMVWE with one number changed at a time."""
    rows = []
    for setting, recipes in SMVWE_SETTINGS.items():
        for recipe, value in _found(results, recipes).items():
            rows.append([setting, value, results.text(recipe, MAPS), results.seeds(recipe, MAPS)])
    if not rows:
        return ""
    own = results.recipe_named("smvwe")
    if own:
        rows.insert(0, ["as in scenes/smvwe", "", results.text(own, MAPS), results.seeds(own, MAPS)])
    return markdown(["setting", "value", "maps, *oracle*", "seeds"], rows)


ABLATIONS: Final[Mapping[str, Callable[[Results], str]]] = {
    "losses": losses,
    "teachers": teachers,
    "qa_methods": qa_methods,
    "qa_losses": qa_losses,
    "qa_texts": qa_texts,
    "qa_thresholds": qa_thresholds,
    "qa_saliency": qa_saliency,
    "smvwe_parts": smvwe_parts,
    "smvwe_settings": smvwe_settings,
    "words": words,
}


def _found(results: Results, names: Mapping[str, str]) -> dict[str, str]:
    """Recipes that have numbers, and the words for them, in the order of `names`."""
    return {recipe: words for name, words in names.items() if (recipe := results.recipe_named(name))}


def _ablation(results: Results, names: Mapping[str, str], heading: str, *, also_fixed: bool = False) -> str:
    found = _found(results, names)
    if not any("ablation" in recipe for recipe in found):
        return ""
    columns = {"maps, *oracle*": MAPS}
    if also_fixed:
        columns["maps, fixed"] = Cell("maps", "fixed")
    has_paper = any(results.paper_value(recipe, MAPS) != "–" for recipe in found)
    head = [heading, *columns, "seeds", *(["paper, VOC 2012 train"] if has_paper else [])]
    rows = [
        [
            words,
            *(results.text(recipe, cell) for cell in columns.values()),
            results.seeds(recipe, MAPS),
            *([results.paper_value(recipe, MAPS)] if has_paper else []),
        ]
        for recipe, words in found.items()
    ]
    return markdown(head, rows)
