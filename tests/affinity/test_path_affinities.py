"""Path affinities against loops over every cell of every path, in value and gradient."""

import pytest
import torch
import torch.nn.functional as F

from wsss.affinity.pairs import destinations, offsets, path
from wsss.affinity.path_affinities import _runs, path_affinities, walk_affinities
from wsss.errors import ShapeError


def looped(boundary, radius):
    """One minus the maximum over the path, cell by cell, for the sources that training uses."""
    batch, height, width = boundary.shape
    reach = radius - 1
    result = torch.zeros(batch, len(offsets(radius)), height - reach, width - 2 * reach, dtype=boundary.dtype)
    for image in range(batch):
        for number, offset in enumerate(offsets(radius)):
            for y in range(height - reach):
                for x in range(reach, width - reach):
                    cells = [boundary[image, y + dy, x + dx] for dy, dx in path(*offset)]
                    result[image, number, y, x - reach] = 1 - max(cells)
    return result


def automatic(boundary, radius):
    """The same by torch's own maximum, which passes the gradient to one of the largest cells."""
    planes = [
        torch.stack([destinations(boundary, cell, radius) for cell in path(*offset)]).max(dim=0).values
        for offset in offsets(radius)
    ]
    return 1 - torch.stack(planes, dim=1)


@pytest.mark.parametrize("radius", [2, 3, 5])
def test_affinities_are_one_minus_the_largest_boundary_on_the_path(radius):
    boundary = torch.rand(2, radius + 3, 2 * radius + 2, generator=torch.Generator().manual_seed(radius))
    assert torch.equal(path_affinities(boundary, radius), looped(boundary, radius))


@pytest.mark.parametrize("radius", [5, 10])
def test_the_runs_of_a_path_are_its_cells(radius):
    for offset in offsets(radius):
        cells = []
        for run in _runs(*offset):
            y, x = run.cell
            steps = range(run.length)
            cells += [(y, x + step) if run.axis == -1 else (y + step, x) for step in steps]
        assert sorted(cells) == sorted(path(*offset))


def test_the_gradient_goes_to_the_largest_cell_of_each_path():
    generator = torch.Generator().manual_seed(0)
    boundary = torch.rand(2, 13, 24, dtype=torch.float64, generator=generator)
    first, second = boundary.clone().requires_grad_(), boundary.clone().requires_grad_()
    weights = torch.rand(path_affinities(boundary, 10).shape, dtype=torch.float64, generator=generator)
    (path_affinities(first, 10) * weights).sum().backward()
    (automatic(second, 10) * weights).sum().backward()
    torch.testing.assert_close(first.grad, second.grad)


def test_equal_cells_of_a_path_get_its_gradient_once():
    boundary = torch.full((1, 8, 11), 0.25, requires_grad=True)
    affinities = path_affinities(boundary, 4)
    affinities.sum().backward()
    assert float(boundary.grad.sum()) == -affinities.numel()


def test_the_walk_gets_every_pair_of_the_grid_and_none_that_leaves_it():
    """As the reference: pad by the radius with 1, take its sources, and drop the pairs of padded cells."""
    radius, height, width = 4, 6, 5
    boundary = torch.rand(1, height, width, generator=torch.Generator().manual_seed(0)) * 0.9
    padded = F.pad(boundary, (radius, radius, 0, radius), value=1.0)
    reference = looped(padded, radius)[..., :height, 1 : 1 + width]  # the sources start at column -1
    found = walk_affinities(boundary, radius)
    assert torch.equal(found, reference)
    for number, (dy, dx) in enumerate(offsets(radius)):
        for y in range(height):
            for x in range(width):
                is_inside = y + dy < height and 0 <= x + dx < width
                assert (float(found[0, number, y, x]) > 0) == is_inside


def test_a_single_cell_has_no_neighbours():
    assert torch.equal(walk_affinities(torch.rand(1, 1, 1), 5), torch.zeros(1, 34, 1, 1))


def test_maps_of_another_shape_are_refused():
    with pytest.raises(ShapeError, match="must be \\(B, h, w\\)"):
        path_affinities(torch.rand(9, 9), 3)
    with pytest.raises(ShapeError, match="radius 10"):
        path_affinities(torch.rand(1, 9, 30), 10)
