import pytest
import torch
from scipy.spatial.distance import cdist

from mltool.transfers._vectors import distances, match_precision


def test_distances_are_those_of_scipy() -> None:
    vectors = torch.randn(9, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = torch.from_numpy(cdist(vectors, vectors))
    torch.testing.assert_close(distances(vectors), expected)
    assert (distances(vectors).diagonal() == 0).all()


def test_a_far_origin_costs_no_precision() -> None:
    vectors = torch.randn(9, 4, generator=torch.Generator().manual_seed(0)) + 1000
    expected = torch.from_numpy(cdist(vectors, vectors)).float()
    torch.testing.assert_close(distances(vectors), expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_duplicates_have_a_distance_but_no_slope(dtype: torch.dtype) -> None:
    vectors = torch.ones(3, 2, dtype=dtype, requires_grad=True)
    apart = distances(vectors)
    assert apart[0, 1].item() == pytest.approx(1e-6)
    (gradient,) = torch.autograd.grad(apart.sum(), vectors)
    assert (gradient == 0).all()


def test_sides_share_the_students_precision() -> None:
    half = torch.ones(2, 3, dtype=torch.float16, requires_grad=True)
    for theirs in (torch.float16, torch.float32, torch.float64):
        student, teacher = match_precision(half, torch.ones(2, 5, dtype=theirs, requires_grad=True))
        assert student.dtype == teacher.dtype == torch.float32
        assert student.requires_grad
        assert not teacher.requires_grad
    assert match_precision(half.double(), half)[1].dtype == torch.float64
