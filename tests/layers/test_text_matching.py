from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from wsss.errors import ShapeError
from wsss.layers import text_matching as matching


def test_pairs_go_through_the_images_in_order() -> None:
    labels = torch.tensor([[0, 1, 1], [0, 0, 0], [1, 0, 0]])
    for image_labels in (labels.bool(), labels.double(), labels * 0.9):
        pairs = matching.positive_pairs(image_labels)
        assert pairs.image.tolist() == [0, 0, 2]
        assert pairs.column.tolist() == [1, 2, 0]
        assert len(pairs) == 3


def test_one_pair_and_no_pair_keep_their_dimensions() -> None:
    maps = torch.rand(2, 3, 4, 5)
    one = matching.positive_pairs(torch.tensor([[False] * 3, [False, True, False]]))
    assert matching.of_pairs(maps, one).shape == (1, 1, 4, 5)
    none = matching.positive_pairs(torch.zeros(2, 3, dtype=torch.bool))
    assert len(none) == 0
    assert matching.of_pairs(maps, none).shape == (0, 1, 4, 5)


def test_picking_maps_before_upsampling_equals_picking_after() -> None:
    maps, labels = torch.rand(3, 4, 5, 6), torch.rand(3, 4) > 0.5
    pairs = matching.positive_pairs(labels)
    early = matching.resized_with_corners(matching.of_pairs(maps, pairs), (17, 19))
    late = matching.of_pairs(matching.resized_with_corners(maps, (17, 19)), pairs)
    assert torch.allclose(early, late, atol=1e-6)


def test_corners_stay_corners() -> None:
    plane = torch.rand(1, 1, 5, 7)
    resized = matching.resized_with_corners(plane, (12, 9))
    assert torch.allclose(
        resized[..., [0, 0, -1, -1], [0, -1, 0, -1]], plane[..., [0, 0, -1, -1], [0, -1, 0, -1]]
    )


def test_regions_add_up_to_the_image_and_what_is_removed_is_zero() -> None:
    images, maps = torch.randn(2, 3, 6, 6), torch.rand(2, 1, 6, 6)
    inside, outside = matching.region_images(images, maps), matching.region_images(images, 1 - maps)
    assert torch.allclose(inside + outside, images, atol=1e-6)
    maps[0] = 0
    assert not matching.region_images(images, maps)[0].any()


def test_a_map_of_another_size_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"`maps` must have shape \(2, 1, 6, 6\)"):
        matching.region_images(torch.randn(2, 3, 6, 6), torch.rand(2, 1, 5, 6))


def test_renormalised_equals_going_through_pixels() -> None:
    pixels = torch.rand(2, 3, 4, 4)
    one, other = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), ((0.48, 0.46, 0.41), (0.27, 0.26, 0.28))

    def normalised(statistics):
        mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in statistics)
        return (pixels - mean) / std

    assert torch.allclose(matching.renormalised(normalised(one), one, other), normalised(other), atol=1e-5)
    assert matching.renormalised(pixels, one, one) is pixels


def test_golden_values_of_attraction_and_repulsion() -> None:
    otm = matching.attraction(torch.tensor([0.3, 0.2, -0.05]), "clamp").mean()
    assert float(otm) == pytest.approx(4.00792, abs=1e-5)
    btm = matching.repulsion(torch.tensor([0.25, 0.1]), "clamp").mean()
    assert float(btm) == pytest.approx(0.196521, abs=1e-6)
    weighted = (torch.tensor([3.0, 1.0]) * matching.attraction(torch.tensor([0.2, 0.3]), "raw")).mean()
    assert float(weighted) == pytest.approx(3.01614, abs=1e-5)


@pytest.mark.parametrize("mapping", ["clamp", "raw", "shifted", "tangent"])
def test_every_cosine_gives_finite_losses_and_gradients(mapping) -> None:
    similarity = torch.tensor([-1.0, -0.3, 0.0, 1e-6, 0.3, 1 - 1e-7, 1.0], requires_grad=True)
    for loss in (matching.attraction(similarity, mapping), matching.repulsion(similarity, mapping)):
        assert torch.isfinite(loss).all()
        (gradient,) = torch.autograd.grad(loss.sum(), similarity)
        assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("mapping", ["clamp", "raw", "shifted", "tangent"])
def test_attraction_falls_and_repulsion_rises_with_similarity(mapping) -> None:
    similarity = torch.linspace(-1, 1, 401)
    assert (matching.attraction(similarity, mapping).diff() <= 1e-6).all()
    assert (matching.repulsion(similarity, mapping).diff() >= -1e-6).all()


def test_mappings_agree_where_they_should() -> None:
    similarity = torch.linspace(0.06, 0.94, 50)
    for mapping in ("raw", "tangent"):
        assert torch.allclose(
            matching.attraction(similarity, mapping), matching.attraction(similarity, "clamp")
        )
        assert torch.allclose(
            matching.repulsion(similarity, mapping), matching.repulsion(similarity, "clamp")
        )
    shifted = matching.attraction(similarity, "shifted")
    assert torch.allclose(shifted, -torch.log((similarity + 1) / 2), atol=1e-6)


def test_only_mappings_for_negative_cosines_pull_at_them() -> None:
    for mapping, pulls in (("clamp", False), ("raw", False), ("shifted", True), ("tangent", True)):
        similarity = torch.tensor([-0.2], requires_grad=True)
        (gradient,) = torch.autograd.grad(matching.attraction(similarity, mapping).sum(), similarity)
        assert bool(gradient < 0) == pulls


def test_the_tangent_is_smooth() -> None:
    knee = torch.tensor([matching.KNEE - 1e-4, matching.KNEE + 1e-4], requires_grad=True)
    loss = matching.attraction(knee, "tangent")
    (gradient,) = torch.autograd.grad(loss.sum(), knee)
    assert abs(float(loss[0].detach() - loss[1].detach())) < 5e-3
    assert torch.allclose(gradient[0], gradient[1], rtol=5e-3)


def test_unit_features_are_float32_and_zero_is_no_accident() -> None:
    features = torch.tensor([[3.0, 4.0], [0.0, 0.0]], dtype=torch.bfloat16)
    assert matching.unit(features).dtype == torch.float32
    assert matching.unit(features).tolist() == [[pytest.approx(0.6), pytest.approx(0.8)], [0.0, 0.0]]


def test_full_precision_ends_autocast() -> None:
    a = torch.rand(4, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (a @ a).dtype == torch.bfloat16
        with matching.full_precision(a.device):
            assert (a @ a).dtype == torch.float32
            assert F.linear(a, a).dtype == torch.float32
