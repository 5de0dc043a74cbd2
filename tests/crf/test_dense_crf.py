"""The dense CRF against a plainly written oracle, the C++ code's stored marginals, and invariants."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.crf.oracle_crf import OracleLattice, oracle_marginals
from tests.crf.write_golden import LABELS, PARAMETERS, probabilities, textured
from torch import Tensor

from wsss.crf import (
    PRESETS,
    CrfParameters,
    DenseCrf,
    unary_from_labels,
    unary_from_logits,
    unary_from_probabilities,
)
from wsss.crf.lattice import build_lattice
from wsss.crf.mean_field import seen_image
from wsss.errors import ShapeError

GOLDEN = Path(__file__).parent / "golden_marginals.npz"
CPP = Path(__file__).resolve().parents[3] / "shared" / "data" / "crf_golden"
NAMES = {"cam_labels_irn": "irn", "deeplab": "deeplab_v2", "wide": "psa"}
CLOSE, SAME = 5e-4, 0.999


def parameters(name: str) -> CrfParameters:
    (weight, xy), (bilateral, bilateral_xy, rgb) = PARAMETERS[name]
    return CrfParameters(
        smoothness_weight=weight,
        smoothness_xy_std=xy,
        appearance_weight=bilateral,
        appearance_xy_std=bilateral_xy,
        appearance_rgb_std=rgb,
    )


def compiled(image: np.ndarray, settings: CrfParameters, unary: Tensor) -> Tensor:
    return DenseCrf(image, settings).marginals(unary)


def two_threads(image: np.ndarray, settings: CrfParameters, unary: Tensor) -> Tensor:
    return DenseCrf(image, settings, threads=2).marginals(unary)


def in_torch(image: np.ndarray, settings: CrfParameters, unary: Tensor) -> Tensor:
    """The way of accelerators, on the CPU: as a batch of two images of which the second is another one."""
    images = np.stack([image, np.ascontiguousarray(image[::-1])])
    return DenseCrf(images, settings).marginals(torch.stack([unary, unary.flip(1)]))[0]


WAYS = {"compiled": compiled, "two threads": two_threads, "torch": in_torch}


def assert_agrees(found: Tensor, expected: Tensor) -> None:
    assert found.shape == expected.shape
    assert float((found - expected).abs().max()) <= CLOSE
    assert float((found.argmax(0) == expected.argmax(0)).float().mean()) >= SAME


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("name", PARAMETERS)
def test_marginals_agree_with_the_oracles(name: str, labels: int, way: str) -> None:
    with np.load(GOLDEN) as file:
        image = file[f"{name}_image"]
        given = torch.from_numpy(file[f"{name}_{labels}_probabilities"].astype(np.float32))
        expected = torch.from_numpy(file[f"{name}_{labels}_marginals"].astype(np.float32) / 65535)
    assert_agrees(WAYS[way](image, parameters(name), -given.log()), expected)


@pytest.mark.parametrize("size", [(1, 23), (17, 1), (1, 1), (2, 3)])
@pytest.mark.parametrize("way", WAYS)
def test_images_of_one_row_column_or_pixel_agree_with_the_oracle(size: tuple[int, int], way: str) -> None:
    rng = np.random.default_rng(3)
    image, given = textured(size, rng), probabilities(size, 3, rng)
    unary = -np.log(given.astype(np.float64))
    expected = oracle_marginals(image, unary, *PARAMETERS["coarse"], 10)
    found = WAYS[way](image, parameters("coarse"), torch.from_numpy(unary).float())
    assert_agrees(found, torch.from_numpy(expected).float())


@pytest.mark.data
@pytest.mark.parametrize("way", ["compiled", "torch"])
@pytest.mark.parametrize("case", ["case0_2labels", "case1_4labels", "case2_21labels"])
def test_marginals_agree_with_those_of_the_cpp_code(case: str, way: str) -> None:
    if not CPP.is_dir():
        pytest.skip(f"needs the C++ code's marginals in {CPP.name}, which are not part of the repository")
    with np.load(CPP / f"{case}.npz") as file:
        image = file["image"]
        unary = -torch.from_numpy(file["probabilities"].astype(np.float32)).log()
        stored = {name: file[f"marginals_{name}"] for name in NAMES if f"marginals_{name}" in file}
    assert stored
    for name, values in stored.items():
        expected = torch.from_numpy(values.astype(np.float32) / 65535)
        settings = PRESETS[NAMES[name]].model_copy(update={"channel_order": "rgb"})  # as these were made
        assert_agrees(WAYS[way](image, settings, unary), expected)


@pytest.mark.gpu
@pytest.mark.parametrize("labels", LABELS)
def test_an_accelerator_gives_the_same_marginals(labels: int) -> None:
    with np.load(GOLDEN) as file:
        image = file["coarse_image"]
        unary = -torch.from_numpy(file[f"coarse_{labels}_probabilities"].astype(np.float32)).log()
    expected = compiled(image, parameters("coarse"), unary)
    found = DenseCrf(np.stack([image, image]), parameters("coarse"), device="cuda")
    for marginals in found.marginals(torch.stack([unary, unary])):
        assert_agrees(marginals, expected)


@pytest.mark.parametrize("dimensions", [1, 2, 3, 5])
def test_one_filtering_agrees_with_the_oracles(dimensions: int) -> None:
    rng = np.random.default_rng(dimensions)
    features = rng.normal(size=(60, dimensions)) * 2
    values = rng.random((60, 2))
    oracle = OracleLattice(features.astype(np.float32))
    expected = oracle.filter(values)
    expected /= expected.sum()  # a constant factor is left out
    for groups in (None, torch.zeros(60, dtype=torch.int64)):  # compiled, torch
        lattice = build_lattice(torch.from_numpy(features).float(), groups)
        assert lattice.num_points == len(oracle.keys)
        torch.testing.assert_close(lattice.weights.sum(dim=1), torch.ones(60))
        found = filtered(lattice, values)
        np.testing.assert_allclose(found / found.sum(), expected, rtol=1e-4, atol=1e-7)


def filtered(lattice, values: np.ndarray) -> np.ndarray:
    """Splat, blur and slice with loops over the lattice's own arrays."""
    vertices, weights = lattice.vertices.numpy(), lattice.weights.numpy()
    points = np.zeros((lattice.num_points + 1, values.shape[1]))
    for pixel, corners in enumerate(vertices):
        for corner, weight in zip(corners, weights[pixel], strict=True):
            points[corner] += weight * values[pixel]
    for axis in lattice.neighbours.numpy():
        blurred = points.copy()
        for point, (before, after) in enumerate(axis):
            blurred[point] = points[point] + 0.5 * (points[before] + points[after])
        points = blurred
    return np.einsum("pk,pkc->pc", weights, points[vertices])


