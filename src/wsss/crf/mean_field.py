r"""Mean-field inference in a fully connected CRF over the pixels of an image.

$$ Q^{(0)} = \mathrm{softmax}(-U), \qquad
   Q^{(t+1)} = \mathrm{softmax}\Big(-U + \sum_k w_k\, n_k \circ K_k (n_k \circ Q^{(t)})\Big), \qquad
   n_k = (K_k 1)^{-1/2} $$

with unary energies U in nats, the spatial and the bilateral kernel K_k (their self term included), their
weights w_k (Potts compatibility) and the symmetric normalisation n_k. Kernels are filtered on permutohedral
lattices, which depend on the image alone: a `DenseCrf` builds them once and serves any number of unaries.

On a CPU the work is done by compiled loops (`kernels`), elsewhere, and where a batch of images asks for it,
by weighted sums of gathered rows in torch; both give the same marginals up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from wsss.crf.lattice import Lattice, build_lattice
from wsss.crf.parameters import CrfParameters
from wsss.errors import ShapeError

MEAN_BGR: Final = (104.008, 116.669, 122.675)  # of ImageNet as caffe's networks subtract it
UNROLLED: Final = (2, 4, 8)  # columns for which loops are compiled apart
NORM_EPSILON: Final = 1e-20

Floats = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]
Run = Callable[[Callable[[int, int, int], None], int], None]
"""Shares out a number of items: calls some work with (thread, start, stop)."""
_Arrays = tuple[npt.NDArray[np.int32], Floats, npt.NDArray[np.int32]]


class DenseCrf:
    """A dense CRF on one image, or on several of one size; what depends on the image alone is computed once.

    Args:
        images: RGB, 0-255; (H, W, 3) or (B, H, W, 3), uint8.
        parameters: kernels and number of updates.
        device: where to compute; devices other than CUDA's use the CPU.
        threads: of the compiled loops on a CPU, for a single image; work on several images at once is better
            shared out by image.

    Raises:
        ShapeError: the image is not of that shape and type, or a standard deviation is too small for it.

    Source:
        Krähenbühl and Koltun, NIPS 2011, https://arxiv.org/abs/1210.5644, in the form that the field runs
        (its C++ code and Python wrapper).
        Differs: a factor of K_k that the symmetric normalisation cancels is left out.

    Example:
        >>> crf = DenseCrf(np.zeros((2, 3, 3), np.uint8), CrfParameters(iterations=1))
        >>> crf.marginals(torch.zeros(2, 2, 3)).flatten()[0]
        tensor(0.5000)
    """

    def __init__(
        self,
        images: Pixels,
        parameters: CrfParameters,
        *,
        device: torch.device | str = "cpu",
        threads: int = 1,
    ) -> None:
        if images.ndim not in (3, 4) or images.shape[-1] != 3 or images.dtype != np.uint8 or not images.size:
            raise ShapeError(
                f"`images` must be (H, W, 3) or (B, H, W, 3) uint8 with at least one pixel; got "
                f"{images.shape} {images.dtype}. Convert them to 8-bit RGB."
            )
        self.parameters = parameters
        # other accelerators lack some of the operations; the compiled loops are fast
        self.device = torch.device(device if torch.device(device).type == "cuda" else "cpu")
        self.threads = threads
        self.size = images.shape[-3:-1]
        self.batch = images.shape[0] if images.ndim == 4 else None
        seen = torch.from_numpy(np.ascontiguousarray(seen_image(images, parameters))).to(self.device)
        is_compiled = self.device.type == "cpu" and self.batch is None
        field: type[_CompiledField] | type[_TorchField] = _CompiledField if is_compiled else _TorchField
        self._field = field(self._kernels(seen), threads)

    def marginals(self, unaries: Tensor, *, iterations: int | None = None) -> Tensor:
        """Marginals after the mean-field updates.

        Args:
            unaries: energies in nats; (…, C, H, W), after the batch for several images; whatever else leads
                stands for several problems on the same image, which are solved together.
            iterations: number of updates; None: the parameters' own.

        Returns:
            The same shape, float32, on the unaries' device; over the labels they sum to one.

        Raises:
            ShapeError: the size is not the image's, or an energy is not finite.
        """
        batch = () if self.batch is None else (self.batch,)
        if (
            unaries.ndim < 3 + len(batch)
            or tuple(unaries.shape[-2:]) != tuple(self.size)
            or (batch and unaries.shape[0] != self.batch)
        ):
            raise ShapeError(
                f"`unaries` must be {'(B, …, C, H, W)' if batch else '(…, C, H, W)'} of "
                f"{self.size[0]} x {self.size[1]} pixels like the image; got {tuple(unaries.shape)}. "
                "Resize the scores to the image first."
            )
        if not bool(torch.isfinite(unaries).all()):
            raise ShapeError(
                "`unaries` must be finite; got NaN or infinity. Clip probabilities before the logarithm."
            )
        labels, pixels = unaries.shape[-3], self.size[0] * self.size[1]
        if unaries.numel() == 0 or labels == 1:
            return torch.ones_like(unaries, dtype=torch.float32)
        own = unaries.detach().to(self.device, torch.float32)
        problems = own.numel() // (max(1, self.batch or 1) * labels * pixels)
        columns = own.reshape(self.batch or 1, problems * labels, pixels).transpose(1, 2)
        energies = -columns.reshape(-1, problems * labels)  # (B * H * W, S * C)
        steps = self.parameters.iterations if iterations is None else iterations
        found = self._field.run(energies, labels, steps)
        planes = found.reshape(self.batch or 1, pixels, problems * labels).transpose(1, 2)
        return planes.reshape(unaries.shape).contiguous().to(unaries.device)

    def _kernels(self, images: Tensor) -> list[tuple[Lattice, float]]:
        """Lattice and weight of both kernels; weights of zero leave a kernel out."""
        settings = self.parameters
        height, width = self.size
        rows, columns = torch.meshgrid(
            torch.arange(height, device=self.device, dtype=torch.float32),
            torch.arange(width, device=self.device, dtype=torch.float32),
            indexing="ij",
        )
        places = torch.stack([columns, rows], dim=-1).expand(*images.shape[:-1], 2).reshape(-1, 2)
        colours = images.reshape(-1, 3).float()
        groups = None
        if self.batch is not None:
            groups = torch.arange(self.batch, device=self.device).repeat_interleave(height * width)
        alike = [places / settings.appearance_xy_std, colours / settings.appearance_rgb_std]
        kernels = [
            (places / settings.smoothness_xy_std, settings.smoothness_weight),
            (torch.cat(alike, dim=1), settings.appearance_weight),
        ]
        wanted = [(features, weight) for features, weight in kernels if weight > 0]
        with ThreadPoolExecutor(self.threads) as pool:
            build = partial(build_lattice, groups=groups, threads=self.threads)
            lattices = list(pool.map(build, [features for features, _ in wanted]))
        return [(lattice, weight) for lattice, (_, weight) in zip(lattices, wanted, strict=True)]


def seen_image(image: Pixels, parameters: CrfParameters) -> Pixels:
    """The image as its colours enter the lattice: channel order, and the reference's slip where asked for."""
    if parameters.channel_order == "bgr":
        image = image[..., ::-1]
    if parameters.wrapped_means:
        mean = MEAN_BGR if parameters.channel_order == "bgr" else MEAN_BGR[::-1]
        # a cast of negative floats is undefined: cut off fractions, then wrap, as x86 does
        image = np.mod(np.trunc(image - np.array(mean, np.float32)).astype(np.int32), 256).astype(np.uint8)
    return image


