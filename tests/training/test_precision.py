"""Training in bfloat16: networks are rough, cosines, thresholds and logarithms are not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.fakes import FakeTeacher, ToyDataset
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from wsss.methods.base import Frozen, Method
from wsss.methods.clims import Clims, ClimsConfig
from wsss.methods.qa_clims import QaClims, QaClimsConfig
from wsss.types import Batch

NAMES = ("background", "boat", "train", "cat")
PRESENT = {"a": (0, 2), "b": (1,), "c": (0, 1, 2)}
TOYS = ToyDataset(NAMES, PRESENT, words=("sky", "road", "field"))
NET: dict[str, Any] = {"backbone": "resnet_small", "backbone_weights": None, "freeze_until": None}
THRESHOLD = 0.26  # of CLIMS; neighbours in bfloat16 are 2e-3 apart there
SIZE = 64  # of vectors
TERMS = ("log", "logsumexp", "logaddexp", "softplus", "log_sigmoid_forward", "gt", "ge", "clamp", "clamp_min")


class Steady(FakeTeacher):
    """Sees cosines of `THRESHOLD` plus or minus a few 1e-5 with every text, whatever the image."""

    def __init__(self) -> None:
        super().__init__(embedding=SIZE)
        self.directions = torch.eye(SIZE)

    def encode_texts(self, texts: list[str]) -> Tensor:
        return torch.stack([self.directions[1 + sum(map(ord, text)) % (SIZE - 2)] for text in texts])

    def encode_images(self, images: Tensor) -> Tensor:
        rows = torch.arange(len(images))[:, None] + torch.arange(1, SIZE - 1)
        cosines = THRESHOLD + 1e-5 * (rows % 7 - 3) + 4e-6  # never the threshold itself
        # not of unit length, since no unit vector is that close to so many texts; see `unit_length`
        features = torch.cat([torch.zeros(len(images), 1), cosines, torch.zeros(len(images), 1)], dim=1)
        return features + 0 * images.float().sum()


class Dtypes(TorchDispatchMode):
    """Notes the dtypes of whatever goes into logarithms, thresholds and clamps."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[str, set[torch.dtype]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        given = {value.dtype for value in args if isinstance(value, Tensor) and value.is_floating_point()}
        self.seen.setdefault(name, set()).update(given)
        return func(*args, **(kwargs or {}))


def batch() -> Batch:
    labels = torch.stack([torch.from_numpy(TOYS.image_labels(name)) for name in PRESENT])
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    return Batch(images, labels, tuple(PRESENT), torch.ones(3, 32, 32, dtype=torch.bool))


def unit_length(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the steady teacher's vectors as they are, so that cosines lie where the test wants them."""
    for module in ("wsss.layers.text_matching", "wsss.layers.text_tables", "wsss.questions.pair_texts"):
        monkeypatch.setattr(f"{module}.unit", lambda features: features.float())


def methods(tmp_path: Any) -> dict[str, Method]:
    torch.manual_seed(0)
    clims = Clims(
        ClimsConfig(**{**NET, "background_texts": ("sky", "road", "lake", "tree")}),
        NAMES,
        Frozen(teacher=Steady()),
    )
    asking = QaClims(QaClimsConfig(**{**NET, "texts": "tags"}), NAMES, Frozen(teacher=Steady()))
    asking.prepare(TOYS, tuple(PRESENT), tmp_path)
    return {"clims": clims.eval(), "qa_clims": asking.eval()}


@pytest.mark.parametrize("name", ["clims", "qa_clims"])
def test_cosines_near_a_threshold_cost_the_same_in_bfloat16(name: str, tmp_path, monkeypatch) -> None:
    unit_length(monkeypatch)
    method = methods(tmp_path)[name]
    exact = method.losses(batch())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = method.losses(batch())
        assert method.class_logits(batch().images).dtype == torch.bfloat16
    for term, value in exact.items():
        if term != "REG":  # the maps come from a rough network, what the teacher says of regions does not
            assert half[term].item() == pytest.approx(value.item(), rel=1e-6), term
    rounded = torch.tensor(THRESHOLD + 4e-6).bfloat16().float().item()
    assert (rounded > THRESHOLD) != (THRESHOLD + 4e-6 > THRESHOLD)  # bfloat16 would decide otherwise


def test_the_threshold_is_where_the_exact_cosines_say(tmp_path, monkeypatch) -> None:
    unit_length(monkeypatch)
    method = methods(tmp_path)["clims"]
    seen = []
    honest = method.background_suppression
    monkeypatch.setattr(
        method, "background_suppression", lambda s, *others: (seen.append(s), honest(s, *others))[1]
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = method.losses(batch())
    (similarity,) = seen
    assert similarity.dtype == torch.float32
    expected = 0.0
    for row in similarity.tolist():
        for cosine in row:
            if cosine > THRESHOLD:
                expected -= float(torch.log1p(torch.tensor(-cosine, dtype=torch.float64)))
    assert 0 < int((similarity > THRESHOLD).sum()) < similarity.numel()
    assert losses["CBS"].item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", ["clims", "qa_clims"])
def test_logarithms_and_thresholds_see_float32_only(name: str, tmp_path, monkeypatch) -> None:
    method, watched = methods(tmp_path)[name], Dtypes()
    with torch.autocast("cpu", dtype=torch.bfloat16), watched:
        losses = method.losses(batch())
    assert torch.bfloat16 in watched.seen["convolution"]  # or nothing was rough
    found = {term: watched.seen[term] for term in TERMS if term in watched.seen}
    assert {"clims": {"log", "gt", "clamp"}, "qa_clims": {"logsumexp", "logaddexp", "ge"}}[name] <= set(found)
    assert set().union(*found.values()) == {torch.float32}
    assert all(value.dtype == torch.float32 for value in losses.values())