def problem(labels: int = 3, size: tuple[int, int] = (21, 26), seed: int = 5) -> tuple[np.ndarray, Tensor]:
    rng = np.random.default_rng(seed)
    return textured(size, rng), unary_from_probabilities(torch.from_numpy(probabilities(size, labels, rng)))


@pytest.mark.parametrize("way", WAYS)
def test_marginals_sum_to_one(way: str) -> None:
    image, unary = problem()
    marginals = WAYS[way](image, PRESETS["irn"], unary)
    torch.testing.assert_close(marginals.sum(dim=0), torch.ones(21, 26))
    assert marginals.min() >= 0


def test_without_updates_the_marginals_are_the_softmax_of_the_unary() -> None:
    image, unary = problem()
    found = DenseCrf(image, PRESETS["irn"]).marginals(unary, iterations=0)
    torch.testing.assert_close(found, (-unary).softmax(dim=0))


@pytest.mark.parametrize("way", WAYS)
def test_permuted_labels_give_permuted_marginals(way: str) -> None:
    image, unary = problem(labels=5)
    order = [3, 0, 4, 1, 2]
    found = WAYS[way](image, PRESETS["deeplab_v2"], unary)
    torch.testing.assert_close(WAYS[way](image, PRESETS["deeplab_v2"], unary[order]), found[order])


