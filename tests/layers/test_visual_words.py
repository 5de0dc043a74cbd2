"""Visual words against loops, closed forms and autograd of the naive distance."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from wsss.errors import ShapeError
from wsss.layers import visual_words
from wsss.layers.visual_words import VisualWords, decorrelation, pairwise_l1

STATUS = Path("/proc/self/status")
LARGE = """
import json, re, sys
from pathlib import Path
import torch
from wsss.layers.visual_words import pairwise_l1

def peak():  # in MB; getrusage would count the memory of the process that started this one
    return int(re.search(r"VmHWM:\\s*(\\d+)", Path(sys.argv[1]).read_text())[1]) / 1024

at_import = peak()
features = torch.randn(56 * 56, 4096)
words = torch.randn(256, 4096, requires_grad=True)
pairwise_l1(features, words).sum().backward()
print(json.dumps({"import": at_import, "whole": peak(), "gradient": bool(words.grad.any())}))
"""


def naive(features: Tensor, words: Tensor) -> Tensor:
    return (features[:, None] - words[None]).abs().sum(dim=2)


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def words_of(codebook: Tensor, **settings) -> VisualWords:
    module = VisualWords(codebook.shape[1], len(codebook), **settings)
    with torch.no_grad():
        module.codebook.copy_(codebook)
    return module


# Distances


def test_distances_are_sums_of_absolute_differences() -> None:
    features, words = random(7, 5), random(4, 5, seed=1)
    slow = [
        [sum(abs(float(features[i, d]) - float(words[j, d])) for d in range(5)) for j in range(4)]
        for i in range(7)
    ]
    assert torch.allclose(pairwise_l1(features, words), torch.tensor(slow), atol=1e-5)


@pytest.mark.parametrize("cells", [1, 12, 10**6])  # rows of a block: 1, 2 and all
def test_gradients_are_those_of_the_naive_form_however_it_is_cut(cells, monkeypatch) -> None:
    monkeypatch.setattr(visual_words, "CELLS_ON_CPU", cells)
    monkeypatch.setattr(visual_words, "COMPILED_CHANNELS", 0)
    features, words = random(7, 6).requires_grad_(), random(4, 6, seed=1).requires_grad_()
    with torch.no_grad():
        features[2], words[1] = 0, 0  # equal numbers
    slopes = random(7, 4, seed=2)
    expected = torch.autograd.grad(naive(features, words), (features, words), slopes)
    got = torch.autograd.grad(pairwise_l1(features, words), (features, words), slopes)
    for ours, theirs in zip(got, expected, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)
    (alone,) = torch.autograd.grad(pairwise_l1(features.detach(), words), words, slopes)
    assert torch.equal(alone, got[1])


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("compiled", [0, 1024])
def test_compiled_loops_give_what_torch_gives(threads, compiled, monkeypatch) -> None:
    monkeypatch.setattr(visual_words, "COMPILED_CHANNELS", compiled)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    features, words = random(150, 33).requires_grad_(), random(7, 33, seed=1).requires_grad_()
    with torch.no_grad():
        features[2], words[1] = 0, 0  # equal numbers
    slopes = random(150, 7, seed=2)
    distances = pairwise_l1(features.t().contiguous().t(), words)  # any memory layout
    assert torch.allclose(distances, naive(features, words), atol=1e-5)
    expected = torch.autograd.grad(naive(features, words), (features, words), slopes)
    for ours, theirs in zip(torch.autograd.grad(distances, (features, words), slopes), expected, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-4)
    with torch.no_grad():
        features[5, 4] = float("nan")
        assert pairwise_l1(features, words)[5].isnan().all()


def test_gradcheck_in_double_precision() -> None:
    features = random(5, 3, dtype=torch.float64).requires_grad_()
    words = random(4, 3, seed=1, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(pairwise_l1, (features, words))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype) -> None:
    features, words = random(6, 64).to(dtype), random(3, 64, seed=1).to(dtype).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        distances = pairwise_l1(features, words)
        distances.sum().backward()
    assert distances.dtype == torch.float32
    assert torch.allclose(distances, naive(features.float(), words.float()), atol=1e-4)
    assert words.grad.dtype == dtype
    assert torch.equal(
        words.grad.float(), (words.float()[None] - features.float()[:, None]).sign().sum(dim=0)
    )


@pytest.mark.skipif(not STATUS.exists(), reason=f"needs {STATUS}, which tells a process its peak memory")
def test_the_published_size_takes_little_memory() -> None:
    """56 x 56 cells, 4,096 channels and 256 words, where all differences would be 13 GB."""
    command = [sys.executable, "-c", LARGE, str(STATUS)]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert found["gradient"]
    assert found["whole"] - found["import"] < 120, found  # inputs and gradients are 61 of it
    if found["import"] < 540:  # torch alone, which some builds make larger
        assert found["whole"] < 700, found


def test_features_and_words_of_different_length_are_an_error() -> None:
    with pytest.raises(ShapeError, match=r"`words` must have shape \(any, 3\); got \(2, 4\)"):
        pairwise_l1(torch.zeros(5, 3), torch.zeros(2, 4))


# Words


def slow_words(features: Tensor, codebook: Tensor, settings: dict) -> tuple[list, list, list]:
    """Posterior, labels and mean histogram, number by number."""
    posteriors, labels, histograms = [], [], []
    for image in features:
        rows = []
        for y in range(image.shape[1]):
            for x in range(image.shape[2]):
                m, words = image[:, y, x].tolist(), codebook.tolist()
                if settings.get("normalise", True) or settings.get("metric") == "cosine":
                    m = [v / math.sqrt(sum(u * u for u in m)) for v in m]
                    words = [[v / math.sqrt(sum(u * u for u in b)) for v in b] for b in words]
                if settings.get("metric") == "cosine":
                    scores = [sum(u * v for u, v in zip(m, b, strict=True)) for b in words]
                else:
                    sign = 1 if settings.get("sign") == "paper" else -1
                    scores = [sign * sum(abs(u - v) for u, v in zip(m, b, strict=True)) for b in words]
                tau = settings.get("temperature", 1.0)
                total = sum(math.exp(s / tau) for s in scores)
                rows.append([math.exp(s / tau) / total for s in scores])
        posteriors.append(rows)
        labels.append([row.index(max(row)) for row in rows])
        histograms.append([sum(row[j] for row in rows) / len(rows) for j in range(len(codebook))])
    return posteriors, labels, histograms


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"temperature": 0.25},
        {"normalise": False},
        {"metric": "cosine", "histogram": "sum"},
        {"sign": "paper", "normalise": False, "histogram": "mean"},
    ],
)
def test_words_agree_with_the_slow_reference(settings) -> None:
    features, codebook = random(2, 6, 3, 4), random(5, 6, seed=1)
    found = words_of(codebook, **settings)(features)
    posterior, labels, histogram = slow_words(features, codebook, settings)
    assert torch.allclose(found.posterior, torch.tensor(posterior), atol=1e-5)
    assert found.labels.tolist() == labels
    factor = {"sum": 12, "mean": 1, "scaled_mean": 5}[settings.get("histogram", "scaled_mean")]
    assert torch.allclose(found.histogram, factor * torch.tensor(histogram), atol=1e-4)
    assert found.image_labels.tolist() == [[j in image for j in range(5)] for image in labels]
    assert torch.equal(words_of(codebook, **settings).assign(features).flatten(1), found.labels)


def test_the_word_of_a_cell_is_the_nearest_and_as_printed_the_farthest() -> None:
    features, codebook = random(3, 8, 4, 4).relu(), random(6, 8, seed=1)
    cells = features.permute(0, 2, 3, 1).reshape(-1, 8)
    distances = naive(cells, codebook)
    near = words_of(codebook, normalise=False)(features)
    assert torch.equal(near.posterior.argmax(dim=2).flatten(), distances.argmin(dim=1))
    assert torch.equal(near.labels.flatten(), distances.argmin(dim=1))
    far = words_of(codebook, normalise=False, sign="paper")(features)
    assert torch.equal(far.posterior.argmax(dim=2).flatten(), distances.argmax(dim=1))


def test_a_posterior_that_saturates_keeps_the_order_of_distances() -> None:
    codebook = torch.tensor([[0.0], [1000.0], [2000.0]])
    found = words_of(codebook, normalise=False, sign="paper")(torch.zeros(1, 1, 1, 1))
    assert found.posterior.tolist() == [[[0, 0, 1]]]
    assert found.labels.tolist() == [[2]]


def test_golden_values() -> None:
    codebook = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    features = torch.tensor([[3.0, 0.0], [0.0, 2.0]]).t().view(1, 2, 1, 2)  # one cell on either word
    found = words_of(codebook)(features)
    high = 1 / (1 + math.exp(-2))  # distances 0 and 2
    assert torch.allclose(found.posterior, torch.tensor([[[high, 1 - high], [1 - high, high]]]))
    assert torch.allclose(found.histogram, torch.ones(1, 2))  # mean 1/2, times 2 words
    assert torch.allclose(words_of(codebook, histogram="sum")(features).histogram, torch.ones(1, 2))
    cosine = words_of(codebook, metric="cosine", histogram="mean")(features)
    share = 1 / (1 + math.exp(-1))
    assert torch.allclose(cosine.posterior[0, 0], torch.tensor([share, 1 - share]))
    assert torch.allclose(cosine.histogram, torch.full((1, 2), 0.5))


def test_labels_carry_no_gradient_and_features_get_theirs_only_undetached() -> None:
    features, codebook = random(2, 6, 3, 3).requires_grad_(), random(5, 6, seed=1)
    for detached in (True, False):
        module = words_of(codebook, detach_features=detached)
        found = module(features)
        assert not found.labels.requires_grad
        assert not found.image_labels.requires_grad
        gradients = torch.autograd.grad(
            found.histogram.square().sum(), (features, module.codebook), allow_unused=True
        )
        assert (gradients[0] is None) == detached
        assert bool(gradients[1].any())


def test_words_are_float32_under_autocast() -> None:
    features, codebook = random(1, 6, 3, 3), random(5, 6, seed=1)
    for metric in ("l1", "cosine"):
        exact = words_of(codebook, metric=metric)(features)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = words_of(codebook, metric=metric)(features)
        assert torch.equal(found.posterior, exact.posterior)
        assert found.histogram.dtype == torch.float32


def test_the_first_codebook_is_hes_for_a_root_of_five() -> None:
    torch.manual_seed(0)
    codebook = VisualWords(1024, 256).codebook.detach()
    assert float(codebook.std()) == pytest.approx(math.sqrt(1 / 3 / 1024), rel=0.02)


# Sampled codebooks and memories


def test_a_sampled_codebook_holds_cells_of_the_first_training_batch_only() -> None:
    torch.manual_seed(0)
    module, first = VisualWords(6, 4, start="sampled"), random(2, 6, 3, 3)
    random_codebook = module.codebook.detach().clone()
    module.eval()(first)
    assert torch.equal(module.codebook, random_codebook)
    module.train()(first)
    cells = first.permute(0, 2, 3, 1).reshape(-1, 6)
    assert all((cells == word).all(dim=1).any() for word in module.codebook)
    sampled = module.codebook.detach().clone()
    module(random(2, 6, 3, 3, seed=5))
    assert torch.equal(module.codebook, sampled)
    other = VisualWords(6, 4, start="sampled")
    other.load_state_dict(module.state_dict())  # a resumed training goes on with it
    other.train()(random(2, 6, 3, 3, seed=6))
    assert torch.equal(other.codebook, sampled)


@pytest.mark.parametrize("channels", [8, 1100])  # compiled loops, and torch's own operations
def test_features_may_learn_from_a_memory_without_unit_length(channels: int) -> None:
    module = words_of(random(5, channels), normalise=False, memory_rate=0.1, detach_features=False)
    features = random(1, channels, 2, 3).requires_grad_()
    module.train()(features).histogram.square().sum().backward()
    assert bool(features.grad.abs().sum() > 0)


def test_a_memory_moves_each_word_towards_the_mean_of_its_cells() -> None:
    codebook = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 99.0]])
    module = words_of(codebook, normalise=False, memory_rate=0.1)
    assert not list(module.parameters())
    features = torch.tensor([[1.0, 0.0], [3.0, 0.0], [12.0, 4.0], [2.0, 3.0]]).t().view(1, 2, 2, 2)
    found = module.train()(features)
    assert found.labels.tolist() == [[0, 0, 1, 0]]
    expected = torch.tensor([[0.2, 0.1], [10.2, 0.4], [0.0, 99.0]])  # means (2, 1), (12, 4), none
    assert torch.allclose(module.codebook, expected)
    module.eval()(features)
    assert torch.allclose(module.codebook, expected)


# Decorrelation


def test_decorrelation_is_zero_for_uncorrelated_words_and_grows_with_likeness() -> None:
    apart = torch.tensor([[1.0, -1.0, 0.0, 0.0], [0.0, 0.0, 2.0, -2.0]])
    assert float(decorrelation(apart)) == pytest.approx(0, abs=1e-6)
    assert float(decorrelation(apart + 5)) == pytest.approx(0, abs=1e-5)  # centred over D
    same = torch.tensor([[1.0, -1.0], [1.0, -1.0]])  # G is 2 everywhere
    assert float(decorrelation(same)) == pytest.approx(0.5 * (4 - math.sqrt(8)))


def test_decorrelation_agrees_with_the_slow_reference() -> None:
    codebook = random(4, 7)
    centred = [[v - sum(word) / 7 for v in word] for word in codebook.tolist()]
    gram = [[sum(u * v for u, v in zip(a, b, strict=True)) for b in centred] for a in centred]
    whole = math.sqrt(sum(g * g for row in gram for g in row))
    diagonal = math.sqrt(sum(gram[j][j] ** 2 for j in range(4)))
    assert float(decorrelation(codebook)) == pytest.approx(0.5 * (whole - diagonal), rel=1e-5)
