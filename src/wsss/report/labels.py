"""Short names of recipes for readers: `scenes/smvwe` becomes SMVWE, `scenes/cam-psa-crf` CAM + PSA + CRF."""

from __future__ import annotations

from typing import Final

METHODS: Final = {
    "cam": "CAM",
    "clims": "CLIMS",
    "qa": "QA-CLIMS",
    "qa_clims": "QA-CLIMS",
    "qa_clims_saliency": "QA-CLIMS + saliency",
    "smvwe": "SMVWE",
    "vwe": "VWE",
    "eps": "EPS",
}
ADDED: Final = {
    name: name.upper() for name in ("crf", "irn", "psa", "otm", "btm", "cbs", "reg", "frc", "brc")
}
"""Losses and refiners: what recipes add one after the other."""

OTHERS: Final = {name: name.upper() for name in ("vgg", "v1", "v2")}


def recipe_label(name: str) -> str:
    """A recipe's name as papers would write it; words that are no known method, loss or refiner stay.

    Example:
        >>> recipe_label("scenes/ablation-otm-btm"), recipe_label("scenes/ablation-smvwe-mu-01")
        ('OTM + BTM', 'SMVWE mu-01')
    """
    short = name.rsplit("/", 1)[-1]
    parts = short.removeprefix("ablation-").split("-")
    words = [METHODS.get(part) or ADDED.get(part) or OTHERS.get(part, part) for part in parts]
    if parts[0] in METHODS:
        is_sum = all(part in ADDED for part in parts[1:])
        if is_sum and short.startswith("ablation-"):  # losses of a method, not what follows it
            return " ".join([words[0], " + ".join(words[1:])]).strip()
        return " + ".join(words) if is_sum else f"{words[0]} {'-'.join(words[1:])}"
    return (" + " if all(part in ADDED for part in parts) else "-").join(words)