@pytest.mark.parametrize("labels", [2, 3, 9])
def test_several_problems_on_one_image_are_solved_as_if_alone(labels: int) -> None:
    image, first = problem(labels)
    second = problem(labels, seed=6)[1]
    crf = DenseCrf(image, PRESETS["psa"])
    both = crf.marginals(torch.stack([first, second]))
    for found, unary in zip(both, (first, second), strict=True):
        torch.testing.assert_close(found, crf.marginals(unary), atol=1e-5, rtol=1e-4)
    batch = DenseCrf(image[None], PRESETS["psa"]).marginals(torch.stack([first, second])[None])[0]
    torch.testing.assert_close(batch, both, atol=1e-4, rtol=1e-3)


def test_images_of_a_batch_never_meet() -> None:
    image, unary = problem()
    other = np.ascontiguousarray(image[:, ::-1])
    alone = DenseCrf(image[None], PRESETS["irn"]).marginals(unary[None])[0]
    together = DenseCrf(np.stack([other, image, image]), PRESETS["irn"])
    found = together.marginals(torch.stack([unary.flip(2), unary, unary]))
    torch.testing.assert_close(found[1], alone)
    torch.testing.assert_close(found[2], alone)


def test_a_mirrored_image_gives_mirrored_labels() -> None:
    image, unary = problem(size=(40, 50))
    found = compiled(image, PRESETS["irn"], unary).argmax(0)
    mirrored = compiled(np.ascontiguousarray(image[:, ::-1]), PRESETS["irn"], unary.flip(2)).argmax(0)
    assert float((found == mirrored.flip(1)).float().mean()) >= 0.99


def test_a_label_follows_the_colours_of_the_image() -> None:
    image = np.zeros((20, 30, 3), np.uint8)
    image[:, 15:] = 200
    rough = torch.full((2, 20, 30), 0.5)
    rough[1, :, 18:24], rough[0, :, 18:24] = 0.8, 0.2
    rough[1, :, 4:9], rough[0, :, 4:9] = 0.2, 0.8
    labels = compiled(image, PRESETS["irn"], unary_from_probabilities(rough)).argmax(0)
    assert bool((labels[:, 15:] == 1).all())
    assert bool((labels[:, :15] == 0).all())


@pytest.mark.parametrize("way", WAYS)
def test_an_image_of_one_colour_is_smoothed_only(way: str) -> None:
    _, unary = problem()
    grey = np.full((21, 26, 3), 90, np.uint8)
    marginals = WAYS[way](grey, PRESETS["irn"], unary)
    assert bool(torch.isfinite(marginals).all())
    same = torch.zeros(2, 21, 26)
    torch.testing.assert_close(WAYS[way](grey, PRESETS["irn"], same), torch.full((2, 21, 26), 0.5))


def test_weights_of_zero_leave_a_kernel_out() -> None:
    image, unary = problem()
    nothing = CrfParameters(smoothness_weight=0, appearance_weight=0)
    torch.testing.assert_close(compiled(image, nothing, unary), (-unary).softmax(dim=0))
    spatial = CrfParameters(appearance_weight=0)
    torch.testing.assert_close(
        compiled(image, spatial, unary), compiled(image[::-1].copy(), spatial, unary), atol=1e-6, rtol=1e-5
    )


def test_one_label_and_no_label_need_no_inference() -> None:
    image, unary = problem()
    crf = DenseCrf(image, PRESETS["irn"])
    assert bool((crf.marginals(unary[:1]) == 1).all())
    assert crf.marginals(unary[:0]).shape == (0, 21, 26)


def test_threads_of_the_program_may_share_the_kernels() -> None:
    image, unary = problem(size=(60, 70))
    expected = compiled(image, PRESETS["irn"], unary)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: compiled(image, PRESETS["irn"], unary), range(8)):
            assert torch.equal(found, expected)


def test_parameters_travel_to_other_processes() -> None:
    assert pickle.loads(pickle.dumps(PRESETS["psa"])) == PRESETS["psa"]


# ---- unaries, presets, the legacy image