class _CompiledField:
    """Mean field of one image on a CPU.

    The norms and the square roots of the kernels' weights are multiplied into the barycentric weights, so
    that splatting and slicing with them is w n K n.
    """

    def __init__(self, kernels: Sequence[tuple[Lattice, float]], threads: int) -> None:
        self.threads = threads
        self.parts: list[_Arrays] = []
        for lattice, weight in kernels:
            arrays = (lattice.vertices.numpy(), lattice.weights.numpy(), lattice.neighbours.numpy())
            mass = self._filtered(arrays)
            scale = np.sqrt(weight / (mass + NORM_EPSILON), dtype=np.float32)
            self.parts.append((arrays[0], arrays[1] * scale, arrays[2]))

    def run(self, energies: Tensor, labels: int, steps: int) -> Tensor:
        """Marginals (P, S * C) of negative energies (P, S * C)."""
        from wsss.crf import kernels

        count, real = energies.shape
        width = next((size for size in UNROLLED if real <= size), -(-real // 8) * 8)
        unrolled = (0,) * width if width in UNROLLED else ()
        padded = np.zeros((count, width), np.float32)
        padded[:, :real] = energies.numpy()
        q = padded.copy()
        scratch = [self._scratch(neighbours.shape[1], width) for *_, neighbours in self.parts]
        blurred: list[Floats] = []

        def finish(thread: int, start: int, stop: int) -> None:
            q[start:stop] = padded[start:stop]
            for (vertices, weights, _), lattice in zip(self.parts, blurred, strict=True):
                kernels.add_slice(vertices, weights, lattice, q, unrolled, start, stop)
            kernels.softmax(q, labels, real // labels, start, stop)

        with ThreadPoolExecutor(self.threads) as pool:
            run = self._runner(pool)
            kernels.softmax(q, labels, real // labels, 0, count)
            for _ in range(steps):
                parts = zip(self.parts, scratch, strict=True)
                blurred[:] = [self._blurred(part, q, place, unrolled, run) for part, place in parts]
                run(finish, count)
        return torch.from_numpy(q[:, :real])

    def _runner(self, pool: ThreadPoolExecutor) -> Run:
        def run(work: Callable[[int, int, int], None], count: int) -> None:
            if self.threads == 1:
                work(0, 0, count)
                return
            edges = [count * part // self.threads for part in range(self.threads + 1)]
            list(pool.map(work, range(self.threads), edges[:-1], edges[1:]))

        return run

    def _scratch(self, points: int, width: int) -> list[Floats]:
        """Arrays for the lattice's values: one for each thread's splat, and one more; row M stays zero."""
        return [np.zeros((points + 1, width), np.float32) for _ in range(self.threads + 1)]

    def _blurred(
        self, part: _Arrays, values: Floats, scratch: list[Floats], unrolled: tuple[int, ...], run: Run
    ) -> Floats:
        """Splat values (P, C) and blur them; (M + 1, C)."""
        from wsss.crf import kernels

        vertices, weights, neighbours = part

        def splat(thread: int, start: int, stop: int) -> None:
            scratch[thread][:] = 0
            kernels.splat(vertices, weights, values, scratch[thread], unrolled, start, stop)

        run(splat, len(values))
        old, new = scratch[0], scratch[-1]
        for other in scratch[1:-1]:
            old += other
        for axis in neighbours:  # (M, 2)
            run(partial(_blur_range, axis, old, new, unrolled), len(axis))
            old, new = new, old
        return old

    def _filtered(self, part: _Arrays) -> Floats:
        """K times ones (P, 1), but for a constant factor."""
        found = np.zeros((len(part[0]), 1), np.float32)
        with ThreadPoolExecutor(self.threads) as pool:
            run, scratch = self._runner(pool), self._scratch(part[2].shape[1], 1)
            lattice = self._blurred(part, np.ones_like(found), scratch, (), run)
            run(partial(_add_slice_range, part, lattice, found), len(found))
        return found


def _add_slice_range(part: _Arrays, lattice: Floats, values: Floats, _: int, start: int, stop: int) -> None:
    from wsss.crf import kernels

    kernels.add_slice(part[0], part[1], lattice, values, (), start, stop)


def _blur_range(
    axis: Any, old: Floats, new: Floats, unrolled: tuple[int, ...], _: int, start: int, stop: int
) -> None:
    from wsss.crf import kernels

    kernels.blur(axis, old, new, unrolled, start, stop)


class _TorchField:
    """Mean field in torch, on any device; splatting and slicing are weighted sums of gathered rows."""

    def __init__(self, kernels: Sequence[tuple[Lattice, float]], threads: int) -> None:
        self.parts = []
        for lattice, weight in kernels:
            part = _Splatting(lattice)
            mass = part.filtered(lattice.weights.new_ones(len(lattice.weights), 1))
            part.rescale((weight / (mass + NORM_EPSILON)).sqrt())
            self.parts.append(part)

    def run(self, energies: Tensor, labels: int, steps: int) -> Tensor:
        """Marginals (P, S * C) of negative energies (P, S * C)."""
        shape = (len(energies), -1, labels)
        q = energies.view(shape).softmax(dim=2).flatten(1)
        for _ in range(steps):
            logits = energies.clone()
            for part in self.parts:
                logits += part.filtered(q)
            q = logits.view(shape).softmax(dim=2).flatten(1)
        return q


class _Splatting:
    """One lattice in torch; sums run in the order of the pixels, so that they are reproducible."""

    def __init__(self, lattice: Lattice) -> None:
        self.vertices, self.weights = lattice.vertices.long(), lattice.weights
        self.neighbours = lattice.neighbours.long()
        # entries of `vertices` by point: bag m of `starts` holds the pixels around point m
        self.order = torch.argsort(self.vertices.flatten(), stable=True)
        counts = torch.bincount(self.vertices.flatten(), minlength=lattice.num_points)
        self.starts = counts.cumsum(0) - counts
        self.pixels = self.order // self.vertices.shape[1]

    def rescale(self, factors: Tensor) -> None:
        """Multiply the pixels' weights by factors (P, 1), in splatting and slicing alike."""
        self.weights = self.weights * factors

    def filtered(self, values: Tensor) -> Tensor:
        """K times values (P, C), but for a constant factor."""
        entries = self.weights.flatten()[self.order]
        lattice = F.embedding_bag(
            self.pixels, values, self.starts, mode="sum", per_sample_weights=entries
        )  # (M, C)
        zero = values.new_zeros(1, values.shape[1])
        for axis in self.neighbours:  # (M, 2)
            padded = torch.cat([lattice, zero])
            lattice = lattice + 0.5 * (padded[axis[:, 0]] + padded[axis[:, 1]])
        return F.embedding_bag(self.vertices, lattice, mode="sum", per_sample_weights=self.weights)
