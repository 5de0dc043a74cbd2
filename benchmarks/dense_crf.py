"""The dense CRF at 375 x 500 pixels and 10 updates against the straightforward vectorised version.

The straightforward version builds its lattices by sorting all corners (`unique`), and splats, blurs and
slices one label after the other by scattering and gathering. Both give the same marginals. Where the C++
package that the field uses can be imported, it runs too, in the same process. Times are with the lattices
built anew ("built") and with lattices that are there ("cached"). Sides take turns; medians are recorded.

    python benchmarks/dense_crf.py [--repetitions 3] [--labels 2 4 21] [--device cpu] [--no-record]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from record import record
from wsss.crf import PRESETS, CrfParameters, DenseCrf, unary_from_probabilities
from wsss.data.image_work import work_on_images

SIZE = (375, 500)
BASELINE = "sort, scatter and gather, label by label"
CPP = "the C++ package"


def photograph(seed: int = 0) -> np.ndarray:
    """Coloured regions with soft texture and a little noise; (H, W, 3), uint8."""
    rng = np.random.default_rng(seed)
    layers = np.stack(
        [gaussian_filter(rng.normal(size=SIZE), sigma) * sigma for sigma in (3, 8, 20)], axis=-1
    )
    image = layers @ rng.normal(size=(3, 3))
    image = (image - image.min()) / (image.max() - image.min()) * 255
    image += gaussian_filter(rng.normal(size=image.shape), (1, 1, 0)) * 6
    return image.clip(0, 255).astype(np.uint8)


def unaries(labels: int) -> Tensor:
    rng = np.random.default_rng(labels)
    logits = gaussian_filter(rng.normal(size=(labels, *SIZE)), (0, 15, 15)) * 60
    return unary_from_probabilities(torch.from_numpy(logits).float().softmax(dim=0))


# ---- the straightforward version


class Plain:
    """One lattice; all corners sorted."""

    def __init__(self, features: Tensor) -> None:
        count, d = features.shape
        spread = float(torch.tensor((d + 1) * (2 / 3) ** 0.5))
        c = features * torch.tensor([spread / ((i + 1) * (i + 2)) ** 0.5 for i in range(d)])
        total, columns = torch.zeros(count), []
        for j in range(d, 0, -1):  # the order of these sums decides ties, of which whole pixels have many
            columns.append(total - j * c[:, j - 1])
            total = total + c[:, j - 1]
        y = torch.stack([total, *columns[::-1]], dim=1)
        r = torch.round(y * float(torch.tensor(1 / (d + 1)))).long() * (d + 1)
        delta = y - r
        rank = torch.zeros_like(r)
        for i in range(d):
            for j in range(i + 1, d + 1):
                less = delta[:, i] < delta[:, j]
                rank[:, i] += less
                rank[:, j] += ~less
        rank += r.sum(1, keepdim=True) // (d + 1)
        turn = (rank < 0).long() - (rank > d).long()
        rank, r = rank + turn * (d + 1), r + turn * (d + 1)
        b = torch.zeros(count, d + 2)
        t = (y - r) / (d + 1)
        b.scatter_add_(1, d - rank, t)
        b.scatter_add_(1, d + 1 - rank, -t)
        b[:, 0] += 1 + b[:, d + 1]
        corners = torch.stack(
            [torch.where(rank <= d - k, r + k, r + k - (d + 1))[:, :d] for k in range(d + 1)], dim=1
        ).reshape(-1, d)
        low, high = corners.min(0).values - d - 1, corners.max(0).values + d + 1
        place = torch.cat([torch.ones(1).long(), (high - low + 1).cumprod(0)[:-1]])
        keys, inverse = torch.unique(((corners - low) * place).sum(1), return_inverse=True)
        self.inverse, self.weights, self.count = inverse, b[:, : d + 1].reshape(-1), len(keys)
        self.pixels = torch.arange(count).repeat_interleave(d + 1)
        self.neighbours = []
        for axis in range(d + 1):
            step = torch.ones(d).long()
            if axis < d:
                step[axis] = -d
            pair = []
            for sign in (-1, 1):
                wanted = keys + sign * (step * place).sum()
                found = torch.searchsorted(keys, wanted).clamp(max=len(keys) - 1)
                pair.append(torch.where(keys[found] == wanted, found, len(keys)))
            self.neighbours.append(pair)
        self.norm = (self.filter(torch.ones(count)) + 1e-20) ** -0.5

    def filter(self, values: Tensor) -> Tensor:
        lattice = torch.zeros(self.count + 1)
        lattice.index_add_(0, self.inverse, self.weights * values[self.pixels])
        for before, after in self.neighbours:
            blurred = lattice.clone()
            blurred[:-1] += 0.5 * (lattice[before] + lattice[after])
            lattice = blurred
        out = torch.zeros(len(values))
        return out.index_add_(0, self.pixels, self.weights * lattice[self.inverse])


def plain_build(image: np.ndarray, p: CrfParameters) -> list[tuple[Plain, float]]:
    y, x = (torch.from_numpy(axis.reshape(-1, 1)).float() for axis in np.mgrid[: SIZE[0], : SIZE[1]])
    places, colours = torch.cat([x, y], 1), torch.from_numpy(image.reshape(-1, 3)).float()
    bilateral = torch.cat([places / p.appearance_xy_std, colours / p.appearance_rgb_std], 1)
    spatial = places / p.smoothness_xy_std
    return [(Plain(spatial), p.smoothness_weight), (Plain(bilateral), p.appearance_weight)]


def plain_marginals(kernels: list[tuple[Plain, float]], unary: Tensor, iterations: int) -> Tensor:
    energy = unary.flatten(1)
    q = (-energy).softmax(0)
    for _ in range(iterations):
        logits = -energy.clone()
        for lattice, weight in kernels:
            for label in range(len(q)):
                logits[label] += weight * lattice.norm * lattice.filter(lattice.norm * q[label])
        q = logits.softmax(0)
    return q.view_as(unary)


# ---- the C++ package, where it can be imported


def cpp_marginals(image: np.ndarray, p: CrfParameters, unary: Tensor) -> Tensor | None:
    try:
        import pydensecrf.densecrf as cpp
    except ImportError:
        return None
    crf = cpp.DenseCRF2D(SIZE[1], SIZE[0], len(unary))
    crf.setUnaryEnergy(np.ascontiguousarray(unary.flatten(1).numpy()))
    crf.addPairwiseGaussian(sxy=p.smoothness_xy_std, compat=p.smoothness_weight)
    crf.addPairwiseBilateral(
        sxy=p.appearance_xy_std, srgb=p.appearance_rgb_std, rgbim=image, compat=p.appearance_weight
    )
    return torch.from_numpy(np.array(crf.inference(p.iterations))).view_as(unary)


# ---- measuring


def timed(work: Callable[[], Any], device: str = "cpu") -> tuple[float, Any]:
    start = time.perf_counter()
    result = work()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - start, result


def compare(preset: str, labels: int, repetitions: int, threads: int, device: str, save: bool) -> None:
    image, unary, p = photograph(), unaries(labels), PRESETS[preset]
    times: dict[str, list[float]] = {}

    def note(name: str, seconds: float) -> None:
        times.setdefault(name, []).append(seconds)

    DenseCrf(image, p, device=device, threads=threads).marginals(unary)  # compile
    for _ in range(repetitions):
        ours_build, crf = timed(lambda: DenseCrf(image, p, device=device, threads=threads), device)
        ours_run, marginals = timed(lambda crf=crf: crf.marginals(unary), device)  # type: ignore[misc]
        note("ours, build", ours_build + ours_run)
        note("ours, cached", ours_run)
        plain_first, kernels = timed(lambda: plain_build(image, p))
        plain_run, expected = timed(lambda k=kernels: plain_marginals(k, unary, p.iterations))  # type: ignore[misc]
        note("plain, build", plain_first + plain_run)
        note("plain, cached", plain_run)
        cpp_seconds, cpp = timed(lambda: cpp_marginals(image, p, unary))
        assert float((marginals - expected).abs().max()) < 5e-4, "the versions differ"
        if cpp is not None:
            note("cpp, build", cpp_seconds)
            assert float((marginals - cpp).abs().max()) < 5e-4, "the C++ package differs"
    median = {name: statistics.median(values) for name, values in times.items()}
    print({name: round(value, 3) for name, value in median.items()})
    peak = peak_mb(preset, labels, threads) if device == "cpu" else None
    if not save:
        print("peak MB beyond the inputs:", peak)
        return
    words = f"375 x 500, {preset}, {labels} labels, {threads} threads"
    for kind in ("build", "cached"):
        ours = median[f"ours, {kind}"]
        case = f"{words}, lattice {'built' if kind == 'build' else 'cached'}"
        record("dense_crf", case, BASELINE, median[f"plain, {kind}"] / ours, ours, peak, device=device)
        if kind == "build" and "cpp, build" in median:
            record("dense_crf", case, CPP, median["cpp, build"] / ours, ours, peak, device=device)


def peak_mb(preset: str, labels: int, threads: int) -> float:
    """Memory that one inference adds to that of the program, in a process of its own."""
    command = [sys.executable, __file__, "--peak", preset, str(labels), str(threads)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def print_peak(preset: str, labels: int, threads: int) -> None:
    image, unary = photograph(), unaries(labels)
    small, few = image[:8, :8].copy(), unary[:, :8, :8].contiguous()
    DenseCrf(small, PRESETS[preset], threads=threads).marginals(few)  # compile
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = high_water_mb()
    DenseCrf(image, PRESETS[preset], threads=threads).marginals(unary)
    print(high_water_mb() - before)


def high_water_mb() -> float:
    """Largest memory of this process since its record was cleared (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1e3


def several_images(count: int, threads: int, save: bool) -> None:
    """Images at once, one thread each, against one image after the other."""
    images = {str(number): photograph(number) for number in range(count)}
    unary = unaries(2)

    def work(image_id: str) -> None:
        DenseCrf(images[image_id], PRESETS["irn"]).marginals(unary)

    groups = [[image_id] for image_id in images]
    work_on_images(groups[:1], work, threads=1)
    alone = timed(lambda: work_on_images(groups, work, threads=1))[0]
    together = timed(lambda: work_on_images(groups, work, threads=threads))[0]
    print(f"{count} images: {alone:.2f} s one after the other, {together:.2f} s with {threads} at once")
    if save:
        case = f"{count} images of 375 x 500, irn, 2 labels, {threads} at once"
        record("dense_crf", case, "one image after the other", alone / together, together, None)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--labels", type=int, nargs="+", default=[2, 4, 21])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--no-record", action="store_true", help="only print")
    parser.add_argument("--peak", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak:
        print_peak(arguments.peak[0], int(arguments.peak[1]), int(arguments.peak[2]))
        return
    save = not arguments.no_record
    for preset in ("irn", "deeplab_v2"):
        for labels in arguments.labels:
            compare(preset, labels, arguments.repetitions, arguments.threads, arguments.device, save)
    several_images(8, arguments.threads, save)


if __name__ == "__main__":
    main()