def test_unaries_have_the_published_values() -> None:
    unary = unary_from_labels(torch.tensor([[0, 1]]), 2)
    torch.testing.assert_close(unary[:, 0, 0], torch.tensor([0.35667, 1.20397]), atol=1e-5, rtol=0)
    three = unary_from_labels(torch.tensor([[2]]), 3, certainty=0.5)
    torch.testing.assert_close(three.flatten().exp(), torch.tensor([4.0, 4.0, 2.0]))
    scores = torch.tensor([0.0, 0.5, 1.0]).view(3, 1, 1)  # need not sum to one
    torch.testing.assert_close(
        unary_from_probabilities(scores).flatten().exp(), torch.tensor([1e5, 2.0, 1.0])
    )
    logits = torch.tensor([0.0, 100.0]).view(2, 1, 1)
    torch.testing.assert_close(
        unary_from_logits(logits).flatten(), torch.tensor([-np.log(1e-5), 0.0]).float(), atol=1e-5, rtol=0
    )


def test_presets_hold_the_published_parameters() -> None:
    table = {
        "irn": (3, 3, 10, 50, 5),
        "clims": (3, 3, 10, 50, 5),
        "psa": (3, 3, 10, 80, 13),
        "deeplab_v2": (3, 1, 4, 67, 3),
        "clip_es": (3, 1, 4, 67, 3),
        "vwl": (3, 1, 4, 64, 3),
        "deeplab_v1_vgg16": (3, 3, 4, 121, 5),
        "deeplab_v2_vgg16": (2, 2, 4, 65, 3),
    }
    for name, values in table.items():
        order = "bgr" if name in ("deeplab_v2", "clip_es") else "rgb"
        assert tuple(PRESETS[name].model_dump().values()) == (*values, 10, order, False), name
    for name in ("deeplab_v2_legacy", "clip_es_legacy"):
        assert PRESETS[name].wrapped_means
        correct = PRESETS[name].model_copy(update={"wrapped_means": False})
        assert correct == PRESETS[name.removesuffix("_legacy")]


def test_the_legacy_image_wraps_around() -> None:
    pixel = np.array([[[120, 116, 104]]], np.uint8)  # red, green, blue
    settings = CrfParameters(channel_order="bgr", wrapped_means=True)
    # blue 104 - 104.008 = -0.008 -> 0; green 116 - 116.669 -> 0; red 120 - 122.675 = -2.675 -> -2 -> 254
    assert seen_image(pixel, settings).tolist() == [[[0, 0, 254]]]
    assert seen_image(np.full((1, 1, 3), 0, np.uint8), settings).tolist() == [[[152, 140, 134]]]
    assert seen_image(pixel, CrfParameters(channel_order="bgr")).tolist() == [[[104, 116, 120]]]
    assert seen_image(pixel, CrfParameters()) is pixel


# ---- bad input


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda i, u: DenseCrf(i.astype(float), PRESETS["irn"]), "uint8"),
        (lambda i, u: DenseCrf(i[:, :, 0], PRESETS["irn"]), "Convert them to 8-bit RGB"),
        (lambda i, u: DenseCrf(i[:0], PRESETS["irn"]), "at least one pixel"),
        (lambda i, u: DenseCrf(i, PRESETS["irn"]).marginals(u[:, 1:]), "21 x 26"),
        (lambda i, u: DenseCrf(i, PRESETS["irn"]).marginals(u * float("nan")), "finite"),
        (lambda i, u: DenseCrf(i, PRESETS["irn"]).marginals(u - float("inf")), "finite"),
        (lambda i, u: DenseCrf(i, CrfParameters(appearance_rgb_std=1e-4, appearance_xy_std=1e-4)), "2\\^62"),
        (lambda i, u: DenseCrf(i[None], PRESETS["irn"]).marginals(u[None].repeat(2, 1, 1, 1)), "B, "),
        (lambda i, u: unary_from_probabilities(u - 9), "must lie in"),
        (lambda i, u: unary_from_probabilities(u * float("nan")), "nan"),
        (lambda i, u: unary_from_labels(torch.tensor([[2]]), 2), "positions in 0…1"),
        (lambda i, u: unary_from_labels(torch.tensor([[-1]]), 2), "positions in 0…1"),
        (lambda i, u: unary_from_labels(torch.tensor([[0]]), 1), "at least two labels"),
        (lambda i, u: unary_from_logits(u * float("nan")), "must be finite"),
    ],
)
def test_bad_input_gets_one_clear_error(make, message: str) -> None:
    image, unary = problem()
    with pytest.raises(ShapeError, match=message):
        make(image, unary)
