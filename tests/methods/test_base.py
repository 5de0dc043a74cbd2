from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from wsss.errors import RecipeError
from wsss.methods import Frozen, find_method, list_methods

OWN = """
import torch
from torch import nn
from wsss.methods.base import Method, MethodConfig
from wsss.types import Paper

class OwnConfig(MethodConfig):
    area_weight: float = 0.5

class Own(Method):
    paper = Paper(title="Own", venue="none", year=2025, url="https://example.org")
    Config = OwnConfig

    def __init__(self, config, class_names, frozen):
        super().__init__(config, class_names, frozen)
        self.backbone = nn.Conv2d(3, 4, 1)
        self.classifier = nn.Conv2d(4, self.num_foreground, 1)

    def cams(self, images):
        return self.classifier(self.backbone(images)).relu()

    def losses(self, batch):
        return {"area": self.config.area_weight * self.cams(batch.images).mean()}
"""


def write(folder: Path, text: str) -> str:
    path = folder / "own_method.py"
    path.write_text(text)
    return str(path)


def test_a_method_is_one_file_anywhere(tmp_path: Path) -> None:
    cls = find_method(write(tmp_path, OWN))
    method = cls(cls.Config(area_weight=2.0), ("background", "a", "b"), Frozen())
    assert method.cams(torch.rand(1, 3, 4, 4)).shape == (1, 2, 4, 4)
    backbone, others = method.parameter_groups(0.1)
    assert (len(backbone["params"]), len(others["params"])) == (2, 2)
    assert (backbone["lr"], others["lr"]) == (0.1, pytest.approx(1.0))


@pytest.mark.parametrize(
    ("text", "found"), [("", "none"), (OWN + OWN.replace("class Own(", "class Second("), "Second")]
)
def test_a_file_with_no_or_two_methods_says_so(tmp_path: Path, text: str, found: str) -> None:
    with pytest.raises(RecipeError, match=rf"exactly one Method subclass; got .*{found}"):
        find_method(write(tmp_path, text))


def test_unknown_names_and_files_are_named() -> None:
    with pytest.raises(RecipeError, match=r"Unknown method `clim`\. Did you mean `clims`"):
        find_method("clim")
    with pytest.raises(RecipeError, match="no method file"):
        find_method("nowhere.py")
    assert list_methods() == tuple(sorted(list_methods()))


def test_frozen_helpers_stop_training_and_move_along() -> None:
    helper = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
    cls = find_method("cam")
    config = cls.Config(backbone="resnet_small", backbone_weights=None)
    method = cls(config, ("background", "a"), Frozen(tag_classifier=helper)).train()
    assert not helper.training
    assert not any(p.requires_grad for p in helper.parameters())
    method.to(torch.float64)
    assert helper[0].weight.dtype == torch.float64
