r"""Visual words: a codebook that gives every cell of a feature grid a word, as VWE, VWL and SMVWE do.

With features m_i of cells, words b_j, and scores that are distances or cosines:

$$ P_{ij} = \mathrm{softmax}_j(-\lVert m_i - b_j \rVert_1 / \tau), \qquad
   Z_i = \mathrm{argmax}_j P_{ij}, \qquad e_j = \mathrm{mean}_i P_{ij} $$

The words of an image, those that at least one cell has, are labels that cost no annotation; the histogram e
says softly how often each occurs, and through it a codebook learns. All of it is computed in float32.

Source:
    SMVWE, equations 1-4, and the code of VWE and VWL, https://github.com/rulixiang/vwe: Ru et al., *Learning
    Visual Words for Weakly-Supervised Semantic Segmentation*, IJCAI 2021, and *Weakly-Supervised Semantic
    Segmentation with Visual Words Learning and Hybrid Pooling*, IJCV 2022.
    Differs: SMVWE prints a softmax of +distance, whose argmax is the farthest word; here distances are
    negated and vectors have unit length first, unless a caller asks otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final, Literal, NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from wsss.checks import check_shape
from wsss.layers.text_matching import full_precision

Metric: TypeAlias = Literal["l1", "cosine"]
Sign: TypeAlias = Literal["nearest", "paper"]
Histogram: TypeAlias = Literal["scaled_mean", "mean", "sum"]
Start: TypeAlias = Literal["kaiming", "sampled"]

COMPILED_CHANNELS: Final = 1024
CELLS_ON_CPU: Final = 2**18  # numbers of one block of the backward pass: 1 MB stays in a core's cache
CELLS_ON_ACCELERATOR: Final = 2**26  # 256 MB: fewer, larger kernels


class Words(NamedTuple):
    """What a codebook says about the cells of B images.

    Args:
        posterior: P, rows sum to 1; (B, h·w, W).
        labels: Z, the word of each cell, 0…W-1; (B, h·w), int64.
        image_labels: whether a word is that of at least one cell; (B, W), bool.
        histogram: e, how often each word occurs; (B, W).
    """

    posterior: Tensor
    labels: Tensor
    image_labels: Tensor
    histogram: Tensor


def pairwise_l1(features: Tensor, words: Tensor) -> Tensor:
    """Sum of absolute differences of every pair, without an (N, W, D) tensor, forward or backward.

    Args:
        features: (N, D); half-precision numbers are computed with in float32.
        words: (W, D).

    Returns:
        (N, W), float32, or float64 for float64 inputs; at least 0. Equal numbers have no gradient.

    Raises:
        ShapeError: `words` has another D than `features`.

    Example:
        >>> pairwise_l1(torch.tensor([[0.0, 1.0], [2.0, 2.0]]), torch.tensor([[0.0, 0.0]])).tolist()
        [[1.0], [4.0]]
    """
    check_shape("features", features, (None, None), "Flatten the grid: one row per cell.")
    check_shape("words", words, (None, features.shape[1]), "Words and features need the same D.")
    dtype = torch.promote_types(torch.promote_types(features.dtype, words.dtype), torch.float32)
    distances: Tensor = _PairwiseL1.apply(features.to(dtype), words.to(dtype))
    return distances


class _PairwiseL1(torch.autograd.Function):
    """Compiled loops, or torch's forward pass and a backward in blocks: its own takes (N, W, D) on GPUs."""

    @staticmethod
    def forward(ctx: FunctionCtx, features: Tensor, words: Tensor) -> Tensor:
        ctx.save_for_backward(features, words)
        if _is_compiled(features):
            from wsss.layers import l1_kernels

            return l1_kernels.distances(features, words)
        with full_precision(features.device):
            return torch.cdist(features, words, p=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        features, words = ctx.saved_tensors
        if _is_compiled(features):
            from wsss.layers import l1_kernels

            needs_features, needs_words = ctx.needs_input_grad
            return (
                l1_kernels.gradient_of_features(features, words, gradient) if needs_features else None,
                l1_kernels.gradient_of_words(features, words, gradient) if needs_words else None,
            )
        of_features = torch.zeros_like(features) if ctx.needs_input_grad[0] else None
        of_words = torch.zeros_like(words) if ctx.needs_input_grad[1] else None
        cells = CELLS_ON_CPU if features.device.type == "cpu" else CELLS_ON_ACCELERATOR
        rows = max(1, cells // max(1, features.shape[1]))
        buffer = torch.empty_like(features[:rows])
        with full_precision(features.device):
            for start in range(0, len(features), rows):
                block, slopes = features[start : start + rows], gradient[start : start + rows]
                signs = buffer[: len(block)]
                for index, word in enumerate(words):
                    torch.sub(word, block, out=signs).sign_()  # (rows, D)
                    if of_words is not None:
                        of_words[index].addmv_(signs.t(), slopes[:, index])
                    if of_features is not None:
                        of_features[start : start + rows].addcmul_(signs, slopes[:, index, None], value=-1)
        return of_features, of_words


def _is_compiled(features: Tensor) -> bool:
    """Whether compiled loops do torch's work: on a CPU, in float32, up to 1,024 channels.

    Small networks there would spend most of a step on the words. Beside wide ones words cost little, and
    loading the compiler takes 110 MB.
    """
    fits = features.dtype == torch.float32 and features.shape[1] <= COMPILED_CHANNELS
    return fits and features.device.type == "cpu"


def decorrelation(codebook: Tensor) -> Tensor:
    r"""Penalise words that resemble each other: half of how much the whole Gram matrix exceeds its diagonal.

    $$ \tfrac12 \Bigl( \lVert G \rVert_F - \sqrt{\textstyle\sum_j G_{jj}^2} \Bigr),
       \qquad G = \bar b \bar b^\top $$

    with each word's mean over D subtracted.

    Args:
        codebook: (W, D).

    Returns:
        Scalar, float32, at least 0; 0 where no two centred words are correlated.

    Source:
        VWL, its code (v2).
    """
    with full_precision(codebook.device):
        centred = codebook.float() - codebook.float().mean(dim=1, keepdim=True)
        gram = centred @ centred.t()  # (W, W)
        penalty: Tensor = 0.5 * (torch.linalg.norm(gram) - torch.linalg.norm(gram.diagonal()))
        return penalty


class VisualWords(nn.Module):
    """A codebook of W words, learned by gradients or kept as a moving average of the features.

    In training mode the first batch may replace the first codebook ("sampled"), and every batch moves a
    memory; in evaluation mode nothing changes. Several processes keep one codebook: they start from cells of
    the first, and a memory averages the cells of all.

    Args:
        channels: D of features and words.
        num_words: W (published: 256).
        metric: L1 distance (SMVWE) or cosine (VWE, VWL), which always has unit length.
        normalise: scale features and words to unit length before distances; without it the softmax of
            thousands of channels saturates.
        temperature: tau, divides scores (published: 1).
        detach_features: cut the gradient from posterior and histogram to the features (VWE: yes).
        sign: nearest, or paper: softmax of +distance, which takes the farthest word (SMVWE, equation 2, as
            printed).
        histogram: scaled_mean: mean over cells times W, so that a uniform one is all 1; mean (SMVWE,
            equation 4); sum (code of VWE).
        start: kaiming: normal with He's gain for a = sqrt(5) (VWE); sampled: features of random cells of the
            first batch (VWL's memory).
        memory_rate: share of each batch in the moving average of a codebook without gradient (VWL's memory:
            1e-3); None: the codebook is a parameter.

    Source:
        See the module. Differs: in VWL's memory, words that no cell has shrink towards zero, and the first
        batch still sees the random codebook; here they stay, and it sees the sampled one.
    """

    codebook: Tensor
    is_started: Tensor

    def __init__(
        self,
        channels: int,
        num_words: int,
        *,
        metric: Metric = "l1",
        normalise: bool = True,
        temperature: float = 1.0,
        detach_features: bool = True,
        sign: Sign = "nearest",
        histogram: Histogram = "scaled_mean",
        start: Start = "kaiming",
        memory_rate: float | None = None,
    ) -> None:
        super().__init__()
        self.metric, self.normalise, self.temperature = metric, normalise or metric == "cosine", temperature
        self.detach_features, self.sign, self.histogram = detach_features, sign, histogram
        self.start, self.memory_rate = start, memory_rate
        words = torch.empty(num_words, channels)
        nn.init.kaiming_normal_(words, a=math.sqrt(5))
        if memory_rate is None:
            self.codebook = nn.Parameter(words)
        else:
            self.register_buffer("codebook", words)
        self.register_buffer("is_started", torch.tensor(start == "kaiming"))

    def forward(self, features: Tensor) -> Words:
        """Give every cell of features (B, D, h, w) its word; see `Words`."""
        cells = features.flatten(2).transpose(1, 2)  # (B, h·w, D)
        if self.detach_features:
            cells = cells.detach()
        with full_precision(features.device):
            cells = cells.float()
            if self.training and self.start == "sampled" and not self.is_started:
                self._start(cells.detach().flatten(0, 1))
            scores = self._scores(cells.flatten(0, 1)).view(*cells.shape[:2], -1)  # (B, h·w, W)
            posterior = (scores / self.temperature).softmax(dim=2)
            labels = scores.detach().argmax(dim=2)  # of P too, and where P saturates
            if self.training and self.memory_rate is not None:
                self._remember(cells.detach().flatten(0, 1), labels.flatten())
            return Words(posterior, labels, self._present(labels), self._histogram(posterior))

    @torch.no_grad()
    def assign(self, features: Tensor) -> Tensor:
        """The word of each cell, 0…W-1, of features (B, D, h, w); (B, h, w), int64. Changes nothing."""
        with full_precision(features.device):
            cells = features.permute(0, 2, 3, 1).float()  # (B, h, w, D)
            return self._scores(cells.flatten(0, 2)).argmax(dim=1).view(cells.shape[:3])

    def _scores(self, cells: Tensor) -> Tensor:
        """What the softmax is taken of, before the temperature; (N, D) -> (N, W)."""
        words = self.codebook.float()
        if self.memory_rate is not None:
            words = words.clone()  # `_remember` changes the memory before the backward pass reads it
        if self.normalise:
            cells, words = F.normalize(cells, dim=1), F.normalize(words, dim=1)
        if self.metric == "cosine":
            return cells @ words.t()
        distances = pairwise_l1(cells, words)
        return distances if self.sign == "paper" else -distances

    def _present(self, labels: Tensor) -> Tensor:
        present = torch.zeros(len(labels), len(self.codebook), dtype=torch.bool, device=labels.device)
        return present.scatter_(1, labels, True)

    def _histogram(self, posterior: Tensor) -> Tensor:
        if self.histogram == "sum":
            return posterior.sum(dim=1)
        factor = posterior.shape[2] if self.histogram == "scaled_mean" else 1
        return factor * posterior.mean(dim=1)

    @torch.no_grad()
    def _start(self, cells: Tensor) -> None:
        """Take the features (N, D) of random cells as the words."""
        drawn = cells[torch.randint(len(cells), (len(self.codebook),), device=cells.device)]
        _over_processes(lambda distributed: distributed.broadcast(drawn, src=0))
        self.codebook.copy_(drawn)
        self.is_started.fill_(True)

    @torch.no_grad()
    def _remember(self, cells: Tensor, labels: Tensor) -> None:
        """Move every word that some cell (N, D) has towards the mean of its cells."""
        assert self.memory_rate is not None
        sums = torch.zeros_like(self.codebook).index_add_(0, labels, cells)  # (W, D)
        counts = torch.bincount(labels, minlength=len(sums)).to(sums)[:, None]
        _over_processes(lambda distributed: distributed.all_reduce(sums))
        _over_processes(lambda distributed: distributed.all_reduce(counts))
        moved = torch.lerp(self.codebook, sums / counts.clamp(min=1), self.memory_rate)
        self.codebook.copy_(torch.where(counts > 0, moved, self.codebook))


def _over_processes(collective: Callable[[Any], Any]) -> None:
    """Run a collective operation where several processes train together."""
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        collective(distributed)
